"""Tables of sqlite-vec (``CREATE VIRTUAL TABLE ... USING vec0``), read without the extension.

The virtual table X keeps its contents in ordinary ones:

* ``X_chunks``: for each chunk of ``size`` places a bitmap ``validity`` of those in use, their
  ``rowids`` (int64) and the values of the partition keys, ``partitionNN``;
* ``X_vector_chunksNN``: the chunk's vectors in the same order; those of an index of 0.1.10 stand
  one by one in ``X_rescore_vectorsNN`` or, with DiskANN, in ``X_vectorsNN`` and no chunk;
* ``X_rowids``: each row's ``id``, if the primary key is a text, and where it stands;
* ``X_metadatachunksNN``: a bitmap, int64 or double for each place, or 16 bytes: a text's length
  (int32) and its first 12 bytes; longer texts are in ``X_metadatatextNN``;
* ``X_auxiliary``: a column ``valueNN`` for each column with a ``+``.

NN counts the columns of that kind from 00. Everything is little-endian. Established from
asg017/sqlite-vec, ``sqlite-vec.c``, and tables written by its versions 0.1.0 to 0.1.10-alpha.4.
"""

# ruff: noqa: S608  # names cannot be parameters; `quoted` makes them safe, values are parameters

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_IS_VEC0 = re.compile(r"\bUSING\s+[\"'`\[]?vec0[\"'`\]]?\s*\((?P<inside>.*)\)", re.I | re.S)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.S)
_VECTOR = re.compile(
    r"(?P<name>\w+)\s+(?P<type>float|f32|int8|i8|bit)\s*\[\s*(?P<dims>\d+)\s*\](?P<rest>.*)",
    re.I | re.S,
)
_KEY = re.compile(r"(?P<name>\w+)\s+(?P<type>\w+)\s+(?P<what>primary|partition)\s+key\b", re.I)
_AUXILIARY = re.compile(r"\+\s*(?P<name>\w+)")
_METADATA = re.compile(
    r"(?P<name>\w+)\s+(?P<type>text|int64|integer|int|float|double|boolean|bool)\b", re.I
)
_METRIC = re.compile(r"distance_metric\s*=\s*(\w+)", re.I)
_METRICS = {"cosine": "cosine", "l2": "l2"}
_TYPES = {"float": "<f4", "f32": "<f4", "int8": "i1", "i8": "i1"}
_SHORT_TEXT = 12  # VEC0_METADATA_TEXT_VIEW_DATA_LENGTH

SHADOWS = re.compile(
    r"_(?:info|chunks|rowids|auxiliary"
    r"|(?:vector_chunks|metadatachunks|metadatatext|rescore_chunks|rescore_vectors|vectors"
    r"|diskann_nodes|diskann_buffer|ivf_\w+?)\d\d)"
)
"""What the names of the ordinary tables have behind the virtual one's."""


@dataclass(frozen=True, slots=True)
class VectorColumn:
    """A column with vectors.

    Attributes:
        type: NumPy's name for a component; None for bits, which are no numbers.
        metric: ``cosine`` or ``l2``; None for L1.
    """

    name: str
    type: str | None
    dims: int
    metric: str | None


@dataclass(slots=True)
class Vec0:
    """A virtual table, as its statement declares it.

    Attributes:
        id: The primary key's name; None if it is declared without one.
        text_id: The primary key is a text, not the rowid.
        metadata: Names and types of the metadata columns.
    """

    name: str
    id: str | None = None
    text_id: bool = False
    vectors: list[VectorColumn] = field(default_factory=list)
    partitions: list[str] = field(default_factory=list)
    metadata: list[tuple[str, str]] = field(default_factory=list)
    auxiliary: list[str] = field(default_factory=list)

    @property
    def readable(self) -> list[VectorColumn]:
        """The columns whose vectors can be moved: floats, and int8 only if there is no other."""
        floats = [column for column in self.vectors if column.type == "<f4"]
        return floats or [column for column in self.vectors if column.type]


