"""SQLite databases: where vectors and texts stand, how they are joined, what is not ours."""

import io
import json
import pickle
import random
import sqlite3
import struct
from collections import Counter
from contextlib import closing, suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harca.errors import EmptyStore, HarcaError, SourceError, UnknownFormat
from harca.load import Intake
from harca.model import Record, Rejection, Warn
from harca.options import LoadOptions
from harca.readers.base import Defaults, FieldNames, open_store
from harca.readers.blobs import kind_of, vector_from
from tests.conftest import SHARED
from tests.contract.make_sqlite import database, f32, sqlite_blobs, sqlite_vec_joined, with_vec0
from tests.unit.memory_target import STARTED


def entries(path, **fields):
    reader = open_store(path, Defaults(fields=FieldNames(**fields)))
    return entries_of(reader)


def entries_of(reader):
    return list(Intake(reader, LoadOptions(), now=STARTED).entries())


def metadata_of(one):
    return {name: json.loads(value) for name, value in one.metadata.items()}


def vector_of(number, dims=4):
    return [number + 0.5, *([0.25] * (dims - 1))]


def fill(path, *statements, rows=()):
    with database(path) as connection:
        for statement in statements:
            connection.execute(statement)
        for sql, values in rows:
            connection.execute(sql, values)
    return path


# Plain tables


def test_other_columns_are_metadata_and_the_key_is_not(tmp_path):
    path = fill(
        tmp_path / "s.db",
        "CREATE TABLE docs (id TEXT PRIMARY KEY, body TEXT, page INT, tags TEXT, vec BLOB,"
        " created_at TEXT)",
        rows=[("INSERT INTO docs VALUES ('a/1', 'text', 7, '[1]', ?, '2024-05-06 07:08:09')",
               [f32(1, 2)])],
    )  # fmt: skip

    (found,) = entries(path)

    assert (found.key, found.content, found.source) == ("a/1", "text", "sqlite")
    assert found.created_at.isoformat() == "2024-05-06T07:08:09+00:00"
    assert metadata_of(found) == {"page": 7, "tags": "[1]", "created_at": "2024-05-06 07:08:09"}


@pytest.mark.parametrize(
    ("declared", "blob"),
    [
        ("embedding BLOB", lambda numbers: np.array(numbers, "<f4").tobytes()),
        ("embedding BLOB", lambda numbers: np.array(numbers, "<f8").tobytes()),
        ("embedding BLOB", lambda numbers: np.array(numbers, "<f2").tobytes()),
        ("embedding BLOB", lambda numbers: np.array(numbers, ">f4").tobytes()),
        ("embedding F64_BLOB(40)", lambda numbers: np.array(numbers, "<f8").tobytes()),
        ("embedding_f16 BLOB", lambda numbers: np.array(numbers, "<f2").tobytes()),
        ("whatever", lambda numbers: np.array(numbers, "<f4").tobytes()),
        ("embedding TEXT", lambda numbers: json.dumps(numbers)),
        ("embedding TEXT", lambda numbers: "{" + ",".join(map(str, numbers)) + "}"),
        ("embedding BLOB", lambda numbers: json.dumps(numbers).encode()),
        ("embedding array", lambda numbers: npy(np.array(numbers, np.float32))),
        ("embedding BLOB", lambda numbers: pickle.dumps(numbers)),
        ("embedding BLOB", lambda numbers: pickle.dumps(np.array(numbers, np.float32))),
    ],
    ids=[
        "float32", "float64", "float16", "big-endian", "declared float64", "named float16",
        "unnamed", "JSON", "PostgreSQL", "JSON in a BLOB", "npy", "pickled list", "pickled array",
    ],
)  # fmt: skip
def test_vectors_are_read_in_every_encoding(declared, blob, tmp_path):
    dice = random.Random(7)
    vectors = [[float(np.float16(dice.gauss(0, 0.05))) for _ in range(40)] for _ in range(60)]
    path = fill(
        tmp_path / "s.db",
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, {declared})",
        rows=[("INSERT INTO t VALUES (?, 'a text', ?)", [number, blob(vector)])
              for number, vector in enumerate(vectors, start=1)],
    )  # fmt: skip

    found = entries(path)

    assert [one.embedding.tolist() for one in found] == vectors


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "blobs",
    [
        [random.Random(number).randbytes(384) for number in range(60)],
        [struct.pack("<96i", *range(number, number + 96)) for number in range(60)],
        [b"\x89PNG\r\n" + bytes(200)] * 60,
        [pickle.dumps(ValueError("no")) for _ in range(60)],
    ],
    ids=["random", "integers", "pictures", "pickled objects"],
)
@pytest.mark.parametrize("name", ["embedding", "data"])
def test_blobs_that_are_no_vectors_are_not_taken_for_some(name, blobs, tmp_path):
    path = fill(
        tmp_path / "s.db",
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, {name} BLOB)",
        rows=[(f"INSERT INTO t (text, {name}) VALUES ('a', ?)", [blob]) for blob in blobs],
    )  # fmt: skip

    with pytest.raises(EmptyStore, match="a SQLite database with tables t"):
        open_store(path)


