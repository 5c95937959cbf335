"""What lists and maintenance_work_mem do to an index: build, search and recall.

Each contestant's index is built on the same rows, measured and dropped. The first is the
plan's own: ivfflat with 100 lists, made while the table is empty and filled by the load. The
last is what harca builds, by itself, asked through its own search.
"""

from dataclasses import dataclass
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
    parser,
    server_facts,
    show,
    temporary_database,
)
from numpy.typing import NDArray
from psycopg import sql

from harca.model import Space
from harca.options import LoadOptions
from harca.postgres import indexes, space_index
from harca.postgres.search import Query, Searcher

K = 10
PLAN_LISTS = 100
_NAME = sql.Identifier("benchmark_idx")


@dataclass(frozen=True, slots=True)
class Setting:
    """An index and the searches through it.

    Attributes:
        search: Settings of the session, each tried in its turn.
        before_load: Whether the index is there before the rows are.
    """

    name: str
    method: str
    options: str
    memory: str
    search: tuple[str, ...]
    before_load: bool = False


def settings(rows: int) -> list[Setting]:
    """Return the contestants for a table of *rows* rows."""
    probes = ("ivfflat.probes = 1", "ivfflat.probes = 10")
    lists = space_index.ivfflat_lists(rows)
    plan = f"lists = {PLAN_LISTS}"
    return [
        Setting(f"{plan}, on the empty table", "ivfflat", plan, "64MB", probes, before_load=True),
        Setting(plan, "ivfflat", plan, "64MB", probes),
        Setting(plan, "ivfflat", plan, "512MB", probes),
        Setting(f"lists = {lists}", "ivfflat", f"lists = {lists}", "512MB", probes),
        Setting("m = 16", "hnsw", "m = 16", "64MB", ("hnsw.ef_search = 40",)),
        Setting("m = 16", "hnsw", "m = 16", "512MB", ("hnsw.ef_search = 40",)),
    ]


def build(conn: psycopg.Connection[Any], setting: Setting, dims: int) -> float | str:
    """Return the seconds of the build, or why there is none."""
    conn.execute(sql.SQL("SET maintenance_work_mem = {}").format(sql.Literal(setting.memory)))
    statement = sql.SQL(
        "CREATE INDEX {name} ON vector_embeddings USING {method} "
        "((embedding::vector({dims})) vector_cosine_ops) WITH ({options})"
    ).format(
        name=_NAME,
        method=sql.SQL(setting.method),
        dims=sql.Literal(dims),
        options=sql.SQL(setting.options),
    )
    started = perf_counter()
    try:
        conn.execute(statement)
    except psycopg.errors.ProgramLimitExceeded as exc:
        return f"refused: {exc.diag.message_primary}"
    return round(perf_counter() - started, 1)


def ask(
    conn: psycopg.Connection[Any],
    session: str,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
) -> tuple[float, float]:
    """Return p50 in milliseconds and recall."""
    statement = sql.SQL(
        "SELECT store_key FROM vector_embeddings "
        "ORDER BY (embedding::vector({dims})) <=> %s::vector LIMIT {k}"
    ).format(dims=sql.Literal(vectors.shape[1]), k=sql.Literal(K))
    took, found = [], []
    with conn.transaction():
        conn.execute("SET LOCAL enable_seqscan = off")
        conn.execute(sql.SQL("SET LOCAL {}").format(sql.SQL(session)))
        for query in queries:
            text = f"[{','.join(map(str, query))}]"
            started = perf_counter()
            hits = {int(key) for (key,) in conn.execute(statement, [text])}
            took.append(1_000 * (perf_counter() - started))
            found.append(len(hits & nearest(vectors, query, K)) / K)
    return median(took), float(np.mean(found))


def ask_harca(
    conn: psycopg.Connection[Any], vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> tuple[float, float]:
    """Return p50 in milliseconds and recall of harca's own search."""
    searcher, took, found = Searcher(conn), [], []
    space = Space(MODEL, vectors.shape[1], len(vectors))
    for query in queries:
        started = perf_counter()
        answer = searcher.search(Query(query, K), space)
        took.append(1_000 * (perf_counter() - started))
        hits = {int(hit.store_key or -1) for hit in answer.hits}
        found.append(len(hits & nearest(vectors, query, K)) / K)
        if answer.answered_by == "exact":
            raise AssertionError("no index answered")
    return median(took), float(np.mean(found))


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=10_000)
    options.add_argument("--dims", type=int, default=1536)
    options.add_argument("--queries", type=int, default=100)
    given = options.parse_args()

    embeddings = Embeddings(given.dims)
    drawn = embeddings.draw(given.rows)
    queries = embeddings.draw(given.queries).astype(np.float32)
    vectors = drawn.astype(np.float32)
    lines = []
    with temporary_database(given.database) as target, target.connect() as conn:
        facts = server_facts(conn)
        indexes.drop_before_first_load(conn)
        for setting in settings(given.rows):
            built: float | str = "-"
            if setting.before_load:
                build(conn, setting, given.dims)
                load_as_migrate(
                    conn, VectorsReader(drawn, 0), LoadOptions(name="benchmark", model=MODEL)
                )
            else:
                built = build(conn, setting, given.dims)
            conn.execute("VACUUM ANALYZE vector_embeddings")
            for session in setting.search if not isinstance(built, str) or built == "-" else ():
                p50, recall = ask(conn, session, vectors, queries)
                lines.append(_line(setting, built, session, round(p50, 2), round(recall, 3)))
            if isinstance(built, str) and built != "-":
                lines.append(_line(setting, built, "-", "-", "-"))
            conn.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(_NAME))
        started = perf_counter()
        indexes.build(conn)
        own_s = round(perf_counter() - started, 1)
        with target.connect() as asking:
            p50, recall = ask_harca(asking, vectors, queries)
        lines.append(
            {
                "index": "as harca chooses and builds it",
                "maintenance_work_mem": "harca's",
                "build s": own_s,
                "search with": "harca's search",
                "p50 ms": round(p50, 2),
                f"recall@{K}": round(recall, 3),
            }
        )
    notes = {"rows in the table": given.rows, "dims": given.dims, "k": K, "queries": given.queries}
    show(facts, lines, notes, as_json=given.json)


def _line(
    setting: Setting, built: float | str, session: str, p50: float | str, recall: float | str
) -> dict[str, Any]:
    return {
        "index": f"{setting.method}, {setting.name}",
        "maintenance_work_mem": setting.memory,
        "build s": built,
        "search with": session,
        "p50 ms": p50,
        f"recall@{K}": recall,
    }


if __name__ == "__main__":
    main()
