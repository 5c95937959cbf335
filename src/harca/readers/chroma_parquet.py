"""Chroma's stores before 0.4: tables that DuckDB has written as Parquet.

``chroma-embeddings.parquet`` has the records, vectors too, as the application gave them;
``chroma-collections.parquet`` the names of the collections. The index beside them
(``index/``) holds the same vectors again and is not needed.

Established from stores of 2023 and ``chromadb/db/duckdb.py`` and ``clickhouse.py`` of
chroma-core/chroma 0.3.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from harca.errors import MissingLibrary, SourceError, UsageError, counted
from harca.model import Item, Reason, Rejection, Warn
from harca.readers.base import Defaults, StoreReader
from harca.readers.fields import free_name
from harca.readers.files import (
    as_payload,
    exact_json,
    head,
    open_binary,
    origin_of,
    printable,
    size_of,
)

FORMAT = "chroma-0.3"

_EMBEDDINGS = "chroma-embeddings.parquet"
_COLLECTIONS = "chroma-collections.parquet"
_COLUMNS = ("collection_uuid", "uuid", "embedding", "document", "id", "metadata")
_MAGIC = b"PAR1"
_MOST_FOOTER_BYTES = 16 << 20
_BATCH = 256
_METRICS = {"l2": "l2", "cosine": "cosine", "ip": "inner_product"}


def open_path(path: Path, defaults: Defaults) -> "ChromaParquetReader | None":
    """Return a reader if *path* is a folder with Chroma's Parquet files, or the one of records.

    Raises:
        LfsPointer: Git LFS left a pointer in place of the records.
        MissingLibrary: pyarrow is not installed.
    """
    file = path / _EMBEDDINGS if path.is_dir() else path
    if head(file, len(_MAGIC)) != _MAGIC or not _has_columns(file):
        return None
    _pyarrow()
    return ChromaParquetReader(path, file, defaults)


def _pyarrow() -> tuple[Any, Any, Any]:
    """Return pyarrow, its part for Parquet, and what they raise; large, and optional."""
    try:
        rows = import_module("harca.readers.arrow_rows")
        return import_module("pyarrow"), import_module("pyarrow.parquet"), rows.ERRORS
    except ImportError as exc:
        raise MissingLibrary(FORMAT, library="pyarrow", extra="parquet") from exc


def _has_columns(file: Path) -> bool:
    """Say whether a Parquet file has Chroma's columns; the footer names them as they are."""
    try:
        with open_binary(file) as stream:
            size = stream.seek(-8, 2)
            length = int.from_bytes(stream.read(4), "little")
            if stream.read(4) != _MAGIC or not length <= min(size, _MOST_FOOTER_BYTES):
                return False
            stream.seek(size - length)
            footer = stream.read(length)
    except OSError:
        return False
    return all(name.encode() in footer for name in _COLUMNS)


@dataclass(frozen=True, slots=True)
class _Collection:
    name: str
    metric: str


