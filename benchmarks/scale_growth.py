"""What ten times the rows cost a search, with every option that could make it cost less.

All sizes are loaded once. For each candidate the index is built at every size, with the least
effort that reaches the recall there, and all sizes take turns with the same queries: NumPy,
harca, and SQL by hand in several ways. A growth is the median of the rounds' ratios of p50.

A candidate is a kind of index with its m, and after a slash how the column is stored, if not as
the schema has it: `halfvec-16/plain`. It is measured once more with the effort of the largest
size at every size (`one effort`). The ways of SQL by hand: planned for every search
(`unprepared`), reading ahead (`io`), everything read into memory first (`prewarmed`, where the
server has pg_prewarm).
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from _common import CANDIDATES, numbers, parser, server_facts, show
from psycopg import sql

from harca.bench import figures, measuring
from harca.bench.contestant import Contestant
from harca.bench.made_up import Indexed, Loaded, indexed, loaded, queries_of, recalls, shown_effort
from harca.bench.truth import Truth
from harca.bench.worker import Turn, Worker
from harca.postgres import indexes, space_settings
from harca.postgres.connect import database
from harca.postgres.space_index import index_name
from harca.postgres.space_settings import Effort

GOAL = 1.10
STORAGES = ("plain", "main", "external", "extended")
DEFAULT = "vector-16,halfvec-16,halfvec-32,bit-16,bit-32,bit-lists,halfvec-16/plain,bit-lists/plain"


def say(message: str) -> None:
    """Print progress."""
    print(message, file=sys.stderr, flush=True)


def asked_for(text: str) -> list[tuple[str, str]]:
    """Return candidates with their storage; an empty one is the schema's."""
    found = []
    for part in text.split(","):
        name, _, storage = part.partition("/")
        if name not in CANDIDATES or storage not in ("", *STORAGES):
            raise ValueError(part)
        found.append((name, storage))
    return found


def store_as(rows: Loaded, storage: str) -> None:
    """Have the column stored so, all rows written anew."""
    with rows.database.connect() as conn:
        indexes.drop(conn, index_name(rows.space))
        conn.execute(
            sql.SQL("ALTER TABLE vector_embeddings ALTER embedding SET STORAGE {}").format(
                sql.SQL(storage)
            )
        )
        conn.execute("VACUUM FULL vector_embeddings")


def ways(there: Indexed, *, prewarmed: bool) -> list[Contestant]:
    """Return who is measured."""
    by_hand = there.by_hand
    found = [
        *there.contestants(),
        replace(by_hand, prepared=False, name="sql, unprepared"),
        replace(by_hand, settings=(("effective_io_concurrency", "256"),), name="sql, io"),
    ]
    return [replace(by_hand, name="sql, prewarmed")] if prewarmed else found


def with_effort_of(there: Indexed, largest: Indexed, k: int) -> Indexed:
    """Return a size that is searched with the effort that the largest one needs."""
    effort = largest.by_hand.effort
    with there.loaded.database.connect() as conn:
        space_settings.keep(conn, there.loaded.space, effort=replace(effort, k=k))
    return replace(there, by_hand=replace(there.by_hand, effort=effort))


def prewarm(rows: Loaded) -> str | None:
    """Read index and table into memory; return why not."""
    with rows.database.connect() as conn:
        try:
            conn.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
        except psycopg.Error as exc:
            return str(exc).splitlines()[0]
        for name in (index_name(rows.space), "vector_embeddings"):
            conn.execute("SELECT pg_prewarm(%s::regclass)", [name])
    return None


def turns_of(
    sizes: list[Indexed], given: Any, queries: Any, *, prewarmed: bool
) -> dict[str, list[list[Turn]]]:
    """Return by way, then by size, the turns of all."""
    with ExitStack() as stack:
        workers = {
            (one.name, at): stack.enter_context(Worker(one, threads=measuring.cores()))
            for at, there in enumerate(sizes)
            for one in ways(there, prewarmed=prewarmed)
        }
        named = {f"{name} {at}": worker for (name, at), worker in workers.items()}
        turns = measuring.take_turns(named, queries, given.k, rounds=given.rounds, say=say)
    found: dict[str, list[list[Turn]]] = {}
    for name, at in workers:
        found.setdefault(name, []).append(turns[f"{name} {at}"])
    return found


