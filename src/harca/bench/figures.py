"""Figures of many turns: percentiles, recall, CPU."""

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from harca.bench.worker import Turn


def latency(took_ms: Sequence[float]) -> dict[str, float]:
    """Return the percentiles of some searches' milliseconds."""
    p50, p95, p99 = np.percentile(took_ms, [50, 95, 99])
    return {"p50_ms": _short(p50), "p95_ms": _short(p95), "p99_ms": _short(p99)}


def of_turns(turns: Sequence[Turn], recalls: Sequence[float]) -> dict[str, Any]:
    """Return what a contestant did in all its turns.

    ``p50_ms`` is the median of the rounds' medians, so that a round that something else
    disturbed does not decide; the other percentiles are of all searches.
    """
    took_ms = [one for turn in turns for one in turn.took_ms]
    rounds = [_short(median(turn.took_ms)) for turn in turns]
    server = [turn.server_cpu_s for turn in turns]
    return {
        "answered": len(took_ms),
        **latency(took_ms),
        "p50_ms": _short(median(rounds)),
        "rounds_p50_ms": rounds,
        "recall": round(float(np.mean(recalls)), 4),
        "client_cpu_ms": _each(sum(turn.client_cpu_s for turn in turns), took_ms),
        "server_cpu_ms": None
        if None in server
        else _each(sum(one for one in server if one is not None), took_ms),
        "client_mb": turns[-1].client_mb,
        "server_mb": turns[-1].server_mb,
    }


def at_once(turns: Sequence[Turn]) -> dict[str, Any]:
    """Return what several clients did at the same time, one turn each."""
    took_ms = [one for turn in turns for one in turn.took_ms]
    server = [turn.server_cpu_s for turn in turns]
    client_mb = [turn.client_mb for turn in turns]
    server_mb = [turn.server_mb for turn in turns]
    return {
        "clients": len(turns),
        "answered": len(took_ms),
        "qps": _short(sum(len(turn.took_ms) / turn.seconds for turn in turns)),
        **latency(took_ms),
        "client_cpu_ms": _each(sum(turn.client_cpu_s for turn in turns), took_ms),
        "server_cpu_ms": None
        if None in server
        else _each(sum(one for one in server if one is not None), took_ms),
        "client_mb": _sum(client_mb),
        "server_mb": _sum(server_mb),
    }


def ratio(one: float, other: float) -> float | None:
    """Return how many times *other* the *one* is."""
    return round(one / other, 3) if other else None


def _each(seconds: float, took_ms: Sequence[float]) -> float:
    return _short(1_000 * seconds / len(took_ms))


def _sum(sizes: Sequence[float | None]) -> float | None:
    return None if None in sizes else round(sum(size for size in sizes if size is not None), 1)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
