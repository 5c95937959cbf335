"""`harca.ledger.Target` in memory: the table and its ledger, for tests of logic."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from harca.batching import Batch
from harca.conflicts import Fate, Known
from harca.fingerprint import digest
from harca.ledger import Plan, Refusal, Run
from harca.model import Record, Tally

OVERWRITTEN = "overwritten"
STARTED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    record: Record
    run_id: int


@dataclass(frozen=True)
class Superseded:
    run_id: int
    attempt: int
    kind: str
    record: Record


@dataclass
class MemoryTable:
    """The rows of one store, and what was noted about its runs.

    Attributes:
        fail_at_batch: The commit of this batch fails, as if the connection were lost.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    superseded: list[Superseded] = field(default_factory=list)
    batches: list[tuple[Run, Tally]] = field(default_factory=list)
    run: Run | None = None
    finished: bool = True
    fail_at_batch: int | None = None

    def begin(self, *, volatile: Iterable[str] = ()) -> "MemoryTarget":
        """Begin a run, or take up the one that was interrupted."""
        number, attempt = (self.run.run_id, self.run.attempt) if self.run else (0, 0)
        if self.finished:
            self.run = Run(number + 1, "store", 1, STARTED)
        else:
            self.run = Run(number, "store", attempt + 1, STARTED, resumed=True)
        self.finished = False
        return MemoryTarget(self, self.run, frozenset(volatile))

    def contents(self) -> dict[str, bytes]:
        """Return what stands in the table: a digest of everything, by key."""
        return {key: digest(row.record) for key, row in self.rows.items()}

    def held(self) -> Counter[bytes]:
        """Return what the table and the last run's losers hold together."""
        assert self.run is not None
        lost = [
            one.record
            for one in self.superseded
            if one.run_id == self.run.run_id and one.kind != OVERWRITTEN
        ]
        kept = [row.record for row in self.rows.values()]
        return Counter(digest(record) for record in kept + lost)


@dataclass
class MemoryTarget:
    """One run into a `MemoryTable`; does, step by step, what `PostgresTarget` does."""

    table: MemoryTable
    run: Run
    volatile: frozenset[str]

    def has_rows(self) -> bool:
        return bool(self.table.rows)

    def known(self, keys: list[str], *, settled: set[str]) -> dict[str, Known]:
        return {
            key: Known(
                digest=self._digest(row.record),
                created_at=row.record.created_at,
                origin=f"the table (run {row.run_id})",
                loaded_by_run=row.run_id == self.run.run_id,
                settled=key in settled,
                losers=frozenset(
                    self._digest(one.record)
                    for one in self.table.superseded
                    if one.record.key == key
                    and (
                        one.kind == Fate.CONFLICT
                        or (one.kind == OVERWRITTEN and one.run_id == self.run.run_id)
                    )
                ),
            )
            for key in keys
            if (row := self.table.rows.get(key)) is not None
        }

    def commit(self, batch: Batch, plan: Plan) -> list[Refusal]:
        if batch.number == self.table.fail_at_batch:
            raise ConnectionError("server closed the connection unexpectedly")
        self._keep(plan.overwritten, OVERWRITTEN)
        self._keep(plan.outdone, Fate.CONFLICT)
        for key, record in plan.replaces.items():
            assert key in self.table.rows, "UPDATE finds no row"
            self.table.rows[key] = Row(record, self.run.run_id)
        for key, record in plan.inserts.items():
            assert key not in self.table.rows, "duplicate key value violates unique constraint"
            self.table.rows[key] = Row(record, self.run.run_id)
        for fate, record in plan.losers:
            self._supersede(fate, record)
        self.table.batches.append((self.run, plan.tally))
        return []

    def give_up(self) -> None:
        """Nothing waits for anybody here."""

    def finish(self) -> Tally:
        """Drop what earlier attempts noted; return the run's tally."""
        current = (self.run.run_id, self.run.attempt)
        self.table.superseded = [
            one
            for one in self.table.superseded
            if one.run_id != self.run.run_id
            or one.attempt == self.run.attempt
            or one.kind == OVERWRITTEN
        ]
        self.table.finished = True
        total = Tally()
        for run, tally in self.table.batches:
            if (run.run_id, run.attempt) == current:
                total += tally
        return total

    def _digest(self, record: Record) -> bytes:
        return digest(record, without=self.volatile)

    def _keep(self, keys: Iterable[str], kind: str) -> None:
        for key in keys:
            self._supersede(kind, self.table.rows[key].record)

    def _supersede(self, kind: str, record: Record) -> None:
        self.table.superseded.append(Superseded(self.run.run_id, self.run.attempt, kind, record))
