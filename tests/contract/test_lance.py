"""LanceDB's tables: versions, several of them, what lancedb notes, damage."""

import json
import shutil
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harca.errors import EmptyStore, LfsPointer, MissingLibrary, SourceError
from harca.load import Intake
from harca.model import Item, Record, Rejection
from harca.options import LoadOptions
from harca.readers import lance as lance_reader
from harca.readers.apart import Failed, child, open_table
from harca.readers.base import Defaults, open_store
from tests.conftest import SHARED
from tests.unit.memory_target import STARTED


def entries(path, **given):
    options = LoadOptions(**given)
    return list(Intake(open_store(path, options.defaults), options, now=STARTED).entries())


def rows(first: int, last: int, **columns: Any) -> Any:
    count = last - first
    return pa.table(
        {
            "id": list(range(first, last)),
            "text": [f"text {number}" for number in range(first, last)],
            "vector": pa.array(
                [[number + 0.5, 1.0] for number in range(first, last)], pa.list_(pa.float32(), 2)
            ),
            **{name: [value] * count for name, value in columns.items()},
        }
    )


def write(path: Path, table: Any, **options: Any) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return lance.write_dataset(table, str(path), **options)


def test_the_newest_version_is_read_without_rows_that_are_deleted(tmp_path):
    write(tmp_path / "t.lance", rows(0, 5))
    table = write(tmp_path / "t.lance", rows(5, 8), mode="append")
    table.delete("id IN (1, 6)")
    table.update({"text": "'changed'"}, where="id = 2")

    found = entries(tmp_path / "t.lance")

    assert sorted(one.key for one in found) == ["0", "2", "3", "4", "5", "7"]
    assert {one.content for one in found if one.key == "2"} == {"changed"}
    reader = open_store(tmp_path)
    assert reader.size_hint() == 6
    next(reader.items())
    assert (reader.format, reader.notes.why) == ("lancedb", "a table of LanceDB in version 4")


def test_several_tables_stand_before_their_keys(tmp_path):
    write(tmp_path / "db" / "one.lance", rows(0, 2))
    write(tmp_path / "db" / "two.lance", rows(0, 1).drop_columns(["id"]))

    both = entries(tmp_path / "db")
    one = entries(tmp_path / "db", records="two")

    assert [item.key for item in both] == ["one.lance/0", "one.lance/1", "two.lance/#0"]
    assert [item.key for item in one] == ["#0"]
    with pytest.raises(EmptyStore, match='found table "one", where "three" was asked for'):
        entries(tmp_path / "db", records="three")


@pytest.mark.parametrize("version", ["legacy", "2.0", "stable"])
def test_every_version_of_the_files_is_read(version, tmp_path):
    table = rows(0, 3, meta='{"page": 1}', tags=["a"])
    write(tmp_path / "t.lance", table, data_storage_version=version)

    found = entries(tmp_path / "t.lance")

    assert [one.embedding.tolist() for one in found] == [[0.5, 1], [1.5, 1], [2.5, 1]]
    assert found[0].metadata == {"page": "1", "tags": '["a"]'}


def test_what_lancedb_notes_of_the_function_is_taken(tmp_path):
    noted = [
        {"name": "openai", "model": {"name": "text-embedding-3-small"},
         "source_column": "caption", "vector_column": "v2"}
    ]  # fmt: skip
    table = rows(0, 2, caption="what was embedded").append_column("v2", [[[1.0], [2.0]]])
    write(
        tmp_path / "t.lance",
        table.replace_schema_metadata({"embedding_functions": json.dumps(noted)}),
    )

    first, _ = entries(tmp_path / "t.lance")
    (named, _) = entries(tmp_path / "t.lance", vector_field="vector", text_field="text")

    assert (first.model_id, first.content) == ("text-embedding-3-small", "what was embedded")
    assert first.embedding.tolist() == [1.0]
    assert (named.content, named.embedding.tolist()) == ("text 0", [0.5, 1.0])


def test_the_index_says_by_what_vectors_are_compared(tmp_path):
    table = write(tmp_path / "t.lance", rows(0, 300))
    table.create_index("vector", "IVF_FLAT", num_partitions=1, metric="cosine")
    reader = open_store(tmp_path)

    next(reader.items())

    assert reader.notes.metric == "cosine"


def test_a_null_rejects_its_row_and_no_other(tmp_path):
    vectors = pa.array([[1.0, 2.0], None, [3.0, float("nan")]], pa.list_(pa.float32(), 2))
    write(tmp_path / "t.lance", pa.table({"id": ["a", "b", "c"], "vector": vectors}))

    found = entries(tmp_path)

    assert [getattr(one, "reason", None) for one in found] == [None, "no-vector", "non-finite"]