def test_names_with_quotes_and_unicode_are_read(tmp_path):
    path = fill(
        tmp_path / "s.db",
        'CREATE TABLE "ta""ble; 表" ("i d" INTEGER PRIMARY KEY, "te\'xt" TEXT, "vector 語" BLOB)',
        rows=[('INSERT INTO "ta""ble; 表" VALUES (5, \'t\', ?)', [f32(1, 2)])],
    )

    (found,) = entries(path)

    assert (found.key, found.content, found.embedding.tolist()) == ("5", "t", [1, 2])


def test_a_composite_key_without_rowid_is_joined_without_clashes(tmp_path):
    path = fill(
        tmp_path / "s.db",
        "CREATE TABLE t (a TEXT, b TEXT, text TEXT, v BLOB, PRIMARY KEY (a, b)) WITHOUT ROWID",
        rows=[("INSERT INTO t VALUES (?, ?, 't', ?)", [a, b, f32(1, 2)])
              for a, b in [("x", "y/z"), ("x/y", "z")]],
    )  # fmt: skip

    assert [one.key for one in entries(path, vector="v")] == ["x/y/z", "x%2Fy/z"]


def test_a_table_without_a_key_goes_by_rowid_or_by_the_operators_column(tmp_path):
    path = fill(
        tmp_path / "s.db",
        "CREATE TABLE t (code TEXT, text TEXT, embedding BLOB)",
        rows=[("INSERT INTO t VALUES (?, 't', ?)", [code, f32(1, 2)]) for code in "ab"],
    )

    assert [one.key for one in entries(path)] == ["1", "2"]
    assert [one.key for one in entries(path, id="code")] == ["a", "b"]


def test_a_row_without_a_vector_is_rejected_with_its_fields(tmp_path):
    path = fill(
        tmp_path / "s.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, embedding BLOB)",
        "INSERT INTO t VALUES (1, 'not yet', NULL)",
        rows=[("INSERT INTO t VALUES (2, 't', ?)", [f32(1, 2)])],
    )

    rejected, kept = entries(path)

    assert (rejected.reason, kept.key) == ("no-vector", "2")
    assert json.loads(rejected.payload)["text"] == "not yet"


def test_vectors_far_behind_the_first_rows_are_found(tmp_path):
    path = fill(
        tmp_path / "s.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, embedding BLOB)",
        rows=[
            *(("INSERT INTO t (text) VALUES ('t')", []) for _ in range(3000)),
            ("INSERT INTO t VALUES (9000, 't', ?)", [f32(1, 2)]),
        ],
    )

    assert sum(isinstance(one, Record) for one in entries(path)) == 1


def test_views_and_the_parts_of_virtual_tables_are_not_looked_at(tmp_path):
    path = fill(
        tmp_path / "s.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, embedding BLOB)",
        "CREATE VIEW v AS SELECT * FROM t",
        "CREATE VIRTUAL TABLE words USING fts5(text)",
        "INSERT INTO words VALUES ('a b c')",
        rows=[("INSERT INTO t VALUES (2, 't', ?)", [f32(1, 2)])],
    )

    assert [one.key for one in entries(path)] == ["2"]


