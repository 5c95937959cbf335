"""Rows that are made up, in a scratch database, with an index whose effort fits a recall."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harca import advise, migrations
from harca.bench import figures, measuring
from harca.bench.contestant import Contestant, Key
from harca.bench.loading import load_as_migrate
from harca.bench.measuring import Say
from harca.bench.memory import InMemory
from harca.bench.ours import Harca
from harca.bench.synthetic import MODEL, Embeddings, VectorsReader
from harca.bench.truth import Truth
from harca.bench.worker import Turn, Worker
from harca.model import Space
from harca.options import LoadOptions
from harca.postgres import indexes, pages, space_rows, space_settings
from harca.postgres.by_hand import HandWritten, hand_written
from harca.postgres.connect import Database
from harca.postgres.scratch import scratch_database, settle
from harca.postgres.space_index import METHODS, SpaceIndex, spaces
from harca.postgres.space_settings import Effort

_EFFORTS = (10, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 1_000)
_COUNTED = 20  # searches of which the pages are counted


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows in a database of their own.

    Attributes:
        matrix: A ``.npy`` file of the same rows.
        places: Where in the matrix a row is, by its id.
    """

    database: Database
    space: Space
    matrix: Path
    ids: Path
    places: Mapping[Key, int]
    load_s: float

    @property
    def rows(self) -> int:
        """How many."""
        return self.space.records

    def mapped(self) -> NDArray[np.float32]:
        """Return the matrix, mapped."""
        mapped: NDArray[np.float32] = np.load(self.matrix, mmap_mode="r")
        return mapped


def loaded(
    stack: ExitStack,
    server: Database,
    rows: int,
    dims: int,
    folder: Path,
    *,
    reader: Callable[[NDArray[np.float32], int], VectorsReader] = VectorsReader,
    say: Say = lambda message: None,
) -> Loaded:
    """Load *rows* rows into a scratch database, which lives as long as *stack*.

    Raises:
        NoScratchDatabase: The role may not make one.
    """
    database = stack.enter_context(scratch_database(server))
    migrations.upgrade(database)
    say(f"{rows:,} rows: making them up")
    matrix = folder / f"{rows}.npy"
    vectors = Embeddings(dims).write(rows, matrix)
    say(f"{rows:,} rows: loading")
    with database.connect() as conn:
        started = perf_counter()
        load_as_migrate(conn, reader(vectors, 0), LoadOptions(name="benchmark", model=MODEL))
        load_s = perf_counter() - started
        (space,) = spaces(conn)
        found = conn.execute("SELECT id, store_key FROM vector_embeddings").fetchall()
    ids = folder / f"{rows}.ids.npy"
    ordered = np.empty(rows, np.int64)
    for number, key in found:
        ordered[int(key)] = number
    np.save(ids, ordered)
    places: dict[Key, int] = {number: int(key) for number, key in found}
    return Loaded(database, space, matrix, ids, places, load_s)


