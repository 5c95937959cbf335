"""What was measured, as the report shows it: taken out of the results that commands have kept.

The forms of the results are those of `harca bench search`, `harca index advise`, `harca bench
scale` and `harca soak`, as ``--json`` shows them. A result that is in none of these raises
KeyError, TypeError or ValueError.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from harca.postgres.measurements import Measurement

SEARCH, ADVISE, SCALE, SOAK = "bench search", "index advise", "bench scale", "soak"

# Contestants of `harca bench` that are the file store, as it was before.
FILES = ("files", "numpy")
OURS = "harca"

# A day of windows of ten seconds would be 8,640 points.
MOST_WINDOWS = 120


@dataclass(frozen=True, slots=True)
class Taken:
    """When a result was kept, by which version, on which server, about what.

    Attributes:
        model_id: None: about rows that were made up.
    """

    number: int
    taken_at: datetime
    harca: str
    server: str
    model_id: str | None
    dims: int | None
    rows: int | None

    @property
    def subject(self) -> object:
        """What it is about: a later result about the same takes its place."""
        if self.model_id is None:
            return (self.dims, self.rows)
        return (self.model_id, self.dims)


@dataclass(frozen=True, slots=True)
class Contestant:
    """One who searched.

    Attributes:
        recall: Share of the true neighbours found.
        qps: Searches a second, by number of clients at once.
        cpu_ms: Of a search, client and server together; None: not known.
        memory_mb: Likewise.
    """

    name: str
    title: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    recall: float | None
    qps: Mapping[int, float]
    cpu_ms: float | None
    memory_mb: float | None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Parity:
    """The file store and PostgreSQL, asked the same in one run.

    Attributes:
        index: How PostgreSQL searched.
        skipped: Who could not take part, and why.
    """

    taken: Taken
    k: int
    contestants: list[Contestant]
    index: str = "exact"
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ours(self) -> Contestant | None:
        """Harca's search."""
        return next((one for one in self.contestants if one.name == OURS), None)

    @property
    def before(self) -> Contestant | None:
        """The fastest way that the file store has."""
        stores = [one for one in self.contestants if one.name in FILES]
        return min(stores, key=lambda one: one.p50_ms, default=None)


@dataclass(frozen=True, slots=True)
class Point:
    """One way to search, at one effort."""

    way: str
    effort: str
    recall: float
    p50_ms: float
    p95_ms: float
    build_s: float
    size_bytes: int
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class Curve:
    """What `harca index advise` found.

    Attributes:
        goal_recall: What was asked for; else it is *goal_ms*.
        sampled_rows: Of the space's rows, how many were measured.
        why: What it said.
        recommended: What all rows of the space are to be searched by.
    """

    taken: Taken
    k: int
    goal_recall: float | None
    goal_ms: float | None
    reached: bool
    why: str
    recommended: str
    sampled_rows: int
    points: list[Point]
    left_out: list[str]


@dataclass(frozen=True, slots=True)
class Grown:
    """A contestant among N rows, and among some times as many.

    Attributes:
        growth: How many times longer a search takes; None: not known.
    """

    name: str
    rows: list[int]
    p50_ms: list[float]
    recall: list[float | None]
    growth: float | None


@dataclass(frozen=True, slots=True)
class Scale:
    """What some times the rows cost, among rows that were made up.

    Attributes:
        reached: Whether harca's growth is within the goal, at the recall that was asked for.
        why: What grew.
    """

    taken: Taken
    factor: int
    recall_goal: float
    growth_goal: float
    reached: bool
    contestants: list[Grown]
    why: list[str]

    @property
    def ours(self) -> Grown | None:
        """Harca's search."""
        return next((one for one in self.contestants if one.name == OURS), None)


@dataclass(frozen=True, slots=True)
class Window:
    """Some seconds of a soak; what is not known is None."""

    minute: float
    reads_p50_ms: float | None
    reads_p95_ms: float | None
    client_bytes: int | None
    server_bytes: int | None
    dead_rows: int | None
    requests: int
    errors: int


