"""What revisions call. The signatures are frozen: a landed revision is never edited.

A downgrade must not lose rows. What the older schema cannot hold is kept in the schema
`ASIDE`, and the next upgrade brings it back; the schema is dropped when it is empty.
"""

import os
from collections.abc import Sequence
from typing import Any

from alembic import context
from sqlalchemy import text

from harca.errors import HarcaError, UsageError

ASIDE = "harca_aside"

# An ivfflat build samples 50 vectors a list, 10,000 at least: 62 MB at 1536 dimensions,
# 80 MB at 2,000. Over its memory it fails, and the server's default is 64 MB.
_INDEX_MEMORY = "128MB"


def allow_index_memory(op: Any) -> None:
    """Give this transaction the memory that an ivfflat build with 100 lists needs."""
    op.execute(f"SET LOCAL maintenance_work_mem = '{_INDEX_MEMORY}'")


def is_aside(op: Any, table: str) -> bool:
    """Say whether a downgrade kept *table* aside."""
    found = op.get_bind().scalar(text("SELECT to_regclass(:name)"), {"name": f"{ASIDE}.{table}"})
    return found is not None


def put_table_aside(op: Any, table: str) -> None:
    """Drop *table* if it is empty, else move it aside with its indexes and sequences."""
    put_tables_aside(op, (table,), unless_empty=table)


def put_tables_aside(op: Any, tables: Sequence[str], *, unless_empty: str) -> None:
    """Drop *tables* if the one named *unless_empty* has no rows, else move all aside.

    While anything else is aside, empty tables are kept too: the sequence must go on where
    it was when rows come back with their ids.
    """
    moves = "\n".join(f"ALTER TABLE {table} SET SCHEMA {ASIDE};" for table in tables)
    drops = "\n".join(f"DROP TABLE {table};" for table in reversed(tables))
    _block(
        op,
        f"""
        IF EXISTS (SELECT FROM {unless_empty}) OR to_regnamespace('{ASIDE}') IS NOT NULL THEN
            CREATE SCHEMA IF NOT EXISTS {ASIDE};
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
        f"EXECUTE format('ALTER TABLE {ASIDE}.{table} SET SCHEMA %I', current_schema());",
    )
    _drop_if_empty(op)


def put_rows_aside(op: Any, table: str, *, aside: str, columns: str, where: str) -> None:
    """Move the rows of *table* that match *where* aside, under the name *aside*."""
    _block(
        op,
        f"""
        IF EXISTS (SELECT FROM {table} WHERE {where}) THEN
            CREATE SCHEMA IF NOT EXISTS {ASIDE};
            CREATE TABLE {ASIDE}.{aside} AS SELECT {columns} FROM {table} WHERE {where};
            DELETE FROM {table} WHERE {where};
        END IF;
        """,
    )


def bring_back_rows(op: Any, table: str, *, aside: str, columns: str) -> None:
    """Insert the rows kept aside as *aside* into *table* again, ids included."""
    _block(
        op,
        f"""
        IF to_regclass('{ASIDE}.{aside}') IS NOT NULL THEN
            INSERT INTO {table} ({columns}) SELECT {columns} FROM {ASIDE}.{aside};
            DROP TABLE {ASIDE}.{aside};
        END IF;
        """,
    )
    _drop_if_empty(op)


def put_columns_aside(op: Any, table: str, columns: Sequence[str], *, aside: str) -> None:
    """Keep the values of *columns* aside, by the row's id."""
    listed = ", ".join(columns)
    given = " OR ".join(f"{column} IS NOT NULL" for column in columns)
    _block(
        op,
        f"""
        IF EXISTS (SELECT FROM {table} WHERE {given}) THEN
            CREATE SCHEMA IF NOT EXISTS {ASIDE};
            CREATE TABLE {ASIDE}.{aside} AS SELECT id, {listed} FROM {table} WHERE {given};
        END IF;
        """,
    )


def bring_back_columns(op: Any, table: str, columns: Sequence[str], *, aside: str) -> None:
    """Give the rows that are still there the values kept aside as *aside*."""
    given = ", ".join(f"{column} = kept.{column}" for column in columns)
    _block(
        op,
        f"""
        IF to_regclass('{ASIDE}.{aside}') IS NOT NULL THEN
            UPDATE {table} SET {given} FROM {ASIDE}.{aside} kept WHERE kept.id = {table}.id;
            DROP TABLE {ASIDE}.{aside};
        END IF;
        """,
    )
    _drop_if_empty(op)


def load_store(op: Any, *, revision: str, requires_schema: str, store: str | None = None) -> None:
    """Load a store and prove it; the body of a data revision's ``upgrade``.

    The store is named by ``-x store=PATH``, *store*, ``HARCA_FILE_STORE`` or
    ``file_store`` in ``alembic.ini``. Other ``-x`` options: ``name``, ``on_conflict``,
    ``expired``, ``source``, ``model``, ``batch_rows``, ``max_rejects``. Rows are committed
    batch by batch on a connection of their own; the revision is stamped only if this
    returns, which it does when every record is in and compared. Run again after a
    failure, it goes on.

    Raises:
        UsageError: No store is named, or an option is unknown.
        SchemaNotReady: The schema is older than *requires_schema*.
        NotVerified: Store and rows differ, or records were rejected.
    """
    from harca import migrate, migrations
    from harca.options import LoadOptions

    given = dict(context.get_x_argument(as_dictionary=True))
    given.pop("database", None)
    path = (
        given.pop("store", None)
        or store
        or os.environ.get("HARCA_FILE_STORE")
        or context.config.get_section_option(context.config.config_ini_section, "file_store")
    )
    if not path:
        raise UsageError(
            "no store is named: nothing was loaded, nothing is stamped",
            hint="Name it with `alembic -n data -x store=PATH upgrade head`, with "
            "HARCA_FILE_STORE, or with file_store in alembic.ini.",
        )
    options = LoadOptions.from_text(given)
    target = context.config.attributes["database"]
    migrations.require_schema(target, requires_schema)
    with op.get_context().autocommit_block():  # not idle in a transaction for hours
        migrate.load_and_prove(str(path), target, options, revision=revision)


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


def _block(op: Any, body: str) -> None:
    op.execute(f"DO $$ BEGIN {body} END $$")


def _drop_if_empty(op: Any) -> None:
    _block(
        op,
        f"""
        IF NOT EXISTS (
            SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
            WHERE n.nspname = '{ASIDE}'
        ) THEN
            DROP SCHEMA IF EXISTS {ASIDE};
        END IF;
        """,
    )
