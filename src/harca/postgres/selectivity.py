"""How many rows of a space a filter lets through, as the planner guesses."""

import time
from typing import Any

import psycopg
from psycopg import sql

from harca.model import Space
from harca.postgres import nearest
from harca.postgres.filters import Filter

_FRESH_S = 60.0
_MOST = 1_000


class Selectivity:
    """Asks the planner, and remembers for a minute what it said."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        self._known: dict[tuple[object, ...], tuple[float, int]] = {}

    def rows(self, space: Space, chosen: Filter) -> int:
        """Return about how many rows of *space* fulfil a filter.

        The guess costs a fraction of a millisecond; to count them could take longer than the
        search. If it is wrong, a search takes longer, and finds no less.
        """
        key = (space.model_id, space.dims, chosen.clause.as_bytes(None), repr(chosen.values))
        now = time.monotonic()
        known = self._known.get(key)
        if known is None or now - known[0] > _FRESH_S:
            if len(self._known) >= _MOST:
                self._known.clear()
            known = self._known[key] = (now, self._guess(space, chosen))
        return known[1]

    def _guess(self, space: Space, chosen: Filter) -> int:
        row = self._conn.execute(
            sql.SQL(
                "EXPLAIN (FORMAT JSON) SELECT FROM {table} "
                "WHERE model_id = {model_id} AND dims = {dims} AND ({clause})"
            ).format(
                table=nearest.TABLE,
                model_id=nearest.literal(space.model_id),
                dims=sql.Literal(space.dims),
                clause=chosen.clause,
            ),
            chosen.values,
        ).fetchone()
        assert row is not None
        return int(row[0][0]["Plan"]["Plan Rows"])
