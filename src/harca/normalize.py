"""Items as found -> records, or rejections that say what is wrong. Pure."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harca.canonical import NotStorable, object_parts
from harca.model import Item, Reason, Record, Rejection, Warn

MAX_DIMS = 16_000  # VECTOR_MAX_DIM, pgvector src/vector.h
MAX_KEY_BYTES = 2_000  # a btree entry takes 2,704 bytes; the store's name stands beside it

_FLOAT32_MAX = float(np.finfo(np.float32).max)


class BadValue(ValueError):
    """Why a value cannot be stored."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def normalize(item: Item) -> Record | Rejection:
    """Return the record that *item* describes, or the reason why there is none.

    Vectors are rounded to float32, as pgvector stores them. Nothing else is changed:
    texts, labels and metadata are kept verbatim or not at all.
    """
    try:
        embedding = to_vector(item.vector)
        content = to_text(item.content, "text", Reason.NO_TEXT)
        key = to_text(item.key, "key", Reason.NO_TEXT)
        if len(key.encode()) > MAX_KEY_BYTES:
            raise BadValue(Reason.TOO_LARGE, f"key is longer than {MAX_KEY_BYTES} bytes")
        model_id = to_text(item.model_id, "model label", Reason.NO_MODEL)
        if len(model_id.encode()) > MAX_KEY_BYTES:
            raise BadValue(Reason.TOO_LARGE, f"model label is longer than {MAX_KEY_BYTES} bytes")
        metadata = to_metadata(item.metadata)
    except BadValue as bad:
        return Rejection(item.origin, bad.reason, bad.detail, item.payload())
    warnings = item.warnings
    created_at = to_datetime(item.created_at)
    if created_at is None and item.created_at is not None:
        warnings += (Warn.BAD_DATE,)
    if not embedding[0] and not embedding.any():
        warnings += (Warn.ZERO_VECTOR,)
    return Record(
        key=key,
        content=content,
        embedding=embedding,
        metadata=metadata,
        model_id=model_id,
        created_at=created_at,
        source=item.source,
        origin=item.origin,
        warnings=warnings,
    )


def to_vector(value: Any) -> NDArray[np.float32]:
    """Return *value* as float32, shape ``(dims,)``.

    Takes a list of JSON numbers, or an array. A boolean or a number in quotes is no
    number here: NumPy would convert both without a word.
    """
    if isinstance(value, np.ndarray):
        wide = value
    elif value is None:
        raise BadValue(Reason.NO_VECTOR, "there is no vector")
    elif isinstance(value, list):
        wide = _list_to_array(value)
    else:
        raise BadValue(Reason.NOT_A_VECTOR, f"expected a list of numbers, found {_kind(value)}")
    if wide.size == 0:
        raise BadValue(Reason.EMPTY_VECTOR, "the vector has no components")
    if wide.size > MAX_DIMS:
        raise BadValue(
            Reason.TOO_MANY_DIMS, f"{wide.size} dimensions, pgvector takes at most {MAX_DIMS}"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # a NaN of any kind is told below
        narrow = wide.astype(np.float32, copy=False)
        # One pass says yes for nearly every vector; the exact answer takes several.
        all_finite = math.isfinite(narrow @ narrow) or np.isfinite(narrow).all()
    if not all_finite:
        at = int(np.flatnonzero(~np.isfinite(narrow))[0])
        beyond = f", beyond float32 ({_FLOAT32_MAX:.3g})" if np.isfinite(wide[at]) else ""
        raise BadValue(Reason.NON_FINITE, f"component {at} is {wide[at]}{beyond}")
    return narrow


def _list_to_array(value: list[Any]) -> NDArray[np.float64]:
    kinds = set(map(type, value))
    if kinds <= {float}:
        return np.array(value, dtype=np.float64)
    for at, component in enumerate(value):
        if component is None:
            # JSON.stringify writes NaN and infinities as null.
            raise BadValue(Reason.NON_FINITE, f"component {at} is null")
        if isinstance(component, bool) or not isinstance(component, int | float):
            raise BadValue(
                Reason.NOT_A_VECTOR, f"component {at} is {_kind(component)}, expected a number"
            )
    try:
        return np.array([float(component) for component in value], dtype=np.float64)
    except OverflowError as exc:
        raise BadValue(Reason.NON_FINITE, "a component is beyond a double's range") from exc


def to_text(value: Any, what: str, reason: Reason) -> str:
    """Return *value* if PostgreSQL can store it as text."""
    if not isinstance(value, str):
        found = "nothing" if value is None else _kind(value)
        raise BadValue(reason, f"expected a string as {what}, found {found}")
    if "\0" in value:
        raise BadValue(
            Reason.NUL_IN_TEXT,
            f"the {what} has a NUL character at position {value.index(chr(0))}",
        )
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise BadValue(
                Reason.LONE_SURROGATE,
                f"the {what} has half of a surrogate pair at position {exc.start}",
            ) from exc
    return value


def to_metadata(value: Any) -> dict[str, str]:
    """Return the canonical parts of a JSON object; no metadata is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadValue(
            Reason.METADATA_NOT_OBJECT, f"expected an object as metadata, found {_kind(value)}"
        )
    try:
        return object_parts(value)
    except NotStorable as bad:
        reason = {
            "a NUL character": Reason.NUL_IN_TEXT,
            "half of a surrogate pair": Reason.LONE_SURROGATE,
        }.get(bad.what, Reason.BAD_METADATA)
        raise BadValue(reason, f"the metadata holds {bad.what}") from bad
    except RecursionError as exc:
        raise BadValue(Reason.BAD_METADATA, "the metadata is nested too deeply") from exc


def to_datetime(value: Any) -> datetime | None:
    """Return an ISO 8601 string as a time; without an offset it is taken as UTC."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
        return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _kind(value: Any) -> str:
    """Return what a JSON value is, in words."""
    if isinstance(value, Mapping):
        names = [str(key) for key in islice(value, 3)]
        return f"an object with {', '.join(names)}" if names else "an empty object"
    return {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        type(None): "null",
    }.get(type(value), f"a {type(value).__name__}")
