"""`harca bench search`: one space of the user's rows, searched by every contestant.

The result is one object (``--json``; kept as measurement ``bench search``)::

    space          {model_id, dims, records}
    k, queries, rounds, seconds
    index          {name, method, type, parameters, effort, bytes}; null: searched exactly
    table_bytes    of the table, with what is out of line
    contestants    [{
        name               files | numpy | harca | sql | langchain-postgres | vecs
        title              for people
        answered           searches in all rounds
        p50_ms, p95_ms, p99_ms      one client; p50 is the median of the rounds' medians
        rounds_p50_ms      [each round's]
        recall             against the exact answers, equals counted alike
        client_cpu_ms, server_cpu_ms    a search; the server's is null where it is elsewhere
        client_mb, server_mb            memory; the server's without the shared buffers
        clients            [{clients, answered, qps, p50_ms, p95_ms, p99_ms,
                             client_cpu_ms, server_cpu_ms, client_mb, server_mb}]
        notes              [text]
    }]
    skipped        [{name, why}]
    ratios         {files_to_harca, numpy_to_harca, harca_to_sql}: of the p50; null if one
                   of the two is missing
    server         {server_version, shared_buffers, ..., pgvector}
    machine        {cores, python, numpy}
    notes          [text]
"""

import platform
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from harca import migrations
from harca.bench import figures, measuring, rivals
from harca.bench.contestant import Contestant, Key
from harca.bench.files import cold_files
from harca.bench.made_up import described, recalls
from harca.bench.measuring import Say
from harca.bench.memory import InMemory
from harca.bench.ours import Harca
from harca.bench.truth import Truth, between_neighbours
from harca.bench.worker import Worker
from harca.errors import UsageError, counted
from harca.migrate import options_of
from harca.model import Space
from harca.options import LoadOptions
from harca.postgres import measurements, space_rows
from harca.postgres.by_hand import HandWritten, hand_written
from harca.postgres.connect import Database, translated
from harca.postgres.rival_rows import make_extension
from harca.postgres.scratch import NoScratchDatabase, scratch_database
from harca.postgres.search import MAX_K, find_space
from harca.readers.staging import staged

