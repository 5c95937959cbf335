"""One old table on its way into ``vector_embeddings``, and back: what each step needs to know.

The old table goes on living behind a view: defaults, constraints, triggers, RETURNING and
the exact jsonb are its own, and a downgrade only has to move it back. Triggers keep it and
``vector_embeddings`` in step, in the transaction that writes.

`legacy_mirror` keeps both in step, `legacy_rows` brings over what was there before, and
`legacy_swap` puts the view in the table's place, and the table back.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from harca.postgres.legacy import LegacyTable


@dataclass(slots=True)
class Consolidation:
    """One old table on its way; the connection is in autocommit mode.

    Attributes:
        schema: Where the table was found, and where its view is.
        kept: Schema that it is kept in; None before the swap.
        locked_s: How long the swap kept everybody else from the table, in seconds.
    """

    conn: psycopg.Connection[Any]
    table: LegacyTable
    schema: str
    run_id: int
    attempt: int
    model_id: str
    kept: str | None = None
    locked_s: float = 0.0
    home: str = field(init=False)
    vectors: str = field(init=False)

    def __post_init__(self) -> None:
        row = self.conn.execute(
            "SELECT (SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE c.oid = 'vector_embeddings'::regclass), (SELECT nspname FROM pg_extension "
            "JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'vector')"
        ).fetchone()
        assert row is not None
        self.home, self.vectors = row

    @property
    def store(self) -> str:
        """What the table is called as a store."""
        return f"{self.schema}.{self.table.name}"

    @property
    def view(self) -> sql.Identifier:
        """What the application calls it."""
        return sql.Identifier(self.schema, self.table.name)

    def function(self, what: str) -> sql.Identifier:
        """Return the name of a trigger function of the table's own."""
        return sql.Identifier(self.home, self.object_name(what))

    def object_name(self, what: str) -> str:
        """Return a name that no other table's step gives to an object of its."""
        hashed = hashlib.sha256(self.store.encode()).hexdigest()
        return f"harca_{what}_{self.table.name}_{hashed[:8]}"

    def note(self, **values: Any) -> None:
        """Note *values* beside what was noted before."""
        self.conn.execute(
            "UPDATE legacy_tables SET details = details || %s "
            "WHERE schema_name = %s AND table_name = %s",
            [Jsonb(values), self.schema, self.table.name],
        )

    def details(self) -> dict[str, Any]:
        """Return what was noted."""
        row = self.conn.execute(
            "SELECT details FROM legacy_tables WHERE schema_name = %s AND table_name = %s",
            [self.schema, self.table.name],
        ).fetchone()
        return dict(row[0]) if row else {}
