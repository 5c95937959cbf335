"""LlamaIndex's stores: layouts, namespaces, what is missing."""

import json
from collections import Counter

import pytest

from harca.load import Intake
from harca.model import Record, Rejection
from harca.options import LoadOptions
from harca.readers.base import open_store
from tests.conftest import SHARED
from tests.unit.memory_target import STARTED


def entries(path):
    return list(Intake(open_store(path), LoadOptions(), now=STARTED).entries())


def write(folder, name, vectors, nodes=None, **more):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"embedding_dict": vectors, **more}))
    if nodes is not None:
        (folder / "docstore.json").write_text(json.dumps({"docstore/data": nodes}))
    return folder


def node(text, **fields):
    return {"__data__": {"text": text, **fields}, "__type__": "1"}


def test_metadata_come_from_node_and_store(tmp_path):
    store = write(
        tmp_path / "s",
        "default__vector_store.json",
        {"a": [1.0]},
        {"a": node("text", metadata={"page": 1, "kept": "node"})},
        metadata_dict={"a": {"_node_type": "TextNode", "kept": "store"}},
        text_id_to_ref_doc_id={"a": "doc"},
    )

    (found,) = entries(store)

    assert (found.key, found.content, found.source) == ("a", "text", "llamaindex")
    assert {name: json.loads(value) for name, value in found.metadata.items()} == {
        "page": 1,
        "kept": "node",
        "_node_type": "TextNode",
        "ref_doc_id": "doc",
    }


def test_namespaces_and_folders_keep_keys_apart(tmp_path):
    for folder in ("one", "two"):
        write(tmp_path / folder, "default__vector_store.json", {"a": [1.0]}, {"a": node("t")})
        write(tmp_path / folder, "image__vector_store.json", {"a": [2.0]})

    assert [one.key for one in entries(tmp_path)] == [
        "one/a", "one/image/a", "two/a", "two/image/a",
    ]  # fmt: skip
    assert [one.key for one in entries(tmp_path / "one")] == ["a", "image/a"]


def test_a_vector_without_its_text_is_rejected_with_its_numbers(tmp_path):
    store = write(tmp_path / "s", "vector_store.json", {"a": [1.5], "b": [2.5]}, {"a": node("t")})

    kept, rejected = entries(store)

    assert isinstance(kept, Record)
    assert isinstance(rejected, Rejection)
    assert rejected.reason == "no-text"
    assert rejected.payload is not None
    assert json.loads(rejected.payload)["embedding"] == [2.5]


def test_texts_that_cannot_be_read_are_said_once(tmp_path):
    store = write(tmp_path / "s", "default__vector_store.json", {"a": [1.0], "b": [2.0]})
    write(store, "image__vector_store.json", {"c": [1.0]})
    (store / "docstore.json").write_text("version https://git-lfs.github.com/spec/v1\n")

    (rejected,) = entries(store)

    assert rejected.reason == "lfs-pointer"


def test_one_file_is_a_store_whatever_its_name(tmp_path):
    store = write(tmp_path / "s", "vectors.json", {"a": [1.0]}, {"a": node("t")})

    (found,) = entries(store / "vectors.json")

    assert (found.key, found.content) == ("a", "t")


@pytest.mark.parametrize(("name", "records"), [("flipside-docs", 79), ("football-rankings", 17)])
def test_real_stores_are_read_whole(name, records):
    store = SHARED / "stores" / "llamaindex" / name
    if not store.exists():
        pytest.skip(f"the real store {name} is not here")

    found = entries(store)

    assert Counter((type(one), len(one.embedding)) for one in found) == {(Record, 1536): records}
    assert all(one.content for one in found)