class ChromaParquetReader(StoreReader):
    """Reads the records in batches, in the order of the file."""

    format = FORMAT

    def __init__(self, path: Path, file: Path, defaults: Defaults) -> None:
        super().__init__(path, defaults)
        self._file = file
        self._origin = origin_of(file, path)

    def read(self) -> Iterator[Item | Rejection]:
        """Yield every record; of one collection only, if the operator names it."""
        _, pq, errors = _pyarrow()
        self.notes.files, self.notes.bytes = 1, self._file.stat().st_size
        at = 0
        try:
            named = self._collections()
            with pq.ParquetFile(self._file) as file:
                used = {
                    one
                    for batch in file.iter_batches(columns=["collection_uuid"])
                    for one in _texts(batch.column("collection_uuid"))
                }
                chosen = self._chosen(named, used)
                several = len(chosen) > 1
                self.notes.why = f"{counted(len(chosen), 'collection')} in Chroma's Parquet tables"
                metrics = {one.metric for one in chosen.values()}
                self.notes.metric = metrics.pop() if len(metrics) == 1 else None
                for batch in file.iter_batches(batch_size=_BATCH, columns=list(_COLUMNS)):
                    batch.validate()
                    texts = {
                        name: _texts(batch.column(name)) for name in _COLUMNS if name != "embedding"
                    }
                    for number, vector in enumerate(_vectors(batch.column("embedding"))):
                        row = {name: column[number] for name, column in texts.items()}
                        collection = chosen.get(row["collection_uuid"])
                        if collection is not None:
                            prefix = f"{collection.name}/" if several else ""
                            yield self._item(row, vector, collection, prefix, at)
                        at += 1
        except errors as exc:
            why = f"the Parquet file is damaged behind record {at}: {str(exc).strip()[:200]}"
            yield Rejection(self._origin, Reason.UNPARSABLE, why)

    def _collections(self) -> dict[Any, _Collection]:
        """Return what the collections are called, if the file that says so is there."""
        _, pq, errors = _pyarrow()
        file = self._file.parent / _COLLECTIONS
        if head(file, len(_MAGIC)) != _MAGIC:
            return {}
        self.notes.files += 1
        self.notes.bytes += size_of(file)
        try:
            table = pq.read_table(file, columns=["uuid", "name", "metadata"])
        except errors as exc:
            raise SourceError(
                f'"{printable(str(file))}" cannot be read: {str(exc).strip()[:200]}',
                hint="Restore it from a backup; without it the collections have no names.",
            ) from exc
        columns = [_texts(column.combine_chunks()) for column in table.columns]
        return {
            uuid: _Collection(str(name), _metric(metadata))
            for uuid, name, metadata in zip(*columns, strict=True)
        }

    def _chosen(self, named: Mapping[Any, _Collection], used: set[Any]) -> dict[Any, _Collection]:
        """Return the collections to be read, by id: all that have records, or the one named."""
        found = {one: named.get(one, _Collection(str(one), "l2")) for one in sorted(used, key=str)}
        wanted = self.defaults.fields.records
        if wanted is None:
            return found
        chosen = {one: which for one, which in found.items() if which.name == wanted}
        if not chosen:
            listed = ", ".join(f'"{one.name}"' for one in found.values()) or "none at all"
            raise UsageError(
                f'no collection "{wanted}" with records; found {listed}',
                hint="Names are case-sensitive.",
            )
        return chosen

    def _item(
        self,
        row: Mapping[str, Any],
        vector: Any,
        collection: _Collection,
        prefix: str,
        number: int,
    ) -> Item:
        key = row["uuid"] if row["id"] is None else row["id"]
        metadata = _metadata(row["metadata"])
        if prefix and isinstance(metadata, dict | None):
            metadata = dict(metadata or {})
            metadata[free_name(metadata, "collection")] = collection.name
        text = row["document"]
        return Item(
            key=None if key is None else prefix + key,
            content="" if text is None else text,
            vector=vector,
            metadata=metadata,
            model_id=self.defaults.model_id,
            created_at=None,
            source=self.source,
            origin=f"{self._origin}#{number}",
            payload=partial(_payload, row, vector),
            warnings=(Warn.NO_TEXT,) if text is None else (),
        )


def _texts(column: Any) -> list[str | None]:
    """Return a column's texts; bytes that are no UTF-8 become lone surrogates."""
    pa, _, _ = _pyarrow()
    return [
        None if one is None else one.decode("utf-8", "surrogateescape")
        for one in column.cast(pa.large_binary()).to_pylist()
    ]


def _vectors(column: Any) -> Iterator[Any]:
    for one in column:
        if one.is_valid and hasattr(one, "values"):
            values = np.asarray(one.values.to_numpy(zero_copy_only=False))
            # A copy: the batch would stay in memory with any of its vectors.
            yield values.copy() if values.dtype.kind in "fiu" else one.as_py()
        else:
            yield one.as_py()


def _metadata(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return exact_json(text.encode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return text  # normalize says that it is no object


def _metric(metadata: str | None) -> str:
    parsed = _metadata(metadata)
    space = parsed.get("hnsw:space") if isinstance(parsed, dict) else None
    return _METRICS.get(str(space), "l2")


def _payload(row: Mapping[str, Any], vector: Any) -> bytes:
    values = vector.tolist() if isinstance(vector, np.ndarray) else vector
    return as_payload({**row, "embedding": values}, b"")
