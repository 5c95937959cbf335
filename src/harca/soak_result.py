"""What a soak measured, and whether that is steady: no clock, no database."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harca.drift import Drift, drift
from harca.histogram import Histogram
from harca.open_loop import Done

READS = ("search", "filtered search")
WRITES = ("insert", "update", "delete")

STEADY, DRIFTING, FAILING = "steady", "drifting", "failing"

# Caches fill and memory is taken in the beginning: that is no drift.
_WARM_UP = 0.1

# Fewer have a median of no account, and none beyond a higher quantile: the longest of a few is
# noise.
_FEWEST_REQUESTS = 20

# What is less is noise of the machine, or what the first vacuum gives back.
LEAST_MS = 0.5
LEAST_MEMORY_BYTES = 8 * 2**20
LEAST_TABLE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a steady soak does not exceed, as shares.

    Attributes:
        errors: Of the requests: failed, or due and not begun.
        latency: Growth of the median and of the 95th percentile over the run.
        memory: Growth of what the client holds, or the server's processes.
        bloat: Growth of table and indexes per live row.
    """

    errors: float = 0.001
    latency: float = 0.25
    memory: float = 0.10
    bloat: float = 0.20


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen beside the requests; None where nobody could say.

    Attributes:
        client_bytes: Private memory of harca's own process.
        server_bytes: Of the server's processes that serve it, on average.
        live_rows: Of the table, by the server's estimate.
        dead_rows: Versions of rows that are left for vacuum.
    """

    client_bytes: int | None = None
    server_bytes: int | None = None
    live_rows: int | None = None
    dead_rows: int | None = None
    table_bytes: int | None = None
    index_bytes: int | None = None

    @property
    def bytes_per_row(self) -> float | None:
        """Of table and indexes."""
        if not self.live_rows or self.table_bytes is None or self.index_bytes is None:
            return None
        return (self.table_bytes + self.index_bytes) / self.live_rows

    def as_dict(self) -> dict[str, Any]:
        """Return the sample as ``--json`` shows it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Window:
    """The requests that were due within some seconds, and what was seen at their end."""

    at_s: float
    reads: Histogram = field(default_factory=Histogram)
    writes: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)
    losses: int = 0
    sample: Sample = Sample()

    @property
    def requests(self) -> int:
        """How many ended, well or not."""
        return self.reads.count + self.writes.count + self.errors.total()

    def as_dict(self) -> dict[str, Any]:
        """Return the window as ``--json`` shows it."""
        return {
            "at_s": self.at_s,
            "requests": self.requests,
            "errors": dict(self.errors),
            "connections_lost": self.losses,
            "reads": latencies(self.reads),
            "writes": latencies(self.writes),
            **self.sample.as_dict(),
        }


def latencies(histogram: Histogram) -> dict[str, Any]:
    """Return the quantiles of answered requests, in milliseconds."""
    return {
        "answered": histogram.count,
        "p50_ms": quantile_ms(histogram, 0.50),
        "p95_ms": quantile_ms(histogram, 0.95),
        "p99_ms": quantile_ms(histogram, 0.99),
        "max_ms": round(histogram.longest_s * 1000, 3) if histogram.count else None,
    }


def quantile_ms(histogram: Histogram, share: float) -> float | None:
    """Return one quantile, in milliseconds."""
    found = histogram.quantile(share)
    return None if found is None else round(found * 1000, 3)


class Measured:
    """All that was measured, by windows and by kinds of requests.

    Attributes:
        window_s: How long a window is; the last can be shorter.
        unserved: Requests that were due and that nobody had the time to begin.
        lock: To be held while it is read, if requests are still counted in.
    """

    def __init__(self, window_s: float) -> None:
        self.lock = threading.RLock()
        self.window_s = window_s
        self.windows: list[Window] = []
        self.kinds = {kind: Histogram() for kind in (*READS, *WRITES)}
        self.unserved = 0

    def add(self, due_s: float, latency_s: float, done: Done) -> None:
        """Count a request in, where it was due: a stall belongs where it began."""
        with self.lock:
            window = self._window(int(due_s / self.window_s))
            window.losses += done.lost
            if done.error is not None:
                window.errors[done.error] += 1
                return
            (window.reads if done.kind in READS else window.writes).add(latency_s)
            self.kinds[done.kind].add(latency_s)

    def look(self, number: int, sample: Sample) -> None:
        """Note what was seen at the end of a window."""
        with self.lock:
            self._window(number).sample = sample

    def _window(self, number: int) -> Window:
        while len(self.windows) <= number:
            self.windows.append(Window(at_s=round(len(self.windows) * self.window_s, 3)))
        return self.windows[number]

    @property
    def requests(self) -> int:
        """How many were due."""
        return sum(window.requests for window in self.windows) + self.unserved

    @property
    def errors(self) -> Counter[str]:
        """How many failed, by code."""
        return sum((window.errors for window in self.windows), Counter())

    @property
    def error_share(self) -> float:
        """Share of the requests that failed or were not begun."""
        return (self.errors.total() + self.unserved) / (self.requests or 1)

    @property
    def losses(self) -> int:
        """How many connections were lost."""
        return sum(window.losses for window in self.windows)

    def all_of(self, kinds: tuple[str, ...]) -> Histogram:
        """Return the latencies of several kinds."""
        found = Histogram()
        for kind in kinds:
            found.add_all(self.kinds[kind])
        return found

    def drifts(self) -> dict[str, Drift | None]:
        """Return the trend of everything that could drift, after the warm-up."""
        # The last one may have been cut short.
        begin = max(1, round(len(self.windows) * _WARM_UP))
        windows = self.windows[begin:-1]
        times = [window.at_s for window in windows]
        found: dict[str, Drift | None] = {
            f"{group}_p{percent}_ms": _latency_drift(windows, group, percent)
            for group in ("reads", "writes")
            for percent in (50, 95, 99)
        }
        for name in ("client_bytes", "server_bytes", "bytes_per_row"):
            found[name] = drift(times, [getattr(window.sample, name) for window in windows])
        return found