def lines_of(
    candidate: str,
    sizes: list[Indexed],
    turns: dict[str, list[list[Turn]]],
    given: Any,
    queries: Any,
) -> Iterator[dict[str, Any]]:
    """Yield a line for each way."""
    truths = [Truth(there.loaded.mapped(), queries, given.k) for there in sizes]
    for name, of_sizes in turns.items():
        line: dict[str, Any] = {"candidate": candidate, "way": name}
        for there, truth, some in zip(sizes, truths, of_sizes, strict=True):
            figure = figures.of_turns(some, recalls(some, truth, there.loaded.places))
            line[f"{there.loaded.rows:,}: p50 ms"] = figure["p50_ms"]
            line[f"{there.loaded.rows:,}: recall"] = figure["recall"]
        for at, (small, large) in enumerate(pairwise(of_sizes)):
            line[f"growth to {sizes[at + 1].loaded.rows:,}"] = round(
                median(
                    median(two.took_ms) / median(one.took_ms)
                    for one, two in zip(small, large, strict=True)
                ),
                3,
            )
        yield line


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--rows", type=numbers, default="1000,10000,100000")
    options.add_argument("--dims", type=int, default=1536)
    options.add_argument("--queries", type=int, default=100, help="of a round")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--recall", type=float, default=0.98)
    options.add_argument("-k", type=int, default=10)
    options.add_argument("--candidates", type=asked_for, default=DEFAULT)
    given = options.parse_args()

    tuning, queries = queries_of(given.dims, given.queries)
    lines: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    not_prewarmed: str | None = None
    with (
        tempfile.TemporaryDirectory(prefix="harca-bench-", dir=given.scratch) as folder,
        ExitStack() as stack,
    ):
        server = database(given.database)
        all_rows = [
            loaded(stack, server, rows, given.dims, Path(folder), say=say)
            for rows in sorted(given.rows)
        ]
        with all_rows[0].database.connect() as conn:
            facts = server_facts(conn)
        stored = ""
        for name, storage in given.candidates:
            candidate = f"{name}/{storage}" if storage else name
            say(f"-- {candidate}")
            if storage != stored:
                for rows in all_rows:
                    store_as(rows, storage or "main")
                stored = storage
            sizes = [
                indexed(rows, tuning, given.k, given.recall, settings=CANDIDATES[name], say=say)
                for rows in all_rows
            ]
            turns = turns_of(sizes, given, queries, prewarmed=False)
            refused = [prewarm(rows) for rows in all_rows]
            if any(refused):
                not_prewarmed = next(why for why in refused if why)
            else:
                turns |= turns_of(sizes, given, queries, prewarmed=True)
            lines += lines_of(candidate, sizes, turns, given, queries)
            alike = [with_effort_of(there, sizes[-1], given.k) for there in sizes]
            turns = turns_of(alike, given, queries, prewarmed=False)
            same = {name: turns[name] for name in ("harca", "sql")}
            lines += lines_of(f"{candidate}, one effort", alike, same, given, queries)
            details[candidate] = {
                f"{there.loaded.rows:,}": {
                    "effort": shown_effort(Effort(**there.facts["index"]["effort"])),
                    "pages": round(there.facts["pages"]),
                    "index MB": round(there.facts["index"]["bytes"] / 1e6, 1),
                    "build s": there.facts["build_s"],
                    **({"tried": there.facts["tried"]} if given.json else {}),
                }
                for there in sizes
            }
    notes: dict[str, Any] = {
        "dims": given.dims,
        "k": given.k,
        "queries": given.queries,
        "rounds": given.rounds,
        "recall asked for": given.recall,
        "goal": GOAL,
    }
    if not_prewarmed:
        notes["not prewarmed"] = not_prewarmed
    for grown in (key for key in lines[0] if key.startswith("growth")):
        reaching = [
            line
            for line in lines
            if line["way"] == "harca"
            and all(value >= given.recall for key, value in line.items() if key.endswith("recall"))
        ]
        if reaching:
            least = min(reaching, key=lambda line: line[grown])
            notes[f"{grown}, harca, least"] = f"{least[grown]} by {least['candidate']}"
    notes |= (
        {"details": details}
        if given.json
        else {
            f"{name} at {size}": ", ".join(f"{key} {value}" for key, value in figure.items())
            for name, of_sizes in details.items()
            for size, figure in of_sizes.items()
        }
    )
    show(facts, lines, notes, as_json=given.json)


if __name__ == "__main__":
    main()