def test_a_fragment_that_is_damaged_costs_no_other(tmp_path):
    table = write(tmp_path / "t.lance", rows(0, 4), max_rows_per_file=2)
    file = tmp_path / "t.lance" / "data" / table.get_fragments()[0].data_files()[0].path
    file.write_bytes(file.read_bytes()[:10])

    first, *kept = entries(tmp_path)

    assert (first.origin, first.reason) == ("#0 to #1", "unparsable")
    assert [one.key for one in kept] == ["2", "3"]


def test_a_table_of_which_nothing_can_be_read_is_an_error(tmp_path):
    write(tmp_path / "t.lance", rows(0, 4))
    for file in (tmp_path / "t.lance" / "data").iterdir():
        file.unlink()

    with pytest.raises(SourceError, match="is a table of LanceDB that cannot be read") as caught:
        entries(tmp_path)

    assert caught.value.hint


def test_git_lfs_pointers_are_named(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    for part in ("_versions", "data"):
        path = tmp_path / part / "t.lance"
        write(path, rows(0, 1))
        for file in (path / part).iterdir():
            file.write_bytes(pointer)

        with pytest.raises(LfsPointer):
            entries(path)


def test_without_pylance_it_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path / "t.lance", rows(0, 1))
    monkeypatch.setattr(lance_reader, "find_spec", lambda name: None)

    with pytest.raises(MissingLibrary) as caught:
        entries(tmp_path)

    assert 'pip install "harca[lance]"' in caught.value.hint


def test_a_folder_that_is_called_so_is_not_taken(tmp_path):
    (tmp_path / "t" / "_versions").mkdir(parents=True)
    (tmp_path / "t" / "_versions" / "1.manifest").write_text("{}")

    assert lance_reader.open_path(tmp_path / "t", Defaults()) is None
    assert lance_reader.open_path(tmp_path, Defaults()) is None


def test_reading_prints_nothing(tmp_path, capfd):
    write(tmp_path / "t.lance", rows(0, 3))
    for file in (tmp_path / "t.lance" / "_transactions").iterdir():
        file.write_bytes(b"damaged")
    capfd.readouterr()

    assert len(entries(tmp_path)) == 3

    assert capfd.readouterr() == ("", "")


def test_a_child_that_ends_is_one_answer_less(tmp_path):
    write(tmp_path / "t.lance", rows(0, 3))
    reader = open_store(tmp_path)
    assert child._process is not None
    child._process.kill()

    with pytest.raises(Failed, match="crashed"):
        child.ask(open_table, str(tmp_path / "t.lance"))

    assert len(list(reader.items())) == 3


def test_memory_does_not_grow_with_the_table(tmp_path):
    numbers = np.random.default_rng(1).random(60_000 * 64, dtype=np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers), 64)
    write(tmp_path / "t.lance", pa.table({"vector": vectors}))
    del vectors
    before, most, count = pa.total_allocated_bytes(), 0, 0

    for item in open_store(tmp_path).items():
        assert isinstance(item, Item)
        count += 1
        most = max(most, pa.total_allocated_bytes() - before)

    assert count == 60_000
    assert most < 1 << 20


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    chosen=st.integers(0, 9),
    # Parts of the file's length: files have names and times in them, which change it.
    damage=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), min_size=1, max_size=12),
)
def test_damage_gives_an_error_or_rejections(chosen, damage, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "t.lance"
    write(path, rows(0, 20), max_rows_per_file=10).delete("id = 3")
    files = sorted(one for one in path.rglob("*") if one.is_file())
    file = files[chosen % len(files)]
    raw = bytearray(file.read_bytes())
    for part, byte in damage:
        raw[int(part * len(raw))] = byte
    file.write_bytes(raw)

    try:
        reader = lance_reader.open_path(path, Defaults())
        found = [] if reader is None else list(reader.items())
    except SourceError:
        return

    assert all(isinstance(one, Item | Rejection) for one in found)


@pytest.fixture
def charter(tmp_path):
    path = SHARED / "stores" / "lancedb" / "manden-charter"
    if not path.exists():
        pytest.skip("the real stores are not here")
    return shutil.copytree(path, tmp_path / "charter")


def test_a_real_database(charter):
    before = {file: file.stat().st_mtime_ns for file in charter.rglob("*")}

    found = entries(charter)

    assert all(isinstance(one, Record) for one in found)
    assert (len(found), {len(one.embedding) for one in found}) == (20, {1536})
    assert found[0].content.startswith("KOUROUKAN FOUGA")
    assert len({one.embedding.tobytes() for one in found}) == 10
    assert json.loads(found[0].metadata["filename"]) == "The_Manden_Charter.pdf"
    assert {file: file.stat().st_mtime_ns for file in charter.rglob("*")} == before
