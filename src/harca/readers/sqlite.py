"""SQLite databases of any program that has a table with vectors, and sqlite-vec's tables.

A column holds vectors if its BLOBs are numbers (`harca.readers.blobs`) or its texts lists of
numbers. Where texts and vectors stand in two tables, as with sqlite-vec, they are joined by
key; by which is told from foreign keys, triggers, the keys themselves and the tables' names.

Established from a plain table of 2024, LangChain's ``SQLiteVec`` (langchain_community), the
``embeddings.db`` of simonw/llm (``llm/embeddings_migrations.py``), and what `harca.readers.vec0`
names.
"""

# ruff: noqa: S608  # names cannot be parameters; `quoted` makes them safe, values are parameters

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from harca.errors import EmptyStore, LfsPointer, counted
from harca.model import Item, Reader, Reason, Rejection
from harca.readers import vec0
from harca.readers.base import Defaults, FieldNames, Several, StoreReader
from harca.readers.blobs import sounds_like_vectors
from harca.readers.fields import POSITION, SAMPLE, FieldMap, field_of, free_name
from harca.readers.files import as_payload, origin_of, printable, size_of, walk
from harca.readers.sqlite_file import DAMAGE, connect, is_sqlite, refusal
from harca.readers.sqlite_joins import Chosen, choose
from harca.readers.sqlite_tables import Database, Table, decoded
from harca.readers.values import plain_json
from harca.readers.vec0 import Problem, Vec0, quoted

FORMAT = "sqlite"

_SUFFIXES = frozenset({".db", ".db3", ".sqlite", ".sqlite3", ".s3db", ".sl3", ".vec"})


def open_path(path: Path, defaults: Defaults) -> Reader | None:
    """Return a reader if *path* is a database with vectors, or a folder with some.

    Raises:
        EmptyStore: There are databases, but none has vectors.
        SourceError: It cannot be read, or several of its tables have vectors.
    """
    if not path.is_dir():
        return _open(path, path, defaults) if is_sqlite(path) else None
    found: dict[str, Reader] = {}
    without: EmptyStore | None = None
    for file in _databases(path):
        try:
            reader = _open(file, path, defaults)
        except EmptyStore as exc:
            without = exc
            continue
        if reader is not None:
            found[origin_of(file, path)] = reader
    if len(found) > 1:
        return Several(found)
    if not found and without is not None:
        raise without
    return next(iter(found.values()), None)


def _databases(folder: Path) -> Iterator[Path]:
    for inner, names in walk(folder):
        for name in names:
            file = inner / name
            if file.suffix.lower() in _SUFFIXES:
                if is_sqlite(file):
                    yield file
                continue
            with suppress(LfsPointer):  # of any file, and no database by its name
                if is_sqlite(file):
                    yield file


def _open(file: Path, root: Path, defaults: Defaults) -> "SqliteReader | None":
    with closing(connect(file)) as connection:
        try:
            database = Database(connection, vector=defaults.fields.vector)
            if database.is_of_another_format():
                return None
            chosen = choose(database, file, defaults.fields.records)
        except DAMAGE as exc:
            raise refusal(file, exc) from exc
    return SqliteReader(file, root, defaults, chosen)


class SqliteReader(StoreReader):
    """Reads one table in the order of its keys; memory is a row, or sqlite-vec's chunk."""

    format = FORMAT

    def __init__(self, file: Path, root: Path, defaults: Defaults, chosen: Chosen) -> None:
        super().__init__(file, defaults)
        self._chosen = chosen
        self._origin = origin_of(file, root)

    def read(self) -> Iterator[Item | Rejection]:
        """Yield every row of the table."""
        table, join = self._chosen.table, self._chosen.join
        self.notes.files += 1
        self.notes.bytes += size_of(self.path)
        self.notes.left_out += self._chosen.left_out
        self.notes.why = f"table {printable(table.name)} of a SQLite database"
        if isinstance(table, Vec0):
            self.notes.why += ", of sqlite-vec"
        if join is not None:
            self.notes.why += f", with the texts of {printable(join.table.name)}"
        where = f"{self._origin}#{printable(table.name)}"
        last = None
        with closing(connect(self.path)) as connection:
            try:
                source = _Source(Database(connection), self._chosen, self.defaults.fields)
                fields = self._fields(source)
                for found in source.rows():
                    if isinstance(found, Problem):
                        yield Rejection(
                            f"{self._origin}#{printable(found.where)}",
                            Reason.UNPARSABLE,
                            found.what,
                        )
                        continue
                    last, row = found
                    yield fields.item(
                        row,
                        position=last,
                        origin=f"{where}/{printable(last)}",
                        source=self.source,
                        payload=partial(_payload, row),
                    )
                self._without_vectors(source)
            except DAMAGE as exc:
                if last is None:
                    raise refusal(self.path, exc) from exc
                yield Rejection(
                    where, Reason.UNREADABLE, f"cannot be read behind {printable(last)}: {exc}"
                )

    def _fields(self, source: "_Source") -> FieldMap:
        given = self.defaults.fields
        vector = given.vector or source.vector()
        own_key = given.id is None or given.id == source.key
        names = replace(given, vector=vector, id=POSITION if own_key else given.id, records=None)
        sample = source.sample(having=vector)
        is_there = any(field_of(row, vector) is not None for row in sample)
        if not sample or (given.vector is None and not is_there):
            # Else a name that nobody gave would be said to be missing: the file is damaged.
            names = FieldNames(id=POSITION)
        fields = FieldMap(sample, replace(self.defaults, fields=names))
        self.notes.fields = fields.shown
        if own_key:
            self.notes.fields["store_key"] = source.key
        self.notes.metric = source.metric(fields.vector)
        source.others = source.vectors - {fields.vector}
        self.notes.left_out += [
            (f"{printable(self._chosen.table.name)}.{name}", "further vectors of the same rows")
            for name in sorted(source.others | set(fields.unread))
        ]
        return fields

    def _without_vectors(self, source: "_Source") -> None:
        if source.texts_left:
            assert self._chosen.join is not None
            self.notes.left_out.append(
                (
                    printable(self._chosen.join.table.name),
                    f"{counted(source.texts_left, 'row')} without a vector",
                )
            )