def queries_of(dims: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return queries by which the effort is chosen, and *count* others to be measured.

    None is among the rows, of whatever number these are; all are of the same clusters.
    """
    drawn = Embeddings(dims, queries=True).draw(2 * count).astype(np.float32)
    return drawn[:count], drawn[count:]


@dataclass(frozen=True, slots=True)
class Indexed:
    """The rows with an index, and the least effort by which it reaches a recall.

    Attributes:
        facts: As `harca bench scale` shows them.
    """

    loaded: Loaded
    by_hand: HandWritten
    facts: dict[str, Any]

    def contestants(self) -> list[Contestant]:
        """Return who is measured."""
        loaded = self.loaded
        return [
            InMemory(loaded.matrix, loaded.ids),
            Harca(loaded.database, loaded.space),
            self.by_hand,
        ]


def indexed(
    loaded: Loaded,
    tuning: NDArray[np.float32],
    k: int,
    recall: float,
    *,
    settings: Mapping[str, Any] | None = None,
    say: Say = lambda message: None,
) -> Indexed:
    """Index the rows and choose the effort, which is kept with the space.

    Args:
        tuning: Queries by which the effort is chosen.
        settings: Of the space, such as ``method`` and ``type``; by default harca chooses.
    """
    database, space = loaded.database, loaded.space
    with database.connect() as conn:
        space_settings.forget(conn, space)
        if settings:
            space_settings.keep(conn, space, **settings)
        say(f"{loaded.rows:,} rows: building the index")
        started = perf_counter()
        indexes.build(conn)
        build_s = perf_counter() - started
        conn.execute("VACUUM ANALYZE vector_embeddings")
    settle(database)
    by_hand, tried = with_effort(hand_written(database, space), loaded, tuning, k, recall, say=say)
    with database.connect() as conn:
        index = by_hand.index
        if index is not None:
            space_settings.keep(conn, space, effort=replace(by_hand.effort, k=k))
        facts = {
            "rows": loaded.rows,
            "load_s": round(loaded.load_s, 2),
            "build_s": round(build_s, 2),
            "index": None
            if index is None
            else described(index, by_hand.effort, space_rows.bytes_of(conn, index.name)),
            "table_bytes": space_rows.bytes_of(conn, "vector_embeddings"),
            "tried": tried,
            "pages": pages.of_searches(conn, by_hand, tuning[:_COUNTED], k),
        }
    return Indexed(loaded, by_hand, facts)


def described(index: SpaceIndex, effort: Effort, size: int) -> dict[str, Any]:
    """Return an index of *size* bytes as ``--json`` shows it."""
    return {
        "name": index.name,
        "method": index.method,
        "type": index.type,
        "parameters": dict(index.parameters),
        "effort": effort.as_dict(),
        "bytes": size,
    }


def with_effort(
    by_hand: HandWritten,
    loaded: Loaded,
    tuning: NDArray[np.float32],
    k: int,
    recall: float,
    *,
    say: Say = lambda message: None,
) -> tuple[HandWritten, list[dict[str, Any]]]:
    """Return the search with the least effort that reaches the recall, and what was tried.

    It has to reach it by its standard error more. Where none does, it has the greatest.
    """
    tried: list[dict[str, Any]] = []
    if by_hand.index is None:
        return by_hand, tried
    truth = Truth(loaded.mapped(), tuning, k)
    for effort in efforts(by_hand.index, k):
        by_hand = replace(by_hand, effort=effort)
        with Worker(by_hand, threads=1) as worker:
            worker.ask(tuning[:1], k, budget_s=measuring.TURN_S)
            turn = worker.ask(tuning, k, budget_s=measuring.TURN_S)
        found = recalls([turn], truth, loaded.places)
        reached = float(np.mean(found))
        # Other queries will be measured: it shall hold for these too, and not by chance here.
        margin = float(np.std(found)) / len(found) ** 0.5
        tried.append(
            {
                "effort": effort.as_dict(),
                "recall": round(reached, 4),
                **figures.latency(turn.took_ms),
            }
        )
        say(f"{loaded.rows:,} rows: recall {reached:.3f} with {shown_effort(effort)}")
        if reached - margin >= recall:
            break
    return by_hand, tried


def efforts(index: SpaceIndex, k: int) -> list[Effort]:
    """Return the efforts to try, in ascending order."""
    if index.method == "ivfflat":
        lists = index.parameters.get("lists", METHODS["ivfflat"]["lists"])
        return [Effort(**effort) for effort in advise.efforts_of_lists(index.type, lists, k)]
    levels = [effort for effort in _EFFORTS if effort >= k]
    if index.type == "bit":
        return [Effort(ef_search=level, candidates=level) for level in levels]
    return [Effort(ef_search=level) for level in levels]


def shown_effort(effort: Effort) -> str:
    """Return an effort for people."""
    return ", ".join(f"{name} {value}" for name, value in effort.as_dict().items()) or "no effort"


def recalls(turns: Sequence[Turn], truth: Truth, places: Mapping[Key, int]) -> list[float]:
    """Return the recall of every search in *turns*.

    Args:
        places: Where in the matrix a row is, by its id and by its key.
    """
    return [
        truth.recall(query, [places.get(key) for key in found])
        for turn in turns
        for query, found in enumerate(turn.found)
    ]
