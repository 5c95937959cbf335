"""How searches go: against the file store, by recall, among more rows."""

from collections.abc import Sequence
from typing import TypeVar

from harca.errors import counted
from harca.report import figures, plots
from harca.report.collect import Report
from harca.report.data_sections import mark
from harca.report.markup import Html, element, foreign, joined
from harca.report.measured import (
    FILES,
    OURS,
    Contestant,
    Curve,
    Grown,
    Parity,
    Scale,
    latest_of_each,
)
from harca.report.measured_parts import SHOWN, about, none, noted, subject_of
from harca.report.parts import (
    Column,
    Section,
    beside,
    figure,
    moment,
    number,
    paragraph,
    side_by_side,
    table,
)

_Named = TypeVar("_Named", Contestant, Grown)

_BELOW = 0.2


def search(report: Report) -> Section:
    """Return the file store against PostgreSQL."""
    title = "Search: before and after"
    if not report.parities:
        return Section(
            "search",
            title,
            none(report, "Searches were not compared.", "harca bench search STORE"),
        )
    parts: list[Html] = []
    for at, parity in enumerate(latest_of_each(report.parities)[:SHOWN], 1):
        parts += _parity(parity, at)
    over_time = _over_time(report.parities)
    if over_time is not None:
        parts.append(side_by_side(over_time))
    return Section("search", title, joined(parts))


def _parity(parity: Parity, at: int) -> list[Html]:
    contestants = sorted(parity.contestants, key=lambda one: one.p50_ms)
    clients = sorted({many for one in contestants for many in one.qps})
    ours = parity.ours
    notes = [
        *parity.notes,
        *(f"Left out: {one}." for one in parity.skipped),
        *(f"{one.name}: {note}." for one in contestants for note in one.notes),
    ]
    return [
        about(
            parity.taken,
            f"{parity.k} neighbours were asked for; PostgreSQL searched: {parity.index}.",
        ),
        side_by_side(
            figure(
                plots.bars(
                    plots.Plot(
                        f"plot-search-{at}",
                        "Half of the searches within, in milliseconds",
                        "; ".join(f"{one.name}: {figures.ms(one.p50_ms)} ms" for one in contestants)
                        + ". Less is better.",
                    ),
                    [
                        plots.Bar(one.name, one.p50_ms, f"{figures.ms(one.p50_ms)} ms", _hue(one))
                        for one in contestants
                    ],
                    plots.Axis("p50, ms: less is better"),
                    all_count=True,
                ),
                "Time of a search, one client; the table below has the numbers.",
            ),
            _qps(contestants, clients, at) if len(clients) > 1 else None,
        ),
        table(
            f"search-{at}",
            "Contestants, the fastest first; each answered the same queries, in turns",
            [
                Column("Contestant"), Column("What it is"), number("p50, ms"), number("p95, ms"),
                number("p99, ms"), number("Time of harca's"), number("Recall"),
                *(number(f"Searches/s, {counted(many, 'client')}") for many in clients),
                number("CPU, ms"), number("Memory, MB"),
            ],
            [
                (
                    foreign(one.name),
                    foreign(one.title),
                    figures.ms(one.p50_ms),
                    figures.ms(one.p95_ms),
                    figures.ms(one.p99_ms),
                    f"{figures.times(one.p50_ms / ours.p50_ms)} ×"
                    if ours is not None and ours.p50_ms
                    else "–",
                    figures.share(one.recall),
                    *(figures.rate(one.qps.get(many)) for many in clients),
                    figures.ms(one.cpu_ms),
                    "–" if one.memory_mb is None else f"{one.memory_mb:,.0f}",
                )
                for one in contestants
            ],
        ),
        noted(notes),
    ]  # fmt: skip


def _ours_first(contestants: Sequence[_Named]) -> list[_Named]:
    """Return them so that harca's is always the same line."""
    return sorted(contestants, key=lambda one: one.name != OURS)


def _hue(one: Contestant) -> int:
    return 0 if one.name == OURS else 1 if one.name in FILES else 2


def _qps(contestants: Sequence[Contestant], clients: Sequence[int], at: int) -> Html:
    return figure(
        plots.lines(
            plots.Plot(
                f"plot-qps-{at}",
                "Searches per second by number of clients",
                "; ".join(
                    f"{one.name}: "
                    + ", ".join(
                        f"{figures.rate(rate)} with {many}" for many, rate in one.qps.items()
                    )
                    for one in contestants
                )
                + ". More is better.",
            ),
            [
                plots.Series(
                    one.name, sorted((float(many), rate) for many, rate in one.qps.items())
                )
                for one in _ours_first(contestants)
                if one.qps
            ],
            plots.Axis(
                "clients at the same time", log=True, at=[(many, str(many)) for many in clients]
            ),
            plots.Axis("searches/s: more is better", log=True),
        ),
        "Searches per second, all clients together; the table below has the numbers.",
    )


