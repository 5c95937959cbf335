"""What a load notes, and the port to what keeps it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from harca.batching import Batch
from harca.conflicts import Fate, Known
from harca.model import Record, Rejection, Tally


@dataclass(frozen=True, slots=True)
class Run:
    """A load and its resumptions.

    Attributes:
        store: What the store is called in the table.
        attempt: Counts from 1; what earlier attempts noted is dropped at the end.
        started_at: Of the first attempt; the ``updated_at`` of all its rows, so that a
            row changed since is told by another one.
    """

    run_id: int
    store: str
    attempt: int
    started_at: datetime
    resumed: bool = False


@dataclass(slots=True)
class Plan:
    """What a batch does to the table.

    Attributes:
        inserts: New rows, by key.
        replaces: New contents of rows, by key.
        overwritten: Keys of rows of earlier runs that are replaced.
        outdone: Keys of rows that stood for a record of this pass that has lost now.
        losers: Records that go to ``superseded``, with why.
        settled: Keys whose row will stand for a record of this pass.
        outlived: Keys whose row is of an earlier run and stays instead of a record.
        kept: Those of them of which that record was refused, and has not lost.
    """

    tally: Tally = field(default_factory=Tally)
    inserts: dict[str, Record] = field(default_factory=dict)
    replaces: dict[str, Record] = field(default_factory=dict)
    overwritten: list[str] = field(default_factory=list)
    outdone: list[str] = field(default_factory=list)
    losers: list[tuple[Fate, Record]] = field(default_factory=list)
    settled: set[str] = field(default_factory=set)
    outlived: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, eq=False)
class Refusal:
    """A record that the target does not take, and what is noted of it."""

    record: Record
    rejection: Rejection


class Target(Protocol):
    """Where a run's records go."""

    run: Run

    def has_rows(self) -> bool:
        """Say whether the store has any row already."""
        ...

    def known(self, keys: list[str], *, settled: set[str]) -> dict[str, Known]:
        """Return what is there under *keys*; *settled* ones stand for this pass's records."""
        ...

    def commit(self, batch: Batch, plan: Plan) -> list[Refusal]:
        """Bring a batch in and note it, in one transaction.

        Returns:
            Records that are refused: then nothing was brought in.
        """
        ...

    def give_up(self) -> None:
        """End what another thread is committing, whatever it waits for."""
        ...
