"""What a store holds, without a database."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harca.fingerprint import digest
from harca.load import Intake
from harca.model import Record, Rejection, Space, StoreNotes
from harca.options import LoadOptions
from harca.readers.base import open_store

_LISTED = 20


@dataclass(frozen=True, slots=True)
class Conflict:
    """One key with different contents in two places."""

    key: str
    origins: tuple[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return the conflict as ``--json`` shows it."""
        return {"key": self.key, "origins": list(self.origins)}


@dataclass(slots=True)
class Inspection:
    """What a store holds.

    Attributes:
        repeated: Records that are in the store twice, alike.
        problems: The first rejections and oddities, each with where.
    """

    format: str
    path: str
    notes: StoreNotes = field(default_factory=StoreNotes)
    records: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    expired: int = 0
    repeated: int = 0
    spaces: list[Space] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    warnings: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the inspection as ``--json`` shows it."""
        return {
            "format": self.format,
            "path": self.path,
            "files": self.notes.files,
            "bytes": self.notes.bytes,
            "records": self.records,
            "rejected": self.rejected.total(),
            "reasons": dict(self.rejected),
            "conflicts": len(self.conflicts),
            "conflict_list": [conflict.as_dict() for conflict in self.conflicts[:_LISTED]],
            "repeated": self.repeated,
            "expired": self.expired,
            "warnings": dict(self.warnings),
            "documents_without_vectors": len(self.notes.without_vectors),
            "left_out": len(self.notes.left_out),
            "problems": self.problems,
            "spaces": [space.as_dict() for space in self.spaces],
        }


def inspect(path: str | Path, options: LoadOptions | None = None) -> Inspection:
    """Read a store once and say what is in it; writes nothing anywhere.

    Memory: about 200 bytes a record, to find keys that occur twice.

    Raises:
        SourceError: There is no store, or none that can be read.
    """
    options = options or LoadOptions()
    reader = open_store(path, options.defaults)
    now = datetime.now(UTC)
    intake = Intake(reader, options, now=now)
    found = Inspection(reader.format, str(path))
    spaces: Counter[tuple[str, int]] = Counter()
    seen: dict[str, tuple[bytes, str]] = {}
    for entry in intake.entries():
        if isinstance(entry, Rejection):
            found.rejected[entry.reason] += 1
            _note(found, str(entry))
            continue
        found.records += 1
        spaces[entry.space] += 1
        found.expired += _is_expired(entry, now)
        for warning in entry.warnings:
            _note(found, f"{entry.origin}: {warning}: loaded all the same")
        hashed = digest(entry, without=reader.volatile)
        before = seen.setdefault(entry.key, (hashed, entry.origin))
        if before[1] != entry.origin:
            if before[0] == hashed:
                found.repeated += 1
            else:
                found.conflicts.append(Conflict(entry.key, (before[1], entry.origin)))
    for origin, warning, detail in reader.notes.warnings:
        _note(found, f"{origin}: {warning}: {detail}")
    found.notes, found.warnings = reader.notes, intake.warnings
    found.spaces = [Space(*space, count) for space, count in sorted(spaces.items())]
    return found


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
