"""What every reader promises, whatever its format. A new format is one more case."""

import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from harca.errors import (
    EmptyStore,
    LfsPointer,
    SeveralFormats,
    SourceError,
    StoreNotFound,
    UnknownFormat,
)
from harca.load import Intake
from harca.model import Item, Record, Rejection
from harca.options import LoadOptions
from harca.readers.base import MODULES, Defaults, open_store
from tests.contract import make_chroma, make_json, make_lance, make_vdf
from tests.contract import make_columnar as columnar
from tests.contract.make_faiss import make_langchain, make_langchain_empty
from tests.contract.make_numpy import npy_with_json, npz_with_texts, numpy_empty
from tests.contract.make_sqlite import (
    sqlite_blobs,
    sqlite_empty,
    sqlite_vec_alone,
    sqlite_vec_joined,
)
from tests.contract.make_txtai import make_txtai, make_txtai_empty
from tests.contract.make_vectra import vectra, vectra_documents, vectra_empty
from tests.stores import Entry, record, write_record
from tests.unit.memory_target import STARTED


@dataclass(frozen=True)
class Format:
    """A format under test.

    Attributes:
        make: Writes a store of these entries below a folder; returns the store's path.
        make_empty: Writes a store of the format that has no vector.
        lines: A store cut at the end of a line is a shorter store of the format.
        texts: False if the format keeps vectors only.
        streams: True if a large store takes no more memory than a small one; one case for
            each way of reading is enough.
        costly: True if opening a store takes long, so that fewer kinds of damage are tried.
    """

    module: str
    make: Callable[[Path, Sequence[Entry]], Path]
    make_empty: Callable[[Path], Path]
    lines: bool = False
    texts: bool = True
    streams: bool = False
    costly: bool = False


def _harca_files(folder: Path, entries: Sequence[Entry]) -> Path:
    for number, (text, vector) in enumerate(entries):
        write_record(folder / "store" / f"folder {number % 3}", record(text, vector))
    return folder / "store"


def _harca_documents(folder: Path, entries: Sequence[Entry]) -> Path:
    documents = [
        {"id": f"doc {text[:99]}", "embedding": vector, "content": text, "metadata": {}}
        for text, vector in entries
    ]
    path = folder / "vector-store.json"
    path.write_text(json.dumps(documents))
    return path


def _harca_export(folder: Path, entries: Sequence[Entry]) -> Path:
    rows = [
        {"id": f"row {text[:99]}", "embedding": json.dumps(vector), "content": text, "metadata": {}}
        for text, vector in entries
    ]
    path = folder / "data.json"
    path.write_text(json.dumps({"code_vectors": rows}, indent=1), encoding="utf-8")
    return path


def _only_counters(folder: Path) -> Path:
    (folder / "store").mkdir()
    (folder / "store" / "stats.json").write_text('{"hits": 0}')
    return folder / "store"


def _empty_list(folder: Path) -> Path:
    path = folder / "vector-store.json"
    path.write_text("[]")
    return path


def _empty_table(folder: Path) -> Path:
    path = folder / "data.json"
    path.write_text('{"code_vectors": []}')
    return path


def _llamaindex(folder: Path, entries: Sequence[Entry], *, legacy: bool = False) -> Path:
    store = folder / "storage"
    store.mkdir()
    ids = [f"node {number} {text[:99]}" for number, (text, _) in enumerate(entries)]
    vectors = {
        "embedding_dict": {key: vector for key, (_, vector) in zip(ids, entries, strict=True)},
        "text_id_to_ref_doc_id": dict.fromkeys(ids, "document"),
    }
    nodes = {
        key: {"__data__": {"id_": key, "text": text, "metadata": {"n": 1}}, "__type__": "1"}
        for key, (text, _) in zip(ids, entries, strict=True)
    }
    name = "vector_store.json" if legacy else "default__vector_store.json"
    (store / name).write_text(json.dumps(vectors))
    (store / "docstore.json").write_text(json.dumps({"docstore/data": nodes}))
    return store


