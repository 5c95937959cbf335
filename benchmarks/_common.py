"""What the measurements share: synthetic HARCA stores, a database of their own, the table."""

import argparse
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import alembic.command
import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.conninfo import make_conninfo

from harca import migrations
from harca.ahead import ReadAhead
from harca.load import Intake, LoadResult, load, notes_of
from harca.model import Item, Reader, Rejection, StoreNotes
from harca.options import LoadOptions
from harca.postgres import indexes
from harca.postgres.connect import Database, database
from harca.postgres.target import PostgresTarget, begin_run
from harca.readers.harca import record_key

MODEL = "synthetic"

_SEED = 20_261_123
_CLUSTERS = 64
_CHUNK_ROWS = 2_000
# Embeddings of texts vary in some tens of directions, not in all that they have: points
# that fill every direction have no near neighbours, and no index finds those.
_LATENT_DIMS = 32
_SPREAD = 0.8
_FOLDER = "cache/embeddings"
_numbers = count(1)


class Embeddings:
    """Clustered unit vectors; the same seed gives the same ones."""

    def __init__(self, dims: int, *, seed: int = _SEED) -> None:
        self.dims = dims
        shape = np.random.default_rng(seed)
        self._centres = _unit(shape.normal(size=(_CLUSTERS, dims)))
        self._basis = shape.normal(size=(_LATENT_DIMS, dims)) / math.sqrt(dims * _LATENT_DIMS)
        self._noise = np.random.default_rng(seed + 1)

    def draw(self, rows: int) -> NDArray[np.float64]:
        """Return the next *rows* vectors, shape ``(rows, dims)``."""
        clusters = self._noise.integers(_CLUSTERS, size=rows)
        latent = self._noise.normal(size=(rows, _LATENT_DIMS))
        return _unit(self._centres[clusters] + _SPREAD * latent @ self._basis)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float64] = vectors / lengths
    return unit


def write_store(folder: Path, *, records: int, dims: int, digits: int | None = None) -> int:
    """Write a store as HARCA lays it out; return its bytes.

    Args:
        digits: After the point; None prints doubles as JavaScript does, which are twice
            as long as needed for float32 and slow to make.
    """
    folder = folder / _FOLDER
    folder.mkdir(parents=True)
    embeddings = Embeddings(dims)
    written = 0
    for first in range(0, records, _CHUNK_ROWS):
        vectors = embeddings.draw(min(_CHUNK_ROWS, records - first))
        for number, numbers in enumerate(_printed(vectors, digits), first):
            text = f"合成レコード {number}: stands in for a paragraph of a document. " * 3
            name = record_key(MODEL, text)
            data = _record_json(text, numbers, number)
            (folder / f"{name}.json").write_bytes(data)
            written += len(data)
    return written


def _record_json(text: str, numbers: Iterable[str], number: int) -> bytes:
    """Return a record as ``JSON.stringify(record, null, 2)`` writes it."""
    created = datetime.fromtimestamp(1_742_000_000 + number, UTC).isoformat("T", "milliseconds")
    expires = datetime.fromtimestamp(1_742_000_086 + number, UTC).isoformat("T", "milliseconds")
    head = {"text": text, "modelName": MODEL, "embedding": []}
    tail = {
        "createdAt": created.replace("+00:00", "Z"),
        "lastAccessed": created.replace("+00:00", "Z"),
        "expiresAt": expires.replace("+00:00", "Z"),
        "accessCount": 1,
    }
    opening = json.dumps(head, indent=2, ensure_ascii=False).removesuffix("[]\n}")
    closing = json.dumps(tail, indent=2).removeprefix("{\n")
    inner = ",\n    ".join(numbers)
    return f"{opening}[\n    {inner}\n  ],\n{closing}".encode()


def _printed(vectors: NDArray[np.float64], digits: int | None) -> Iterator[Iterable[str]]:
    if digits is None:
        for vector in vectors:
            yield map(js_number, vector.tolist())
        return
    # Few different numbers: each is printed once.
    scale = 10**digits
    names = [js_number(value / scale) for value in range(-scale, scale + 1)]
    for rounded in np.rint(vectors * scale).astype(np.int64) + scale:
        yield map(names.__getitem__, rounded.tolist())


def js_number(value: float) -> str:
    """Return *value* as ``String(value)`` in JavaScript (ECMA-262, Number::toString)."""
    if value == int(value):
        return str(int(value))
    text = repr(value)
    if "e" not in text:
        return text
    # JavaScript turns to exponents below 1e-6, Python below 1e-4.
    if 1e-6 <= abs(value) < 1:
        return format(Decimal(text), "f")
    return text.replace("e-0", "e-")


