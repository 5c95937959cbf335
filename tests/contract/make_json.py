"""JSON and CSV stores of any entries, in the layouts that programs write."""

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.stores import Entry


def _rows(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    return [
        {"id": f"id {text[:99]}", "text": text, "embedding": vector, "metadata": {"n": 1}}
        for text, vector in entries
    ]


def _write(folder: Path, value: Any, name: str = "items.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def json_list(folder: Path, entries: Sequence[Entry]) -> Path:
    return _write(folder, _rows(entries))


def json_by_id(folder: Path, entries: Sequence[Entry]) -> Path:
    return _write(folder, {row.pop("id"): row for row in _rows(entries)})


def json_nested(folder: Path, entries: Sequence[Entry]) -> Path:
    return _write(folder, {"version": 1, "data": {"chunks": _rows(entries)}, "count": 2})


def json_lines(folder: Path, entries: Sequence[Entry]) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in _rows(entries)))
    return path


def json_columns(folder: Path, entries: Sequence[Entry]) -> Path:
    """Lay out what Chroma's ``collection.get()`` returns."""
    rows = _rows(entries)
    columns = {
        "ids": [row["id"] for row in rows],
        "embeddings": [row["embedding"] for row in rows],
        "documents": [row["text"] for row in rows],
        "metadatas": [row["metadata"] for row in rows],
        "included": ["embeddings"],
    }
    return _write(folder, columns)


def json_files(folder: Path, entries: Sequence[Entry]) -> Path:
    """Write a record a file."""
    store = folder / "store"
    store.mkdir()
    for number, row in enumerate(_rows(entries)):
        row["content"] = row.pop("text")
        _write(store, row, f"{number}.json")
    return store


def langchain_memory(folder: Path, entries: Sequence[Entry]) -> Path:
    rows = [{**row, "vector": row["embedding"]} for row in _rows(entries)]
    for row in rows:
        del row["embedding"]
    return _write(folder, {row["id"]: row for row in rows})


def spring_ai(folder: Path, entries: Sequence[Entry]) -> Path:
    path = folder / "vectorstore.json"
    rows = {row["id"]: {**row, "media": None} for row in _rows(entries)}
    path.write_text(json.dumps(rows, indent=2))
    return path


def empty_list(folder: Path) -> Path:
    return _write(folder, [])


def table(folder: Path, entries: Sequence[Entry]) -> Path:
    path = folder / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "page", "embedding"])
        for number, (text, vector) in enumerate(entries):
            writer.writerow([f"id {text[:99]}", text, number, vector])
    return path


def only_a_header(folder: Path) -> Path:
    path = folder / "table.csv"
    path.write_text("id,text,page,embedding\n")
    return path


def cached_vectors(folder: Path, entries: Sequence[Entry]) -> Path:
    store = folder / "cache"
    store.mkdir()
    for text, vector in entries:
        name = "model-1" + hashlib.sha256(text.encode()).hexdigest()
        (store / name).write_text(json.dumps(vector))
    return store


def no_cached_vectors(folder: Path) -> Path:
    store = folder / "cache"
    store.mkdir()
    (store / ("m" + "0" * 40)).write_text("[]")
    return store
