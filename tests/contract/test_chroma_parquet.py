"""Chroma's stores before 0.4: two Parquet files."""

import builtins
import importlib
import json

import pytest

from harca.errors import LfsPointer, MissingLibrary, SourceError, UsageError
from harca.load import Intake
from harca.model import Reason, Record, Warn
from harca.options import LoadOptions
from harca.readers.base import Defaults, FieldNames, open_store
from tests.conftest import SHARED
from tests.contract.make_chroma import chroma_parquet, floats, write_chroma_parquet
from tests.unit.memory_target import STARTED

LIST = [0.1, 2.0, -1e-7]


def entries(path, defaults=None):
    return list(Intake(open_store(path, defaults), LoadOptions(), now=STARTED).entries())


def row(**fields):
    return {
        "collection_uuid": "c1",
        "uuid": "u1",
        "embedding": LIST,
        "document": "text",
        "id": "a",
        "metadata": None,
        **fields,
    }


def store(folder, *rows, collections=None):
    named = [{"uuid": "c1", "name": "docs", "metadata": "null"}]
    write_chroma_parquet(folder, rows, named if collections is None else collections)
    return folder


def test_a_record_is_read_as_it_is(tmp_path):
    path = store(tmp_path / "db", row(metadata='{"s": "ß", "i": 1, "f": 2.0, "b": true}'))

    (found,) = entries(path)

    assert (found.key, found.content, found.source) == ("a", "text", "chroma-0.3")
    assert found.embedding.tobytes() == floats(LIST)
    assert {name: json.loads(value) for name, value in found.metadata.items()} == {
        "s": "ß", "i": 1, "f": 2.0, "b": True,
    }  # fmt: skip
    assert found.origin == "chroma-embeddings.parquet#0"


@pytest.mark.parametrize(
    ("fields", "reason", "detail"),
    [
        ({"embedding": None}, Reason.NO_VECTOR, "there is no vector"),
        ({"embedding": []}, Reason.EMPTY_VECTOR, "the vector has no components"),
        ({"embedding": [1.0, None]}, Reason.NON_FINITE, "component 1 is nan"),
        ({"metadata": "[1]"}, Reason.METADATA_NOT_OBJECT, "expected an object"),
        ({"metadata": "{"}, Reason.METADATA_NOT_OBJECT, "expected an object"),
        ({"document": "a\0b"}, Reason.NUL_IN_TEXT, "the text has a NUL"),
        ({"id": None, "uuid": None}, Reason.NO_TEXT, "expected a string as key"),
    ],
    ids=["no vector", "empty", "null in it", "list", "no JSON", "nul", "no key"],
)
def test_a_bad_record_is_rejected_with_what_it_holds(fields, reason, detail, tmp_path):
    path = store(tmp_path / "db", row(), row(**fields))

    kept, rejected = entries(path)

    assert isinstance(kept, Record)
    assert (rejected.origin, rejected.reason) == ("chroma-embeddings.parquet#1", reason)
    assert rejected.detail.startswith(detail)
    assert json.loads(rejected.payload)["collection_uuid"] == "c1"


def test_a_record_without_text_is_loaded_and_one_without_id_by_its_uuid(tmp_path):
    path = store(tmp_path / "db", row(document=None, id=None))

    (found,) = entries(path)

    assert (found.key, found.content, found.warnings) == ("u1", "", (Warn.NO_TEXT,))


TWO = [
    {"uuid": "c1", "name": "docs", "metadata": '{"hnsw:space": "ip"}'},
    {"uuid": "c2", "name": "notes", "metadata": '{"hnsw:space": "cosine"}'},
    {"uuid": "c3", "name": "empty", "metadata": None},
]


def test_several_collections_keep_their_keys_apart(tmp_path):
    path = store(
        tmp_path / "db", row(), row(collection_uuid="c2"), row(collection_uuid="c4"),
        collections=TWO,
    )  # fmt: skip
    reader = open_store(path)

    found = entries(path)
    list(reader.items())

    assert [one.key for one in found] == ["docs/a", "notes/a", "c4/a"]
    assert [one.metadata["collection"] for one in found] == ['"docs"', '"notes"', '"c4"']
    assert reader.notes.metric is None


