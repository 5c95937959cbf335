"""Texts of a space with their embeddings, to compare an embedder with."""

from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from harca.model import Space

_MOST_CHARACTERS = 8_000  # a model cuts longer ones off, and an API refuses them

_OLDEST_AND_NEWEST = """
    WITH usable AS NOT MATERIALIZED (
        SELECT id, content, embedding::real[] FROM vector_embeddings
        WHERE model_id = %(model_id)s AND dims = %(dims)s AND content ~ '\\S'
            AND length(content) <= %(characters)s AND vector_norm(embedding) > 0
    )
    (SELECT * FROM usable ORDER BY id LIMIT %(oldest)s)
    UNION (SELECT * FROM usable ORDER BY id DESC LIMIT %(newest)s)
    ORDER BY id
"""


def stored_texts(
    conn: psycopg.Connection[Any], space: Space, *, most: int
) -> tuple[list[str], NDArray[np.float32]]:
    """Return up to *most* texts of *space* and their embeddings: the oldest and the newest.

    A space whose first rows are of one model and whose last are of another shows itself so.
    Not among them are empty and very long texts, and those whose embedding is zero.
    """
    found = conn.execute(
        _OLDEST_AND_NEWEST,
        {
            "model_id": space.model_id,
            "dims": space.dims,
            "characters": _MOST_CHARACTERS,
            "oldest": most - most // 2,
            "newest": most // 2,
        },
    ).fetchall()
    embeddings = np.array([row[2] for row in found], dtype=np.float32)
    return [row[1] for row in found], embeddings.reshape(len(found), space.dims)