@dataclass(frozen=True, slots=True)
class Trend:
    """What something grew by, from the first third of a soak to its last, as a share."""

    name: str
    first: float
    last: float
    share: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Requests of one kind."""

    kind: str
    answered: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None


@dataclass(frozen=True, slots=True)
class Soak:
    """Hours of mixed reads and writes.

    Attributes:
        verdict: ``steady``, ``drifting`` or ``failing``.
        reasons: Of another verdict than steady.
        interrupted: It was ended before its time.
        windows: At most `MOST_WINDOWS`, each the worst of those that it stands for.
    """

    taken: Taken
    minutes: float
    verdict: str
    reasons: list[str]
    interrupted: bool
    requests: int
    errors: dict[str, int]
    unserved: int
    error_share: float
    kinds: list[Latency]
    trends: list[Trend]
    windows: list[Window]

    @property
    def is_steady(self) -> bool:
        """Whether nothing failed or drifted."""
        return self.verdict == "steady"


class _Measured(Protocol):
    @property
    def taken(self) -> Taken: ...


_Result = TypeVar("_Result", bound=_Measured)


def latest_of_each(results: Iterable[_Result]) -> list[_Result]:
    """Return the newest result of each subject; *results* come with the newest first."""
    found: dict[object, _Result] = {}
    for one in results:
        found.setdefault(one.taken.subject, one)
    return list(found.values())


def _taken(one: Measurement) -> Taken:
    result = one.result
    space = result["space"] if isinstance(result.get("space"), Mapping) else result
    rows = space.get("records", space.get("rows"))
    model_id, dims = space.get("model_id"), space.get("dims")
    return Taken(
        one.measurement_id,
        one.taken_at,
        one.harca,
        one.server,
        None if model_id is None else str(model_id),
        None if dims is None else int(dims),
        None if rows is None else int(rows),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _sum(values: Iterable[Any]) -> float | None:
    known = list(values)
    return None if None in known else float(sum(known))


def parity(one: Measurement) -> Parity:
    """Return what `harca bench search` has kept."""
    result = one.result
    return Parity(
        taken=_taken(one),
        k=int(result["k"]),
        contestants=[
            Contestant(
                name=str(each["name"]),
                title=str(each["title"]),
                p50_ms=float(each["p50_ms"]),
                p95_ms=float(each["p95_ms"]),
                p99_ms=float(each["p99_ms"]),
                recall=_number(each["recall"]),
                qps={int(many["clients"]): float(many["qps"]) for many in each["clients"]},
                # What is in memory needs no server.
                cpu_ms=float(each["client_cpu_ms"])
                if each["name"] in FILES
                else _sum((each["client_cpu_ms"], each["server_cpu_ms"])),
                memory_mb=_number(each["client_mb"])
                if each["name"] in FILES
                else _sum((each["client_mb"], each["server_mb"])),
                notes=[str(note) for note in each.get("notes", [])],
            )
            for each in result["contestants"]
        ],
        index=_described(result["index"]),
        skipped=[f"{each['name']}: {each['why']}" for each in result.get("skipped", [])],
        notes=[str(note) for note in result.get("notes", [])],
    )


def _described(index: Mapping[str, Any] | None) -> str:
    if index is None:
        return "exact"
    effort = _pairs(index["effort"])
    return f"{_way(index)}, searched with {effort}" if effort else _way(index)


def curve(one: Measurement) -> Curve:
    """Return what `harca index advise` has kept."""
    result = one.result
    taken, goal, chosen = _taken(one), result["goal"], result["recommended"]
    nearest = _nearest(result["curve"], chosen)
    return Curve(
        taken=taken,
        k=int(result["k"]),
        goal_recall=_number(goal.get("recall")),
        goal_ms=_number(goal.get("latency_ms")),
        reached=bool(result["reached"]),
        why=str(result["reason"]),
        recommended=" at ".join(word for word in (_way(chosen), _pairs(chosen["effort"])) if word),
        sampled_rows=int(result["sampled_rows"]),
        points=[
            Point(
                way=_way(point),
                effort=_pairs(point["effort"]),
                recall=float(point["recall"]),
                p50_ms=float(point["p50_ms"]),
                p95_ms=float(point["p95_ms"]),
                build_s=float(point["build_s"]),
                size_bytes=int(point["size_bytes"]),
                is_chosen=place == nearest,
            )
            for place, point in enumerate(result["curve"])
        ],
        left_out=[str(what) for what in result["left_out"]],
    )


def _nearest(points: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> int | None:
    """Return the place of the point that was chosen.

    What is recommended for all rows can have other lists and probes than what was measured
    among a sample; recall and time are those that were measured.
    """
    alike = [
        place
        for place, point in enumerate(points)
        if (point["method"], point["type"]) == (chosen["method"], chosen["type"])
        and (point["recall"], point["p50_ms"]) == (chosen["recall"], chosen["p50_ms"])
    ]
    same = [
        place
        for place in alike
        if (points[place]["parameters"], points[place]["effort"])
        == (chosen["parameters"], chosen["effort"])
    ]
    return next(iter(same or alike), None)


def _way(point: Mapping[str, Any]) -> str:
    words = [str(point["method"]), str(point["type"] or ""), _pairs(point["parameters"])]
    return " ".join(word for word in words if word)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def scale(one: Measurement) -> Scale:
    """Return what `harca bench scale` has kept."""
    result = one.result
    sizes = result["sizes"]
    # Harca's own figures stand in the size itself, the others' beside them.
    contestants = [(OURS, sizes, result["growth"])]
    contestants += [
        (name, [size[name] for size in sizes], result.get(f"growth_{name}"))
        for name in ("sql", "numpy")
        if all(size.get(name) for size in sizes)
    ]
    return Scale(
        taken=_taken(one),
        factor=int(result["factor"]),
        recall_goal=float(result["recall_goal"]),
        growth_goal=float(result["growth_goal"]),
        reached=bool(result["reached"]),
        contestants=[
            Grown(
                name,
                [int(size["rows"]) for size in sizes],
                [float(each["p50_ms"]) for each in figures],
                [_number(each["recall"]) for each in figures],
                _number(growth),
            )
            for name, figures, growth in contestants
        ],
        why=[str(text) for text in result["why"]],
    )


def soak(one: Measurement) -> Soak:
    """Return what `harca soak` has kept."""
    result = one.result
    windows = result["windows"]
    last_s = float(windows[-1]["at_s"]) if windows else 0.0
    seconds = result.get("seconds")
    return Soak(
        taken=_taken(one),
        minutes=(float(seconds) if seconds is not None else last_s + float(result["window_s"]))
        / 60,
        verdict=str(result["verdict"]),
        reasons=[str(reason) for reason in result["reasons"]],
        interrupted=bool(result["interrupted"]),
        requests=int(result["requests"]),
        errors={str(name): int(count) for name, count in result["errors"].items()},
        unserved=int(result["unserved"]),
        error_share=float(result["error_share"]),
        kinds=[
            Latency(str(kind), int(each["answered"]), *(_number(each[name]) for name in _LATENCIES))
            for kind, each in sorted(result["kinds"].items(), key=_in_order)
        ],
        trends=[
            Trend(str(name), float(each["first"]), float(each["last"]),
                  float(each["between_thirds"]))
            for name, each in result["drift"].items()
            if each is not None
        ],
        windows=_thinned([_window(each) for each in windows]),
    )  # fmt: skip


_KINDS = ("search", "filtered search", "insert", "update", "delete")


def _in_order(pair: tuple[str, Any]) -> int:
    # The database puts names in an order of its own.
    return _KINDS.index(pair[0]) if pair[0] in _KINDS else len(_KINDS)


_LATENCIES = ("p50_ms", "p95_ms", "p99_ms", "max_ms")


def _window(each: Mapping[str, Any]) -> Window:
    return Window(
        float(each["at_s"]) / 60,
        _number(each["reads"]["p50_ms"]),
        _number(each["reads"]["p95_ms"]),
        each["client_bytes"],
        each["server_bytes"],
        each["dead_rows"],
        int(each["requests"]),
        sum(int(count) for count in each["errors"].values()),
    )


def _thinned(windows: Sequence[Window]) -> list[Window]:
    """Return few enough windows to draw; of some that are put together, the worst of each."""
    step = -(-len(windows) // MOST_WINDOWS) or 1
    return [_worst(windows[at : at + step]) for at in range(0, len(windows), step)]


def _worst(windows: Sequence[Window]) -> Window:
    def most(name: str) -> Any:
        known = [value for one in windows if (value := getattr(one, name)) is not None]
        return max(known) if known else None

    return Window(
        windows[0].minute,
        most("reads_p50_ms"),
        most("reads_p95_ms"),
        most("client_bytes"),
        most("server_bytes"),
        most("dead_rows"),
        sum(one.requests for one in windows),
        sum(one.errors for one in windows),
    )
