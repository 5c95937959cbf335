"""Prove that the table holds what the store holds: counts, spaces, every bit, by key."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from harca.batching import Batch
from harca.errors import NothingToVerify, counted
from harca.fingerprint import BUCKETS, Fingerprint, digest
from harca.model import Record, Rejection, Tally

# Mismatches beyond this are counted, not listed.
LISTED = 100
# Of checks that failed, so many are noted with the run.
_NOTED = 20


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was compared."""

    name: str
    expected: Any
    found: Any

    @property
    def ok(self) -> bool:
        """True if both sides say the same."""
        return bool(self.expected == self.found)

    def as_dict(self) -> dict[str, Any]:
        """Return the check as ``--json`` shows it."""
        return {
            "name": self.name,
            "ok": self.ok,
            "expected": self.expected,
            "found": self.found,
        }


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One record that differs, and how: ``missing``, ``extra``, or the fields' names."""

    store_key: str
    difference: str
    detail: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the mismatch as ``--json`` shows it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Verification:
    """The outcome.

    Attributes:
        mismatches: The first `LISTED` of them.
        mismatch_count: All of them.
        touched: Records that the application has read since they were loaded, which
            rewrites their bookkeeping; no mismatch.
        rejected: Records of the store that are in no row; no mismatch, as they are counted.
        fingerprint: Of the rows, as found.
        seen: What they are, to be noted with the run.
    """

    store: str
    checks: list[Check] = field(default_factory=list)
    mismatches: list[Mismatch] = field(default_factory=list)
    mismatch_count: int = 0
    touched: int = 0
    rejected: int = 0
    fingerprint: str = ""
    seen: "Seen | None" = None

    @property
    def ok(self) -> bool:
        """True if something was compared and nothing differs."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def summary(self) -> str:
        """What differs, on one line."""
        if self.mismatch_count:
            return counted(self.mismatch_count, "record")
        failed = [check for check in self.checks if not check.ok]
        return "; ".join(
            f"{check.name}: expected {check.expected}, found {check.found}" for check in failed
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as ``--json`` shows it."""
        return {
            "ok": self.ok,
            "store": self.store,
            "checks": [check.as_dict() for check in self.checks],
            "mismatches": [mismatch.as_dict() for mismatch in self.mismatches],
            "mismatch_count": self.mismatch_count,
            "touched": self.touched,
            "rejected": self.rejected,
            "fingerprint": self.fingerprint,
        }

    def noted(self) -> dict[str, Any]:
        """Return what is kept of it with the run: how much was compared, what failed."""
        failed = [check.as_dict() for check in self.checks if not check.ok]
        return {
            "checks": len(self.checks),
            "failed": len(failed),
            "failures": failed[:_NOTED],
            "mismatches": self.mismatch_count,
            "touched": self.touched,
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """A record of one side without an equal on the other.

    Attributes:
        fields: Names of the fields that differ, where both sides have the key.
        metadata: Expected and found, where both sides have the key.
        metadata_keys: Those whose values differ, to the last digit of a number.
        bucket: Of the fingerprint, that the row is in.
    """

    store_key: str
    origin: str
    is_missing: bool
    is_extra: bool
    fields: tuple[str, ...] = ()
    metadata: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    metadata_keys: tuple[str, ...] = ()
    bucket: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the rows of a store are, in three fingerprints.

    Attributes:
        rows: Of all records.
        labels: Of what rows have beside their contents: their source and run.
        outlived: Of rows that stay instead of records.
    """

    rows: Fingerprint
    labels: Fingerprint
    outlived: Fingerprint


class Rows(Protocol):
    """The rows of one store, with the records that lost against them."""

    store: str

    def ledger(self) -> tuple[Tally, Tally]:
        """Return the last run's counts as noted, and as they are counted now."""
        ...

    def spaces(self) -> dict[tuple[str, int], int]:
        """Return the number of records per space."""
        ...

    def seals(self) -> Iterator[tuple[int, dict[str, str] | None, dict[str, str]]]:
        """Yield each run with the hashes of what its ledger held at its end, and holds now."""
        ...

    def refused(self) -> Iterator[Record]:
        """Yield the records that the table would not take, as they are kept instead."""
        ...

    def seen(self, *, without: Collection[str] = ()) -> Seen:
        """Return what the rows are now, metadata keys *without* left out."""
        ...

    def noted(self) -> Seen | None:
        """Return what they were when the last run was first verified; None if it is now.

        What is not noted as it should be is as that of no row.
        """
        ...

    def differences(
        self, expected: Iterable[tuple[Record, bytes]], buckets: list[int], labels: list[int]
    ) -> Iterator[Difference]:
        """Yield what differs between *expected* and the rows of *buckets*.

        Rows with labels in *labels* are compared with the records that they are equal to
        otherwise.
        """
        ...


@dataclass(slots=True)
class Reading:
    """What one reading of a store came to; nothing of it is held.

    Attributes:
        without: Metadata keys that are left out of the fingerprint.
    """

    without: frozenset[str] = frozenset()
    records: Fingerprint = field(default_factory=Fingerprint)
    spaces: Counter[tuple[str, int]] = field(default_factory=Counter)
    rejected: int = 0

    def add(self, entry: Record | Rejection) -> None:
        """Count one entry in."""
        if isinstance(entry, Rejection):
            self.rejected += 1
        else:
            self.records.add(digest(entry, without=self.without))
            self.spaces[entry.space] += 1

    def add_all(self, batch: Batch) -> None:
        """Count a batch in."""
        for record in batch.records:
            self.add(record)
        self.rejected += len(batch.rejections)


def verify(
    entries: Callable[[], Iterable[Record | Rejection]],
    rows: Rows,
    *,
    volatile: frozenset[str] = frozenset(),
    progress: Callable[[int], None] = lambda count: None,
) -> Verification:
    """Compare a store with its rows. Neither side is held in memory.

    Args:
        entries: Reads the store once per call. A second call is made only if something
            differs, to say what.
        volatile: Metadata keys that the application rewrites when it reads a record.

    Raises:
        NothingToVerify: The store has nothing.
    """
    reading = Reading()
    for number, entry in enumerate(entries(), 1):
        reading.add(entry)
        if number % 1000 == 0:
            progress(number)
    progress(reading.records.count + reading.rejected)
    outcome, found, before = _compared(reading, rows)
    assert outcome.seen is not None
    expected = reading.records
    buckets = expected.differing(found)
    labels = before.labels.differing(outcome.seen.labels)
    if buckets or labels:
        # What the application rewrites is excused in rows that nobody has changed.
        excused = set(range(BUCKETS)) - set(before.rows.differing(outcome.seen.rows))
        _explain(entries, rows, (buckets, labels), _Excuse(volatile, excused), outcome)
    # Where parts differ and nobody can say of which record, something is wrong all the same.
    same = not buckets or (outcome.touched and not outcome.mismatch_count)
    outcome.checks.append(
        Check("fingerprint", str(expected), str(expected) if same else str(found))
    )
    return outcome


def verify_reading(reading: Reading, rows: Rows) -> Verification:
    """Compare what a load has read with its rows, where the store itself has moved on since.

    What differs, nobody could say: the store is not read again.

    Raises:
        NothingToVerify: The load has read nothing.
    """
    outcome, found, _ = _compared(reading, rows)
    outcome.checks.append(Check("fingerprint of what was read", str(reading.records), str(found)))
    return outcome


def _compared(reading: Reading, rows: Rows) -> tuple[Verification, Fingerprint, Seen]:
    """Compare all that can be counted, and all that was noted.

    Returns that, the fingerprint of what is kept, and what the rows were when it was noted.
    """
    outcome = Verification(rows.store)
    expected, spaces = reading.records, reading.spaces
    if not expected.count + reading.rejected:
        raise NothingToVerify(f'"{rows.store}" has no record that could be in the table')
    refused, refused_spaces = Fingerprint(), Counter[tuple[str, int]]()
    for record in rows.refused():
        refused.add(digest(record, without=reading.without))
        refused_spaces[record.space] += 1
    noted, recounted = rows.ledger()
    outcome.checks.append(Check("ledger", noted.as_dict(), recounted.as_dict()))
    outcome.checks.append(
        Check(
            "accounting",
            noted.read,
            noted.loaded + noted.unchanged + noted.superseded + noted.rejected,
        )
    )
    outcome.rejected = reading.rejected + refused.count
    outcome.checks.append(Check("rejections", outcome.rejected, noted.rejected))
    if expected.count <= refused.count:
        # Where nothing is in, nothing is compared, and all would be well whatever happened.
        outcome.checks.append(Check("records that are not rejected", "1 or more", 0))
    for run_id, sealed, holds in rows.seals():
        outcome.checks.append(Check(f"ledger of run {run_id}", sealed, holds))
    found_spaces = Counter(rows.spaces()) + refused_spaces
    outcome.checks.append(Check("records", expected.count, sum(found_spaces.values())))
    for space in sorted(set(spaces) | set(found_spaces)):
        name = f"space {space[0]}/{space[1]}"
        outcome.checks.append(Check(name, spaces[space], found_spaces.get(space, 0)))
    found = rows.seen(without=reading.without)
    before = rows.noted() or found
    outcome.checks.append(
        Check("rows kept from earlier runs", str(before.outlived), str(found.outlived))
    )
    outcome.checks.append(Check("labels", str(before.labels), str(found.labels)))
    outcome.fingerprint, outcome.seen = str(found.rows), found
    everything = Fingerprint()
    everything.add_all(found.rows)
    everything.add_all(refused)
    return outcome, everything, before


@dataclass(frozen=True, slots=True)
class _Excuse:
    """Metadata keys that an application rewrites, and where that is no difference."""

    volatile: frozenset[str]
    buckets: set[int]

    def covers(self, difference: Difference) -> bool:
        """Say whether the store has only moved on as reading moves it: all of it, forward."""
        if difference.fields != ("metadata",) or difference.bucket not in self.buckets:
            return False
        changed = set(difference.metadata_keys)
        return (
            bool(changed)
            and changed <= self.volatile
            and all(_is_ahead(key, *difference.metadata) for key in changed)
        )


def _is_ahead(key: str, ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    mine, other = ours.get(key), theirs.get(key)
    if type(mine) is not type(other) or not isinstance(mine, int | float | str):
        return False
    return bool(mine > other)  # type: ignore[operator]  # of one type


def _explain(
    entries: Callable[[], Iterable[Record | Rejection]],
    rows: Rows,
    differing: tuple[list[int], list[int]],
    excuse: _Excuse,
    outcome: Verification,
) -> None:
    buckets, labels = differing
    wanted = set(range(BUCKETS) if labels else buckets)
    expected = (
        (entry, hashed)
        for entry in entries()
        if isinstance(entry, Record) and (hashed := digest(entry))[0] in wanted
    )
    for difference in rows.differences(expected, buckets, labels):
        if excuse.covers(difference):
            outcome.touched += 1
            continue
        outcome.mismatch_count += 1
        if len(outcome.mismatches) < LISTED:
            outcome.mismatches.append(_mismatch(difference))


def _mismatch(difference: Difference) -> Mismatch:
    if difference.is_missing:
        return Mismatch(difference.store_key, "missing", f"in the store at {difference.origin}")
    if difference.is_extra:
        return Mismatch(difference.store_key, "extra", f"{difference.origin}, not in the store")
    detail = f"in the store at {difference.origin}"
    if "metadata" in difference.fields:
        keys = difference.metadata_keys
        shown = ", ".join(key if key.isprintable() and key.strip() else f"{key!a}" for key in keys)
        detail += f"; metadata keys: {shown}" if keys else "; the metadata are no object"
    return Mismatch(difference.store_key, ", ".join(difference.fields), detail)
