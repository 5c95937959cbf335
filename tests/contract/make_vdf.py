"""VDF datasets of any entries, as vector-io exports them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from tests.stores import Entry


def write(folder: Path, namespaces: dict[tuple[str, str], dict[str, Any]], **meta: Any) -> Path:
    """Write a dataset; *namespaces* are columns by index and namespace."""
    store = folder / "vdf_20240122_135409_c5fa3"
    indexes: dict[str, list[dict[str, Any]]] = {}
    for number, ((index, name), columns) in enumerate(namespaces.items(), 1):
        part = store / f"i{number}.parquet"
        part.mkdir(parents=True)
        said = columns.pop("said", {})
        pq.write_table(pa.table(columns), part / "1.parquet", compression="NONE")
        indexes.setdefault(index, []).append(
            {
                "namespace": name,
                "index_name": index,
                "total_vector_count": 1,
                "exported_vector_count": 1,
                "dimensions": 3,
                "model_name": "test/model",
                "vector_columns": ["vector"],
                "data_path": part.name,
                "metric": "Cosine",
                **said,
            }
        )
    (store / "VDF_META.json").write_text(
        json.dumps(
            {
                "version": "0.1.0",
                "file_structure": [f"{store.name}/VDF_META.json"],
                "author": "somebody",
                "exported_from": "qdrant",
                "indexes": indexes,
                "exported_at": "2024-01-22T13:54:25.649727+05:30",
                **meta,
            }
        )
    )
    return store


def dataset(folder: Path, entries: Sequence[Entry]) -> Path:
    columns = {
        "id": [f"id {text[:99]}" for text, _ in entries],
        "vector": pa.array([numbers for _, numbers in entries], pa.list_(pa.float64())),
        "text": [text for text, _ in entries],
    }
    return write(folder, {("docs", ""): columns})


def empty(folder: Path) -> Path:
    store = folder / "vdf"
    store.mkdir()
    (store / "VDF_META.json").write_text('{"version": "0.1", "indexes": {}}')
    return store
