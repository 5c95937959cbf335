"""Arrow's record batches taken apart: for Parquet, Arrow, Feather, LanceDB and VDF.

Imports pyarrow, which is optional: readers import this module when they need it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types

from harca.model import Item
from harca.readers.base import Defaults, FieldNames
from harca.readers.fields import SAMPLE, FieldMap
from harca.readers.files import as_payload, short
from harca.readers.values import plain_json

BATCH_ROWS = 1_000
BATCH_BYTES = 8 << 20
"""What is taken apart at once at most, if a row is not larger."""

# What pyarrow raises, and what Python does where Arrow's values go beyond its own.
ERRORS = (pa.ArrowException, ValueError, KeyError, TypeError, ArithmeticError, MemoryError, OSError)

_BLOB_TYPES = (
    pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)  # fmt: skip
_NAMES_OF_BLOBS = ("embed", "vec", "emb")


@dataclass(frozen=True, slots=True)
class Unread:
    """Rows that cannot be read.

    Attributes:
        rows: How many; None if that cannot be told either.
    """

    detail: str
    rows: int | None = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """How the records stand in batches of one schema.

    Attributes:
        vectors: Columns that are taken as vectors.
        blobs: The type of number in columns that hold vectors as bytes.
        texts: Columns that hold texts as bytes, as old writers of Parquet leave them.
        columns: All columns, by the name that each has in a row.
        sampled: False if there was no row to tell from.
    """

    fields: FieldMap
    vectors: frozenset[str]
    blobs: Mapping[str, str]
    texts: frozenset[str]
    columns: tuple[str, ...]
    sampled: bool = True

    def item(self, row: Mapping[str, Any], **where: Any) -> Item:
        """Return the item that a row is; *where* as `FieldMap.item` takes it."""
        return self.fields.item(row, payload=self.payload_of(row), **where)

    def payload_of(self, row: Mapping[str, Any]) -> Callable[[], bytes]:
        """Return what gives a row as JSON, for a rejection."""
        return partial(_as_json, row)

    def rows(self, batch: Any) -> Iterator[dict[str, Any] | Unread]:
        """Yield every row of a batch, in order; a row that is damaged costs no other."""
        pieces = [batch]
        while pieces:
            piece = pieces.pop()
            try:
                piece.validate(full=True)  # before anything looks at an offset
                rows = self._rows(piece)
            except ERRORS as exc:
                if piece.num_rows <= 1:
                    yield Unread(short(exc))
                else:
                    half = piece.num_rows // 2
                    pieces += [piece.slice(half), piece.slice(0, half)]
            else:
                yield from rows

    def _rows(self, batch: Any) -> list[dict[str, Any]]:
        unread = self.fields.unread
        columns = {
            name: self._values(name, batch.column(at))
            for at, name in enumerate(self.columns)
            if name not in unread
        }
        return [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]

    def _values(self, name: str, column: Any) -> Sequence[Any]:
        if name in self.blobs:
            return [_vector_from_bytes(one, self.blobs[name]) for one in column.to_pylist()]
        if name in self.texts:
            return [_text(one) for one in column.to_pylist()]
        vectors = _vectors(column) if name in self.vectors else None
        return _plain(column) if vectors is None else vectors


def layout_of(
    schema: Any,
    batches: Iterator[Any],
    defaults: Defaults,
    *,
    extra: Mapping[str, Any] | None = None,
    hints: FieldNames | None = None,
    vectors: Sequence[str] = (),
) -> Layout:
    """Return how records stand in batches like the first of *batches*.

    Args:
        schema: Their schema.
        batches: Record batches, or `Unread` where one is damaged.
        extra: Fields that all rows have beside their columns.
        hints: Which column is what, as the store says; taken where the operator says nothing.
        vectors: Columns of which the store says that they hold vectors.

    Raises:
        UsageError: The operator names a field that no record of the sample has.
    """
    columns = _names(schema)
    vectors = [name for name in vectors if name in columns]
    as_it_is = Layout(FieldMap([], Defaults()), frozenset(), {}, frozenset(), columns)
    sample: list[dict[str, Any]] = []
    for batch in batches:
        if isinstance(batch, Unread):
            continue
        rows = as_it_is.rows(batch.slice(0, SAMPLE - len(sample)))
        sample += [{**row, **(extra or {})} for row in rows if not isinstance(row, Unread)]
        if len(sample) >= SAMPLE:
            break
    blobs, texts = {}, set()
    for at, name in enumerate(columns):
        if not any(is_blob(schema.field(at).type) for is_blob in _BLOB_TYPES):
            continue
        values = [row[name] for row in sample if row[name]]
        named = name in (defaults.fields.vector, *vectors) or any(
            part in name.lower() for part in _NAMES_OF_BLOBS
        )
        if named and (number := _number_of(values)) is not None:
            blobs[name] = number
        elif values and all(map(_is_text, values)):
            texts.add(name)
    for row in sample:
        row.update({name: _vector_from_bytes(row[name], kind) for name, kind in blobs.items()})
        row.update({name: _text(row[name]) for name in texts})
    fields = FieldMap(sample, _with(hints, defaults, sample), missing_is_nan=True)
    if vectors:
        fields.vector = vectors[0]
        fields.unread = [name for name in fields.unread if name not in vectors]
    arrays = {*vectors, *([fields.vector] if fields.vector else [])}
    return Layout(fields, frozenset(arrays), blobs, frozenset(texts), columns, bool(sample))


def _with(
    hints: FieldNames | None, defaults: Defaults, sample: Sequence[Mapping[str, Any]]
) -> Defaults:
    given = asdict(defaults.fields)
    taken = {
        column: name
        for column, name in asdict(hints or FieldNames()).items()
        if given[column] is None and any(row.get(name) is not None for row in sample)
    }
    return replace(defaults, fields=replace(defaults.fields, **taken))


def _as_json(row: Mapping[str, Any]) -> bytes:
    return as_payload(plain_json(row), b"")


def numbered(
    batches: Iterator[Any], layout: Layout
) -> Iterator[tuple[str, dict[str, Any] | Unread]]:
    """Yield every row with its place, ``#12``, counted from 0.

    Nothing is read behind rows of which it cannot be told how many they are.
    """
    number = 0
    for batch in batches:
        for row in [batch] if isinstance(batch, Unread) else layout.rows(batch):
            if not isinstance(row, Unread) or row.rows == 1:
                yield f"#{number}", row
            elif row.rows is None:
                yield f"#{number} and what follows", row
                return
            else:
                yield f"#{number} to #{number + row.rows - 1}", row
                number += row.rows - 1
            number += 1


def rows_at_once(nbytes: int, rows: int) -> int:
    """Return how many rows to take at once, where *rows* of them take *nbytes*."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(nbytes, 1)))