@contextmanager
def scratch_folder(inside: Path | None) -> Iterator[Path]:
    """Give a new folder in *inside*, or where temporary files go, and delete it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="harca-bench-", dir=inside))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def temporary_database(
    explicit: str | None = None, *, revision: str = "head"
) -> Iterator[Database]:
    """Give a database of its own, at schema *revision*, and drop it afterwards."""
    server = database(explicit)
    name = f"harca_bench_{os.getpid()}_{next(_numbers)}"
    with server.connect() as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    made = Database(make_conninfo(server.conninfo, dbname=name), server.origin)
    try:
        alembic.command.upgrade(migrations.config(migrations.SCHEMA, made), revision)
        yield made
    finally:
        with server.connect() as conn:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@dataclass(slots=True)
class VectorsReader:
    """Records for the rows of a matrix, numbered from *first* on."""

    vectors: NDArray[np.float64]
    first: int
    format: str = "synthetic"
    volatile: frozenset[str] = frozenset()
    guesses_ids = False
    bookkeeping: frozenset[str] = frozenset()
    notes: StoreNotes = field(default_factory=StoreNotes)

    def items(self) -> Iterator[Item | Rejection]:
        """Yield one item a row."""
        for number, vector in enumerate(self.vectors, self.first):
            yield Item(
                key=str(number),
                content=f"record {number}: stands in for a paragraph of a document. " * 3,
                vector=vector,
                metadata={"directory": "cache/embeddings", "number": number},
                model_id=MODEL,
                created_at=None,
                source="synthetic",
                origin=f"row {number}",
                payload=bytes,
            )

    def size_hint(self) -> int:
        """Return the number of rows."""
        return len(self.vectors)


def nearest(vectors: NDArray[np.float32], query: NDArray[np.float32], k: int) -> set[int]:
    """Return the rows nearest to *query*; vectors of unit length."""
    return set(np.argpartition(-(vectors @ query), k)[:k].tolist())


def load_as_migrate(
    conn: psycopg.Connection[Any],
    reader: Reader,
    options: LoadOptions,
    *,
    ahead: ReadAhead | None = None,
    path: Path = Path(),
) -> int:
    """Load *reader* by the steps of ``harca migrate``, without indexing and verifying.

    Args:
        ahead: What reads the store at *path*, as it does for ``harca migrate``.

    Returns the number of records read.
    """
    indexes.drop_before_first_load(conn)
    store = options.name or "benchmark"
    run = begin_run(
        conn, store, store_format=reader.format, revision=None, options=options.as_dict()
    )
    target = PostgresTarget(conn, run, volatile=reader.volatile)
    intake = Intake(reader, options, now=run.started_at)
    if ahead is not None:
        intake = ahead.intake(reader, str(path), options, run.started_at)
    result: LoadResult = load(intake, target, options)
    target.finish(notes_of(result, reader), outlived=result.outlived)
    return result.tally.read


def settle(conn: psycopg.Connection[Any]) -> None:
    """Write out what the last contestant left behind, where the role may ask for it."""
    with suppress(psycopg.errors.InsufficientPrivilege):
        conn.execute("CHECKPOINT")


def server_facts(conn: psycopg.Connection[Any]) -> dict[str, str]:
    """Return what a reader of the figures has to know about the server."""
    names = ("server_version", "shared_buffers", "fsync", "synchronous_commit")
    facts = {name: str(conn.execute(f"SHOW {name}").fetchone()[0]) for name in names}  # type: ignore[index]  # SHOW gives a row
    row = conn.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    return {**facts, "pgvector": row[0] if row else "none", "cores": str(os.cpu_count())}


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every measurement has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--database", help="as for harca; the embedded server by default")
    made.add_argument("--scratch", type=Path, help="where stores are written, and deleted")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def numbers(text: str) -> list[int]:
    """Return the numbers of an option such as ``250,500``."""
    return [int(part.replace("_", "")) for part in text.split(",")]


def show(
    facts: dict[str, str], rows: Sequence[dict[str, Any]], notes: dict[str, Any], *, as_json: bool
) -> None:
    """Print the result: a Markdown table with what belongs to it, or one JSON object."""
    if as_json:
        print(json.dumps({"server": facts, "rows": rows, **notes}, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in facts.items()), end="\n\n")
    columns = list(rows[0])
    cells = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    cells.insert(1, ["-" * width for width in widths])
    for line in cells:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(f"| {' | '.join(padded)} |")
    print()
    for name, value in notes.items():
        print(f"{name}: {_cell(value)}")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
