"""VDF: namespaces, vector columns, what vector-io leaves open, what is missing."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harca.errors import LfsPointer, SourceError, UnknownFormat, UsageError
from harca.load import Intake
from harca.model import Record, Rejection
from harca.options import LoadOptions
from harca.readers.base import open_store
from tests.contract import make_vdf
from tests.unit.memory_target import STARTED


def entries(path, **given):
    options = LoadOptions(**given)
    return list(Intake(open_store(path, options.defaults), options, now=STARTED).entries())


def columns(*texts: str, **more: Any) -> dict[str, Any]:
    vectors = pa.array([[len(text) + 0.5, 1.0] for text in texts], pa.list_(pa.float64()))
    return {"id": [f"id {text}" for text in texts], "vector": vectors, "text": texts, **more}


def change(store: Path, change_meta: Any) -> None:
    meta = json.loads((store / "VDF_META.json").read_bytes())
    change_meta(meta)
    (store / "VDF_META.json").write_text(json.dumps(meta))


def test_a_row_becomes_a_record(tmp_path):
    missing = pa.array([1.0, float("nan")])
    store = make_vdf.write(tmp_path, {("docs", ""): columns("a", "b", page=missing)})

    found = entries(store)

    assert [(one.key, one.content, one.model_id, one.source) for one in found] == [
        ("id a", "a", "test/model", "vdf"), ("id b", "b", "test/model", "vdf"),
    ]  # fmt: skip
    assert [one.metadata for one in found] == [{"page": "1.0"}, {"page": "null"}]
    reader = open_store(store / "VDF_META.json")
    next(reader.items())
    assert (reader.notes.metric, reader.notes.why) == ("cosine", "VDF_META.json with 1 namespace")
    assert reader.size_hint() == 2


def test_indexes_and_namespaces_keep_keys_apart(tmp_path):
    store = make_vdf.write(
        tmp_path,
        {("one", ""): columns("a"), ("one", "n"): columns("a"), ("two", ""): columns("a")},
    )

    found = entries(store)

    assert [(one.key, one.metadata) for one in found] == [
        ("one/id a", {"index": '"one"'}),
        ("one/n/id a", {"index": '"one"', "namespace": '"n"'}),
        ("two/id a", {"index": '"two"'}),
    ]
    assert [one.key for one in entries(store, records="two")] == ["id a"]
    with pytest.raises(UsageError, match='no index "three"'):
        entries(store, records="three")


def test_each_vector_column_is_a_record(tmp_path):
    both = columns(
        "a", "b", "c",
        title_vector=pa.array([[7.0], None, None]),
        said={
            "vector_columns": ["vector", "title_vector"],
            "model_map": {"title_vector": {"model_name": "small"},
                          "vector": {"model_name": "NOT_PROVIDED"}},
        },
    )  # fmt: skip
    both["vector"] = pa.array([[1.0, 2.0], [3.0, 4.0], None])
    store = make_vdf.write(tmp_path, {("docs", ""): both})

    *found, last = entries(store)

    assert [(one.key, one.embedding.tolist(), one.model_id, one.metadata) for one in found] == [
        ("vector/id a", [1.0, 2.0], "test/model", {}),
        ("title_vector/id a", [7.0], "small", {}),
        ("vector/id b", [3.0, 4.0], "test/model", {}),
    ]
    assert last.reason == "no-vector"
    assert len({one.origin for one in found}) == 3
    assert [len(one.embedding) for one in entries(store, vector_field="title_vector")[:1]] == [1]


def test_what_the_metadata_say_comes_before_what_looks_likely(tmp_path):
    said = {"model_map": {"vector": {"text_column": "note"}}, "model_name": "NOT_PROVIDED"}
    rows = columns("a", "b", key_of=["x", "y"], note=["N", "M"], said=said)
    store = make_vdf.write(tmp_path, {("docs", ""): rows}, id_column="key_of")

    found = entries(store, model="given")

    assert [(one.key, one.content, one.model_id) for one in found] == [
        ("x", "N", "given"), ("y", "M", "given"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change_meta",
    [
        lambda meta: meta["indexes"].update(docs=meta["indexes"]["docs"][0]),
        lambda meta: meta.update(indexes={"": meta["indexes"]["docs"]}),
        lambda meta: meta["indexes"]["docs"][0].update(data_path="vdf_20240122/i1.parquet"),
        lambda meta: meta["indexes"]["docs"][0].update(data_path="./i1.parquet/1.parquet"),
        lambda meta: meta["indexes"]["docs"][0].update(data_path="."),
        lambda meta: meta["indexes"]["docs"][0].pop("vector_columns"),
        lambda meta: meta["indexes"]["docs"][0].update(vector_columns="vector"),
        lambda meta: meta["indexes"]["docs"][0].update(vector_columns=["na"]),
        lambda meta: meta.update(file_structure=".jsonl"),
    ],
    ids=[
        "no list", "no name", "folder's name first", "a file", "the folder itself", "no columns",
        "columns as text", "other columns", "files as text",
    ],
)  # fmt: skip
def test_what_older_exporters_write_is_read(change_meta, tmp_path):
    store = make_vdf.write(tmp_path, {("docs", ""): columns("a", "b")})
    change(store, change_meta)

    assert [(one.key, one.content) for one in entries(store)] == [("id a", "a"), ("id b", "b")]


@pytest.mark.parametrize("place", ["../elsewhere", "/elsewhere", "C:\\elsewhere", "gs://elsewhere"])
def test_nothing_outside_the_folder_is_read(place, tmp_path):
    store = make_vdf.write(tmp_path, {("docs", ""): columns("a")})
    (store / "i1.parquet").rename(tmp_path / "elsewhere")
    change(store, lambda meta: meta["indexes"]["docs"][0].update(data_path=place))

    with pytest.raises(SourceError, match="has no Parquet file where") as caught:
        entries(store)

    assert caught.value.hint


def test_what_is_listed_and_not_there_is_a_rejection(tmp_path):
    store = make_vdf.write(tmp_path, {("one", ""): columns("a"), ("two", ""): columns("b")})
    (store / "i2.parquet" / "1.parquet").unlink()
    listed = ["vdf/i1.parquet/1.parquet", "vdf/i1.parquet/2.parquet"]
    change(store, lambda meta: meta.update(file_structure=listed))

    found = entries(store)

    assert [(one.origin, one.reason) for one in found if not isinstance(one, Record)] == [
        ("i2.parquet", "unreadable"), ("vdf/i1.parquet/2.parquet", "unreadable"),
    ]  # fmt: skip
    assert [one.key for one in found if isinstance(one, Record)] == ["one/id a"]


def test_a_file_that_is_damaged_is_a_rejection(tmp_path):
    store = make_vdf.write(tmp_path, {("docs", ""): columns("a")})
    pq.write_table(pa.table(columns("b")), store / "i1.parquet" / "2.parquet")
    (store / "i1.parquet" / "1.parquet").write_bytes(b"PAR1")

    first, second = entries(store)

    assert (first.origin, first.reason) == ("i1.parquet/1.parquet", "unparsable")
    assert second.key == "id b"


def test_git_lfs_pointers_are_named(tmp_path):
    store = make_vdf.write(tmp_path, {("docs", ""): columns("a")})
    pointer = b"version https://git-lfs.github.com/spec/v1\n"
    (store / "i1.parquet" / "1.parquet").write_bytes(pointer)

    with pytest.raises(LfsPointer):
        entries(store)


def test_json_with_indexes_of_something_else_is_not_taken(tmp_path):
    (tmp_path / "VDF_META.json").write_text('{"indexes": {"a": [{"name": "b"}]}}')

    with pytest.raises(UnknownFormat):
        entries(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("vector"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
NAMES = [
    "namespace", "index_name", "dimensions", "model_name", "vector_columns", "data_path", "metric",
    "model_map",
]  # fmt: skip


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    said=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3),
    about=st.dictionaries(st.sampled_from(["id_column", "file_structure", "exported_from"]), JSON),
)
def test_metadata_of_any_shape_give_an_error_or_rejections(said, about, tmp_path_factory):
    store = make_vdf.write(
        tmp_path_factory.mktemp("fuzz"), {("docs", ""): columns("a", "b", said=said)}, **about
    )

    try:
        found = entries(store)
    except SourceError:
        return

    assert found
    assert all(isinstance(one, Record | Rejection) for one in found)
