"""Chroma's stores: the log, the tables and the index, and which of them counts."""

import json
import os
import pickle
import shutil
from typing import Any

import numpy as np
import pytest

from harca.errors import LfsPointer, SourceError, UsageError
from harca.load import Intake
from harca.model import Reason, Record, Rejection, Warn
from harca.options import LoadOptions
from harca.readers.base import Defaults, FieldNames, open_store
from tests.conftest import SHARED
from tests.contract.make_chroma import (
    ADD,
    COLLECTION,
    DELETE,
    INDEX,
    TABLES,
    UPDATE,
    UPSERT,
    ChromaStore,
    change,
    chroma,
    floats,
    pickled_object,
    topic,
)
from tests.unit.memory_target import STARTED

A, B, C = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]
VERSIONS = ["0.4.0", "0.5", "1.x"]


def entries(path, defaults=None):
    return list(Intake(open_store(path, defaults), LoadOptions(), now=STARTED).entries())


def items_of(reader):
    return list(reader.items())


def rest_of(items):
    return list(items)


def found_in(path, defaults=None):
    """Return texts and vectors by key; every entry is a record."""
    found = entries(path, defaults)
    assert all(isinstance(one, Record) for one in found), found
    return {one.key: (one.content, one.embedding.tolist()) for one in found}


def metadata_of(found):
    return {name: json.loads(value) for name, value in found.metadata.items()}