def _llamaindex_typescript(folder: Path, entries: Sequence[Entry]) -> Path:
    store = folder / "storage"
    store.mkdir()
    ids = [f"node {number} {text[:99]}" for number, (text, _) in enumerate(entries)]
    vectors = {
        "embeddingDict": {key: vector for key, (_, vector) in zip(ids, entries, strict=True)},
        "textIdToRefDocId": dict.fromkeys(ids, "document"),
    }
    nodes = {
        key: {"__data__": json.dumps({"id_": key, "text": text, "metadata": {}})}
        for key, (text, _) in zip(ids, entries, strict=True)
    }
    (store / "vector_store.json").write_text(json.dumps(vectors))
    (store / "doc_store.json").write_text(json.dumps({"docstore/data": nodes}))
    return store


def _llamaindex_without_vectors(folder: Path) -> Path:
    store = folder / "storage"
    store.mkdir()
    (store / "image__vector_store.json").write_text('{"embedding_dict": {}}')
    return store


COLUMNAR = "harca.readers.columnar"
CASES = {
    "LlamaIndex": Format("harca.readers.llamaindex", _llamaindex, _llamaindex_without_vectors),
    "LlamaIndex of 2023": Format(
        "harca.readers.llamaindex", partial(_llamaindex, legacy=True), _llamaindex_without_vectors
    ),
    "LlamaIndex of TypeScript": Format(
        "harca.readers.llamaindex", _llamaindex_typescript, _llamaindex_without_vectors
    ),
    "JSON list": Format(
        "harca.readers.json_files", make_json.json_list, make_json.empty_list, streams=True
    ),
    "JSON by id": Format("harca.readers.json_files", make_json.json_by_id, make_json.empty_list),
    "JSON below keys": Format(
        "harca.readers.json_files", make_json.json_nested, make_json.empty_list
    ),
    "JSON lines": Format(
        "harca.readers.json_files",
        make_json.json_lines,
        make_json.empty_list,
        lines=True,
        streams=True,
    ),
    "JSON columns": Format(
        "harca.readers.json_files", make_json.json_columns, make_json.empty_list
    ),
    "JSON files": Format("harca.readers.json_files", make_json.json_files, make_json.empty_list),
    "LangChain in memory": Format(
        "harca.readers.json_files", make_json.langchain_memory, make_json.empty_list
    ),
    "Spring AI": Format("harca.readers.json_files", make_json.spring_ai, make_json.empty_list),
    "CSV": Format(
        "harca.readers.csv_files",
        make_json.table,
        make_json.only_a_header,
        lines=True,
        streams=True,
    ),
    "LangChain cache": Format(
        "harca.readers.langchain_cache",
        make_json.cached_vectors,
        make_json.no_cached_vectors,
        texts=False,
        streams=True,
    ),
    "HARCA files": Format("harca.readers.harca", _harca_files, _only_counters, streams=True),
    "Vectra": Format("harca.readers.vectra", vectra, vectra_empty, streams=True),
    "Vectra documents": Format("harca.readers.vectra", vectra_documents, vectra_empty),
    "NumPy with JSON": Format(
        "harca.readers.numpy_files", npy_with_json, numpy_empty, streams=True
    ),
    "NumPy's npz": Format("harca.readers.numpy_files", npz_with_texts, numpy_empty),
    "SQLite": Format("harca.readers.sqlite", sqlite_blobs, sqlite_empty, streams=True),
    "sqlite-vec": Format("harca.readers.sqlite", sqlite_vec_alone, sqlite_empty),
    "sqlite-vec with a table": Format("harca.readers.sqlite", sqlite_vec_joined, sqlite_empty),
    "Parquet": Format(COLUMNAR, columnar.parquet, columnar.without_vectors, streams=True),
    "Parquet of doubles": Format(COLUMNAR, columnar.parquet_doubles, columnar.without_vectors),
    "Parquet of a fixed size": Format(
        COLUMNAR, columnar.parquet_fixed_size, columnar.without_vectors
    ),
    "Parquet in parts": Format(COLUMNAR, columnar.parquet_parts, columnar.without_vectors),
    "Parquet of texts": Format(COLUMNAR, columnar.parquet_texts, columnar.without_vectors),
    "Arrow file": Format(COLUMNAR, columnar.arrow_file, columnar.without_vectors),
    "Arrow stream": Format(COLUMNAR, columnar.arrow_stream, columnar.without_vectors),
    "Feather": Format(COLUMNAR, columnar.feather_file, columnar.without_vectors),
    "VDF": Format("harca.readers.vdf", make_vdf.dataset, make_vdf.empty),
    "LanceDB": Format(
        "harca.readers.lance",
        make_lance.table,
        make_lance.without_vectors,
        streams=True,
        costly=True,
    ),
    **{
        f"LangChain FAISS of {generation}": Format(
            "harca.readers.langchain_faiss",
            partial(make_langchain, generation=generation),
            make_langchain_empty,
        )
        for generation in ("2023", "2025")
    },
    **{
        f"LangChain FAISS {kind}": Format(
            "harca.readers.langchain_faiss",
            partial(make_langchain, kind=kind),
            make_langchain_empty,
        )
        for kind in ("HNSW4", "IVF100,Flat", "IDMap2,Flat")
    },
    "txtai": Format("harca.readers.txtai", make_txtai, make_txtai_empty),
    "txtai of 4.0": Format(
        "harca.readers.txtai", partial(make_txtai, as_pickle=True), make_txtai_empty
    ),
    "txtai with NumPy": Format(
        "harca.readers.txtai", partial(make_txtai, backend="numpy"), make_txtai_empty
    ),
    "Chroma 0.4": Format(
        "harca.readers.chroma",
        partial(make_chroma.chroma, version="0.4.0"),
        make_chroma.chroma_without_records,
    ),
    "Chroma 0.5": Format(
        "harca.readers.chroma",
        partial(make_chroma.chroma, version="0.5"),
        make_chroma.chroma_without_records,
        streams=True,
    ),
    "Chroma 1.x": Format(
        "harca.readers.chroma",
        partial(make_chroma.chroma, version="1.x"),
        make_chroma.chroma_without_records,
    ),
    "Chroma 0.3": Format(
        "harca.readers.chroma_parquet",
        make_chroma.chroma_parquet,
        make_chroma.chroma_parquet_without_records,
        streams=True,
    ),
    "LangChain.js HNSWLib": Format(
        "harca.readers.langchain_js",
        make_chroma.langchain_js,
        make_chroma.langchain_js_without_documents,
        streams=True,
    ),
    "HARCA documents": Format("harca.readers.harca", _harca_documents, _empty_list),
    "HARCA export": Format("harca.readers.harca", _harca_export, _empty_table),
}

