"""Parquet, Arrow and Feather files of any entries, in the layouts that programs write."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pyarrow.feather as feather  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from tests.stores import Entry


def table(entries: Sequence[Entry], vector: Any = None) -> Any:
    """Return the entries as a table, with vectors of the type *vector*."""
    return pa.table(
        {
            "id": [f"id {text[:99]}" for text, _ in entries],
            "text": [text for text, _ in entries],
            "embedding": pa.array(
                [numbers for _, numbers in entries], vector or pa.list_(pa.float32())
            ),
            "metadata": [{"n": number} for number in range(len(entries))],
        }
    )


def parquet(folder: Path, entries: Sequence[Entry], vector: Any = None) -> Path:
    path = folder / "items.parquet"
    pq.write_table(table(entries, vector), path, compression="NONE")
    return path


def parquet_doubles(folder: Path, entries: Sequence[Entry]) -> Path:
    return parquet(folder, entries, pa.list_(pa.float64()))


def parquet_fixed_size(folder: Path, entries: Sequence[Entry]) -> Path:
    return parquet(folder, entries, pa.list_(pa.float32(), len(entries[0][1])))


def parquet_compressed(folder: Path, entries: Sequence[Entry]) -> Path:
    path = folder / "items.parquet"
    pq.write_table(table(entries), path, compression="zstd", row_group_size=5)
    return path


def parquet_parts(folder: Path, entries: Sequence[Entry]) -> Path:
    """Write a folder of two files, as Spark and the like do."""
    store = folder / "store"
    store.mkdir()
    half = len(entries) // 2
    for number, part in enumerate((entries[:half], entries[half:])):
        pq.write_table(table(part), store / f"part-0000{number}.c000.parquet", compression="NONE")
    (store / "_SUCCESS").touch()
    return store


def parquet_texts(folder: Path, entries: Sequence[Entry]) -> Path:
    """Write vectors as JSON, as programs do that know lists as texts only."""
    rows = table(entries).drop_columns(["embedding"])
    rows = rows.append_column("embedding", [[json.dumps(numbers) for _, numbers in entries]])
    path = folder / "items.parquet"
    pq.write_table(rows, path, compression="NONE")
    return path


def arrow_file(folder: Path, entries: Sequence[Entry]) -> Path:
    path = folder / "items.arrow"
    rows = table(entries)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=5)
    return path


def arrow_stream(folder: Path, entries: Sequence[Entry]) -> Path:
    """Write what HuggingFace's ``Dataset.save_to_disk`` leaves."""
    store = folder / "dataset"
    store.mkdir()
    rows = table(entries)
    path = store / "data-00000-of-00001.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=5)
    (store / "dataset_info.json").write_text(json.dumps({"features": {}, "splits": {}}))
    (store / "state.json").write_text(json.dumps({"_data_files": [{"filename": path.name}]}))
    return store


def feather_file(folder: Path, entries: Sequence[Entry]) -> Path:
    path = folder / "items.feather"
    feather.write_feather(table(entries), path, compression="uncompressed")
    return path


def feather_compressed(folder: Path, entries: Sequence[Entry]) -> Path:
    path = folder / "items.feather"
    feather.write_feather(table(entries), path, compression="lz4", chunksize=5)
    return path


def feather_1(folder: Path, entries: Sequence[Entry]) -> Path:
    """Write version 1, which knows no lists: vectors are texts."""
    rows = table(entries).drop_columns(["embedding", "metadata"])
    rows = rows.append_column("embedding", [[json.dumps(numbers) for _, numbers in entries]])
    path = folder / "items.feather"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        feather.write_feather(rows, path, version=1)
    return path


def without_vectors(folder: Path) -> Path:
    path = folder / "items.parquet"
    pq.write_table(pa.table({"id": ["a"], "text": ["b"]}), path)
    return path
