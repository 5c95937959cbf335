"""Whether STORAGE PLAIN gives anything over MAIN, which the schema's column has.

Each storage gets a database with the same rows. The contestants take turns: build by build,
query by query.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
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
from harca.postgres import indexes
from harca.postgres.index_build import put
from harca.postgres.space_index import SpaceIndex, index_name

K = 10
STORAGES = ("main", "plain", "external")


@dataclass(slots=True)
class Contestant:
    """A storage, the database that has it, and what was measured there."""

    name: str
    conn: psycopg.Connection[Any]
    load_s: float
    times: dict[str, list[float]] = field(
        default_factory=lambda: {"exact": [], "build": [], "hnsw": []}
    )

    def ask(self, statement: sql.Composed, what: str) -> None:
        """Note the milliseconds that a search takes."""
        started = perf_counter()
        self.conn.execute(statement).fetchall()
        self.times[what].append(1_000 * (perf_counter() - started))


def statement(query: NDArray[np.float32]) -> sql.Composed:
    """Return a search by cosine distance."""
    return sql.SQL(
        "SELECT id FROM vector_embeddings WHERE model_id = {model} AND dims = {dims} "
        "ORDER BY (embedding::vector({dims})) <=> {query}::vector LIMIT {k}"
    ).format(
        model=sql.Literal(MODEL),
        dims=sql.Literal(len(query)),
        query=sql.Literal(f"[{','.join(map(str, query))}]"),
        k=sql.Literal(K),
    )


def contestant(
    stack: ExitStack, storage: str, database: str | None, drawn: NDArray[np.float64]
) -> Contestant:
    """Give the storage a database with the rows."""
    target = stack.enter_context(temporary_database(database))
    conn = stack.enter_context(target.connect())
    conn.execute(
        sql.SQL("ALTER TABLE vector_embeddings ALTER embedding SET STORAGE {}").format(
            sql.SQL(storage)
        )
    )
    indexes.drop_before_first_load(conn)
    started = perf_counter()
    load_as_migrate(conn, VectorsReader(drawn, 0), LoadOptions(name="benchmark", model=MODEL))
    load_s = perf_counter() - started
    conn.execute("VACUUM ANALYZE vector_embeddings")
    settle(conn)
    return Contestant(storage, conn, load_s)


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=5_000)
    options.add_argument("--dims", type=int, default=1536)
    options.add_argument("--queries", type=int, default=60, help="a repetition")
    options.add_argument("--repetitions", type=int, default=3)
    given = options.parse_args()

    embeddings = Embeddings(given.dims)
    drawn = embeddings.draw(given.rows)
    space = Space(MODEL, given.dims, given.rows)
    index = SpaceIndex(index_name(space), space, "hnsw", "vector")
    with ExitStack() as stack:
        sides = [contestant(stack, storage, given.database, drawn) for storage in STORAGES]
        facts = server_facts(sides[0].conn)
        for at in range(given.repetitions):
            queries = embeddings.draw(given.queries).astype(np.float32)
            turn = sides[at % len(sides) :] + sides[: at % len(sides)]
            for side in turn:
                side.conn.execute("SET enable_indexscan = off")
            for query in queries:
                for side in turn:
                    side.ask(statement(query), "exact")
            for side in turn:
                side.conn.execute("SET enable_indexscan = on; SET enable_seqscan = off")
                indexes.drop(side.conn, index.name)
                started = perf_counter()
                put(side.conn, index, {})
                side.times["build"].append(perf_counter() - started)
            for query in queries:
                for side in turn:
                    side.ask(statement(query), "hnsw")
            for side in turn:
                indexes.drop(side.conn, index.name)
        lines = [
            {
                "storage": side.name,
                "load s": round(side.load_s, 2),
                "exact, p50 ms": round(median(side.times["exact"]), 2),
                "HNSW build s": round(median(side.times["build"]), 2),
                "HNSW, p50 ms": round(median(side.times["hnsw"]), 2),
                "table MB": round(size(side.conn) / 1e6, 1),
            }
            for side in sides
        ]
    notes = {name: getattr(given, name) for name in ("rows", "dims", "queries", "repetitions")}
    show(facts, lines, notes, as_json=given.json)


def size(conn: psycopg.Connection[Any]) -> int:
    """Return the bytes of the table with what is kept apart."""
    row = conn.execute("SELECT pg_table_size('vector_embeddings')").fetchone()
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    main()
