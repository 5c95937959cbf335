"""The statement that finds the rows of a space nearest to a query, by index or exactly."""

from collections.abc import Sequence

from psycopg import sql

from harca.model import Space
from harca.postgres.space_index import SpaceIndex

TABLE = sql.Identifier("vector_embeddings")
COLUMNS = ("id", "store_key", "content", "metadata", "source")


def statement(
    space: Space,
    index: SpaceIndex | None,
    *,
    clause: sql.Composable | None = None,
    after: bool = False,
    table: sql.Composable = TABLE,
    columns: Sequence[str] = COLUMNS,
) -> bytes:
    """Return the statement; it gives the distance, then *columns*, the nearest first.

    The index gives candidates, in its own order; these are put in order by their exact
    distance and, where that is equal, by their ids. Without an index all rows are candidates.

    Zero vectors have no direction: their distance is NaN, which comes after every number.

    Takes the parameters ``query``, ``k``, with an index ``candidates``, with *after*
    ``after_distance`` and ``after_id``, and those of *clause*.

    Args:
        clause: What a row must fulfil beside being in the space.
        after: Only results that come after one that is known already.
    """
    chosen: list[sql.Composable] = [
        # The space is written out, not passed: a generic plan could not use a partial index.
        sql.SQL("model_id = {} AND dims = {}").format(
            literal(space.model_id), sql.Literal(space.dims)
        )
    ]
    if clause is not None:
        chosen.append(sql.SQL("({})").format(clause))
    # In the index's own words, so that it is worked out once.
    of = index.expression if index is not None and index.type == "vector" else _EMBEDDING
    parts = {
        "distance": sql.SQL("{} <=> %(query)b").format(of),
        "columns": sql.SQL(", ").join(map(sql.Identifier, columns)),
        "table": table,
    }
    if index is None:
        # No index is on the bare column: whatever the planner does, it finds everything.
        form = (
            "SELECT {distance} AS distance, {columns} FROM {table} WHERE {chosen} "
            "ORDER BY distance, id LIMIT %(k)s"
        )
        if after:
            chosen.append(sql.SQL(_AFTER.format("embedding <=> %(query)b")))
    else:
        form = (
            "SELECT * FROM (SELECT {distance} AS distance, {columns} FROM {table} "
            "WHERE {chosen} ORDER BY {expression} {operator} LIMIT %(candidates)s) nearest "
            "{after}ORDER BY distance, id LIMIT %(k)s"
        )
        parts["expression"] = index.expression
        parts["operator"] = sql.SQL(_OPERATORS[index.type])
        parts["after"] = sql.SQL(f"WHERE {_AFTER.format('distance')} " if after else "")
    found = sql.SQL(form).format(chosen=sql.SQL(" AND ").join(chosen), **parts)
    return found.as_bytes(None)


_EMBEDDING = sql.Identifier("embedding")
_AFTER = "({}, id) > (%(after_distance)s::float8, %(after_id)s::int)"

# With their operands.
_OPERATORS = {
    "vector": "<=> %(query)b",
    "halfvec": "<=> %(query)b::halfvec",
    "bit": "<~> binary_quantize(%(query)b)",
}


def literal(value: str) -> sql.Composable:
    """Return a text as it is written in a statement that takes parameters."""
    # Beside parameters, a percent sign has to be doubled.
    return sql.SQL(sql.Literal(value).as_string(None).replace("%", "%%"))
