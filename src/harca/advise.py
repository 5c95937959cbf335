"""Which index a space should have, judged by what was measured on its own rows. Pure.

`candidates` says what is worth measuring, `choose` which of the measured points to take and
why. Measuring is `harca.postgres.trial`'s work.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harca.estimate import in_page

EXACT, HNSW, IVFFLAT = "exact", "hnsw", "ivfflat"

RECALL = 0.98  # what is asked for unless the operator says otherwise

# Two that are within a tenth of each other may change places in the next run.
_NOISE = 1.10
# What an exact search may take longer: it finds everything, is never out of date, needs no
# build and no disk, and does not slow writes down.
_EXACT_MAY_TAKE = 1.25

_ELEMENT = 88  # bytes of an index's element beside what it holds of the embedding
_BITS = {"vector": 32, "halfvec": 16, "bit": 1}

_MAX_EF_SEARCH = 1_000  # HNSW_MAX_EF_SEARCH, pgvector src/hnsw.h
_EF_SEARCH = (40, 64, 100, 160, 250, 400, 640, _MAX_EF_SEARCH)
_MS = (16, 32)
_PROBES = (1, 2, 3, 4, 5, 6, 8, 12, 16, 32, 64, 128)
# Rows taken from an index on signs for each that is wanted: signs alone put them in a rough order.
_TAKEN = (4, 8, 16, 32, 64, 100)
# All rows of a list are compared, so that fewer do than of a graph, which leads past some.
_TAKEN_FROM_LISTS = (3, 3.5, 4, 6)
# To look through a list of signs takes as long as to put so many rows in order by their distance.
_LIST = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to search a space, with the efforts at which it is tried, the least first.

    Attributes:
        method: ``exact``, ``hnsw`` or ``ivfflat``.
        type: What the index holds: ``vector``, ``halfvec`` or ``bit``; None without index.
        parameters: Of the index: ``m``, ``lists``.
        efforts: What searches are given: ``ef_search``, ``probes``, ``candidates``.
    """

    method: str
    type: str | None = None
    parameters: Mapping[str, int] = field(default_factory=dict)
    efforts: tuple[Mapping[str, int], ...] = ({},)

    def __str__(self) -> str:
        return _name(self.method, self.type, self.parameters)


@dataclass(frozen=True, slots=True)
class Point:
    """What one way to search gave, at one effort.

    Attributes:
        recall: Share of the true neighbours found, 0 to 1.
        p50_ms: Half of the searches took no longer.
        build_s: Of its index; 0 without.
        size_bytes: Of its index; 0 without.
    """

    method: str
    type: str | None
    parameters: Mapping[str, int]
    effort: Mapping[str, int]
    recall: float
    p50_ms: float
    p95_ms: float
    build_s: float = 0.0
    size_bytes: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether it searches without an index."""
        return self.method == EXACT

    @property
    def name(self) -> str:
        """What it searches by, for people."""
        return _name(self.method, self.type, self.parameters)

    @property
    def shown_effort(self) -> str:
        """What its searches are given, for people."""
        return ", ".join(f"{name} {value}" for name, value in self.effort.items())

    def __str__(self) -> str:
        return f"{self.name} at {self.shown_effort}" if self.effort else self.name

    def as_dict(self) -> dict[str, Any]:
        """Return the point as it is kept and as ``--json`` shows it."""
        return {
            "method": self.method,
            "type": self.type,
            "parameters": dict(self.parameters),
            "effort": dict(self.effort),
            "recall": round(self.recall, 4),
            "p50_ms": round(self.p50_ms, 3),
            "p95_ms": round(self.p95_ms, 3),
            "build_s": round(self.build_s, 2),
            "size_bytes": self.size_bytes,
        }


def _name(method: str, kind: str | None, parameters: Mapping[str, int]) -> str:
    words = [method, kind or "", *(f"{name} {value}" for name, value in parameters.items())]
    return " ".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked of a search: a recall, or else a latency."""

    recall: float = RECALL
    latency_ms: float | None = None

    def __str__(self) -> str:
        if self.latency_ms is not None:
            return f"p50 within {_ms(self.latency_ms)}"
        return f"recall {self.recall:g}"

    def as_dict(self) -> dict[str, float]:
        """Return what is asked."""
        if self.latency_ms is not None:
            return {"latency_ms": self.latency_ms}
        return {"recall": self.recall}


@dataclass(frozen=True, slots=True)
class Choice:
    """The point to take.

    Attributes:
        reached: False if no point is as fast as was asked; this one comes nearest. What recall
            is asked, an exact search has.
        why: A few sentences, with the figures.
    """

    point: Point
    reached: bool
    why: str


