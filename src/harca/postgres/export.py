"""The table's rows, store by store and space by space, for `harca.export`."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from harca.model import Space

_AT_ONCE_BYTES = 8 << 20
_OTHER_BYTES = 4_000  # of a row, about: its text and metadata
_HEADER_BYTES = 4  # of a vector as pgvector sends it: uint16 dimensions, uint16 zero


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one store in one space; *store* is None for rows not loaded by harca."""

    store: str | None
    space: Space


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no single truth value
class Row:
    """A row of the table.

    Attributes:
        key: The store's key; the row's number if it has none.
        embedding: float32, shape ``(dims,)``.
        metadata: An object, as PostgreSQL prints jsonb.
    """

    key: str
    content: str
    embedding: NDArray[np.float32]
    metadata: str
    created_at: datetime | None
    source: str | None


def begin(conn: psycopg.Connection[Any]) -> None:
    """See the table as it is now, until the transaction ends."""
    conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")


def parts(
    conn: psycopg.Connection[Any],
    *,
    store: str | None = None,
    model_id: str | None = None,
    dims: int | None = None,
) -> list[Part]:
    """Return what there is, as far as it is asked for, in order."""
    found = conn.execute(
        "SELECT store, model_id, dims, count(*) FROM vector_embeddings "
        "WHERE (%(store)s::text IS NULL OR store = %(store)s) "
        "AND (%(model_id)s::text IS NULL OR model_id = %(model_id)s) "
        "AND (%(dims)s::integer IS NULL OR dims = %(dims)s) "
        "GROUP BY store, model_id, dims ORDER BY model_id, dims, store NULLS FIRST",
        {"store": store, "model_id": model_id, "dims": dims},
    )
    return [Part(store, Space(*space)) for store, *space in found]


def stores(conn: psycopg.Connection[Any]) -> list[str]:
    """Return what the stores in the table are called."""
    found = conn.execute(
        "SELECT DISTINCT store FROM vector_embeddings WHERE store IS NOT NULL ORDER BY store"
    )
    return [store for (store,) in found]


def rows(conn: psycopg.Connection[Any], part: Part) -> Iterator[Row]:
    """Yield the rows of a part in the order of their numbers; memory is some megabytes."""
    with conn.cursor("harca_export") as cursor:
        row_bytes = 4 * part.space.dims + _OTHER_BYTES
        cursor.itersize = max(1, min(1_000, _AT_ONCE_BYTES // row_bytes))
        cursor.execute(
            "SELECT coalesce(store_key, id::text), content, embedding, metadata::text, "
            "created_at, source FROM vector_embeddings WHERE store IS NOT DISTINCT FROM "
            "%(store)s::text AND model_id = %(model_id)s AND dims = %(dims)s ORDER BY id",
            {"store": part.store, "model_id": part.space.model_id, "dims": part.space.dims},
            binary=True,  # the driver knows no vectors, and gives their bytes
        )
        for key, content, vector, metadata, created_at, source in cursor:
            numbers = np.frombuffer(vector, ">f4", offset=_HEADER_BYTES).astype(np.float32)
            yield Row(key, content, numbers, metadata, created_at, source)