def test_several_tables_with_vectors_are_named_and_one_can_be_chosen(tmp_path):
    path = fill(
        tmp_path / "s.db",
        "CREATE TABLE a (id INTEGER PRIMARY KEY, text TEXT, embedding BLOB)",
        "CREATE TABLE b (id INTEGER PRIMARY KEY, text TEXT, embedding BLOB)",
        rows=[(f"INSERT INTO {name} VALUES (1, ?, ?)", [name, f32(1, 2)]) for name in "ab"],
    )

    with pytest.raises(SourceError) as caught:
        open_store(path)

    assert str(caught.value) == f'"{path}" has vectors in several tables: a, b'
    assert caught.value.hint == "Name the one to be read with --records TABLE."
    assert [one.content for one in entries(path, records="b")] == ["b"]
    with pytest.raises(SourceError, match='has no table "c" with vectors; found a, b'):
        entries(path, records="c")


def test_the_embeddings_of_llm_are_read_with_their_model(tmp_path):
    path = fill(
        tmp_path / "embeddings.db",
        "CREATE TABLE collections (id INTEGER PRIMARY KEY, name TEXT, model TEXT)",
        "CREATE TABLE embeddings (collection_id INTEGER REFERENCES collections(id), id TEXT,"
        " embedding BLOB, content TEXT, content_blob BLOB, content_hash BLOB, metadata TEXT,"
        " updated INTEGER, PRIMARY KEY (collection_id, id))",
        "INSERT INTO collections VALUES (1, 'quotations', 'ada-002'), (2, 'files', 'clip')",
        rows=[
            ("INSERT INTO embeddings VALUES (1, 'a', ?, 'text', NULL, ?, '{\"k\": 1}', 1690000000)",
             [f32(1, 2), bytes(16)]),
            ("INSERT INTO embeddings VALUES (2, 'docs/b.md', ?, NULL, NULL, ?, NULL, 1690000000)",
             [f32(1, 2), bytes(16)]),
        ],
    )  # fmt: skip

    one, other = entries(path)

    assert (one.key, one.content, one.model_id) == ("1/a", "text", "ada-002")
    assert metadata_of(one)["k"] == 1
    assert (other.key, other.content, other.model_id) == ("2/docs/b.md", "", "clip")
    assert other.warnings == (Warn.NO_TEXT,)


def test_texts_in_another_table_are_found_by_foreign_key(tmp_path):
    path = fill(
        tmp_path / "s.db",
        "CREATE TABLE other (id TEXT PRIMARY KEY, text TEXT)",
        "CREATE TABLE passages (id TEXT PRIMARY KEY, text TEXT)",
        "CREATE TABLE e (pid TEXT PRIMARY KEY REFERENCES passages(id), model TEXT, embedding BLOB)",
        rows=[
            *((f"INSERT INTO {table} VALUES (?, ?)", [key, f"{table} {key}"])
              for key in ("a", "b", "c") for table in ("passages", "other")),
            *(("INSERT INTO e VALUES (?, 'm', ?)", [key, f32(1, 2)]) for key in ("a", "b")),
        ],
    )  # fmt: skip

    found = entries(path)

    assert [(one.key, one.content, one.model_id) for one in found] == [
        ("a", "passages a", "m"), ("b", "passages b", "m"),
    ]  # fmt: skip


def test_a_text_that_many_vectors_share_is_not_their_text(tmp_path):
    path = fill(
        tmp_path / "s.db",
        "CREATE TABLE documents (id INTEGER PRIMARY KEY, body TEXT)",
        "CREATE TABLE chunks (id INTEGER PRIMARY KEY, doc INTEGER REFERENCES documents(id),"
        " embedding BLOB)",
        "INSERT INTO documents VALUES (1, 'a whole book')",
        rows=[("INSERT INTO chunks (doc, embedding) VALUES (1, ?)", [f32(1, 2)])] * 3,
    )

    assert {(one.content, one.warnings) for one in entries(path)} == {("", (Warn.NO_TEXT,))}


# sqlite-vec


def test_more_rows_than_a_chunk_has_are_read_without_the_deleted_ones(tmp_path):
    path = tmp_path / "v.db"
    with with_vec0(path) as connection:
        connection.execute("CREATE VIRTUAL TABLE v USING vec0(e float[4] distance_metric=cosine)")
        connection.executemany(
            "INSERT INTO v(rowid, e) VALUES (?, ?)",
            [(number, f32(*vector_of(number))) for number in range(1, 2501)],
        )
        connection.execute("DELETE FROM v WHERE rowid % 7 = 0")
        connection.execute("UPDATE v SET e = ? WHERE rowid = 5", [f32(9, 9, 9, 9)])
    reader = open_store(path)

    found = entries_of(reader)

    expected = {str(number): vector_of(number) for number in range(1, 2501) if number % 7}
    expected["5"] = [9, 9, 9, 9]
    assert {one.key: one.embedding.tolist() for one in found} == expected
    assert len(found) == len(expected)
    assert reader.notes.metric == "cosine"