def candidates(
    k: int, *, lists: Mapping[str, int], cannot: Callable[[str, str], str | None]
) -> tuple[list[Candidate], list[str]]:
    """Return what is worth measuring, the exact search first, and what is left out and why.

    Args:
        k: How many results a search has.
        lists: How many an ivfflat index of the rows has, by what it holds.
        cannot: Why an index by a method on a type cannot be; None if it can.
    """
    made, left_out = [Candidate(EXACT)], []
    for kind, number in lists.items():
        if why := cannot(IVFFLAT, kind):
            left_out.append(f"ivfflat {kind}: {why}")
        elif number < 2:
            left_out.append(f"ivfflat {kind}: it has but one list for so few rows")
        else:
            efforts = efforts_of_lists(kind, number, k)
            made.append(Candidate(IVFFLAT, kind, {"lists": number}, efforts))
    for kind in ("vector", "halfvec", "bit"):
        if why := cannot(HNSW, kind):
            left_out.append(f"hnsw {kind}: {why}")
        else:
            efforts = _taken(k) if kind == "bit" else _searched(k)
            made += [Candidate(HNSW, kind, {"m": m}, efforts) for m in _MS]
    return made, left_out


def disk_bytes(rows: int, dims: int, row_bytes: float, tried: Sequence[Candidate]) -> int:
    """Return about what a copy of the rows, of so many bytes, and the candidates' indexes take."""
    total = rows * in_page(row_bytes)
    for one in tried:
        if one.type is not None:
            width = dims * _BITS[one.type] // 8
            links = 12 * one.parameters.get("m", 0)  # on the lowest layer, 6 bytes each
            total += rows * in_page(_ELEMENT + width + links)
    return round(total)


def _searched(k: int) -> tuple[Mapping[str, int], ...]:
    # A graph search keeps no more than its ef_search; fewer than k would never be enough.
    return tuple({"ef_search": ef} for ef in _EF_SEARCH if ef >= k) or (
        {"ef_search": _MAX_EF_SEARCH},
    )


def _taken(k: int) -> tuple[Mapping[str, int], ...]:
    numbers = [min(times * k, _MAX_EF_SEARCH) for times in _TAKEN]
    return _each_once([{"candidates": number} for number in numbers])


def efforts_of_lists(kind: str, lists: int, k: int) -> tuple[Mapping[str, int], ...]:
    """Return the efforts worth trying for an ivfflat index with so many *lists*, the least first.

    Args:
        kind: What the index holds. Of signs, rows are taken to be put in order by their distance:
            what is missed for want of another list cannot be made good by more of them.
    """
    probes = [probe for probe in (*_PROBES, lists) if probe <= lists]
    if kind != "bit":
        return _each_once([{"probes": probe} for probe in probes])
    efforts = [
        {"probes": probe, "candidates": min(round(times * k), _MAX_EF_SEARCH)}
        for probe in probes
        for times in _TAKEN_FROM_LISTS
    ]
    return _each_once(sorted(efforts, key=lambda one: one["probes"] * _LIST + one["candidates"]))


def _each_once(efforts: Sequence[Mapping[str, int]]) -> tuple[Mapping[str, int], ...]:
    return tuple(effort for at, effort in enumerate(efforts) if effort not in efforts[:at])


def choose(points: Sequence[Point], goal: Goal, *, growth: float = 1.0) -> Choice:
    """Return the point to take, and why.

    That is the fastest of those that reach the goal's recall, or, of those within its
    latency, the one that finds most; if none is within it, the fastest. Among points as fast,
    within the noise, it is the one without index, else that of the smaller index, else the one
    that finds more.

    Args:
        points: At least one without index, which finds everything.
        growth: How many times more rows the space has than were measured. Indexes find less
            among more rows: so half the misses are asked for. An exact search takes as many
            times longer.
    """
    grown = [
        replace(point, p50_ms=point.p50_ms * growth, p95_ms=point.p95_ms * growth)
        if point.is_exact
        else point
        for point in points
    ]
    judge = _fastest if goal.latency_ms is None else _finds_most
    choice = judge(grown, goal, growth)
    chosen = next(at for at, point in enumerate(grown) if point is choice.point)
    return replace(choice, point=points[chosen])


def _fastest(points: Sequence[Point], goal: Goal, growth: float) -> Choice:
    asked = _asked(points, goal, growth)
    reaching = [point for point in points if point.recall >= asked]
    fastest = min(reaching, key=_p50)
    chosen = _simplest(reaching, fastest)
    why = [f"{_told(chosen)} is {_rank(chosen, fastest)} of what reaches recall {asked:g}."]
    if asked != goal.recall:
        why.append(
            f"That is more than {goal.recall:g}: the figures are of a sample, and among "
            f"{growth:.3g} times the rows an index finds less."
        )
    why += _against_exact(points, chosen)
    why += _against_others(reaching, chosen, fastest)
    if not chosen.is_exact:
        faster = [point for point in points if point.p50_ms < chosen.p50_ms / _NOISE]
        if faster:
            best = max(faster, key=lambda point: (point.recall, -point.p50_ms))
            why.append(f"The best that is faster misses it: {_told(best)}.")
    else:
        why += _short_of(points, asked)
    return Choice(chosen, True, " ".join(why))


