"""What revisions call. The signatures are frozen: a landed revision is never edited.

A downgrade must not lose rows. What the older schema cannot hold is kept in the schema
`ASIDE`, and the next upgrade brings it back; the schema is dropped when it is empty.
"""

import hashlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alembic import context
from sqlalchemy import text

from harca.errors import HarcaError, Refused, UsageError

if TYPE_CHECKING:
    from harca.migrate import Migration

ASIDE = "harca_aside"
NO_STORE = "none"  # what -x store= says so that the first data revision is passed over
_MOVED = "store."  # before a revision, in -x: where its store is now

_log = logging.getLogger("harca.revisions")

# An ivfflat build samples 50 vectors a list, 10,000 at least: 62 MB at 1536 dimensions,
# 80 MB at 2,000. Over its memory it fails, and the server's default is 64 MB.
_INDEX_MEMORY = "128MB"
_LONGEST_NAME = 63


def allow_index_memory(op: Any) -> None:
    """Give this transaction the memory that an ivfflat build with 100 lists needs."""
    op.execute(f"SET LOCAL maintenance_work_mem = '{_INDEX_MEMORY}'")


def is_aside(op: Any, table: str) -> bool:
    """Say whether a downgrade kept *table* aside."""
    found = op.get_bind().scalar(
        text("SELECT to_regclass(:name)"), {"name": f"{_aside(op)}.{table}"}
    )
    return found is not None


def put_table_aside(op: Any, table: str) -> None:
    """Drop *table* if it is empty, else move it aside with its indexes and sequences."""
    put_tables_aside(op, (table,), unless_empty=table)


def put_tables_aside(op: Any, tables: Sequence[str], *, unless_empty: str) -> None:
    """Drop *tables* if the one named *unless_empty* has no rows, else move all aside.

    While anything else is aside, empty tables are kept too: the sequence must go on where
    it was when rows come back with their ids.
    """
    aside = _aside(op)
    moves = "\n".join(f"ALTER TABLE {table} SET SCHEMA {aside};" for table in tables)
    drops = "\n".join(f"DROP TABLE {table};" for table in reversed(tables))
    _block(
        op,
        f"""
        IF EXISTS (SELECT FROM {unless_empty}) OR to_regnamespace('{aside}') IS NOT NULL THEN
            CREATE SCHEMA IF NOT EXISTS {aside};
            {moves}
        ELSE
            {drops}
        END IF;
        """,
    )


def bring_back_table(op: Any, table: str) -> None:
    """Move *table* back to where new tables are created."""
    _block(
        op,
        f"EXECUTE format('ALTER TABLE {_aside(op)}.{table} SET SCHEMA %I', current_schema());",
    )
    _drop_if_empty(op)


def put_rows_aside(op: Any, table: str, *, aside: str, columns: str, where: str) -> None:
    """Move the rows of *table* that match *where* aside, under the name *aside*.

    All their columns are kept, those that an application added to *columns* too. Refused
    where foreign keys would take other rows along.
    """
    schema = _aside(op)
    _block(
        op,
        f"""
        DECLARE kept text;
        BEGIN
        IF EXISTS (SELECT FROM {table} WHERE {where}) THEN
            IF EXISTS (
                SELECT FROM pg_constraint WHERE confrelid = '{table}'::regclass AND contype = 'f'
            ) THEN
                RAISE EXCEPTION 'foreign keys reference {table}, whose rows this downgrade '
                    'has to move aside: drop them first, and make them again after the upgrade';
            END IF;
            SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO kept
            FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0
                AND NOT attisdropped AND attgenerated = '';
            CREATE SCHEMA IF NOT EXISTS {schema};
            EXECUTE format('CREATE TABLE {schema}.{aside} AS SELECT %s FROM {table} WHERE %s',
                kept, {_literal(where)});
            DELETE FROM {table} WHERE {where};
        END IF;
        END;
        """,
    )


def bring_back_rows(op: Any, table: str, *, aside: str, columns: str) -> None:
    """Insert the rows kept aside as *aside* into *table* again, ids included.

    *columns* are those that they have at least.
    """
    schema = _aside(op)
    _block(
        op,
        f"""
        DECLARE kept text;
        BEGIN
        IF to_regclass('{schema}.{aside}') IS NOT NULL THEN
            SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO kept
            FROM pg_attribute WHERE attrelid = '{schema}.{aside}'::regclass AND attnum > 0
                AND NOT attisdropped;
            EXECUTE format('INSERT INTO {table} (%s) SELECT %s FROM {schema}.{aside}',
                kept, kept);
            DROP TABLE {schema}.{aside};
        END IF;
        END;
        """,
    )
    _drop_if_empty(op)


