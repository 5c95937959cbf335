"""What the measurements share: synthetic HARCA stores, a database of their own, the table."""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import alembic.command
import numpy as np
import psycopg
from numpy.typing import NDArray

from harca import migrations
from harca.bench.loading import load_as_migrate
from harca.bench.synthetic import MODEL, Embeddings, VectorsReader
from harca.postgres.connect import Database, database
from harca.postgres.scratch import scratch_database
from harca.readers.harca import record_key

__all__ = ["MODEL", "Embeddings", "VectorsReader", "load_as_migrate"]  # for the scripts beside

# Kinds of index with their m, as settings of a space.
CANDIDATES: dict[str, dict[str, Any]] = {
    f"{kind}-{m}": {"method": "hnsw", "type": kind, "parameters": {"m": m}}
    for kind in ("vector", "halfvec", "bit")
    for m in (16, 32)
}
# Their lists fit the rows.
CANDIDATES |= {f"{kind}-lists": {"method": "ivfflat", "type": kind} for kind in ("vector", "bit")}

_CHUNK_ROWS = 2_000
_FOLDER = "cache/embeddings"


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
    with scratch_database(database(explicit)) as made:
        alembic.command.upgrade(migrations.config(migrations.SCHEMA, made), revision)
        yield made


def nearest(vectors: NDArray[np.float32], query: NDArray[np.float32], k: int) -> set[int]:
    """Return the rows nearest to *query*; vectors of unit length."""
    return set(np.argpartition(-(vectors @ query), k)[:k].tolist())


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


def candidates(text: str) -> list[str]:
    """Return the names of an option such as ``halfvec-16,bit-32``."""
    names = text.split(",")
    if unknown := set(names) - set(CANDIDATES):
        raise argparse.ArgumentTypeError(f"{unknown.pop()} is none of {', '.join(CANDIDATES)}")
    return names


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
