"""The whole of it: open, upgrade the schema, load, index, verify."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from harca import consolidate, migrations, rollback
from harca.ahead import ReadAhead, reading_ahead
from harca.backup import Backup, before_migration
from harca.batching import Batch
from harca.errors import (
    ConflictFound,
    NothingToVerify,
    NotVerified,
    RowsChanged,
    SourceError,
    StoreBusy,
    counted,
)
from harca.load import Intake, LoadResult, load, notes_of
from harca.manifest import Manifest
from harca.model import Expired, OnConflict, Reader, Space, Tally
from harca.options import LoadOptions, check_label
from harca.pace import FULL_SPEED, Pace
from harca.postgres import indexes, pressure
from harca.postgres.build_progress import BuildProgress
from harca.postgres.connect import Database, translated
from harca.postgres.legacy import FORMAT
from harca.postgres.lock import OwnSessions, locked, watched
from harca.postgres.rows import StoreRows
from harca.postgres.target import PostgresTarget, begin_run
from harca.readers.base import open_store
from harca.readers.staging import address, shown, staged
from harca.retry import Reached, retried
from harca.verify import Reading, Verification, verify, verify_reading
from harca.watcher import Unwatched, Watcher

# What stays of an attempt: records that are in, then stages that are done.
_LOAD, _INDEX, _VERIFY = 1, 2, 3

# Over a store that is written to all the time: what comes in during a pass is less each time,
# but never nothing.
MOST_PASSES = 3

_REOPENED, _REOPENED_AFTER_S = 5, 0.2


@dataclass(frozen=True, slots=True)
class Migration:
    """What `migrate` did, or a data revision, if there is a *revision*.

    Attributes:
        earlier: Passes over the store before this one, each a run.
        written_since: Files that were written to since this pass began.
    """

    run_id: int
    store: str
    resumed: bool
    result: LoadResult
    reader: Reader
    verification: Verification
    indexes_built: list[str]
    spaces: list[dict[str, Any]]
    options: LoadOptions
    revision: str | None = None
    backup: Backup | None = None
    earlier: tuple["Migration", ...] = ()
    written_since: int = 0

    @property
    def complete(self) -> bool:
        """True if every record is in and compared, but for rejections that were allowed."""
        return self.verification.ok and self.result.tally.rejected <= (
            self.options.max_rejects or 0
        )


def store_name(path: str | Path, options: LoadOptions) -> str:
    """Return what the store at *path* is called in the table."""
    name = options.name or address(str(path))
    check_label("the store's path, which is its name,", name)
    return name


def migrate(
    path: str | Path,
    target: Callable[[], Database],
    options: LoadOptions,
    *,
    pace: Pace = FULL_SPEED,
    watcher: Watcher | None = None,
    backups: Path | None = None,
) -> Migration:
    """Bring the store at *path* into the database, and prove it.

    The store is opened first: if that fails, the database is not even connected to.
    Run again, it goes on where it was interrupted, or takes in what is new. It does so by
    itself, a few times, while the store is written to.

    Args:
        backups: Folder in which what could be lost is kept first; None: it is not.

    Raises:
        HarcaError: See `harca.errors`; what is committed by then stays, and the run is
            resumed by the same call.
    """
    with staged(str(path)) as local:
        before = Manifest.of(local)
        reader = open_store(local, options.defaults)
        database, watching = target(), watcher or Unwatched()
        options = replace(options, batch_rows=pace.batch_rows(options.batch_rows))

        def once(store: _Store) -> Migration:
            def attempt(reached: Reached) -> Migration:
                if backups is not None:
                    _back_up_once(store, database, backups, options, watching)
                with reading_ahead(store.reader) as ahead:
                    watching.stage("schema")
                    migrations.upgrade(database, progress=watching.stage)
                    done = _load_and_prove(store, ahead, database, options, watching, reached)
                    return replace(done, backup=store.backup)

            return retried(attempt, told=watching.trouble)

        with translated(), database.connect() as conn:
            pressure.require_measurable(conn, pace.pause_when)
        store = _Store(str(path), local, reader, pace=pace, before=before)
        return _caught_up(store, once, options, watching)


def _caught_up(
    store: "_Store",
    once: Callable[["_Store"], Migration],
    options: LoadOptions,
    watcher: Watcher,
) -> Migration:
    """Migrate the store *once*, and again as long as it was written to meanwhile.

    A store that is written to all the time is read `MOST_PASSES` times: then every record
    is in that stood there when the last pass began. Each pass is a run of its own, as if
    the command were given again.
    """
    done = once(store)
    earlier: tuple[Migration, ...] = ()
    while True:
        assert store.before is not None
        changes = store.before.changes(ignored=store.reader.bookkeeping)
        if not changes or len(earlier) + 1 == MOST_PASSES:
            break
        watcher.stage(f"pass {len(earlier) + 2} of {MOST_PASSES} at most: {changes}")
        before = Manifest.of(store.local)
        reader = _reopened(store.local, options)
        store = replace(store, reader=reader, before=before, is_moving=True, run_id=None)
        try:
            again = once(store)
        except StoreBusy:
            break  # who has it between two passes takes in what is new
        done, earlier = again, (*earlier, done)
    return replace(done, earlier=earlier, written_since=changes.written)


def _reopened(local: Path, options: LoadOptions) -> Reader:
    """Open a store that could be opened before; a file of it can be half written just now."""
    retrying = Retrying(
        retry=retry_if_exception_type(SourceError),
        wait=wait_fixed(_REOPENED_AFTER_S),
        stop=stop_after_attempt(_REOPENED),
        reraise=True,
    )
    return retrying(open_store, local, options.defaults)


def load_and_prove(
    path: str | Path,
    database: Database,
    options: LoadOptions,
    *,
    revision: str,
    watcher: Watcher | None = None,
) -> Migration:
    """Do the same for a data revision, which refuses to be stamped on any difference.

    Raises:
        NotVerified: Store and rows differ, or more records were rejected than allowed.
    """
    with staged(str(path)) as local:
        reader = open_store(local, options.defaults)
        store = _Store(str(path), local, reader, revision)
        watching = watcher or Unwatched()

        def attempt(reached: Reached) -> Migration:
            with reading_ahead(reader) as ahead:
                return _load_and_prove(store, ahead, database, options, watching, reached)

        database.reach()
        done = retried(attempt, told=watching.trouble)
    if not done.verification.ok:
        raise NotVerified(
            f'"{done.store}" and the table differ: {done.verification.summary}',
            hint=f"See `harca verify {shown(str(path))}`. The revision is not stamped; run it "
            "again when the reason is gone.",
        )
    if not done.complete:
        reasons = ", ".join(f"{count} {reason}" for reason, count in done.result.rejected.items())
        raise NotVerified(
            f"{counted(done.result.tally.rejected, 'record')} rejected: {reasons}",
            hint=f"See `harca rejections list --run {done.run_id}`. The others are in, the "
            "revision is not stamped; accept them with -x max_rejects="
            f"{done.result.tally.rejected}.",
        )
    return done


@dataclass(slots=True)
class _Store:
    """A store that was opened, and what is remembered of the attempts to load it.

    Attributes:
        path: What the operator gave: a path, or a URL.
        local: Where it can be read.
        revision: The data revision that loads it, if one does.
        before: Its files before it was opened; None if it is known not to change.
        is_moving: It was written to while an earlier pass read it.
        run_id: What the first attempt began, the others go on with.
        is_backed_up: What could be lost is kept, or there is nothing.
    """

    path: str
    local: Path
    reader: Reader
    revision: str | None = None
    pace: Pace = FULL_SPEED
    before: Manifest | None = None
    is_moving: bool = False
    run_id: int | None = None
    sessions: OwnSessions = field(default_factory=OwnSessions)
    is_backed_up: bool = False
    backup: Backup | None = None

    @property
    def has_changed(self) -> bool:
        """True if it was written to since it was opened."""
        return self.before is not None and bool(
            self.before.changes(ignored=self.reader.bookkeeping)
        )


def _back_up_once(
    store: _Store, database: Database, parent: Path, options: LoadOptions, watcher: Watcher
) -> None:
    """Keep what could be lost, before the first attempt changes anything."""
    if store.is_backed_up:
        return
    watcher.stage("backup")
    store.backup = before_migration(
        database,
        parent,
        name=store_name(store.path, options),
        store=(store.path, store.local),
        ours=store.sessions,
    )
    store.is_backed_up = True


def _load_and_prove(
    store: _Store,
    ahead: ReadAhead | None,
    database: Database,
    options: LoadOptions,
    watcher: Watcher,
    reached: Reached,
) -> Migration:
    name = store_name(store.path, options)
    try:
        with translated(), locked(database, name, ours=store.sessions) as conn:
            shown = BuildProgress(database, watcher)
            return _load_alone(store, name, ahead, conn, options, watcher, reached, shown)
    except ConflictFound as conflict:
        # "error" promises that nothing stays: the operator wants to choose first.
        try:
            rollback.rollback(database, store.run_id, ours=store.sessions)
        except RowsChanged as changed:
            changed.hint = f"The run stopped as {conflict}. {changed.hint}"
            raise
        raise


def _load_alone(
    store: _Store,
    name: str,
    ahead: ReadAhead | None,
    conn: psycopg.Connection[Any],
    options: LoadOptions,
    watcher: Watcher,
    reached: Reached,
    shown: BuildProgress,
) -> Migration:
    reader = store.reader
    indexes.drop_before_first_load(conn)
    run = begin_run(
        conn,
        name,
        store_format=reader.format,
        revision=store.revision,
        options={**options.as_dict(), "path": address(store.path)},
        again=store.run_id,
    )
    store.run_id = run.run_id
    target = PostgresTarget(conn, run, volatile=reader.volatile)
    checkpoint = pressure.checkpoint(target, store.pace, watcher)
    intake = Intake(reader, options, now=run.started_at)
    loading = intake
    if ahead:
        loading = ahead.intake(reader, str(store.local), options, intake.now)
    total = reader.size_hint()
    watcher.stage("load", total)

    def progress(tally: Tally) -> None:
        reached(_LOAD, tally.read)
        watcher.step(tally.read)

    reading = Reading(reader.volatile)

    def before(batch: Batch) -> None:
        if store.is_moving:
            reading.add_all(batch)
        checkpoint.passed(batch)

    result = load(loading, target, options, progress=progress, before=before)
    target.finish(notes_of(result, reader), outlived=result.outlived)
    reached(_INDEX)
    watcher.stage("index")
    built = indexes.build(conn, progress=watcher.stage, shown=shown)
    reached(_VERIFY)
    watcher.stage("verify", total)
    rows = StoreRows(conn, name, run.run_id)
    verification = verify(intake.entries, rows, volatile=reader.volatile, progress=watcher.step)
    if store.is_moving and not verification.ok and store.has_changed:
        as_read = verify_reading(reading, rows)
        if as_read.ok:
            as_read.seen = verification.seen  # in which nothing is left out
            verification = as_read
    rows.note_outcome(verification)
    spaces = [Space(*space, count).as_dict() for space, count in rows.row_spaces().items()]
    return Migration(
        run.run_id,
        name,
        run.resumed,
        result,
        reader,
        verification,
        built,
        spaces,
        options,
        store.revision,
    )


def verify_store(
    database: Database,
    path: str | Path,
    *,
    name: str | None = None,
    watcher: Watcher | None = None,
) -> Verification:
    """Compare the store at *path* with its rows, as its latest run was told to read it.

    Raises:
        NothingToVerify: The store was never loaded, was taken back, or is being loaded.
    """
    watching, store = watcher or Unwatched(), name or address(str(path))
    database.reach()
    return retried(
        lambda reached: _verify_store(database, path, store, watching), told=watching.trouble
    )


def _verify_store(
    database: Database, path: str | Path, store: str, watcher: Watcher
) -> Verification:
    with translated(), watched(database) as conn:
        run = _latest_run(conn, store)
        if run["format"] == FORMAT:
            verification = consolidate.verify(conn, store)
            StoreRows(conn, store, run["run_id"]).note_outcome(verification)
            return verification
        options = _options(run["options"])
        with staged(str(path)) as local:
            reader = open_store(local, options.defaults)
            intake = Intake(reader, options, now=run["started_at"])
            rows = StoreRows(conn, store, run["run_id"])
            watcher.stage("verify", reader.size_hint())
            verification = verify(
                intake.entries, rows, volatile=reader.volatile, progress=watcher.step
            )
        rows.note_outcome(verification)
    return verification


def options_of(conn: Any, path: str) -> LoadOptions | None:
    """Return how the store at *path* was told to be read when it was loaded; None: it was not."""
    try:
        return _options(_latest_run(conn, address(path))["options"])
    except NothingToVerify:
        return None


def loaded_stores(database: Database) -> list[tuple[str, str]]:
    """Return name and path of each store whose rows are in the table.

    A table that was consolidated has its name for a path.
    """
    with translated(), database.connect() as conn:
        found = conn.execute(
            "SELECT DISTINCT ON (store) store, coalesce(options ->> 'path', store) FROM load_runs "
            "WHERE status <> 'rolled back' ORDER BY store, run_id DESC"
        )
        return [(store, path) for store, path in found]


def _latest_run(conn: Any, store: str) -> dict[str, Any]:
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT * FROM load_runs WHERE store = %s "
            "ORDER BY status <> 'rolled back' DESC, run_id DESC LIMIT 1",
            [store],
        )
        run: dict[str, Any] | None = cursor.fetchone()
    if run is None:
        raise NothingToVerify(f'store "{store}" was never loaded')
    if run["status"] == "rolled back":
        raise NothingToVerify(
            f'store "{store}" was taken back, its latest run is {run["run_id"]}',
            hint="Load it again: `harca migrate STORE`.",
        )
    if run["status"] == "loading":
        raise NothingToVerify(
            f'run {run["run_id"]} of store "{store}" is not finished',
            hint="Wait for the process that is loading it. If there is none any more, run the "
            "same `harca migrate` again: it goes on where it was.",
        )
    return run


def _options(noted: dict[str, Any]) -> LoadOptions:
    known = {name: noted[name] for name in LoadOptions.__dataclass_fields__ if name in noted}
    known["on_conflict"] = OnConflict(known.get("on_conflict", OnConflict.NEWEST))
    known["expired"] = Expired(known.get("expired", Expired.KEEP))
    return LoadOptions(**known)
