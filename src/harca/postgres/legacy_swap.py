"""Put a view in an old table's place, in one short transaction; and the table back."""

from functools import partial
from time import monotonic

from psycopg import sql
from psycopg.types.json import Jsonb

from harca.errors import Refused
from harca.postgres import grants, legacy_mirror, legacy_search
from harca.postgres.consolidation import Consolidation
from harca.postgres.giving_way import give_way_early, until_free
from harca.postgres.legacy import KEPT, find, kept_in
from harca.postgres.legacy_search import SearchFunction

_DELETED_AT_ONCE = 2_000


def swap(step: Consolidation) -> None:
    """Keep the table aside and put its view in its place, in one short transaction."""
    until_free(partial(_swap, step))


def _swap(step: Consolidation) -> None:
    kept = _free_schema(step)
    with step.conn.transaction():
        give_way_early(step.conn)
        functions = legacy_search.find(step.conn, step.table, step.schema)
        step.conn.execute(
            sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(step.table.identifier)
        )
        began = monotonic()
        exists = step.conn.execute("SELECT to_regnamespace(quote_ident(%s))", [kept])
        made_schema = exists.fetchone() == (None,)
        if made_schema:
            step.conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(kept)))
        step.conn.execute(
            sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(
                step.table.identifier, sql.Identifier(kept)
            )
        )
        moved = next(one for one in kept_in(step.conn, kept) if one.name == step.table.name)
        before, step.table = step.table, moved
        try:
            _create_view(step)
            legacy_mirror.replace_mirror(step)
            legacy_mirror.create_back(step)
            _replace_functions(step, functions)
            _grant_usage(step, kept)
            step.conn.execute(
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
                    step.schema,
                    step.table.name,
                ],
            )
        except BaseException:
            step.table = before
            raise
    step.kept, step.locked_s = kept, monotonic() - began


def _free_schema(step: Consolidation) -> str:
    for name in (KEPT, f"{KEPT}_{step.schema}"):
        taken = step.conn.execute(
            "SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE nspname = %s AND relname = %s",
            [name, step.table.name],
        )
        if not taken.rowcount:
            return name
    raise Refused(
        f"{step.store} cannot be kept aside: schemas {KEPT} and {KEPT}_{step.schema} have "
        f"a {step.table.name} already",
        hint="Rename what is there, then run the same command again.",
    )


def _create_view(step: Consolidation) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, step.table.columns))
    # Policies go by who asks; everything else by the view's owner, who owns the table.
    invoker = "WITH (security_invoker = true) " if step.table.row_security else ""
    step.conn.execute(
        sql.SQL("CREATE VIEW {} " + invoker + "AS SELECT {} FROM {}").format(
            step.view, columns, step.table.identifier
        )
    )
    step.conn.execute(
        sql.SQL("COMMENT ON VIEW {} IS {}").format(
            step.view,
            sql.Literal(
                f"stands for {step.table.schema}.{step.table.name}; alembic downgrade puts "
                "the table back"
            ),
        )
    )
    step.conn.execute(
        sql.SQL("ALTER VIEW {} OWNER TO {}").format(step.view, sql.Identifier(step.table.owner))
    )
    grants.copy(step.conn, step.table.identifier, step.view)


def _grant_usage(step: Consolidation, kept: str) -> None:
    """Let foreign keys be checked: that is done by name, as the tables' owners."""
    owners = step.conn.execute(
        "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = %(table)s::regclass "
        "UNION SELECT pg_get_userbyid(c.relowner) FROM pg_constraint k "
        "JOIN pg_class c ON c.oid = k.conrelid WHERE confrelid = %(table)s::regclass",
        {"table": step.table.identifier.as_string(step.conn)},
    )
    for (owner,) in owners.fetchall():
        step.conn.execute(
            sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(
                sql.Identifier(kept), sql.Identifier(owner)
            )
        )


