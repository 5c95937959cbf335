"""Parquet, Arrow and Feather files as record batches, as far as they are whole.

Imports pyarrow, which is optional: readers import this module when they need it.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from harca.model import Reason, Rejection
from harca.readers.apart import Failed, child, feather_1
from harca.readers.arrow_rows import ERRORS, Layout, Unread, cut, layout_of, numbered, rows_at_once
from harca.readers.base import Defaults, FieldNames
from harca.readers.columnar import Kind
from harca.readers.files import open_binary, short

_READ_AHEAD = 1 << 20
_MOST_PAYLOAD_BYTES = 64 << 20
# An Arrow file is a stream behind this, with a footer that lists its batches.
_BEHIND_MAGIC = len(b"ARROW1\0\0")
_END_OF_STREAM = b"\xff\xff\xff\xff" + bytes(4)
_PARTITION = re.compile(r"(?P<name>[^=]+)=(?P<value>.*)", re.DOTALL)
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


class Unopened(Exception):
    """Why nothing of a file can be read."""


class Layouts:
    """How the records stand in the files below a folder; those of one schema are alike."""

    def __init__(
        self,
        root: Path | None,
        defaults: Defaults,
        *,
        hints: FieldNames | None = None,
        vectors: Sequence[str] = (),
    ) -> None:
        """Look for them with what `layout_of` takes."""
        self._root, self._defaults = root, defaults
        self._hints, self._vectors = hints, vectors
        self._known: dict[bytes, Layout] = {}

    def of(self, file: Path, kind: Kind) -> Layout:
        """Return how the records of *file* stand in it.

        Raises:
            Unopened: Nothing of it can be read.
            UsageError: The operator names a field that no record of the sample has.
        """
        partition = partition_of(file, self._root)
        schema = schema_of(file, kind)
        key = schema.remove_metadata().serialize().to_pybytes() + repr(sorted(partition)).encode()
        if key not in self._known:
            found = layout_of(
                schema,
                batches_of(file, kind),
                self._defaults,
                extra=partition,
                hints=self._hints,
                vectors=self._vectors,
            )
            if not found.sampled:
                return found  # the next file of the schema may say more
            self._known[key] = found
        return self._known[key]


def schema_of(file: Path, kind: Kind) -> Any:
    """Return the schema of a file.

    Raises:
        Unopened: Not even that can be read.
    """
    try:
        schema = _schema(file, kind)
        _ = schema.names  # which need not be UTF-8
    except ERRORS as exc:
        raise Unopened(short(exc)) from exc
    return schema


def _schema(file: Path, kind: Kind) -> Any:
    if kind is Kind.PARQUET:
        return pq.read_schema(file)
    if kind is Kind.FEATHER:
        return _feather(file).schema
    with pa.OSFile(str(file)) as source:
        if kind is Kind.ARROW_FILE:
            try:
                return pa.ipc.open_file(source).schema
            except ERRORS:
                source.seek(_BEHIND_MAGIC)
        return pa.ipc.open_stream(source).schema


def batches_of(file: Path, kind: Kind) -> Iterator[Any]:
    """Yield a file's record batches, in pieces; `Unread` where it is damaged.

    Behind damage of a size that is not known nothing is read any more: rows are known by
    their number.

    Raises:
        Unopened: Nothing of it can be read.
    """
    if kind is Kind.PARQUET:
        yield from _parquet_batches(file)
    elif kind is Kind.FEATHER:
        for batch in _feather(file):
            yield from cut(batch)
    elif kind is Kind.ARROW_FILE:
        yield from _arrow_batches(file)
    else:
        with pa.OSFile(str(file)) as source:
            yield from _stream_batches(source)


def _parquet_batches(path: Path) -> Iterator[Any]:
    try:
        # Buffered, columns are read page by page; by default, a row group as a whole.
        file = pq.ParquetFile(
            path, buffer_size=_READ_AHEAD, pre_buffer=False, page_checksum_verification=True
        )
    except ERRORS as exc:
        raise Unopened(short(exc)) from exc
    why_fewer = "fewer rows than the file's footer says"
    with file:
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            done, why = 0, why_fewer
            try:
                rows = rows_at_once(group.total_byte_size, group.num_rows)
                for batch in file.iter_batches(rows, row_groups=[number]):
                    yield batch
                    done += batch.num_rows
            except ERRORS as exc:
                why = short(exc)
            if done < group.num_rows:
                yield Unread(why, group.num_rows - done)
        listed = sum(file.metadata.row_group(at).num_rows for at in range(file.num_row_groups))
        if listed < file.metadata.num_rows:
            yield Unread(why_fewer, file.metadata.num_rows - listed)


def _arrow_batches(path: Path) -> Iterator[Any]:
    """Yield the batches that the footer of an Arrow file lists; without one, as of a stream."""
    with pa.OSFile(str(path)) as source:
        try:
            file = pa.ipc.open_file(source)
        except ERRORS:
            source.seek(_BEHIND_MAGIC)
            yield from _stream_batches(source)
            return
        for number in range(file.num_record_batches):
            try:
                batch = file.get_batch(number)
            except ERRORS as exc:
                yield Unread(short(exc), None)
                return
            yield from cut(batch)


def _stream_batches(source: Any) -> Iterator[Any]:
    try:
        batches = pa.ipc.open_stream(source)
    except ERRORS as exc:
        raise Unopened(short(exc)) from exc
    try:
        for batch in batches:
            yield from cut(batch)
        source.seek(source.tell() - len(_END_OF_STREAM))
        if source.read(len(_END_OF_STREAM)) != _END_OF_STREAM:
            yield Unread("cut short: the mark at its end is missing", None)
    except ERRORS as exc:
        yield Unread(short(exc), None)


def _feather(path: Path) -> Any:
    """Return a Feather file of version 1 as a stream of batches; it is read as a whole."""
    try:
        return pa.ipc.open_stream(child.ask(feather_1, str(path.absolute())))
    except (Failed, *ERRORS) as exc:
        raise Unopened(short(exc)) from exc


def partition_of(file: Path, root: Path | None) -> dict[str, str | None]:
    """Return the fields that a file's folders stand for, in Hive's manner: ``lang=en``."""
    folders = file.relative_to(root).parts[:-1] if root and root.is_dir() else ()
    found = {}
    for match in filter(None, map(_PARTITION.fullmatch, folders)):
        value = None if match["value"] == _NO_VALUE else unquote(match["value"])
        found[unquote(match["name"])] = value
    return found


def number_of_rows(file: Path) -> int:
    """Return how many rows a Parquet file says that it has.

    Raises:
        Unopened: It cannot be read.
    """
    try:
        rows: int = pq.read_metadata(file).num_rows
    except ERRORS as exc:
        raise Unopened(short(exc)) from exc
    return rows


def rows_of(
    file: Path, kind: Kind, layout: Layout, origin: str, *, root: Path | None = None
) -> Iterator[tuple[str, dict[str, Any] | Rejection]]:
    """Yield every row of a file with its place, ``FILE#ROW``, or why it is not read."""
    partition = partition_of(file, root)
    for place, row in numbered(batches_of(file, kind), layout):
        at = f"{origin}{place}"
        if not isinstance(row, Unread):
            yield at, {**row, **partition}
        elif row.rows == 1:
            yield at, Rejection(at, Reason.UNPARSABLE, row.detail)
        else:
            yield at, damaged(file, at, row.detail)


def damaged(file: Path, origin: str, detail: str) -> Rejection:
    """Return the rejection of what cannot be read of a file; its payload is the file if small."""
    try:
        with open_binary(file) as stream:
            payload: bytes | None = stream.read(_MOST_PAYLOAD_BYTES + 1)
    except OSError as exc:
        return Rejection(origin, Reason.UNREADABLE, exc.strerror or str(exc))
    if payload is not None and len(payload) > _MOST_PAYLOAD_BYTES:
        payload = None
    return Rejection(origin, Reason.UNPARSABLE, detail, payload)
