"""Which rows a search is for, as SQL.

Everything compares jsonb with jsonb, by way of its types: no value of a row can make it fail, as
a cast would.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import sql

from harca.condition import (
    Compares,
    Condition,
    Contains,
    Either,
    Every,
    Opposite,
    read_condition,
    storable,
)
from harca.errors import UsageError


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on rows of ``vector_embeddings``.

    Attributes:
        clause: Its SQL, in parentheses where it needs them, with named placeholders.
        values: What stands for the placeholders ``f0``, ``f1`` …
    """

    clause: sql.Composable
    values: dict[str, Any]


def compile_filter(
    where: Mapping[str, Any] | None,
    *,
    source: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Filter | None:
    """Return the condition that a row's columns fulfil all of these; None if nothing is asked.

    Args:
        where: Of the metadata, in the language of `harca.condition`.
        source: The column ``source`` is this.
        since: ``created_at`` is this or later. Rows without a date are not found.
        until: ``created_at`` is earlier than this.

    What is contained, ``$eq``, ``$in`` and ``$contains`` are ``@>``, and ``$exists`` is ``?``, for
    which there is the GIN index on the metadata. Other comparisons look at each row.

    Raises:
        UsageError: One of them is not what is expected.
    """
    statement = _Statement()
    parts = []
    condition = None if where is None else read_condition(where)
    if condition is not None:
        parts.append(statement.condition(condition))
    if source is not None:
        parts.append(sql.SQL("source = {}").format(statement.put(storable(source, "source"))))
    if since is not None and until is not None and _aware(since) >= _aware(until):
        raise UsageError(
            f"nothing is since {since.isoformat()} and before {until.isoformat()}",
            hint="Give an earlier time to begin with than to end with.",
        )
    if since is not None:
        parts.append(sql.SQL("created_at >= {}").format(statement.put(_aware(since))))
    if until is not None:
        parts.append(sql.SQL("created_at < {}").format(statement.put(_aware(until))))
    if not parts:
        return None
    return Filter(sql.SQL(" AND ").join(parts), statement.values)


_ORDERINGS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_METADATA = sql.SQL("metadata")


@dataclass(slots=True)
class _Statement:
    """A clause in the making."""

    values: dict[str, Any] = field(default_factory=dict)

    def put(self, value: Any) -> sql.Placeholder:
        name = f"f{len(self.values)}"
        self.values[name] = value
        return sql.Placeholder(name)

    def condition(self, condition: Condition) -> sql.Composable:
        match condition:
            case Contains(value):
                return sql.SQL("metadata @> {}::jsonb").format(self.put(_json(value)))
            case Compares(path, operator, value):
                return self._comparison(path, operator, value)
            case Every(parts):
                return self._joined(sql.SQL(" AND "), parts)
            case Either(parts):
                return self._joined(sql.SQL(" OR "), parts)
            case Opposite(part):
                return _not(self.condition(part))

    def _joined(self, word: sql.SQL, parts: list[Condition]) -> sql.Composable:
        return sql.SQL("({})").format(word.join(self.condition(part) for part in parts))

    def _comparison(self, path: tuple[str, ...], operator: str, value: Any) -> sql.Composable:
        match operator:
            case "$eq":
                return self._any_of(path, [value])
            case "$ne":
                return _not(self._any_of(path, [value]))
            case "$in":
                return self._any_of(path, value)
            case "$nin":
                return _not(self._any_of(path, value))
            case "$contains":
                return sql.SQL("metadata @> {}::jsonb").format(self.put(_json(_at(path, [value]))))
            case "$exists":
                return self._there(path) if value else _not(self._there(path))
            case _:
                return self._ordering(path, _ORDERINGS[operator], value)

    def _any_of(self, path: tuple[str, ...], values: list[Any]) -> sql.Composable:
        if len(values) == 1:
            contained = sql.SQL("metadata @> {}::jsonb").format(
                self.put(_json(_at(path, values[0])))
            )
        else:
            contained = sql.SQL("metadata @> ANY ({}::jsonb[])").format(
                self.put([_json(_at(path, value)) for value in values])
            )
        if not any(isinstance(value, list | dict) for value in values):
            return contained
        # A list or an object is contained in larger ones too.
        return sql.SQL("({} AND {} = ANY ({}::jsonb[]))").format(
            contained, self._reached(path), self.put([_json(value) for value in values])
        )

    def _there(self, path: tuple[str, ...]) -> sql.Composable:
        # The first is for the index; of a list, it would look at the elements.
        return sql.SQL("(metadata ? {}::text AND {} IS NOT NULL)").format(
            self.put(path[0]), self._reached(path)
        )

    def _ordering(self, path: tuple[str, ...], comparison: str, value: Any) -> sql.Composable:
        # As a path of jsonb, which compares what is of one type, strings by their code points
        # whatever the database's collation; and which the planner tries on what it knows of the
        # column, while it would have no idea of how many rows an expression lets through.
        place = ".".join(["strict $", *map(_json, path)])
        return sql.SQL("metadata @@ {}::jsonpath").format(
            self.put(f"{place} {comparison} {_json(value)}")
        )

    def _reached(self, path: tuple[str, ...]) -> sql.Composable:
        # Not #>, which counts into lists where a key is a number.
        keys = [sql.SQL("{}::text").format(self.put(key)) for key in path]
        return sql.SQL("({})").format(sql.SQL(" -> ").join([_METADATA, *keys]))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _at(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return the object in which *value* is at *path*."""
    *above, last = path
    found = {last: value}
    for key in reversed(above):
        found = {key: found}
    return found


def _not(clause: sql.Composable) -> sql.Composable:
    # Of NULL, which a place that is not there gives, NOT would make NULL.
    return sql.SQL("({}) IS NOT TRUE").format(clause)


def _aware(moment: datetime) -> datetime:
    if not isinstance(moment, datetime):
        raise UsageError(
            f"a time is a {type(moment).__name__}, expected a datetime with a time zone",
            hint="For example: datetime(2026, 1, 31, tzinfo=UTC).",
        )
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise UsageError(
            f"{moment.isoformat()} has no time zone",
            hint="Give it one: datetime(2026, 1, 31, tzinfo=UTC).",
        )
    return moment
