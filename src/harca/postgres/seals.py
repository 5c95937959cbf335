"""What a run's ledger held when the run ended, so that a later change to it is told.

The rows can be compared with the store; the ledger has nothing to be compared with but
itself. Its hash is noted with the run, in the transaction that sums the run up.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from harca.postgres.digest import composed, row_digest

Seals = dict[str, str]
"""Number of rows and a hash, by table; tables without a row are left out."""


def note(conn: psycopg.Connection[Any], run_id: int) -> None:
    """Note what the ledger holds of run *run_id* now."""
    conn.execute(
        "UPDATE load_runs SET notes = notes || jsonb_build_object('seals', %s::jsonb) "
        "WHERE run_id = %s",
        [Jsonb(_found(conn, run_id)), run_id],
    )


def compared(
    conn: psycopg.Connection[Any], store: str
) -> Iterator[tuple[int, Seals | None, Seals]]:
    """Yield number, noted seals and seals as they are of each run of *store* that has ended."""
    runs = conn.execute(
        "SELECT run_id, notes -> 'seals' FROM load_runs WHERE store = %s "
        "AND status NOT IN ('loading', 'rolled back') ORDER BY run_id",
        [store],
    ).fetchall()
    for run_id, noted in runs:
        yield run_id, noted, _found(conn, run_id)


@contextmanager
def kept(conn: psycopg.Connection[Any], store: str) -> Iterator[None]:
    """Note anew what is changed within of the runs of *store*, in one transaction with it.

    A run whose ledger was not as noted before stays so.
    """
    whole = [run_id for run_id, noted, found in compared(conn, store) if noted == found]
    yield
    for run_id in whole:
        note(conn, run_id)


def _found(conn: psycopg.Connection[Any], run_id: int) -> Seals:
    statement = composed(
        "seals", loser_digest=row_digest("s", created_at=sql.Identifier("s", "created_at"))
    )
    return dict(conn.execute(statement, {"run_id": run_id, "volatile": []}).fetchall())
