"""What a store holds, without a database."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from harca.canonical import object_text
from harca.estimate import Estimate, Volume, estimate
from harca.fingerprint import Fingerprint, digest
from harca.load import Intake
from harca.model import Reader, Record, Rejection, StoreNotes, Warn
from harca.options import LoadOptions
from harca.readers.base import open_store
from harca.readers.staging import archives_in, shown, staged

_LISTED = 20
_UNIT = 1e-3  # float32 and rounding in the files leave a norm of 1 no farther off


@dataclass(frozen=True, slots=True)
class Conflict:
    """One key with different contents in two places."""

    key: str
    origins: tuple[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return the conflict as ``--json`` shows it."""
        return {"key": self.key, "origins": list(self.origins)}


@dataclass(slots=True)
class SpaceFound:
    """One space of a store, and what can be told of its embeddings.

    Attributes:
        unit: Records whose embedding has length 1. Where all have, cosine similarity, inner
            product and Euclidean distance rank alike.
        norms: The smallest and the largest length.
    """

    model_id: str
    dims: int
    unit: int = 0
    norms: tuple[float, float] = (float("inf"), 0.0)
    volume: Volume = field(default_factory=Volume)

    @property
    def records(self) -> int:
        """How many records it has."""
        return self.volume.records

    def add(self, record: Record) -> None:
        """Take a record into account."""
        # In double precision: the squares of large float32 components overflow.
        norm = float(np.linalg.norm(record.embedding.astype(np.float64)))
        self.unit += abs(norm - 1) <= _UNIT
        self.norms = min(self.norms[0], norm), max(self.norms[1], norm)
        self.volume.records += 1
        self.volume.texts += len(record.content.encode())
        self.volume.metadata += len(object_text(record.metadata))
        self.volume.keys += len(record.key.encode())

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as ``--json`` shows them."""
        return {
            "model_id": self.model_id,
            "dims": self.dims,
            "records": self.records,
            "unit_length": self.unit,
            "norms": [round(norm, 6) for norm in self.norms],
        }


@dataclass(slots=True)
class Inspection:
    """What a store holds.

    Attributes:
        repeated: Records that are in the store twice, alike.
        repeated_texts: Records whose text another one before them has.
        repeated_vectors: Likewise their embedding, bit for bit.
        problems: The first rejections and oddities, each with where.
        fingerprint: Of the records, without what the application rewrites by reading.
    """

    format: str
    path: str
    notes: StoreNotes = field(default_factory=StoreNotes)
    records: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    expired: int = 0
    repeated: int = 0
    repeated_texts: int = 0
    repeated_vectors: int = 0
    spaces: list[SpaceFound] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    warnings: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    fingerprint: Fingerprint = field(default_factory=Fingerprint)

    @property
    def estimate(self) -> Estimate:
        """About what it will take in PostgreSQL."""
        return estimate((space.dims, space.volume) for space in self.spaces)

    def as_dict(self) -> dict[str, Any]:
        """Return the inspection as ``--json`` shows it."""
        return {
            "format": self.format,
            "why": self.notes.why,
            "path": self.path,
            "files": self.notes.files,
            "bytes": self.notes.bytes,
            "records": self.records,
            "rejected": self.rejected.total(),
            "reasons": dict(self.rejected),
            "conflicts": len(self.conflicts),
            "conflict_list": [conflict.as_dict() for conflict in self.conflicts[:_LISTED]],
            "repeated": self.repeated,
            "repeated_texts": self.repeated_texts,
            "repeated_vectors": self.repeated_vectors,
            "missing_texts": self.warnings[Warn.NO_TEXT],
            "expired": self.expired,
            "warnings": dict(self.warnings),
            "documents_without_vectors": len(self.notes.without_vectors),
            "left_out": len(self.notes.left_out),
            "left_out_list": [
                {"what": what, "why": why} for what, why in self.notes.left_out[:_LISTED]
            ],
            "problems": self.problems,
            "metric": self.notes.metric,
            "fields": self.notes.fields,
            "spaces": [space.as_dict() for space in self.spaces],
            "estimate": self.estimate.as_dict(),
        }


def inspect(path: str | Path, options: LoadOptions | None = None) -> Inspection:
    """Read a store once and say what is in it; writes nothing anywhere.

    Memory: about 300 bytes a record, to find keys, texts and vectors that occur twice.

    Raises:
        SourceError: There is no store, or none that can be read.
    """
    with staged(str(path)) as local:
        found = _inspect(open_store(local, (options or LoadOptions()).defaults), options, path)
        found.notes.left_out += [
            (name, "an archive, which can be given by itself") for name in archives_in(local)
        ]
    return found


def _inspect(reader: Reader, options: LoadOptions | None, path: str | Path) -> Inspection:
    now = datetime.now(UTC)
    intake = Intake(reader, options or LoadOptions(), now=now)
    found = Inspection(reader.format, shown(str(path)))
    spaces: dict[tuple[str, int], SpaceFound] = {}
    seen: dict[str, tuple[bytes, str]] = {}
    texts: set[bytes] = set()
    vectors: set[bytes] = set()
    for entry in intake.entries():
        if isinstance(entry, Rejection):
            found.rejected[entry.reason] += 1
            _note(found, str(entry))
            continue
        found.records += 1
        spaces.setdefault(entry.space, SpaceFound(*entry.space)).add(entry)
        found.repeated_texts += bool(entry.content) and _is_known(entry.content.encode(), texts)
        found.repeated_vectors += _is_known(entry.embedding.tobytes(), vectors)
        found.expired += _is_expired(entry, now)
        for warning in entry.warnings:
            _note(found, f"{entry.origin}: {warning}: loaded all the same")
        hashed = digest(entry, without=reader.volatile)
        found.fingerprint.add(hashed)
        before = seen.setdefault(entry.key, (hashed, entry.origin))
        if before[1] != entry.origin:
            if before[0] == hashed:
                found.repeated += 1
            else:
                found.conflicts.append(Conflict(entry.key, (before[1], entry.origin)))
    for origin, warning, detail in reader.notes.warnings:
        _note(found, f"{origin}: {warning}: {detail}")
    found.notes, found.warnings = reader.notes, intake.warnings
    found.spaces = [spaces[space] for space in sorted(spaces)]
    return found


def _is_known(data: bytes, known: set[bytes]) -> bool:
    hashed = hashlib.blake2b(data, digest_size=12).digest()
    if hashed in known:
        return True
    known.add(hashed)
    return False


def _is_expired(record: Record, now: datetime) -> bool:
    raw = record.metadata.get("expiresAt", "").strip('"')
    try:
        expires_at = datetime.fromisoformat(raw)
    except ValueError:
        return False
    return expires_at.tzinfo is not None and expires_at < now


def _note(found: Inspection, problem: str) -> None:
    if len(found.problems) < _LISTED:
        found.problems.append(problem)
