"""What a store held when a data revision was planned for it, and what has changed since."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harca.errors import (
    EmptyStore,
    Refused,
    SeveralFormats,
    StoreChanged,
    StoreNotFound,
    UnknownFormat,
    UsageError,
    counted,
)
from harca.fingerprint import Fingerprint, digest
from harca.inspect import Inspection
from harca.load import Intake
from harca.model import Expired, Rejection, Space
from harca.options import LoadOptions
from harca.readers.base import open_store
from harca.readers.staging import shown, staged


@dataclass(frozen=True, slots=True)
class Pins:
    """What is compared; the same whenever and wherever an unchanged store is read.

    Attributes:
        records: Records that could be loaded, those included that lose a conflict.
        rejected: Rejections by reason code.
        spaces: Records by model label and dimensions.
        fingerprint: Of the records; what the application rewrites by reading is left out.
    """

    format: str
    records: int
    rejected: Mapping[str, int]
    spaces: Mapping[tuple[str, int], int]
    fingerprint: str

    @classmethod
    def of(cls, found: Inspection) -> "Pins":
        """Return what of an inspection is pinned."""
        return cls(
            found.format,
            found.records,
            {str(reason): found.rejected[reason] for reason in sorted(found.rejected)},
            {(space.model_id, space.dims): space.records for space in found.spaces},
            str(found.fingerprint),
        )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Pins":
        """Return the pins as `as_dict` gives them, and a revision's file has them.

        Raises:
            UsageError: They were edited into something else.
        """
        try:
            spaces = {
                (label, dims): count
                for label, counts in raw["spaces"].items()
                for dims, count in counts.items()
            }
            return cls(
                raw["format"], raw["records"], dict(raw["rejected"]), spaces, raw["fingerprint"]
            )
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise UsageError(
                f"the revision's pins cannot be read: {type(exc).__name__}: {exc}",
                hint="Restore the file as `harca plan` wrote it, or plan the store again.",
            ) from exc

    def as_dict(self) -> dict[str, Any]:
        """Return the pins as they are written into a revision's file."""
        spaces: dict[str, dict[int, int]] = {}
        for (label, dims), count in self.spaces.items():
            spaces.setdefault(label, {})[dims] = count
        return {
            "format": self.format,
            "records": self.records,
            "rejected": dict(self.rejected),
            "spaces": spaces,
            "fingerprint": self.fingerprint,
        }

    def listed(self) -> list[dict[str, Any]]:
        """Return the spaces as ``--json`` shows them."""
        return [Space(*space, count).as_dict() for space, count in self.spaces.items()]

    def changes(self, now: "Pins") -> list[str]:
        """Return what differs *now*, in words; the contents only if no count does."""
        found = []
        if self.format != now.format:
            found.append(f"format {self.format} -> {now.format}")
        if self.records != now.records:
            found.append(f"records {self.records:,} -> {now.records:,}")
        found += [
            f"rejected as {reason} {before:,} -> {after:,}"
            for reason, before, after in _differing(self.rejected, now.rejected)
        ]
        found += [
            f"space {space[0]}/{space[1]} {before:,} -> {after:,}"
            for space, before, after in _differing(self.spaces, now.spaces)
        ]
        if not found and self.fingerprint != now.fingerprint:
            found.append(
                f"contents, with equal counts: fingerprint {self.fingerprint} -> {now.fingerprint}"
            )
        return found


def _differing(before: Mapping[Any, int], now: Mapping[Any, int]) -> list[tuple[Any, int, int]]:
    return [
        (key, before.get(key, 0), now.get(key, 0))
        for key in sorted(before.keys() | now.keys())
        if before.get(key, 0) != now.get(key, 0)
    ]


def whole(options: LoadOptions) -> LoadOptions:
    """Return the options with which a store is read for its pins.

    Which records have expired depends on the time: all of them are pinned, whether or not
    the load leaves the expired ones out.
    """
    return replace(options, expired=Expired.KEEP)


def measure(path: str | Path, options: LoadOptions) -> Pins:
    """Read a store once for its pins alone; memory is one record.

    Raises:
        SourceError: There is no store, or none that can be read.
    """
    with staged(str(path)) as local:
        reader = open_store(local, options.defaults)
        rejected: Counter[str] = Counter()
        spaces: Counter[tuple[str, int]] = Counter()
        total = Fingerprint()
        for entry in Intake(reader, whole(options), now=datetime.now(UTC)).entries():
            if isinstance(entry, Rejection):
                rejected[str(entry.reason)] += 1
            else:
                spaces[entry.space] += 1
                total.add(digest(entry, without=reader.volatile))
    return Pins(reader.format, total.count, rejected, spaces, str(total))


def require_as_planned(
    path: str | Path, pins: Pins, options: LoadOptions, *, revision: str
) -> None:
    """Read the store once, and refuse if it is not as it was planned.

    Raises:
        StoreChanged: Says what differs, or that there is no such store any more.
        Refused: It is as planned, and more records would be rejected than *options* allow.
        SourceError: It cannot be read.
    """
    store = shown(str(path))
    try:
        changes = pins.changes(measure(path, options))
    except (StoreNotFound, EmptyStore, UnknownFormat, SeveralFormats) as exc:
        changed = StoreChanged(store, revision=revision, changes=[str(exc)])
        if isinstance(exc, StoreNotFound):
            changed.hint = (
                f"If it has moved, say where it is with --store {revision}=PATH "
                f"(alembic: -x store.{revision}=PATH)."
            )
        raise changed from exc
    if changes:
        raise StoreChanged(store, revision=revision, changes=changes)
    count, allowed = sum(pins.rejected.values()), options.max_rejects or 0
    if count > allowed:
        reasons = ", ".join(f"{number} {reason}" for reason, number in pins.rejected.items())
        raise Refused(
            f'{counted(count, "record")} of "{store}" would be rejected: {reasons}; '
            f"{allowed} allowed",
            hint="`harca inspect` lists them. Repair them and plan the store again, or accept "
            f"them with --max-rejects {count} (alembic: -x max_rejects={count}).",
        )
