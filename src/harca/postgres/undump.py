"""Put a backup's rows in the place of those that are there, in one transaction, and prove it."""

import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from harca.backup_folder import Contents, SavedTable
from harca.errors import BackupUnusable, NotVerified, Refused, RowsCameAfter
from harca.fingerprint import Fingerprint
from harca.postgres import indexes, owned, programs
from harca.postgres.dump import Method
from harca.postgres.giving_way import give_way_early
from harca.postgres.owned import OwnedTable

Pair = tuple[OwnedTable | None, SavedTable | None]
"""A table that is there beside the same one in the backup."""

_CHUNK = 1 << 18
_BEFORE = sql.Identifier("harca_before")


@dataclass(slots=True)
class Replaced:
    """What became of the rows.

    Attributes:
        unchanged: All rows were those of the backup already: nothing was done.
        lost: Rows that came or changed after the backup and are gone now, by table.
        out_of_place: Whether an old table that was kept elsewhere, with a view in its place,
            stands in its place now.
    """

    unchanged: bool = False
    lost: dict[str, int] = field(default_factory=dict)
    out_of_place: bool = False


class Undump:
    """One restore; the connection is in autocommit mode."""

    def __init__(self, conn: psycopg.Connection[Any], folder: Path, contents: Contents) -> None:
        self.conn, self.folder, self.contents = conn, folder, contents

    def replace(self, *, anything: bool) -> Replaced:
        """Make the tables hold the backup's rows and no others.

        A transaction: after any error the tables are as before.

        Args:
            anything: Also where rows are deleted that the backup has not.

        Raises:
            RowsCameAfter: There are such rows, and *anything* is false.
            NotVerified: What was read from the backup is not what was backed up.
            BackupUnusable: It cannot be read here.
            Refused: A table of somebody else's refers to ours.
            psycopg.errors.LockNotAvailable: Others hold a lock; to be tried again.
        """
        done = Replaced()
        with self.conn.transaction():
            give_way_early(self.conn)
            pairs = self._pairs()
            there = [table for table, _ in pairs if table is not None]
            self._lock(there)
            owned.settle(self.conn)
            different = [pair for pair in pairs if not self._is_same(*pair)]
            if not different:
                return Replaced(unchanged=True)
            # All tables are filled anew, those too that differ in nothing but a new column.
            changed = [pair for pair in pairs if pair in different or _has_more_columns(*pair)]
            self._refuse_references(there)
            self._note_before(changed)
            self._fill(pairs)
            self._prove()
            done.lost = self._lost(changed)
            if done.lost and not anything:
                raise RowsCameAfter(done.lost)
            done.out_of_place = self._note_places()
        return done

    def _pairs(self) -> list[Pair]:
        """Return the tables that are there beside those of the backup, in their order."""
        saved = {table.name: table for table in self.contents.tables if table.origin is None}
        own = owned.find_own(self.conn)
        pairs: list[Pair] = [(table, saved.pop(table.name, None)) for table in own]
        if saved:
            # Alembic makes it with the first data revision.
            for table in saved.values():
                if table.name != owned.DATA_VERSION:
                    raise BackupUnusable(
                        str(self.folder), table.file, f"the schema has no table {table.name}"
                    )
                self.conn.execute(
                    "CREATE TABLE alembic_version_data (version_num varchar(32) NOT NULL "
                    "CONSTRAINT alembic_version_data_pkc PRIMARY KEY)"
                )
            return self._pairs()
        pairs += [(self._old(table), table) for table in self.contents.tables if table.origin]
        for there, kept in pairs:
            if there and kept and (missing := set(kept.columns) - set(there.columns)):
                raise BackupUnusable(
                    str(self.folder),
                    kept.file,
                    f"{there.label} has no column {', '.join(sorted(missing))} now",
                )
        return pairs

    def _old(self, saved: SavedTable) -> OwnedTable | None:
        """Return an old table: where it was, or where it is known to be now."""
        assert saved.origin is not None
        for schema in dict.fromkeys((saved.schema, saved.origin)):
            if found := owned.find(self.conn, schema, saved.name, saved.origin):
                return found
        return None

    def _lock(self, tables: list[OwnedTable]) -> None:
        if tables:
            self.conn.execute(
                sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(_listed(tables))
            )

    def _is_same(self, table: OwnedTable | None, saved: SavedTable | None) -> bool:
        if table is None:
            return False
        columns = saved.columns if saved else None
        expected = saved.fingerprint if saved else str(Fingerprint())
        return str(owned.fingerprint(self.conn, table, columns)) == expected

    def _refuse_references(self, tables: list[OwnedTable]) -> None:
        names = [table.identifier.as_string(self.conn) for table in tables]
        found = self.conn.execute(
            "SELECT conname, conrelid::regclass::text FROM pg_constraint "
            "WHERE contype = 'f' AND confrelid = ANY (%(names)s::text[]::regclass[]) "
            "AND conrelid <> ALL (%(names)s::text[]::regclass[]) ORDER BY conname LIMIT 1",
            {"names": names},
        ).fetchone()
        if found:
            raise Refused(
                f"the foreign key {found[0]} of {found[1]} refers to rows that would be replaced",
                hint="Nothing was changed. Drop the foreign key, restore, and make it again.",
            )

    def _note_before(self, changed: list[Pair]) -> None:
        """Note the digests of the rows that are there, which takes 32 bytes a row."""
        self.conn.execute(
            sql.SQL("CREATE TEMP TABLE {} (table_name text, digest bytea) ON COMMIT DROP").format(
                _BEFORE
            )
        )
        for table, _ in changed:
            if table is not None:
                self.conn.execute(
                    sql.SQL("INSERT INTO {} SELECT {}, {} FROM {} t").format(
                        _BEFORE,
                        sql.Literal(table.label),
                        table.digest(),
                        table.identifier,
                    )
                )

    def _fill(self, pairs: list[Pair]) -> None:
        there = [table for table, _ in pairs if table is not None]
        remade: list[sql.SQL | sql.Composed] = []
        if any(table.origin is None and table.name == "vector_embeddings" for table in there):
            remade = indexes.set_aside(self.conn)
        with self._no_triggers(there):
            if there:
                self.conn.execute(sql.SQL("TRUNCATE {}").format(_listed(there)))
            for table, saved in pairs:
                if saved is None:
                    continue
                if table is None:
                    self._make(saved)
                else:
                    self._copy(table.identifier, saved)
                    self._set_sequences(table, saved)
        for statement in remade:
            self.conn.execute(statement)

    @contextmanager
    def _no_triggers(self, tables: list[OwnedTable]) -> Iterator[None]:
        """Have rows come in as they were: triggers fired when they were first written."""
        names = [table.identifier.as_string(self.conn) for table in tables]
        triggers = self.conn.execute(
            "SELECT nspname, relname, tgname, tgenabled::text FROM pg_trigger "
            "JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE tgrelid = ANY (%s::text[]::regclass[]) AND NOT tgisinternal "
            "AND tgenabled <> 'D'",
            [names],
        ).fetchall()
        change = sql.SQL("ALTER TABLE {} {} TRIGGER {}")
        for schema, name, trigger, _ in triggers:
            self.conn.execute(
                change.format(
                    sql.Identifier(schema, name), sql.SQL("DISABLE"), sql.Identifier(trigger)
                )
            )
        yield
        how = {"O": "ENABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
        for schema, name, trigger, enabled in triggers:
            self.conn.execute(
                change.format(
                    sql.Identifier(schema, name),
                    sql.SQL(how[enabled]),
                    sql.Identifier(trigger),
                )
            )

    def _make(self, saved: SavedTable) -> None:
        """Make an old table, with constraints and indexes, where the application knows it."""
        assert saved.origin is not None
        for schema in dict.fromkeys((saved.schema, saved.origin)):
            self.conn.execute(
                sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema))
            )
        table, *rest = saved.definition
        self.conn.execute(table.encode())
        identifier = sql.Identifier(saved.schema, saved.name)
        self._copy(identifier, saved)
        for statement in rest:
            self.conn.execute(statement.encode())
        if saved.schema != saved.origin:
            self.conn.execute(
                sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(
                    identifier, sql.Identifier(saved.origin)
                )
            )

    def _copy(self, table: sql.Identifier, saved: SavedTable) -> None:
        binary = self.contents.method == Method.COPY
        statement = sql.SQL("COPY {} ({}) FROM STDIN{}").format(
            table,
            sql.SQL(", ").join(map(sql.Identifier, saved.columns)),
            sql.SQL(" (FORMAT BINARY)" if binary else ""),
        )
        data = self._file(saved) if binary else self._from_dump(saved)
        with self.conn.cursor() as cursor, cursor.copy(statement) as copy:
            for piece in data:
                copy.write(piece)

    def _file(self, saved: SavedTable) -> Iterator[bytes]:
        with (self.folder / saved.file).open("rb") as file:
            while piece := file.read(_CHUNK):
                yield piece

    def _from_dump(self, saved: SavedTable) -> Iterator[bytes]:
        """Yield the rows of a table as pg_restore writes them: the lines after COPY, to ``\\.``."""
        wanted = int(self.contents.program_version or 0)
        program = programs.find("pg_restore", at_least=wanted)
        if program is None:
            raise BackupUnusable(
                str(self.folder),
                saved.file,
                f"pg_dump {wanted} wrote it, and no pg_restore of that version is here",
            )
        command = [
            program.path,
            "--data-only",
            f"--schema={saved.schema}",
            f"--table={saved.name}",
            "--file=-",
            str(self.folder / saved.file),
        ]
        with subprocess.Popen(  # noqa: S603  # PostgreSQL's own program
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as reading:
            assert reading.stdout is not None
            assert reading.stderr is not None
            for line in reading.stdout:
                if line.startswith(b"COPY "):
                    break
            ended = yield from _until_end(reading.stdout)
            said = reading.stderr.read().decode("utf-8", "replace").strip()
        if reading.returncode or not ended:
            raise BackupUnusable(
                str(self.folder), saved.file, said or f"it has no rows of {saved.label}"
            )

    def _set_sequences(self, table: OwnedTable, saved: SavedTable) -> None:
        for column, sequence in table.sequences.items():
            # Never back: setval is not undone with the transaction, and an id that was
            # handed out once should not come to mean another row.
            self.conn.execute(
                sql.SQL(
                    "SELECT setval({name}, greatest({last}, max({column}), "
                    "pg_sequence_last_value({name}))) FROM {table} HAVING "
                    "greatest({last}, max({column})) IS NOT NULL"
                ).format(
                    name=sql.Literal(sequence) + sql.SQL("::regclass"),
                    last=sql.Literal(saved.sequences.get(column)) + sql.SQL("::bigint"),
                    column=sql.Identifier(column),
                    table=table.identifier,
                )
            )

    def _prove(self) -> None:
        for table, saved in self._pairs():
            if saved is None:
                continue
            assert table is not None
            found = str(owned.fingerprint(self.conn, table, saved.columns))
            if found != saved.fingerprint:
                raise NotVerified(
                    f"{table.label}, filled from {saved.file}, has the fingerprint {found}, "
                    f"expected {saved.fingerprint}",
                    hint="Nothing was changed. Restore another backup.",
                )

    def _note_places(self) -> bool:
        """Have the notes of HARCA's old tables say where they are; return if one had to move.

        As if a migration had been interrupted before it put the view in the table's place.
        """
        moved = [
            (table.schema, table.name)
            for table, saved in self._pairs()
            if table and saved and saved.origin and saved.schema != table.schema == saved.origin
        ]
        for place in moved:
            self.conn.execute(
                "UPDATE legacy_tables SET kept_in = NULL "
                "WHERE schema_name = %s AND table_name = %s",
                place,
            )
        return bool(moved)

    def _lost(self, changed: list[Pair]) -> dict[str, int]:
        lost = {}
        for table, saved in changed:
            if table is None:
                continue
            now = (
                sql.SQL("SELECT {} FROM {} t").format(table.digest(), table.identifier)
                if saved
                else sql.SQL("SELECT NULL::bytea WHERE false")
            )
            row = self.conn.execute(
                sql.SQL(
                    "SELECT count(*) FROM (SELECT digest FROM {} WHERE table_name = {} "
                    "EXCEPT ALL {}) gone"
                ).format(_BEFORE, sql.Literal(table.label), now)
            ).fetchone()
            assert row is not None
            if row[0]:
                lost[table.label] = row[0]
        return lost


def _has_more_columns(table: OwnedTable | None, saved: SavedTable | None) -> bool:
    """Say whether columns came after the backup, whose values a restore would lose."""
    return bool(table and saved and not set(saved.columns).issuperset(table.columns))


def _listed(tables: list[OwnedTable]) -> sql.Composed:
    return sql.SQL(", ").join(table.identifier for table in tables)


def _until_end(lines: Any) -> Generator[bytes, None, bool]:
    """Yield what comes before the line that ends it; return whether there is such a line."""
    pieces: list[bytes] = []
    gathered = 0
    for line in lines:
        if line == b"\\.\n":
            yield b"".join(pieces)
            for _ in lines:
                pass  # the end of the script, so that the program can end
            return True
        pieces.append(line)
        gathered += len(line)
        if gathered >= _CHUNK:
            yield b"".join(pieces)
            pieces, gathered = [], 0
    return False
