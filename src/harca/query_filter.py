"""What is typed to narrow a search: metadata as JSON, and times."""

import json
from datetime import datetime
from typing import Any

from harca.errors import UsageError
from harca.normalize import to_datetime

_EXAMPLE = """For example: --where '{"language": "en", "year": {"$gte": 2020}}'"""


def read_filter(where: str | None) -> dict[str, Any] | None:
    """Return the object that `harca.condition` reads.

    Raises:
        UsageError: It is no JSON object.
    """
    if where is None:
        return None
    try:
        condition = json.loads(where, object_pairs_hook=_each_once)
    except ValueError as exc:
        raise UsageError(f"--where is no JSON: {exc}", hint=_EXAMPLE) from exc
    except RecursionError as exc:
        raise UsageError("--where is nested too deep", hint=_EXAMPLE) from exc
    if not isinstance(condition, dict):
        raise UsageError("--where is no JSON object", hint=_EXAMPLE)
    return condition


def read_time(given: str | None, option: str) -> datetime | None:
    """Return a date, which is its beginning, or a time; without an offset it is of UTC.

    Raises:
        UsageError: It is neither.
    """
    if given is None:
        return None
    moment = to_datetime(given.strip())
    if moment is None:
        raise UsageError(
            f'{option} is "{given}", expected a date or a time as ISO 8601 writes it',
            hint=f"For example: {option} 2026-01-31, or {option} 2026-01-31T09:30+09:00; without "
            "an offset it is UTC.",
        )
    return moment


def _each_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    # Python would take the last of several, and search for less than was asked.
    found = dict(members)
    if len(found) < len(members):
        names = [name for name, _ in members]
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            f'--where has the key "{twice}" twice in one object',
            hint="Write several conditions on it in one object, or use $and: "
            """--where '{"year": {"$gte": 2020, "$lt": 2024}}'""",
        )
    return found
