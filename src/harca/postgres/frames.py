"""Rows in PostgreSQL's binary COPY format, straight from records.

The format: manual, "COPY", "Binary Format". Bytes are made here and not by adapting
values one by one, so that nothing has to be known about the vector type, not even
which schema it is in.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from struct import Struct

from harca.canonical import object_text
from harca.fingerprint import vector_bytes
from harca.model import Record

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_COUNT = Struct(">h")
_LENGTH = Struct(">i")
_INT4 = Struct(">i")
_INT8 = Struct(">q")
_NULL = _LENGTH.pack(-1)
_JSONB_VERSION = b"\x01"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's
_MICROSECOND = timedelta(microseconds=1)

# libpq copies what it is given; larger pieces cost cache, smaller ones calls.
_PIECE_BYTES = 256 * 1024


def text(value: str | None) -> bytes | None:
    """Return a ``text`` field."""
    return None if value is None else value.encode()


def int4(value: int | None) -> bytes | None:
    """Return an ``integer`` field."""
    return None if value is None else _INT4.pack(value)


def int8(value: int | None) -> bytes | None:
    """Return a ``bigint`` field."""
    return None if value is None else _INT8.pack(value)


def timestamptz(value: datetime | None) -> bytes | None:
    """Return a ``timestamptz`` field."""
    return None if value is None else _INT8.pack((value - _EPOCH) // _MICROSECOND)


def jsonb(record: Record) -> bytes:
    """Return a record's metadata as a ``jsonb`` field."""
    return _JSONB_VERSION + object_text(record.metadata).encode()


def vector(record: Record) -> bytes:
    """Return a record's embedding as a ``vector`` field."""
    return vector_bytes(record.embedding)


def row(*fields: bytes | None) -> bytes:
    """Return one row."""
    parts = [_COUNT.pack(len(fields))]
    for field in fields:
        if field is None:
            parts.append(_NULL)
        else:
            parts.append(_LENGTH.pack(len(field)))
            parts.append(field)
    return b"".join(parts)


def stream(rows: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a whole COPY stream in pieces of about `_PIECE_BYTES`."""
    piece = bytearray(_SIGNATURE)
    for one in rows:
        piece += one
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    piece += _TRAILER
    yield bytes(piece)