def declared(name: str, sql: str) -> Vec0 | None:
    """Return the table that the statement *sql* creates; None if it is of another module."""
    found = _IS_VEC0.search(_COMMENT.sub(" ", sql))
    if found is None:
        return None
    table = Vec0(name)
    for argument in _arguments(found["inside"]):
        if vector := _VECTOR.match(argument):
            metric = _METRIC.search(vector["rest"])
            table.vectors.append(
                VectorColumn(
                    vector["name"],
                    _TYPES.get(vector["type"].lower()),
                    int(vector["dims"]),
                    _METRICS.get(metric[1].lower()) if metric else "l2",
                )
            )
        elif key := _KEY.match(argument):
            if key["what"].lower() == "partition":
                table.partitions.append(key["name"])
            else:
                table.id, table.text_id = key["name"], key["type"].lower() == "text"
        elif auxiliary := _AUXILIARY.match(argument):
            table.auxiliary.append(auxiliary["name"])
        elif metadata := _METADATA.match(argument):
            table.metadata.append((metadata["name"], metadata["type"].lower()))
    return table


def _arguments(inside: str) -> list[str]:
    """Return what stands between the commas that are in no parentheses."""
    arguments, depth, start = [], 0, 0
    for at, char in enumerate(inside):
        depth += (char in "([") - (char in ")]")
        if char == "," and depth == 0:
            arguments.append(inside[start:at].strip())
            start = at + 1
    return [*arguments, inside[start:].strip()]