def test_every_kind_of_column_is_read(tmp_path):
    path = tmp_path / "v.db"
    long, short, exact = "a label of more than twelve bytes", "短い", "twelve bytes"
    with with_vec0(path) as connection:
        connection.execute(
            """CREATE VIRTUAL TABLE v USING vec0(
                doc_key text primary key, -- the key, and a comma
                user integer partition key, /* text partition key */ kind text partition key,
                e float[4], small int8[4], flags bit[8],
                label text, n integer, x float, ok boolean,
                +contents text, +extra blob, chunk_size=8
            )"""
        )
        for number in range(40):
            connection.execute(
                "INSERT INTO v VALUES (?, ?, ?, ?, vec_int8(?), vec_bit(?), ?, ?, ?, ?, ?, ?)",
                [f"k{number}", number % 3, "ab"[number % 2], f32(*vector_of(number)),
                 bytes([1, 2, 3, number]), b"\1", (long, short, exact, "")[number % 4], -number,
                 number / 2, number % 2, f"text {number}", None],
            )  # fmt: skip
        connection.execute("DELETE FROM v WHERE doc_key = 'k11'")

    found = {one.key: one for one in entries(path)}

    assert found.keys() == {f"k{number}" for number in range(40) if number != 11}
    for number in set(range(40)) - {11}:
        one = found[f"k{number}"]
        assert one.content == f"text {number}"
        assert one.embedding.tolist() == vector_of(number)
        assert metadata_of(one) == {
            "user": number % 3, "kind": "ab"[number % 2],
            "label": (long, short, exact, "")[number % 4],
            "n": -number, "x": number / 2, "ok": bool(number % 2), "extra": None,
        }  # fmt: skip


def test_int8_is_read_where_there_is_nothing_else_and_bits_are_refused(tmp_path):
    for name, column in [("i", "e int8[4]"), ("b", "e bit[8]")]:
        with with_vec0(tmp_path / f"{name}.db") as connection:
            connection.execute(f"CREATE VIRTUAL TABLE v USING vec0({column})")
            function = "vec_int8" if name == "i" else "vec_bit"
            value = b"\xff\x02\x03\x04" if name == "i" else b"\x05"
            connection.execute(f"INSERT INTO v(e) VALUES ({function}(?))", [value])

    assert entries(tmp_path / "i.db")[0].embedding.tolist() == [-1, 2, 3, 4]
    with pytest.raises(SourceError, match="has only bits as vectors in v"):
        open_store(tmp_path / "b.db")


def test_an_index_over_the_vectors_of_a_table_adds_no_records(tmp_path):
    path = tmp_path / "v.db"
    with with_vec0(path) as connection:
        connection.execute(
            "CREATE TABLE docs (rowid INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT, metadata BLOB,"
            " text_embedding BLOB)"
        )
        connection.execute(
            "CREATE VIRTUAL TABLE docs_vec USING vec0(rowid INTEGER PRIMARY KEY,"
            " text_embedding float[4])"
        )
        connection.execute(
            "CREATE TRIGGER embed_text AFTER INSERT ON docs BEGIN INSERT INTO docs_vec(rowid,"
            " text_embedding) VALUES (new.rowid, new.text_embedding); END"
        )
        connection.executemany(
            "INSERT INTO docs(text, metadata, text_embedding) VALUES (?, ?, ?)",
            [(f"t{number}", '{"n": 1}', f32(*vector_of(number))) for number in range(3)],
        )
    reader = open_store(path)

    found = entries_of(reader)

    assert [(one.key, one.content, metadata_of(one)) for one in found] == [
        (str(number + 1), f"t{number}", {"n": 1}) for number in range(3)
    ]
    assert reader.notes.left_out == [("docs_vec", "the same vectors as in docs")]


