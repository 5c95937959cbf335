"""The embeddings of one space, in a file that NumPy maps into memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from harca.model import Space

_FETCHED = 1_000
_HEADER = 4  # vector_send: uint16 dims, uint16 zero (pgvector src/vector.c)


@dataclass(frozen=True, slots=True)
class SpaceRows:
    """Where the rows are.

    Attributes:
        matrix: A ``.npy`` file, float32, of unit length, in the order of their ids.
        ids: A ``.npy`` file, int64.
        keys: What the stores call them; None: the row came from elsewhere.
        zeros: Rows left out, as they have no direction: cosine cannot find them.
    """

    matrix: Path
    ids: Path
    keys: list[str | None]
    zeros: int

    def mapped(self) -> NDArray[np.float32]:
        """Return the matrix, mapped."""
        mapped: NDArray[np.float32] = np.load(self.matrix, mmap_mode="r")
        return mapped


def write(conn: psycopg.Connection[Any], space: Space, folder: Path) -> SpaceRows:
    """Write the embeddings of *space* into *folder*; memory is a thousand rows."""
    ids: list[int] = []
    keys: list[str | None] = []
    zeros = 0
    raw = folder / "rows.f4"
    with (
        raw.open("wb") as out,
        conn.transaction(),
        conn.cursor("rows", binary=True) as rows,
    ):
        rows.itersize = _FETCHED
        rows.execute(
            "SELECT id, store_key, vector_send(embedding) FROM vector_embeddings "
            "WHERE model_id = %s AND dims = %s ORDER BY id",
            [space.model_id, space.dims],
        )
        while batch := rows.fetchmany(_FETCHED):
            sent = b"".join(bytes(row[2][_HEADER:]) for row in batch)
            # In double precision: the squares of large components overflow.
            vectors = np.frombuffer(sent, ">f4").reshape(len(batch), space.dims).astype(np.float64)
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            there = lengths[:, 0] > 0
            zeros += int((~there).sum())
            out.write((vectors[there] / lengths[there]).astype(np.float32).tobytes())
            for row, kept in zip(batch, there, strict=True):
                if kept:
                    ids.append(row[0])
                    keys.append(row[1])
    matrix = folder / "rows.npy"
    with matrix.open("wb") as out, raw.open("rb") as written:
        shape = {"descr": "<f4", "fortran_order": False, "shape": (len(ids), space.dims)}
        np.lib.format.write_array_header_2_0(out, shape)
        while part := written.read(1 << 24):
            out.write(part)
    raw.unlink()
    np.save(folder / "ids.npy", np.array(ids, np.int64))
    return SpaceRows(matrix, folder / "ids.npy", keys, zeros)


def bytes_of(conn: psycopg.Connection[Any], name: str) -> int:
    """Return the size of an index, or of a table with what is out of line."""
    row = conn.execute("SELECT pg_table_size(%s::regclass)", [name]).fetchone()
    assert row is not None
    return int(row[0])


def server_facts(conn: psycopg.Connection[Any]) -> dict[str, str]:
    """Return what a reader of figures has to know about the server."""
    names = (
        "server_version", "shared_buffers", "effective_io_concurrency", "max_connections",
        "fsync", "synchronous_commit",
    )  # fmt: skip
    facts = {}
    for name in names:
        row = conn.execute("SELECT current_setting(%s)", [name]).fetchone()
        assert row is not None
        facts[name] = str(row[0])
    row = conn.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    return {**facts, "pgvector": row[0] if row else "none"}
