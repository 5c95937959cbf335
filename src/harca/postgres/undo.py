"""What taking a run back does to the table: a plan first, then the plan carried out."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from harca.postgres.digest import query

# Rather an error than rows that a policy hides, which would stay without a word.
_ALL_ROWS = "SET LOCAL row_security = off"

_COUNTS = """
    SELECT place, before IS NULL AS is_new, change IS NOT NULL AS is_changed, count(*) AS lines
    FROM harca_rollback GROUP BY 1, 2, 3
"""
_CHANGES = """
    SELECT store_key AS key, change, changed_at::text, overwritten_by
    FROM harca_rollback WHERE change IS NOT NULL ORDER BY store_key, superseded_id
"""


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody has done to a row of a run since it loaded it.

    Attributes:
        change: ``edited``, ``deleted``, or ``replaced``: deleted and put in anew.
        changed_at: As the server writes it, if it is known.
        overwritten_by: The later run that has overwritten the change, and keeps it.
    """

    key: str | None
    change: str
    changed_at: str | None
    overwritten_by: int | None

    def __str__(self) -> str:
        name = "a row without a key" if self.key is None else f'"{self.key}"'
        overwritten = f", then overwritten by run {self.overwritten_by}"
        return f"{name} ({self.change}{overwritten if self.overwritten_by else ''})"

    def as_dict(self) -> dict[str, Any]:
        """Return the change as ``--json`` shows it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Undoing:
    """What taking a run back comes to.

    Attributes:
        deleted: Rows that were not there before the run.
        restored: Rows that the run overwrote, and that get back what they held.
        changes: What others did to the run's rows since, which is kept or discarded.
    """

    deleted: int
    restored: int
    changes: tuple[Change, ...]


def look(conn: psycopg.Connection[Any], run: Mapping[str, Any], *, discard: bool) -> Undoing:
    """Return what `take_back` would do now, from one snapshot; nothing is locked."""
    plan = f"WITH harca_rollback AS ({query('rollback_plan')})"
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        conn.execute(_ALL_ROWS)
        return _summed_up(conn, run, discard=discard, plan=plan)


def prepare(conn: psycopg.Connection[Any], run: Mapping[str, Any], *, discard: bool) -> Undoing:
    """Return what `carry_out` will do, and hold the rows in place for it.

    Belongs into the same transaction.
    """
    conn.execute(_ALL_ROWS)
    # Rows that are being changed now are waited for, and then seen as changed.
    conn.execute(
        "SELECT count(*) FROM "
        "(SELECT FROM vector_embeddings WHERE run_id = %(run_id)s FOR UPDATE) held",
        run,
    )
    conn.execute(
        f"CREATE TEMP TABLE harca_rollback ON COMMIT DROP AS {query('rollback_plan')}", run
    )
    conn.execute("ANALYZE harca_rollback")
    return _summed_up(conn, run, discard=discard)


def carry_out(
    conn: psycopg.Connection[Any], run: Mapping[str, Any], undoing: Undoing, *, discard: bool
) -> None:
    """Do what was prepared.

    Args:
        discard: Others' changes go too; otherwise they stay, and belong to no run any more.

    Raises:
        psycopg.DataError: Not all of it was done; the transaction must not be committed.
    """
    if undoing.changes and not discard:
        for step in ("keep_rows", "keep_dates", "keep_overwritten", "detach"):
            conn.execute(query(f"rollback_{step}"), run)
        conn.execute("DELETE FROM harca_rollback WHERE change IS NOT NULL")
    conn.execute(query("rollback_clear_places"))
    deleted = conn.execute(query("rollback_delete_rows")).rowcount
    conn.execute(query("rollback_make_way"))
    restored = conn.execute(query("rollback_restore_rows")).rowcount
    restored += conn.execute(query("rollback_put_back_rows")).rowcount
    # Triggers and rules could leave rows out without an error.
    if (deleted, restored) != (undoing.deleted, undoing.restored):
        raise psycopg.DataError(
            f"deleted {deleted} of {undoing.deleted} rows and restored {restored} of "
            f"{undoing.restored}: does a trigger or a rule on the table leave rows out?"
        )
    for step in ("drop_overwritten", "pass_on", "forget"):
        conn.execute(query(f"rollback_{step}"), run)


def _summed_up(
    conn: psycopg.Connection[Any], run: Mapping[str, Any], *, discard: bool, plan: str = ""
) -> Undoing:
    counts: Counter[str] = Counter()
    for place, is_new, is_changed, lines in conn.execute(f"{plan} {_COUNTS}", run):
        if place != "overwritten" and (discard or not is_changed):
            counts["deleted" if is_new else "restored"] += lines
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(f"{plan} {_CHANGES}", run)
        changes = tuple(Change(**row) for row in cursor)
    return Undoing(counts["deleted"], counts["restored"], changes)