def _over_time(parities: Sequence[Parity]) -> Html | None:
    """Return how harca's searches went from one measurement to the next, space by space."""
    spaces: dict[object, list[Parity]] = {}
    for one in reversed(parities):
        if one.ours is not None:
            spaces.setdefault(one.taken.subject, []).append(one)
    repeated = {key: ones for key, ones in spaces.items() if len(ones) > 1}
    if not repeated:
        return None
    shown = list(repeated.items())[: len(plots.SERIES)]
    series = [
        plots.Series(
            f"space {at}",
            [
                (float(place), one.ours.p50_ms)
                for place, one in enumerate(ones, 1)
                if one.ours is not None
            ],
        )
        for at, (_, ones) in enumerate(shown, 1)
    ]
    most = max(series, key=lambda one: len(one.points))
    return figure(
        plots.lines(
            plots.Plot(
                "plot-search-history",
                "p50 of harca's searches, measurement by measurement",
                "; ".join(
                    f"{one.name}: from {figures.ms(one.points[0][1])} to "
                    f"{figures.ms(one.points[-1][1])} ms"
                    for one in series
                ),
            ),
            series,
            plots.Axis(
                "measurement, the oldest first",
                at=[(place, str(place)) for place in _places(len(most.points))],
            ),
            plots.Axis("p50, ms: less is better", least=0),
        ),
        "The same space measured again, as rows and indexes changed.",
        table(
            "search-history",
            "Measurements of each space",
            [Column("Space"), number("Measurement"), Column("When"), number("Rows"),
             number("p50, ms"), number("Recall")],
            [
                (
                    joined([f"{at}: ", subject_of(one.taken, rows=False)]),
                    str(place),
                    moment(one.taken.taken_at),
                    figures.whole(one.taken.rows),
                    figures.ms(one.ours.p50_ms if one.ours else None),
                    figures.share(one.ours.recall if one.ours else None),
                )
                for at, (_, ones) in enumerate(shown, 1)
                for place, one in enumerate(ones, 1)
            ],
        ),
    )  # fmt: skip


