"""What a search on the command line is given, as an embedding."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from harca.errors import UsageError
from harca.normalize import BadValue, to_vector
from harca.postgres.search import stored_embedding

_FIELDS = ("embedding", "vector", "values")
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


def read_vector(path: Path) -> tuple[NDArray[np.float32], str | None]:
    """Return an embedding from a file, and the model label if the file has one.

    Takes a JSON list, a JSON object with the list in ``embedding``, ``vector`` or
    ``values`` (and the label in ``modelName`` or ``model``), or a ``.npy`` file.
    """
    shown = "stdin" if str(path) == "-" else f'"{path}"'
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as exc:
        raise UsageError(
            f"{shown} cannot be read: {exc.strerror}", hint="Give a JSON or .npy file."
        ) from exc
    model: Any = None
    try:
        if data.startswith(b"\x93NUMPY"):
            value: Any = np.load(io.BytesIO(data), allow_pickle=False).squeeze()
            if value.ndim != 1 or value.dtype.kind not in "fiu":
                raise UsageError(
                    f"{shown} has shape {value.shape} and type {value.dtype}, expected one vector",
                    hint="Save a single embedding.",
                )
        else:
            value = json.loads(data.decode("utf-8-sig"))
        if isinstance(value, dict):
            model = value.get("modelName", value.get("model"))
            value = next((value[name] for name in _FIELDS if name in value), None)
        return to_vector(value), model if isinstance(model, str) else None
    except BadValue as bad:
        raise UsageError(
            f"{shown} holds no embedding: {bad.detail}", hint="Expected a list of numbers."
        ) from bad
    except (ValueError, RecursionError) as exc:
        raise UsageError(
            f"{shown} is neither JSON nor a .npy file", hint="Expected a list of numbers."
        ) from exc


def read_filter(where: str | None) -> dict[str, Any] | None:
    """Return the object that metadata must contain."""
    if where is None:
        return None
    try:
        condition = json.loads(where)
    except ValueError as exc:
        raise UsageError(
            f"--where is no JSON: {exc}", hint="""For example: --where '{"language": "en"}'"""
        ) from exc
    if not isinstance(condition, dict):
        raise UsageError(
            "--where is no JSON object", hint="""For example: --where '{"language": "en"}'"""
        )
    return condition
