"""Pins: what a store held when it was planned, and the Python that says so."""

import ast
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harca.errors import Refused, StoreChanged, UsageError
from harca.inspect import inspect
from harca.model import Expired
from harca.options import LoadOptions
from harca.pins import Pins, measure, require_as_planned
from harca.revision_file import assignment
from tests.conftest import ROOT
from tests.stores import record, write_record, write_store

PINS = Pins("harca", 120, {"non-finite": 1}, {("m", 384): 100, ("m", 3): 20}, "120:aa")

HOSTILE = [
    "plain",
    "it's",
    'say "hi"',
    "both ' and \"",
    'more " than \' "',
    '"""',
    "'''",
    '"""; import os; os.abort(); """',
    "\\",
    "\\'",
    "ends with \\",
    "line\nbreak\r\n\ttab",
    "nul \0, escape \x1b[2J, delete \x7f",
    "全角（かっこ）、「」　",
    "right to left \u202e, not a character \ufffe, no break \u00a0",
    "half a pair \udcff",
    "${message} <% raise %> %(here)s {format} ##",
    "x" * 96,
    "a b " * 40,
    "",
]


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (PINS, []),
        (Pins("llamaindex", 120, PINS.rejected, PINS.spaces, "120:aa"),
         ["format harca -> llamaindex"]),
        (Pins("harca", 121, PINS.rejected, {("m", 384): 101, ("m", 3): 20}, "121:bb"),
         ["records 120 -> 121", "space m/384 100 -> 101"]),
        (Pins("harca", 120, PINS.rejected, {("m", 384): 100, ("n", 3): 20}, "120:bb"),
         ["space m/3 20 -> 0", "space n/3 0 -> 20"]),
        (Pins("harca", 120, {"no-vector": 1}, PINS.spaces, "120:aa"),
         ["rejected as no-vector 0 -> 1", "rejected as non-finite 1 -> 0"]),
        (Pins("harca", 120, PINS.rejected, PINS.spaces, "120:bb"),
         ["contents, with equal counts: fingerprint 120:aa -> 120:bb"]),
    ],
    ids=["nothing", "format", "a record", "a label", "a reason", "contents"],
)  # fmt: skip
def test_changes_say_what_differs(now, expected):
    assert PINS.changes(now) == expected


def test_pins_come_back_from_a_file_as_they_were():
    assert Pins.from_dict(PINS.as_dict()) == PINS


@pytest.mark.parametrize(
    "raw",
    [{}, {**PINS.as_dict(), "spaces": {"m": 3}}, {**PINS.as_dict(), "rejected": 1}, []],
    ids=["empty", "spaces", "rejected", "a list"],
)
def test_pins_edited_into_something_else_are_an_error(raw):
    with pytest.raises(UsageError, match="the revision's pins cannot be read"):
        Pins.from_dict(raw)


def test_a_store_is_measured_as_it_was_inspected(tmp_path):
    store = write_store(tmp_path / "store", 9)
    write_record(store / "cache", record("bad", [None]))
    for folder in ("a", "b"):
        write_record(store / folder, record("twice", [1.0, len(folder)], model="m"))

    assert measure(store, LoadOptions()) == Pins.of(inspect(store))


def test_reading_by_harca_is_no_change(tmp_path):
    store = tmp_path / "store"
    path = write_record(store, record("key", [1.0, 2.0]))
    pins = Pins.of(inspect(store))
    write_record(store, record("key", [1.0, 2.0], accessCount=7, lastAccessed="2026-01-01"))

    require_as_planned(store, pins, LoadOptions(), revision="r")

    path.write_text(path.read_text().replace("2.0", "2.5"))
    with pytest.raises(StoreChanged, match="contents, with equal counts"):
        require_as_planned(store, pins, LoadOptions(), revision="r")


def test_time_is_no_change(tmp_path):
    """All records are expired already; they are pinned whether or not they are skipped."""
    store = write_store(tmp_path / "store", 3)
    skipping = LoadOptions(expired=Expired.SKIP)

    require_as_planned(store, Pins.of(inspect(store)), skipping, revision="r")


def test_a_moved_store_is_no_change(tmp_path):
    store = write_store(tmp_path / "store", 3)
    pins = Pins.of(inspect(store))
    moved = store.rename(tmp_path / "moved")

    require_as_planned(moved, pins, LoadOptions(), revision="r")
    with pytest.raises(StoreChanged, match=f'no store at "{store}"') as raised:
        require_as_planned(store, pins, LoadOptions(), revision="abc")

    assert "--store abc=PATH (alembic: -x store.abc=PATH)" in raised.value.hint


@pytest.mark.parametrize("left", ["an empty folder", "a folder with notes.txt"])
def test_a_store_without_vectors_has_changed(tmp_path, left):
    store = write_store(tmp_path / "store", 3)
    pins = Pins.of(inspect(store))
    shutil.rmtree(store)
    store.mkdir()
    if "notes" in left:
        (store / "notes.txt").write_text("moved")

    with pytest.raises(StoreChanged, match=f"found {left}"):
        require_as_planned(store, pins, LoadOptions(), revision="r")


def test_pinned_rejections_are_refused_unless_allowed(tmp_path):
    store = write_store(tmp_path / "store", 3)
    write_record(store / "cache", record("bad", [None]))
    pins = Pins.of(inspect(store))

    require_as_planned(store, pins, LoadOptions(max_rejects=1), revision="r")
    with pytest.raises(Refused) as raised:
        require_as_planned(store, pins, LoadOptions(), revision="r")

    assert str(raised.value) == f'1 record of "{store}" would be rejected: 1 non-finite; 0 allowed'
    assert "--max-rejects 1 (alembic: -x max_rejects=1)" in raised.value.hint


@given(st.text() | st.sampled_from(HOSTILE))
def test_any_text_is_written_as_python_that_gives_it_back(text):
    written = assignment("store", text)

    (statement,) = ast.parse(written).body
    assert isinstance(statement, ast.Assign)
    assert ast.literal_eval(statement.value) == text


@given(st.dictionaries(st.text(), st.dictionaries(st.integers(), st.integers()) | st.text()))
def test_any_mapping_is_written_as_python_that_gives_it_back(value):
    (statement,) = ast.parse(assignment("pins", value)).body

    assert isinstance(statement, ast.Assign)
    assert ast.literal_eval(statement.value) == value


def test_what_is_written_is_formatted(tmp_path):
    lengths = ["x" * length for length in range(80, 110)]
    lines = [
        line
        for text in [*HOSTILE, *lengths, *(f"全{text}" for text in lengths)]
        for line in (assignment("store", text), assignment("pins", {text: {3: text}, "n": {}}))
    ]
    file = tmp_path / "written.py"
    file.write_text("\n".join(lines) + "\n", "utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--diff", "--config", ROOT / "pyproject.toml",
         file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