def _places(count: int) -> range:
    """Return at most ten whole numbers from 1 to *count*."""
    return range(1, count + 1, -(-count // 10))


def recall(report: Report) -> Section:
    """Return what recall costs, index by index."""
    title = "Recall and latency"
    if not report.curves:
        return Section(
            "recall", title, none(report, "No index was measured.", "harca index advise")
        )
    parts: list[Html] = [
        paragraph(
            "Ways to search, each at rising effort. Recall is the share of the true nearest "
            "neighbours that is found; a search that compares all rows finds every one."
        )
    ]
    for at, one in enumerate(latest_of_each(report.curves)[:SHOWN], 1):
        parts += _curve(one, at)
    return Section("recall", title, joined(parts))


def _curve(curve: Curve, at: int) -> list[Html]:
    ways: dict[str, list[int]] = {}
    for place, point in enumerate(curve.points):
        ways.setdefault(point.way, []).append(place)
    series = [
        plots.Series(
            way,
            [(curve.points[place].p50_ms, curve.points[place].recall) for place in places],
            [here for here, place in enumerate(places) if curve.points[place].is_chosen],
        )
        for way, places in list(ways.items())[: len(plots.SERIES)]
    ]
    chosen = next((point for point in curve.points if point.is_chosen), None)
    told = curve.recommended
    if chosen is not None:
        told += f": recall {figures.share(chosen.recall)}, p50 {figures.ms(chosen.p50_ms)} ms"
    # What finds much less than is asked would press the rest together.
    asked = curve.goal_recall if curve.goal_recall is not None else 1.0
    lowest = min((point.recall for point in curve.points), default=0.0)
    floor = max(lowest - 0.03, asked - _BELOW, 0.0)
    below = sum(point.recall < floor for point in curve.points)
    goal = (
        f"recall {curve.goal_recall:g}"
        if curve.goal_recall is not None
        else f"p50 within {figures.ms(curve.goal_ms)} ms"
    )
    sample = ""
    if curve.taken.rows is not None and curve.sampled_rows < curve.taken.rows:
        sample = f" Of its rows, {curve.sampled_rows:,} were measured."
    return [
        about(curve.taken, f"Asked for: {goal}.{sample}"),
        side_by_side(
            figure(
                plots.lines(
                    plots.Plot(
                        f"plot-recall-{at}",
                        "Recall over latency",
                        f"{counted(len(ways), 'way')} to search. Chosen, with a ring: {told}.",
                    ),
                    series,
                    plots.Axis("p50, ms: less is better", log=True),
                    plots.Axis("recall: more is better", least=floor, most=1 + (1 - floor) / 12),
                    goal=(curve.goal_recall, f"asked for: {curve.goal_recall:g}")
                    if curve.goal_recall is not None
                    else None,
                ),
                "Each line is an index at rising effort; the ring is around what was chosen."
                + (
                    f" {counted(below, 'point')} below {floor:.2f}: in the numbers only."
                    if below
                    else ""
                ),
                table(
                    f"recall-{at}",
                    "Ways to search",
                    [
                        Column("Way"), Column("Effort"), number("Recall"), number("p50, ms"),
                        number("p95, ms"), number("Build, s"), number("Index"), Column("Chosen"),
                    ],
                    [
                        (
                            foreign(point.way),
                            foreign(point.effort or "–"),
                            figures.share(point.recall),
                            figures.ms(point.p50_ms),
                            figures.ms(point.p95_ms),
                            f"{point.build_s:,.1f}" if point.build_s else "–",
                            figures.size(point.size_bytes) if point.size_bytes else "–",
                            "yes" if point.is_chosen else "no",
                        )
                        for point in curve.points
                    ],
                ),
            ),
            beside(
                element(
                    "p",
                    mark("good", "goal reached")
                    if curve.reached
                    else mark("bad", "goal not reached"),
                    class_="verdict",
                ),
                element("p", foreign(curve.why, most=1_500)),
                paragraph("To be taken for all rows: ", element("strong", foreign(told))),
                noted([f"Not measured: {what}." for what in curve.left_out]),
            ),
        ),
    ]  # fmt: skip


def scale(report: Report) -> Section:
    """Return what ten times the rows cost."""
    title = "Scaling"
    if not report.scales:
        return Section("scale", title, none(report, "No growth was measured.", "harca bench scale"))
    parts: list[Html] = []
    latest = latest_of_each(report.scales)[:SHOWN]
    for at, one in enumerate(sorted(latest, key=lambda one: one.taken.rows or 0), 1):
        parts += _scale(one, at)
    return Section("scale", title, joined(parts))


def _scale(scale: Scale, at: int) -> list[Html]:
    contestants = sorted(scale.contestants, key=lambda one: one.growth or 0)
    sizes = sorted({rows for one in contestants for rows in one.rows})
    goal = f"at most {scale.growth_goal:.2f} times the time, at recall {scale.recall_goal:g}"
    return [
        about(
            scale.taken,
            f"{scale.factor:,} times the rows are to cost {goal}.",
            subject=f"From {sizes[0]:,} to {sizes[-1]:,} rows of {scale.taken.dims} dimensions, "
            "made up",
        ),
        side_by_side(
            figure(
                plots.lines(
                    plots.Plot(
                        f"plot-scale-{at}",
                        "p50 among more rows",
                        "; ".join(
                            f"{one.name}: {figures.times(one.growth)} times" for one in contestants
                        )
                        + ". Flat is better.",
                    ),
                    [
                        plots.Series(
                            f"{one.name}, × {figures.times(one.growth)}",
                            [
                                (float(rows), ms)
                                for rows, ms in zip(one.rows, one.p50_ms, strict=True)
                            ],
                        )
                        for one in _ours_first(contestants)
                    ],
                    plots.Axis("rows", log=True, at=[(rows, f"{rows:,}") for rows in sizes]),
                    plots.Axis("p50, ms: less is better", log=True),
                ),
                "What is flat costs nothing more as rows grow; the table below has the numbers.",
            ),
            beside(
                element(
                    "p",
                    mark("good", "goal reached")
                    if scale.reached
                    else mark("bad", "goal not reached"),
                    class_="verdict",
                ),
                noted(scale.why),
            ),
        ),
        table(
            f"scale-{at}",
            "Contestants, the one that grows least first",
            [
                Column("Contestant"),
                *(number(f"p50 among {rows:,}, ms") for rows in sizes),
                number("Growth"),
                *(number(f"Recall among {rows:,}") for rows in sizes),
            ],
            [
                (
                    _SCALED.get(one.name, one.name),
                    *(figures.ms(_at(one.rows, one.p50_ms, rows)) for rows in sizes),
                    f"× {figures.times(one.growth)}",
                    *(figures.share(_at(one.rows, one.recall, rows)) for rows in sizes),
                )
                for one in contestants
            ],
        ),
    ]  # fmt: skip


_SCALED = {
    "harca": "harca, as an application calls it",
    "sql": "sql, written by hand",
    "numpy": "numpy, exact in memory",
}


def _at(sizes: Sequence[int], values: Sequence[float | None], rows: int) -> float | None:
    return values[list(sizes).index(rows)] if rows in sizes else None
