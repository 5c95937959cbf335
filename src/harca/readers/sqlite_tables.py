"""The tables of a SQLite database, looked at: keys, columns with vectors, with texts."""

# ruff: noqa: S608  # names cannot be parameters; `quoted` makes them safe, values are parameters

import re
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

from harca.readers import vec0
from harca.readers.base import Defaults
from harca.readers.blobs import kind_of, sounds_like_vectors, vector_from
from harca.readers.fields import SAMPLE, FieldMap
from harca.readers.sqlite_file import DAMAGE
from harca.readers.values import object_from_text
from harca.readers.vec0 import Vec0, quoted

_SAMPLED_ROWS = 2_000
_MOST_VECTOR_BYTES = 400_000  # 16,000 components as text
_OF_CHROMA = frozenset({"collections", "segments", "embeddings_queue"})
_OF_TXTAI = frozenset({"documents", "sections"})
# What SQLite's own modules append to a virtual table's name.
_SHADOWS = re.compile(
    vec0.SHADOWS.pattern
    + r"|_(?:data|idx|content|docsize|config|segments|segdir|stat|node|parent|rowid|index)"
)
_MODULE = re.compile(r"\bUSING\s+[\"'`\[]?(\w+)", re.I)
_VIRTUAL = re.compile(r"\s*CREATE\s+VIRTUAL", re.I)


