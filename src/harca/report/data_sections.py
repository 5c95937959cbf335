"""What was moved: inventory, throughput, verification, rejections, history."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from harca.errors import counted
from harca.postgres.overview import Example, Groups, RunLine, Step
from harca.redact import redacted
from harca.report import figures, plots
from harca.report.collect import LISTED_GROUPS, Report
from harca.report.markup import Child, Html, element, foreign, joined
from harca.report.parts import (
    Column,
    Section,
    code,
    facts,
    figure,
    missing,
    moment,
    number,
    paragraph,
    side_by_side,
    table,
)

_MIGRATE = "harca migrate STORE"
_MARKED = 24
_STATUS = {
    "verified": ("good", "verified"),
    "different": ("bad", "different"),
    "loaded": ("open", "not verified"),
    "loading": ("open", "loading"),
    "rolled back": ("open", "rolled back"),
}


def inventory(report: Report) -> Section:
    """Return what there is: spaces, stores, sources, server, schema."""
    status = report.status
    parts: list[Html] = []
    if status.spaces:
        parts.append(_spaces(report))
        stores = _groups("stores", "Rows by store", "store", report.stores, "not loaded by harca")
        sources = _groups("sources", "Rows by source", "source", report.sources, "none")
        parts.append(side_by_side(stores, sources))
    else:
        parts.append(missing("The table has no rows.", _MIGRATE))
    at_head = status.schema is not None and status.schema == status.schema_head
    parts.append(
        facts(
            [
                ("Database", foreign(redacted(status.database), most=200)),
                ("Server", f"PostgreSQL {status.server}"),
                ("pgvector", status.pgvector or "not installed"),
                ("Shared buffers", report.shared_buffers or "–"),
                (
                    "Schema",
                    joined(
                        [
                            code(status.schema or "none"),
                            ", the newest" if at_head else ", not the newest: alembic upgrade head",
                        ]
                    ),
                ),
                ("Data", joined([code(status.data or "none")])),
            ]
        )
    )
    return Section("inventory", "Inventory", joined(parts))


def _spaces(report: Report) -> Html:
    spaces = sorted(report.status.spaces, key=lambda space: -space["records"])
    shown = spaces[:LISTED_GROUPS]
    return table(
        "spaces",
        f"{counted(report.status.rows, 'row')} in {counted(len(spaces), 'space')}; only vectors "
        "of one space are compared",
        [Column("Model"), number("Dimensions"), number("Rows"), Column("Searched by")],
        [
            (
                foreign(space["model_id"]),
                figures.whole(space["dims"]),
                figures.whole(space["records"]),
                code(space["index"])
                if space["index"] != "exact"
                else f"comparing all, exactly: {space['why_exact']}",
            )
            for space in shown
        ],
        more=len(spaces) - len(shown),
    )


def _groups(name: str, caption: str, head: str, groups: Groups, without: str) -> Html:
    return table(
        name,
        caption,
        [Column(head.capitalize()), number("Rows")],
        [
            (
                without if group.name is None else foreign(redacted(group.name)),
                figures.whole(group.rows),
            )
            for group in groups.largest
        ],
        more=groups.count - len(groups.largest),
    )


def throughput(report: Report) -> Section:
    """Return how fast stores were loaded."""
    runs = [run for run in report.runs if run.read]
    if not runs:
        return Section("throughput", "Load throughput", missing("Nothing was loaded.", _MIGRATE))
    timed = [run for run in runs if run.rows_per_s is not None][:10]
    parts: list[Html | None] = [
        paragraph(
            "Reading, normalising and committing, without indexes and verification, which come "
            "after it. Records that were there already are read and compared, not written."
        ),
        side_by_side(_pace_plot(report.pace), _rate_plot(timed) if timed else None),
        table(
            "loads",
            "Runs that read something, the newest first",
            [
                Column("Run"), Column("Store"), number("Read"), number("Loaded"),
                number("Seconds"), number("Records/s"), number("Bytes of the store"),
            ],
            [
                (
                    f"{run.run_id}",
                    foreign(redacted(run.store), most=60),
                    figures.whole(run.read),
                    figures.whole(run.loaded),
                    "–" if run.seconds is None else f"{run.seconds:,.2f}",
                    figures.rate(run.rows_per_s),
                    figures.size(run.bytes),
                )
                for run in runs
            ],
            more=report.run_count - len(report.runs),
        ),
    ]  # fmt: skip
    if any(run.attempt > 1 for run in runs):
        parts.append(
            paragraph("A run that was interrupted and taken up again has no time of its own.")
        )
    return Section("throughput", "Load throughput", joined(parts))


def _pace_plot(pace: Mapping[int, Sequence[Step]]) -> Html | None:
    series, rows = [], []
    for run_id, steps in sorted(pace.items()):
        points: list[tuple[float, float]] = []
        before = 0.0
        for step in steps:
            if step.until_s > before:
                rate = step.read / (step.until_s - before)
                points.append((step.until_s, rate))
                rows.append((str(run_id), f"{step.until_s:.2f}", f"{step.read:,}", f"{rate:,.0f}"))
                before = step.until_s
        if len(points) > 1:
            first = (0.0, points[0][1])
            series.append(plots.Series(f"run {run_id}", [first, *points]))
    if not series:
        return None
    rates = [rate for one in series for _, rate in one.points]
    return figure(
        plots.lines(
            plots.Plot(
                "plot-pace",
                "Records per second while loading",
                f"{counted(len(series), 'run')}; between {min(rates):,.0f} and {max(rates):,.0f} "
                "records per second.",
            ),
            series,
            plots.Axis("seconds since the run began", least=0),
            plots.Axis("records/s", least=0),
            steps=True,
            markers=max(len(one.points) for one in series) <= _MARKED,
        ),
        "How fast batches were committed, over the time of a load.",
        table(
            "pace",
            "Batches in steps of equal time",
            [Column("Run"), number("Until, s"), number("Records"), number("Records/s")],
            rows,
        ),
    )


def _rate_plot(runs: Sequence[RunLine]) -> Html:
    rates = [(run, run.rows_per_s or 0.0) for run in runs]
    return figure(
        plots.bars(
            plots.Plot(
                "plot-rate",
                "Records per second, run by run",
                f"{counted(len(runs), 'run')}; the newest at {rates[0][1]:,.0f} records per "
                "second.",
            ),
            [
                plots.Bar(f"run {run.run_id}", rate, f"{figures.rate(rate)}/s")
                for run, rate in rates
            ],
            plots.Axis("records/s"),
        ),
        "Records per second of whole loads, the newest first; the table below has the numbers.",
    )


def verification(report: Report) -> Section:
    """Return what was compared, and how it came out."""
    if not report.latest:
        return Section(
            "verification", "Verification", missing("Nothing was loaded that could be compared.",
                                                    _MIGRATE),
        )  # fmt: skip
    parts = [
        paragraph(
            "Each store's latest run, as it was compared last. Every record read ends in one "
            "place: read = loaded + unchanged + superseded + rejected. Key, vector, text, "
            "metadata, label and date of all records are compared by a fingerprint."
        ),
        table(
            "verified",
            "Stores and their rows, as they compare",
            [
                Column("Store"), Column("Outcome"), number("Checks passed"), Column("Compared"),
                Column("Fingerprint of the rows"),
            ],
            [_verified(run) for run in report.latest],
        ),
        table(
            "accounts",
            "Where every record that was read has ended",
            [
                Column("Store"), number("Read"), number("Loaded"), number("Unchanged"),
                number("Superseded"), number("Rejected"), Column("Adds up"),
            ],
            [_accounts(run) for run in report.latest],
        ),
        *[_failures(run) for run in report.latest if (run.verified or {}).get("failed")],
    ]  # fmt: skip
    if any(run.status == "loaded" for run in report.latest):
        parts.append(missing("Some stores are not compared yet:", "harca verify"))
    if report.reverified is not None:
        parts.append(_reverified(report))
    return Section("verification", "Verification", joined(parts))


def _verified(run: RunLine) -> tuple[Child, ...]:
    noted = run.verified or {}
    checks, failed = noted.get("checks"), noted.get("failed")
    return (
        foreign(redacted(run.store), most=80),
        outcome(run.status),
        f"{checks - failed} of {checks}"
        if isinstance(checks, int) and isinstance(failed, int)
        else "–",
        moment(_read_time(noted.get("at"))),
        code(run.fingerprint) if run.fingerprint else "–",
    )


def _read_time(text: object) -> datetime | None:
    with suppress(TypeError, ValueError):
        return datetime.fromisoformat(text)  # type: ignore[arg-type]  # TypeError is caught
    return None


def _accounts(run: RunLine) -> tuple[Child, ...]:
    total = run.loaded + run.unchanged + run.superseded + run.rejected
    return (
        foreign(redacted(run.store), most=80),
        figures.whole(run.read),
        figures.whole(run.loaded),
        figures.whole(run.unchanged),
        figures.whole(run.superseded),
        figures.whole(run.rejected),
        mark("good", "yes") if total == run.read else mark("bad", f"no: {total:,}"),
    )


def _failures(run: RunLine) -> Html:
    noted = run.verified or {}
    failures = [one for one in noted.get("failures", []) if isinstance(one, dict)]
    return table(
        f"failures-{run.run_id}",
        joined(["What differs in ", foreign(redacted(run.store), most=60)]),
        [Column("Check"), Column("Expected"), Column("Found")],
        [
            (
                foreign(str(one.get("name")), most=80),
                foreign(str(one.get("expected")), most=120),
                foreign(str(one.get("found")), most=120),
            )
            for one in failures
        ],
        more=int(noted.get("failed", 0)) - len(failures),
    )


def outcome(status: str) -> Html:
    """Return a run's status, by mark, word and colour."""
    kind, word = _STATUS.get(status, ("open", status))
    return mark(kind, word)


