"""Read what the report tells. One transaction, which changes nothing and sees one moment."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import harca
from harca import migrations
from harca.errors import HarcaError
from harca.postgres import measurements, overview, owned
from harca.postgres.connect import Database, translated
from harca.postgres.measurements import Measurement
from harca.postgres.overview import Groups, Rejected, RunLine, Step, TableSize
from harca.report import cost, criteria, measured
from harca.report.cost import Prices, Room
from harca.report.criteria import Criterion
from harca.report.measured import Curve, Parity, Scale, Soak, Taken
from harca.status import Status, status
from harca.verify import Verification
from harca.watcher import Unwatched, Watcher

# Longer lists are cut, and the page says so: a page of ten thousand lines is read by nobody.
LISTED_RUNS = 50
LISTED_GROUPS = 50
LISTED_MEASUREMENTS = 50
_PLOTTED_RUNS = 4
_STEPS = 60
_EXAMPLES = 3
_MOST_EXAMPLE = 200
_NO_PRICES = Prices()

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Applied:
    """A revision of the schema that the database is at, or beyond."""

    revision: str
    message: str


@dataclass(frozen=True, slots=True)
class Reverified:
    """What comparing a store anew has come to; *error*: that it could not be compared."""

    store: str
    outcome: Verification | None = None
    error: str = ""


@dataclass(slots=True)
class Report:
    """All that the page shows.

    Attributes:
        has_measurements: The schema has come to the table for them.
        runs: The newest.
        latest: Of each store, the latest run that was not taken back.
        pace: How the newest runs got on, by number.
        tables: Sizes, that of the rows first.
        reverified: With `--verify` only.
        measurement_counts: By kind, of all that are kept.
    """

    taken_at: datetime
    status: Status
    applied: list[Applied] = field(default_factory=list)
    has_measurements: bool = False
    shared_buffers: str = ""
    sources: Groups = field(default_factory=lambda: Groups([], 0))
    stores: Groups = field(default_factory=lambda: Groups([], 0))
    runs: list[RunLine] = field(default_factory=list)
    run_count: int = 0
    latest: list[RunLine] = field(default_factory=list)
    pace: dict[int, list[Step]] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    tables: list[TableSize] = field(default_factory=list)
    rooms: list[Room] = field(default_factory=list)
    reverified: list[Reverified] | None = None
    parities: list[Parity] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    scales: list[Scale] = field(default_factory=list)
    soaks: list[Soak] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    measurement_counts: dict[str, int] = field(default_factory=dict)

    @property
    def criteria(self) -> list[Criterion]:
        """The plan's four, as far as they were measured."""
        return [
            criteria.equal(self.latest),
            criteria.faster(measured.latest_of_each(self.parities)),
            criteria.stable(measured.latest_of_each(self.soaks)),
            criteria.scaling(measured.latest_of_each(self.scales)),
        ]

    @property
    def differs(self) -> bool:
        """Whether a store that was compared for this report differs."""
        return any(one.outcome and not one.outcome.ok for one in self.reverified or [])

    @property
    def is_short(self) -> bool:
        """Whether a store that was to be compared for this report could not be."""
        return any(one.outcome is None for one in self.reverified or [])

    def all_taken(self) -> list[tuple[str, Taken]]:
        """Return which measurements there are, with their kinds."""
        return [
            *((measured.SEARCH, one.taken) for one in self.parities),
            *((measured.ADVISE, one.taken) for one in self.curves),
            *((measured.SCALE, one.taken) for one in self.scales),
            *((measured.SOAK, one.taken) for one in self.soaks),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return what was collected, as ``--json`` shows it."""
        found = self.status.as_dict()
        return {
            "taken_at": self.taken_at,
            "harca": harca.__version__,
            **{name: found[name] for name in _OF_STATUS},
            "criteria": [asdict(one) for one in self.criteria],
            "spaces": found["spaces"],
            "sources": [asdict(one) for one in self.sources.largest],
            "stores": [asdict(one) for one in self.stores.largest],
            "runs": [_run(one) for one in self.runs],
            "run_count": self.run_count,
            "pace": [
                {"run_id": run_id, "steps": [asdict(step) for step in steps]}
                for run_id, steps in sorted(self.pace.items())
            ],
            "verification": [_verification(run) for run in self.latest],
            "reverified": None
            if self.reverified is None
            else [
                {
                    "store": one.store,
                    "error": one.error,
                    "outcome": one.outcome.as_dict() if one.outcome else None,
                }
                for one in self.reverified
            ],
            "search": [asdict(one) for one in self.parities],
            "recall": [asdict(one) for one in self.curves],
            "scale": [asdict(one) for one in self.scales],
            "soak": [asdict(one) for one in self.soaks],
            "unreadable": self.unreadable,
            "tables": [_table(one) for one in self.tables],
            "cost": [asdict(one) for one in self.rooms],
            "rejections": [_rejected(one) for one in self.rejected],
            "measurements": self.measurement_counts,
        }


_OF_STATUS = (
    "database", "origin", "server", "pgvector", "schema", "schema_head", "data", "data_head",
    "rows", "foreign_rows",
)  # fmt: skip


def collect(
    target: Database,
    *,
    verify: bool = False,
    prices: Prices = _NO_PRICES,
    texts: bool = True,
    watcher: Watcher | None = None,
) -> Report:
    """Return what there is to report of *target*; changes nothing, unless it is to *verify*.

    Args:
        verify: Compare every store that was loaded with its rows first, which takes as long
            as `harca verify` does, and notes the outcome as that does.
        texts: Show the beginnings of rejected records.

    Raises:
        HarcaError: The database cannot be read.
    """
    reverified = _reverified(target, watcher or Unwatched()) if verify else None
    found = Report(datetime.now(UTC), status(target), reverified=reverified)
    found.applied = _applied(found.status.schema)
    with translated(), target.connect(autocommit=False) as conn:
        overview.begin(conn)
        found.shared_buffers = overview.setting(conn, "shared_buffers")
        if found.status.has_ledger:
            found.sources = overview.sources(conn, limit=LISTED_GROUPS)
            found.stores = overview.stores(conn, limit=LISTED_GROUPS)
            found.run_count = overview.run_count(conn)
            found.runs = overview.runs(conn, limit=LISTED_RUNS)
            found.latest = overview.runs(conn, limit=LISTED_GROUPS, latest=True)
            drawn = [run.run_id for run in found.runs if run.status != "rolled back" and run.read]
            found.pace = overview.pace(conn, drawn[:_PLOTTED_RUNS], steps=_STEPS)
            found.rejected = overview.rejected(
                conn, examples=_EXAMPLES, most=_MOST_EXAMPLE, texts=texts
            )
            found.tables = overview.sizes(conn)
        if owned.is_there(conn, "measurements"):
            found.has_measurements = True
            found.measurement_counts = measurements.counts(conn)
            _take_measurements(conn, found)
    found.rooms = cost.rooms(found.status.spaces, found.latest, found.tables, prices)
    return found


def _reverified(target: Database, watcher: Watcher) -> list[Reverified]:
    from harca.migrate import loaded_stores, verify_store

    outcomes = []
    if not migrations.is_applied(target, migrations.LEDGER):
        return []
    for name, path in loaded_stores(target):
        try:
            outcome = verify_store(target, path, name=name, watcher=watcher)
        except HarcaError as exc:
            # One store that is away must not keep the others out of the report.
            outcomes.append(Reverified(name, error=str(exc)))
        else:
            outcomes.append(Reverified(name, outcome))
    return outcomes


def _applied(revision: str | None) -> list[Applied]:
    if revision is None:
        return []
    steps = migrations.scripts().iterate_revisions(revision, "base")
    return [Applied(step.revision, step.doc) for step in steps][::-1]


def _take_measurements(conn: Any, found: Report) -> None:
    def read(kind: str, take: Callable[[Measurement], _Result]) -> list[_Result]:
        taken = []
        for one in measurements.newest(conn, kind, limit=LISTED_MEASUREMENTS):
            try:
                taken.append(take(one))
            except (KeyError, TypeError, ValueError, AttributeError):
                # Kept by another version, or changed by somebody since.
                found.unreadable.append(f"{kind}, number {one.measurement_id}")
        return taken

    found.parities = read(measured.SEARCH, measured.parity)
    found.curves = read(measured.ADVISE, measured.curve)
    found.scales = read(measured.SCALE, measured.scale)
    found.soaks = read(measured.SOAK, measured.soak)


def _run(run: RunLine) -> dict[str, Any]:
    return {**asdict(run), "rows_per_s": run.rows_per_s}


def _verification(run: RunLine) -> dict[str, Any]:
    return {
        "store": run.store,
        "run_id": run.run_id,
        "status": run.status,
        "fingerprint": run.fingerprint,
        **(run.verified or {}),
    }


def _table(table: TableSize) -> dict[str, Any]:
    return {**asdict(table), "total_bytes": table.total_bytes}


def _rejected(rejected: Rejected) -> dict[str, Any]:
    found = asdict(rejected)
    for example in found["examples"]:
        start = example["start"]
        example["start"] = None if start is None else start.decode("utf-8", "replace")
    return found