def text(content, **more):
    return {"chroma:document": content, **more}


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([(ADD, A, text("one")), (ADD, B, text("two"))], ("one", A)),
        ([(UPDATE, A, text("one"))], None),
        ([(DELETE, None, None)], None),
        ([(ADD, A, text("one")), (UPDATE, B, None)], ("one", B)),
        ([(ADD, A, text("one")), (UPDATE, None, text("two"))], ("two", A)),
        ([(ADD, A, text("one")), (UPSERT, B, text("two"))], ("two", B)),
        ([(UPSERT, A, text("one")), (ADD, B, text("two"))], ("one", A)),
        ([(ADD, A, text("one")), (DELETE, None, None)], None),
        ([(ADD, A, text("one")), (DELETE, None, None), (ADD, B, text("two"))], ("two", B)),
        ([(ADD, A, text("one")), (DELETE, None, None), (UPDATE, B, text("two"))], None),
        ([(UPDATE, B, text("none")), (ADD, A, text("one"))], ("one", A)),
        ([(ADD, A, text("one")), (UPDATE, None, {"chroma:document": None})], ("", A)),
    ],
    ids=[
        "add twice", "update nothing", "delete nothing", "update the vector", "update the text",
        "upsert", "add after upsert", "delete", "add again", "update what was deleted",
        "update before add", "remove the text",
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", VERSIONS)
def test_the_log_counts_as_chroma_applies_it(version, operations, expected, tmp_path):
    with ChromaStore(tmp_path / "db", version) as store:
        store.collection()
        store.log(1, "other", C, metadata=text("other"))
        for seq, (operation, vector, metadata) in enumerate(operations, 2):
            store.log(seq, "a", vector, operation=operation, metadata=metadata)

    found = found_in(tmp_path / "db")

    assert found.pop("other") == ("other", C)
    assert found.get("a") == expected


def test_operations_after_the_tables_are_applied_to_them(tmp_path):
    with ChromaStore(tmp_path / "db", "1.x") as store:
        store.collection()
        for seq, key in enumerate(["kept", "gone", "changed", "twice"], 1):
            store.log(seq, key, A, metadata=text(key))
            store.record(key, key, seq=seq, page=1, kept=2)
        store.reached(TABLES, 4)
        store.log(5, "gone", operation=DELETE)
        store.log(6, "changed", operation=UPDATE, metadata={"page": None, "new": True})
        store.log(7, "twice", B, metadata=text("never"))
        store.log(8, "late", B, metadata=text("late", page=9))

    found = {one.key: one for one in entries(tmp_path / "db")}

    assert list(found) == ["kept", "changed", "twice", "late"]
    assert metadata_of(found["changed"]) == {"kept": 2, "new": True}
    assert found["changed"].content == "changed"
    assert (found["twice"].content, found["twice"].embedding.tolist()) == ("twice", A)
    assert metadata_of(found["late"]) == {"page": 9}
    assert found["kept"].created_at.isoformat() == "2024-01-02T03:04:05+00:00"
    assert found["late"].created_at.isoformat() == "2024-05-06T07:08:09+00:00"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_index_has_what_the_log_has_lost_and_the_log_what_is_newer(version, tmp_path):
    with ChromaStore(tmp_path / "db", version) as store:
        store.collection()
        for seq, key in enumerate(["old", "updated", "deleted and added", "added again"], 1):
            store.record(key, key, seq=seq)
        store.index(
            dict.fromkeys(["old", "updated", "deleted and added", "added again"], A), saved=4
        )
        if version != "0.4.0":  # there it is beside the labels
            store.reached(INDEX, 4)
        store.log(4, "added again", C)  # ignored: it was there
        store.log(5, "updated", B, operation=UPDATE)
        store.log(6, "deleted and added", operation=DELETE)
        store.log(7, "deleted and added", B)
        store.log(8, "added again", B)  # ignored: it is there
        store.reached(TABLES, 8)

    assert found_in(tmp_path / "db") == {
        "old": ("old", A),
        "updated": ("updated", B),
        "deleted and added": ("deleted and added", B),
        "added again": ("added again", A),
    }


def unit(vector):
    return (np.array(vector, np.float32) / np.float32(np.linalg.norm(vector))).tolist()


def test_vectors_for_cosine_distance_get_their_length_back(tmp_path):
    in_log = [0.1, 0.2, 0.7]
    length = float(np.linalg.norm(in_log))
    with ChromaStore(tmp_path / "db") as store:
        store.collection(space="cosine")
        for seq, key in enumerate(["in the log", "scaled back", "unknown", "zero"], 1):
            store.record(key, key, seq=seq)
        store.log(1, "in the log", in_log)
        store.log(2, "scaled back", C)  # not what the index has: an add that was ignored
        vectors = [unit(in_log), unit(B), unit(C), [0.0, 0.0, 0.0]]
        store.index(
            dict(zip(["in the log", "scaled back", "unknown", "zero"], vectors, strict=True)),
            lengths=[length, float(np.linalg.norm(B)), 1e-41, 1.0],
        )
        store.reached(TABLES, 4)
        store.reached(INDEX, 4)
    reader = open_store(tmp_path / "db")

    found = {one.key: one.vector for one in items_of(reader)}

    assert found["in the log"].tobytes() == floats(in_log)
    assert found["scaled back"] == pytest.approx(B, rel=3e-7)
    assert found["unknown"].tolist() == unit(C)
    assert found["zero"].tolist() == [0.0, 0.0, 0.0]
    assert reader.notes.metric == "cosine"
    assert reader.notes.warnings == [
        (
            "chroma.sqlite3",
            Warn.NORMALIZED,
            '1 vector of collection "docs" scaled to length 1 for cosine distance; the length is '
            "not in the store",
        )
    ]


@pytest.mark.parametrize("space", [None, "l2", "ip"])
def test_without_cosine_distance_what_stands_for_lengths_is_not_looked_at(space, tmp_path):
    with ChromaStore(tmp_path / "db") as store:
        store.collection(space=space)
        store.record("a", "a", seq=1)
        store.index({"a": [1.0, 0.0, 0.0]}, lengths=[7.0])
        store.reached(INDEX, 1)
    reader = open_store(tmp_path / "db")

    (found,) = items_of(reader)

    assert found.vector.tolist() == [1.0, 0.0, 0.0]
    assert reader.notes.metric == ("inner_product" if space == "ip" else "l2")


def test_an_element_that_is_marked_as_deleted_has_no_vector(tmp_path):
    with ChromaStore(tmp_path / "db") as store:
        store.collection()
        store.record("a", "a", seq=1)
        store.record("b", "b", seq=2, n=5)
        store.index({"a": A, "b": B}, deleted=[2])
        store.reached(INDEX, 2)

    kept, rejected = entries(tmp_path / "db")

    assert kept.key == "a"
    assert (rejected.origin, rejected.reason) == ("chroma.sqlite3#b", Reason.NO_VECTOR)
    assert rejected.detail == "the log has no vector; the index does not have it"
    assert json.loads(rejected.payload) == {
        "id": "b",
        "metadata": {"chroma:document": "b", "n": 5},
        "embedding": None,
    }


def lose(folder):
    shutil.rmtree(folder)


def cut(name, size):
    def damage(folder):
        os.truncate(folder / name, size)

    return damage


def put(name, content):
    def damage(folder):
        (folder / name).write_bytes(content)

    return damage


@pytest.mark.parametrize(
    ("damage", "detail"),
    [
        (lose, "index_metadata.pickle cannot be read: was there when the folder was listed"),
        (cut("data_level0.bin", 50), "the index ends after element 1 of 2"),
        (cut("header.bin", 50), "the index cannot be read: a header of 46 bytes, expected 96"),
        (cut("header.bin", 0), "the index cannot be read: no header.bin of version 1"),
        (put("index_metadata.pickle", pickle.dumps(7)), "index_metadata.pickle has no map of ids"),
        (
            put("index_metadata.pickle", b"cos\nsystem\n(S'exit 1'\ntR."),
            'the index cannot be read: the pickle wants to call "os.system", which is not allowed',
        ),
        (put("index_metadata.pickle", b"\x80"), "the index cannot be read: no readable pickle"),
    ],
    ids=["lost", "cut", "header cut", "no header", "no map", "another class", "no pickle"],
)
def test_what_only_a_damaged_index_has_is_rejected(damage, detail, tmp_path):
    with ChromaStore(tmp_path / "db") as store:
        store.collection()
        store.record("in the log", "x", seq=1)
        store.record("in the index", "x", seq=2)
        store.log(1, "in the log", A)
        damage(store.index({"in the log": A, "in the index": B}))
        store.reached(INDEX, 2)

    kept, rejected = entries(tmp_path / "db")

    assert (kept.key, kept.embedding.tolist()) == ("in the log", A)
    assert rejected.reason == Reason.NO_VECTOR
    assert rejected.detail.startswith(f"the log has no vector; {detail}")


def test_without_its_index_no_vector_is_taken_from_an_add_that_was_ignored(tmp_path):
    with ChromaStore(tmp_path / "db") as store:
        store.collection()
        store.record("a", "the first", seq=1)
        store.log(9, "a", B, metadata=text("the second"))
        store.reached(TABLES, 9)
        store.reached(INDEX, 9)

    (rejected,) = entries(tmp_path / "db")

    assert rejected.reason == Reason.NO_VECTOR


def test_a_git_lfs_pointer_in_place_of_an_index_is_told_if_it_is_needed(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    for name in ("needed", "not needed"):
        with ChromaStore(tmp_path / name) as store:
            store.collection()
            store.record("a", "x", seq=1)
            if name == "not needed":
                store.log(1, "a", A)
            put("data_level0.bin", pointer)(store.index({"a": A}))
            store.reached(INDEX, 1)

    assert found_in(tmp_path / "not needed") == {"a": ("x", A)}
    with pytest.raises(LfsPointer, match=r"data_level0\.bin"):
        entries(tmp_path / "needed")


@pytest.mark.parametrize("version", VERSIONS)
def test_metadata_keep_their_types(version, tmp_path):
    values: dict[str, Any] = {
        "s": "straße",
        "empty": "",
        "i": -(2**53) - 1,
        "f": 2.0,
        "chroma:uri": "file:a.png",
    }
    if version != "0.4.0":
        values |= {"yes": True, "no": False}
    with ChromaStore(tmp_path / "db", version) as store:
        store.collection()
        store.log(1, "日本/😀", A)
        number = store.record("日本/😀", None, seq=1, **values)
        store.insert("embedding_metadata", id=number, key="nan")
        if version == "1.x":
            for value in (3, 1, 2):
                store.insert("embedding_metadata_array", id=number, key="n", int_value=value)
            for value in (True, False):
                store.insert("embedding_metadata_array", id=number, key="b", bool_value=value)
            values |= {"n": [3, 1, 2], "b": [True, False]}
        store.reached(TABLES, 1)

    (found,) = entries(tmp_path / "db")

    assert (found.key, found.content) == ("日本/😀", "")
    assert found.warnings == (Warn.NO_TEXT,)
    assert metadata_of(found) == {**values, "nan": None}
    assert isinstance(metadata_of(found)["f"], float)


@pytest.mark.parametrize(
    ("metadata", "detail"),
    [
        ("{", "metadata in the log are no JSON"),
        ("[1]", "metadata in the log are no object"),
        ('{"a": ' * 5000, "metadata in the log are no JSON"),
    ],
    ids=["cut", "a list", "nested"],
)
def test_an_operation_that_cannot_be_read_is_rejected(metadata, detail, tmp_path):
    with ChromaStore(tmp_path / "db") as store:
        store.collection()
        store.log(1, "a", A, metadata=metadata)
        store.log(2, "b", B, metadata=text("b"))

    rejected, kept = entries(tmp_path / "db")

    assert (rejected.origin, rejected.reason) == ("chroma.sqlite3#a", Reason.UNPARSABLE)
    assert rejected.detail.startswith(detail)
    assert kept.key == "b"


def test_an_unknown_operation_is_rejected(tmp_path):
    with ChromaStore(tmp_path / "db") as store:
        store.collection()
        store.log(1, "a", A, operation=4)
        store.log(2, "b", B)

    rejected, kept = entries(tmp_path / "db")

    assert rejected.detail == "operation 4 in the log is unknown"
    assert kept.key == "b"


@pytest.mark.parametrize(
    ("blob", "encoding", "expected"),
    [
        (floats([0.1, -0.0, 1e-41]), "FLOAT32", [0.1, -0.0, 1e-41]),
        (np.array([1, -(2**31), 3], "<i4").tobytes(), "INT32", [1.0, -(2.0**31), 3.0]),
        (b"123", "FLOAT32", "3 bytes in encoding FLOAT32, expected FLOAT32 or INT32"),
        (b"1234", "FLOAT16", "4 bytes in encoding FLOAT16, expected FLOAT32 or INT32"),
        (b"1234", None, "4 bytes in encoding None, expected FLOAT32 or INT32"),
        ("text", "FLOAT32", "no bytes in encoding FLOAT32, expected FLOAT32 or INT32"),
        (b"", "FLOAT32", "the vector has no components"),
    ],
    ids=["float32", "int32", "odd length", "unknown", "none", "no bytes", "empty"],
)
def test_vectors_are_read_in_both_encodings(blob, encoding, expected, tmp_path):
    with ChromaStore(tmp_path / "db") as store:
        store.collection()
        row = {"vector": blob, "encoding": encoding, "topic": topic(COLLECTION)}
        store.insert("embeddings_queue", seq_id=1, operation=ADD, id="a", **row)

    (found,) = entries(tmp_path / "db")

    if isinstance(expected, str):
        assert isinstance(found, Rejection)
        assert found.detail == expected
    else:
        assert found.embedding.tobytes() == floats(expected)


SECOND: dict[str, Any] = {
    "id": "5a3c9d6e-0000-4000-8000-00000000c012",
    "tables": "tables 2",
    "index": "index 2",
}


def write_two(folder, *, database="0", name="beta"):
    with ChromaStore(folder) as store:
        store.insert("databases", id="1", name="archive", tenant_id="default_tenant")
        store.insert("databases", id="2", name="archive", tenant_id="acme")
        store.collection("alpha", space="cosine")
        store.collection(name, database=database, space="l2", **SECOND)
        store.log(1, "a", A, metadata=text("in alpha", collection="own"))
        store.log(2, "a", B, metadata=text("in beta"), collection=SECOND["id"])
        store.collection("empty", id="x", tables="y", index="z")
    return folder


@pytest.mark.parametrize(
    ("database", "name", "keys"),
    [
        ("0", "beta", ["alpha/a", "beta/a"]),
        ("1", "alpha", ["archive/alpha/a", "default_database/alpha/a"]),
        ("2", "alpha", ["acme/archive/alpha/a", "default_tenant/default_database/alpha/a"]),
    ],
    ids=["one database", "two databases", "two tenants"],
)
def test_several_collections_keep_their_keys_apart(database, name, keys, tmp_path):
    path = write_two(tmp_path / "db", database=database, name=name)

    assert sorted(found_in(path)) == keys


def test_the_collection_is_among_the_metadata_where_there_are_several(tmp_path):
    reader = open_store(write_two(tmp_path / "db"))

    alpha, beta = items_of(reader)

    assert alpha.metadata == {"collection": "own", "store_collection": "alpha"}
    assert beta.metadata == {"collection": "beta"}
    assert reader.notes.metric is None
    assert reader.notes.why == "2 collections in Chroma's tables"


@pytest.mark.parametrize("wanted", ["beta", "archive/beta", "default_tenant/archive/beta"])
def test_one_collection_is_read_if_the_operator_names_it(wanted, tmp_path):
    path = write_two(tmp_path / "db", database="1")

    found = found_in(path, Defaults(fields=FieldNames(records=wanted)))

    assert found == {"a": ("in beta", B)}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("gamma", 'no collections "gamma"; found "alpha", "alpha", "empty"'),
        ("", 'no collections ""; found "alpha", "alpha", "empty"'),
        (
            "alpha",
            '2 collections "alpha"; found "default_tenant/archive/alpha", '
            '"default_tenant/default_database/alpha"',
        ),
    ],
    ids=["none of that name", "an empty name", "two of that name"],
)
def test_a_collection_that_cannot_be_told_is_refused(wanted, message, tmp_path):
    path = write_two(tmp_path / "db", database="1", name="alpha")

    with pytest.raises(UsageError) as caught:
        open_store(path, Defaults(fields=FieldNames(records=wanted)))

    assert str(caught.value) == message
    assert "default_database/documents" in caught.value.hint


