"""A database that is made to be measured in, and dropped."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from harca.errors import TargetError
from harca.postgres.connect import Database

_numbers = count(1)


class NoScratchDatabase(TargetError):
    """The role may not make a database."""

    def __init__(self, role: str) -> None:
        super().__init__(
            f'role "{role}" may not create a database to measure in',
            hint="Let it: ALTER ROLE … CREATEDB. Or name a server where it may, by --database; "
            "the embedded one is such.",
        )
        self.role = role


@contextmanager
def scratch_database(server: Database) -> Iterator[Database]:
    """Give an empty database of its own on the server of *server*, and drop it afterwards.

    Raises:
        NoScratchDatabase: The role may not make one.
    """
    name = f"harca_bench_{os.getpid()}_{next(_numbers)}"
    with server.connect() as conn:
        try:
            # Of template1, which may have the extension: not every role can make that.
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except pg.InsufficientPrivilege as exc:
            raise NoScratchDatabase(conn.info.user) from exc
    try:
        yield Database(make_conninfo(server.conninfo, dbname=name), server.origin)
    finally:
        with server.connect() as conn:
            _drop(conn, name)


def _drop(conn: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    # What is still connected is our own, of a process that was killed.
    conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def settle(database: Database) -> None:
    """Write out what was loaded, where the role may ask for it."""
    with database.connect() as conn, suppress(pg.InsufficientPrivilege):
        conn.execute("CHECKPOINT")