TEXTS = [
    "plain", "日本語（全角）", "👩‍👩‍👧‍👦", "e\u0301 is not é", "\u2028\ufeff",
    'quotes " \\ and \n\t\x01', '"embedding": [9, 9]', "", " ", "a" * 5000,
    "<b>&amp;</b>", "../../etc/passwd", "\U0010ffff",
]  # fmt: skip
ENTRIES: list[Entry] = [(text, [number + 0.5, -1e-7, 0.1]) for number, text in enumerate(TEXTS)]


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def store_format(request):
    return request.param


def entries_of(path):
    return list(Intake(open_store(path), LoadOptions(), now=STARTED).entries())


def records_of(path):
    found = entries_of(path)
    assert all(isinstance(one, Record) for one in found), found
    return found


def test_every_registered_format_has_a_case():
    assert {case.module for case in CASES.values()} == set(MODULES)


def test_every_record_is_read_once_and_exactly(store_format, tmp_path):
    records = records_of(store_format.make(tmp_path, ENTRIES))

    expected = {
        np.array(vector, np.float32).tobytes(): text if store_format.texts else ""
        for text, vector in ENTRIES
    }
    assert len(records) == len(ENTRIES)
    assert {one.embedding.tobytes(): one.content for one in records} == expected


def test_the_order_is_the_same_on_every_call(store_format, tmp_path):
    path = store_format.make(tmp_path, ENTRIES)
    reader, another = open_store(path), open_store(path)

    orders = [[item.origin for item in one.items()] for one in (reader, reader, another)]

    assert orders[0] == orders[1] == orders[2]
    assert len(set(orders[0])) == len(ENTRIES)