def mark(kind: str, word: str) -> Html:
    """Return a word with a mark before it, so that colour is not all that tells."""
    sign = {"good": "✓", "bad": "✗", "open": "○"}[kind]
    return element(
        "span", element("span", sign, aria_hidden="true"), " ", word, class_=f"mark {kind}"
    )


def _reverified(report: Report) -> Html:
    rows: list[tuple[Child, ...]] = []
    for one in report.reverified or []:
        if one.outcome is None:
            rows.append(
                (foreign(redacted(one.store), most=60), mark("open", "not compared"), "–",
                 foreign(redacted(one.error), most=200)),
            )  # fmt: skip
            continue
        checks = one.outcome.checks
        rows.append(
            (
                foreign(redacted(one.store), most=60),
                outcome("verified" if one.outcome.ok else "different"),
                f"{sum(check.ok for check in checks)} of {len(checks)}",
                "–" if one.outcome.ok else foreign(one.outcome.summary, most=200),
            )
        )
    if not rows:
        return missing("There was nothing to compare anew.", _MIGRATE)
    return table(
        "reverified",
        "Compared anew for this report",
        [Column("Store"), Column("Outcome"), number("Checks"), Column("What differs")],
        rows,
    )


def rejections(report: Report) -> Section:
    """Return what was not loaded, and why."""
    title = "Rejections"
    if not report.runs:
        return Section("rejections", title, missing("Nothing was loaded.", _MIGRATE))
    if not report.rejected:
        return Section(
            "rejections", title, paragraph("No record of any run that stands was rejected.")
        )
    total = sum(one.records for one in report.rejected)
    examples = [(one.reason, example) for one in report.rejected for example in one.examples]
    return Section(
        "rejections",
        title,
        joined(
            [
                paragraph(
                    f"{counted(total, 'record')} could not be loaded. Each is kept whole, where "
                    "its bytes could be read: ",
                    code("harca rejections export FOLDER"),
                    " writes them to files.",
                ),
                side_by_side(
                    figure(
                        plots.bars(
                            plots.Plot(
                                "plot-rejections",
                                "Rejected records by reason",
                                "; ".join(
                                    f"{one.reason}: {one.records:,}" for one in report.rejected
                                ),
                            ),
                            [
                                plots.Bar(one.reason, one.records, f"{one.records:,}", 1)
                                for one in report.rejected
                            ],
                            plots.Axis("records"),
                        ),
                        "By reason.",
                        table(
                            "reasons",
                            "Rejected records by reason",
                            [Column("Reason"), number("Records")],
                            [(code(one.reason), f"{one.records:,}") for one in report.rejected],
                        ),
                    )
                ),
                table(
                    "rejected",
                    "The first few of each reason",
                    [
                        Column("Reason"), number("Run"), Column("Where"), Column("Detail"),
                        number("Size"), Column("Begins with"),
                    ],
                    [_example(reason, example) for reason, example in examples],
                ),
            ]
        ),
    )  # fmt: skip


