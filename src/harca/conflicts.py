"""What becomes of a record whose key is known already. Pure.

The outcome must not depend on the order in which a store is read, so one total order
stands behind all comparisons, of records with each other and with the row of an earlier
run: by date, where a record without one gives way; then contents that are new win over
those that have lost before, so that a store wins over what the table had of it, but a
conflict decided once stays decided; then by digest, for want of anything better.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from harca.errors import ConflictFound
from harca.model import OnConflict, Record

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Fate(StrEnum):
    """What is done with a record."""

    INSERT = "insert"
    REPLACE = "replace"
    RESUMED = "resumed"  # this run loaded it before it was interrupted
    UNCHANGED = "unchanged"
    CONFLICT = "conflict"  # it lost; goes to "superseded"
    DUPLICATE = "duplicate"  # the store has it twice; goes to "superseded"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a key's row.

    Attributes:
        digest: Of its contents, without what the application rewrites by reading.
        loaded_by_run: The row was inserted or replaced by this run.
        settled: This pass over the store has met the key before.
        losers: Digests that have lost under this key before.
        edited: Somebody has changed the row since it was loaded.
    """

    digest: bytes
    created_at: datetime | None
    origin: str
    loaded_by_run: bool
    settled: bool
    losers: frozenset[bytes] = frozenset()
    edited: bool = False

    @property
    def is_this_runs(self) -> bool:
        """Whether what the row holds is of this run."""
        return self.loaded_by_run and not self.edited


def decide(record: Record, digest: bytes, known: Known | None, policy: OnConflict) -> Fate:
    """Return what becomes of *record*.

    Raises:
        ConflictFound: The contents differ and *policy* is ``error``.
    """
    if known is None:
        return Fate.INSERT
    if digest == known.digest:
        if known.settled:
            return Fate.DUPLICATE
        return Fate.RESUMED if known.loaded_by_run else Fate.UNCHANGED
    if policy is OnConflict.ERROR:
        raise ConflictFound(record.key, first=known.origin, second=record.origin)
    return Fate.REPLACE if _outranks(record, digest, known, policy) else Fate.CONFLICT


def _outranks(record: Record, digest: bytes, known: Known, policy: OnConflict) -> bool:
    """One total order over a store's records and the row of an earlier run."""
    if policy is OnConflict.KEEP and not known.is_this_runs:
        return False
    oldest = policy is OnConflict.OLDEST
    never = _LAST if oldest else _FIRST  # without a date it gives way
    ours, theirs = record.created_at or never, known.created_at or never
    if ours != theirs:
        return (ours < theirs) if oldest else (ours > theirs)
    fresh = digest not in known.losers
    # What an attempt of this run left that was interrupted may be in the store no more.
    if not known.is_this_runs or not known.settled:
        return fresh and not oldest
    return (fresh, digest) > (known.digest not in known.losers, known.digest)


class SeenKeys:
    """The keys met in a pass, in 8 to 16 bytes each.

    Holds 64-bit hashes in sorted arrays, merged as they double (as an LSM tree does).
    A collision makes `in_batch` name a key too many, which costs a look-up in the table and
    nothing else.
    """

    def __init__(self) -> None:
        self._runs: list[NDArray[np.int64]] = []

    def in_batch(self, keys: list[str]) -> set[str]:
        """Return those of *keys* that may have been met before."""
        hashes = _hashes(keys)
        seen = np.zeros(len(keys), dtype=bool)
        for run in self._runs:
            at = np.searchsorted(run, hashes)
            seen |= run[np.minimum(at, len(run) - 1)] == hashes
        return {keys[index] for index in np.flatnonzero(seen)}

    def add(self, keys: Iterable[str]) -> None:
        """Remember *keys*."""
        run = np.unique(_hashes(list(keys)))
        if not run.size:
            return
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.union1d(run, self._runs.pop())
        self._runs.append(run)


def _hashes(keys: list[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, keys), dtype=np.int64, count=len(keys))
