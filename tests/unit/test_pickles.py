"""Pickles of strangers: nothing is run, and no size in them is believed."""

import collections
import io
import os
import pickle
import pickletools
import struct
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harca.readers.pickles import _VALUES, Kept, NotAllowed, plain, unpickle


class Runs:
    """Unpickling it would run a command."""

    def __reduce__(self):
        return os.system, ("touch ran",)


class Known:
    def __init__(self):
        self.name = "x"


KNOWN = {(__name__, "Known")}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_object_is_kept_with_its_state(protocol):
    found = unpickle(pickle.dumps([Known(), {"a": Known()}], protocol), KNOWN)

    assert isinstance(found[0], Kept)
    assert (found[0].kind, found[0].state) == (f"{__name__}.Known", {"name": "x"})
    assert found[1]["a"].state == {"name": "x"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_run_and_what_was_wanted_is_told(protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(NotAllowed) as caught:
        unpickle(pickle.dumps({"a": [Runs()]}, protocol), KNOWN)

    assert caught.value.wanted == "posix.system"
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_looked_up_outside_is_refused():
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return "outside" if value == 5 else None

    file = io.BytesIO()
    Pickler(file).dump([5])

    with pytest.raises(NotAllowed, match="persistent id 'outside'"):
        unpickle(file.getvalue(), ())


VALUES = [
    "text", b"bytes", 1.5, -(2**70), None, True, (1, 2), {1, 2}, datetime(2024, 1, 2),  # noqa: DTZ001
    PurePosixPath("/a/b"), UUID(int=5), np.float32(0.5), np.arange(3), collections.OrderedDict(a=1),
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_metadata_hold_is_read_in_every_protocol(protocol):
    found = plain(unpickle(pickle.dumps(VALUES, protocol), ()))

    assert found == [
        "text", b"bytes", 1.5, -(2**70), None, True, [1, 2], [1, 2], datetime(2024, 1, 2),  # noqa: DTZ001
        "/a/b", UUID(int=5), 0.5, [0, 1, 2], {"a": 1},
    ]  # fmt: skip


def counted(code: bytes, layout: str, count: int) -> bytes:
    return b"\x80\x04" + code + struct.pack(layout, count) + b"abc."


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"hello",
        b"N",
        b"\x80\x04N" + pickle.LONG_BINPUT + struct.pack("<I", 2**31) + b".",
        b"Np99999999999\n.",
        b"Np-1\n.",
        b"cposix",
        b"cposix\nsystem",
        counted(pickle.BINUNICODE8, "<Q", 2**40),
        counted(pickle.BINBYTES8, "<Q", 2**63),
        counted(pickle.BYTEARRAY8, "<Q", 2**34),
        counted(pickle.FRAME, "<Q", 2**40),
        counted(pickle.LONG4, "<i", -1),
        counted(pickle.BINSTRING, "<i", 2**31 - 1),
    ],
    ids=repr,
)
def test_no_pickle_and_impossible_sizes_are_an_error(data):
    with pytest.raises(ValueError, match="no readable pickle"):
        unpickle(data, ())


def shared(levels: int) -> list[Any]:
    value: list[Any] = ["x"]
    for _ in range(levels):
        value = [value] * 10
    return value


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (shared(90), "larger than 64 MiB"),
        (circular(), "nested too deeply"),
        ({"a": ["x" * 10_000] * 9000}, "larger than 64 MiB"),
        (1 << 100_000, "a number of 100001 bits"),
        ({(1, 2): 3}, "a tuple as a name"),
    ],
    ids=["shared", "circular", "repeated", "large", "name"],
)
def test_what_would_become_too_large_is_an_error(value, message):
    with pytest.raises(ValueError, match=message):
        plain(unpickle(pickle.dumps(value), ()))


@given(
    base=st.sampled_from(
        [pickle.dumps([*VALUES, Known(), Known()], protocol) for protocol in range(6)]
    ),
    changes=st.lists(
        st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=6)), max_size=3
    ),
)
def test_wrong_bytes_are_an_error_at_worst(base, changes):
    data = bytearray(base)
    for at, new in changes:
        data[at % len(data) : at % len(data) + len(new)] = new

    with suppress(ValueError):  # NotAllowed is one too
        plain(unpickle(bytes(data), KNOWN))


@given(
    st.lists(
        st.tuples(st.sampled_from(pickletools.opcodes), st.binary(max_size=9)), max_size=12
    ).map(lambda parts: b"".join(part.code.encode("latin1") + rest for part, rest in parts) + b".")
)
def test_any_operations_are_an_error_at_worst(data):
    with suppress(ValueError):
        plain(unpickle(data, KNOWN))


def named(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


@pytest.mark.parametrize(("module", "name"), [*_VALUES, ("uuid", "UUID"), ("a", "Document")])
@pytest.mark.parametrize("attribute", ["_str", "suffix", "__defaults__", "__call__", "int", "x"])
def test_what_a_pickle_names_cannot_be_changed(module, name, attribute):
    before = [(known, vars(known).copy()) for known in (PurePosixPath, PureWindowsPath, UUID, Kept)]
    functions = [(one, getattr(one, "__defaults__", None)) for one in _VALUES.values()]
    state = b"N}U" + bytes([len(attribute)]) + attribute.encode() + b"U\x05.evils\x86b."

    with suppress(ValueError):
        unpickle(b"\x80\x02" + named(module, name) + state, [("a", "Document")])

    assert Path("/a/b.json").suffix == ".json"
    assert [(known, vars(known).copy()) for known, _ in before] == before
    assert [(one, getattr(one, "__defaults__", None)) for one in _VALUES.values()] == functions


@pytest.mark.parametrize("protocol", range(6))
def test_a_uuid_is_read_however_it_was_written(protocol):
    value = UUID("12345678-1234-5678-1234-567812345678")

    assert plain(unpickle(pickle.dumps({"id": value}, protocol), ())) == {"id": value}
