"""The tables that a migration can change: harca's own, and HARCA's two old ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from harca.fingerprint import Fingerprint
from harca.postgres import legacy
from harca.postgres.digest import query, summed
from harca.postgres.schema import metadata

# Which data revisions are applied. That of the schema is no row to be put back: it says how
# the tables are made.
DATA_VERSION = "alembic_version_data"
SCHEMA_VERSION = "alembic_version"

# What the text of a value depends on, and what could leave rows out or end a long statement.
_SETTINGS = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "row_security": "off",  # rather an error than rows that a policy hides
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
}


@dataclass(frozen=True, slots=True)
class OwnedTable:
    """One of them, as it is now.

    Attributes:
        origin: Schema in which the application knows an old table; None: harca's own.
        vectors: Columns with vectors.
        sequences: Name of the sequence by column.
        definition: Statements that make it; the first one makes the table.
    """

    schema: str
    name: str
    origin: str | None
    columns: tuple[str, ...]
    vectors: frozenset[str]
    sequences: dict[str, str]
    definition: tuple[str, ...]

    @property
    def identifier(self) -> sql.Identifier:
        """The table in a statement."""
        return sql.Identifier(self.schema, self.name)

    @property
    def label(self) -> str:
        """The table, for people."""
        return f"{self.schema}.{self.name}"

    def digest(self, columns: list[str] | None = None) -> sql.Composed:
        """Return the expression for the digest of a row of ``t``; all columns by default."""
        # A vector's text would take ten times as long.
        values = [
            sql.SQL("vector_send(t.{})" if column in self.vectors else "t.{}").format(
                sql.Identifier(column)
            )
            for column in columns or self.columns
        ]
        return sql.SQL("sha256(convert_to(ROW({})::text, 'UTF8'))").format(
            sql.SQL(", ").join(values)
        )


def settle(conn: psycopg.Connection[Any]) -> None:
    """Have this transaction see all rows, in one form whatever the server's settings are."""
    conn.execute(
        "SELECT set_config(name, wanted.value, true) FROM pg_settings JOIN "
        "unnest(%s::text[], %s::text[]) AS wanted (name, value) USING (name)",
        [list(_SETTINGS), list(_SETTINGS.values())],
    )


def is_there(conn: psycopg.Connection[Any], table: str) -> bool:
    """Say whether there is a *table* of harca's own: not before the schema has come to it."""
    return conn.execute("SELECT to_regclass(%s)", [table]).fetchone() != (None,)


def stores(conn: psycopg.Connection[Any]) -> list[str]:
    """Return all stores that the ledger knows, in order."""
    if not is_there(conn, "load_runs"):
        return []
    return [store for (store,) in conn.execute("SELECT DISTINCT store FROM load_runs ORDER BY 1")]


def find_own(conn: psycopg.Connection[Any]) -> list[OwnedTable]:
    """Return harca's tables that are there; one that references another comes after it."""
    names = [*(table.name for table in metadata.sorted_tables), DATA_VERSION]
    return _described(conn, dict.fromkeys(names))


def find_old(conn: psycopg.Connection[Any]) -> list[OwnedTable]:
    """Return HARCA's old tables, in their place or where they are kept."""
    origins: dict[str, str | None] = {
        table.identifier.as_string(conn): table.schema
        for table in legacy.find(conn)
        if table.is_ours and table.kind == "r"
    }
    if is_there(conn, "legacy_tables"):
        found = conn.execute(
            "SELECT schema_name, table_name, kept_in FROM legacy_tables WHERE kept_in IS NOT NULL"
        )
        for schema, name, kept in found:
            origins[sql.Identifier(kept, name).as_string(conn)] = schema
    return _described(conn, origins)


def find(conn: psycopg.Connection[Any], schema: str, name: str, origin: str) -> OwnedTable | None:
    """Return the table *name* in *schema*, if there is one."""
    found = _described(conn, {sql.Identifier(schema, name).as_string(conn): origin})
    return found[0] if found else None


def _described(
    conn: psycopg.Connection[Any], origins: Mapping[str, str | None]
) -> list[OwnedTable]:
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            query("owned_tables"), {"tables": list(origins), "origins": list(origins.values())}
        )
        return [
            OwnedTable(
                row["schema"],
                row["name"],
                row["origin"],
                tuple(row["columns"]),
                frozenset(row["vectors"]),
                row["sequences"],
                (row["creating"], *row["constraints"], *row["indexes"]),
            )
            for row in cursor
        ]


def fingerprint(
    conn: psycopg.Connection[Any], table: OwnedTable, columns: list[str] | None = None
) -> Fingerprint:
    """Return the fingerprint of all rows; needs `settle`. The server reads them."""
    digests = sql.SQL("SELECT {} AS digest FROM {} t").format(
        table.digest(columns), table.identifier
    )
    return summed(conn, digests)


def has_rows(conn: psycopg.Connection[Any], tables: list[OwnedTable]) -> bool:
    """Say whether any of *tables* has a row; a stamp of a data revision alone is none."""
    return any(
        conn.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(table.identifier)).rowcount
        for table in tables
        if table.name != DATA_VERSION
    )


def count(conn: psycopg.Connection[Any], table: OwnedTable) -> int:
    """Return the number of rows of *table*."""
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(table.identifier)).fetchone()
    assert row is not None
    number: int = row[0]
    return number


def size(conn: psycopg.Connection[Any], tables: list[OwnedTable]) -> int:
    """Return how many bytes *tables* take, indexes included."""
    row = conn.execute(
        "SELECT coalesce(sum(pg_total_relation_size(name::regclass)), 0)::bigint "
        "FROM unnest(%s::text[]) AS name",
        [[table.identifier.as_string(conn) for table in tables]],
    ).fetchone()
    assert row is not None
    total: int = row[0]
    return total
