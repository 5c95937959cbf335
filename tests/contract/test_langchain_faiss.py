"""FAISS indexes, and what LangChain keeps beside them."""

import json
import pickle
import random
import struct
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harca.errors import EmptyStore, LfsPointer, SourceError, UnknownFormat
from harca.load import Intake
from harca.model import Record, Rejection
from harca.options import LoadOptions
from harca.readers.base import open_store
from harca.readers.faiss_file import is_faiss, open_index
from tests.conftest import SHARED
from tests.contract.make_faiss import (
    GENERATIONS,
    faiss,
    make_index,
    make_langchain,
    pickled,
    write_index,
)
from tests.unit.memory_target import STARTED

LFS = "version https://git-lfs.github.com/spec/v1\n"
SOME = [(f"text {number}", [number + 0.25, -1.0, 0.5, 1e-7]) for number in range(40)]


def entries(path):
    return list(Intake(open_store(path), LoadOptions(), now=STARTED).entries())


def values(record):
    return {name: json.loads(value) for name, value in record.metadata.items()}


@pytest.mark.parametrize(
    ("kind", "name", "rounded_to"),
    [
        ("Flat", "IndexFlatL2", np.float32),
        ("IDMap,Flat", "IndexIDMap of IndexFlatL2", np.float32),
        ("IDMap2,Flat", "IndexIDMap2 of IndexFlatL2", np.float32),
        ("HNSW8", "IndexHNSWFlat", np.float32),
        ("IDMap,HNSW8", "IndexIDMap of IndexHNSWFlat", np.float32),
        ("IVF3,Flat", "IndexIVFFlat", np.float32),
        ("IVF100,Flat", "IndexIVFFlat", np.float32),
        ("SQfp16", "IndexScalarQuantizer", np.float16),
        ("HNSW8_SQfp16", "IndexHNSWSQ of IndexScalarQuantizer", np.float16),
    ],
)
def test_vectors_are_read_as_faiss_has_them(kind, name, rounded_to, tmp_path):
    index = make_index(SOME, kind)

    found = open_index(write_index(index, tmp_path / "x"))
    vectors = dict(found.vectors())

    places = [100 + 3 * n if kind.startswith("IDMap") else n for n in range(len(SOME))]
    assert (found.kind, found.dims, found.total, found.damage) == (name, 4, len(SOME), None)
    assert {number: vector.tolist() for number, vector in vectors.items()} == {
        place: np.array(vector, rounded_to).astype(np.float32).tolist()
        for place, (_, vector) in zip(places, SOME, strict=True)
    }


def test_bfloat16_is_read_as_faiss_decodes_it(tmp_path):
    index = make_index(SOME, "SQbf16")

    found = dict(open_index(write_index(index, tmp_path / "x")).vectors())

    expected = index.reconstruct_n(0, len(SOME))
    assert np.array_equal(np.array([found[n] for n in range(len(SOME))]), expected)


def test_vectors_that_were_normalised_are_read_as_they_are_kept(tmp_path):
    index = make_index(SOME, "L2norm,Flat")

    found = dict(open_index(write_index(index, tmp_path / "x")).vectors())

    assert np.allclose([np.linalg.norm(vector) for vector in found.values()], 1)


def test_an_index_larger_than_a_chunk_is_read_whole(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(5000, 96)).astype(np.float32)
    index = faiss.IndexIDMap(faiss.IndexFlatIP(96))
    ids = np.array(random.Random(1).sample(range(2**40), 5000))
    index.add_with_ids(vectors, ids)

    found = open_index(write_index(index, tmp_path / "x"))

    assert (found.metric, found.total) == ("inner_product", 5000)
    numbers, rows = zip(*found.vectors(), strict=True)
    assert list(numbers) == ids.tolist()
    assert np.array_equal(rows, vectors)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("SQ8", "IndexScalarQuantizer"),
        ("PQ2x4", "IndexPQ"),
        ("IVF2,PQ2x4", "IndexIVFPQ"),
        ("IVF2,SQ8", "IndexIVFScalarQuantizer"),
        ("HNSW8_SQ8", "IndexScalarQuantizer"),
        ("IDMap,SQ8", "IndexScalarQuantizer"),
        ("LSH", "IndexLSH"),
    ],
)
def test_an_index_of_approximations_is_refused_by_name(kind, name, tmp_path):
    write_index(make_index(SOME, kind), tmp_path / "index.faiss")

    with pytest.raises(SourceError) as caught:
        open_store(tmp_path)

    assert str(caught.value) == (
        f'"{tmp_path}/index.faiss" is a FAISS {name}, which keeps approximations of its vectors, '
        "which cannot be moved exactly"
    )
    assert caught.value.hint.endswith(".")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("PCA2,Flat", 'IndexPreTransform, which keeps its vectors changed by a transform "Pcam"'),
        ("Pad8,Flat", 'IndexPreTransform, which keeps its vectors changed by a transform "RmDT"'),
        ("SQ8,RFlat", "IndexRefine, which is not read"),
    ],
)
def test_other_indexes_that_are_not_read_are_refused_by_name(kind, message, tmp_path):
    write_index(make_index(SOME, kind), tmp_path / "index.faiss")

    with pytest.raises(SourceError, match=message):
        open_store(tmp_path)


