"""What a search on the command line is given, as an embedding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psycopg
from numpy.typing import NDArray

from harca.errors import UsageError
from harca.postgres.search import stored_embedding
from harca.query_files import read_vector
from harca.text_query import NoEmbedder, embed_text

_MAX_ID = 2**31 - 1
_MAX_DIGITS = len(str(_MAX_ID))


class Given(NamedTuple):
    """A query as an embedding, its model if that is known, and what embedded it just now."""

    embedding: NDArray[np.float32]
    model_id: str | None
    embedded_by: str | None = None


def query_vector(
    conn: psycopg.Connection[Any],
    *,
    text: str | None,
    vector: Path | None,
    like: str | None,
    model_id: str | None,
    embedder: str | None = None,
    tell: Callable[[str], None] = lambda _message: None,
) -> Given:
    """Return the query's embedding, and its model if that is known.

    Args:
        embedder: What embeds a text that is not in the table; None takes the space's.
        tell: Is told of an embedder that was guessed, before it gets the text.

    Raises:
        UsageError: It cannot be had.
        EmbedderError: The embedder failed.
    """
    if vector is not None:
        embedding, stated = read_vector(vector)
        return Given(embedding, model_id or stated)
    if like is not None:
        found = stored_embedding(conn, "store_key", like, model_id=model_id)
        if found is None and like.isdecimal() and len(like) <= _MAX_DIGITS and int(like) <= _MAX_ID:
            found = stored_embedding(conn, "id", int(like), model_id=model_id)
        if found is None:
            raise UsageError(
                f'no row has "{like}" as id or store_key',
                hint="`harca search --json` shows the ids of its results.",
            )
        return Given(*found)
    assert text is not None
    found = stored_embedding(conn, "content", text, model_id=model_id)
    if found is not None:
        return Given(*found)  # the embedder would make the same, and not for nothing
    try:
        made = embed_text(conn, text, model_id=model_id, embedder=embedder, tell=tell)
    except NoEmbedder as exc:
        raise UsageError(f"this text is not in the table, and {exc}", hint=exc.hint) from exc
    return Given(made.embedding, made.space.model_id, made.embedded_by)