KIND = "bench search"


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What is measured.

    Attributes:
        store: The file store that was loaded, to be searched as it is; None: it is not.
        queries: In each round.
        clients: How many search at the same time, one measurement each.
        seconds: That each of these takes.
        rivals: Whether other libraries take part.
    """

    store: str | None = None
    model: str | None = None
    dims: int | None = None
    queries: int = 100
    k: int = 10
    rounds: int = 5
    clients: tuple[int, ...] = (1, 4, 16)
    seconds: float = 3.0
    rivals: bool = False


def bench_search(
    target: Database, options: SearchOptions, *, say: Say = lambda message: None
) -> dict[str, Any]:
    """Measure, keep the result in the database, and return it.

    Nothing else is written to the database. The rows are copied to a temporary file, and with
    ``rivals`` to a scratch database.

    Raises:
        UsageError: There is nothing to search, or the options do not fit it.
    """
    if not 1 <= options.k <= MAX_K:
        raise UsageError(
            f"k is {options.k}, expected 1 to {MAX_K}",
            hint="Ask for a number of results in that range.",
        )
    migrations.require_schema(target, migrations.MEASUREMENTS)
    with (
        translated(),
        tempfile.TemporaryDirectory(prefix="harca-bench-") as folder,
        ExitStack() as stack,
    ):
        with target.connect() as conn:
            measurements.require_writable(conn)
            space = find_space(conn, model_id=options.model, dims=options.dims)
            say(f"{space.model_id}/{space.dims}: copying the rows, to search them exactly")
            rows = space_rows.write(conn, space, Path(folder))
            space = replace(space, records=len(rows.keys) + rows.zeros)
            server = space_rows.server_facts(conn)
        matrix = rows.mapped()
        if not len(matrix):
            raise UsageError(
                f"all rows of {space.model_id}/{space.dims} are zero vectors",
                hint="Nothing is near to them. Name another space by --model.",
            )
        queries = between_neighbours(matrix, options.queries)
        truth = Truth(matrix, queries, options.k)
        by_hand = hand_written(target, space)
        contestants: list[Contestant] = [
            InMemory(rows.matrix, rows.ids), Harca(target, space), by_hand,
        ]  # fmt: skip
        skipped, notes = [], []
        if options.store is None:
            skipped.append({"name": "files", "why": "no STORE was named"})
        else:
            say(f"looking through {options.store}")
            with target.connect() as conn:
                read_as = options_of(conn, options.store) or LoadOptions()
            local = stack.enter_context(staged(options.store))
            files, keys = cold_files(local, options.store, read_as, space)
            contestants.insert(0, files)
            missing = len(keys - set(rows.keys))
            if missing == len(keys):
                raise UsageError(
                    f'no record of "{options.store}" is among the rows of '
                    f"{space.model_id}/{space.dims}",
                    hint="Name the store that was loaded; `harca status` lists them.",
                )
            if missing:
                notes.append(
                    f"{missing:,} of the store's {len(keys):,} records are not among the rows "
                    "searched"
                )
        if rows.zeros:
            notes.append(f"{counted(rows.zeros, 'zero vector')} left out: nothing is near to one")
        if options.rivals:
            more, without = _rivals(stack, target, space, by_hand, queries[:1], say)
            contestants += more
            skipped += without
        places: dict[Key, int] = {int(one): at for at, one in enumerate(np.load(rows.ids))}
        places |= {key: at for at, key in enumerate(rows.keys) if key is not None}
        shown = _measure(contestants, queries, truth, places, options, say)
        with target.connect() as conn:
            result = {
                "space": space.as_dict(),
                "k": options.k,
                "queries": options.queries,
                "rounds": options.rounds,
                "seconds": options.seconds,
                "index": _index(conn, by_hand),
                "table_bytes": space_rows.bytes_of(conn, "vector_embeddings"),
                "contestants": shown,
                "skipped": skipped,
                "ratios": _ratios({one["name"]: one["p50_ms"] for one in shown}),
                "server": server,
                "machine": machine(),
                "notes": notes,
            }
            measurements.keep(conn, KIND, result)
    return result


def _measure(
    contestants: Sequence[Contestant],
    queries: NDArray[np.float32],
    truth: Truth,
    places: Mapping[Key, int],
    options: SearchOptions,
    say: Say,
) -> list[dict[str, Any]]:
    with ExitStack() as stack:
        workers = {
            one.name: stack.enter_context(Worker(one, threads=measuring.cores()))
            for one in contestants
        }
        notes = {name: worker.notes for name, worker in workers.items()}
        turns = measuring.take_turns(workers, queries, options.k, rounds=options.rounds, say=say)
    shown = [
        {
            "name": one.name,
            "title": one.title,
            **figures.of_turns(turns[one.name], recalls(turns[one.name], truth, places)),
            "clients": [],
            "notes": notes[one.name],
        }
        for one in contestants
    ]
    for clients in options.clients:
        for one, figure in zip(contestants, shown, strict=True):
            say(f"{one.name}: {clients} at the same time")
            together = measuring.all_at_once(
                one, clients, queries, options.k, seconds=options.seconds
            )
            figure["clients"].append(figures.at_once(together))
    return shown


def _rivals(
    stack: ExitStack,
    target: Database,
    space: Space,
    by_hand: HandWritten,
    query: NDArray[np.float32],
    say: Say,
) -> tuple[list[Contestant], list[dict[str, str]]]:
    taking_part: list[Contestant] = []
    skipped = []
    for package, kind in rivals.RIVALS.items():
        if not rivals.is_installed(package):
            skipped.append({"name": package, "why": "not installed"})
            continue
        say(f"{package}: loading the same rows into a scratch database")
        try:
            database = stack.enter_context(scratch_database(target))
            make_extension(database)
            rival = kind(database, by_hand.effort.ef_search)
            rival.prepare(target, space)
            with Worker(rival, threads=1) as worker:
                worker.ask(query, 1, budget_s=measuring.TURN_S)
        except NoScratchDatabase as exc:
            skipped.append({"name": package, "why": str(exc)})
        except Exception as exc:  # whatever the library raises
            lines = str(exc).splitlines() or [type(exc).__name__]
            skipped.append({"name": package, "why": f"failed: {lines[0][:200]}"})
        else:
            taking_part.append(rival)
    return taking_part, skipped


def _index(conn: psycopg.Connection[Any], by_hand: HandWritten) -> dict[str, Any] | None:
    index = by_hand.index
    if index is None:
        return None
    return described(index, by_hand.effort, space_rows.bytes_of(conn, index.name))


def _ratios(p50: Mapping[str, float]) -> dict[str, float | None]:
    pairs = {
        "files_to_harca": ("files", "harca"),
        "numpy_to_harca": ("numpy", "harca"),
        "harca_to_sql": ("harca", "sql"),
    }
    return {
        name: figures.ratio(p50[one], p50[other]) if one in p50 and other in p50 else None
        for name, (one, other) in pairs.items()
    }


def machine() -> dict[str, Any]:
    """Return what a reader of figures has to know about this machine."""
    return {
        "cores": measuring.cores(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
