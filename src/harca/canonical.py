"""JSON as PostgreSQL's ``jsonb`` prints it, so that both sides hash the same bytes.

``jsonb_out`` (src/backend/utils/adt/jsonb.c) orders keys by length in bytes, then by
bytes; separates with ", " and ": "; prints numbers as ``numeric`` does, without an
exponent and with the digits given after the point; escapes as ``escape_json``
(src/backend/utils/adt/json.c) does, which is what Python's encoder does too.
"""

import math
from collections.abc import Collection, Mapping
from decimal import Decimal
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any


class NotStorable(ValueError):
    """A value that ``jsonb`` cannot hold: NaN, infinity, NUL, half a surrogate pair."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def jsonb_text(value: Any) -> str:
    """Return *value* as ``value::jsonb::text`` would print it.

    Raises:
        NotStorable: *value* is, or contains, something that ``jsonb`` refuses.
    """
    if isinstance(value, str):
        return _string(value)
    if value is True:
        return "true"
    if value is False:
        return "false"
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return object_text(object_parts(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(jsonb_text, value))}]"
    raise NotStorable(f"a value of type {type(value).__name__}")


def object_parts(value: Mapping[Any, Any]) -> dict[str, str]:
    """Return the members of an object as ``{key: canonical text}``, in ``jsonb``'s order.

    A level is kept open so that single keys can be left out of a hash later
    without printing the rest again.
    """
    return {key: jsonb_text(value[key]) for key in _ordered(tuple(value))}


def object_text(parts: Mapping[str, str], *, without: Collection[str] = ()) -> str:
    """Return the object with these parts as text, but for the keys in *without*."""
    members = [
        f"{encode_basestring(key)}: {text}" for key, text in parts.items() if key not in without
    ]
    return f"{{{', '.join(members)}}}"


@lru_cache(maxsize=1024)  # most objects of a store have the same keys
def _ordered(keys: tuple[Any, ...]) -> tuple[str, ...]:
    for key in keys:
        if not isinstance(key, str):
            raise NotStorable(f"a key of type {type(key).__name__}")
        _check_text(key)
    return tuple(sorted(keys, key=_key_order))


def _key_order(key: str) -> tuple[int, bytes]:
    raw = key.encode()
    return len(raw), raw


def _string(value: str) -> str:
    _check_text(value)
    return encode_basestring(value)


def _check_text(value: str) -> None:
    if "\0" in value:
        raise NotStorable("a NUL character")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise NotStorable("half of a surrogate pair") from exc


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise NotStorable(f"the number {value}")
    # numeric knows no negative zero.
    return format(Decimal(repr(value + 0.0 if value else 0.0)), "f")
