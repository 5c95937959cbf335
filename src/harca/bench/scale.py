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
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harca import migrations
from harca.bench import figures, measuring
from harca.bench.contestant import Contestant, Key
from harca.bench.loading import load_as_migrate
from harca.bench.measuring import Say
from harca.bench.memory import InMemory
from harca.bench.search import described, machine, recalls
from harca.bench.synthetic import MODEL, Embeddings, VectorsReader
from harca.bench.truth import Truth
from harca.bench.worker import Turn, Worker
from harca.errors import UsageError
from harca.model import Space
from harca.options import LoadOptions
from harca.postgres import indexes, measurements, pages, space_rows, space_settings
from harca.postgres.connect import Database, translated
from harca.postgres.contestants import HandWritten, Harca, hand_written
from harca.postgres.scratch import scratch_database, settle
from harca.postgres.search import MAX_K
from harca.postgres.space_index import spaces
from harca.postgres.space_settings import Effort

KIND = "bench scale"
GROWTH_GOAL = 1.10

_EFFORTS = (10, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 1_000)
_PROBES = (1, 2, 4, 8, 16, 32, 64, 128)


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


@dataclass(slots=True)
class Size:
    """One size: a database with so many rows, indexed, and what is measured in it."""

    rows: int
    database: Database
    space: Space
    matrix: Path
    queries: NDArray[np.float32]
    truth: Truth
    places: Mapping[Key, int]
    facts: dict[str, Any]
    by_hand: HandWritten

    def contestants(self) -> list[Contestant]:
        """Return who is measured."""
        return [
            InMemory(self.matrix, self.matrix.with_suffix(".ids.npy")),
            Harca(self.database, self.space),
            self.by_hand,
        ]


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
    with (
        translated(),
        tempfile.TemporaryDirectory(prefix="harca-bench-") as folder,
        ExitStack() as stack,
    ):
        sizes = [
            prepared(stack, target, rows, Path(folder), options, say)
            for rows in (options.rows, options.rows * options.factor)
        ]
        turns = measured(sizes, options, say)
        shown = [
            {**size.facts, **_figures(size, size_turns)}
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


def prepared(
    stack: ExitStack,
    server: Database,
    rows: int,
    folder: Path,
    options: ScaleOptions,
    say: Say,
) -> Size:
    """Make a scratch database with *rows* rows, indexed and with its effort chosen."""
    database = stack.enter_context(scratch_database(server))
    migrations.upgrade(database)
    embeddings = Embeddings(options.dims)
    matrix = folder / f"{rows}.npy"
    say(f"{rows:,} rows: making them up")
    vectors = embeddings.write(rows, matrix)
    # None of the rows, and the same ones for every size.
    asked = Embeddings(options.dims, queries=True).draw(2 * options.queries).astype(np.float32)
    with database.connect() as conn:
        say(f"{rows:,} rows: loading")
        started = perf_counter()
        load_as_migrate(conn, VectorsReader(vectors, 0), LoadOptions(name="benchmark", model=MODEL))
        load_s = perf_counter() - started
        say(f"{rows:,} rows: building the index")
        started = perf_counter()
        indexes.build(conn)
        build_s = perf_counter() - started
        conn.execute("VACUUM ANALYZE vector_embeddings")
        (space,) = spaces(conn)
        ids = conn.execute("SELECT id, store_key FROM vector_embeddings ORDER BY id").fetchall()
    settle(database)
    np.save(matrix.with_suffix(".ids.npy"), _in_order_of_rows(ids))
    places: dict[Key, int] = {number: int(key) for number, key in ids}
    for_effort, queries = asked[: options.queries], asked[options.queries :]
    by_hand, tried = with_effort(
        hand_written(database, space), vectors, for_effort, places, options, say
    )
    with database.connect() as conn:
        if by_hand.index is not None:
            space_settings.keep(conn, space, effort=by_hand.effort)
        facts = {
            "rows": rows,
            "load_s": round(load_s, 2),
            "build_s": round(build_s, 2),
            "index": None if by_hand.index is None else described(conn, by_hand.index, by_hand),
            "table_bytes": space_rows.bytes_of(conn, "vector_embeddings"),
            "tried": tried,
            "pages": pages.of_searches(conn, by_hand, queries[:20], options.k),
        }
    truth = Truth(vectors, queries, options.k)
    return Size(rows, database, space, matrix, queries, truth, places, facts, by_hand)


def _in_order_of_rows(ids: Sequence[tuple[int, str]]) -> NDArray[np.int64]:
    ordered = np.empty(len(ids), np.int64)
    for number, key in ids:
        ordered[int(key)] = number
    return ordered


def with_effort(
    by_hand: HandWritten,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    places: Mapping[Key, int],
    options: ScaleOptions,
    say: Say,
) -> tuple[HandWritten, list[dict[str, Any]]]:
    """Return the search with the least effort that reaches the recall, and what was tried.

    Where none does, it has the greatest.
    """
    tried: list[dict[str, Any]] = []
    if by_hand.index is None:
        return by_hand, tried
    truth = Truth(vectors, queries, options.k)
    for effort in efforts(by_hand.index.method, by_hand.index.type, options.k):
        by_hand = replace(by_hand, effort=effort)
        with Worker(by_hand, threads=1) as worker:
            turn = worker.ask(queries, options.k, budget_s=measuring.TURN_S)
        recall = float(np.mean(recalls([turn], truth, places)))
        tried.append(
            {
                "effort": effort.as_dict(),
                "recall": round(recall, 4),
                **figures.latency(turn.took_ms),
            }
        )
        say(f"{len(vectors):,} rows: recall {recall:.3f} with {shown_effort(effort)}")
        if recall >= options.recall:
            break
    return by_hand, tried


def efforts(method: str, kind: str, k: int) -> list[Effort]:
    """Return the efforts to try, in ascending order."""
    if method == "ivfflat":
        return [Effort(probes=probes) for probes in _PROBES]
    levels = [effort for effort in _EFFORTS if effort >= k]
    if kind == "bit":
        return [Effort(ef_search=level, candidates=level) for level in levels]
    return [Effort(ef_search=level) for level in levels]


def shown_effort(effort: Effort) -> str:
    """Return an effort for people."""
    return ", ".join(f"{name} {value}" for name, value in effort.as_dict().items()) or "no effort"


def measured(sizes: Sequence[Size], options: ScaleOptions, say: Say) -> list[dict[str, list[Turn]]]:
    """Return the turns of every contestant of every size, all in one round-robin."""
    with ExitStack() as stack:
        workers = {
            f"{one.name} {size.rows}": stack.enter_context(Worker(one, threads=measuring.cores()))
            for size in sizes
            for one in size.contestants()
        }
        # The queries are the same for every size.
        turns = measuring.take_turns(
            workers, sizes[0].queries, options.k, rounds=options.rounds, say=say
        )
    return [
        {one.name: turns[f"{one.name} {size.rows}"] for one in size.contestants()} for size in sizes
    ]


def _figures(size: Size, turns: Mapping[str, Sequence[Turn]]) -> dict[str, Any]:
    of = {
        name: figures.of_turns(some, recalls(some, size.truth, size.places))
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