def cut(batch: Any) -> Iterator[Any]:
    """Yield a batch in pieces that are small enough to be taken apart, or `Unread`."""
    try:
        # As a whole: of a slice, pyarrow does not see that a list of fixed size is too short.
        batch.validate()
    except ERRORS as exc:
        yield Unread(short(exc), None)
        return
    size = rows_at_once(batch.nbytes, batch.num_rows)
    for start in range(0, batch.num_rows, size):
        yield batch.slice(start, size)


def _names(schema: Any) -> tuple[str, ...]:
    """Return the columns' names; Arrow lets two have the same, a row does not."""
    names: list[str] = []
    for at, name in enumerate(schema.names):
        names.append(name if name not in names else f"{name}_{at}")
    return tuple(names)


def _vectors(column: Any) -> list[Any] | None:
    """Return each row's numbers as an array, or None for none; None if this is no such column.

    A null among the numbers becomes NaN, with which the record is rejected.
    """
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    kind = column.type
    if pa.types.is_fixed_size_list(kind):
        starts = (np.arange(len(column), dtype=np.int64) + column.offset) * kind.list_size
        ends = starts + kind.list_size
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        offsets = column.offsets.to_numpy()
        starts, ends = offsets[:-1], offsets[1:]
    elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        starts = column.offsets.to_numpy()
        ends = starts + column.sizes.to_numpy()
    else:
        return None
    if not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        return None
    first, last = (int(starts.min()), int(ends.max())) if len(starts) else (0, 0)
    numbers = column.values.slice(first, max(last - first, 0)).to_numpy(zero_copy_only=False)
    there = column.is_valid().to_numpy(zero_copy_only=False)
    return [
        numbers[start:end] if is_there else None
        for start, end, is_there in zip(
            (starts - first).tolist(), (ends - first).tolist(), there.tolist(), strict=True
        )
    ]


