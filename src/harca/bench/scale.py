"""`harca bench scale`: what ten times the rows cost, in scratch databases.

The result is one object (``--json``; kept as measurement ``bench scale``)::

    rows, factor, dims, k, queries, rounds
    recall_goal    the effort is the least that reaches it, found by queries of its own
    growth_goal    1.1: the plan's
    sizes          the smaller first: [{
        rows, load_s, build_s, table_bytes
        index              {name, method, type, parameters, effort, bytes}; null: exact
        p50_ms, p95_ms, p99_ms, rounds_p50_ms, recall, client_cpu_ms, server_cpu_ms, ...
                           of harca's search, as in `bench search`
        sql                the same of SQL written by hand
        numpy              the same of the exact search in memory
        tried              [{effort, recall, p50_ms, p95_ms, p99_ms}], in ascending order of
                           effort, until the goal was reached; by SQL
        pages              that one search looks at, on average, by the server's count
    }]
    growth         of harca's p50: the median of the rounds' ratios
    rounds_growth  [ratio]
    growth_sql, growth_numpy    likewise
    reached        whether growth <= growth_goal, at the recall of the goal on both sizes
    why            [text]: what grew
    server, machine    as in `bench search`
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harca import migrations
from harca.bench import figures, measuring
from harca.bench.made_up import Indexed, indexed, loaded, queries_of, recalls, shown_effort
from harca.bench.measuring import Say
from harca.bench.search import machine
from harca.bench.truth import Truth
from harca.bench.worker import Turn, Worker
from harca.errors import UsageError
from harca.postgres import measurements, space_rows
from harca.postgres.connect import Database, translated
from harca.postgres.search import MAX_K
from harca.postgres.space_settings import Effort

KIND = "bench scale"
GROWTH_GOAL = 1.10


@dataclass(frozen=True, slots=True)
class ScaleOptions:
    """What is measured.

    Attributes:
        rows: Of the smaller size; the larger has *factor* times as many.
        queries: In each round.
    """

    rows: int = 10_000
    factor: int = 10
    dims: int = 1536
    recall: float = 0.98
    k: int = 10
    queries: int = 100
    rounds: int = 5


def bench_scale(
    target: Database, options: ScaleOptions, *, say: Say = lambda message: None
) -> dict[str, Any]:
    """Measure, keep the result in the database of *target*, and return it.

    The rows are made up, in scratch databases on the server of *target*, which are dropped.

    Raises:
        UsageError: The options make no sense.
        NoScratchDatabase: The role may not make databases.
    """
    _check(options)
    migrations.require_schema(target, migrations.MEASUREMENTS)
    tuning, queries = queries_of(options.dims, options.queries)
    with (
        translated(),
        tempfile.TemporaryDirectory(prefix="harca-bench-") as folder,
        ExitStack() as stack,
    ):
        sizes = []
        for rows in (options.rows, options.rows * options.factor):
            there = loaded(stack, target, rows, options.dims, Path(folder), say=say)
            sizes.append(indexed(there, tuning, options.k, options.recall, say=say))
        turns = measured(sizes, queries, options.k, options.rounds, say)
        shown = [
            {**size.facts, **_figures(size, size_turns, queries, options.k)}
            for size, size_turns in zip(sizes, turns, strict=True)
        ]
        growths = {
            name: growth(turns[0][name], turns[1][name]) for name in ("harca", "sql", "numpy")
        }
        with target.connect() as conn:
            result = {
                "rows": options.rows,
                "factor": options.factor,
                "dims": options.dims,
                "k": options.k,
                "queries": options.queries,
                "rounds": options.rounds,
                "recall_goal": options.recall,
                "growth_goal": GROWTH_GOAL,
                "sizes": shown,
                "growth": median(growths["harca"]),
                "rounds_growth": growths["harca"],
                "growth_sql": median(growths["sql"]),
                "growth_numpy": median(growths["numpy"]),
                "reached": median(growths["harca"]) <= GROWTH_GOAL
                and all(one["recall"] >= options.recall for one in shown),
                "why": why(shown, options.recall),
                "server": space_rows.server_facts(conn),
                "machine": machine(),
            }
            measurements.keep(conn, KIND, result)
    return result


def _check(options: ScaleOptions) -> None:
    if not 0 < options.recall <= 1:
        raise UsageError(
            f"the recall is {options.recall}, expected more than 0 and at most 1",
            hint="For example: --recall 0.98",
        )
    if not 1 <= options.k <= min(MAX_K, options.rows):
        raise UsageError(
            f"k is {options.k}, expected 1 to {min(MAX_K, options.rows)}",
            hint="Ask for a number of results in that range.",
        )


def measured(
    sizes: Sequence[Indexed], queries: NDArray[np.float32], k: int, rounds: int, say: Say
) -> list[dict[str, list[Turn]]]:
    """Return the turns of every contestant of every size, all in one round-robin."""
    with ExitStack() as stack:
        workers = {
            f"{one.name} {size.loaded.rows}": stack.enter_context(
                Worker(one, threads=measuring.cores())
            )
            for size in sizes
            for one in size.contestants()
        }
        turns = measuring.take_turns(workers, queries, k, rounds=rounds, say=say)
    return [
        {one.name: turns[f"{one.name} {size.loaded.rows}"] for one in size.contestants()}
        for size in sizes
    ]


def _figures(
    size: Indexed, turns: Mapping[str, Sequence[Turn]], queries: NDArray[np.float32], k: int
) -> dict[str, Any]:
    truth = Truth(size.loaded.mapped(), queries, k)
    of = {
        name: figures.of_turns(some, recalls(some, truth, size.loaded.places))
        for name, some in turns.items()
    }
    return {**of["harca"], "sql": of["sql"], "numpy": of["numpy"]}


def growth(small: Sequence[Turn], large: Sequence[Turn]) -> list[float]:
    """Return for each round how many times as long the larger size takes, by the p50."""
    return [
        round(median(two.took_ms) / median(one.took_ms), 3)
        for one, two in zip(small, large, strict=True)
    ]


def why(sizes: Sequence[Mapping[str, Any]], recall: float) -> list[str]:
    """Return what differs between the sizes, in sentences."""
    small, large = sizes
    found = []
    if small["index"] is None or large["index"] is None:
        exact = [f"{one['rows']:,}" for one in sizes if one["index"] is None]
        found.append(
            f"{' and '.join(exact)} rows are searched exactly: every row is looked at, so that "
            "time grows with their number."
        )
    elif small["index"]["effort"] != large["index"]["effort"]:
        found.append(
            f"to hold a recall of {recall}, the effort went from "
            f"{shown_effort(Effort(**small['index']['effort']))} to "
            f"{shown_effort(Effort(**large['index']['effort']))}."
        )
    if small["pages"] and large["pages"]:
        found.append(
            f"a search looks at {large['pages']:,.0f} pages instead of {small['pages']:,.0f}, "
            f"{large['pages'] / small['pages']:.2f} times as many."
        )
    found += [
        f"at {one['rows']:,} rows the recall is {one['recall']}, below the goal."
        for one in sizes
        if one["recall"] < recall
    ]
    return [sentence[0].upper() + sentence[1:] for sentence in found]
