"""Write the table's rows to files that other programs read, and harca itself.

What is written can be migrated again, and gives equal rows: keys, texts, vectors, metadata,
model labels and dates.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psycopg

from harca import private
from harca.errors import HarcaError, Refused, UsageError
from harca.model import Space
from harca.options import check_folder
from harca.postgres import export as table
from harca.postgres.connect import Database, translated
from harca.postgres.export import Part, Row
from harca.postgres.lock import watched
from harca.readers.vdf import HARCA, META, OURS
from harca.retry import Reached, retried
from harca.row_line import row_line
from harca.watcher import Unwatched, Watcher

_GROUP_BYTES = 16 << 20
_VDF_VERSION = "0.1"
_STEP_ROWS = 1_000
_ALIKE = ("store", "model_id", "source")
_IN_VDF = {ours: name for name, ours in OURS.items()}


class Format(StrEnum):
    """What the rows are written as."""

    VDF = "vdf"
    JSONL = "jsonl"
    PARQUET = "parquet"


@dataclass(slots=True)
class Exported:
    """What `export` has written."""

    folder: Path
    format: Format
    rows: int = 0
    stores: list[str | None] = field(default_factory=list)
    spaces: list[Space] = field(default_factory=list)
    files: int = 0
    bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as ``--json`` shows it."""
        return {
            "folder": str(self.folder),
            "format": self.format,
            "rows": self.rows,
            "stores": self.stores,
            "spaces": [space.as_dict() for space in self.spaces],
            "files": self.files,
            "bytes": self.bytes,
        }


def export(
    target: Database,
    folder: Path,
    *,
    format: Format = Format.VDF,
    store: str | None = None,
    model_id: str | None = None,
    dims: int | None = None,
    watcher: Watcher | None = None,
) -> Exported:
    """Write rows to a new or empty folder: all, or those of a store, a model, a space.

    They are of one moment, whatever others write meanwhile. Memory is some megabytes.

    Raises:
        Refused: There is something in *folder*.
        UsageError: No row is asked for, or *folder* is an address.
        HarcaError: A library is missing, the disk is full, or PostgreSQL says no.
    """
    if format is not Format.JSONL and find_spec("pyarrow") is None:
        raise HarcaError(
            f"{format} is written with pyarrow, which is not installed",
            hint='Install it with `pip install "harca[parquet]"`, or use --format jsonl.',
        )
    check_folder(folder)
    _refuse_if_used(folder)
    watching = watcher or Unwatched()
    target.reach()

    def attempt(reached: Reached) -> Exported:
        with translated(), watched(target, autocommit=False) as conn:
            table.begin(conn)
            return _export(conn, folder, format, _Wanted(store, model_id, dims), watching)

    return retried(attempt, told=watching.trouble)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Of which rows; None: of any."""

    store: str | None
    model_id: str | None
    dims: int | None


def _export(
    conn: psycopg.Connection[Any],
    folder: Path,
    format: Format,
    wanted: _Wanted,
    watcher: Watcher,
) -> Exported:
    parts = table.parts(conn, store=wanted.store, model_id=wanted.model_id, dims=wanted.dims)
    if not parts:
        names = ", ".join(f'"{name}"' for name in table.stores(conn)[:8])
        raise UsageError(
            "no row to export"
            + (f' of store "{wanted.store}"' if wanted.store is not None else ""),
            hint=f"Stores in the table: {names}." if names else "The table has no rows.",
        )
    done = Exported(folder, format)
    done.stores = sorted({part.store for part in parts}, key=lambda name: name or "")
    done.spaces = _spaces(parts)
    watcher.stage("export", sum(part.space.records for part in parts))
    with _written_apart(folder) as place:
        write = {
            Format.VDF: _write_vdf, Format.JSONL: _write_jsonl, Format.PARQUET: _write_parquet,
        }[format]  # fmt: skip
        with_rows = [(part, _counted(table.rows(conn, part), done, watcher)) for part in parts]
        write(place, with_rows, len(done.stores) > 1)
        written = [file for file in place.rglob("*") if file.is_file()]
        done.files, done.bytes = len(written), sum(file.stat().st_size for file in written)
    return done


def _spaces(parts: list[Part]) -> list[Space]:
    found: dict[tuple[str, int], int] = {}
    for part in parts:
        space = (part.space.model_id, part.space.dims)
        found[space] = found.get(space, 0) + part.space.records
    return [Space(*space, records) for space, records in found.items()]


def _counted(rows: Iterator[Row], done: Exported, watcher: Watcher) -> Iterator[Row]:
    for row in rows:
        done.rows += 1
        if done.rows % _STEP_ROWS == 0:
            watcher.step(done.rows)
        yield row


def _refuse_if_used(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise Refused(
            f'"{folder}" is not empty', hint="Give a new or empty folder; nothing was written."
        )


@contextmanager
def _written_apart(folder: Path) -> Iterator[Path]:
    """Give a folder within *folder* to write to; its files are moved up when all is written."""
    is_new = not folder.exists()
    try:
        place = folder / f".partial-{os.getpid()}"
        private.make_folder(folder)
        private.make_folder(place)
        try:
            yield place
            private.close_to_others(place)
            # What says that a dataset is there comes last.
            for entry in sorted(place.iterdir(), key=lambda entry: (entry.name == META, entry)):
                entry.rename(folder / entry.name)
            place.rmdir()
        except BaseException:
            shutil.rmtree(folder if is_new else place, ignore_errors=True)
            raise
    except OSError as exc:
        raise HarcaError(
            f'cannot write to "{folder}": {exc.strerror or exc}',
            hint="Nothing of it was kept. Is there room, and may this user write there?",
        ) from exc


_Parts = list[tuple[Part, Iterator[Row]]]


def _write_jsonl(place: Path, parts: _Parts, several: bool) -> None:
    with (place / "rows.jsonl").open("wb") as file:
        for part, rows in parts:
            for row in rows:
                line = row_line(
                    **({"store": part.store} if several else {}),
                    store_key=row.key,
                    content=row.content,
                    embedding=row.embedding,
                    metadata=row.metadata,
                    model_id=part.space.model_id,
                    created_at=row.created_at,
                    source=row.source,
                )
                file.write(line + b"\n")


def _write_parquet(place: Path, parts: _Parts, several: bool) -> None:
    with _ParquetFile(place / "rows.parquet") as file:
        for part, rows in parts:
            known: dict[str, str | None] = {"model_id": part.space.model_id}
            if several:
                known["store"] = part.store
            for some in _by_bytes(rows, part.space.dims):
                file.write(_as_table(some, known))


def _write_vdf(place: Path, parts: _Parts, several: bool) -> None:
    """Write an index for each space, with a namespace for each store if there are several."""
    indexes: dict[str, list[dict[str, Any]]] = {}
    files = [META]
    for number, (part, rows) in enumerate(parts, 1):
        path = place / f"i{number}.parquet" / "1.parquet"
        path.parent.mkdir()
        files.append(f"{path.parent.name}/{path.name}")
        with _ParquetFile(path) as file:
            for some in _by_bytes(rows, part.space.dims):
                file.write(_as_table(some, {}).rename_columns(_IN_VDF))
        indexes.setdefault(f"{part.space.model_id}_{part.space.dims}", []).append(
            _namespace(part, path.parent.name, several)
        )
    meta = {
        "version": _VDF_VERSION,
        "file_structure": files,
        "author": HARCA,
        "exported_from": HARCA,
        "indexes": indexes,
        "exported_at": datetime.now(UTC).isoformat(),
        "id_column": "id",
    }
    (place / META).write_bytes(orjson.dumps(meta, option=orjson.OPT_INDENT_2))


class _ParquetFile:
    """A Parquet file that is begun with its first table, which says what its columns are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def __enter__(self) -> "_ParquetFile":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, table: Any) -> None:
        """Write a table of Arrow's as a row group."""
        import pyarrow.parquet as pq  # type: ignore[import-untyped]  # it ships no types

        if self._writer is None:
            # A dictionary of values that are all different takes memory, and helps nobody.
            alike = [name for name in _ALIKE if name in table.column_names]
            self._writer = pq.ParquetWriter(self._path, table.schema, use_dictionary=alike)
        self._writer.write_table(table)


