"""What every partial index of the table costs each statement on it: planning time.

Many small spaces in one table, each with an index of its own; the same search is planned
with more and more of them there. First in a new session, which reads each index's
description, then again in the same one, which has them.
"""

from statistics import median

import psycopg
from _common import numbers, parser, server_facts, show, temporary_database
from psycopg import sql

from harca.model import Space
from harca.postgres import indexes
from harca.postgres.connect import Database
from harca.postgres.space_index import SpaceIndex, creating, index_name

_DIMS = 8


def fill(conn: psycopg.Connection, spaces: int, rows: int) -> None:
    """Give each space its rows."""
    conn.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
        "SELECT '', (SELECT array_agg(sin(n * i + s)) FROM generate_series(1, %s) i)"
        "::real[]::vector, '{}', 'model ' || s "
        "FROM generate_series(1, %s) s, generate_series(1, %s) n",
        [_DIMS, spaces, rows],
    )
    conn.execute("VACUUM ANALYZE vector_embeddings")


def planning_ms(conn: psycopg.Connection) -> float:
    """Return the server's planning time of a search in the first space."""
    row = conn.execute(
        sql.SQL(
            "EXPLAIN (SUMMARY, FORMAT JSON) SELECT id FROM vector_embeddings "
            "WHERE model_id = 'model 1' AND dims = {dims} "
            "ORDER BY (embedding::vector({dims})) <=> {query}::vector LIMIT 10"
        ).format(dims=sql.Literal(_DIMS), query=sql.Literal(str([1] * _DIMS)))
    ).fetchone()
    assert row is not None
    return float(row[0][0]["Planning Time"])


def measure(target: Database, sessions: int, again: int) -> tuple[float, float]:
    """Return the planning times in milliseconds: in new sessions, and in warm ones."""
    first, warm = [], []
    for _ in range(sessions):
        with target.connect() as conn:
            first.append(planning_ms(conn))
            warm += [planning_ms(conn) for _ in range(again)]
    return median(first), median(warm)


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--indexes", type=numbers, default="0,8,16,32,64,128,256,512")
    options.add_argument("--rows", type=int, default=20, help="of each space")
    options.add_argument("--sessions", type=int, default=7)
    options.add_argument("--again", type=int, default=50, help="plans in each session")
    given = options.parse_args()

    lines = []
    with temporary_database(given.database) as target, target.connect() as conn:
        facts = server_facts(conn)
        indexes.drop_before_first_load(conn)
        fill(conn, max(given.indexes), given.rows)
        made = 0
        for wanted in given.indexes:
            while made < wanted:
                made += 1
                space = Space(f"model {made}", _DIMS, given.rows)
                conn.execute(creating(SpaceIndex(index_name(space), space, "hnsw", "vector")))
            first, warm = measure(target, given.sessions, given.again)
            lines.append(
                {
                    "partial indexes": made,
                    "planning ms, new session": round(first, 2),
                    "planning ms, warm": round(warm, 3),
                }
            )
    notes = {
        "rows in the table": given.rows,
        "sessions": given.sessions,
        "plans a session": given.again,
    }
    show(facts, lines, notes, as_json=given.json)


if __name__ == "__main__":
    main()