def function(name, **config):
    return {"embedding_function": {"type": "known", "name": name, "config": config}}


def schema(**config):
    index = {"enabled": True, "config": config}
    return {"keys": {"#embedding": {"float_list": {"vector_index": index}}}}


@pytest.mark.parametrize(
    ("config", "schema_of", "dims", "given", "expected"),
    [
        (function("default"), None, 384, "unknown", "all-MiniLM-L6-v2"),
        (function("default"), None, 1536, "unknown", "unknown"),
        (function("default"), None, 384, "mine", "mine"),
        (function("openai", model_name="ada-002"), None, 1536, "mine", "ada-002"),
        (function("mistral", model="mistral-embed"), None, 3, "unknown", "mistral-embed"),
        ({}, schema(**function("onnx_mini_lm_l6_v2")), 384, "unknown", "all-MiniLM-L6-v2"),
        ({"embedding_function": {"type": "legacy"}}, None, 384, "unknown", "unknown"),
        (function("openai", model_name=7), [1], 3, "unknown", "unknown"),
    ],
    ids=[
        "default", "default of other dims", "default and --model", "named", "named otherwise",
        "in the schema", "legacy", "of wrong types",
    ],
)  # fmt: skip
def test_the_model_is_what_the_collection_says(config, schema_of, dims, given, expected, tmp_path):
    with ChromaStore(tmp_path / "db", "1.x") as store:
        store.collection(
            dims=dims, config_json_str=json.dumps(config), schema_str=json.dumps(schema_of)
        )
        store.log(1, "a", A)

    (found,) = entries(tmp_path / "db", Defaults(model_id=given))

    assert found.model_id == expected


