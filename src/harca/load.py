"""Load a store: records -> batches -> rows and ledger, each batch once."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any

from harca.batching import Batch, batched
from harca.conflicts import Fate, Known, SeenKeys, decide
from harca.errors import AmbiguousIds, SourceError, TooManyRejections
from harca.fingerprint import digest
from harca.ledger import Plan, Target
from harca.model import Expired, Item, OnConflict, Reader, Record, Rejection, Tally
from harca.normalize import normalize, to_datetime
from harca.options import LoadOptions

Progress = Callable[[Tally], None]


@dataclass(slots=True)
class LoadResult:
    """What a load did.

    Attributes:
        outlived: Keys whose row is of an earlier run and stays instead of a record.
        kept: Those of them of which the record was refused by the server.
        skipped: Records left out because they are expired and the operator said so.
        warnings: How often each oddity was met in what was accepted.
        rejected: How often each reason was given.
    """

    tally: Tally
    seconds: float
    outlived: frozenset[str] = frozenset()
    skipped: int = 0
    warnings: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    kept: frozenset[str] = frozenset()


class Intake:
    """What of a reader's items is considered, as records and rejections.

    Loading and verifying read a store through the same intake, so that both see the same.
    """

    def __init__(self, reader: Reader, options: LoadOptions, *, now: datetime) -> None:
        self.reader, self.options, self.now = reader, options, now
        self.skipped = 0
        self.warnings: Counter[str] = Counter()

    def entries(self) -> Iterator[Record | Rejection]:
        """Yield what is accepted and what is rejected, in the store's order."""
        self.skipped, self.warnings = 0, Counter()
        skip = self.options.expired is Expired.SKIP
        for item in self.reader.items():
            if isinstance(item, Rejection):
                yield item
                continue
            if skip and self._is_expired(item):
                self.skipped += 1
                continue
            entry = normalize(item)
            if isinstance(entry, Record):
                self.warnings.update(entry.warnings)
            yield entry
        self.warnings.update(kind for _, kind, _ in self.reader.notes.warnings)

    def batches(self, *, rows: int) -> Iterator[Batch]:
        """Yield the same in batches of at most *rows*."""
        return batched(self.entries(), rows=rows)

    def records(self) -> Iterator[Record]:
        """Yield what is accepted."""
        return (entry for entry in self.entries() if isinstance(entry, Record))

    def _is_expired(self, item: Item) -> bool:
        # As HARCA has it: no date, or one that cannot be read, never expires.
        expires_at = to_datetime(item.expires_at)
        return expires_at is not None and expires_at < self.now


def load(
    intake: Intake,
    target: Target,
    options: LoadOptions,
    *,
    progress: Progress = lambda tally: None,
    before: Callable[[Batch], None] = lambda batch: None,
) -> LoadResult:
    """Load everything that *intake* yields; return what became of it.

    A batch is committed by a second thread while the next one is read. After an
    interruption every batch is in or not, never half, and the same call goes on.

    Args:
        progress: Is told what is in.
        before: Is called with each batch while no transaction is open; may take its time.

    Raises:
        ConflictFound: By `OnConflict.ERROR`; rows of earlier batches are in the table.
        TooManyRejections: More than ``max_rejects``, likewise.
        SourceError: The store turned out to be empty.
    """
    started = monotonic()
    planner = Planner(
        target,
        options.on_conflict,
        volatile=intake.reader.volatile,
        guesses_ids=intake.reader.guesses_ids,
    )
    total = Tally()
    rejected: Counter[str] = Counter()
    pending: Future[tuple[Batch, Tally]] | None = None

    def bring_in(batch: Batch) -> tuple[Batch, Tally]:
        while True:
            plan = planner.plan(batch)
            refusals = target.commit(batch, plan)
            if not refusals:
                planner.committed(plan)
                return batch, plan.tally
            # What lost against a record that is refused has not lost: it is planned anew.
            batch = batch.without(
                [refusal.record for refusal in refusals],
                [refusal.rejection for refusal in refusals],
            )

    def settle(pending: Future[tuple[Batch, Tally]]) -> None:
        nonlocal total
        batch, tally = pending.result()
        total += tally
        rejected.update(one.reason for one in batch.rejections)
        progress(total)
        if options.max_rejects is not None and total.rejected > options.max_rejects:
            raise TooManyRejections(
                total.rejected,
                allowed=options.max_rejects,
                run_id=target.run.run_id,
                last=str(batch.rejections[-1]),
            )

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="harca-commit") as committer:
        try:
            for batch in intake.batches(rows=options.batch_rows):
                if pending is not None:
                    settle(pending)
                before(batch)
                pending = committer.submit(bring_in, batch)
            if pending is not None:
                settle(pending)
        except KeyboardInterrupt:
            # The thread is waited for, and may wait for a lock that somebody holds for hours.
            target.give_up()
            raise
    if total.read == 0 and intake.skipped == 0:
        raise SourceError(
            "the store had records when it was opened, and none when it was read",
            hint="Is another program emptying it? Stop that program, or work on a copy.",
        )
    return LoadResult(
        total,
        monotonic() - started,
        frozenset(planner.outlived),
        intake.skipped,
        intake.warnings,
        rejected,
        frozenset(planner.kept),
    )


