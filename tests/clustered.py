"""Embeddings that lie as those of texts do, in the table, and how many of the nearest are found."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import orjson
import psycopg
from numpy.typing import NDArray

from harca.bench.synthetic import Embeddings
from harca.model import Space

K = 10


def fill(
    conn: psycopg.Connection[Any], rows: int, dims: int, *, model: str = "m", seed: int = 7
) -> Space:
    """Add that many rows to a space, and return it with those that it had."""
    drawn = Embeddings(dims, seed=seed).draw(rows).astype(np.float32)
    copy_rows(conn, drawn, model)
    found = conn.execute(
        "SELECT count(*) FROM vector_embeddings WHERE model_id = %s AND dims = %s", [model, dims]
    ).fetchone()
    assert found is not None
    return Space(model, dims, found[0])


def copy_rows(conn: psycopg.Connection[Any], vectors: NDArray[np.float32], model: str) -> None:
    """Write vectors as an application does, without a store."""
    with (
        conn.cursor() as cursor,
        cursor.copy(
            "COPY vector_embeddings (content, embedding, metadata, model_id) FROM STDIN"
        ) as copy,
    ):
        for number, vector in enumerate(vectors):
            text = orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()
            copy.write_row((f"row {number}", text, "{}", model))


def queries(dims: int, count: int = 20, *, seed: int = 7) -> NDArray[np.float32]:
    """Return others of the same clusters."""
    return Embeddings(dims, seed=seed, queries=True).draw(count).astype(np.float32)


def nearest(conn: psycopg.Connection[Any], query: NDArray[np.float32], space: Space) -> set[int]:
    """Return the ids that a look at every row gives, whatever indexes there are."""
    with conn.transaction():
        conn.execute("SET LOCAL enable_indexscan = off")
        found = conn.execute(
            "SELECT id FROM vector_embeddings WHERE model_id = %s AND vector_dims(embedding) = %s "
            "ORDER BY embedding <=> %s::vector LIMIT %s",
            [space.model_id, space.dims, query.tolist(), K],
        )
        return {row[0] for row in found}


def recall(
    conn: psycopg.Connection[Any],
    space: Space,
    asked: Iterable[NDArray[np.float32]],
    search: Callable[[NDArray[np.float32]], set[int]],
) -> float:
    """Return the share of the nearest that *search* finds."""
    return float(np.mean([len(nearest(conn, query, space) & search(query)) / K for query in asked]))