def test_a_vector_that_faiss_put_into_no_list_is_told(tmp_path):
    index = faiss.index_factory(4, "IVF2,Flat")
    index.train(np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32))
    index.add(np.array([[1, 2, 3, 4], [np.nan] * 4], np.float32))
    write_index(index, tmp_path / "index.faiss")

    record, rejection = entries(tmp_path)

    assert (record.key, record.embedding.tolist()) == ("0", [1, 2, 3, 4])
    assert str(rejection) == "index.faiss: unparsable: 1 of 2 vectors are in no list"


@pytest.mark.parametrize("kind", ["Flat", "IDMap2,Flat", "HNSW8", "IVF100,Flat", "SQfp16"])
def test_sizes_in_a_file_are_not_believed(kind, tmp_path):
    path = write_index(make_index(SOME[:3], kind), tmp_path / "x")
    data = path.read_bytes()
    for at in range(4, min(len(data) - 8, 400)):
        for wrong in (2**31 - 1, 2**40, 2**63 - 1, 2**64 - 1):
            path.write_bytes(data[:at] + struct.pack("<Q", wrong) + data[at + 8 :])

            with suppress(SourceError):
                assert len(list(open_index(path).vectors())) <= 3


BASES = [
    faiss.serialize_index(make_index(SOME[:5], kind)).tobytes()
    for kind in ("Flat", "IDMap2,Flat", "HNSW4", "IVF9,Flat", "SQfp16", "L2norm,Flat")
]
CHANGES = st.lists(
    st.tuples(st.integers(0, 5000), st.binary(max_size=9), st.integers(0, 9)), max_size=4
)


def changed(data, changes):
    """Put bytes in the place of others; the file becomes longer or shorter by it."""
    for at, new, gone in changes:
        at %= len(data)
        data = (data[:at] + new + data[at + gone :]) or b"\0"
    return data


