"""PostgreSQL's contestants in `harca.bench`: harca's own search, and SQL written by hand."""

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
from harca.postgres.search import search
from harca.postgres.space_index import SpaceIndex, valid_index
from harca.postgres.space_settings import Effort, settings_of

_EF_SEARCH = 40  # pgvector's own


@dataclass(frozen=True, slots=True)
class Harca:
    """Search as an application has it from harca, with whatever index the space has."""

    database: Database
    space: Space
    name: str = "harca"
    title: str = "harca, as an application calls it"

    def start(self) -> "_Harca":
        """Connect."""
        return _Harca(self)


class _Harca:
    def __init__(self, contestant: Harca) -> None:
        self._space = contestant.space
        self._conn = contestant.database.connect()
        self.backends = backends_of(self._conn)
        self.notes: list[str] = []

    def before(self) -> None:
        """The connection is open."""

    def search(self, embedding: NDArray[np.float32], k: int) -> list[Key]:
        """Return the ids of the hits."""
        return [hit.id for hit in search(self._conn, embedding, self._space, k=k).hits]

    def close(self) -> None:
        """Disconnect."""
        self._conn.close()


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
        self._statements: dict[int, sql.Composed] = {}
        self._conn = contestant.database.connect()
        ready(self._conn, contestant)
        self.backends = backends_of(self._conn)
        self.notes: list[str] = []

    def before(self) -> None:
        """The connection is open."""

    def search(self, embedding: NDArray[np.float32], k: int) -> list[Key]:
        """Return the ids of the rows."""
        by_hand = self._contestant
        if k not in self._statements:
            # A number, not a parameter: the planner is to know how few rows are wanted.
            self._statements[k] = statement(
                by_hand.space, by_hand.index, k, candidates=by_hand.effort.candidates
            )
        rows = self._conn.execute(
            self._statements[k], {"query": embedding}, prepare=by_hand.prepared
        ).fetchall()
        return [row[0] for row in rows]

    def close(self) -> None:
        """Disconnect."""
        self._conn.close()


def ready(conn: psycopg.Connection[Any], by_hand: HandWritten) -> None:
    """Set the parameters of a session that is to search by hand."""
    from pgvector.psycopg import register_vector

    register_vector(conn)
    for name, value in (*_parameters(by_hand.index, by_hand.effort), *by_hand.settings):
        conn.execute("SELECT set_config(%s, %s, false)", [name, value])


def statement(
    space: Space, index: SpaceIndex | None, k: int, *, candidates: int | None = None
) -> sql.Composed:
    """Return the search of *space* by *index* as one would write it by hand.

    It returns what harca's returns: the text and the metadata too.

    Args:
        candidates: How many rows an index of signs proposes, of which the nearest are taken.
    """
    exact = SpaceIndex("", space, "", "vector")
    by_embedding = sql.SQL("{} <=> %(query)b::vector").format(exact.expression)
    # Beside parameters, a percent sign has to be doubled.
    model_id = sql.Literal(space.model_id).as_string(None).replace("%", "%%")
    where = sql.SQL("model_id = {} AND dims = {}").format(
        sql.SQL(model_id), sql.Literal(space.dims)
    )
    columns = sql.SQL("id, store_key, content, metadata, model_id, source")
    if index is None or index.type == "vector":
        order = by_embedding
    elif index.type == "halfvec":
        order = sql.SQL("{} <=> %(query)b::vector::halfvec({})").format(
            index.expression, sql.Literal(space.dims)
        )
    else:
        return sql.SQL(
            "SELECT {columns}, distance FROM ("
            "SELECT {columns}, {by_embedding} AS distance FROM vector_embeddings "
            "WHERE {where} ORDER BY {signs} <~> binary_quantize(%(query)b::vector)::bit({dims}) "
            "LIMIT {candidates}) candidates ORDER BY distance LIMIT {k}"
        ).format(
            columns=columns,
            by_embedding=by_embedding,
            where=where,
            signs=index.expression,
            dims=sql.Literal(space.dims),
            candidates=sql.Literal(candidates or _EF_SEARCH),
            k=sql.Literal(k),
        )
    return sql.SQL(
        "SELECT {columns}, {order} AS distance FROM vector_embeddings "
        "WHERE {where} ORDER BY {order} LIMIT {k}"
    ).format(columns=columns, where=where, order=order, k=sql.Literal(k))


def _parameters(index: SpaceIndex | None, effort: Effort) -> list[tuple[str, str]]:
    if index is None:
        return [("enable_indexscan", "off")]
    # As harca has the planner use the index: left alone, it scans smaller tables.
    planner = [("enable_seqscan", "off"), ("enable_bitmapscan", "off"), ("enable_sort", "off")]
    if index.type == "bit":
        planner.pop()  # the candidates are sorted
    if index.method == "ivfflat":
        lists = index.parameters.get("lists", 100)
        return [*planner, ("ivfflat.probes", str(effort.probes or round(lists**0.5)))]
    ef_search = max(effort.ef_search or _EF_SEARCH, effort.candidates or 0)
    return [*planner, ("hnsw.ef_search", str(ef_search))]


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