def test_one_collection_is_read_if_the_operator_names_it(tmp_path):
    path = store(tmp_path / "db", row(), row(collection_uuid="c2", id="b"), collections=TWO)
    reader = open_store(path, Defaults(fields=FieldNames(records="notes")))

    found = list(reader.items())

    assert [one.origin for one in found] == ["chroma-embeddings.parquet#1"]
    assert [getattr(one, "key", None) for one in found] == ["b"]
    assert reader.notes.metric == "cosine"


def test_a_collection_that_is_not_there_is_refused(tmp_path):
    path = store(tmp_path / "db", row(), collections=TWO)

    with pytest.raises(UsageError, match='no collection "empty" with records; found "docs"'):
        open_store(path, Defaults(fields=FieldNames(records="empty")))


def test_without_the_names_the_records_are_read_all_the_same(tmp_path):
    path = store(tmp_path / "db", row(), row(collection_uuid="c2"))
    (path / "chroma-collections.parquet").unlink()

    assert [one.key for one in entries(path)] == ["c1/a", "c2/a"]


def test_names_that_cannot_be_read_are_an_error(tmp_path):
    path = store(tmp_path / "db", row())
    (path / "chroma-collections.parquet").write_bytes(b"PAR1 and more")

    with pytest.raises(SourceError, match=r"chroma-collections\.parquet") as caught:
        open_store(path)

    assert "have no names" in caught.value.hint


def test_a_column_that_was_renamed_is_damage(tmp_path):
    path = store(tmp_path / "db", row())
    file = path / "chroma-embeddings.parquet"
    data = file.read_bytes()
    # The footer has the name of a column in its schema, and in the path to its pages.
    at = data.rindex(b"\x18\x08document", 0, data.rindex(b"document"))
    file.write_bytes(data[: at + 2] + b"dokument" + data[at + 10 :])

    (rejected,) = entries(path)

    assert (rejected.origin, rejected.reason) == ("chroma-embeddings.parquet", Reason.UNPARSABLE)
    assert rejected.detail.startswith("the Parquet file is damaged behind record 0: ")


def test_the_file_of_records_is_known_whatever_its_name(tmp_path):
    path = chroma_parquet(tmp_path, [("one", LIST)])
    moved = (path / "chroma-embeddings.parquet").rename(path / "backup")

    assert open_store(moved).format == "chroma-0.3"
    assert [one.content for one in entries(moved)] == ["one"]


def test_a_git_lfs_pointer_is_told(tmp_path):
    path = store(tmp_path / "db", row())
    (path / "chroma-embeddings.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")

    with pytest.raises(LfsPointer, match=r"chroma-embeddings\.parquet"):
        open_store(path)


def test_without_pyarrow_it_is_said_what_to_install(tmp_path, monkeypatch):
    path = store(tmp_path / "db", row())
    real = importlib.import_module

    def without_pyarrow(name, *more):
        if name.startswith("pyarrow"):
            raise builtins.ImportError(name)
        return real(name, *more)

    monkeypatch.setattr("harca.readers.chroma_parquet.import_module", without_pyarrow)

    with pytest.raises(MissingLibrary) as caught:
        open_store(path)

    assert str(caught.value) == ("a chroma-0.3 store is read with pyarrow, which is not installed")
    assert "harca[parquet]" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "records", "metric"),
    [("nucleus-protocols", 35, "cosine"), ("climate-factsheet", 13, "l2")],
)
def test_real_stores_are_read_whole(name, records, metric):
    path = SHARED / "stores" / "chroma_parquet" / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    reader = open_store(path)

    found = entries(path)
    list(reader.items())

    assert len({one.key for one in found}) == records
    assert {len(one.embedding) for one in found} == {384}
    assert all(one.content for one in found)
    assert reader.notes.metric == metric