def test_two_passes_at_once_do_not_disturb_each_other(store_format, tmp_path):
    reader = open_store(store_format.make(tmp_path, ENTRIES))

    pairs = zip(reader.items(), reader.items(), strict=True)

    assert all(one.origin == other.origin for one, other in pairs)


def test_keys_are_unique_and_do_not_depend_on_where_the_store_is(store_format, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "日本").mkdir()

    here = [one.key for one in records_of(store_format.make(tmp_path / "here", ENTRIES))]
    there = [one.key for one in records_of(store_format.make(tmp_path / "日本", ENTRIES))]

    assert here == there
    assert len(set(here)) == len(ENTRIES)


def test_a_store_is_read_by_a_relative_path_too(store_format, tmp_path, monkeypatch):
    path = store_format.make(tmp_path, ENTRIES)
    absolute = [one.origin for one in records_of(path)]
    monkeypatch.chdir(path.parent)

    assert [one.origin for one in records_of(Path(path.name))] == absolute


def test_notes_are_of_the_latest_pass(store_format, tmp_path):
    reader = open_store(store_format.make(tmp_path, ENTRIES))
    list(reader.items())
    once = (reader.notes.files, reader.notes.bytes)

    list(reader.items())

    assert (reader.notes.files, reader.notes.bytes) == once
    assert once[1] > (5000 if store_format.texts else 100)


def test_the_size_hint_is_near(store_format, tmp_path):
    hint = open_store(store_format.make(tmp_path, ENTRIES)).size_hint()

    assert hint is None or hint == len(ENTRIES)


def test_a_store_without_vectors_is_refused_with_what_was_found(store_format, tmp_path):
    path = store_format.make_empty(tmp_path)

    with pytest.raises((EmptyStore, UnknownFormat)) as caught:
        open_store(path)

    assert str(path) in str(caught.value)
    assert "found" in str(caught.value)
    assert caught.value.hint.endswith((".", "?"))


def files_of(path: Path) -> list[Path]:
    return [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]