def _example(reason: str, example: Example) -> tuple[Child, ...]:
    start = "–"
    if example.start is not None:
        start = element(
            "code", foreign(redacted(example.start.decode("utf-8", "replace")), most=120)
        )
    return (
        code(reason),
        str(example.run_id),
        foreign(redacted(example.origin), most=100),
        foreign(redacted(example.detail), most=160),
        figures.size(example.size),
        start,
    )


def history(report: Report) -> Section:
    """Return what happened: runs, roll-backs, revisions, measurements."""
    parts: list[Html] = []
    if report.runs:
        parts.append(
            table(
                "runs",
                f"{counted(report.run_count, 'run')}, the newest first",
                [
                    Column("Run"), Column("Store"), Column("Format"), Column("Began"),
                    Column("Ended"), Column("Outcome"), Column("Taken back"),
                    Column("By data revision"),
                ],
                [
                    (
                        str(run.run_id),
                        foreign(redacted(run.store), most=60),
                        foreign(run.format),
                        moment(run.started_at),
                        moment(run.finished_at),
                        outcome(run.status),
                        moment(run.rolled_back_at),
                        code(run.revision) if run.revision else "–",
                    )
                    for run in report.runs
                ],
                more=report.run_count - len(report.runs),
            )
        )  # fmt: skip
    else:
        parts.append(missing("There was no run.", _MIGRATE))
    parts += _measurements(report)
    if report.applied:
        parts.append(
            table(
                "revisions",
                "Revisions of the schema that are applied, in their order",
                [Column("Revision"), Column("What it does")],
                [(code(one.revision), one.message) for one in report.applied],
            )
        )
    else:
        parts.append(missing("No revision of the schema is applied.", "alembic upgrade head"))
    return Section("history", "History", joined(parts))


def _measurements(report: Report) -> list[Html]:
    taken = sorted(report.all_taken(), key=lambda pair: pair[1].taken_at, reverse=True)
    if not taken:
        return [
            paragraph("No measurement was kept yet; the sections above name the commands.")
        ]  # fmt: skip
    kept = sum(report.measurement_counts.values())
    return [
        table(
            "measurements",
            f"{counted(kept, 'measurement')} kept, the newest first",
            [
                Column("What"), Column("When"), Column("Space"), number("Rows"), Column("Server"),
                Column("harca"),
            ],
            [
                (
                    code(kind),
                    moment(one.taken_at),
                    "made-up rows"
                    if one.model_id is None or one.dims is None
                    else space(one.model_id, one.dims),
                    figures.whole(one.rows),
                    foreign(one.server),
                    foreign(one.harca),
                )
                for kind, one in taken
            ],
            more=kept - len(taken),
        )
    ]  # fmt: skip


def space(model_id: str, dims: int) -> Html:
    """Return a space's name."""
    return element("span", foreign(model_id, most=60), f"/{dims}", class_="space")
