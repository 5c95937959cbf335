"""Take a run back: delete what it inserted, restore what it overwrote, nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import dict_row

from harca import migrations
from harca.errors import Refused, RowsChanged, RunError, TargetError
from harca.postgres import indexes, seals, undo
from harca.postgres.connect import Database, translated
from harca.postgres.giving_way import give_way_early
from harca.postgres.legacy import FORMAT
from harca.postgres.lock import OwnSessions, lock_store, watched
from harca.retry import retried

_ROLLED_BACK = "rolled back"


class Changed(StrEnum):
    """What is done with what somebody has changed since the run loaded it."""

    REFUSE = "refuse"
    KEEP = "keep"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What a rollback did, or would do.

    Attributes:
        kept: Changed rows that stay; they belong to no run any more.
        changed: What was changed since, kept or not.
        before: When the run was taken back already, if this call found it so.
        finished: This call adapted the indexes, which the one that took it back had not.
        dry_run: Nothing was done.
        refused: It would have been refused.
    """

    run_id: int
    store: str
    deleted: int = 0
    restored: int = 0
    kept: int = 0
    changed: tuple[undo.Change, ...] = ()
    before: str | None = None
    finished: bool = False
    dry_run: bool = False
    refused: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as ``--json`` shows it."""
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "changed": [change.as_dict() for change in self.changed],
        }


def rollback(
    target: Database,
    run_id: int | None,
    *,
    changed: Changed = Changed.REFUSE,
    by_revision: bool = False,
    told: Callable[[str], object] = lambda message: None,
    ours: OwnSessions | None = None,
) -> RolledBack:
    """Take run *run_id* back, the latest one if None: the rows in one transaction, then indexes.

    Called again it finishes what was interrupted, and does nothing to rows. None is then the
    run that was being taken back, not the one before it.

    Args:
        told: Is told what goes wrong and is tried again.
        ours: Sessions of the load that is taken back, if it is this process's own: the server
            may not have noticed yet that they are closed.

    Raises:
        RunError: There is no such run.
        RowsChanged: Rows were changed since, and *changed* is ``refuse``.
        StoreBusy: Another process is working on the store.
        Refused: The run is a data revision's that is applied, and it is not that
            revision's downgrade that asks.
        TargetError: The database failed, and the message says what holds.
    """
    target.reach()
    rolling_back = _RollingBack(target, run_id, changed, by_revision, ours or OwnSessions())
    try:
        return retried(lambda reached: rolling_back.attempt(), told=told)
    except TargetError as exc:
        hint = exc.hint
        if rolling_back.run_id is not None:
            # Not "last", which may be another one by the time that this is read.
            hint += f" The run is {rolling_back.run_id}: `harca rollback {rolling_back.run_id}`."
        raise TargetError(f"{rolling_back.what_holds()}: {exc}", hint=hint) from exc


def preview(target: Database, run_id: int | None, *, changed: Changed) -> RolledBack:
    """Return what `rollback` would do; change nothing and wait for nobody.

    Raises:
        RunError: There is no such run.
        Refused: As `rollback`, but for rows that were changed.
    """
    discard = changed is Changed.DELETE
    with translated(), target.connect() as conn:
        run = _find(conn, run_id)
        if run["status"] == _ROLLED_BACK:
            return _before(run, dry_run=True)
        _refuse_if_not_ours(target, run)
        undoing = undo.look(conn, run, discard=discard)
    return _told(run, undoing, changed, dry_run=True)


def rollback_revision(
    target: Database, revision: str, *, changed: Changed = Changed.REFUSE
) -> list[RolledBack]:
    """Take back every run of a data revision, the latest first."""
    with translated(), target.connect() as conn:
        found = conn.execute(
            "SELECT run_id FROM load_runs WHERE revision = %s "
            "AND (status <> 'rolled back' OR notes ? 'unfinished') ORDER BY run_id DESC",
            [revision],
        ).fetchall()
    return [rollback(target, run_id, changed=changed, by_revision=True) for (run_id,) in found]


def _find(conn: psycopg.Connection[Any], run_id: int | None) -> dict[str, Any]:
    with conn.cursor(row_factory=dict_row) as cursor:
        if run_id is None:
            cursor.execute(
                "SELECT * FROM load_runs WHERE status <> 'rolled back' OR notes ? 'unfinished' "
                "ORDER BY run_id DESC LIMIT 1"
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


def _refuse_if_not_ours(
    target: Database, run: dict[str, Any], *, by_revision: bool = False
) -> None:
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
        and not by_revision
        and migrations.is_applied(target, revision, migrations.DATA)
    ):
        raise Refused(
            f"run {run['run_id']} is that of data revision {revision}, which is applied",
            hint="Take it back with `alembic -n data downgrade`, so that it can be applied again.",
        )


class _RollingBack:
    """One rollback, over all its attempts.

    Attributes:
        run_id: Known from the first attempt on.
        done: What the last transaction did that was about to be committed, and when it says
            that the run was taken back. Only the server knows whether it was.
        is_committed: The server has said so.
    """

    def __init__(
        self,
        target: Database,
        run_id: int | None,
        changed: Changed,
        by_revision: bool,
        sessions: OwnSessions,
    ) -> None:
        self._target, self._changed, self._by_revision = target, changed, by_revision
        self._sessions = sessions
        self.run_id = run_id
        self.done: tuple[RolledBack, datetime] | None = None
        self.is_committed = False

    def attempt(self) -> RolledBack:
        """Go on from where the attempts before have come to."""
        with translated(), watched(self._target) as conn:
            run = _find(conn, self.run_id)
            self.run_id = run["run_id"]
            # Ends what is left of earlier attempts, so that what is seen now stays so.
            lock_store(conn, run["store"], ours=self._sessions)
            run = _find(conn, self.run_id)  # again, now that nobody else works on it
            self.is_committed = run["status"] == _ROLLED_BACK
            if not self.is_committed:
                _refuse_if_not_ours(self._target, run, by_revision=self._by_revision)
                run["rolled_back_at"] = self._take_back(conn, run)
            _adapt_indexes(conn)
        if self.done is None or self.done[1] != run["rolled_back_at"]:
            return _before(run)
        return self.done[0]

    def what_holds(self) -> str:
        """Say what is known when no further attempt is made."""
        run = f"run {self.run_id}" if self.run_id is not None else "the latest run"
        if self.is_committed:
            return f"{run} is taken back, but the indexes are not adapted yet"
        if self.done:
            return f"whether {run} is taken back is not known, the answer to COMMIT was lost"
        return f"{run} is not taken back, nothing was changed"

    def _take_back(self, conn: psycopg.Connection[Any], run: dict[str, Any]) -> datetime:
        self.done, discard = None, self._changed is Changed.DELETE
        with conn.transaction():
            give_way_early(conn)
            _hold(conn, run)
            undoing = undo.prepare(conn, run, discard=discard)
            would_be = _told(run, undoing, self._changed)
            if would_be.refused:
                raise _rows_changed(would_be, by_revision=self._by_revision)
            # What later runs keep of this one's rows changes with them.
            with seals.kept(conn, run["store"]):
                undo.carry_out(conn, run, undoing, discard=discard)
            stamped = conn.execute(
                "UPDATE load_runs SET status = 'rolled back', rolled_back_at = clock_timestamp(), "
                """notes = notes || '{"unfinished": "indexes"}' WHERE run_id = %(run_id)s """
                "RETURNING rolled_back_at",
                run,
            ).fetchone()
            assert stamped is not None
            self.done = would_be, stamped[0]
        self.is_committed = True
        return self.done[1]


def _hold(conn: psycopg.Connection[Any], run: dict[str, Any]) -> None:
    """Keep a loader from committing into the run: its lock may be gone, it may not."""
    status = conn.execute(
        "SELECT status FROM load_runs WHERE run_id = %(run_id)s FOR UPDATE", run
    ).fetchone()
    if status == (_ROLLED_BACK,):
        raise RunError(
            f"run {run['run_id']} was taken back by another process meanwhile",
            hint="Nothing was changed. `harca status` lists the runs.",
        )


def _told(
    run: dict[str, Any], undoing: undo.Undoing, changed: Changed, *, dry_run: bool = False
) -> RolledBack:
    return RolledBack(
        run["run_id"],
        run["store"],
        undoing.deleted,
        undoing.restored,
        len(undoing.changes) if changed is Changed.KEEP else 0,
        undoing.changes,
        dry_run=dry_run,
        refused=changed is Changed.REFUSE and bool(undoing.changes),
    )


def _before(run: dict[str, Any], *, dry_run: bool = False) -> RolledBack:
    return RolledBack(
        run["run_id"],
        run["store"],
        before=f"{run['rolled_back_at']:%Y-%m-%d %H:%M:%S}",
        finished="unfinished" in run["notes"] and not dry_run,
        dry_run=dry_run,
    )


def _rows_changed(would_be: RolledBack, *, by_revision: bool) -> RowsChanged:
    return RowsChanged(
        would_be.run_id,
        [str(change) for change in would_be.changed],
        option="-x changed=" if by_revision else f"harca rollback {would_be.run_id} --changed ",
        changed=[change.as_dict() for change in would_be.changed],
    )


def _adapt_indexes(conn: psycopg.Connection[Any]) -> None:
    """Drop indexes of spaces that are gone, adapt the others; note that it is done."""
    indexes.build(conn)
    conn.execute("UPDATE load_runs SET notes = notes - 'unfinished' WHERE notes ? 'unfinished'")