def _replace_functions(step: Consolidation, functions: list[SearchFunction]) -> None:
    """Have the search functions answer from the rows that came over."""
    if not functions:
        return
    rows = sql.Identifier(step.table.schema, f"{step.table.name}_search")
    step.conn.execute(
        sql.SQL(
            "CREATE VIEW {} AS SELECT v.id AS row_id, v.store_key::uuid AS id, v.content, "
            "v.embedding, v.metadata, v.model_id, v.dims FROM {} v WHERE v.store = {}"
        ).format(rows, sql.Identifier(step.home, "vector_embeddings"), sql.Literal(step.store))
    )
    # Who may read the table may search it; nobody else.
    grants.revoke_all(step.conn, rows)
    searched = [
        name
        for name in ("id", "content", "metadata", "embedding_vector", "embedding")
        if step.table.types.get(name, "jsonb") != "jsonb" or name == "metadata"
    ]
    readers = grants.readers(step.conn, step.table.identifier, searched)
    for reader in (step.table.owner, *readers):
        for right, what in (
            ("SELECT ON", rows),
            ("USAGE ON SCHEMA", sql.Identifier(step.table.schema)),
        ):
            step.conn.execute(
                sql.SQL("GRANT " + right + " {} TO {}").format(what, grants.role(reader))
            )
    for function in functions:
        step.conn.execute(
            function.replacement(step.conn, rows, vectors=step.vectors, model_id=step.model_id)
        )


def restore(step: Consolidation) -> None:
    """Put the table back as it was, with all that was written meanwhile."""
    until_free(partial(_restore, step))
    _delete_rows(step)


def _restore(step: Consolidation) -> None:
    details = step.details()
    with step.conn.transaction():
        give_way_early(step.conn)
        # The view before its table, as whoever writes through it takes them.
        outer = step.table.identifier if step.kept is None else step.view
        step.conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(outer))
        for name in (legacy_mirror.MIRROR, legacy_mirror.MIRROR_TRUNCATE):
            step.conn.execute(
                sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(name, step.table.identifier)
            )
        step.conn.execute(
            sql.SQL("DROP TRIGGER IF EXISTS {} ON vector_embeddings").format(
                sql.Identifier(step.object_name("back"))
            )
        )
        for what in ("mirror", "back"):
            step.conn.execute(sql.SQL("DROP FUNCTION IF EXISTS {}()").format(step.function(what)))
        step.conn.execute(
            sql.SQL("DROP INDEX IF EXISTS {}").format(
                sql.Identifier(step.table.schema, step.object_name("ids"))
            )
        )
        if step.kept is not None:
            step.conn.execute(
                sql.SQL("DROP VIEW IF EXISTS {}").format(
                    sql.Identifier(step.kept, f"{step.table.name}_search")
                )
            )
            step.conn.execute(sql.SQL("DROP VIEW {}").format(step.view))
            step.conn.execute(
                sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(
                    step.table.identifier, sql.Identifier(step.schema)
                )
            )
            # Not before: with the view in place, a body in SQL would depend on it.
            for definition in details.get("functions", {}).values():
                step.conn.execute(definition)
            if details.get("made_schema"):
                _leave_schema(step, step.kept)
        step.conn.execute(
            "UPDATE legacy_tables SET kept_in = NULL, details = details - 'functions' "
            "- 'next_block' WHERE schema_name = %s AND table_name = %s",
            [step.schema, step.table.name],
        )
    step.table = next(
        one for one in find(step.conn) if (one.schema, one.name) == (step.schema, step.table.name)
    )
    step.kept = None


def _leave_schema(step: Consolidation, schema: str) -> None:
    """Drop a schema that was made for this; the last table to leave it does."""
    if _is_empty(step, schema):
        step.conn.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(schema)))
    else:
        step.conn.execute(
            "UPDATE legacy_tables SET details = details || %s WHERE kept_in = %s",
            [Jsonb({"made_schema": True}), schema],
        )


def _is_empty(step: Consolidation, schema: str) -> bool:
    found = step.conn.execute(
        "SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass "
        "AND refobjid = to_regnamespace(quote_ident(%s)) LIMIT 1",
        [schema],
    )
    return not found.rowcount


def _delete_rows(step: Consolidation) -> None:
    """Take the rows out of the new table; the old one has them all."""
    while step.conn.execute(
        "DELETE FROM vector_embeddings WHERE id = ANY (ARRAY("
        "SELECT id FROM vector_embeddings WHERE store = %s LIMIT %s))",
        [step.store, _DELETED_AT_ONCE],
    ).rowcount:
        pass
    with step.conn.transaction():
        step.conn.execute(
            "UPDATE load_runs SET status = 'rolled back', rolled_back_at = clock_timestamp() "
            "WHERE run_id = %s",
            [step.run_id],
        )
        step.conn.execute(
            "DELETE FROM legacy_tables WHERE schema_name = %s AND table_name = %s",
            [step.schema, step.table.name],
        )