@pytest.mark.parametrize(
    ("config", "schema_of", "metadata", "expected"),
    [
        (None, None, None, "l2"),
        (None, None, "ip", "inner_product"),
        ('{"hnsw": {"space": "cosine"}}', None, None, "cosine"),
        ('{"hnsw_configuration": {"space": "cosine"}}', None, None, "cosine"),
        ("{}", json.dumps(schema(space="cosine")), None, "cosine"),
        ("{}", json.dumps(schema(space="l2")), "cosine", "cosine"),
        ("no JSON", "[]", "l2", "l2"),
        ('{"hnsw": {"space": ["cosine"]}}', None, None, "l2"),
    ],
    ids=[
        "none", "metadata", "1.0", "0.5", "schema", "default in the schema", "unreadable",
        "of a wrong type",
    ],
)  # fmt: skip
def test_the_metric_is_what_the_collection_says(config, schema_of, metadata, expected, tmp_path):
    with ChromaStore(tmp_path / "db", "1.x") as store:
        store.collection(config_json_str=config, schema_str=schema_of, space=metadata)
        store.log(1, "a", A)
    reader = open_store(tmp_path / "db")

    assert len(list(reader.items())) == 1
    assert reader.notes.metric == expected


def test_records_of_deleted_collections_are_left_out_and_told(tmp_path):
    path = chroma(tmp_path, [("one", A)])
    with ChromaStore(tmp_path / "other") as store:
        store.collection()
        store.log(1, "a", A)
        store.record("b", "left", seq=2, segment="of no collection")
    reader = open_store(tmp_path / "other")

    assert [one.key for one in items_of(reader)] == ["a"]
    assert reader.notes.left_out == [
        ("chroma.sqlite3", "1 record of collections that were deleted")
    ]
    assert len(entries(path)) == 1


