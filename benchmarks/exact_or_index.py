"""From how many rows on a space is searched faster by an index than exactly.

Both ways go through `harca.postgres.search.search`, as an application's searches do, and
take turns query by query on the same rows; every query is a new point of the same clusters.
"""

from collections.abc import Iterator
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import psycopg
from _common import (
    MODEL,
    Embeddings,
    VectorsReader,
    load_as_migrate,
    nearest,
    numbers,
    parser,
    server_facts,
    settle,
    show,
    temporary_database,
)
from numpy.typing import NDArray
from psycopg import sql

from harca.model import Space
from harca.options import LoadOptions
from harca.postgres import indexes, search, space_index
from harca.postgres.index_build import put
from harca.postgres.space_index import SpaceIndex

K = 10
_WARM_UP = 10


class Sides:
    """The two contestants: one connection each, on the same rows and the same index."""

    def __init__(
        self, exact: psycopg.Connection[Any], indexed: psycopg.Connection[Any], space: Space
    ) -> None:
        self.exact, self.indexed, self.space = exact, indexed, space
        # The index is there for both; this session must not take it.
        exact.execute("SET enable_indexscan = off")

    def ask(self, query: NDArray[np.float32], *, index: bool) -> tuple[float, set[int]]:
        """Return the milliseconds that a search takes, and the rows found."""
        conn = self.indexed if index else self.exact
        search.valid_index = space_index.valid_index if index else _no_index  # type: ignore[attr-defined]  # what search looks up by this name is replaced
        started = perf_counter()
        answer = search.search(conn, query, self.space, k=K)
        took = 1_000 * (perf_counter() - started)
        if (answer.answered_by == "exact") is index:
            raise AssertionError(f"answered by {answer.answered_by}")
        return took, {int(hit.store_key or -1) for hit in answer.hits}


def _no_index(conn: psycopg.Connection[Any], space: Space) -> SpaceIndex | None:
    return None


def measure(
    sides: Sides, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> dict[str, float]:
    """Return p50 and recall of both sides."""
    took: dict[bool, list[float]] = {False: [], True: []}
    found: dict[bool, list[float]] = {False: [], True: []}
    for at, query in enumerate(queries):
        truth = nearest(vectors, query, K)
        for index in (False, True):
            milliseconds, hits = sides.ask(query, index=index)
            if at >= _WARM_UP:
                took[index].append(milliseconds)
                found[index].append(len(hits & truth) / K)
    return {
        "exact_ms": median(took[False]),
        "index_ms": median(took[True]),
        "exact_recall": float(np.mean(found[False])),
        "index_recall": float(np.mean(found[True])),
    }


def measure_dims(
    dims: int,
    sizes: list[int],
    queries: int,
    repetitions: int,
    storage: str | None,
    database: str | None,
) -> Iterator[dict[str, Any]]:
    """Yield a line per size; rows are added to the same table from size to size."""
    embeddings = Embeddings(dims)
    vectors = np.empty((0, dims), np.float32)
    with (
        temporary_database(database) as target,
        target.connect() as exact,
        target.connect() as indexed,
    ):
        if storage:
            alter = sql.SQL("ALTER TABLE vector_embeddings ALTER embedding SET STORAGE {}")
            indexed.execute(alter.format(sql.SQL(storage)))
        for size in sizes:
            more = embeddings.draw(size - len(vectors))
            load_as_migrate(
                indexed,
                VectorsReader(more, first=len(vectors)),
                LoadOptions(name=f"up to {size}", model=MODEL),
            )
            vectors = np.concatenate([vectors, more.astype(np.float32)])
            space = Space(MODEL, dims, size)
            index = SpaceIndex(space_index.index_name(space), space, "hnsw", "vector")
            indexes.drop(indexed, index.name)
            started = perf_counter()
            put(indexed, index, {})
            build_s = perf_counter() - started
            indexed.execute("VACUUM ANALYZE vector_embeddings")
            settle(indexed)
            sides = Sides(exact, indexed, space)
            measured = [
                measure(sides, vectors, embeddings.draw(queries + _WARM_UP).astype(np.float32))
                for _ in range(repetitions)
            ]
            line = {name: median([one[name] for one in measured]) for name in measured[0]}
            yield {
                "dims": dims,
                "rows": size,
                "exact, p50 ms": round(line["exact_ms"], 3),
                "HNSW, p50 ms": round(line["index_ms"], 3),
                "exact / HNSW": round(line["exact_ms"] / line["index_ms"], 2),
                "recall@10 exact": round(line["exact_recall"], 4),
                "recall@10 HNSW": round(line["index_recall"], 4),
                "build s": round(build_s, 2),
            }


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--rows", type=numbers, default="250,500,1000,2000,5000,10000,20000")
    options.add_argument("--dims", type=numbers, default="384,1536")
    options.add_argument("--queries", type=int, default=100)
    options.add_argument("--repetitions", type=int, default=3)
    options.add_argument(
        "--storage", choices=["external", "main"], help="of the column, instead of the schema's"
    )
    given = options.parse_args()

    with temporary_database(given.database) as target, target.connect() as conn:
        facts = server_facts(conn)
    rows = [
        line
        for dims in given.dims
        for line in measure_dims(
            dims,
            sorted(given.rows),
            given.queries,
            given.repetitions,
            given.storage,
            given.database,
        )
    ]
    notes: dict[str, Any] = {"k": K, "queries": given.queries, "repetitions": given.repetitions}
    notes["storage"] = given.storage or "as the schema has it"
    show(facts, rows, notes, as_json=given.json)


if __name__ == "__main__":
    main()
