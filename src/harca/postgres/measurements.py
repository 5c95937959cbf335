"""What was measured, kept in the database for `harca report`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

import harca
from harca.errors import TargetError
from harca.postgres.space_index import capabilities


@dataclass(frozen=True, slots=True)
class Measurement:
    """One result.

    Attributes:
        kind: The command that measured, such as ``bench search``.
        harca: Version of harca that measured.
        server: PostgreSQL and pgvector that it measured on.
        result: The object that the command shows by ``--json``.
    """

    measurement_id: int
    kind: str
    taken_at: datetime
    harca: str
    server: str
    result: Mapping[str, Any]


def require_writable(conn: psycopg.Connection[Any]) -> None:
    """Refuse before something is measured for minutes that could not be kept.

    Raises:
        TargetError: The role may not.
    """
    row = conn.execute(
        "SELECT has_table_privilege('measurements', 'SELECT')"
        " AND has_table_privilege('measurements', 'INSERT')"
    ).fetchone()
    if row != (True,):
        raise TargetError(
            "the role may not insert into measurements, where the result is kept",
            hint="Let it: GRANT SELECT, INSERT ON measurements TO …. Nothing was measured.",
        )


def keep(conn: psycopg.Connection[Any], kind: str, result: Mapping[str, Any]) -> int:
    """Keep a result; return its id."""
    row = conn.execute(
        "INSERT INTO measurements (kind, harca, server, result) "
        "VALUES (%s, %s, %s, %s) RETURNING measurement_id",
        [kind, harca.__version__, server(conn), Jsonb(dict(result))],
    ).fetchone()
    assert row is not None
    return int(row[0])


def amend(conn: psycopg.Connection[Any], measurement_id: int, result: Mapping[str, Any]) -> None:
    """Keep a result of something longer in the place of what it was until now."""
    conn.execute(
        "UPDATE measurements SET result = %s WHERE measurement_id = %s",
        [Jsonb(dict(result)), measurement_id],
    )


def kept(conn: psycopg.Connection[Any], kind: str | None = None) -> list[Measurement]:
    """Return the results of a kind, or all, the oldest first."""
    with conn.cursor(row_factory=class_row(Measurement)) as cursor:
        cursor.execute(
            "SELECT measurement_id, kind, taken_at, harca, server, result FROM measurements "
            "WHERE %(kind)s::text IS NULL OR kind = %(kind)s ORDER BY measurement_id",
            {"kind": kind},
        )
        return cursor.fetchall()


def newest(conn: psycopg.Connection[Any], kind: str, *, limit: int) -> list[Measurement]:
    """Return the last results of a kind, the newest first."""
    with conn.cursor(row_factory=class_row(Measurement)) as cursor:
        cursor.execute(
            "SELECT measurement_id, kind, taken_at, harca, server, result FROM measurements "
            "WHERE kind = %s ORDER BY measurement_id DESC LIMIT %s",
            [kind, limit],
        )
        return cursor.fetchall()


def counts(conn: psycopg.Connection[Any]) -> dict[str, int]:
    """Return how many results there are by kind."""
    return dict(conn.execute("SELECT kind, count(*) FROM measurements GROUP BY kind ORDER BY kind"))


def server(conn: psycopg.Connection[Any]) -> str:
    """Return the server's versions, for people."""
    version = conn.info.server_version
    vector = ".".join(str(part) for part in capabilities(conn).version)
    return f"PostgreSQL {version // 10_000}.{version % 10_000}, pgvector {vector}"