def test_the_database_is_known_by_its_tables_whatever_its_name(tmp_path):
    path = chroma(tmp_path, [("one", A), ("two", B)], version="0.5")
    file = path / "chroma.sqlite3"
    whole = found_in(path)

    assert found_in(file) == whole
    assert found_in(file.rename(path / "backup.db")) == whole
    assert open_store(path / "backup.db").format == "chroma"


def test_another_sqlite_file_is_not_taken_for_it(tmp_path):
    (tmp_path / "db").mkdir()
    change(tmp_path / "db" / "chroma.sqlite3", "CREATE TABLE collections (id, name)")

    with pytest.raises(SourceError) as caught:
        open_store(tmp_path / "db")

    assert "chroma store" not in str(caught.value)


def test_a_column_that_was_renamed_is_damage(tmp_path):
    path = chroma(tmp_path, [("one", A), ("two", B)])
    change(path / "chroma.sqlite3", "ALTER TABLE segments RENAME COLUMN scope TO skope")

    (rejected,) = entries(path)

    assert rejected.reason == Reason.UNPARSABLE
    assert rejected.detail == (
        "the database is damaged: found no 'scope', where there has to be one"
    )


def test_a_log_of_two_servers_is_one(tmp_path):
    with ChromaStore(tmp_path / "db") as store:
        store.collection()
        store.log(1, "a", A, metadata=text("one"))
        store.log(2, "a", B, operation=UPDATE)
        store.log(3, "b", C, metadata=text("two"))
    change(
        tmp_path / "db" / "chroma.sqlite3",
        f"UPDATE embeddings_queue SET topic = 'persistent://acme/x/{COLLECTION}' WHERE seq_id = 2",
    )

    assert found_in(tmp_path / "db") == {"a": ("one", B), "b": ("two", C)}


