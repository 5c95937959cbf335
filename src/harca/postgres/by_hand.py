"""A search as one would write it by hand in SQL: what `harca.bench` compares harca's with."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.conninfo import make_conninfo

from harca.bench.contestant import Key
from harca.bench.process import Backend, is_here
from harca.model import Space
from harca.postgres.connect import Database, translated
from harca.postgres.nearest import literal
from harca.postgres.space_index import SpaceIndex, valid_index
from harca.postgres.space_plan import EXACTLY, plan_of
from harca.postgres.space_settings import Effort, settings_of


@dataclass(frozen=True, slots=True)
class HandWritten:
    """One prepared statement, the query sent as pgvector's Python library sends it.

    Attributes:
        index: That is to be used; None: exact.
        settings: Of the session, beside those that the effort asks for.
        prepared: Whether the statement is planned once for all searches.
    """

    database: Database
    space: Space
    index: SpaceIndex | None
    effort: Effort = field(default_factory=Effort)
    settings: tuple[tuple[str, str], ...] = ()
    prepared: bool = True
    name: str = "sql"
    title: str = "SQL written by hand: a prepared statement on the same index"

    def start(self) -> "_HandWritten":
        """Connect and set the session's parameters."""
        return _HandWritten(self)


class _HandWritten:
    def __init__(self, contestant: HandWritten) -> None:
        self._contestant = contestant
        self._conn = contestant.database.connect()
        self._statements: dict[int, sql.Composed] = {}
        self.backends = backends_of(self._conn)
        self.notes: list[str] = []

    def before(self) -> None:
        """The connection is open."""

    def search(self, embedding: NDArray[np.float32], k: int) -> list[Key]:
        """Return the ids of the rows."""
        rows = self._conn.execute(
            self._statement(k), {"query": embedding}, prepare=self._contestant.prepared
        ).fetchall()
        return [row[0] for row in rows]

    def _statement(self, k: int) -> sql.Composed:
        if k not in self._statements:
            self._statements[k] = ready(self._conn, self._contestant, k)
        return self._statements[k]

    def close(self) -> None:
        """Disconnect."""
        self._conn.close()


def ready(conn: psycopg.Connection[Any], by_hand: HandWritten, k: int) -> sql.Composed:
    """Set the parameters of a session that is to search by hand; return its statement.

    The parameters are those of harca's own search with the same effort.
    """
    from pgvector.psycopg import register_vector

    if conn.adapters.types.get("vector") is None:
        register_vector(conn)
    plan = replace(plan_of(conn, by_hand.space), index=by_hand.index, effort=by_hand.effort)
    candidates, session = k, EXACTLY
    if by_hand.index is not None:
        candidates = plan.candidates(k)
        session = plan.session(candidates, iterative=False) or EXACTLY
    for name, value in (*session.items(), *by_hand.settings):
        conn.execute("SELECT set_config(%s, %s, false)", [name, value])
    return statement(by_hand.space, by_hand.index, k, candidates=candidates)


def statement(space: Space, index: SpaceIndex | None, k: int, *, candidates: int) -> sql.Composed:
    """Return the search of *space* by *index* as one would write it by hand.

    It returns what harca's returns: the text and the metadata too.

    Args:
        k: Written out: the planner is to know how few rows are wanted.
        candidates: How many rows an index of signs proposes, of which the nearest are taken.
    """
    where = sql.SQL("model_id = {} AND dims = {}").format(
        literal(space.model_id), sql.Literal(space.dims)
    )
    columns = sql.SQL("id, store_key, content, metadata, source")
    if index is not None and index.type == "bit":
        return sql.SQL(
            "SELECT {columns}, distance FROM ("
            "SELECT {columns}, embedding <=> %(query)b AS distance FROM vector_embeddings "
            "WHERE {where} ORDER BY {signs} <~> binary_quantize(%(query)b) "
            "LIMIT {candidates}) candidates ORDER BY distance LIMIT {k}"
        ).format(
            columns=columns,
            where=where,
            signs=index.expression,
            candidates=sql.Literal(candidates),
            k=sql.Literal(k),
        )
    order: sql.Composable = sql.SQL("embedding <=> %(query)b")
    if index is not None:
        query = sql.SQL("%(query)b" if index.type == "vector" else "%(query)b::halfvec")
        order = sql.SQL("{} <=> {}").format(index.expression, query)
    return sql.SQL(
        "SELECT {columns}, {order} AS distance FROM vector_embeddings "
        "WHERE {where} ORDER BY {order} LIMIT {k}"
    ).format(columns=columns, where=where, order=order, k=sql.Literal(k))


def backends_of(conn: psycopg.Connection[Any]) -> Sequence[Backend]:
    """Return the backend of a connection, if it runs on this machine."""
    row = conn.execute(
        "SELECT pid, extract(epoch FROM backend_start)::float8 FROM pg_stat_activity "
        "WHERE pid = pg_backend_pid()"
    ).fetchone()
    found = [Backend(*row)] if row and row[1] is not None else []
    return [backend for backend in found if is_here(backend)]


def backends_called(database: Database, application: str) -> Sequence[Backend]:
    """Return the backends of the connections that call themselves *application*."""
    with database.connect() as conn:
        rows = conn.execute(
            "SELECT pid, extract(epoch FROM backend_start)::float8 FROM pg_stat_activity "
            "WHERE application_name = %s AND backend_start IS NOT NULL",
            [application],
        ).fetchall()
    return [backend for row in rows if is_here(backend := Backend(*row))]


def calling_itself(database: Database, application: str) -> Database:
    """Return *database* for connections that call themselves *application*."""
    return replace(
        database, conninfo=make_conninfo(database.conninfo, application_name=application)
    )


def hand_written(database: Database, space: Space) -> HandWritten:
    """Return the search by hand with the index and the effort that the space has."""
    with translated(), database.connect() as conn:
        return HandWritten(
            database, space, valid_index(conn, space), settings_of(conn, space).effort
        )