def joined(path, texts, virtual, *, key="rowid", keys=range(1, 4)):
    with with_vec0(path) as connection:
        for statement in texts:
            connection.execute(statement)
        connection.execute(virtual)
        name = virtual.split()[3]
        connection.executemany(
            f"INSERT INTO {name}({key}, e) VALUES (?, ?)",
            [(one, f32(*vector_of(number))) for number, one in enumerate(keys)],
        )
    return path


def test_texts_are_joined_by_the_tables_names(tmp_path):
    path = joined(
        tmp_path / "v.db",
        [
            "CREATE TABLE memories (id INTEGER PRIMARY KEY, content TEXT)",
            "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)",
            "INSERT INTO memories VALUES (1, 'm1'), (2, 'm2'), (3, 'm3'), (4, 'm4')",
            "INSERT INTO users VALUES (1, 'u1'), (2, 'u2'), (3, 'u3')",
        ],
        "CREATE VIRTUAL TABLE memory_embeddings USING vec0(e float[4])",
    )
    reader = open_store(path)

    found = entries_of(reader)

    assert [(one.key, one.content) for one in found] == [("1", "m1"), ("2", "m2"), ("3", "m3")]
    assert reader.notes.left_out == [("memories", "1 row without a vector")]


def test_texts_are_joined_by_keys_that_are_texts(tmp_path):
    path = joined(
        tmp_path / "v.db",
        [
            "CREATE TABLE pieces (id INTEGER PRIMARY KEY, uid TEXT UNIQUE, content TEXT)",
            "INSERT INTO pieces VALUES (1, 'x1', 'one'), (2, 'x2', 'two'), (3, 'x3', 'three')",
        ],
        "CREATE VIRTUAL TABLE vectors USING vec0(key text primary key, e float[4])",
        key="key",
        keys=["x3", "x1", "gone"],
    )

    found = entries(path)

    assert [(one.key, one.content, one.warnings) for one in found] == [
        ("x3", "three", ()), ("x1", "one", ()), ("gone", "", (Warn.NO_TEXT,)),
    ]  # fmt: skip


def test_numbers_that_fit_several_tables_are_not_guessed(tmp_path):
    path = joined(
        tmp_path / "v.db",
        [
            "CREATE TABLE memories (id INTEGER PRIMARY KEY, content TEXT)",
            "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)",
            "INSERT INTO memories VALUES (1, 'm1'), (2, 'm2'), (3, 'm3')",
            "INSERT INTO users VALUES (1, 'u1'), (2, 'u2'), (3, 'u3')",
        ],
        "CREATE VIRTUAL TABLE vectors USING vec0(e float[4])",
    )

    with pytest.raises(SourceError) as caught:
        open_store(path)

    assert str(caught.value) == (
        f'"{path}" has the vectors in vectors, and the texts may be in memories, users'
    )
    assert caught.value.hint == (
        "Name the table with the texts with --records TABLE, or vectors to load the vectors "
        "without texts."
    )
    assert [one.content for one in entries(path, records="memories")] == ["m1", "m2", "m3"]
    assert [one.content for one in entries(path, records="vectors")] == ["", "", ""]


def test_damage_in_a_chunk_is_told_with_what_it_concerns(tmp_path):
    path = sqlite_vec_joined(tmp_path, [("a", [1.0, 2.0]), ("b", [3.0, 4.0])])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE vec_note_chunks SET validity = x'05'")
        connection.commit()

    kept, stray, missing = entries(path)

    assert kept.content == "a"
    assert str(stray).endswith("unparsable: 1 places in use that no row stands in")
    assert str(missing).endswith("unparsable: 1 of 2 rows are in no chunk")


# Damage, and what is not ours


def test_a_damaged_page_midway_keeps_what_was_read(tmp_path):
    texts = [f"text {number} " * 40 for number in range(200)]
    path = sqlite_blobs(tmp_path, [(text, [0.25, 0.5]) for text in texts])
    data = bytearray(path.read_bytes())
    at = data.rfind(b"text 150 ") // 4096 * 4096
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(data)

    found = entries(path)

    *kept, rejected = found
    assert 50 < len(kept) < 200
    assert all(one.content.startswith(f"text {number} ") for number, one in enumerate(kept))
    assert isinstance(rejected, Rejection)
    assert "cannot be read behind" in rejected.detail


