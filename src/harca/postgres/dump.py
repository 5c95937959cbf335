"""Write tables out, all of them as they were at one moment."""

import errno
import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import sql

from harca.backup_folder import NewFolder, SavedTable
from harca.errors import TargetError
from harca.postgres import owned, programs
from harca.postgres.connect import Database
from harca.postgres.owned import OwnedTable

DUMP = "tables.dump"

_log = logging.getLogger("harca.backup")

# Behind somebody who waits for a strong lock: our transaction has its locks already, and can
# write the tables itself.
_LOCK_WAIT_MS = 10_000
_NO_ROOM = ("No space left on device", "Disk quota exceeded", "File too large")


class Method(StrEnum):
    """What writes the tables."""

    PG_DUMP = "pg_dump"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Dumped:
    """How the tables were written.

    Attributes:
        program_version: Major version of pg_dump, if it was that.
        note: Why it was not.
    """

    tables: list[SavedTable]
    method: Method
    program_version: str | None = None
    note: str = ""


class _Failed(Exception):
    """pg_dump did not do it; COPY can."""


@contextmanager
def snapshot(conn: psycopg.Connection[Any]) -> Iterator[str]:
    """Have everything within be read as it is now; give the snapshot's name for others."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        owned.settle(conn)
        row = conn.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None
        yield row[0]


def write(
    conn: psycopg.Connection[Any],
    target: Database,
    tables: list[OwnedTable],
    folder: NewFolder,
    *,
    snapshot: str,
    method: Method | None = None,
) -> Dumped:
    """Write *tables* to *folder*, within `snapshot`.

    Args:
        method: By default pg_dump if there is one that fits, else, or if that fails, COPY.

    Raises:
        OSError: Above all, there is no room.
        TargetError: pg_dump was asked for, and failed.
    """
    note = "as asked"
    if method is not Method.COPY:
        try:
            return _by_pg_dump(conn, target, tables, folder, snapshot)
        except _Failed as exc:
            if method is Method.PG_DUMP:
                raise TargetError(f"the backup cannot be made by pg_dump: {exc}") from exc
            note = str(exc)
            _log.info("the tables are written by COPY: %s", note)
            (folder.path / DUMP).unlink(missing_ok=True)
    return Dumped(
        [_by_copy(conn, number, table, folder) for number, table in enumerate(tables, 1)],
        Method.COPY,
        note=note,
    )


def _by_pg_dump(
    conn: psycopg.Connection[Any],
    target: Database,
    tables: list[OwnedTable],
    folder: NewFolder,
    snapshot: str,
) -> Dumped:
    version = conn.info.server_version // 10_000
    program = programs.find("pg_dump", at_least=version)
    if program is None:
        raise _Failed(f"there is no pg_dump {version} or newer here")
    reader = programs.find("pg_restore", at_least=program.version)
    if reader is None:
        raise _Failed(f"there is no pg_restore {program.version} or newer here")
    wanted = [f"--table={_pattern(table.schema, table.name)}" for table in tables]
    # For whoever restores it by hand: it says which revision the tables are of.
    stamp = conn.execute(
        "SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE c.oid = to_regclass(%s)",
        [owned.SCHEMA_VERSION],
    ).fetchone()
    if stamp is not None:
        wanted.append(f"--table={_pattern(stamp[0], owned.SCHEMA_VERSION)}")
    with folder.create(DUMP) as file:
        # A little compression: vectors do not become smaller, but take the time.
        done = subprocess.run(  # noqa: S603  # PostgreSQL's own program
            [
                program.path,
                "--format=custom",
                "--compress=1",
                "--no-password",
                f"--lock-wait-timeout={_LOCK_WAIT_MS}",
                f"--snapshot={snapshot}",
                programs.connection_option(target),
                *wanted,
            ],
            stdout=file,
            stderr=subprocess.PIPE,
            env=programs.environment(target),
            check=False,
        )
    said = done.stderr.decode("utf-8", "replace")
    # What is behind ERROR the server says: of its own disk, not of the folder's.
    own = said.partition("ERROR:")[0]
    if done.returncode == -signal.SIGXFSZ or any(reason in own for reason in _NO_ROOM):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder.path / DUMP))
    if done.returncode:
        raise _Failed(f"pg_dump: {_last_line(said) or f'ended with {done.returncode}'}")
    listed = subprocess.run(  # noqa: S603  # likewise
        [reader.path, "--list", str(folder.path / DUMP)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    missing = [
        table.label for table in tables if f" TABLE DATA {table.schema} {table.name} " not in listed
    ]
    if missing:
        raise _Failed(f"pg_dump has left out {', '.join(missing)}")
    saved = [_saved(conn, table, DUMP) for table in tables]
    return Dumped(saved, Method.PG_DUMP, str(program.version))


def _pattern(schema: str, name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name))


def _last_line(said: str) -> str:
    lines = [line for line in said.splitlines() if "error:" in line] or said.splitlines()
    return lines[-1].partition("error: ")[2] or lines[-1] if lines else ""


def _by_copy(
    conn: psycopg.Connection[Any], number: int, table: OwnedTable, folder: NewFolder
) -> SavedTable:
    name = f"{number:02}-{table.name}.copy"
    statement = sql.SQL("COPY {} ({}) TO STDOUT (FORMAT BINARY)").format(
        table.identifier, sql.SQL(", ").join(map(sql.Identifier, table.columns))
    )
    saved = _saved(conn, table, name)
    with folder.create(name) as file, conn.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for data in copy:
                file.write(data)
        if cursor.rowcount != saved.rows:
            raise psycopg.DataError(
                f"COPY gave {cursor.rowcount} of {saved.rows} rows of {table.label}"
            )
    return saved


def _saved(conn: psycopg.Connection[Any], table: OwnedTable, file: str) -> SavedTable:
    found = owned.fingerprint(conn, table)
    return SavedTable(
        table.schema,
        table.name,
        table.origin,
        list(table.columns),
        found.count,
        str(found),
        file,
        _last_values(conn, table),
        list(table.definition) if table.origin is not None else [],
    )


def _last_values(conn: psycopg.Connection[Any], table: OwnedTable) -> dict[str, int]:
    found = {}
    for column, sequence in table.sequences.items():
        # NULL until the sequence was used; who may only read the table may not see it.
        row = conn.execute(
            "SELECT CASE WHEN has_sequence_privilege(%(name)s, 'SELECT, USAGE') "
            "THEN pg_sequence_last_value(%(name)s::regclass) END",
            {"name": sequence},
        ).fetchone()
        assert row is not None
        if row[0] is not None:
            found[column] = row[0]
    return found
