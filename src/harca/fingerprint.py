"""Hash of a set of records, whatever their order; PostgreSQL computes the same in SQL.

A record's digest is SHA-256 over its fields, each with its length in front, so that no
two records share an input. The vector goes in as ``vector_send`` sends it (pgvector
src/vector.c: uint16 dimensions, uint16 zero, float32s, all big-endian): every bit counts.
`postgres.digest` is the other half, in SQL.
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from struct import Struct
from struct import error as StructError

import numpy as np
from numpy.typing import NDArray

from harca.canonical import object_text
from harca.model import Record

BUCKETS = 256

_LENGTH = Struct(">i")
_MICROS = Struct(">q")
_DIMS = Struct(">HH")
_DATED, _UNDATED = b"\x01", b"\x00"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MODULUS = 2**64
_PARTS = Struct(f">{BUCKETS}I{BUCKETS}Q")


def vector_bytes(embedding: NDArray[np.float32]) -> bytes:
    """Return *embedding* in pgvector's binary form."""
    return _DIMS.pack(len(embedding), 0) + embedding.astype(">f4").tobytes()


def digest(record: Record, *, without: Collection[str] = ()) -> bytes:
    """Return 32 bytes that stand for the record's contents.

    Args:
        without: Metadata keys to leave out: what the application rewrites by reading.

    The source label and the origin are not part of it: they say where a record came
    from, not what it is.
    """
    hashed = hashlib.sha256()
    for text in (
        record.key,
        record.model_id,
        record.content,
        object_text(record.metadata, without=without),
    ):
        raw = text.encode()
        hashed.update(_LENGTH.pack(len(raw)) + raw)
    if record.created_at is None:
        hashed.update(_UNDATED)
    else:
        hashed.update(_DATED + _MICROS.pack((record.created_at - _EPOCH) // _MICROSECOND))
    hashed.update(vector_bytes(record.embedding))
    return hashed.digest()


@dataclass(slots=True)
class Fingerprint:
    """Number of records and sum of their digests, in `BUCKETS` parts.

    Two sets are equal if all parts are; a part that differs holds the records that do.
    Sums, not XORs: XOR would cancel a record that is there twice.
    """

    counts: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    sums: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def add(self, record_digest: bytes) -> None:
        """Count one record in."""
        bucket = record_digest[0]
        self.counts[bucket] += 1
        self.sums[bucket] += int.from_bytes(record_digest[1:9], "big", signed=True)

    def add_part(self, bucket: int, count: int, total: int) -> None:
        """Count a whole part in, as the server returns it."""
        self.counts[bucket] += count
        self.sums[bucket] += total

    def add_all(self, other: "Fingerprint") -> None:
        """Count another set's records in."""
        for bucket in range(BUCKETS):
            self.add_part(bucket, *other._part(bucket))

    def packed(self) -> str:
        """Return all parts as text, for `unpacked`."""
        sums = (total % _MODULUS for total in self.sums)
        return b64encode(_PARTS.pack(*self.counts, *sums)).decode()

    @classmethod
    def unpacked(cls, text: str) -> "Fingerprint":
        """Return the fingerprint that *text* was packed from.

        Raises:
            ValueError: It is no such text.
        """
        try:
            parts = _PARTS.unpack(b64decode(text, validate=True))
        except StructError as exc:
            raise ValueError(f"no packed fingerprint: {exc}") from exc
        return cls(list(parts[:BUCKETS]), list(parts[BUCKETS:]))

    @property
    def count(self) -> int:
        """Number of records."""
        return sum(self.counts)

    def differing(self, other: "Fingerprint") -> list[int]:
        """Return the buckets in which the two sets differ."""
        return [bucket for bucket in range(BUCKETS) if self._part(bucket) != other._part(bucket)]

    def _part(self, bucket: int) -> tuple[int, int]:
        return self.counts[bucket], self.sums[bucket] % _MODULUS

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and not self.differing(other)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __str__(self) -> str:
        """Return count and hash on one line: ``2896:9f2c4e0d11aa37b5``."""
        parts = b"".join(
            _LENGTH.pack(count) + (total % _MODULUS).to_bytes(8, "big")
            for count, total in zip(self.counts, self.sums, strict=True)
        )
        return f"{self.count}:{hashlib.sha256(parts).hexdigest()[:16]}"


def fingerprint(records: Iterable[Record]) -> Fingerprint:
    """Return the fingerprint of *records*."""
    total = Fingerprint()
    for record in records:
        total.add(digest(record))
    return total