class _Source:
    """The rows of what was chosen, for one pass."""

    def __init__(self, database: Database, chosen: Chosen, given: FieldNames) -> None:
        self._database, self._table, self._join = database, chosen.table, chosen.join
        self._models = _Models(database, chosen.table)
        self._dropped = None  # the key, which need not stand in the metadata too
        if isinstance(self._table, Table) and len(self._table.key) == 1:
            (key,) = self._table.key
            if key not in (self._table.text, given.text, given.vector, given.metadata):
                self._dropped = key
        self.texts_left = 0
        self.others: set[str] = set()

    @property
    def vectors(self) -> set[str]:
        """The columns with vectors."""
        if isinstance(self._table, Vec0):
            return {column.name for column in self._table.vectors}
        return set(self._table.vectors)

    @property
    def key(self) -> str:
        """What the key is taken from, for `inspect`."""
        if isinstance(self._table, Vec0):
            return self._table.id or "rowid"
        return "/".join(self._table.key) or "rowid"

    def vector(self) -> str | None:
        """Return the column with the vectors: the first, or the one that sounds most like it."""
        if isinstance(self._table, Vec0):
            return self._table.readable[0].name if self._table.readable else None
        return min(
            self._table.vectors, key=lambda name: not sounds_like_vectors(name), default=None
        )

    def metric(self, vector: str | None) -> str | None:
        """Return the metric of a column, if the store says."""
        if not isinstance(self._table, Vec0):
            return None
        return next((one.metric for one in self._table.vectors if one.name == vector), None)

    def sample(self, *, having: str | None) -> list[dict[str, Any]]:
        """Return the first rows that have a column, up to one that cannot be read."""
        sample: list[dict[str, Any]] = []
        try:
            found = islice(self.rows(having=having), SAMPLE)
            sample.extend(one[1] for one in found if not isinstance(one, Problem))
        except DAMAGE:
            if not sample:
                raise
        return sample

    def rows(self, *, having: str | None = None) -> Iterator[tuple[str, dict[str, Any]] | Problem]:
        """Yield each row with its key, and with the fields of its text's row."""
        if isinstance(self._table, Table):
            column = having if having in self._table.columns else None
            for key, row in self._database.rows(self._table, having=column):
                self._models.add_to(row)
                row = self._with_texts(row, row.get(self._join.source) if self._join else None)
                if self._dropped is not None:
                    row.pop(self._dropped, None)
                yield key, row
        else:
            yield from self._vec0(self._table)

    def _vec0(self, table: Vec0) -> Iterator[tuple[str, dict[str, Any]] | Problem]:
        joined = 0
        for found in vec0.rows(self._database.connection, table):
            if isinstance(found, Problem):
                yield found
                continue
            key, values = found
            row = self._with_texts(values, key)
            joined += len(row) > len(values)
            if table.text_id and table.id is not None and self._join is None and " " in str(key):
                row.setdefault(table.id, key)  # a text that is its own key
            yield str(key), row
        if self._join is not None:
            self.texts_left = max(0, self._database.count(self._join.table.name) - joined)

    def _with_texts(self, row: dict[str, Any], value: Any) -> dict[str, Any]:
        for name in self.others:
            row.pop(name, None)
        if self._join is None or value is None:
            return row
        other = self._join.table
        found = self._database.connection.execute(
            f"SELECT {', '.join(map(quoted, other.columns))} FROM {quoted(other.name)}"
            f" WHERE {quoted(self._join.column)} = ?",
            [value],
        ).fetchone()
        if found is None:
            return row
        text = decoded(other, dict(zip(other.columns, found, strict=True)))
        if text.get(self._join.column) == value:
            del text[self._join.column]
        # What is in both under one name is kept twice if it differs; no value overrides none.
        joined = text | {name: one for name, one in row.items() if one is not None}
        for name in text.keys() & row.keys():
            if text[name] is not None and row[name] is not None and text[name] != row[name]:
                joined[free_name(joined, name)] = text[name]
        return joined


class _Models:
    """The model of each row, where a foreign key leads to a table that names it.

    simonw/llm keeps it so: in ``collections``, one for many rows of ``embeddings``.
    """

    def __init__(self, database: Database, table: Table | Vec0) -> None:
        self._column, self._known = "", dict[Any, Any]()
        if (
            isinstance(table, Vec0)
            or FieldMap([dict.fromkeys(table.columns, "x")], Defaults()).model
        ):
            return
        for column, name, to in database.foreign_keys(table.name):
            other = database.tables.get(name)
            if other is None:
                continue
            model = FieldMap([dict.fromkeys(other.columns, "x")], Defaults()).model
            to = to or next(iter(other.key), None)
            if model is not None and to is not None:
                self._column, self._known = (
                    column,
                    dict(
                        database.connection.execute(
                            f"SELECT {quoted(to)}, {quoted(model)} FROM {quoted(name)}"
                        ).fetchall()
                    ),
                )
                return

    def add_to(self, row: dict[str, Any]) -> None:
        """Put the model into the row."""
        model = self._known.get(row.get(self._column))
        if model is not None:
            row["model"] = model


def _payload(row: dict[str, Any]) -> bytes:
    return as_payload(plain_json(row), b"")
