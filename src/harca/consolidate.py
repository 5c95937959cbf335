"""Bring HARCA's two old tables into `vector_embeddings` while the application goes on."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from harca.errors import NothingToVerify, NotVerified, Refused, UsageError, counted
from harca.options import check_label
from harca.postgres import indexes, legacy_mirror, legacy_rows, legacy_swap
from harca.postgres.connect import Database, translated
from harca.postgres.consolidation import Consolidation
from harca.postgres.legacy import FORMAT, KEPT, LegacyTable, find, kept_in
from harca.postgres.lock import locked
from harca.postgres.rows import StoreRows
from harca.postgres.target import begin_run
from harca.verify import LISTED, Check, Mismatch, Verification

REVISION = "f06b2d81c9e7"  # the revision that consolidates
UNKNOWN_MODEL = "unknown"

LOCK = "the old tables"

_log = logging.getLogger("harca.consolidate")
_SHOWN = 5
_INDEX_PATIENCE_S = 60


@dataclass(frozen=True, slots=True)
class LegacyOptions:
    """What the operator decides.

    Attributes:
        model: Label of rows whose model nothing tells.
        ignore: Leave the old tables alone.
    """

    model: str = UNKNOWN_MODEL
    ignore: bool = False


def options(given: Mapping[str, str], ini_model: str | None = None) -> LegacyOptions:
    """Return the options of ``-x``, the environment or ``alembic.ini``, in this order.

    Raises:
        UsageError: ``legacy`` is something else than ``consolidate`` or ``ignore``.
    """
    model = (
        given.get("legacy_model")
        or os.environ.get("HARCA_LEGACY_MODEL")
        or ini_model
        or UNKNOWN_MODEL
    )
    check_label("legacy_model", model)
    wanted = given.get("legacy") or os.environ.get("HARCA_LEGACY") or "consolidate"
    if wanted not in ("consolidate", "ignore"):
        raise UsageError(
            f'legacy is "{wanted}", expected consolidate or ignore',
            hint="It is given by -x legacy=... or HARCA_LEGACY.",
        )
    return LegacyOptions(model, wanted == "ignore")


def check(conn: psycopg.Connection[Any]) -> list[LegacyTable]:
    """Return the tables that can be consolidated.

    Raises:
        Refused: One is there that cannot, or that the role does not own.
    """
    tables, refusals = [], []
    for table in find(conn):
        if not table.is_ours or table.kind not in ("r", "p"):
            _log.info("%s is left alone: it is not one of HARCA's tables", table.label)
            continue
        if not table.is_owned:
            refusals.append(
                f"{table.label} belongs to {table.owner}, and the role is not one of it"
            )
        refusals += [
            f"{table.label}: {reason}" for reason in table.obstacles(conn.info.server_version)
        ]
        tables.append(table)
    if tables and not refusals:
        database = conn.execute(
            "SELECT current_database(), has_database_privilege(current_database(), 'CREATE')"
        ).fetchone()
        assert database is not None
        kept = conn.execute(
            "SELECT FROM pg_namespace WHERE nspname = %s AND NOT has_schema_privilege(oid, "
            "'CREATE')",
            [KEPT],
        )
        if not database[1]:
            refusals.append(f"the role may not create a schema in database {database[0]}")
        if kept.rowcount:
            refusals.append(f"the role may not create tables in schema {KEPT}")
    if refusals:
        raise Refused(
            f"the old tables cannot be consolidated: {'; '.join(refusals)}",
            hint="Nothing was changed. Let the tables' owner, with CREATE on the database, run "
            "it, or leave the tables as they are with -x legacy=ignore or HARCA_LEGACY=ignore.",
        )
    return tables


def consolidate(
    target: Database,
    *,
    revision: str,
    given: LegacyOptions,
    progress: Callable[[str], None] = lambda message: None,
) -> list[str]:
    """Bring the old tables over and put views in their place; return their names.

    Run again after an interruption, it goes on where it was.

    Raises:
        Refused: See `check`.
        StoreBusy: Another process is at it.
        NotVerified: Rows differ although they were mended.
    """

    def say(message: str, *values: Any) -> None:
        _log.info(message, *values)
        progress(message % values)

    with translated(), _connected(target) as conn:
        tables = check(conn)
        if not tables:
            return []
        steps = []
        for table in tables:
            for dependent in table.dependents:
                _log.info("%s is used by %s, which goes on working", table.label, dependent)
            step = _begin(conn, table, revision, given.model)
            say("bringing over %s", step.store)
            legacy_mirror.keep_in_step(step)
            legacy_rows.copy(step, partial(_log.debug, "%s: %d rows", step.store))
            steps.append(step)
        _build_indexes(conn, progress)
        for step in steps:
            _prove(step)
            legacy_swap.swap(step)
            _finish(step)
            say("%s", _summary(step))
        return [step.store for step in steps]


def _begin(
    conn: psycopg.Connection[Any], table: LegacyTable, revision: str, model: str
) -> Consolidation:
    with conn.transaction():
        noted = {"table": table.label, "model": model, "dependents": list(table.dependents)}
        known = conn.execute(
            "SELECT model_id FROM legacy_tables WHERE schema_name = %s AND table_name = %s",
            [table.schema, table.name],
        ).fetchone()
        if known is not None and known[0] != model:
            _log.info("%s goes on with the label %s, as it began", table.label, known[0])
            model = noted["model"] = known[0]
        run = begin_run(conn, table.label, store_format=FORMAT, revision=revision, options=noted)
        conn.execute(
            "INSERT INTO legacy_tables (schema_name, table_name, run_id, model_id) "
            "VALUES (%s, %s, %s, %s) ON CONFLICT (schema_name, table_name) DO UPDATE "
            "SET run_id = excluded.run_id",
            [table.schema, table.name, run.run_id, model],
        )
    return Consolidation(conn, table, table.schema, run.run_id, run.attempt, model)


def _prove(step: Consolidation) -> None:
    left = legacy_rows.repair(step)
    if left:
        shown = ", ".join(f"{key} ({difference})" for key, difference in left[:_SHOWN])
        raise NotVerified(
            f"{counted(len(left), 'row')} of {step.store} differ from the table's: {shown}",
            hint="The old table is in its place still. Run the same command again.",
        )


def _finish(step: Consolidation) -> None:
    rows = StoreRows(step.conn, step.store, step.run_id)
    step.conn.execute(
        "UPDATE load_runs r SET status = 'verified', fingerprint = %(fingerprint)s, "
        "finished_at = clock_timestamp(), read = b.read, loaded = b.loaded, "
        "unchanged = b.unchanged, rejected = b.rejected, notes = %(notes)s FROM ("
        "SELECT coalesce(sum(read), 0) AS read, coalesce(sum(loaded), 0) AS loaded, "
        "coalesce(sum(unchanged), 0) AS unchanged, coalesce(sum(rejected), 0) AS rejected "
        "FROM load_batches WHERE run_id = %(run_id)s) b WHERE r.run_id = %(run_id)s",
        {
            "run_id": step.run_id,
            "fingerprint": str(rows.fingerprint()),
            "notes": Jsonb({"reasons": dict(_reasons(step))}),
        },
    )


def _reasons(step: Consolidation) -> list[tuple[str, int]]:
    return step.conn.execute(
        "SELECT reason, count(*) FROM rejections WHERE run_id = %s GROUP BY reason ORDER BY reason",
        [step.run_id],
    ).fetchall()


def _summary(step: Consolidation) -> str:
    counts = legacy_rows.counts(step)
    text = (
        f"{step.store}: {counted(counts['new'], 'row')} of {counts['old']:,} in "
        f"vector_embeddings as {step.model_id}; a view stands for the table, kept in "
        f"schema {step.kept} (locked for {1000 * step.locked_s:.0f} ms)"
    )
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in _reasons(step))
    return f"{text}; see harca rejections list --run {step.run_id}: {reasons}" if reasons else text


def restore(target: Database) -> list[str]:
    """Put the old tables back as they were, with what was written meanwhile.

    Raises:
        Refused: The role is not the tables' owner.
        TargetError: Something that was made since depends on the views.
    """
    with translated(), _connected(target) as conn:
        steps = list(_noted(conn))
        foreign = [step for step in steps if not step.table.is_owned]
        if foreign:
            raise Refused(
                f"{foreign[0].store} belongs to {foreign[0].table.owner}, and the role is not "
                "one of it",
                hint="Nothing was changed. Let the table's owner take it back.",
            )
        for step in steps:
            legacy_swap.restore(step)
            _log.info("%s is back in its place", step.store)
        if steps:
            _build_indexes(conn, lambda message: None)
        return [step.store for step in steps]


def go_on(
    target: Database, given: LegacyOptions, progress: Callable[[str], None] = lambda message: None
) -> None:
    """Finish what a killed process left between a table's two states, after its revision.

    For the revision is stamped as long as a downgrade is not at its end.
    """
    with translated(), target.connect() as conn:
        notes = conn.execute(
            "SELECT kept_in IS NOT NULL, r.status FROM legacy_tables l JOIN load_runs r "
            "USING (run_id)"
        ).fetchall()
        unfinished = [step for step in _noted(conn) if step.kept] if notes else []
        for step in unfinished:
            if (True, "loading") in notes:
                _finish(step)
    if any(not is_kept for is_kept, _ in notes):
        consolidate(target, revision=REVISION, given=given, progress=progress)


@contextmanager
def _connected(target: Database) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection that works through the tables, alone, however long it takes."""
    with locked(target, LOCK) as conn:
        conn.execute("SET statement_timeout = 0")
        # Rather an error than rows that a policy hides.
        conn.execute("SET row_security = off")
        yield conn