def _namespace(part: Part, data_path: str, several: bool) -> dict[str, Any]:
    space = part.space
    return {
        "namespace": (part.store or "") if several else "",
        "index_name": f"{space.model_id}_{space.dims}",
        "store": part.store,
        "total_vector_count": space.records,
        "exported_vector_count": space.records,
        "dimensions": space.dims,
        "model_name": space.model_id,
        "vector_columns": ["vector"],
        "model_map": {
            "vector": {
                "model_name": space.model_id,
                "text_column": "text",
                "dimensions": space.dims,
                "vector_column": "vector",
            }
        },
        "data_path": data_path,
        "metric": "Cosine",
    }


def _by_bytes(rows: Iterator[Row], dims: int) -> Iterator[list[Row]]:
    """Yield the rows in groups that take some megabytes."""
    some: list[Row] = []
    size = 0
    for row in rows:
        some.append(row)
        size += 4 * dims + len(row.content) + len(row.metadata)
        if size >= _GROUP_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _as_table(rows: list[Row], known: dict[str, str | None]) -> Any:
    """Return rows as a table of Arrow's, with the columns *known* to be the same in each."""
    import pyarrow as pa

    dims = len(rows[0].embedding)
    vectors = pa.array(np.concatenate([row.embedding for row in rows]))
    starts = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * dims)
    columns = {
        "store_key": pa.array([row.key for row in rows], pa.string()),
        "embedding": pa.ListArray.from_arrays(starts, vectors),
        "content": pa.array([row.content for row in rows], pa.string()),
        "metadata": pa.array([row.metadata for row in rows], pa.string()),
        "created_at": pa.array([row.created_at for row in rows], pa.timestamp("us", "UTC")),
        "source": pa.array([row.source for row in rows], pa.string()),
    }
    for name, value in known.items():
        columns[name] = pa.array([value] * len(rows), pa.string())
    return pa.table(columns)