def put_columns_aside(op: Any, table: str, columns: Sequence[str], *, aside: str) -> None:
    """Keep the values of *columns* aside, by the row's id."""
    schema = _aside(op)
    listed = ", ".join(columns)
    given = " OR ".join(f"{column} IS NOT NULL" for column in columns)
    _block(
        op,
        f"""
        IF EXISTS (SELECT FROM {table} WHERE {given}) THEN
            CREATE SCHEMA IF NOT EXISTS {schema};
            CREATE TABLE {schema}.{aside} AS SELECT id, {listed} FROM {table} WHERE {given};
        END IF;
        """,
    )


def bring_back_columns(op: Any, table: str, columns: Sequence[str], *, aside: str) -> None:
    """Give the rows that are still there the values kept aside as *aside*."""
    schema = _aside(op)
    given = ", ".join(f"{column} = kept.{column}" for column in columns)
    _block(
        op,
        f"""
        IF to_regclass('{schema}.{aside}') IS NOT NULL THEN
            UPDATE {table} SET {given} FROM {schema}.{aside} kept WHERE kept.id = {table}.id;
            DROP TABLE {schema}.{aside};
        END IF;
        """,
    )
    _drop_if_empty(op)


def load_store(op: Any, *, revision: str, requires_schema: str, store: str | None = None) -> None:
    """Load a store and prove it; the body of the first data revision's ``upgrade``.

    The store is named by ``-x store=PATH``, *store*, ``HARCA_FILE_STORE`` or
    ``file_store`` in ``alembic.ini``; with ``-x store=none`` there is none, and the revision
    is passed over. Other ``-x`` options: ``name``, ``on_conflict``, ``expired``, ``source``,
    ``model``, ``batch_rows``, ``max_rejects``. Rows are committed batch by batch on a
    connection of their own; the revision is stamped only if this returns, which it does
    when every record is in and compared. Run again after a failure, it goes on.

    Raises:
        UsageError: No store is named, or an option is unknown.
        SchemaNotReady: The schema is older than *requires_schema*.
        NotVerified: Store and rows differ, or records were rejected.
        Refused: The revision is to be passed over, but has rows of an earlier attempt.
    """
    from harca import migrations
    from harca.options import LoadOptions

    given, moved = _given(revision)
    path = named_store(context.config, moved or given.pop("store", None) or store)
    given.pop("store", None)
    for name in ("database", "allow_drift"):
        given.pop(name, None)
    target = context.config.attributes["database"]
    if path == NO_STORE or (not path and context.config.attributes.get("pass_over") == revision):
        migrations.require_schema(target, requires_schema)
        _pass_over(target, revision)
        return
    if not path:
        raise UsageError(
            "no store is named: nothing was loaded, nothing is stamped",
            hint="Name it with `alembic -n data -x store=PATH upgrade head`, with "
            "HARCA_FILE_STORE, or with file_store in alembic.ini. To load planned stores only, "
            "pass this revision over: `alembic -n data -x store=none upgrade head`, or "
            "`harca load`.",
        )
    options = LoadOptions.from_text(given)
    migrations.require_schema(target, requires_schema)
    _load(op, path, options, revision)


