"""txtai's indexes: ages, backends, what is missing."""

import json
import pickle
import random
import sqlite3
from collections import Counter
from contextlib import closing, suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harca.errors import EmptyStore, LfsPointer, SourceError, UnknownFormat
from harca.load import Intake
from harca.model import Record
from harca.options import LoadOptions
from harca.readers import msgpack
from harca.readers.base import open_store
from tests.conftest import SHARED
from tests.contract.make_faiss import faiss, write_index
from tests.contract.make_txtai import (
    CONFIG,
    make_txtai,
    write_config,
    write_documents,
    write_vectors,
)
from tests.unit.memory_target import STARTED

DATE = "2024-09-22 10:51:14.573706"
SOME = [("one", [1.0, 2.0, 3.0]), ("two", [4.0, 5.0, 6.0])]


def read(path):
    reader = open_store(path)
    return list(Intake(reader, LoadOptions(), now=STARTED).entries()), reader.notes


def values(record):
    return {name: json.loads(value) for name, value in record.metadata.items()}


def store_of(path, sections, vectors, documents=None, **config):
    path.mkdir(parents=True)
    write_config(path, **config)
    write_vectors(path / "embeddings", vectors, backend=config.get("backend", "faiss"))
    write_documents(path / "documents", sections, documents)
    return path


def test_a_record_has_what_the_store_says(tmp_path):
    store = store_of(
        tmp_path / "s",
        [(0, "a", "hello", "x, y", DATE), (7, "b", "body", None, DATE)],
        {0: [1.0, 0.0], 7: [0.0, 1.0]},
        {"a": {"text": "hello", "page": 1, "l": [1]}},
        build={"txtai": "7.4.0"},
    )

    found, notes = read(store)

    assert [(one.key, one.content, one.model_id) for one in found] == [
        ("a", "hello", "a/model"), ("b", "body", "a/model"),
    ]  # fmt: skip
    assert [values(one) for one in found] == [{"page": 1, "l": [1], "tags": "x, y"}, {}]
    assert found[0].created_at.isoformat() == "2024-09-22T10:51:14.573706+00:00"
    assert (found[1].origin, found[1].source) == ("embeddings#7", "txtai")
    assert (notes.metric, notes.files, notes.why) == (
        "inner_product", 3, "a configuration of txtai 7.4.0",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["config.json", "embeddings", "documents"])
def test_any_of_its_files_stands_for_the_index(name, tmp_path):
    store = make_txtai(tmp_path, SOME)

    found, _ = read(store / name)

    assert [one.content for one in found] == ["one", "two"]


def test_another_column_can_have_the_text(tmp_path):
    store = store_of(
        tmp_path / "s",
        [(0, "a", "the body", None, DATE)],
        {0: [1.0]},
        {"a": {"body": "the body", "text": "other"}},
        columns={"text": "body"},
    )

    (found,), _ = read(store)

    assert (found.content, values(found)) == ("the body", {"text": "other"})


def test_an_id_with_several_texts_gives_several_keys(tmp_path):
    store = store_of(
        tmp_path / "s",
        [(0, "a", "one", None, DATE), (1, "a", "two", None, DATE), (2, "b", "x", None, DATE)],
        {0: [1.0], 1: [2.0], 2: [3.0]},
    )

    assert [one.key for one in read(store)[0]] == ["a#0", "a#1", "b"]


def test_what_has_no_text_or_no_vector_is_told(tmp_path):
    store = store_of(
        tmp_path / "s",
        [(0, "a", "one", None, DATE), (2, "c", "unseen", None, DATE), (3, "d", None, None, DATE)],
        {0: [1.0], 1: [2.0], 3: [3.0]},
        {"fields only": {"note": "n"}},
    )
    with closing(sqlite3.connect(store / "documents")) as database:
        database.execute("INSERT INTO objects VALUES ('d', x'00', NULL, NULL)")
        database.commit()

    found, notes = read(store)

    assert [one.key if isinstance(one, Record) else str(one) for one in found] == [
        "a",
        "embeddings#1: no-text: expected a string as text, found nothing",
        "d",
        "documents#2: no-vector: no index has a vector 2",
    ]
    assert (found[2].content, found[2].warnings) == ("", ("missing-text",))
    assert json.loads(found[3].payload) == {"id": "c", "text": "unseen"}
    assert notes.without_vectors == ["documents#fields only"]
    assert notes.left_out == [("documents", "1 objects, which are binary")]


@pytest.mark.parametrize("ids", [["a", None, 7], ["a", None, "a"]])
@pytest.mark.parametrize("kept", ["config", "config of 4.0", "msgpack", "pickle"])
def test_without_content_there_are_ids_alone(kept, ids, tmp_path):
    store = tmp_path / "s"
    store.mkdir()
    write_vectors(store / "embeddings", {0: [1.0], 2: [3.0]})
    if kept.startswith("config"):
        write_config(store, content=False, ids=ids, as_pickle=kept != "config")
    else:
        write_config(store, content=False)
        packed = {
            "msgpack": b"\x93\xa1a\xc0" + (b"\x07" if 7 in ids else b"\xa1a"),
            "pickle": pickle.dumps(ids, protocol=4),
        }
        (store / "ids").write_bytes(packed[kept])

    found, _ = read(store)

    assert [one.key for one in found] == (["a", "7"] if 7 in ids else ["a#0", "a#2"])
    assert all((one.content, one.warnings) == ("", ("missing-text",)) for one in found)


