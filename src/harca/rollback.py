"""Take a run back: delete what it inserted, restore what it overwrote, nothing else."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import dict_row

from harca import migrations
from harca.errors import Refused, RowsChanged, RunError, TargetError
from harca.postgres import indexes
from harca.postgres.connect import Database, translated
from harca.postgres.digest import query
from harca.postgres.legacy import FORMAT
from harca.postgres.lock import OwnSessions, lock_store
from harca.retry import retried

_LISTED = 5


class Changed(StrEnum):
    """What is done with rows that somebody changed since the run loaded them."""

    REFUSE = "refuse"
    KEEP = "keep"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What a rollback did.

    Attributes:
        kept: Changed rows that stay; they belong to no run any more.
    """

    run_id: int
    store: str
    deleted: int
    restored: int
    kept: int


def rollback(
    target: Database,
    run_id: int | None,
    *,
    changed: Changed = Changed.REFUSE,
    by_revision: bool = False,
    told: Callable[[str], object] = lambda message: None,
) -> RolledBack:
    """Take run *run_id* back, the latest one if None, in one transaction.

    What passes by itself is tried again. If the connection is lost while the transaction is
    committed, the next attempt finds out whether it was.

    Args:
        told: Is told of what is tried again.

    Raises:
        RunError: There is no such run, or it was rolled back before.
        RowsChanged: Rows were changed since, and *changed* is ``refuse``.
        StoreBusy: Another process is working on the store.
        Refused: The run is a data revision's that is applied, and it is not that
            revision's downgrade that asks.
    """
    target.reach()
    asked = _Asked(target, run_id, changed, by_revision)
    try:
        return retried(lambda reached: _attempt(asked), told=told)
    except TargetError as exc:
        if asked.run_id is not None:
            # Not "last", which is another one if this one is taken back by now.
            exc.hint += f" The run is {asked.run_id}: `harca rollback {asked.run_id}`."
        raise


@dataclass(slots=True)
class _Asked:
    """What was asked for, and what is remembered of the attempts at it.

    Attributes:
        run_id: None until it is known which is the latest.
        done: What the last transaction has done that was about to be committed, and when.
    """

    target: Database
    run_id: int | None
    changed: Changed
    by_revision: bool
    done: tuple[RolledBack, datetime] | None = None
    sessions: OwnSessions = field(default_factory=OwnSessions)


def _attempt(asked: _Asked) -> RolledBack:
    with translated(), asked.target.connect() as conn:
        run = _find(conn, asked.run_id)
        asked.run_id = run["run_id"]
        lock_store(conn, run["store"], ours=asked.sessions)
        asked.sessions.add(conn)
        run = _find(conn, asked.run_id)  # again, now that nobody else works on it
        if asked.done is None or run["rolled_back_at"] != asked.done[1]:
            _refuse(run, asked)
            _take_back(conn, run, asked)
        assert asked.done is not None
        indexes.build(conn)  # those of spaces that are gone, or smaller now, go
        return asked.done[0]


def _refuse(run: dict[str, Any], asked: _Asked) -> None:
    """Refuse to take back what is taken back already, or in another way."""
    if run["status"] == "rolled back":
        raise RunError(
            f"run {run['run_id']} was rolled back at {run['rolled_back_at']:%Y-%m-%d %H:%M:%S}",
            hint="Nothing was changed. `harca status` lists the runs.",
        )
    if run["format"] == FORMAT:
        raise Refused(
            f"run {run['run_id']} brought the table {run['store']} over, which the "
            "application still writes to",
            hint=f"Take it back with `alembic downgrade {migrations.BEFORE_TABLES}`, which "
            "also puts the table back in its place.",
        )
    revision = run["revision"]
    if (
        revision is not None
        and not asked.by_revision
        and migrations.is_applied(asked.target, revision, migrations.DATA)
    ):
        raise Refused(
            f"run {run['run_id']} is that of data revision {revision}, which is applied",
            hint="Take it back with `alembic -n data downgrade`, so that it can be applied again.",
        )


def rollback_revision(
    target: Database, revision: str, *, changed: Changed = Changed.REFUSE
) -> list[RolledBack]:
    """Take back every run of a data revision, the latest first."""
    with translated(), target.connect() as conn:
        found = conn.execute(
            "SELECT run_id FROM load_runs WHERE revision = %s AND status <> 'rolled back' "
            "ORDER BY run_id DESC",
            [revision],
        ).fetchall()
    return [rollback(target, run_id, changed=changed, by_revision=True) for (run_id,) in found]


def _find(conn: psycopg.Connection[Any], run_id: int | None) -> dict[str, Any]:
    with conn.cursor(row_factory=dict_row) as cursor:
        if run_id is None:
            cursor.execute(
                "SELECT * FROM load_runs WHERE status <> 'rolled back' ORDER BY run_id DESC LIMIT 1"
            )
        else:
            cursor.execute("SELECT * FROM load_runs WHERE run_id = %s", [run_id])
        run = cursor.fetchone()
    if run is None:
        raise RunError(
            f"there is no run {run_id}" if run_id is not None else "there is no run to take back",
            hint="`harca status` lists the runs.",
        )
    return run


def _take_back(conn: psycopg.Connection[Any], run: dict[str, Any], asked: _Asked) -> None:
    changed = asked.changed
    values = {name: run[name] for name in ("run_id", "store", "started_at")}
    with conn.transaction():
        # Rows that are being changed now are waited for, and then seen as changed.
        conn.execute("SELECT FROM vector_embeddings WHERE run_id = %(run_id)s FOR UPDATE", values)
        theirs = conn.execute(query("changed_rows"), values).fetchall()
        kept = 0
        if theirs and changed is Changed.REFUSE:
            raise RowsChanged(run["run_id"], [key for (key,) in theirs[:_LISTED]], len(theirs))
        if changed is Changed.KEEP:
            kept = conn.execute(
                "UPDATE vector_embeddings SET run_id = NULL, updated_at = updated_at "
                "WHERE run_id = %(run_id)s AND store = %(store)s "
                "AND updated_at IS DISTINCT FROM %(started_at)s",
                values,
            ).rowcount
            # Nor does what a later run has overwritten of them.
            kept += conn.execute(
                "UPDATE superseded SET row_run_id = NULL WHERE row_run_id = %(run_id)s "
                "AND kind = 'overwritten' AND row_updated_at IS DISTINCT FROM %(started_at)s",
                values,
            ).rowcount
        restored = conn.execute(query("restore_rows"), values).rowcount
        deleted = conn.execute(
            "DELETE FROM vector_embeddings WHERE run_id = %(run_id)s AND store = %(store)s",
            values,
        ).rowcount
        # Rows of this run that a later one overwrote must not come back with that one: what
        # they were before this run does, if they were.
        conn.execute(query("pass_on_overwritten"), values)
        conn.execute(
            "DELETE FROM superseded WHERE row_run_id = %(run_id)s AND kind = 'overwritten'",
            values,
        )
        stamped = conn.execute(
            "UPDATE load_runs SET status = 'rolled back', rolled_back_at = clock_timestamp() "
            "WHERE run_id = %(run_id)s RETURNING rolled_back_at",
            values,
        ).fetchone()
        assert stamped is not None
        asked.done = (
            RolledBack(run["run_id"], run["store"], deleted, restored, kept),
            stamped[0],
        )