class Planner:
    """Decides what each batch does, record by record."""

    def __init__(
        self,
        target: Target,
        policy: OnConflict,
        *,
        volatile: Iterable[str] = (),
        guesses_ids: bool = False,
    ) -> None:
        self._target, self._policy, self._volatile = target, policy, frozenset(volatile)
        self._guesses_ids = guesses_ids
        self._seen = SeenKeys()
        self._had_rows = target.has_rows()
        # As many as there are conflicts, which is few.
        self.outlived: set[str] = set()
        self.kept: set[str] = set()

    def plan(self, batch: Batch) -> Plan:
        """Return what *batch* does, given what the table holds now."""
        plan = Plan()
        plan.tally.read = batch.read
        plan.tally.rejected = len(batch.rejections)
        keys = [record.key for record in batch.records] + sorted(batch.refused)
        settled = self._seen.in_batch(keys)
        # A first load of keys never met before needs to ask nothing.
        asked = keys if self._had_rows else sorted(settled)
        known = self._target.known(asked, settled=settled) if asked else {}
        for record in batch.records:
            self._place(record, plan, known)
        for key in batch.refused:
            if (row := known.get(key)) is not None and not row.settled:
                plan.kept.add(key)
        plan.outlived |= plan.kept
        return plan

    def committed(self, plan: Plan) -> None:
        """Remember the keys of a batch that is in."""
        self._seen.add(plan.settled)
        for of_all, of_batch in ((self.outlived, plan.outlived), (self.kept, plan.kept)):
            of_all -= plan.settled
            of_all |= of_batch

    def _place(self, record: Record, plan: Plan, known: dict[str, Known]) -> None:
        """Add one record to *plan*; keep *known* as it will be after it."""
        key, tally = record.key, plan.tally
        here = plan.inserts.get(key)
        before = self._known(here) if here is not None else known.get(key)
        if before is None:
            plan.inserts[key] = record
            plan.settled.add(key)
            tally.loaded += 1
            return
        record_digest = digest(record, without=self._volatile)
        fate = decide(record, record_digest, before, self._policy)
        if self._guesses_ids and before.settled and fate in (Fate.CONFLICT, Fate.REPLACE):
            raise AmbiguousIds(key, first=before.origin, second=record.origin)
        if fate in (Fate.CONFLICT, Fate.DUPLICATE):
            plan.losers.append((fate, record))
            tally.superseded += 1
            if not before.settled:
                plan.outlived.add(key)  # unless another record stands behind the row
            return
        plan.settled.add(key)
        plan.outlived.discard(key)
        if fate in (Fate.UNCHANGED, Fate.RESUMED):
            tally.unchanged += fate is Fate.UNCHANGED
            tally.loaded += fate is Fate.RESUMED
            known[key] = _after(record, record_digest, before.loaded_by_run, before.losers)
            return
        self._replace(record, before, plan)
        known[key] = _after(record, record_digest, True, before.losers | {before.digest})

    def _replace(self, record: Record, before: Known, plan: Plan) -> None:
        key, tally = record.key, plan.tally
        loser = plan.inserts.get(key) or plan.replaces.get(key)
        if loser is not None:
            # Nothing of it is in the table yet.
            plan.losers.append((Fate.CONFLICT, loser))
        else:
            if not before.is_this_runs:
                plan.overwritten.append(key)
            if before.settled:
                plan.outdone.append(key)
        if before.settled:
            tally.superseded += 1
            tally.loaded -= before.loaded_by_run
            tally.unchanged -= not before.loaded_by_run
        tally.loaded += 1
        if key in plan.inserts:
            plan.inserts[key] = record
        else:
            plan.replaces[key] = record

    def _known(self, record: Record) -> Known:
        return _after(record, digest(record, without=self._volatile), True)


def _after(
    record: Record,
    record_digest: bytes,
    loaded_by_run: bool,
    losers: frozenset[bytes] = frozenset(),
) -> Known:
    return Known(
        digest=record_digest,
        created_at=record.created_at,
        origin=record.origin,
        loaded_by_run=loaded_by_run,
        settled=True,
        losers=losers,
    )


def notes_of(result: LoadResult, reader: Reader) -> dict[str, Any]:
    """Return what the ledger notes beside the counts."""
    return {
        **({"kept_keys": sorted(result.kept)} if result.kept else {}),
        "skipped": result.skipped,
        "outlived": len(result.outlived),
        "warnings": dict(result.warnings),
        "rejected": dict(result.rejected),
        "files": reader.notes.files,
        "bytes": reader.notes.bytes,
        "without_vectors": len(reader.notes.without_vectors),
        "left_out": len(reader.notes.left_out),
    }
