"""Triggers that keep an old table and ``vector_embeddings`` in step, both ways."""

from psycopg import sql

from harca.postgres.consolidation import Consolidation
from harca.postgres.digest import composed
from harca.postgres.giving_way import give_way_early, until_free

# Triggers fire in the order of their names: one of the application's that changes the row
# again must come later, or its change would be overwritten by what was before it.
MIRROR = sql.Identifier("!harca_mirror")
MIRROR_TRUNCATE = sql.Identifier("!harca_mirror_truncate")


def keep_in_step(step: Consolidation) -> None:
    """Have what is written to the table from now on brought over with it.

    Creating the triggers waits for the writers of before: when this returns, whatever
    the triggers did not see is there for a copy to read.
    """
    if not step.table.has_key:
        _index_ids(step)

    def attempt() -> None:
        with step.conn.transaction():
            give_way_early(step.conn)
            replace_mirror(step)
            for name, events, each in (
                (MIRROR, "INSERT OR UPDATE OR DELETE", "ROW"),
                (MIRROR_TRUNCATE, "TRUNCATE", "STATEMENT"),
            ):
                step.conn.execute(
                    sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(name, step.table.identifier)
                )
                step.conn.execute(
                    sql.SQL(
                        "CREATE TRIGGER {} AFTER "
                        + events
                        + " ON {} FOR EACH "
                        + each
                        + " EXECUTE FUNCTION {}()"
                    ).format(name, step.table.identifier, step.function("mirror"))
                )
                # Writes that arrive by replication are writes too.
                step.conn.execute(
                    sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(
                        step.table.identifier, name
                    )
                )

    until_free(attempt)


def replace_mirror(step: Consolidation) -> None:
    """Create the function that brings changes over, for where the table is now."""
    function = step.function("mirror")
    another: sql.Composable = sql.SQL("")
    one_at_a_time: sql.Composable = sql.SQL("")
    if not step.table.has_key:
        one_at_a_time = composed("legacy_one_at_a_time", store=sql.Literal(step.store))
        another = composed(
            "legacy_another", table=step.table.identifier, upsert=_upsert(step, "other")
        )
    step.conn.execute(
        composed(
            "legacy_mirror",
            function=function,
            home=sql.Identifier(step.home),
            vectors=sql.Identifier(step.vectors),
            store=sql.Literal(step.store),
            another=another,
            one_at_a_time=one_at_a_time,
            upsert=_upsert(step, "NEW"),
        )
    )
    # Triggers fire without this right; nobody can make one of their own with it.
    step.conn.execute(sql.SQL("REVOKE ALL ON FUNCTION {}() FROM PUBLIC").format(function))


def _upsert(step: Consolidation, row: str) -> sql.Composed:
    parts = step.table.reading(row)
    has_date = "updated_at" in step.table.types
    touched = "excluded.updated_at" if has_date else "now()"
    return composed(
        "legacy_upsert",
        row=sql.SQL(row),
        model_id=sql.Literal(step.model_id),
        run_id=sql.Literal(step.run_id),
        store=sql.Literal(step.store),
        touched=sql.SQL(touched),
        old_updated_at=sql.SQL("v.updated_at" if has_date else "NULL"),
        new_updated_at=sql.SQL("excluded.updated_at" if has_date else "NULL"),
        **{name: part for name, part in parts.items() if name != "differs"},
    )


def _index_ids(step: Consolidation) -> None:
    """Index the ids of a table without a key: the triggers look rows up by them."""
    name = step.object_name("ids")
    found = step.conn.execute(
        "SELECT indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid "
        "JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s",
        [step.table.schema, name],
    ).fetchone()
    if found == (True,):
        return
    if found is not None:  # as an interrupted build leaves it
        step.conn.execute(
            sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(step.table.schema, name))
        )
    step.conn.execute(
        sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} (id)").format(
            sql.Identifier(name), step.table.identifier
        )
    )


def create_back(step: Consolidation) -> None:
    """Have changes made in ``vector_embeddings`` brought back into the old table."""
    parts = step.table.reading("t")
    same_vector = sql.SQL("vector_send({}) IS NOT DISTINCT FROM vector_send(NEW.embedding)")
    same_metadata = sql.SQL("({})::text = NEW.metadata::text")
    assignments: list[sql.Composable] = [sql.SQL("content = NEW.content")]
    new: sql.Composable
    for name, kind in step.table.types.items():
        if name in ("embedding", "embedding_vector") and kind in ("vector", "json", "jsonb"):
            same, new = same_vector.format(parts["embedding"]), sql.SQL("NEW.embedding")
            if kind != "vector":
                new = sql.SQL("NEW.embedding::text::{}").format(sql.Identifier(kind))
        elif name == "metadata":
            same = same_metadata.format(parts["metadata"])
            new = sql.SQL("NEW.metadata::{}").format(sql.Identifier(kind))
        else:
            continue
        assignments.append(
            sql.SQL("{column} = CASE WHEN {same} THEN t.{column} ELSE {new} END").format(
                column=sql.Identifier(name), same=same, new=new
            )
        )
    one_of_them: sql.Composable = sql.SQL("")
    if not step.table.has_key:
        one_of_them = sql.SQL(
            " AND t.ctid = (SELECT max(o.ctid) FROM {} o WHERE o.id = OLD.store_key::uuid)"
        ).format(step.table.identifier)
    function = step.function("back")
    step.conn.execute(
        composed(
            "legacy_back",
            function=function,
            home=sql.Identifier(step.home),
            vectors=sql.Identifier(step.vectors),
            table=step.table.identifier,
            assignments=sql.SQL(", ").join(assignments),
            content=parts["content"],
            embedding=parts["embedding"],
            metadata=parts["metadata"],
            one_of_them=one_of_them,
        )
    )
    step.conn.execute(sql.SQL("REVOKE ALL ON FUNCTION {}() FROM PUBLIC").format(function))
    # What a trigger does to a row is on its way from the old table.
    step.conn.execute(
        sql.SQL(
            "CREATE TRIGGER {name} AFTER UPDATE OR DELETE ON vector_embeddings "
            "FOR EACH ROW WHEN (OLD.store = {store} AND pg_trigger_depth() = 0 AND "
            "current_setting('harca.consolidating', true) IS DISTINCT FROM 'on') "
            "EXECUTE FUNCTION {function}()"
        ).format(
            name=sql.Identifier(step.object_name("back")),
            store=sql.Literal(step.store),
            function=function,
        )
    )