@pytest.mark.parametrize(
    ("statements", "error"),
    [
        (["CREATE TABLE collections (id)", "CREATE TABLE segments (id)",
          "CREATE TABLE embeddings_queue (id INTEGER PRIMARY KEY, vector BLOB)",
          "INSERT INTO embeddings_queue VALUES (1, x'0000803f0000803f')"], UnknownFormat),
        (["CREATE TABLE documents (id, data, tags, entry)",
          "CREATE TABLE sections (indexid INTEGER PRIMARY KEY, id, text, tags, entry)"],
         UnknownFormat),
        (["CREATE TABLE points (id TEXT PRIMARY KEY, point BLOB)",
          "INSERT INTO points VALUES ('a', x'8004952000000000000000')"], EmptyStore),
        ([], EmptyStore),
    ],
    ids=["Chroma", "txtai", "Qdrant", "no tables"],
)  # fmt: skip
def test_databases_of_other_formats_are_not_claimed(statements, error, tmp_path):
    path = fill(tmp_path / "s.db", "PRAGMA user_version = 1", *statements)

    with pytest.raises(error):
        open_store(path)


def test_an_index_of_sqlite_vss_is_named(tmp_path):
    path = fill(
        tmp_path / "s.db",
        "CREATE TABLE articles (id INTEGER PRIMARY KEY, headline TEXT)",
        "PRAGMA writable_schema = ON",
        "INSERT INTO sqlite_master VALUES ('table', 'vss_articles', 'vss_articles', 0,"
        " 'CREATE VIRTUAL TABLE vss_articles USING vss0(headline(4))')",
        'CREATE TABLE "vss_articles_index" (rowid INTEGER PRIMARY KEY, idx BLOB)',
    )

    with pytest.raises(SourceError, match="keeps its vectors in an index of sqlite-vss"):
        open_store(path)


def test_several_databases_in_a_folder_are_read_with_their_names(tmp_path):
    for name in ("one.db", "inner/two"):
        fill(
            tmp_path / name,
            "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, embedding BLOB)",
            rows=[("INSERT INTO t VALUES (1, 't', ?)", [f32(1, 2)])],
        )
    (tmp_path / "notes.md").write_text("nothing")

    assert sorted(one.key for one in entries(tmp_path)) == ["inner/two/1", "one.db/1"]


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=9)),
                        min_size=1, max_size=6), joined=st.booleans())  # fmt: skip
def test_any_damage_gives_errors_and_rejections_only(changes, joined, tmp_path):
    make = sqlite_vec_joined if joined else sqlite_blobs
    (tmp_path / "vec.db").unlink(missing_ok=True)
    (tmp_path / "embeddings.db").unlink(missing_ok=True)
    path = make(tmp_path, [("one", [0.5, 1.25]), ("two", [7.0, 0.125])])
    data = bytearray(path.read_bytes())
    for at, value in changes:
        at %= len(data)
        data[at : at + len(value)] = value[: len(data) - at]
    path.write_bytes(data)

    with suppress(HarcaError):
        found = entries(path)
        assert all(isinstance(one, Record | Rejection) for one in found)


@given(st.lists(st.binary(max_size=80), max_size=5), st.sampled_from(["embedding", "x"]))
def test_any_blobs_have_a_kind_or_none(samples, name):
    kind = kind_of(samples, name=name)

    if kind is not None:
        for sample in samples:
            vector_from(sample, kind)


@pytest.mark.parametrize(
    ("name", "records", "dims"),
    [("sqlite_blob/plausible-docs", 160, 1536), ("sqlite_vec/state-of-union", 84, 768)],
)
def test_real_stores_are_read_whole(name, records, dims):
    store = SHARED / "stores" / name
    if not store.exists():
        pytest.skip(f"the real store {name} is not here")

    found = entries(store)

    assert Counter((type(one), len(one.embedding)) for one in found) == {(Record, dims): records}
    assert all(one.content for one in found)


def test_the_virtual_table_of_a_real_store_has_the_same_vectors():
    store = SHARED / "stores" / "sqlite_vec" / "state-of-union"
    if not store.exists():
        pytest.skip("the real store state-of-union is not here")

    plain, virtual = (
        {one.key: one.embedding.tobytes() for one in entries(store, records=name)}
        for name in ("state_union", "state_union_vec")
    )

    assert plain == virtual
    assert len(plain) == 84
