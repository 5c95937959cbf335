"""Prove that the table holds what the store holds: counts, spaces, every bit, by key."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from harca.batching import Batch
from harca.errors import NothingToVerify, counted
from harca.fingerprint import Fingerprint, digest
from harca.model import Record, Rejection, Tally

# Mismatches beyond this are counted, not listed.
LISTED = 100


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
        fingerprint: Of the rows, as found.
    """

    store: str
    checks: list[Check] = field(default_factory=list)
    mismatches: list[Mismatch] = field(default_factory=list)
    mismatch_count: int = 0
    touched: int = 0
    fingerprint: str = ""

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
            "fingerprint": self.fingerprint,
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """A record of one side without an equal on the other.

    Attributes:
        fields: Names of the fields that differ, where both sides have the key.
        metadata: Expected and found, where both sides have the key.
    """

    store_key: str
    origin: str
    is_missing: bool
    is_extra: bool
    fields: tuple[str, ...] = ()
    metadata: tuple[dict[str, Any], dict[str, Any]] = ({}, {})


class Rows(Protocol):
    """The rows of one store, with the records that lost against them."""

    store: str

    def ledger(self) -> tuple[Tally, Tally]:
        """Return the last run's counts as noted, and as they are counted now."""
        ...

    def spaces(self) -> dict[tuple[str, int], int]:
        """Return the number of records per space."""
        ...

    def fingerprint(self, *, without: Collection[str] = ()) -> Fingerprint:
        """Return the fingerprint of all records, metadata keys *without* left out."""
        ...

    def refused(self) -> Iterator[Record]:
        """Yield the records that the table would not take, as they are kept instead."""
        ...

    def outlived(self) -> tuple[str, str]:
        """Return the fingerprint of rows that stay instead of records: noted, and now."""
        ...

    def differences(
        self, expected: Iterable[tuple[Record, bytes]], buckets: list[int]
    ) -> Iterator[Difference]:
        """Yield what differs between *expected* and the rows of *buckets*."""
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
    outcome, found = _compared(reading, rows)
    expected = reading.records
    buckets = expected.differing(found)
    if buckets:
        _explain(entries, rows, buckets, volatile, outcome)
    same = not outcome.mismatch_count
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
    outcome, found = _compared(reading, rows)
    outcome.checks.append(Check("fingerprint of what was read", str(reading.records), str(found)))
    return outcome


def _compared(reading: Reading, rows: Rows) -> tuple[Verification, Fingerprint]:
    """Compare all that can be counted; return that, and the fingerprint of what is kept."""
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
    outcome.checks.append(Check("rejections", reading.rejected + refused.count, noted.rejected))
    if expected.count <= refused.count:
        # Where nothing is in, nothing is compared, and all would be well whatever happened.
        outcome.checks.append(Check("records that are not rejected", "1 or more", 0))
    outcome.checks.append(Check("rows kept from earlier runs", *rows.outlived()))
    found_spaces = Counter(rows.spaces()) + refused_spaces
    outcome.checks.append(Check("records", expected.count, sum(found_spaces.values())))
    for space in sorted(set(spaces) | set(found_spaces)):
        name = f"space {space[0]}/{space[1]}"
        outcome.checks.append(Check(name, spaces[space], found_spaces.get(space, 0)))
    found = rows.fingerprint(without=reading.without)
    outcome.fingerprint = str(found)
    found.add_all(refused)
    return outcome, found


def _explain(
    entries: Callable[[], Iterable[Record | Rejection]],
    rows: Rows,
    buckets: list[int],
    volatile: frozenset[str],
    outcome: Verification,
) -> None:
    wanted = set(buckets)
    expected = (
        (entry, hashed)
        for entry in entries()
        if isinstance(entry, Record) and (hashed := digest(entry))[0] in wanted
    )
    for difference in rows.differences(expected, buckets):
        if _is_touched(difference, volatile):
            outcome.touched += 1
            continue
        outcome.mismatch_count += 1
        if len(outcome.mismatches) < LISTED:
            outcome.mismatches.append(_mismatch(difference))


def _is_touched(difference: Difference, volatile: frozenset[str]) -> bool:
    """Say whether the store has only moved on as reading moves it: all of it, forward."""
    if difference.fields != ("metadata",) or not volatile:
        return False
    ours, theirs = difference.metadata
    changed = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    return (
        bool(changed)
        and changed <= volatile
        and all(
            type(ours.get(key)) is type(theirs.get(key)) and ours[key] > theirs[key]
            for key in changed
        )
    )


def _mismatch(difference: Difference) -> Mismatch:
    if difference.is_missing:
        return Mismatch(difference.store_key, "missing", f"in the store at {difference.origin}")
    if difference.is_extra:
        return Mismatch(difference.store_key, "extra", "in the table, not in the store")
    detail = f"in the store at {difference.origin}"
    if "metadata" in difference.fields:
        ours, theirs = difference.metadata
        keys = sorted(
            key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)
        )
        detail += f"; metadata keys: {', '.join(keys)}"
    return Mismatch(difference.store_key, ", ".join(difference.fields), detail)