@given(base=st.sampled_from(BASES), changes=CHANGES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_changed_index_is_refused_or_read(base, changes, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(changed(base, changes))

    with suppress(SourceError):
        found = open_index(path)
        assert all(len(vector) == found.dims for _, vector in found.vectors())


@given(
    base=st.sampled_from(
        [
            pickled({"a": "one", "b": "two"}, {0: "a", 1: "b"}, generation=generation)
            for generation in GENERATIONS
        ]
    ),
    changes=CHANGES,
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_changed_pickle_is_refused_or_read(base, changes, tmp_path):
    write_index(make_index(SOME[:2]), tmp_path / "index.faiss")
    (tmp_path / "index.pkl").write_bytes(changed(base, changes))

    with suppress(SourceError):
        found = entries(tmp_path)
        assert sum(not str(one.origin).startswith("index.pkl") for one in found) == 2


@pytest.mark.parametrize("generation", GENERATIONS)
def test_text_and_metadata_are_of_every_generation(generation, tmp_path):
    metadata = {"page": 1, "when": datetime(2024, 5, 6, tzinfo=UTC), "path": Path("/a"), "l": (1,)}
    write_index(make_index(SOME[:1]), tmp_path / "index.faiss")
    (tmp_path / "index.pkl").write_bytes(
        pickled({"a": "text\r\n"}, {0: "a"}, generation=generation, metadata=metadata)
    )

    (found,) = entries(tmp_path)

    assert (found.key, found.content, found.source) == ("a", "text\r\n", "langchain-faiss")
    assert values(found) == {
        "page": 1, "when": "2024-05-06T00:00:00+00:00", "path": "/a", "l": [1],
    }  # fmt: skip


def test_ids_can_be_a_list(tmp_path):
    write_index(make_index(SOME[:2]), tmp_path / "index.faiss")
    (tmp_path / "index.pkl").write_bytes(pickled({"a": "one", "b": "two"}, ["b", "a"]))

    assert [(one.key, one.content) for one in entries(tmp_path)] == [("b", "two"), ("a", "one")]


def test_several_indexes_in_a_folder_keep_keys_apart(tmp_path):
    for name in ("one", "two 日本"):
        write_index(make_index(SOME[:1]), tmp_path / f"{name}.faiss")
        (tmp_path / f"{name}.pkl").write_bytes(pickled({"a": name}, {0: "a"}))

    assert [(one.key, one.content) for one in entries(tmp_path)] == [
        ("one/a", "one"), ("two 日本/a", "two 日本"),
    ]  # fmt: skip
    (alone,) = entries(tmp_path / "one.pkl")
    assert (alone.key, alone.origin) == ("a", "one.faiss#0")


def test_an_index_is_known_by_its_content_whatever_its_name(tmp_path):
    write_index(make_index(SOME[:2]), tmp_path / "vectors.bin")
    (tmp_path / "vectors.pkl").write_bytes(pickled({"a": "one", "b": "two"}, {0: "a", 1: "b"}))
    (tmp_path / "text.faiss").write_text("IxFI is how it begins, but it is a text. " * 3)

    assert [one.key for one in entries(tmp_path / "vectors.bin")] == ["a", "b"]
    assert not is_faiss(tmp_path / "text.faiss")
    with pytest.raises(UnknownFormat):
        open_store(tmp_path)


def test_vectors_without_texts_are_read_by_position(tmp_path):
    write_index(make_index(SOME[:2]), tmp_path / "index.faiss")

    found = entries(tmp_path)

    assert [(one.key, one.content, one.warnings) for one in found] == [
        ("0", "", ("missing-text",)), ("1", "", ("missing-text",)),
    ]  # fmt: skip


def test_an_index_beside_what_it_may_come_from_is_left_to_that_reader(tmp_path):
    write_index(make_index(SOME[:2]), tmp_path / "index.faiss")
    (tmp_path / "chunks.json").write_text('["one", "two"]')

    with pytest.raises(UnknownFormat):
        open_store(tmp_path)

    assert len(entries(tmp_path / "index.faiss")) == 2


def test_what_has_no_text_or_no_vector_is_told(tmp_path):
    write_index(make_index(SOME[:3]), tmp_path / "index.faiss")
    (tmp_path / "index.pkl").write_bytes(
        pickled({"a": "one", "gone": "left over", "late": "no vector"}, {0: "a", 1: "b", 7: "late"})
    )
    reader = open_store(tmp_path)

    found = list(Intake(reader, LoadOptions(), now=STARTED).entries())

    assert isinstance(found[0], Record)
    assert [str(one) for one in found[1:]] == [
        "index.faiss#1: no-text: expected a string as text, found nothing",
        "index.faiss#2: no-text: no document has its place",
        "index.pkl#late: no-vector: the index has no vector at 7",
    ]
    assert reader.notes.without_vectors == ["index.pkl#gone"]
    payloads = [json.loads(one.payload or b"") for one in found[1:] if isinstance(one, Rejection)]
    assert payloads[1]["embedding"] == pytest.approx(SOME[2][1])
    assert payloads[2]["text"] == "no vector"


def test_metadata_that_are_no_json_reject_one_record(tmp_path):
    knot: list[object] = []
    knot.append(knot)
    write_index(make_index(SOME[:1]), tmp_path / "index.faiss")
    (tmp_path / "index.pkl").write_bytes(pickled({"a": "x"}, {0: "a"}, metadata={"knot": knot}))

    (found,) = entries(tmp_path)

    assert str(found) == "index.faiss#0: bad-metadata: nested too deeply"


class Runs:
    """Unpickling it would write a file."""

    def __reduce__(self):
        return exec, ("open('ran', 'w')",)


def test_a_pickle_that_would_run_something_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_index(make_index(SOME[:1]), tmp_path / "index.faiss")
    (tmp_path / "index.pkl").write_bytes(pickle.dumps((Runs(), {0: "a"})))

    with pytest.raises(SourceError) as caught:
        open_store(tmp_path)

    assert str(caught.value) == (
        f'"{tmp_path}/index.pkl" is not loaded: the pickle wants to call "builtins.exec", '
        "which is not allowed"
    )
    assert caught.value.hint.startswith("Nothing was run.")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (pickle.dumps(["one", "two"]), "it holds a list"),
        (pickle.dumps((1, 2)), "it holds a tuple"),
        (b"", "no readable pickle"),
    ],
)
def test_a_pickle_of_something_else_is_refused(data, found, tmp_path):
    write_index(make_index(SOME[:1]), tmp_path / "index.faiss")
    (tmp_path / "index.pkl").write_bytes(data)

    with pytest.raises(SourceError, match=f"is no document store of LangChain: {found}"):
        open_store(tmp_path)


@pytest.mark.parametrize("name", ["index.faiss", "index.pkl"])
def test_an_lfs_pointer_is_told(name, tmp_path):
    store = make_langchain(tmp_path, SOME[:1])
    (store / name).write_text(LFS)

    with pytest.raises(LfsPointer, match=name):
        open_store(store)


def test_an_empty_index_is_an_empty_store(tmp_path):
    write_index(faiss.IndexFlatL2(4), tmp_path / "index.faiss")

    with pytest.raises(EmptyStore, match="a langchain-faiss store without a vector"):
        open_store(tmp_path)


def test_the_metric_is_noted(tmp_path):
    reader = open_store(make_langchain(tmp_path, SOME))

    list(reader.items())

    assert (reader.notes.metric, reader.notes.files) == ("l2", 2)


@pytest.mark.parametrize(
    ("name", "records", "dims"), [("blendle-handbook", 247, 1536), ("lc-tutorial", 10, 768)]
)
def test_real_stores_are_read_whole(name, records, dims):
    store = SHARED / "stores" / "faiss_langchain" / name
    if not store.exists():
        pytest.skip(f"the real store {name} is not here")

    found = entries(store)

    assert Counter((type(one), len(one.embedding)) for one in found) == {(Record, dims): records}
    assert len({one.key for one in found}) == records
    assert all(one.content for one in found)
    index = faiss.read_index(str(store / "index.faiss"))
    assert np.array_equal([one.embedding for one in found], index.reconstruct_n(0, records))