def test_rows_of_deleted_documents_are_passed_over(tmp_path):
    store = store_of(
        tmp_path / "s",
        [(1, "b", "kept", None, DATE)],
        {0: [0.0, 0.0], 1: [1.0, 1.0]},
        backend="numpy",
    )

    found, notes = read(store)

    assert [one.key for one in found] == ["b"]
    assert notes.left_out == [("embeddings", "1 vectors of deleted documents")]


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_an_array_that_was_pickled_is_read(backend, tmp_path):
    store = make_txtai(tmp_path, SOME)
    write_config(store, backend=backend)
    array = np.memmap(tmp_path / "m", np.float32, "w+", shape=(2, 3))
    array[:] = [vector for _, vector in SOME]
    (store / "embeddings").write_bytes(pickle.dumps(array, protocol=4))
    del array

    assert [one.embedding.tolist() for one in read(store)[0]] == [vector for _, vector in SOME]


def test_further_indexes_are_read_with_the_same_texts(tmp_path):
    store = store_of(
        tmp_path / "s",
        [(0, "a", "one", None, DATE), (4, "b", "two", None, DATE)],
        {0: [1.0], 4: [2.0]},
        indexes={"large": {"path": "large/model"}},
    )
    further = store / "indexes" / "large"
    further.mkdir(parents=True)
    write_config(further, path="large/model", content=False)
    write_vectors(further / "embeddings", {0: [1.5, 1.0], 1: [2.5, 1.0]})
    (further / "ids").write_bytes(b"\x92\x00\x04")

    found, _ = read(store)

    assert [(one.key, one.content, one.model_id, len(one.embedding)) for one in found] == [
        ("a", "one", "a/model", 1),
        ("b", "two", "a/model", 1),
        ("large/a", "one", "large/model", 2),
        ("large/b", "two", "large/model", 2),
    ]


@pytest.mark.parametrize("backend", ["annoy", "hnsw", "ggml", "pgvector", "sqlite", "my.Backend"])
def test_other_backends_are_refused_by_name(backend, tmp_path):
    store = make_txtai(tmp_path, SOME)
    write_config(store, backend=backend)
    (store / "embeddings").write_bytes(b"something else")

    with pytest.raises(SourceError) as caught:
        open_store(store)

    assert str(caught.value) == (
        f'"{store}/embeddings" is kept by txtai\'s backend "{backend}", which is not read'
    )


def test_quantised_vectors_are_refused(tmp_path):
    store = make_txtai(tmp_path, SOME)
    index = faiss.index_factory(3, "IDMap,SQ8")
    array = np.array([vector for _, vector in SOME], np.float32)
    index.train(array)
    index.add_with_ids(array, np.arange(2))
    write_index(index, store / "embeddings")

    with pytest.raises(SourceError, match="IndexScalarQuantizer, which keeps approximations"):
        open_store(store)
    with (store / "embeddings").open("wb") as file:
        np.save(file, np.zeros((2, 3), np.uint8))
    write_config(store, backend="numpy", quantize=1)
    with pytest.raises(SourceError, match="holds no float vectors but 2 dimensions of uint8"):
        open_store(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda store: (store / "documents").unlink(), 'has no file "documents" with its texts'),
        (
            lambda store: (store / "documents").write_bytes(bytes(12) + b"DUCK"),
            'no SQLite database, but the texts of txtai\'s database "True"',
        ),
        (lambda store: (store / "embeddings").write_bytes(b"IxF2"), "ends at byte 4"),
    ],
    ids=["no documents", "DuckDB", "no vectors"],
)
def test_what_cannot_be_read_is_an_error(change, message, tmp_path):
    store = make_txtai(tmp_path, SOME)
    change(store)

    with pytest.raises(SourceError, match=message):
        open_store(store)


def test_an_index_for_words_alone_is_an_empty_store(tmp_path):
    store = make_txtai(tmp_path, SOME)
    (store / "embeddings").unlink()

    with pytest.raises(EmptyStore, match="an index of txtai for search by words alone"):
        open_store(store)


@pytest.mark.parametrize("name", ["config.json", "embeddings", "documents"])
def test_an_lfs_pointer_is_told(name, tmp_path):
    store = make_txtai(tmp_path, SOME)
    (store / name).write_text("version https://git-lfs.github.com/spec/v1\n")

    with pytest.raises(LfsPointer, match=name):
        open_store(store)


class Runs:
    """Unpickling it would write a file."""

    def __reduce__(self):
        return exec, ("open('ran', 'w')",)


