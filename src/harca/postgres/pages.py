"""How many pages a search looks at, by the server's own count."""

from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from harca.postgres.by_hand import HandWritten, ready


def of_searches(
    conn: psycopg.Connection[Any], by_hand: HandWritten, queries: NDArray[np.float32], k: int
) -> float:
    """Return the pages that a search by hand looks at, on average, in memory or not."""
    looked_at = []
    with conn.transaction(force_rollback=True):
        explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {}").format(
            ready(conn, by_hand, k)
        )
        for query in queries:
            row = conn.execute(explain, {"query": query}).fetchone()
            assert row is not None
            plan = row[0][0]["Plan"]
            looked_at.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
    return float(np.mean(looked_at))