def _asked(points: Sequence[Point], goal: Goal, growth: float) -> float:
    fewer_misses = 1 - (1 - goal.recall) / 2
    if growth > 1 and any(not one.is_exact and one.recall >= fewer_misses for one in points):
        return fewer_misses
    return goal.recall


def _finds_most(points: Sequence[Point], goal: Goal, growth: float) -> Choice:
    assert goal.latency_ms is not None
    within = [point for point in points if point.p50_ms <= goal.latency_ms]
    if not within:
        fastest = min(points, key=_p50)
        over = fastest.p50_ms - goal.latency_ms
        missed = (
            f"Nothing is within {_ms(goal.latency_ms)}: the fastest is {_told(fastest)}, "
            f"{_ms(over)} too slow. It would be reached by --latency-ms {_up(fastest.p50_ms)}, by "
            "fewer or shorter embeddings, or on a faster server."
        )
        return Choice(fastest, False, missed)
    most = max(point.recall for point in within)
    best = [point for point in within if point.recall >= most]
    fastest = min(best, key=_p50)
    chosen = _simplest(best, fastest)
    why = [f"{_told(chosen)} finds most of what is within {_ms(goal.latency_ms)}."]
    if growth > 1:
        why.append(
            f"The figures are of a sample: among {growth:.3g} times the rows an index finds less "
            "and takes somewhat longer."
        )
    why += _against_exact(points, chosen)
    why += _against_others(best, chosen, fastest)
    better = [point for point in points if point.recall > most]
    if better:
        next_one = min(better, key=_p50)
        why.append(f"To find more takes longer: {_told(next_one)}.")
    return Choice(chosen, True, " ".join(why))


def _simplest(points: Sequence[Point], fastest: Point) -> Point:
    """Return the point to take among those that are as fast as the fastest."""
    exact = [
        point
        for point in points
        if point.is_exact and point.p50_ms <= fastest.p50_ms * _EXACT_MAY_TAKE
    ]
    if exact:
        return exact[0]
    as_fast = [point for point in points if point.p50_ms <= fastest.p50_ms * _NOISE]
    # Of one index, the effort that finds more: an index built anew finds a little less or more.
    return min(as_fast, key=lambda point: (point.size_bytes, -point.recall, point.p50_ms))


def _rank(chosen: Point, fastest: Point) -> str:
    if chosen is fastest:
        return "the fastest"
    if chosen.is_exact:
        return "about as fast as the fastest"
    return "as fast as the fastest, within the noise,"


def _against_exact(points: Sequence[Point], chosen: Point) -> list[str]:
    exact = next((point for point in points if point.is_exact), None)
    if exact is None:
        return []
    if not chosen.is_exact:
        times = exact.p50_ms / chosen.p50_ms
        if times >= 1:
            return [f"An exact search takes {_ms(exact.p50_ms)}, {times:.3g} times as long."]
        return [f"An exact search takes {_ms(exact.p50_ms)}."]
    return [
        "It finds everything, needs no build and no disk, and does not slow writes down; its time "
        "grows with the rows, so measure again when they are many more."
    ]


def _against_others(points: Sequence[Point], chosen: Point, fastest: Point) -> list[str]:
    if chosen is not fastest:
        gain = "" if chosen.is_exact else f"; its index is {_size(fastest.size_bytes)}"
        return [f"The fastest is {_told(fastest)}{gain}."]
    others = [point for point in points if not _same_index(point, chosen) and not point.is_exact]
    if not others:
        return []
    second = min(others, key=_p50)
    return [f"The next is {_told(second)}."]


def _short_of(points: Sequence[Point], asked: float) -> list[str]:
    """Say how near an index came, where only an exact search reaches what is asked."""
    by_index = [point for point in points if not point.is_exact]
    if not by_index or max(point.recall for point in by_index) >= asked:
        return []
    best = max(by_index, key=lambda point: (point.recall, -point.p50_ms))
    return [
        f"No index reaches it: the best is {_told(best)}, {asked - best.recall:.3f} short; "
        f"--recall {_down(best)} would take it."
    ]


def _same_index(one: Point, other: Point) -> bool:
    return (one.method, one.type, one.parameters) == (other.method, other.type, other.parameters)


def _p50(point: Point) -> float:
    return point.p50_ms


def _told(point: Point) -> str:
    return f"{point} (recall {_share(point.recall)}, p50 {_ms(point.p50_ms)})"


def _share(recall: float) -> str:
    # Never rounded to what it is not: 0.9998 is no 1.000.
    return f"{int(recall * 1000) / 1000:.3f}"


def _ms(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:,.0f} ms"


def _up(value: float) -> str:
    return f"{int(value * 10 + 1) / 10:g}"


def _down(point: Point) -> str:
    return f"{int(point.recall * 1000) / 1000:g}"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
