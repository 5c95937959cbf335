"""What brings one old table over, keeps it in step, and puts a view in its place.

The old table goes on living behind the view: defaults, constraints, triggers, RETURNING and
the exact jsonb are its own, and a downgrade only has to move it back. Triggers keep it and
``vector_embeddings`` in step, in the transaction that writes.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from harca.errors import Refused
from harca.postgres import grants, legacy_search
from harca.postgres.digest import composed
from harca.postgres.legacy import KEPT, LegacyTable, find, kept_in
from harca.postgres.legacy_search import SearchFunction
from harca.postgres.retry import give_way_early, retried

BATCH_ROWS = 500

_FIRST_BLOCKS = 8
_MOST_BLOCKS = 64  # 4,000 rows at the very most, where all before were deleted
_DELETED_AT_ONCE = 2_000
# Triggers fire in the order of their names: one of the application's that changes the row
# again must come later, or its change would be overwritten by what was before it.
_MIRROR = sql.Identifier("!harca_mirror")
_MIRROR_TRUNCATE = sql.Identifier("!harca_mirror_truncate")

Progress = Callable[[int], None]


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

    # -- in step -----------------------------------------------------------------------

    def mirror(self) -> None:
        """Have what is written to the table from now on brought over with it.

        Creating the triggers waits for the writers of before: when this returns, whatever
        the triggers did not see is there for a copy to read.
        """
        if not self.table.has_key:
            self._index_ids()

        def attempt() -> None:
            with self.conn.transaction():
                give_way_early(self.conn)
                self._replace_mirror()
                for name, events, each in (
                    (_MIRROR, "INSERT OR UPDATE OR DELETE", "ROW"),
                    (_MIRROR_TRUNCATE, "TRUNCATE", "STATEMENT"),
                ):
                    self.conn.execute(
                        sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
                            name, self.table.identifier
                        )
                    )
                    self.conn.execute(
                        sql.SQL(
                            "CREATE TRIGGER {} AFTER "
                            + events
                            + " ON {} FOR EACH "
                            + each
                            + " EXECUTE FUNCTION {}()"
                        ).format(name, self.table.identifier, self._function("mirror"))
                    )
                    # Writes that arrive by replication are writes too.
                    self.conn.execute(
                        sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(
                            self.table.identifier, name
                        )
                    )

        retried(attempt)

    def _replace_mirror(self) -> None:
        function = self._function("mirror")
        another: sql.Composable = sql.SQL("")
        one_at_a_time: sql.Composable = sql.SQL("")
        if not self.table.has_key:
            one_at_a_time = composed("legacy_one_at_a_time", store=sql.Literal(self.store))
            another = composed(
                "legacy_another", table=self.table.identifier, upsert=self._upsert("other")
            )
        self.conn.execute(
            composed(
                "legacy_mirror",
                function=function,
                home=sql.Identifier(self.home),
                vectors=sql.Identifier(self.vectors),
                store=sql.Literal(self.store),
                another=another,
                one_at_a_time=one_at_a_time,
                upsert=self._upsert("NEW"),
            )
        )
        # Triggers fire without this right; nobody can make one of their own with it.
        self.conn.execute(sql.SQL("REVOKE ALL ON FUNCTION {}() FROM PUBLIC").format(function))

    def _upsert(self, row: str) -> sql.Composed:
        parts = self.table.reading(row)
        has_date = "updated_at" in self.table.types
        touched = "excluded.updated_at" if has_date else "now()"
        return composed(
            "legacy_upsert",
            row=sql.SQL(row),
            model_id=sql.Literal(self.model_id),
            run_id=sql.Literal(self.run_id),
            store=sql.Literal(self.store),
            touched=sql.SQL(touched),
            old_updated_at=sql.SQL("v.updated_at" if has_date else "NULL"),
            new_updated_at=sql.SQL("excluded.updated_at" if has_date else "NULL"),
            **{name: part for name, part in parts.items() if name != "differs"},
        )

    def _function(self, what: str) -> sql.Identifier:
        return sql.Identifier(self.home, self._name(what))

    def _name(self, what: str) -> str:
        hashed = hashlib.sha256(self.store.encode()).hexdigest()
        return f"harca_{what}_{self.table.name}_{hashed[:8]}"

    def _index_ids(self) -> None:
        """Index the ids of a table without a key: the triggers look rows up by them."""
        name = self._name("ids")
        found = self.conn.execute(
            "SELECT indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid "
            "JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s",
            [self.table.schema, name],
        ).fetchone()
        if found == (True,):
            return
        if found is not None:  # as an interrupted build leaves it
            self.conn.execute(
                sql.SQL("DROP INDEX CONCURRENTLY {}").format(
                    sql.Identifier(self.table.schema, name)
                )
            )
        self.conn.execute(
            sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} (id)").format(
                sql.Identifier(name), self.table.identifier
            )
        )

    def _note(self, **values: Any) -> None:
        self.conn.execute(
            "UPDATE legacy_tables SET details = details || %s "
            "WHERE schema_name = %s AND table_name = %s",
            [Jsonb(values), self.schema, self.table.name],
        )

    # -- rows --------------------------------------------------------------------------

    def copy(self, progress: Progress) -> None:
        """Bring the rows over that were there before `mirror`, a batch per transaction.

        Goes by the table's pages, so that it can go on after an interruption; a batch that
        meets a lock gives way at once and is tried again.
        """
        place = self.conn.execute(
            "SELECT (pg_relation_size(%(table)s::regclass) "
            "/ current_setting('block_size')::int)::int, "
            "pg_relation_filenode(%(table)s::regclass)::bigint",
            {"table": self.table.identifier.as_string(self.conn)},
        ).fetchone()
        assert place is not None
        last, filenode = place
        noted = self._details()
        # A table that was rewritten meanwhile has its rows on other pages.
        first = noted.get("next_block", 0) if noted.get("filenode") == filenode else 0
        if not first:
            self._forget_batches()
        blocks, done = _FIRST_BLOCKS, 0
        while first < last:
            end = min(first + blocks, last)
            read = retried(partial(self._batch, first, end, filenode))
            done += read
            progress(done)
            fitting = blocks * BATCH_ROWS // max(read, 1)
            blocks = max(1, min(fitting, 2 * blocks, _MOST_BLOCKS))
            first = end

    def _batch(self, first: int, end: int, filenode: int) -> int:
        which = sql.SQL("t.ctid >= {}::tid AND t.ctid < {}::tid").format(
            sql.Literal(f"({first},0)"), sql.Literal(f"({end},0)")
        )
        with self.conn.transaction():
            give_way_early(self.conn)
            counts = self._bring(which)
            self._note(next_block=end, filenode=filenode)
            if counts["read"]:
                self.conn.execute(
                    "INSERT INTO load_batches (run_id, attempt, number, read, loaded, "
                    "unchanged, superseded, rejected, first_origin, last_origin) VALUES "
                    "(%(run_id)s, %(attempt)s, %(number)s, %(read)s, %(loaded)s, "
                    "%(unchanged)s, 0, %(rejected)s, %(first)s, %(last)s)",
                    {
                        **counts,
                        "unchanged": counts["read"] - counts["loaded"] - counts["rejected"],
                        "run_id": self.run_id,
                        "attempt": self.attempt,
                        "number": first,
                        "first": f"{self.store}, page {first}",
                        "last": f"{self.store}, page {end - 1}",
                    },
                )
        read: int = counts["read"]
        return read

    def _bring(self, which: sql.Composable) -> dict[str, Any]:
        repeated: sql.Composable = sql.SQL("NULL")
        if not self.table.has_key:
            repeated = sql.SQL(
                "CASE WHEN EXISTS (SELECT FROM {} o WHERE o.id = t.id AND o.ctid > t.ctid) "
                "THEN 'duplicate-key' END"
            ).format(self.table.identifier)
        parts = self.table.reading("t")
        statement = composed(
            "legacy_copy",
            table=self.table.identifier,
            which=which,
            repeated=repeated,
            run_id=sql.Literal(self.run_id),
            attempt=sql.Literal(self.attempt),
            store=sql.Literal(self.store),
            model_id=sql.Literal(self.model_id),
            **parts,
        )
        with self.conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute(statement)
            row = cursor.fetchone()
        assert row is not None
        return row

    def _forget_batches(self) -> None:
        with self.conn.transaction():
            for table in ("load_batches", "rejections"):
                self.conn.execute(f"DELETE FROM {table} WHERE run_id = %s", [self.run_id])

    def _details(self) -> dict[str, Any]:
        row = self.conn.execute(
            "SELECT details FROM legacy_tables WHERE schema_name = %s AND table_name = %s",
            [self.schema, self.table.name],
        ).fetchone()
        return dict(row[0]) if row else {}

    def differences(self) -> list[tuple[str, str]]:
        """Return key and difference of each row that is not the same on both sides."""
        parts = self.table.reading("t")
        statement = composed(
            "legacy_differences",
            table=self.table.identifier,
            store=sql.Literal(self.store),
            **{name: part for name, part in parts.items() if name not in ("differs", "updated_at")},
        )
        return self.conn.execute(statement).fetchall()

    def repair(self) -> list[tuple[str, str]]:
        """Mend what differs, from the old table; return what differs still.

        A transaction with an old snapshot can delete a row whose copy it does not see.
        """
        found = self.differences()
        for start in range(0, len(found), BATCH_ROWS):
            keys = [key for key, _ in found[start : start + BATCH_ROWS]]
            retried(partial(self._mend, keys))
        return self.differences() if found else found

    def _mend(self, keys: list[str]) -> None:
        with self.conn.transaction():
            give_way_early(self.conn)
            # Not seen by the trigger that brings changes back: it would delete the old row.
            self.conn.execute("SELECT set_config('harca.consolidating', 'on', true)")
            self.conn.execute(
                "DELETE FROM vector_embeddings WHERE store = %s AND store_key = ANY (%s)",
                [self.store, keys],
            )
            self._bring(sql.SQL("t.id = ANY ({}::uuid[])").format(sql.Literal(keys)))

    def counts(self) -> dict[str, int]:
        """Return the number of rows of the old table, and of the new one's for it."""
        row = self.conn.execute(
            sql.SQL(
                "SELECT (SELECT count(*) FROM {}), "
                "(SELECT count(*) FROM vector_embeddings WHERE store = {})"
            ).format(self.table.identifier, sql.Literal(self.store))
        ).fetchone()
        assert row is not None
        return {"old": row[0], "new": row[1]}

    # -- the swap ----------------------------------------------------------------------

    def swap(self) -> None:
        """Keep the table aside and put its view in its place, in one short transaction."""
        retried(self._swap)

    def _swap(self) -> None:
        kept = self._free_schema()
        with self.conn.transaction():
            give_way_early(self.conn)
            functions = legacy_search.find(self.conn, self.table, self.schema)
            self.conn.execute(
                sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(self.table.identifier)
            )
            began = monotonic()
            exists = self.conn.execute("SELECT to_regnamespace(quote_ident(%s))", [kept])
            made_schema = exists.fetchone() == (None,)
            if made_schema:
                self.conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(kept)))
            self.conn.execute(
                sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(
                    self.table.identifier, sql.Identifier(kept)
                )
            )
            moved = next(one for one in kept_in(self.conn, kept) if one.name == self.table.name)
            before, self.table = self.table, moved
            try:
                self._create_view()
                self._replace_mirror()
                self._create_back()
                self._replace_functions(functions)
                self._grant_usage(kept)
                self.conn.execute(
                    "UPDATE legacy_tables SET kept_in = %s, details = details || %s "
                    "WHERE schema_name = %s AND table_name = %s",
                    [
                        kept,
                        Jsonb(
                            {
                                "made_schema": made_schema,
                                "functions": {one.name: one.definition for one in functions},
                            }
                        ),
                        self.schema,
                        self.table.name,
                    ],
                )
            except BaseException:
                self.table = before
                raise
        self.kept, self.locked_s = kept, monotonic() - began

    def _free_schema(self) -> str:
        for name in (KEPT, f"{KEPT}_{self.schema}"):
            taken = self.conn.execute(
                "SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
                "WHERE nspname = %s AND relname = %s",
                [name, self.table.name],
            )
            if not taken.rowcount:
                return name
        raise Refused(
            f"{self.store} cannot be kept aside: schemas {KEPT} and {KEPT}_{self.schema} have "
            f"a {self.table.name} already",
            hint="Rename what is there, then run the same command again.",
        )

    def _create_view(self) -> None:
        columns = sql.SQL(", ").join(map(sql.Identifier, self.table.columns))
        # Policies go by who asks; everything else by the view's owner, who owns the table.
        invoker = "WITH (security_invoker = true) " if self.table.row_security else ""
        self.conn.execute(
            sql.SQL("CREATE VIEW {} " + invoker + "AS SELECT {} FROM {}").format(
                self.view, columns, self.table.identifier
            )
        )
        self.conn.execute(
            sql.SQL("COMMENT ON VIEW {} IS {}").format(
                self.view,
                sql.Literal(
                    f"stands for {self.table.schema}.{self.table.name}; alembic downgrade puts "
                    "the table back"
                ),
            )
        )
        self.conn.execute(
            sql.SQL("ALTER VIEW {} OWNER TO {}").format(self.view, sql.Identifier(self.table.owner))
        )
        grants.copy(self.conn, self.table.identifier, self.view)

    def _grant_usage(self, kept: str) -> None:
        """Let foreign keys be checked: that is done by name, as the tables' owners."""
        owners = self.conn.execute(
            "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = %(table)s::regclass "
            "UNION SELECT pg_get_userbyid(c.relowner) FROM pg_constraint k "
            "JOIN pg_class c ON c.oid = k.conrelid WHERE confrelid = %(table)s::regclass",
            {"table": self.table.identifier.as_string(self.conn)},
        )
        for (owner,) in owners.fetchall():
            self.conn.execute(
                sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(
                    sql.Identifier(kept), sql.Identifier(owner)
                )
            )

    def _create_back(self) -> None:
        """Have changes made in ``vector_embeddings`` brought back into the old table."""
        parts = self.table.reading("t")
        same_vector = sql.SQL("vector_send({}) IS NOT DISTINCT FROM vector_send(NEW.embedding)")
        same_metadata = sql.SQL("({})::text = NEW.metadata::text")
        assignments: list[sql.Composable] = [sql.SQL("content = NEW.content")]
        for name, kind in self.table.types.items():
            if name in ("embedding", "embedding_vector") and kind in ("vector", "json", "jsonb"):
                same, new = same_vector.format(parts["embedding"]), "NEW.embedding"
                new = new if kind == "vector" else f"NEW.embedding::text::{kind}"
            elif name == "metadata":
                same, new = same_metadata.format(parts["metadata"]), f"NEW.metadata::{kind}"
            else:
                continue
            assignments.append(
                sql.SQL("{column} = CASE WHEN {same} THEN t.{column} ELSE " + new + " END").format(
                    column=sql.Identifier(name), same=same
                )
            )
        one_of_them: sql.Composable = sql.SQL("")
        if not self.table.has_key:
            one_of_them = sql.SQL(
                " AND t.ctid = (SELECT max(o.ctid) FROM {} o WHERE o.id = OLD.store_key::uuid)"
            ).format(self.table.identifier)
        function = self._function("back")
        self.conn.execute(
            composed(
                "legacy_back",
                function=function,
                home=sql.Identifier(self.home),
                vectors=sql.Identifier(self.vectors),
                table=self.table.identifier,
                assignments=sql.SQL(", ").join(assignments),
                content=parts["content"],
                embedding=parts["embedding"],
                metadata=parts["metadata"],
                one_of_them=one_of_them,
            )
        )
        self.conn.execute(sql.SQL("REVOKE ALL ON FUNCTION {}() FROM PUBLIC").format(function))
        # What a trigger does to a row is on its way from the old table.
        self.conn.execute(
            sql.SQL(
                "CREATE TRIGGER {name} AFTER UPDATE OR DELETE ON vector_embeddings "
                "FOR EACH ROW WHEN (OLD.store = {store} AND pg_trigger_depth() = 0 AND "
                "current_setting('harca.consolidating', true) IS DISTINCT FROM 'on') "
                "EXECUTE FUNCTION {function}()"
            ).format(
                name=sql.Identifier(self._name("back")),
                store=sql.Literal(self.store),
                function=function,
            )
        )

    def _replace_functions(self, functions: list[SearchFunction]) -> None:
        """Have the search functions answer from the rows that came over."""
        if not functions:
            return
        rows = sql.Identifier(self.table.schema, f"{self.table.name}_search")
        self.conn.execute(
            sql.SQL(
                "CREATE VIEW {} AS SELECT v.id AS row_id, v.store_key::uuid AS id, v.content, "
                "v.embedding, v.metadata, v.model_id, v.dims FROM {} v WHERE v.store = {}"
            ).format(rows, sql.Identifier(self.home, "vector_embeddings"), sql.Literal(self.store))
        )
        # Who may read the table may search it; nobody else.
        grants.revoke_all(self.conn, rows)
        searched = [
            name
            for name in ("id", "content", "metadata", "embedding_vector", "embedding")
            if self.table.types.get(name, "jsonb") != "jsonb" or name == "metadata"
        ]
        readers = grants.readers(self.conn, self.table.identifier, searched)
        for reader in (self.table.owner, *readers):
            for right, what in (
                ("SELECT ON", rows),
                ("USAGE ON SCHEMA", sql.Identifier(self.table.schema)),
            ):
                self.conn.execute(
                    sql.SQL("GRANT " + right + " {} TO {}").format(what, grants.role(reader))
                )
        for function in functions:
            self.conn.execute(
                function.replacement(self.conn, rows, vectors=self.vectors, model_id=self.model_id)
            )

    # -- the way back ------------------------------------------------------------------

    def restore(self) -> None:
        """Put the table back as it was, with all that was written meanwhile."""
        retried(self._restore)
        self._delete_rows()

    def _restore(self) -> None:
        details = self._details()
        with self.conn.transaction():
            give_way_early(self.conn)
            # The view before its table, as whoever writes through it takes them.
            outer = self.table.identifier if self.kept is None else self.view
            self.conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(outer))
            for name in (_MIRROR, _MIRROR_TRUNCATE):
                self.conn.execute(
                    sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(name, self.table.identifier)
                )
            self.conn.execute(
                sql.SQL("DROP TRIGGER IF EXISTS {} ON vector_embeddings").format(
                    sql.Identifier(self._name("back"))
                )
            )
            for what in ("mirror", "back"):
                self.conn.execute(
                    sql.SQL("DROP FUNCTION IF EXISTS {}()").format(self._function(what))
                )
            self.conn.execute(
                sql.SQL("DROP INDEX IF EXISTS {}").format(
                    sql.Identifier(self.table.schema, self._name("ids"))
                )
            )
            if self.kept is not None:
                self.conn.execute(
                    sql.SQL("DROP VIEW IF EXISTS {}").format(
                        sql.Identifier(self.kept, f"{self.table.name}_search")
                    )
                )
                self.conn.execute(sql.SQL("DROP VIEW {}").format(self.view))
                self.conn.execute(
                    sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(
                        self.table.identifier, sql.Identifier(self.schema)
                    )
                )
                # Not before: with the view in place, a body in SQL would depend on it.
                for definition in details.get("functions", {}).values():
                    self.conn.execute(definition)
                if details.get("made_schema"):
                    self._leave_schema(self.kept)
            self.conn.execute(
                "UPDATE legacy_tables SET kept_in = NULL, details = details - 'functions' "
                "- 'next_block' WHERE schema_name = %s AND table_name = %s",
                [self.schema, self.table.name],
            )
        self.table = next(
            one
            for one in find(self.conn)
            if (one.schema, one.name) == (self.schema, self.table.name)
        )
        self.kept = None

    def _leave_schema(self, schema: str) -> None:
        """Drop a schema that was made for this; the last table to leave it does."""
        if self._is_empty(schema):
            self.conn.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(schema)))
        else:
            self.conn.execute(
                "UPDATE legacy_tables SET details = details || %s WHERE kept_in = %s",
                [Jsonb({"made_schema": True}), schema],
            )

    def _is_empty(self, schema: str) -> bool:
        found = self.conn.execute(
            "SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass "
            "AND refobjid = to_regnamespace(quote_ident(%s)) LIMIT 1",
            [schema],
        )
        return not found.rowcount

    def _delete_rows(self) -> None:
        """Take the rows out of the new table; the old one has them all."""
        while self.conn.execute(
            "DELETE FROM vector_embeddings WHERE id = ANY (ARRAY("
            "SELECT id FROM vector_embeddings WHERE store = %s LIMIT %s))",
            [self.store, _DELETED_AT_ONCE],
        ).rowcount:
            pass
        with self.conn.transaction():
            self.conn.execute(
                "UPDATE load_runs SET status = 'rolled back', rolled_back_at = clock_timestamp() "
                "WHERE run_id = %s",
                [self.run_id],
            )
            self.conn.execute(
                "DELETE FROM legacy_tables WHERE schema_name = %s AND table_name = %s",
                [self.schema, self.table.name],
            )
