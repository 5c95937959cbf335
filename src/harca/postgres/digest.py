"""The SQL half of `harca.fingerprint`, and the queries in ``sql/``."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import psycopg
from psycopg import sql

from harca.fingerprint import Fingerprint

# Other than from an object, nothing can be taken.
_LASTING = sql.SQL(
    "CASE jsonb_typeof({row}.metadata) WHEN 'object' THEN {row}.metadata - %(volatile)s::text[] "
    "ELSE {row}.metadata END"
)


@cache
def query(name: str) -> str:
    """Return the text of ``sql/NAME.sql``."""
    return resources.files("harca.postgres").joinpath(f"sql/{name}.sql").read_text("utf-8")


def composed(name: str, **parts: sql.Composable) -> sql.Composed:
    """Return ``sql/NAME.sql`` with its ``{placeholders}`` filled in."""
    return sql.SQL(query(name)).format(**parts)


def row_digest(row: str, *, created_at: sql.Composable) -> sql.Composed:
    """Return the expression for a row's digest; equal to `harca.fingerprint.digest`.

    Args:
        row: Alias of the table, which has the columns of ``vector_embeddings``.
        created_at: NULL where the record had no date.

    Takes the parameter ``%(volatile)s``: metadata keys that are left out.
    """
    return composed(
        "row_digest",
        row=sql.Identifier(row),
        metadata=_LASTING.format(row=sql.Identifier(row)),
        created_at=created_at,
    )


def dated(row: str, run: str) -> sql.Composed:
    """Return a row's creation date, NULL if the store had none: then it is its run's start."""
    return sql.SQL("nullif({row}.created_at, {run}.started_at)").format(
        row=sql.Identifier(row), run=sql.Identifier(run)
    )


def dated_strictly(row: str, run: str) -> sql.Composed:
    """Return the same for a row's digest: a date that was deleted is no record without one."""
    return sql.SQL("CASE WHEN {row}.created_at IS NULL THEN '-infinity' ELSE {dated} END").format(
        row=sql.Identifier(row), dated=dated(row, run)
    )


def summed(
    conn: psycopg.Connection[Any],
    digests: sql.Composable,
    values: Mapping[str, Any] | None = None,
) -> Fingerprint:
    """Return the fingerprint of the column ``digest`` of a query; the server reads the rows."""
    total = Fingerprint()
    for bucket, count, part in conn.execute(composed("summed", digests=digests), values):
        total.add_part(bucket, count, int(part))
    return total