@dataclass(frozen=True, slots=True)
class Table:
    """An ordinary table.

    Attributes:
        key: The columns of its primary key.
        rowid: The name by which its rowid can be asked for; None if it has none.
        kinds: What the BLOBs of its columns with vectors are.
        vectors: Its columns with vectors, as BLOBs or as texts.
        metadata: The column with objects, as text.
        text: The field that is taken for the text.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    rowid: str | None
    kinds: dict[str, str]
    vectors: tuple[str, ...] = ()
    metadata: str | None = None
    text: str | None = None

    @property
    def order(self) -> str:
        return ", ".join(map(quoted, [self.rowid] if self.rowid else self.key))


class Database:
    """The tables of a database, looked at."""

    def __init__(self, connection: sqlite3.Connection, *, vector: str | None = None) -> None:
        """Look at the database behind *connection*.

        Args:
            connection: Stays open as long as this is used.
            vector: The column that has the vectors, if the operator says so.
        """
        self.connection = connection
        self.damage: Exception | None = None
        self._vector = vector
        master = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
        self._rows = [row for row in master if isinstance(row[1], str)]
        self.names = {name for kind, name, _, _ in self._rows if kind == "table"}

    @cached_property
    def virtual(self) -> dict[str, str]:
        """The statements of the virtual tables, by name."""
        return {
            name: sql
            for kind, name, _, sql in self._rows
            if kind == "table" and isinstance(sql, str) and _VIRTUAL.match(sql)
        }

    @cached_property
    def vec0(self) -> dict[str, Vec0]:
        """The tables of sqlite-vec."""
        found = ((name, vec0.declared(name, sql)) for name, sql in self.virtual.items())
        return {name: table for name, table in found if table is not None}

    def is_of_another_format(self) -> bool:
        """Say whether it belongs to a store whose vectors are not in it, or not only."""
        if self.names >= _OF_CHROMA:
            return True
        return self.names >= _OF_TXTAI and "indexid" in self.tables["sections"].columns

    def modules(self) -> set[str]:
        """Return the names of the modules that the virtual tables are of."""
        found = (_MODULE.search(sql) for sql in self.virtual.values())
        return {match[1].lower() for match in found if match}

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The ordinary tables that are not part of a virtual one."""
        names = [
            name
            for name in sorted(self.names - self.virtual.keys())
            if not name.lower().startswith("sqlite_")
            and not any(
                name.startswith(virtual) and _SHADOWS.fullmatch(name, len(virtual))
                for virtual in self.virtual
            )
        ]
        return {name: self._table(name) for name in names}

    def _table(self, name: str) -> Table:
        described = self.connection.execute(
            "SELECT name, type, pk FROM pragma_table_xinfo(?) WHERE hidden <> 1", [name]
        ).fetchall()
        columns = tuple(row[0] for row in described)
        key = tuple(row[0] for row in sorted(described, key=lambda row: row[2]) if row[2])
        taken = {column.lower() for column in columns if column not in key}
        rowid = None
        for alias in ("rowid", "_rowid_", "oid"):
            if alias not in taken:
                with suppress(sqlite3.OperationalError):  # a table WITHOUT ROWID
                    self.connection.execute(f"SELECT {alias} FROM {quoted(name)} LIMIT 0")
                    rowid = alias
                    break
        kinds = {
            column: kind
            for column, declared, _ in described
            if (kind := self._kind(name, column, str(declared))) is not None
        }
        table = Table(name, columns, key, rowid, kinds)
        sample = [row for _, row in self._readable(islice(self.rows(table), SAMPLE))]
        fields = FieldMap(sample, Defaults())
        table = replace(table, metadata=fields.metadata)
        fields = FieldMap([decoded(table, row) for row in sample], Defaults())
        vectors = [
            *kinds,
            *([fields.vector] if fields.vector and fields.vector not in kinds else []),
        ]
        for column in columns:
            if column not in vectors and self._is_text_of_vectors(name, column):
                vectors.append(column)
        text = fields.text if fields.text not in vectors else None
        return replace(table, vectors=tuple(vectors), text=text)

    def _values(self, table: str, column: str, kind: str) -> list[Any]:
        """Return some values of a column; of one that is named after vectors, wherever they are."""
        inside = f"SELECT {quoted(column)} AS value FROM {quoted(table)}"
        if not sounds_like_vectors(column) and column != self._vector:
            inside += f" LIMIT {_SAMPLED_ROWS}"
        found = self._found(
            f"SELECT value FROM ({inside}) WHERE typeof(value) = ? AND length(value) <= ? LIMIT ?",
            [kind, _MOST_VECTOR_BYTES, SAMPLE],
        )
        return [value for (value,) in self._readable(found)]

    def _found(self, sql: str, values: list[Any]) -> Iterator[Any]:
        yield from self.connection.execute(sql, values)

    def _readable(self, rows: Iterator[Any]) -> Iterator[Any]:
        """Yield the rows up to one that cannot be read: enough to judge the table by."""
        try:
            yield from rows
        except DAMAGE as exc:
            self.damage = exc

    def _kind(self, table: str, column: str, declared: str) -> str | None:
        samples = self._values(table, column, "blob")
        return (
            kind_of(samples, name=column, declared=declared, named=column == self._vector)
            if samples
            else None
        )

    def _is_text_of_vectors(self, table: str, column: str) -> bool:
        if not sounds_like_vectors(column):
            return False  # FieldMap has seen the first rows
        samples = [{column: value} for value in self._values(table, column, "text")]
        return FieldMap(samples, Defaults()).vector == column

    def rows(
        self, table: Table, *, having: str | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each row with its key, in the order of rowid or primary key."""
        shown = [*([table.rowid] if table.rowid else []), *table.columns]
        where = f" WHERE {quoted(having)} IS NOT NULL" if having else ""
        found = self.connection.execute(
            f"SELECT {', '.join(map(quoted, shown))} FROM {quoted(table.name)}{where}"
            f" ORDER BY {table.order}"
        )
        for values in found:
            rowid = values[0] if table.rowid else None
            row = dict(zip(table.columns, values[1:] if table.rowid else values, strict=True))
            yield _key(table, row, rowid), decoded(table, row)

    def count(self, table: str, *, having: str | None = None) -> int:
        """Return how many rows a table has, or how many of them have a column."""
        what = quoted(having) if having else "*"
        ((count,),) = self.connection.execute(f"SELECT count({what}) FROM {quoted(table)}")
        return int(count)

    def any(self, table: str, *, having: str) -> bool:
        """Say whether a row of a table has a column."""
        found = self.connection.execute(
            f"SELECT 1 FROM {quoted(table)} WHERE {quoted(having)} IS NOT NULL LIMIT 1"
        )
        return found.fetchone() is not None

    def unique(self, table: Table) -> list[str]:
        """Return the columns by each of which a row can be looked up."""
        found = [table.key[0]] if len(table.key) == 1 else []
        if table.rowid and not found:
            found.append(table.rowid)
        for (index,) in self.connection.execute(
            'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial', [table.name]
        ).fetchall():
            parts = self.connection.execute("SELECT name FROM pragma_index_info(?)", [index])
            names = [name for (name,) in parts]
            if len(names) == 1 and names[0] is not None and names[0] not in found:
                found.append(names[0])
        return found

    def foreign_keys(self, table: str) -> list[tuple[str, str, str | None]]:
        """Return column, table and column of each foreign key that is one column."""
        found = self.connection.execute(
            'SELECT id, "from", "table", "to" FROM pragma_foreign_key_list(?)', [table]
        ).fetchall()
        numbers = [row[0] for row in found]
        return [row[1:] for row in found if numbers.count(row[0]) == 1]

    def triggered(self, table: str, virtual: str) -> bool:
        """Say whether a trigger on *table* names *virtual*: it copies the vectors there."""
        named = re.compile(rf"\b{re.escape(virtual)}\b", re.I)
        return any(
            kind == "trigger" and of == table and isinstance(sql, str) and named.search(sql)
            for kind, _, of, sql in self._rows
        )


def _key(table: Table, row: dict[str, Any], rowid: Any) -> str:
    parts = [_as_text(row[column]) for column in table.key] or [str(rowid)]
    if None in parts:  # SQLite lets a primary key be NULL
        return f"#{rowid}"
    *before, last = (str(part) for part in parts)
    # Only before the last part, so that parts with "/" in them cannot be mistaken for others.
    return "/".join([*(part.replace("%", "%25").replace("/", "%2F") for part in before), last])


def _as_text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.hex()
    return None if value is None else str(value)


def decoded(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    for column, kind in table.kinds.items():
        value = row.get(column)
        if isinstance(value, bytes):
            row[column] = vector_from(value, kind)
    if table.metadata is not None and isinstance(value := row.get(table.metadata), str | bytes):
        row[table.metadata] = object_from_text(value)
    return row
