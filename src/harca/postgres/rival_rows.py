"""Copy the rows of a space into the table that another library has made for itself."""

from collections.abc import Mapping

from psycopg import sql

from harca.model import Space
from harca.postgres.connect import Database

# What can be copied, as it is written in the query of the rows.
TEXT_ID = "id::text"
UUID_ID = "lpad(to_hex(id), 32, '0')::uuid"


def copy_rows(
    source: Database,
    space: Space,
    target: Database,
    table: tuple[str, ...],
    columns: Mapping[str, str],
) -> None:
    """Copy the rows of *space*; memory is a few of them.

    Args:
        columns: Columns of *table*, with what of a row goes there: an expression of
            `vector_embeddings`, one of this module's constants or a column's name.
    """
    reading = sql.SQL(
        "COPY (SELECT {} FROM vector_embeddings WHERE model_id = {} AND dims = {}) TO STDOUT"
    ).format(
        sql.SQL(", ").join(
            sql.SQL(what) if what in (TEXT_ID, UUID_ID) else sql.Identifier(what)
            for what in columns.values()
        ),
        sql.Literal(space.model_id),
        sql.Literal(space.dims),
    )
    writing = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(*table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with (
        source.connect() as there,
        target.connect() as here,
        there.cursor().copy(reading) as rows,
        here.cursor().copy(writing) as copied,
    ):
        for part in rows:
            copied.write(part)
    with target.connect() as conn:
        conn.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(*table)))


def make_extension(database: Database) -> None:
    """Have pgvector in *database*."""
    with database.connect() as conn:
        conn.execute("CREATE EXTENSION IF NOT EXISTS vector")