def places(data: bytes, *, most: int = 200, costly: bool = False) -> Sequence[int]:
    """Return every place in a small file, and in a large one some of each part of it."""
    chosen = random.Random(len(data))
    if costly:
        return sorted(chosen.sample(range(len(data)), min(4, len(data))))
    if len(data) <= most:
        return range(len(data))
    ends = {*range(12), *range(len(data) - 12, len(data))}
    return sorted({*ends, *chosen.sample(range(len(data)), most // 8)})


def test_a_store_cut_short_anywhere_gives_rejections_and_no_wrong_record(store_format, tmp_path):
    some = [("one, two", [0.5, 123.25, -1e-7]), ("日本語", [7.0, 0.125, 1e20])]
    path = store_format.make(tmp_path, some)
    whole = {one.key: one.embedding.tobytes() for one in records_of(path)}
    for file in files_of(path):
        data = file.read_bytes()
        for end in places(data, costly=store_format.costly):
            file.write_bytes(data[:end])
            os.utime(file, (0, 0))  # an old file is not waited for

            try:
                found = entries_of(path)
            except SourceError:
                continue

            kept = [one for one in found if isinstance(one, Record)]
            assert all(one.embedding.tobytes() == whole[one.key] for one in kept), end
            rejected = [one for one in found if isinstance(one, Rejection)]
            at_line_end = store_format.lines and b"\n" in data[max(end - 1, 0) : end + 2]
            assert len(kept) == len(whole) or rejected or at_line_end, (file, end)
        file.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [b"\x00", b"\xff", b"]", b'"', b",", b"9"],
    ids=lambda damage: damage.hex(),
)
def test_a_byte_that_was_changed_stops_nothing(damage, store_format, tmp_path):
    path = store_format.make(tmp_path, [("one", [0.5, 1.25]), ("two", [7.0, 0.125])])
    file = files_of(path)[0]
    data = file.read_bytes()
    for at in places(data, most=60, costly=store_format.costly):
        file.write_bytes(data[:at] + damage + data[at + 1 :])
        os.utime(file, (0, 0))

        try:
            found = entries_of(path)
        except SourceError:
            continue

        # Two entries, and what cannot be read behind the damage.
        assert 1 <= len(found) <= 3
        assert sum(isinstance(one, Record) for one in found) <= 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: None, StoreNotFound, "no store at"),
        (lambda path: path.mkdir(), EmptyStore, "found an empty folder"),
        (lambda path: path.touch(), UnknownFormat, "found a file of 0 bytes"),
        (lambda path: path.symlink_to(path), SourceError, "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("nowhere"), StoreNotFound, "no store at"),
        (os.mkfifo, UnknownFormat, "found neither a file nor a folder"),
        (
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
            LfsPointer,
            "is a Git LFS pointer, not the file itself",
        ),
        (lambda path: path.write_bytes(bytes(300)), UnknownFormat, "found a file of 300 bytes"),
        (
            lambda path: [
                path.mkdir(), *((path / f"{number}.txt").touch() for number in range(7))
            ],
            UnknownFormat,
            "found a folder with 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more",
        ),
    ],
    ids=[
        "nothing", "empty folder", "empty file", "link to itself", "link to nothing",
        "named pipe", "LFS pointer", "zeros", "other files",
    ],
)  # fmt: skip
def test_what_is_no_store_is_refused(make, error, message, tmp_path):
    path = tmp_path / "store"
    make(path)

    with pytest.raises(error) as caught:
        open_store(path)

    assert f'"{path}"' in str(caught.value)
    assert message in str(caught.value)
    assert caught.value.hint


def test_a_refusal_lists_the_formats_that_are_read(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")

    with pytest.raises(UnknownFormat) as caught:
        open_store(path)

    assert caught.value.hint == (
        f"Formats that are read: {', '.join(sorted(known_formats()))}. Is this the right folder?"
    )


def test_stores_of_several_formats_are_refused_with_a_list(tmp_path):
    _llamaindex(tmp_path, ENTRIES)
    (tmp_path / "more").mkdir()
    make_json.table(tmp_path / "more", ENTRIES)

    with pytest.raises(SeveralFormats) as caught:
        open_store(tmp_path)

    assert str(caught.value) == (
        f'"{tmp_path}" holds stores of several formats: llamaindex in storage, '
        "csv in more/table.csv"
    )
    assert open_store(tmp_path, Defaults(format="csv")).format == "csv"


def test_several_stores_of_one_format_are_read_one_after_the_other(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _llamaindex(tmp_path / name, ENTRIES)

    records = records_of(tmp_path)

    assert len({one.key for one in records}) == len(records) == 2 * len(ENTRIES)
    assert {one.origin.split("/")[0] for one in records} == {"a", "b"}


def test_what_lies_in_and_below_a_store_is_not_passed_by(tmp_path):
    store = _llamaindex(tmp_path, ENTRIES)
    _llamaindex(store, ENTRIES)

    records = records_of(store)
    make_json.json_lines(store, ENTRIES)

    assert len({one.key for one in records}) == len(records) == 2 * len(ENTRIES)
    with pytest.raises(
        SeveralFormats, match="llamaindex in \\., llamaindex in storage, jsonl in items"
    ):
        open_store(store)


def known_formats():
    from importlib import import_module

    return [import_module(name).FORMAT for name in MODULES]


def test_reading_writes_nothing(store_format, tmp_path):
    path = store_format.make(tmp_path, ENTRIES)
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files_of(path)}

    records_of(path)

    assert before == {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files_of(path)}


def test_items_come_one_by_one(store_format, tmp_path):
    reader = open_store(store_format.make(tmp_path, ENTRIES))

    items = reader.items()
    first = next(items)

    assert isinstance(first, Item)
    assert len(list(chain([first], items))) == len(ENTRIES)
