"""LangChain.js's HNSWLib: documents and vectors by label."""

import json
import os

import pytest

from harca.errors import LfsPointer, SourceError, UnknownFormat
from harca.load import Intake
from harca.model import Reason, Record, Warn
from harca.options import LoadOptions
from harca.readers.base import open_store
from tests.conftest import SHARED
from tests.contract.make_chroma import langchain_js, write_langchain_js
from tests.unit.memory_target import STARTED

A, B = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]


def entries(path):
    return list(Intake(open_store(path), LoadOptions(), now=STARTED).entries())


def document(text, **more):
    return {"pageContent": text, "metadata": {"page": 1}, **more}


def test_documents_and_vectors_are_joined_by_label(tmp_path):
    path = write_langchain_js(tmp_path / "s", [["1", document("b")], ["0", document("a")]], [A, B])

    found = entries(path)

    assert [(one.key, one.content, one.embedding.tolist()) for one in found] == [
        ("1", "b", B),
        ("0", "a", A),
    ]
    assert [one.metadata for one in found] == [{"page": "1"}] * 2
    assert {one.source for one in found} == {"langchain-js-hnswlib"}


def test_a_document_s_own_id_is_kept_among_its_metadata(tmp_path):
    pairs = [
        ["0", document("a", id="own")],
        ["1", {"pageContent": "b", "metadata": {"id": 7}, "id": "own"}],
        [2, {"pageContent": "c", "id": "own"}],
    ]
    path = write_langchain_js(tmp_path / "s", pairs, [A, B, A])

    found = entries(path)

    assert [one.key for one in found] == ["0", "1", "2"]
    assert [one.metadata for one in found] == [
        {"page": "1", "id": '"own"'},
        {"id": "7", "store_id": '"own"'},
        {"id": '"own"'},
    ]


@pytest.mark.parametrize(
    ("pair", "reason", "detail"),
    [
        (["0"], Reason.UNPARSABLE, "expected a pair of label and document"),
        (["0", "text"], Reason.UNPARSABLE, "expected a pair of label and document"),
        (["x", document("a")], Reason.UNPARSABLE, "expected a number as label"),
        ([True, document("a")], Reason.UNPARSABLE, "expected a number as label"),
        (["9" * 5000, document("a")], Reason.UNPARSABLE, "expected a number as label"),
        (["5", document("a")], Reason.NO_VECTOR, "the index has no vector 5"),
        (["0", {"metadata": {}}], Reason.NO_TEXT, "expected a string as text, found nothing"),
        (["0", document("a", metadata=[])], Reason.METADATA_NOT_OBJECT, "expected an object"),
    ],
    ids=[
        "no pair", "no document", "no number", "boolean", "long", "no vector", "no text",
        "metadata a list",
    ],
)  # fmt: skip
def test_a_bad_document_is_rejected(pair, reason, detail, tmp_path):
    path = write_langchain_js(tmp_path / "s", [["1", document("kept")], pair], [A, B])

    kept, rejected, *_ = entries(path)

    assert isinstance(kept, Record)
    assert (rejected.origin, rejected.reason) == ("docstore.json#1", reason)
    assert rejected.detail.startswith(detail)
    assert rejected.payload


def test_a_vector_without_a_document_is_rejected(tmp_path):
    path = write_langchain_js(tmp_path / "s", [["1", document("b")]], [A, B])

    kept, rejected = entries(path)

    assert kept.key == "1"
    assert (rejected.origin, rejected.reason) == ("hnswlib.index#0", Reason.NO_TEXT)
    assert rejected.detail == "docstore.json has no document 0"
    assert json.loads(rejected.payload) == {"label": 0, "embedding": A}


def test_documents_cut_short_are_one_rejection(tmp_path):
    path = write_langchain_js(tmp_path / "s", [["0", document("a")], ["1", document("b")]], [A, B])
    os.truncate(path / "docstore.json", 70)

    kept, rejected = entries(path)

    assert kept.key == "0"
    assert (rejected.origin, rejected.reason) == ("docstore.json", Reason.UNPARSABLE)


def test_of_an_index_cut_short_the_vectors_before_are_read(tmp_path):
    path = write_langchain_js(tmp_path / "s", [["0", document("a")], ["1", document("b")]], [A, B])
    os.truncate(path / "hnswlib.index", 96 + 60)

    kept, rejected = entries(path)

    assert kept.key == "0"
    assert rejected.detail == "the index has no vector 1; it ends after element 1 of 2"


@pytest.mark.parametrize(
    ("space", "metric", "warned"),
    [("l2", "l2", 0), ("ip", "inner_product", 0), ("cosine", "cosine", 1), ("other", None, 0)],
)
def test_the_metric_is_told_and_for_cosine_that_lengths_are_lost(space, metric, warned, tmp_path):
    path = write_langchain_js(tmp_path / "s", [["0", document("a")]], [A], space=space)
    reader = open_store(path)

    assert len(list(reader.items())) == 1

    assert reader.notes.metric == metric
    assert [warning for _, warning, _ in reader.notes.warnings] == [Warn.NORMALIZED] * warned


def test_without_its_arguments_a_store_is_read_all_the_same(tmp_path):
    path = langchain_js(tmp_path, [("one", A)])
    (path / "args.json").unlink()
    reader = open_store(path)

    assert len(list(reader.items())) == 1
    assert reader.notes.metric is None


def test_the_index_is_known_whatever_its_name(tmp_path):
    path = langchain_js(tmp_path, [("one", A), ("two", B)])
    moved = (path / "hnswlib.index").rename(path / "vectors.bin")

    assert [one.content for one in entries(moved)] == ["one", "two"]


@pytest.mark.parametrize("name", ["hnswlib.index", "docstore.json"])
def test_a_git_lfs_pointer_is_told(name, tmp_path):
    path = langchain_js(tmp_path, [("one", A)])
    (path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")

    with pytest.raises(LfsPointer, match=name):
        open_store(path)


def test_an_index_of_something_else_is_refused(tmp_path):
    path = langchain_js(tmp_path, [("one", A)])
    (path / "hnswlib.index").write_bytes(bytes(200))

    with pytest.raises(SourceError) as caught:
        open_store(path)

    assert "is no index of hnswlib: the header contradicts itself" in str(caught.value)
    assert caught.value.hint


def test_an_index_without_documents_is_not_taken_for_a_store(tmp_path):
    path = langchain_js(tmp_path, [("one", A)])
    (path / "docstore.json").unlink()

    with pytest.raises(UnknownFormat):
        open_store(path)


def test_the_real_store_is_read():
    path = SHARED / "stores" / "langchainjs_hnswlib" / "startup-talk"
    if not path.exists():
        pytest.skip(f"{path} is not here")

    (found,) = entries(path)

    assert (found.key, len(found.embedding)) == ("0", 1536)
    assert found.content.startswith("okay today")