def test_a_topic_that_is_no_text_is_told(tmp_path):
    path = chroma(tmp_path, [("one", A), ("two", B)])
    change(
        path / "chroma.sqlite3",
        f"UPDATE embeddings_queue SET topic = CAST(x'ff' AS TEXT) || '/{COLLECTION}'",
    )

    (rejected,) = entries(path)

    assert rejected.reason == Reason.UNPARSABLE
    assert rejected.detail.startswith("the database is damaged: 'utf-8' codec can't encode")


def test_an_id_that_is_no_text_is_rejected_and_shown(tmp_path):
    with ChromaStore(tmp_path / "db") as store:
        store.collection()
        store.log(1, "nul\0", A, metadata=text("x"))
        store.log(2, "b", B, metadata=text("x"))
    change(
        tmp_path / "db" / "chroma.sqlite3", "UPDATE embeddings_queue SET id = x'ff' WHERE id = 'b'"
    )

    nul, blob = entries(tmp_path / "db")

    assert (nul.origin, nul.reason) == ("chroma.sqlite3#nul\\0", Reason.NUL_IN_TEXT)
    assert blob.reason == Reason.NO_TEXT
    assert json.loads(blob.payload)["embedding"] == B


def test_a_log_that_is_cut_while_it_is_read_is_told(tmp_path):
    with ChromaStore(tmp_path / "db") as store:
        store.collection()
        for seq in range(1, 1000):
            store.record(f"id {seq}", "x", seq=seq)
            store.log(seq, f"id {seq}", A)
        store.reached(TABLES, 999)
    items = open_store(tmp_path / "db").items()
    next(items)

    change(tmp_path / "db" / "chroma.sqlite3", "DELETE FROM embeddings_queue WHERE seq_id = 999")

    *kept, last = rest_of(items)
    assert len(kept) == 997
    assert (last.reason, last.detail) == (Reason.VANISHED, "Chroma cut the log while it was read")


def test_chroma_can_write_while_its_store_is_read(tmp_path):
    path = chroma(tmp_path, [(str(number), A) for number in range(600)], version="0.4.0")
    items = open_store(path).items()
    next(items)

    change(path / "chroma.sqlite3", "INSERT INTO max_seq_id VALUES ('another', x'00')")

    assert len(list(items)) == 599


def test_the_pickled_class_is_not_imported():
    data = pickled_object({"id_to_label": {"a": 1}})

    with pytest.raises(ModuleNotFoundError):
        pickle.loads(data)  # what the tests write is what Chroma writes


@pytest.mark.parametrize(
    ("name", "records", "dims", "model"),
    [("repomind-code", 69, 384, "all-MiniLM-L6-v2"), ("sdsc-events", 51, 768, "unknown")],
)
def test_real_stores_are_read_whole(name, records, dims, model):
    path = SHARED / "stores" / "chroma" / name
    if not path.exists():
        pytest.skip(f"{path} is not here")

    found = entries(path)

    assert len(found) == len({one.key for one in found}) == records
    assert {len(one.embedding) for one in found} == {dims}
    assert {one.model_id for one in found} == {model}
    assert all(one.content for one in found)