def load_planned_store(
    op: Any,
    store: str,
    *,
    revision: str,
    requires_schema: str | None,
    pins: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> None:
    """Load a store as it was planned, and prove it; what ``op.load_store`` does.

    It lies at *store*, unless ``-x store.<revision>=PATH`` says that it has moved. Before
    anything is written, it is compared with *pins*, unless ``-x allow_drift=yes``.
    ``-x max_rejects=N`` takes the place of the planned number.

    Raises:
        StoreChanged: The store is not as it was planned.
        Refused: More records would be rejected than are allowed.
        SchemaNotReady, NotVerified: As for `load_store`.
    """
    from harca import migrations
    from harca.options import LoadOptions
    from harca.pins import Pins, require_as_planned

    given, moved = _given(revision)
    values = texts(options)
    if "max_rejects" in given:
        values["max_rejects"] = given["max_rejects"]
    loading = LoadOptions.from_text(values)
    migrations.require_schema(
        context.config.attributes["database"], requires_schema or migrations.LOADABLE
    )
    path = moved or store
    if pins is not None and not _allows_drift(given):
        watcher = context.config.attributes.get("watcher")
        if watcher:
            watcher.stage(f"compare the store of revision {revision} with the plan")
        require_as_planned(path, Pins.from_dict(pins), loading, revision=revision)
    _load(op, path, loading, revision)


def texts(options: Mapping[str, Any]) -> dict[str, str]:
    """Return a revision's options as `LoadOptions.from_text` takes them."""
    return {name: str(value) for name, value in options.items() if value is not None}


def place_of(revision: str) -> str:
    """Return the name of the ``-x`` argument that says where a revision's store is."""
    return f"{_MOVED}{revision}"


def named_store(settings: Any, given: str | None) -> str | None:
    """Return where the first data revision's store is, if anything names it."""
    named: str | None = (
        given
        or os.environ.get("HARCA_FILE_STORE")
        or settings.get_section_option(settings.config_ini_section, "file_store")
    )
    return named


def _given(revision: str) -> tuple[dict[str, str], str | None]:
    """Return what ``-x`` says but for places of stores, and where this revision's has moved."""
    from harca import migrations

    given, moved = migrations.arguments(context), None
    for name in [name for name in given if name.startswith(_MOVED)]:
        value = given.pop(name)
        # Raises for what is no revision: the wrong store would be read, and nobody told.
        named = context.script.get_revisions(name.removeprefix(_MOVED))
        if revision in {step.revision for step in named}:
            moved = value
    return given, moved


def _allows_drift(given: Mapping[str, str]) -> bool:
    value = given.get("allow_drift", "no")
    if value not in ("yes", "no"):
        raise UsageError(
            f'allow_drift is "{value}", expected yes or no', hint="Give -x allow_drift=yes."
        )
    return value == "yes"


def _pass_over(target: Any, revision: str) -> None:
    """Leave nothing of *revision* but its stamp."""
    from harca.postgres.connect import translated

    with translated(), target.connect() as conn:
        row = conn.execute(
            "SELECT max(run_id) FROM load_runs WHERE revision = %s AND status <> 'rolled back'",
            [revision],
        ).fetchone()
    if row and row[0] is not None:
        raise Refused(
            f"revision {revision} cannot be passed over: its run {row[0]} has rows in the table",
            hint="Name its store again, and the run goes on; or take it back first with "
            f"`harca rollback {row[0]}`.",
        )
    _report(revision, None)
    _log.warning("%s: passed over, no store is named for it; nothing was loaded", revision)


def _load(op: Any, path: str, options: Any, revision: str) -> None:
    from harca import migrate

    attributes = context.config.attributes
    with op.get_context().autocommit_block():  # not idle in a transaction for hours
        done = migrate.load_and_prove(
            path,
            attributes["database"],
            options,
            revision=revision,
            watcher=attributes.get("watcher"),
        )
    tally = done.result.tally
    _log.info(
        "%s: read %d, loaded %d, unchanged %d, superseded %d, rejected %d; verified",
        done.store,
        *tally.as_dict().values(),
    )
    _log.info("to take it back: alembic -n data downgrade -1")
    _report(revision, done)


def _report(revision: str, done: "Migration | None") -> None:
    report = context.config.attributes.get("report")
    if report:
        report(revision, done)


def unload(op: Any, *, revision: str) -> None:
    """Take back the runs of a data revision; the body of its ``downgrade``."""
    from harca import migrations, rollback

    target = context.config.attributes["database"]
    migrations.require_ledger(target)
    changed = context.get_x_argument(as_dictionary=True).get("changed", "refuse")
    if changed not in tuple(rollback.Changed):
        raise HarcaError(
            f'changed is "{changed}", expected one of {", ".join(rollback.Changed)}', hint=""
        )
    with op.get_context().autocommit_block():
        rollback.rollback_revision(target, revision, changed=rollback.Changed(changed))


def consolidate_tables(op: Any, *, revision: str) -> None:
    """Bring ``embeddings`` and ``code_vectors`` over, where they are; views stand for them.

    Rows are committed batch by batch on a connection of their own. Options: ``-x
    legacy_model=LABEL`` and ``-x legacy=ignore``; ``HARCA_LEGACY_MODEL``, ``HARCA_LEGACY``;
    ``legacy_model`` in ``alembic.ini``. Run again after a failure, it goes on.

    Raises:
        Refused: A table belongs to another role, or cannot be kept aside.
    """
    from harca import consolidate, migrations

    settings = context.config
    given = migrations.legacy_options(context)
    if given.ignore:
        return
    with op.get_context().autocommit_block():
        consolidate.consolidate(
            settings.attributes["database"],
            revision=revision,
            given=given,
            progress=settings.attributes.get("progress", lambda message: None),
        )


def restore_tables(op: Any) -> None:
    """Put the tables back in the place of their views."""
    from harca import consolidate

    with op.get_context().autocommit_block():
        consolidate.restore(context.config.attributes["database"])


def _aside(op: Any) -> str:
    """Return the schema for what is kept aside, each schema of tables its own, quoted."""
    here = "public"
    if not context.is_offline_mode():
        here = op.get_bind().scalar(text("SELECT current_schema()")) or here
    if here == "public":
        return ASIDE
    if not re.fullmatch("[a-z_][a-z0-9_]*", here):  # anything else would have to be quoted
        here = hashlib.sha256(here.encode()).hexdigest()[:16]
    return f"{ASIDE}_{here}"[:_LONGEST_NAME]


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _block(op: Any, body: str) -> None:
    op.execute(f"DO $$ BEGIN {body} END $$")


def _drop_if_empty(op: Any) -> None:
    schema = _aside(op)
    _block(
        op,
        f"""
        IF NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('{schema}')) THEN
            DROP SCHEMA IF EXISTS {schema};
        END IF;
        """,
    )
