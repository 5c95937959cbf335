"""What a search on the command line is given, as an embedding."""

from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from harca.errors import UsageError
from harca.postgres.search import stored_embedding
from harca.query_files import read_vector

_MAX_ID = 2**31 - 1


def query_vector(
    conn: psycopg.Connection[Any],
    *,
    text: str | None,
    vector: Path | None,
    like: str | None,
    model_id: str | None,
) -> tuple[NDArray[np.float32], str | None]:
    """Return the query's embedding, and its model if that is known.

    Raises:
        UsageError: It cannot be had.
    """
    if vector is not None:
        embedding, stated = read_vector(vector)
        return embedding, model_id or stated
    if like is not None:
        found = stored_embedding(conn, "store_key", like, model_id=model_id)
        if found is None and like.isdecimal() and int(like) <= _MAX_ID:
            found = stored_embedding(conn, "id", int(like), model_id=model_id)
        if found is None:
            raise UsageError(
                f'no row has "{like}" as id or store_key',
                hint="`harca search --json` shows the ids of its results.",
            )
        return found
    assert text is not None
    found = stored_embedding(conn, "content", text, model_id=model_id)
    if found is None:
        raise UsageError(
            "this text is not in the table, and there is no model here to embed it",
            hint="Embed it with the model that made the stored embeddings, write the numbers "
            "to a file as JSON, and pass that with --vector.",
        )
    return found
