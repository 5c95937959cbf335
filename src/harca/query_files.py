"""Embeddings to search for, from files."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harca.errors import UsageError, counted
from harca.normalize import BadValue, to_vector
from harca.readers.npy import MAGIC, array_in, read_header

_FIELDS = ("embedding", "vector", "values")


def read_vector(path: Path) -> tuple[NDArray[np.float32], str | None]:
    """Return an embedding from a file, and the model label if the file has one.

    Takes a JSON list, a JSON object with the list in ``embedding``, ``vector`` or
    ``values`` (and the label in ``modelName`` or ``model``), or a ``.npy`` file.

    Raises:
        UsageError: The file holds no embedding.
    """
    shown = _shown(path)
    data = _read(path, shown)
    try:
        if data.startswith(MAGIC):
            value: Any = _array(data).squeeze()
            if value.ndim != 1 or value.dtype.kind not in "fiu":
                raise UsageError(
                    f"{shown} has shape {value.shape} and type {value.dtype}, expected one vector",
                    hint="Save a single embedding, or search for all of them with --batch.",
                )
        else:
            value = json.loads(data.decode("utf-8-sig"))
        return _embedding(value)
    except BadValue as bad:
        raise UsageError(
            f"{shown} holds no embedding: {bad.detail}", hint="Expected a list of numbers."
        ) from bad
    except (ValueError, RecursionError) as exc:
        raise UsageError(
            f"{shown} is neither JSON nor a .npy file", hint="Expected a list of numbers."
        ) from exc


def read_batch(path: Path) -> tuple[list[NDArray[np.float32]], str | None]:
    """Return the embeddings in a file, of one model, and its label if they have one.

    Takes a ``.npy`` file of shape ``(queries, dims)``, a JSON list of what `read_vector` takes,
    or a line of JSON for each.

    Raises:
        UsageError: The file holds anything else, or no embedding that could find something.
    """
    shown = _shown(path)
    data = _read(path, shown)
    items = _rows(data, shown) if data.startswith(MAGIC) else _items(data, shown)
    embeddings: list[NDArray[np.float32]] = []
    models: dict[str | None, int] = {}
    for number, item in enumerate(items, 1):
        try:
            embedding, model = _embedding(item)
        except BadValue as bad:
            raise UsageError(
                f"query {number} of {shown} is no embedding: {bad.detail}",
                hint="Expected a list of numbers, or an object with one in `embedding`.",
            ) from bad
        if embeddings and len(embedding) != len(embeddings[0]):
            raise UsageError(
                f"query {number} of {shown} has {len(embedding)} dimensions, "
                f"the first {len(embeddings[0])}",
                hint="Search for queries of one space at a time.",
            )
        if not embedding.any():
            raise UsageError(
                f"query {number} of {shown} is a zero vector, which is near to nothing",
                hint="Was the query's text empty? Leave it out.",
            )
        embeddings.append(embedding)
        models[model] = number
    if not embeddings:
        raise UsageError(f"{shown} holds no queries", hint="Give at least one embedding.")
    if len(models) > 1:
        named = " and ".join(f'"{name}"' if name else "none" for name in models)
        raise UsageError(
            f"{shown} has queries of {counted(len(models), 'model')}: {named}",
            hint="Search for queries of one space at a time.",
        )
    return embeddings, next(iter(models))


def _shown(path: Path) -> str:
    return "stdin" if str(path) == "-" else f'"{path}"'


def _read(path: Path, shown: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as exc:
        raise UsageError(
            f"{shown} cannot be read: {exc.strerror}", hint="Give a JSON or .npy file."
        ) from exc


def _array(data: bytes) -> NDArray[Any]:
    return array_in(data, read_header(io.BytesIO(data)))


def _rows(data: bytes, shown: str) -> list[Any]:
    try:
        array = _array(data)
    except ValueError as exc:
        raise UsageError(
            f"{shown} is no whole .npy file", hint="Write it again with numpy.save."
        ) from exc
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise UsageError(
            f"{shown} has shape {array.shape} and type {array.dtype}, "
            "expected numbers of shape (queries, dimensions)",
            hint="A single embedding is searched for with --vector.",
        )
    return list(array)


def _items(data: bytes, shown: str) -> list[Any]:
    """Return the queries of a JSON list, or of JSON lines."""
    try:
        text = data.decode("utf-8-sig")
    except ValueError as exc:
        raise UsageError(
            f"{shown} is neither JSON nor a .npy file", hint="Expected lists of numbers."
        ) from exc
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return [_line(line, number, shown) for number, line in enumerate(text.splitlines(), 1)
                if line.strip()]  # fmt: skip
    if isinstance(whole, list) and not any(isinstance(item, int | float) for item in whole):
        return whole
    return [whole]  # JSON lines, of which there is one


def _line(line: str, number: int, shown: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise UsageError(
            f"line {number} of {shown} is no JSON: {exc}",
            hint="Expected a list of lists of numbers, or a list of numbers on each line.",
        ) from exc


def _embedding(value: Any) -> tuple[NDArray[np.float32], str | None]:
    model: Any = None
    if isinstance(value, dict):
        model = value.get("modelName", value.get("model"))
        value = next((value[name] for name in _FIELDS if name in value), None)
    return to_vector(value), model if isinstance(model, str) else None