def _plain(column: Any) -> Sequence[Any]:
    """Return a column's values as Python's own.

    A time that Python's types cannot hold is spelled out: digits below microseconds, years
    after 9999.
    """
    try:
        return _listed(_retyped(column, _in_microseconds))
    except (ValueError, OverflowError):
        return _listed(_retyped(column, _spelled_out))


def _listed(column: Any) -> Sequence[Any]:
    try:
        found: Sequence[Any] = column.to_pylist(maps_as_pydicts="strict")
    except KeyError:  # a map with a key twice: as pairs then
        found = column.to_pylist()
    return found


def _retyped(column: Any, of_time: Callable[[Any], Any]) -> Any:
    wanted = _type_with(column.type, of_time)
    return column if wanted == column.type else column.cast(wanted)


def _type_with(kind: Any, of_time: Callable[[Any], Any]) -> Any:
    """Return a type with every temporal one within it changed."""
    if pa.types.is_temporal(kind):
        return of_time(kind)
    if pa.types.is_struct(kind):
        return pa.struct([_field_with(kind.field(at), of_time) for at in range(kind.num_fields)])
    if pa.types.is_map(kind):
        return pa.map_(_field_with(kind.key_field, of_time), _field_with(kind.item_field, of_time))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_field_with(kind.value_field, of_time), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(_field_with(kind.value_field, of_time))
    if pa.types.is_large_list(kind):
        return pa.large_list(_field_with(kind.value_field, of_time))
    return kind


def _field_with(field: Any, of_time: Callable[[Any], Any]) -> Any:
    return field.with_type(_type_with(field.type, of_time))


def _in_microseconds(kind: Any) -> Any:
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_time64(kind):
        return pa.time64("us")
    return pa.duration("us") if pa.types.is_duration(kind) else kind


def _spelled_out(kind: Any) -> Any:
    if pa.types.is_duration(kind):
        return pa.int64()
    return kind if pa.types.is_interval(kind) else pa.string()


def _number_of(blobs: Sequence[bytes]) -> str | None:
    """Return the type of number that vectors are written with as bytes; None if by none."""
    for number in ("<f4", "<f8"):
        size = np.dtype(number).itemsize
        if all(len(one) % size == 0 for one in blobs):
            values = np.frombuffer(b"".join(blobs), number)
            sizes = np.abs(values[values != 0])
            # What is read as the wrong type has exponents of any kind.
            likely = (sizes > 1e-20) & (sizes < 1e9)
            if sizes.size and np.isfinite(sizes).all() and likely.mean() > 0.9:
                return number
    return None


def _vector_from_bytes(value: bytes | None, number: str) -> Any:
    if value is None or len(value) % np.dtype(number).itemsize:
        return value
    return np.frombuffer(value, number)


def _is_text(value: bytes) -> bool:
    return _text(value) is not value and not any(byte < 9 for byte in value)


def _text(value: bytes | None) -> str | bytes | None:
    """Return bytes as the text that they are, or as they are."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