@pytest.mark.parametrize("name", ["config", "ids", "embeddings"])
def test_a_pickle_that_would_run_something_does_not(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "s"
    store.mkdir()
    write_config(store, as_pickle=True, content=False, backend="numpy")
    write_vectors(store / "embeddings", {0: [1.0]}, backend="numpy")
    (store / name).write_bytes(pickle.dumps(CONFIG | {"x": Runs()}, protocol=4))

    with pytest.raises(SourceError, match=r'wants to call "builtins\.exec", which is not allowed'):
        open_store(store)

    assert not (tmp_path / "ran").exists()


def test_a_model_is_no_index(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    (tmp_path / "embeddings").write_bytes(b"something")

    with pytest.raises(UnknownFormat):
        open_store(tmp_path)


@pytest.mark.parametrize("damage", [(b"}", b"["), (b"'", b'"'), (b"(", b"{")], ids=str)
def test_a_damaged_header_of_an_array_is_said_to_be_one(damage, tmp_path):
    sections = [(0, "a", "hello", None, DATE), (1, "b", "body", None, DATE)]
    store = store_of(tmp_path / "s", sections, {0: [1.0, 0.0], 1: [0.0, 1.0]}, backend="numpy")
    file = store / "embeddings"
    whole = file.read_bytes()
    file.write_bytes(whole[:10] + whole[10:].replace(*damage, 1))

    with pytest.raises(SourceError, match="is no array of NumPy"):
        read(store)


def test_a_damaged_database_gives_one_rejection(tmp_path):
    entries = [("text " * 400, [float(number), 1.0, 2.0]) for number in range(1, 60)]
    store = make_txtai(tmp_path, entries)
    data = bytearray((store / "documents").read_bytes())
    dice = random.Random(1)
    for _ in range(400):
        data[dice.randrange(4096, len(data))] = dice.randrange(256)
    (store / "documents").write_bytes(data)

    with suppress(SourceError):
        found, _ = read(store)
        assert [str(one) for one in found if not isinstance(one, Record)]


@given(
    name=st.sampled_from(["config.json", "embeddings", "documents"]),
    changes=st.lists(
        st.tuples(st.integers(0, 30_000), st.binary(max_size=5), st.integers(0, 5)), max_size=4
    ),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=60,
)
def test_a_changed_file_is_refused_or_read(name, changes, tmp_path_factory):
    store = make_txtai(tmp_path_factory.mktemp("txtai"), SOME)
    data = (store / name).read_bytes()
    for at, new, gone in changes:
        at %= len(data)
        data = (data[:at] + new + data[at + gone :]) or b"\0"
    (store / name).write_bytes(data)

    with suppress(SourceError):
        found, _ = read(store)
        assert found


def test_the_real_store_is_read_whole():
    store = SHARED / "stores" / "txtai" / "crm-manual-it"
    if not store.exists():
        pytest.skip("the real store crm-manual-it is not here")

    found, _ = read(store)

    assert Counter((type(one), len(one.embedding)) for one in found) == {(Record, 768): 418}
    assert sum(not one.content.isascii() for one in found) == 400
    assert len({one.key for one in found}) == 418
    assert {one.model_id for one in found} == {"nickprock/sentence-bert-base-italian-xxl-uncased"}
    index: Any = faiss.read_index(str(store / "embeddings"))
    vectors = index.index.reconstruct_n(0, 418)
    assert np.array_equal([one.embedding for one in found], vectors)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x00", 0), (b"\x7f", 127), (b"\xff", -1), (b"\xe0", -32), (b"\xc0", None),
        (b"\xc2", False), (b"\xc3", True), (b"\xcc\xff", 255), (b"\xcd\x01\x00", 256),
        (b"\xce\x00\x01\x00\x00", 65536), (b"\xcf" + bytes(7) + b"\x01", 1), (b"\xd0\x80", -128),
        (b"\xd1\xff\x00", -256), (b"\xd2\xff\xff\xff\xff", -1), (b"\xd3" + b"\xff" * 8, -1),
        (b"\xca\x3f\x00\x00\x00", 0.5), (b"\xcb\x3f\xe0" + bytes(6), 0.5), (b"\xa2ab", "ab"),
        (b"\xd9\x01a", "a"), (b"\xda\x00\x01a", "a"), (b"\xdb\x00\x00\x00\x01a", "a"),
        (b"\xc4\x01a", b"a"), (b"\x92\x01\xa1b", [1, "b"]), (b"\xdc\x00\x01\x05", [5]),
        (b"\xdd\x00\x00\x00\x01\x05", [5]), (b"\x81\xa1a\x01", {"a": 1}),
        (b"\xde\x00\x01\xa1a\x01", {"a": 1}),
    ],
    ids=repr,
)  # fmt: skip
def test_messagepack_is_read(data, expected):
    assert msgpack.unpack(data) == expected


@pytest.mark.parametrize(
    "data",
    [b"", b"\x92\x01", b"\xdd\xff\xff\xff\xff\x01", b"\xdb\xff\xff\xff\xffabc", b"\x01\x01",
     b"\xc1", b"\xd4\x01\x01", b"\xa1\xff", b"\x91" * 100, b"\x81\x01\x01", b"\x82\x82" * 15],
    ids=repr,
)  # fmt: skip
def test_no_messagepack_is_an_error(data):
    with pytest.raises(ValueError, match=r"\w"):
        msgpack.unpack(data)