def _build_indexes(conn: psycopg.Connection[Any], progress: Callable[[str], None]) -> None:
    """Build them unless an old transaction, for which a build waits, does not end."""
    try:
        indexes.build(conn, progress=progress, patience_s=_INDEX_PATIENCE_S)
    except pg.LockNotAvailable:
        oldest = conn.execute(
            "SELECT pid, application_name FROM pg_stat_activity WHERE backend_xmin IS NOT NULL "
            "AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 1"
        ).fetchone()
        who = f" (server process {oldest[0]}, {oldest[1] or 'unnamed'})" if oldest else ""
        _log.warning(
            "indexes are not built: another session's old transaction is open%s; searches are "
            "exact until the next harca migrate, which builds them",
            who,
        )
    conn.execute("SET statement_timeout = 0")  # which the build has reset


def _noted(conn: psycopg.Connection[Any]) -> Iterator[Consolidation]:
    """Yield what was begun or done, by the notes."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT l.*, r.attempt FROM legacy_tables l JOIN load_runs r USING (run_id) "
            "ORDER BY schema_name, table_name"
        )
        notes = cursor.fetchall()
    for note in notes:
        where = note["kept_in"] or note["schema_name"]
        table = next((one for one in kept_in(conn, where) if one.name == note["table_name"]), None)
        if table is None:
            raise Refused(
                f"{where}.{note['table_name']} is gone, which stood behind "
                f"{note['schema_name']}.{note['table_name']}",
                hint="Nothing was changed. Restore the table from a backup first.",
            )
        yield Consolidation(
            conn,
            table,
            note["schema_name"],
            note["run_id"],
            note["attempt"],
            note["model_id"],
            note["kept_in"],
        )


def verify(conn: psycopg.Connection[Any], store: str) -> Verification:
    """Compare an old table, which lives on behind its view, with its rows.

    Raises:
        NothingToVerify: It was never brought over.
    """
    step = next((one for one in _noted(conn) if one.store == store), None)
    if step is None:
        raise NothingToVerify(f"{store} was never brought over, or is back in its place")
    differences = legacy_rows.differences(step)
    outcome = Verification(store, mismatch_count=len(differences))
    outcome.mismatches = [
        Mismatch(key, difference, f"against {step.table.label}")
        for key, difference in differences[:LISTED]
    ]
    outcome.checks.append(Check("rows that differ", 0, len(differences)))
    outcome.fingerprint = str(StoreRows(conn, store, step.run_id).fingerprint())
    return outcome
