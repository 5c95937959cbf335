"""What a filter costs a search, and whether it still finds the nearest, at each selectivity.

The filters are on the metadata and on the source, and let 50, 10, 1 and 0.1 % of the rows
through; which rows, has nothing to do with where they lie. Harca's search, as an application
calls it, answers the same queries under each filter, in turns; the truth is the exact answer
among the rows that the filter lets through.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from _common import CANDIDATES, VectorsReader, parser, server_facts, show

from harca.bench import figures, measuring
from harca.bench.made_up import indexed, loaded, queries_of, recalls
from harca.bench.ours import Harca
from harca.bench.synthetic import MODEL
from harca.bench.truth import Truth
from harca.bench.worker import Worker
from harca.postgres.connect import database
from harca.store import VectorStore

GOAL = 0.95
# By the rest of a row's number modulo 1,000: shares of 0.1, 1, 10 and 50 %.
SHARES = {"0.1": (0, 1), "1": (1, 11), "10": (11, 111), "50": (111, 611)}


def say(message: str) -> None:
    """Print progress."""
    print(message, file=sys.stderr, flush=True)


def share_of(number: int) -> str:
    """Return by which filter a row is let through."""
    # Neighbouring numbers go to different shares.
    rest = number * 7919 % 1000
    return next((name for name, (low, high) in SHARES.items() if low <= rest < high), "none")


class FilteredReader(VectorsReader):
    """Rows that say in their metadata, and by their source, to which share they belong."""

    def metadata(self, number: int) -> dict[str, Any]:
        """Return the share."""
        return {"number": number, "share": share_of(number)}

    def source(self, number: int) -> str:
        """Return the share."""
        return f"share {share_of(number)}"


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--dims", type=int, default=1536)
    options.add_argument("--queries", type=int, default=100, help="of a round")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--recall", type=float, default=0.98, help="without a filter")
    options.add_argument("-k", type=int, default=10)
    options.add_argument("--candidate", choices=CANDIDATES, help="index; by default harca chooses")
    given = options.parse_args()

    tuning, queries = queries_of(given.dims, given.queries)
    with (
        tempfile.TemporaryDirectory(prefix="harca-bench-", dir=given.scratch) as folder,
        ExitStack() as stack,
    ):
        rows = loaded(
            stack, database(given.database), given.rows, given.dims, Path(folder),
            reader=FilteredReader, say=say,
        )  # fmt: skip
        settings = CANDIDATES[given.candidate] if given.candidate else None
        there = indexed(rows, tuning, given.k, given.recall, settings=settings, say=say)
        with rows.database.connect() as conn:
            facts = server_facts(conn)
        contestants = [Harca(rows.database, rows.space, name="no filter")]
        shares = {"no filter": "100"}
        for share in sorted(SHARES, key=float, reverse=True):
            for kind in ("metadata", "source"):
                name = f"{kind}, {share} %"
                shares[name] = share
                contestants.append(
                    Harca(rows.database, rows.space, where={"share": share}, name=name)
                    if kind == "metadata"
                    else Harca(rows.database, rows.space, source=f"share {share}", name=name)
                )
        with ExitStack() as running:
            workers = {
                one.name: running.enter_context(Worker(one, threads=1)) for one in contestants
            }
            turns = measuring.take_turns(workers, queries, given.k, rounds=given.rounds, say=say)
        of_rows = np.array([share_of(number) for number in range(given.rows)])
        matrix = rows.mapped()
        lines: list[dict[str, Any]] = []
        for one in contestants:
            share = shares[one.name]
            wanted = np.arange(given.rows) if share == "100" else np.flatnonzero(of_rows == share)
            truth = Truth(matrix[wanted], queries, given.k)
            among = {int(row): at for at, row in enumerate(wanted)}
            places = {key: among[row] for key, row in rows.places.items() if row in among}
            figure = figures.of_turns(turns[one.name], recalls(turns[one.name], truth, places))
            with VectorStore(rows.database, connections=1) as store:
                by = store.search(
                    queries[0], model_id=MODEL, k=given.k, where=one.where, source=one.source
                ).answered_by
            lines.append(
                {
                    "filter": one.name,
                    "rows let through": len(wanted),
                    "recall": figure["recall"],
                    "p50 ms": figure["p50_ms"],
                    "p95 ms": figure["p95_ms"],
                    "p99 ms": figure["p99_ms"],
                    "times no filter": round(
                        figure["p50_ms"] / (lines[0]["p50 ms"] if lines else figure["p50_ms"]), 2
                    ),
                    "answered": "exactly" if by == "exact" else "by index",
                }
            )
    show(
        facts,
        lines,
        {
            "rows in the table": given.rows,
            "dims": given.dims,
            "k": given.k,
            "queries": given.queries,
            "rounds": given.rounds,
            "index": str(there.facts["index"]),
            f"least recall, goal {GOAL}": min(line["recall"] for line in lines),
        },
        as_json=given.json,
    )


if __name__ == "__main__":
    main()
