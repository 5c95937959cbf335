"""The plan's four criteria, each judged by what was measured. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from harca.errors import counted
from harca.postgres.overview import RunLine
from harca.report import figures
from harca.report.measured import Parity, Scale, Soak

MET, NOT_MET, NOT_MEASURED = "met", "not met", "not measured"

FASTER = 0.80  # of the time before, at most: 20 % faster
STABLE_MINUTES = 24 * 60
GROWTH = 1.10
TEN = 10

_BEFORE = {"numpy": "all in memory", "files": "read from its files"}


@dataclass(frozen=True, slots=True)
class Criterion:
    """One of them.

    Attributes:
        outcome: ``met``, ``not met`` or ``not measured``.
        figure: What was measured, short.
        detail: What it means, a sentence or two.
        command: Which measures it, or shows more.
    """

    name: str
    outcome: str
    figure: str
    detail: str
    command: str


def equal(latest: Sequence[RunLine]) -> Criterion:
    """Judge whether counts and contents are the same before and after; all stores must be."""
    name = "Counts and contents are equal"
    if not latest:
        return _unmeasured(name, "No store was loaded.", "harca migrate STORE")
    different = [run for run in latest if run.status == "different"]
    short = [run for run in latest if run.rejected > run.max_rejects and run.status == "verified"]
    open_ = [run for run in latest if run.status in ("loaded", "loading")]
    verified = len(latest) - len(different) - len(open_)
    figure = f"{verified:,} of {counted(len(latest), 'store')} verified"
    if different or short:
        told = []
        if not different:
            figure = f"{counted(sum(run.rejected for run in short), 'record')} rejected"
        if different:
            told.append(f"{counted(len(different), 'store')} and rows differ.")
        if short:
            records = sum(run.rejected for run in short)
            told.append(
                f"{counted(records, 'record')} of {counted(len(short), 'store')} "
                f"{'was' if records == 1 else 'were'} rejected."
            )
        return Criterion(name, NOT_MET, figure, " ".join(told), "harca verify")
    if open_:
        many = counted(len(open_), "store")
        return Criterion(name, NOT_MEASURED, figure, f"{many} not verified yet.", "harca verify")
    read = sum(run.read for run in latest)
    accepted = sum(run.rejected for run in latest)
    told = [f"{counted(read, 'record')} read, every vector, text and metadata compared."]
    if accepted:
        told.append(f"{counted(accepted, 'rejection')} accepted by the operator.")
    return Criterion(name, MET, figure, " ".join(told), "harca verify")


def faster(parities: Sequence[Parity]) -> Criterion:
    """Judge whether searches take at most `FASTER` of the file store's time, in every space.

    The file store is given its fastest way: with all vectors in memory, if that was measured.
    """
    name = "Search is at least 20 % faster"
    ratios = [
        (one.ours.p50_ms / one.before.p50_ms, one)
        for one in parities
        if one.ours is not None and one.before is not None and one.before.p50_ms > 0
    ]
    if not ratios:
        return _unmeasured(name, "No comparison was made.", "harca bench search")
    worst, parity = max(ratios, key=lambda pair: pair[0])
    assert parity.ours is not None
    assert parity.before is not None
    figure = (
        f"{1 / worst:,.1f} times as fast"
        if worst < FASTER
        else f"{figures.percent(1 - worst)} faster"
        if worst < 1
        else f"{figures.times(worst)} times as slow"
    )
    return Criterion(
        name,
        MET if worst <= FASTER else NOT_MET,
        figure,
        f"Half of the searches within {figures.ms(parity.ours.p50_ms)} ms; of the file store, "
        + " and ".join(
            f"{_BEFORE[one.name]}, {figures.ms(one.p50_ms)} ms"
            for one in sorted(parity.contestants, key=lambda one: one.p50_ms)
            if one.name in _BEFORE
        )
        + _of(len(ratios), "space"),
        "harca bench search",
    )


def stable(soaks: Sequence[Soak]) -> Criterion:
    """Judge whether it went on for 24 hours; shorter ones that went well leave it open."""
    name = "Stable for 24 hours"
    command = f"harca soak --minutes {STABLE_MINUTES}"
    if not soaks:
        return _unmeasured(name, "Nothing was run for long.", command)
    worst = min(soaks, key=lambda one: (one.is_steady, one.minutes))
    figure = f"{worst.verdict}, {_hours(worst.minutes)}"
    if not worst.is_steady:
        return Criterion(name, NOT_MET, figure, _sentence("; ".join(worst.reasons)), command)
    told = f"{worst.requests:,} requests, {figures.percent(worst.error_share)} of them failed"
    if worst.minutes >= STABLE_MINUTES and not worst.interrupted:
        return Criterion(name, MET, figure, f"{told}; nothing drifted.", command)
    return Criterion(
        name, NOT_MEASURED, figure, f"{told}; nothing drifted, but it was shorter.", command
    )


def scaling(scales: Sequence[Scale]) -> Criterion:
    """Judge whether ten times the rows cost at most `GROWTH`, at every size measured."""
    name = "Ten times the data costs at most 10 %"
    tens = [one for one in scales if one.factor >= TEN and one.ours and one.ours.growth is not None]
    if not tens:
        return _unmeasured(name, "No growth was measured.", "harca bench scale")
    worst = max(tens, key=lambda one: (not one.reached, one.ours.growth if one.ours else 0))
    ours = worst.ours
    assert ours is not None
    assert ours.growth is not None
    more = ours.growth - 1
    figure = f"{figures.percent(more)} more" if more > 0 else f"{figures.percent(-more)} less"
    recall = min((one for one in ours.recall if one is not None), default=None)
    missed = recall is not None and recall < worst.recall_goal
    return Criterion(
        name,
        MET if worst.reached and ours.growth <= GROWTH else NOT_MET,
        figure,
        f"Half of the searches within {figures.ms(ours.p50_ms[0])} ms among "
        f"{ours.rows[0]:,} rows, {figures.ms(ours.p50_ms[-1])} ms among {ours.rows[-1]:,}"
        + (
            f"; recall {figures.share(recall)}, asked for: {worst.recall_goal:g}"
            if missed
            else f", at recall {figures.share(recall)} or more"
        )
        + _of(len(tens), "size"),
        "harca bench scale",
    )


def _of(count: int, what: str) -> str:
    return "." if count == 1 else f"; the worst of {counted(count, what)}."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _hours(minutes: float) -> str:
    if minutes < 120:
        return f"{minutes:,.{1 if minutes < 10 else 0}f} min"
    return f"{minutes / 60:,.1f} h"


def _unmeasured(name: str, why: str, command: str) -> Criterion:
    return Criterion(name, NOT_MEASURED, "", why, command)
