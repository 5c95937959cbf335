"""The section on how it went over hours."""

from collections.abc import Sequence

from harca.report import figures, plots
from harca.report.collect import Report
from harca.report.data_sections import mark
from harca.report.markup import Child, Html, element, foreign, joined
from harca.report.measured import (
    Soak,
    latest_of_each,
)
from harca.report.measured_parts import SHOWN, about, none, noted
from harca.report.parts import (
    Column,
    Section,
    figure,
    number,
    paragraph,
    side_by_side,
    table,
)


def soak(report: Report) -> Section:
    """Return how it went over hours."""
    title = "Stability"
    if not report.soaks:
        return Section(
            "soak",
            title,
            none(report, "Nothing was run for long.", "harca soak --minutes 1440"),
        )
    parts: list[Html] = []
    for at, one in enumerate(latest_of_each(report.soaks)[:SHOWN], 1):
        parts += _soak(one, at)
    return Section("soak", title, joined(parts))


def _soak(soak: Soak, at: int) -> list[Html]:
    hours = soak.minutes >= 180
    unit, per = ("hours", 60.0) if hours else ("minutes", 1.0)
    ended = ", ended before its time" if soak.interrupted else ""
    failed = ", ".join(f"{code}: {count:,}" for code, count in soak.errors.items())
    return [
        about(soak.taken, f"It went on for {figures.duration(soak.minutes * 60)}{ended}."),
        element(
            "p",
            mark("good" if soak.is_steady else "bad", soak.verdict),
            f": {soak.requests:,} requests, {figures.percent(soak.error_share)} failed",
            foreign(f" ({failed})", most=300) if failed else None,
            f", {soak.unserved:,} due and not begun" if soak.unserved else None,
            ".",
            class_="verdict",
        ),
        noted([f"{reason}." for reason in soak.reasons]),
        side_by_side(
            _soak_plot(
                soak, at, "latency", "Latency of reads", f"{unit} since the start", "ms", per,
                [("p50", "reads_p50_ms", 1.0), ("p95", "reads_p95_ms", 1.0)],
            ),
            _soak_plot(
                soak, at, "memory", "Memory of processes", f"{unit} since the start", "MB", per,
                [("client", "client_bytes", 1e6), ("server process", "server_bytes", 1e6)],
            ),
        ),
        table(
            f"soak-kinds-{at}",
            "Requests by kind",
            [
                Column("Kind"), number("Answered"), number("p50, ms"), number("p95, ms"),
                number("p99, ms"), number("Longest, ms"),
            ],
            [
                (
                    foreign(one.kind),
                    figures.whole(one.answered),
                    figures.ms(one.p50_ms),
                    figures.ms(one.p95_ms),
                    figures.ms(one.p99_ms),
                    figures.ms(one.max_ms),
                )
                for one in soak.kinds
            ],
        ),
        table(
            f"soak-trends-{at}",
            "What could have drifted: medians of the first third and of the last",
            [Column("What"), number("First"), number("Last"), number("Growth")],
            [
                (
                    _TRENDS.get(one.name, foreign(one.name)),
                    _value(one.name, one.first),
                    _value(one.name, one.last),
                    figures.change(one.share),
                )
                for one in soak.trends
            ],
        )
        if soak.trends
        else paragraph("It was too short to tell a trend."),
    ]  # fmt: skip


_TRENDS: dict[str, Child] = {
    **{
        f"{group}_p{share}_ms": f"p{share} of {group}, ms"
        for group in ("reads", "writes")
        for share in (50, 95, 99)
    },
    "client_bytes": "memory of the client",
    "server_bytes": "memory of a server process",
    "bytes_per_row": "table and indexes, per live row",
}


def _value(name: str, value: float) -> str:
    return figures.size(value) if "bytes" in name else figures.ms(value)


def _soak_plot(
    soak: Soak,
    at: int,
    name: str,
    title: str,
    x: str,
    y: str,
    per: float,
    lines: Sequence[tuple[str, str, float]],
) -> Html | None:
    """Return lines over the time of a soak; None if nothing of it is known."""
    series = [
        plots.Series(
            label,
            [
                (window.minute / per, value / unit)
                for window in soak.windows
                if (value := getattr(window, attribute)) is not None
            ],
        )
        for label, attribute, unit in lines
    ]
    series = [one for one in series if len(one.points) > 1]
    if not series:
        return None
    ranges = [
        f"{one.name}: between {figures.ms(min(value for _, value in one.points))} and "
        f"{figures.ms(max(value for _, value in one.points))} {y}"
        for one in series
    ]
    places = sorted({place for one in series for place, _ in one.points})
    return figure(
        plots.lines(
            plots.Plot(f"plot-soak-{name}-{at}", title, "; ".join(ranges)),
            series,
            plots.Axis(x, least=0),
            plots.Axis(y, least=0),
            markers=len(places) <= _MARKED,
        ),
        f"{title} over the time of the soak. Flat is better.",
        table(
            f"soak-{name}-{at}",
            f"{title}, each the worst of its span",
            [number(x.capitalize()), *(number(f"{one.name}, {y}") for one in series)],
            [
                (f"{place:,.2f}", *(figures.ms(dict(one.points).get(place)) for one in series))
                for place in places
            ],
        ),
    )


_MARKED = 24
