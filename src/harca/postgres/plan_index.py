"""The plan's own index: ivfflat on the rows of 1536 dimensions, whatever their model.

harca's search does not use it; the old application's statements do.
"""

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

from harca.model import Space
from harca.postgres.build_progress import BuildProgress
from harca.postgres.index_build import put
from harca.postgres.space_index import Made, SpaceIndex, dropping, ivfflat_lists

PLAN_INDEX = "vector_embeddings_embedding_idx"
PLAN_DIMS = 1536


def adapt(
    conn: psycopg.Connection[Any],
    there: dict[str, Made],
    *,
    has_better: bool,
    progress: Callable[[str], object],
    shown: BuildProgress | None = None,
) -> bool:
    """Keep the index fitting, until a space of its size has a better one; say if it was built.

    It is rebuilt when its number of lists no longer fits the number of rows: built on an
    empty table, it finds about a quarter of the neighbours.
    """
    made = there.get(PLAN_INDEX)
    if has_better:
        if made is not None:
            conn.execute(dropping(PLAN_INDEX))
        return False
    found = conn.execute(
        "SELECT count(*) FROM vector_embeddings WHERE dims = %s", [PLAN_DIMS]
    ).fetchone()
    assert found is not None
    rows = found[0]
    lists = ivfflat_lists(rows)
    if made is not None and made.valid and (not rows or _built_for(made) == (lists, rows)):
        return False  # as the schema made it, or as it would be made
    if rows:
        progress(f"ivfflat index for {rows:,} rows of {PLAN_DIMS} dimensions")
    space = Space("", PLAN_DIMS, rows)
    index = SpaceIndex(PLAN_INDEX, space, "ivfflat", "vector", {"lists": lists})
    put(conn, index, there, statement=_creating, shown=shown)
    conn.execute(
        sql.SQL("COMMENT ON INDEX {} IS {}").format(
            sql.Identifier(PLAN_INDEX), sql.Literal(_comment(lists, rows))
        )
    )
    return bool(rows)


def _creating(index: SpaceIndex) -> sql.Composed:
    return sql.SQL(
        "CREATE INDEX CONCURRENTLY {name} ON vector_embeddings USING ivfflat "
        "((embedding::vector(1536)) vector_cosine_ops) WITH (lists = {lists}) WHERE dims = 1536"
    ).format(name=sql.Identifier(index.name), lists=sql.Literal(index.parameters["lists"]))


def _comment(lists: int, rows: int) -> str:
    return f"harca: lists = {lists}, built for {rows} rows"


def _built_for(made: Made) -> tuple[int, int] | None:
    words = (made.comment or "").replace(",", "").split()
    numbers = [int(word) for word in words if word.isdigit()]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else None
