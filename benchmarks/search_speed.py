"""How fast the nearest are found: every kind of index against NumPy and SQL written by hand.

The rows are loaded once. For each candidate the index is built as `harca index build` does, the
least effort is chosen that reaches the recall (by queries of its own), and then NumPy, harca and
SQL by hand answer the same other queries in turns. A ratio is the median of the rounds' ratios.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from _common import CANDIDATES, candidates, parser, server_facts, show

from harca.bench import figures, measuring
from harca.bench.made_up import Indexed, indexed, loaded, queries_of, recalls, shown_effort
from harca.bench.truth import Truth
from harca.bench.worker import Turn, Worker
from harca.postgres.connect import database
from harca.postgres.space_settings import Effort

NUMPY_GOAL = 20
SQL_GOAL = 1.15


def say(message: str) -> None:
    """Print progress."""
    print(message, file=sys.stderr, flush=True)


def ratio(one: list[Turn], other: list[Turn]) -> float:
    """Return how many times as long *one* takes as *other*."""
    return median(
        median(first.took_ms) / median(second.took_ms)
        for first, second in zip(one, other, strict=True)
    )


def measure(there: Indexed, name: str, given: Any, queries: Any) -> tuple[dict[str, Any], Any]:
    """Return the line of one candidate, and what was tried to reach the recall."""
    notes = {}
    with ExitStack() as stack:
        workers = {
            one.name: stack.enter_context(Worker(one, threads=measuring.cores()))
            for one in there.contestants()
        }
        notes = {who: worker.notes for who, worker in workers.items() if worker.notes}
        turns = measuring.take_turns(workers, queries, given.k, rounds=given.rounds, say=say)
    truth = Truth(there.loaded.mapped(), queries, given.k)
    of = {
        who: figures.of_turns(some, recalls(some, truth, there.loaded.places))
        for who, some in turns.items()
    }
    index = there.facts["index"]
    line = {
        "candidate": name,
        "effort": shown_effort(Effort(**index["effort"])),
        "recall": of["harca"]["recall"],
        "recall SQL": of["sql"]["recall"],
        "NumPy p50 ms": of["numpy"]["p50_ms"],
        "SQL p50 ms": of["sql"]["p50_ms"],
        "harca p50 ms": of["harca"]["p50_ms"],
        "harca p95 ms": of["harca"]["p95_ms"],
        "harca p99 ms": of["harca"]["p99_ms"],
        "NumPy / harca": round(ratio(turns["numpy"], turns["harca"]), 2),
        "harca / SQL": round(ratio(turns["harca"], turns["sql"]), 3),
        "pages": round(there.facts["pages"]),
        "index MB": round(index["bytes"] / 1e6, 1),
        "build s": there.facts["build_s"],
    }
    return line, {"tried": there.facts["tried"], "notes": notes, "figures": of}


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--dims", type=int, default=1536)
    options.add_argument("--queries", type=int, default=100, help="of a round")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--recall", type=float, default=0.98)
    options.add_argument("-k", type=int, default=10)
    options.add_argument("--candidates", type=candidates, default=",".join(CANDIDATES))
    given = options.parse_args()

    tuning, queries = queries_of(given.dims, given.queries)
    lines, details = [], {}
    with (
        tempfile.TemporaryDirectory(prefix="harca-bench-", dir=given.scratch) as folder,
        ExitStack() as stack,
    ):
        rows = loaded(
            stack, database(given.database), given.rows, given.dims, Path(folder), say=say
        )
        with rows.database.connect() as conn:
            facts = server_facts(conn)
        for name in given.candidates:
            say(f"-- {name}")
            there = indexed(rows, tuning, given.k, given.recall, settings=CANDIDATES[name], say=say)
            line, details[name] = measure(there, name, given, queries)
            lines.append(line)
    fitting = [line for line in lines if line["recall"] >= given.recall]
    best = min(fitting or lines, key=lambda line: line["harca p50 ms"])
    show(
        facts,
        lines,
        {
            "rows in the table": given.rows,
            "dims": given.dims,
            "k": given.k,
            "queries": given.queries,
            "rounds": given.rounds,
            "recall asked for": given.recall,
            "best": best["candidate"],
            f"NumPy / harca, goal {NUMPY_GOAL}": best["NumPy / harca"],
            f"harca / SQL, goal at most {SQL_GOAL}": best["harca / SQL"],
            "NumPy": "; ".join(details[best["candidate"]]["notes"].get("numpy", [])),
            **({"details": details} if given.json else {}),
        },
        as_json=given.json,
    )


if __name__ == "__main__":
    main()
