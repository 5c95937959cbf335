"""Damaged stores of every format: an error with a hint or rejections, never anything else."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harca.errors import HarcaError, SourceError, UsageError
from harca.model import Record, Rejection
from tests.contract.test_readers import CASES, entries_of, files_of

SOME = [("one, two", [0.5, 123.25, -1e-7]), ("日本語", [7.0, 0.125, 1e20]), ("", [1.0, 2.0, 3.0])]

# What a file, a position in it (as a share of its length) and the bytes there become.
EDITS = st.lists(
    st.tuples(
        st.integers(0, 20),
        st.floats(0, 1),
        st.integers(0, 8),
        st.one_of(
            st.binary(max_size=8),
            st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff", b"[" * 40, b'"', b"e9"]),
        ),
    ),
    min_size=1,
    max_size=4,
)


CHEAP = [name for name, case in CASES.items() if not case.costly]
COSTLY = [name for name, case in CASES.items() if case.costly]
NOT_CHECKED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture(scope="module")
def whole(request, tmp_path_factory):
    return CASES[request.param].make(tmp_path_factory.mktemp("whole"), SOME)


def edited(path: Path, edits) -> None:
    files = sorted(files_of(path))
    for number, share, taken, put in edits:
        file = files[number % len(files)]
        data = file.read_bytes()
        at = int(share * len(data))
        file.write_bytes(data[:at] + put + data[at + taken :])
        os.utime(file, (0, 0))


def read(path: Path) -> tuple[HarcaError | None, list[Record | Rejection]]:
    try:
        return None, entries_of(path)
    except (SourceError, UsageError) as exc:
        return exc, []


@pytest.mark.parametrize("whole", CHEAP, indirect=True)
@given(edits=EDITS)
@settings(max_examples=12, deadline=None, suppress_health_check=NOT_CHECKED)
def test_a_damaged_store_is_read_as_far_as_it_goes_or_refused(whole, edits):
    check(whole, edits)


@pytest.mark.parametrize("whole", COSTLY, indirect=True)
@given(edits=EDITS)
@settings(max_examples=2, deadline=None, suppress_health_check=NOT_CHECKED)
def test_a_damaged_store_that_is_costly_to_open_is_too(whole, edits):
    check(whole, edits)


def check(whole: Path, edits) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, whole.name)
        (shutil.copytree if whole.is_dir() else shutil.copy)(whole, path)
        edited(path, edits)

        refusal, found = read(path)

        if refusal is not None:
            assert str(refusal)
            assert refusal.hint
            return
        assert found
        assert all(isinstance(one, Record) or one.reason for one in found)
        assert all(
            one.payload is not None or one.detail for one in found if isinstance(one, Rejection)
        )
        assert len({one.origin for one in found if isinstance(one, Record)}) == sum(
            isinstance(one, Record) for one in found
        )