def quoted(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the table itself, and where."""

    where: str
    what: str


Row = tuple[Any, dict[str, Any]]
"""A row's key (the text id, or the rowid), and its columns without the key."""


def rows(connection: sqlite3.Connection, table: Vec0) -> Iterator[Row | Problem]:
    """Yield the rows in the order of the chunks; memory is a chunk.

    Raises:
        sqlite3.Error, UnicodeError: The file is damaged.
    """
    read = _Shadows(connection, table)
    seen = 0
    for chunk in read.chunks():
        for one in read.chunk(*chunk):
            seen += not isinstance(one, Problem)
            yield one
    for rowid, key in read.select("rowids", "SELECT rowid, id FROM {} WHERE chunk_id IS NULL"):
        seen += 1
        yield read.row(rowid, key, {})
    ((count,),) = read.select("rowids", "SELECT count(*) FROM {}")
    if seen < count:
        yield Problem(f"{table.name}_rowids", f"{count - seen} of {count} rows are in no chunk")


class _Shadows:
    """The ordinary tables behind a virtual one."""

    def __init__(self, connection: sqlite3.Connection, table: Vec0) -> None:
        self._connection, self._table = connection, table
        self._all = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        # Those whose vectors stand one by one, with the tables' names.
        self._singly = {
            number: suffix
            for number in range(len(table.vectors))
            for suffix in (f"rescore_vectors{number:02}", f"vectors{number:02}")
            if f"{table.name}_{suffix}" in self._all
        }

    def select(self, suffix: str, sql: str, *values: Any) -> sqlite3.Cursor:
        return self._connection.execute(sql.format(quoted(f"{self._table.name}_{suffix}")), values)

    def _one(self, suffix: str, sql: str, *values: Any) -> Any:
        found = self.select(suffix, sql, *values).fetchone()
        return None if found is None else found[0]

    def chunks(self) -> Iterator[tuple[Any, ...]]:
        partitions = "".join(f", partition{at:02}" for at in range(len(self._table.partitions)))
        yield from self.select(
            "chunks",
            f"SELECT chunk_id, size, validity, rowids{partitions} FROM {{}} ORDER BY chunk_id",
        )

    def chunk(
        self, number: Any, size: Any, validity: Any, rowids: Any, *partitions: Any
    ) -> Iterator[Row | Problem]:
        where = f"{self._table.name}_chunks#{number}"
        if not (
            isinstance(size, int)
            and isinstance(validity, bytes)
            and isinstance(rowids, bytes)
            and len(rowids) == 8 * size
            and len(validity) == (size + 7) // 8
        ):
            yield Problem(where, "its bitmap and rowids do not fit its size")
            return
        used = np.flatnonzero(
            np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")[:size]
        )
        if not len(used):
            return
        numbers = np.frombuffer(rowids, "<i8")
        places: dict[str, Any] = {}
        for at, column in enumerate(self._table.vectors):
            if column.type is None or at in self._singly:
                continue
            width = column.dims * np.dtype(column.type).itemsize
            data = self._one(
                f"vector_chunks{at:02}", "SELECT vectors FROM {} WHERE rowid = ?", number
            )
            if not isinstance(data, bytes) or len(data) != size * width:
                yield Problem(where, f'its vectors "{column.name}" are not {size} of {width} bytes')
                return
            places[column.name] = np.frombuffer(data, column.type).reshape(size, column.dims)
        for at, (name, kind) in enumerate(self._table.metadata):
            data = self._one(
                f"metadatachunks{at:02}", "SELECT data FROM {} WHERE rowid = ?", number
            )
            values = _metadata(data, kind, size)
            if values is None:
                yield Problem(where, f'its metadata "{name}" are not of {size} places')
                return
            places[name] = values
        fixed = dict(zip(self._table.partitions, partitions, strict=True))
        strays = 0
        for place in used.tolist():
            rowid = int(numbers[place])
            found = self.select(
                "rowids", "SELECT id, chunk_id, chunk_offset FROM {} WHERE rowid = ?", rowid
            ).fetchone()
            if found is None or found[1:] != (number, place):
                strays += 1
                continue
            values = {name: of_all[place] for name, of_all in places.items()}
            yield self.row(rowid, found[0], fixed | values)
        if strays:
            yield Problem(where, f"{strays} places in use that no row stands in")

    def row(self, rowid: int, text_id: Any, values: dict[str, Any]) -> Row:
        table = self._table
        for column in table.vectors:
            if column.name in values:
                values[column.name] = values[column.name].copy()  # not a view of the whole chunk
        for at, suffix in self._singly.items():
            column = table.vectors[at]
            data = self._one(suffix, "SELECT vector FROM {} WHERE rowid = ?", rowid)
            if column.type and isinstance(data, bytes):
                width = column.dims * np.dtype(column.type).itemsize
                values[column.name] = (
                    np.frombuffer(data, column.type) if len(data) == width else data
                )
        for at, (name, kind) in enumerate(table.metadata):
            if kind == "text" and name in values:
                values[name] = self._text(at, rowid, values[name])
        if table.auxiliary:
            names = ", ".join(f"value{at:02}" for at in range(len(table.auxiliary)))
            found = self.select(
                "auxiliary", f"SELECT {names} FROM {{}} WHERE rowid = ?", rowid
            ).fetchone()
            values |= zip(table.auxiliary, found or (None,) * len(table.auxiliary), strict=True)
        return (text_id if table.text_id else rowid), values

    def _text(self, at: int, rowid: int, view: bytes) -> Any:
        length = int.from_bytes(view[:4], "little")
        if length > _SHORT_TEXT:
            return self._one(f"metadatatext{at:02}", "SELECT data FROM {} WHERE rowid = ?", rowid)
        return view[4 : 4 + length].decode("utf-8", "surrogateescape")


def _metadata(data: Any, kind: str, size: int) -> Any:
    """Return a chunk's values of one metadata column; None if *data* does not fit."""
    if not isinstance(data, bytes):
        return None
    if kind in ("boolean", "bool"):
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        return bits[:size].astype(bool).tolist() if len(bits) >= size else None
    if kind == "text":
        if len(data) != 16 * size:
            return None
        return [data[at : at + 16] for at in range(0, len(data), 16)]
    if len(data) != 8 * size:
        return None
    return np.frombuffer(data, "<f8" if kind in ("float", "double") else "<i8").tolist()
