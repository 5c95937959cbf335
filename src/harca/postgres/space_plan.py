"""How a space is searched just now: its index, and the session parameters for it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from harca.model import Space
from harca.postgres.digest import composed
from harca.postgres.space_index import (
    METHODS,
    Capabilities,
    SpaceIndex,
    index_name,
    ivfflat_probes,
    made,
)
from harca.postgres.space_settings import EXACT, Effort, are_there

# pgvector's default, which found 0.99 and more among 10,000 rows, and 0.93 among 100,000, where
# 120 to 160 are needed (docs/benchmarks.md).
_EF_SEARCH, _EF_ROWS = 40, 10_000
_MOST_BY_ROWS = 200
_MAX_EF_SEARCH = 1_000
_MAX_PROBES = 32_768
_TIES = 10  # candidates beyond k, so that equals at the end come in the order of their ids
# Of the signs alone, near neighbours are hard to tell apart: put in order so many times k.
_QUANTISED = 10
_LEAST_QUANTISED = 100
_K = 10
# How much longer a row takes in the index's scan than when matching rows are gone through.
_EXACT_SHARE = 2.0

_KEPT = "space_settings"
# Of a schema that is older, as after the restoring of a backup or a downgrade: searches go on.
_NOT_YET = """
    (SELECT NULL::text AS model_id, NULL::int AS dims, NULL::text AS method, NULL::jsonb AS effort)
"""

Session = Mapping[str, str]

_BY_INDEX = {
    # Left alone, the planner scans smaller tables, or sorts what another index finds.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    # The space is written out in the statement: there is nothing to plan anew for.
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
EXACTLY: Session = {
    "enable_seqscan": "on",
    "enable_bitmapscan": "on",
    "enable_sort": "on",
    # A filter's values decide which index is worth while.
    "plan_cache_mode": "force_custom_plan",
    "jit": "off",  # compiling takes longer than the search
}


@dataclass(frozen=True, slots=True)
class SpacePlan:
    """How a space is searched.

    Attributes:
        index: None: exactly.
        rows: In the index, roughly.
        effort: What was measured to be enough, else nothing.
    """

    space: Space
    index: SpaceIndex | None
    rows: int
    effort: Effort
    can: Capabilities

    def candidates(self, wanted: int, *, filtered: bool = False) -> int:
        """Return how many rows to take from the index for *wanted* results."""
        assert self.index is not None
        measured = self.effort.candidates
        if self.index.type == "bit":
            if measured is None:
                return max(_LEAST_QUANTISED, _QUANTISED * wanted)
            return max(measured, math.ceil(measured * wanted / (self.effort.k or _K)))
        if measured is not None:
            return max(wanted, measured)
        if filtered or self.effort.ef_search is None:
            return wanted + _TIES
        # No more than the measured effort brings anyway.
        return max(wanted, min(wanted + _TIES, self.effort.ef_search))

    def is_quicker_exactly(self, matching: int, candidates: int) -> bool:
        """Say whether to compare the *matching* rows one by one rather than use the index.

        That takes time in proportion to *matching*; the index's scan has to see
        ``candidates * rows / matching`` rows to find so many that match.
        """
        return matching * matching <= _EXACT_SHARE * candidates * max(self.rows, 1)

    def session(self, candidates: int, *, iterative: bool) -> Session | None:
        """Return the session parameters for that; None: the index cannot bring as many.

        Args:
            iterative: The scan goes on until it has brought them, or has seen enough.
        """
        assert self.index is not None
        if iterative and not self.can.iterative_scan:
            return None
        settings = dict(_BY_INDEX)
        if self.index.method == "ivfflat":
            lists = self.index.parameters.get("lists", METHODS["ivfflat"]["lists"])
            settings["ivfflat.probes"] = str(self.effort.probes or ivfflat_probes(lists))
        else:
            effort = max(self.effort.ef_search or _ef_search(self.rows), candidates)
            if effort > _MAX_EF_SEARCH and not iterative:
                return None
            settings["hnsw.ef_search"] = str(min(effort, _MAX_EF_SEARCH))
            # There can be an ivfflat index on the same expression, as the plan's is. With the one
            # probe that pgvector gives it, the planner would take it, and miss neighbours.
            settings["ivfflat.probes"] = str(_MAX_PROBES)
        if self.can.iterative_scan:
            # Candidates are put in order afterwards, so the scan need not do it.
            settings[f"{self.index.method}.iterative_scan"] = (
                "relaxed_order" if iterative else "off"
            )
        return settings


def _ef_search(rows: int) -> int:
    """Return the effort for an index of so many rows, where none was measured."""
    return min(max(_EF_SEARCH, round(_EF_SEARCH * math.sqrt(rows / _EF_ROWS))), _MOST_BY_ROWS)


def plan_of(conn: psycopg.Connection[Any], space: Space) -> SpacePlan:
    """Return how *space* is searched just now."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            composed("space_plan", settings=sql.SQL(_KEPT if are_there(conn) else _NOT_YET)),
            {"name": index_name(space), "model_id": space.model_id, "dims": space.dims},
        )
        row = cursor.fetchone()
    assert row is not None
    index = None
    if row["name"] is not None and row["kept_method"] != EXACT:
        described = {name: row[name] for name in ("name", "method", "operators", "parameters")}
        index = made(valid=True, bytes=0, comment=None, **described).of(space)
    return SpacePlan(
        space, index, int(row["rows"] or 0), Effort(**row["effort"]),
        Capabilities.of(row["version"]),
    )  # fmt: skip
