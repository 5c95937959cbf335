"""Which table of a SQLite database is read, and where the texts to its vectors are.

Two tables are joined by key. A text that is a key is proof by itself; numbers from 1 on are
keys of any table, so that they need a trigger, a foreign key or the tables' names besides.
"""

# ruff: noqa: S608  # names cannot be parameters; `quoted` makes them safe, values are parameters

import re
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from harca.errors import EmptyStore, SourceError
from harca.readers import vec0
from harca.readers.base import Defaults
from harca.readers.blobs import sounds_like_vectors
from harca.readers.fields import SAMPLE, FieldMap
from harca.readers.files import printable
from harca.readers.sqlite_tables import Database, Table, decoded
from harca.readers.values import vector_from_text
from harca.readers.vec0 import Problem, Vec0, quoted

_EQUAL_ROWS = 5
_REFERENCE = re.compile(r"(?:id|key|hash|ur[il]|path)$", re.I)
# What says only that a table holds vectors, or keys.
_NAMELESS = frozenset({
    "vec", "vector", "vectors", "vss", "embedding", "embeddings", "emb", "index", "idx", "id",
    "rowid", "table", "tbl", "store", "sqlite", "db", "data", "key", "fk", "pk", "ref", "uuid",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Join:
    """Where the texts of a table with vectors are.

    Attributes:
        source: The column of that table which leads there; of sqlite-vec's, its key.
        column: The column that it leads to.
    """

    table: Table
    source: str
    column: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is read: a table with vectors, or one of sqlite-vec's, and the texts to it."""

    table: Table | Vec0
    join: Join | None = None
    left_out: list[tuple[str, str]] = field(default_factory=list)


def choose(database: Database, file: Path, records: str | None) -> Chosen:
    """Return the table that is read.

    Raises:
        EmptyStore: None has vectors.
        SourceError: Several have, and the operator names none of them.
        sqlite3.Error, UnicodeError: The file is damaged.
    """
    plain = {name: table for name, table in database.tables.items() if table.vectors}
    virtual = database.vec0
    if records is not None:
        return _named(database, file, records)
    left_out = []
    for name, table in list(virtual.items()):
        copy = next((one for one in plain.values() if _is_copy(database, one, table)), None)
        if copy is not None:
            left_out.append((name, f"the same vectors as in {copy.name}"))
        if copy is not None or not database.count(f"{name}_rowids"):
            virtual = {one: other for one, other in virtual.items() if one != name}
    plain = {
        name: table
        for name, table in plain.items()
        if any(database.any(name, having=column) for column in table.vectors)
    }
    listed = ", ".join(printable(name) for name in [*plain, *virtual])
    if len(plain) + len(virtual) > 1:
        raise SourceError(
            f'"{printable(str(file))}" has vectors in several tables: {listed}',
            hint="Name the one to be read with --records TABLE.",
        )
    tables: list[Table | Vec0] = [*plain.values(), *virtual.values()]
    if tables:
        return _with_texts(database, file, tables[0], left_out)
    if "vss0" in database.modules():
        raise SourceError(
            f'"{printable(str(file))}" keeps its vectors in an index of sqlite-vss, '
            "which is not read",
            hint="Write them into a BLOB column of a table first, with the extension loaded.",
        )
    if database.damage is not None:
        raise database.damage
    names = ", ".join(printable(name) for name in [*list(database.tables)[:8], *database.vec0])
    raise EmptyStore(
        str(file), found=f"a SQLite database with {f'tables {names}' if names else 'no tables'}"
    )


def _named(database: Database, file: Path, records: str) -> Chosen:
    table = database.tables.get(records)
    if records in database.vec0 or (table is not None and table.vectors):
        chosen = database.vec0.get(records) or table
        assert chosen is not None
        return _with_texts(database, file, chosen, [], named=True)
    if table is not None:
        others: list[Table | Vec0] = [one for one in database.tables.values() if one.vectors]
        others += database.vec0.values()
        joins = [
            Chosen(one, join)
            for one in others
            if (join := _join_to(database, one, table)) is not None
        ]
        if len(joins) == 1:
            return joins[0]
    listed = [*(name for name, one in database.tables.items() if one.vectors), *database.vec0]
    raise SourceError(
        f'"{printable(str(file))}" has no table "{records}" with vectors; '
        f"found {', '.join(map(printable, listed)) or 'none'}",
        hint="Name one of these with --records, or leave it out.",
    )


def _is_copy(database: Database, plain: Table, virtual: Vec0) -> bool:
    """Say whether a virtual table indexes the vectors of an ordinary one."""
    names = [one.name for one in virtual.readable]
    if not names or plain.rowid is None:
        return False
    column = min(plain.vectors, key=lambda name: not sounds_like_vectors(name))
    shadow = f"{virtual.name}_rowids"
    if database.count(plain.name, having=column) < database.count(shadow):
        return False
    found = list(islice(vec0.rows(database.connection, virtual), _EQUAL_ROWS))
    by = plain.key[0] if virtual.text_id and len(plain.key) == 1 else plain.rowid
    for one in found:
        if isinstance(one, Problem):
            return False
        key, values = one
        row = database.connection.execute(
            f"SELECT {quoted(column)} FROM {quoted(plain.name)} WHERE {quoted(by)} = ?", [key]
        ).fetchone()
        vector = None if row is None else decoded(plain, {column: row[0]})[column]
        vector = vector_from_text(vector) if isinstance(vector, str) else vector
        other = values.get(names[0])
        if (
            not isinstance(vector, np.ndarray | list)
            or not isinstance(other, np.ndarray)
            or not np.array_equal(np.asarray(vector, np.float32), other.astype(np.float32))
        ):
            return False
    return bool(found)


def _with_texts(
    database: Database,
    file: Path,
    table: Table | Vec0,
    left_out: list[tuple[str, str]],
    *,
    named: bool = False,
) -> Chosen:
    """Return the table with the one that has its texts, if it has none itself.

    A table that the operator has *named* may stay without texts where none is sure.
    """
    if isinstance(table, Vec0) and not table.readable:
        raise SourceError(
            f'"{printable(str(file))}" has only bits as vectors in {printable(table.name)}',
            hint="The vectors that they were made from are not in it; embed the texts again.",
        )
    if isinstance(table, Table) and table.text is not None:
        return Chosen(table, None, left_out)
    if isinstance(table, Vec0) and _own_text(database, table):
        return Chosen(table, None, left_out)
    possible = [
        join
        for other in database.tables.values()
        if other.name != table.name
        and other.text is not None
        and not other.vectors
        and (join := _join_to(database, table, other)) is not None
    ]
    scores = [_evidence(database, table, join) for join in possible]
    best = max((score for score in scores if score is not None), default=None)
    joins = [join for join, score in zip(possible, scores, strict=True) if score == best]
    if len(joins) == 1 and best is not None:
        return Chosen(table, joins[0], left_out)
    if not joins or (best is None and named):
        return Chosen(table, None, left_out)
    listed = ", ".join(printable(join.table.name) for join in joins)
    raise SourceError(
        f'"{printable(str(file))}" has the vectors in {printable(table.name)}, and the texts may '
        f"be in {listed}",
        hint="Name the table with the texts with --records TABLE"
        + ("." if best else f", or {printable(table.name)} to load the vectors without texts."),
    )


def _own_text(database: Database, table: Vec0) -> bool:
    """Say whether a virtual table has the texts in columns of its own."""
    rows = islice(vec0.rows(database.connection, table), SAMPLE)
    sample = [
        {name: value for name, value in one[1].items() if name not in table.partitions}
        for one in rows
        if not isinstance(one, Problem)
    ]
    return FieldMap(sample, Defaults()).text is not None


def _sources(database: Database, table: Table | Vec0) -> tuple[str, list[str]]:
    """Return the table, and its columns, whose values can be keys of another table."""
    if isinstance(table, Vec0):
        return f"{table.name}_rowids", ["id" if table.text_id else "rowid"]
    columns = [name for name in table.columns if _REFERENCE.search(name)]
    return table.name, list(dict.fromkeys([*table.key, *columns]))


def _join_to(database: Database, table: Table | Vec0, other: Table) -> Join | None:
    """Return how most rows of *table* lead to rows of *other*; None if they do not."""
    if isinstance(table, Table):
        for column, name, to in database.foreign_keys(table.name):
            to = to or (other.key[0] if len(other.key) == 1 else None)
            if (
                name.lower() == other.name.lower()
                and to is not None
                and _tells_apart(database, table.name, column)
            ):
                return Join(other, column, to)
    name, sources = _sources(database, table)
    total = database.count(name)
    for source in sources:
        for column in database.unique(other):
            ((matching,),) = database.connection.execute(
                f"SELECT count(*) FROM {quoted(name)} AS a WHERE EXISTS (SELECT 1 FROM "
                f"{quoted(other.name)} AS b WHERE b.{quoted(column)} = a.{quoted(source)})"
            )
            if matching * 2 > total and _tells_apart(database, name, source):
                return Join(other, source, column)
    return None


def _tells_apart(database: Database, table: str, column: str) -> bool:
    """Say whether a column has hardly a value twice: a text is of one vector."""
    ((count, different),) = database.connection.execute(
        f"SELECT count({quoted(column)}), count(DISTINCT {quoted(column)}) FROM {quoted(table)}"
    )
    return bool(different * 10 > count * 9)


def _evidence(database: Database, table: Table | Vec0, join: Join) -> tuple[int, int, int] | None:
    """Return how sure a join is; None if it could as well be by chance.

    Numbers from 1 on are keys of any table, so that they say nothing by themselves.
    """
    other = join.table
    if isinstance(table, Vec0):
        declared = database.triggered(other.name, table.name)
        names = _words(table.name) | _words(table.id or "")
    else:
        declared = any(
            name.lower() == other.name.lower() for _, name, _ in database.foreign_keys(table.name)
        )
        names = _words(table.name) | _words(join.source)
    words = _words(other.name)
    common = len(names & words)
    name, _ = _sources(database, table)
    value = database.connection.execute(
        f"SELECT {quoted(join.source)} FROM {quoted(name)} LIMIT 1"
    ).fetchone()
    telling = value is not None and isinstance(value[0], str) and not value[0].isdigit()
    alone = sum(one.text is not None for one in database.tables.values()) == 1
    alike = alone and database.count(name) == database.count(other.name)
    if not (declared or common or telling or alike):
        return None
    return 2 * declared + telling, common, -len(words - names)


def _words(name: str) -> set[str]:
    """Return what a name is made of, without what says only that there are vectors."""
    parts = re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])", name)
    words = {part.lower() for part in parts} - _NAMELESS
    return {re.sub(r"ies$", "y", word).removesuffix("s") for word in words}