def _latency_drift(windows: list[Window], group: str, percent: int) -> Drift | None:
    """Return the trend of a quantile, of as many windows at a time as it takes to have one."""
    needed = max(_FEWEST_REQUESTS, 100 / (100 - percent))
    times: list[float] = []
    values: list[float | None] = []
    some = Histogram()
    for window in windows:
        some.add_all(getattr(window, group))
        if some.count >= needed:
            times.append(window.at_s)
            values.append(quantile_ms(some, percent / 100))
            some = Histogram()
    return drift(times, values)


def judge(measured: Measured, limits: Limits) -> tuple[str, list[str]]:
    """Return the verdict, and what speaks for another one than steady."""
    failing = _failures(measured, limits)
    drifting = _drifts(measured, limits)
    verdict = FAILING if failing else DRIFTING if drifting else STEADY
    return verdict, failing + drifting


def _failures(measured: Measured, limits: Limits) -> list[str]:
    found = []
    if not measured.requests:
        return ["no request was made"]
    if measured.error_share > limits.errors:
        codes = ", ".join(f"{code}: {n:,}" for code, n in measured.errors.most_common())
        parts = [codes] if codes else []
        if measured.unserved:
            parts.append(f"due and not begun: {measured.unserved:,}")
        found.append(
            f"{measured.error_share:.2%} of the requests failed ({'; '.join(parts)}), "
            f"at most {limits.errors:.2%} may"
        )
    if not sum(window.reads.count + window.writes.count for window in measured.windows[-2:]):
        found.append("nothing was answered at the end")
    return found


def _drifts(measured: Measured, limits: Limits) -> list[str]:
    trends = measured.drifts()
    rows = max((window.sample.live_rows or 0 for window in measured.windows), default=0)
    judged = [
        *(
            (f"{group}_p{share}_ms", f"p{share} of {group}", "ms", limits.latency, LEAST_MS)
            for group in ("reads", "writes")
            for share in (50, 95)
        ),
        ("client_bytes", "memory of the client", "B", limits.memory, LEAST_MEMORY_BYTES),
        ("server_bytes", "memory of a server process", "B", limits.memory, LEAST_MEMORY_BYTES),
        (
            "bytes_per_row", "table and indexes per live row", "B",
            limits.bloat, LEAST_TABLE_BYTES / (rows or 1),
        ),
    ]  # fmt: skip
    return [
        f"{name} grew by {trend.between_thirds:.0%}, from {amount(trend.first, unit)} to "
        f"{amount(trend.last, unit)}; at most {limit:.0%} may"
        for key, name, unit, limit, least in judged
        if (trend := trends[key]) is not None and trend.exceeds(limit, least=least)
    ]


def amount(value: float, unit: str) -> str:
    """Return a value with its unit, for people."""
    if unit != "B":
        return f"{value:.3g} {unit}" if value < 100 else f"{value:,.0f} {unit}"
    for unit_name, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if value >= size:
            return f"{value / size:,.1f} {unit_name}"
    return f"{value:,.0f} B"


def as_dict(
    measured: Measured, limits: Limits, about: Mapping[str, Any], *, interrupted: bool
) -> dict[str, Any]:
    """Return the result as ``--json`` shows it and `measurements` keeps it, as kind ``soak``.

    ``verdict`` (``steady``, ``drifting``, ``failing``), ``reasons`` (of another verdict than
    steady, in words), ``interrupted`` (ended before its time, or not ended: what was measured
    until then), then *about* (what was asked for and where: see `Soaked.as_dict`),
    ``limits``, and

    - ``requests`` that were due; ``errors``, a number per code: SQLSTATE, ``connection-lost``,
      ``no-connection``, ``no-results`` (a search without filter that found nothing),
      ``lost-row`` (a row that was written is gone); ``unserved`` (due, and not begun when
      time was up); ``error_share``, of both; ``connections_lost``;
    - ``reads``, ``writes``: ``answered``, ``p50_ms``, ``p95_ms``, ``p99_ms``, ``max_ms`` of
      requests that were answered, from when they were due; ``kinds``, the same for each of
      ``search``, ``filtered search``, ``insert``, ``update``, ``delete``;
    - ``drift``, by what could: ``reads_p50_ms`` and so on, ``client_bytes``,
      ``server_bytes``, ``bytes_per_row``: the fields of `Drift`, or null where windows are
      too few or it was not measured;
    - ``windows``, each of ``window_s``: ``at_s``, ``requests``, ``errors``,
      ``connections_lost``, ``reads``, ``writes`` as above, and the fields of `Sample`.
    """
    verdict, reasons = judge(measured, limits)
    trends = measured.drifts()
    return {
        "verdict": verdict,
        "reasons": reasons,
        "interrupted": interrupted,
        **about,
        "limits": {name: getattr(limits, name) for name in limits.__slots__},
        "requests": measured.requests,
        "errors": dict(measured.errors),
        "unserved": measured.unserved,
        "error_share": measured.error_share,
        "connections_lost": measured.losses,
        "reads": latencies(measured.all_of(READS)),
        "writes": latencies(measured.all_of(WRITES)),
        "kinds": {kind: latencies(found) for kind, found in measured.kinds.items()},
        "drift": {
            name: None if trend is None else trend.as_dict() for name, trend in trends.items()
        },
        "window_s": measured.window_s,
        "windows": [window.as_dict() for window in measured.windows],
    }
