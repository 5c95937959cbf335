"""What a value of a field can be, and what it is as a vector, a key, a time or JSON."""

import base64
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np

from harca.readers.files import exact_json

_SEPARATORS = re.compile(r"[\s,;]+")
_WRAPPED = re.compile(
    r"(?:np\.|numpy\.)?(?:array|tensor)\((?P<inside>.*?)(?:,\s*dtype=.*)?\)", re.S
)
_OPENINGS = ("[", "{", "(", "array(", "tensor(", "np.array(", "numpy.array(")
_LONGEST_VECTOR_TEXT = 4 << 20  # 16,000 components of at most 25 characters, with room


def is_vector(value: Any) -> bool:
    """Say whether *value* can be a vector, whatever its field is called."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "fiu" and value.size > 0
    if isinstance(value, list):
        return bool(value) and all(
            isinstance(one, int | float) and not isinstance(one, bool) for one in value[:64]
        )
    return _is_vector_text(value)


def _is_vector_text(value: Any) -> bool:
    if not isinstance(value, str) or not value.lstrip().startswith(_OPENINGS):
        return False
    numbers = vector_from_text(value)
    return isinstance(numbers, list) and bool(numbers)


def is_long_vector(value: Any) -> bool:
    """Say whether *value* is a vector and hardly anything else, in a field of any name."""
    if not is_vector(value):
        return False
    numbers = vector_from_text(value) if isinstance(value, str) else value
    return len(numbers) >= 8 and any(
        float(one) != int(one) for one in numbers if math.isfinite(one)
    )


def is_text(value: Any) -> bool:
    """Say whether *value* is a text and no vector in one."""
    return isinstance(value, str) and bool(value) and not _is_vector_text(value)


def is_object(value: Any) -> bool:
    """Say whether *value* is an object, or a text of one."""
    if isinstance(value, str | bytes):
        return isinstance(object_from_text(value), Mapping)
    return isinstance(value, Mapping)


def is_time(value: Any) -> bool:
    """Say whether *value* can be a time."""
    return time_of(value) is not None


def vector_from_text(value: str) -> Any:
    """Return a vector that stands in a string as a list, or *value* if it is none.

    Takes JSON, Python's and NumPy's way of printing, and PostgreSQL's. NumPy leaves out the
    middle of a long array (``...``): then there is no vector any more.
    """
    text = value.strip()
    if len(text) > _LONGEST_VECTOR_TEXT:
        return value
    if wrapped := _WRAPPED.fullmatch(text):
        text = wrapped["inside"].strip()
    if text[:1] + text[-1:] not in ("[]", "{}", "()"):
        return value
    try:
        return _numbers(json.loads(text)) if text[0] == "[" else _split(text)
    except (ValueError, RecursionError):
        try:
            return _split(text)
        except ValueError:
            return value


def _numbers(value: Any) -> list[Any]:
    if isinstance(value, list) and not any(isinstance(one, list | dict | str) for one in value):
        return value
    raise ValueError("not a list of numbers")


def _split(text: str) -> list[float]:
    inside = text[1:-1].strip(" \t\r\n,")
    return [float(part) for part in _SEPARATORS.split(inside)] if inside else []


def object_from_text(value: str | bytes) -> Any:
    """Return the object that stands in a string, or *value* if there is none."""
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    if not data.lstrip().startswith(b"{"):
        return value
    try:
        return exact_json(data)
    except (ValueError, RecursionError):
        return value


def key_of(value: Any, position: str) -> Any:
    """Return an id as a key: numbers and UUIDs as text; the *position* if there is none."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return position
    if isinstance(value, bool):
        return value
    if isinstance(value, int | np.integer | UUID):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Mapping) and isinstance(value.get("$oid"), str):
        return value["$oid"]  # MongoDB's extended JSON
    return value


def time_of(value: Any) -> Any:
    """Return a time; of a number, seconds or milliseconds since 1970 if it can be either."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            return None
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        for per_second in (1, 1000):
            if 1e9 <= value / per_second < 4e9:  # 2001 to 2096
                return datetime.fromtimestamp(value / per_second, UTC)
    return None


def plain_json(value: Any, *, missing_is_nan: bool = False) -> Any:
    """Return *value* with what JSON has no word for spelled out: dates, bytes, decimals."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if missing_is_nan and math.isnan(value) else value
    convert = partial(plain_json, missing_is_nan=missing_is_nan)
    if isinstance(value, Mapping):
        return {str(name): convert(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [convert(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return convert(value.tolist())
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal | UUID):
        return str(value)
    return value  # normalize says what is wrong with it
