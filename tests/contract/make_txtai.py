"""Writes stores as txtai does, for tests."""

import json
import pickle
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from tests.contract.make_faiss import faiss, write_index
from tests.stores import Entry

CONFIG = {"path": "a/model", "content": True, "backend": "faiss", "dimensions": 3}

_TABLES = """
CREATE TABLE documents (id TEXT PRIMARY KEY, data JSON, tags TEXT, entry DATETIME);
CREATE TABLE objects (id TEXT PRIMARY KEY, object BLOB, tags TEXT, entry DATETIME);
CREATE TABLE sections (indexid INTEGER PRIMARY KEY, id TEXT, text TEXT, tags TEXT, entry DATETIME);
CREATE INDEX section_id ON sections(id);
"""


def write_vectors(path: Path, vectors: dict[int, list[float]], *, backend: str = "faiss") -> None:
    """Write the vectors of an index by number; NumPy's have every number from 0."""
    dims = len(next(iter(vectors.values()), (0.0, 0.0, 0.0)))
    array = np.array(list(vectors.values()), np.float32).reshape(len(vectors), dims)
    if backend == "faiss":
        index = faiss.index_factory(dims, "IDMap,Flat", faiss.METRIC_INNER_PRODUCT)
        if vectors:
            index.add_with_ids(array, np.array(list(vectors), np.int64))
        write_index(index, path)
        return
    with path.open("wb") as file:
        np.save(file, array)


def write_documents(
    path: Path, sections: Sequence[tuple[Any, ...]], documents: dict[str, Any] | None = None
) -> None:
    """Write the database: sections are number, id, text, tags and date."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(_TABLES)
        database.executemany("INSERT INTO sections VALUES (?, ?, ?, ?, ?)", sections)
        database.executemany(
            "INSERT INTO documents VALUES (?, ?, NULL, '2024-09-22 10:51:14.573706')",
            [(key, json.dumps(data)) for key, data in (documents or {}).items()],
        )
        database.commit()


def write_config(store: Path, *, as_pickle: bool = False, **settings: Any) -> None:
    """Write an index's settings."""
    config = CONFIG | settings
    if as_pickle:
        (store / "config").write_bytes(pickle.dumps(config, protocol=4))
    else:
        (store / "config.json").write_text(json.dumps(config))


def make_txtai(
    folder: Path, entries: Sequence[Entry], *, backend: str = "faiss", as_pickle: bool = False
) -> Path:
    """Write a store of txtai's with these entries; return its folder."""
    store = folder / "txtai index"
    store.mkdir()
    write_config(store, as_pickle=as_pickle, backend=backend)
    write_vectors(
        store / "embeddings", dict(enumerate(vector for _, vector in entries)), backend=backend
    )
    date = "2024-09-22 10:51:14.573706"
    write_documents(
        store / "documents",
        [(number, f"id {number}", text, None, date) for number, (text, _) in enumerate(entries)],
        {f"id {number}": {"text": text, "page": 1} for number, (text, _) in enumerate(entries)},
    )
    return store


def make_txtai_empty(folder: Path) -> Path:
    """Write a store of txtai's without a document."""
    return make_txtai(folder, [])
