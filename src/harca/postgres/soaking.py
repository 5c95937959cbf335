"""The sessions of a soak: clients that search and write, and one that watches the table.

What a soak writes are rows of its own, by their store. No run of the ledger brought them, so
that nothing that goes by runs sees them: verify, rollback, the list of runs. They have a model
label of their own, which is left out of the spaces, so no search finds them either. Written
into the space that is read, they can be found, and are told by their source.
"""

import random
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
import orjson
import psycopg
from numpy.typing import NDArray
from psycopg import errors as pg
from psycopg import sql

from harca.errors import CannotConnect, TargetError
from harca.model import Space
from harca.open_loop import Done
from harca.postgres.connect import Database, takes_statements, translated
from harca.postgres.filters import compile_filter
from harca.postgres.lock import OwnSessions, cut, lock_store
from harca.postgres.search import Query, Searcher
from harca.postgres.space_index import SOAK_LABEL
from harca.process_memory import private_bytes
from harca.soak_result import Sample

STORE = "harca-soak"

NO_CONNECTION, CONNECTION_LOST = "no-connection", "connection-lost"
NO_RESULTS, LOST_ROW = "no-results", "lost-row"

# As far as a stored embedding is moved to be a query, as a share of its length: near enough
# to be one that an application could have, and never the row's own.
_MOVED = 0.05
_SAMPLES = 400
# Of a client. Enough for updates and deletes to meet another row each time.
_OWN_ROWS = 50
# A server that is down is not asked by each client for each request that is due.
_CONNECTS_AFTER_S = 0.25
_STATEMENT_TAKES_AT_MOST = "30s"
_LOOK_TAKES_AT_MOST = "10s"

_INSERT = """
    INSERT INTO vector_embeddings (content, embedding, metadata, model_id, source, store, store_key)
    VALUES (%(content)s, %(embedding)s, '{"harca_soak": true}', %(model_id)s, %(store)s, %(store)s,
        %(key)s)
"""
_UPDATE = """
    UPDATE vector_embeddings SET content = %(content)s, embedding = %(embedding)s
    WHERE store = %(store)s AND store_key = %(key)s AND run_id IS NULL
"""
_DELETE = (
    "DELETE FROM vector_embeddings "
    "WHERE store = %(store)s AND store_key = %(key)s AND run_id IS NULL"
)
# A store that somebody loads can have this name too: its rows are of a run.
_CLEAN_UP = (
    "DELETE FROM vector_embeddings WHERE store = %s AND run_id IS NULL "
    """AND metadata = '{"harca_soak": true}'"""
)

_SAMPLE = """
    SELECT embedding::real[], metadata, source FROM vector_embeddings TABLESAMPLE SYSTEM ({share})
    WHERE model_id = %s AND dims = %s AND (store IS DISTINCT FROM %s OR run_id IS NOT NULL)
    LIMIT %s
"""
_TABLE = """
    SELECT n_live_tup, n_dead_tup, pg_table_size(relid), pg_indexes_size(relid)
    FROM pg_stat_user_tables WHERE relid = 'vector_embeddings'::regclass
"""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A row of the space that queries are made of.

    Attributes:
        where: A condition on the metadata that it fulfils; None if it has nothing simple.
    """

    embedding: NDArray[np.float32]
    where: Mapping[str, Any] | None
    source: str | None


def examples(conn: psycopg.Connection[Any], space: Space, *, seed: int) -> list[Example]:
    """Return some rows of *space*, those without direction left out."""
    chance = random.Random(seed)  # noqa: S311  # no secret is made of it
    # Pages are taken or left; twice as many as are needed, as they are not equally full.
    share = min(100.0, 200.0 * _SAMPLES / max(1, space.records))
    for asked in (share, 100.0):
        found = conn.execute(
            sql.SQL(_SAMPLE).format(share=sql.Literal(asked)),
            [space.model_id, space.dims, STORE, _SAMPLES * 4],
        ).fetchall()
        made = [
            Example(embedding, _condition(metadata, chance), source)
            for numbers, metadata, source in found
            if (embedding := np.array(numbers, dtype=np.float32)).any()
        ]
        if made:
            break
    return chance.sample(made, min(_SAMPLES, len(made)))


def _condition(metadata: Any, chance: random.Random) -> dict[str, Any] | None:
    simple = [
        (key, value)
        for key, value in (metadata.items() if isinstance(metadata, dict) else ())
        if isinstance(value, str | int | bool) and len(str(value)) <= 100
    ]
    return dict([chance.choice(simple)]) if simple else None


@dataclass(frozen=True, slots=True)
class Mix:
    """What requests there are.

    Attributes:
        writes: Share of all that writes.
        filtered: Share of the searches that have a filter.
        in_place: Write into the space that is read.
    """

    writes: float
    filtered: float
    k: int
    in_place: bool = False

    def next(self, chance: random.Random, own_rows: int) -> str:
        """Return a kind of request, for a client that has so many rows."""
        if chance.random() >= self.writes:
            return "filtered search" if chance.random() < self.filtered else "search"
        if not own_rows or (own_rows < _OWN_ROWS and chance.random() < 0.4):
            return "insert"
        return "update" if chance.random() < 0.6 else "delete"


class SoakClient:
    """One session that searches, and writes rows of its own."""

    def __init__(
        self,
        database: Database,
        space: Space,
        rows: Sequence[Example],
        mix: Mix,
        *,
        number: int,
        seed: int,
    ) -> None:
        self._database, self._space, self._rows, self._mix = database, space, rows, mix
        self._number, self._inserted = number, 0
        self._chance = random.Random(f"{seed} {number}")  # noqa: S311  # no secret is made of it
        self._noise = np.random.default_rng([seed, number])
        self._keys: list[str] = []
        self._conn: psycopg.Connection[Any] | None = None
        self._searcher: Searcher | None = None
        self._connects_at = 0.0
        self._ending = threading.Event()

    @property
    def backend(self) -> int | None:
        """Process of the server that serves it; None if it is not connected."""
        conn = self._conn
        return None if conn is None or conn.closed else conn.info.backend_pid

    def request(self) -> Done:
        """Search or write, once."""
        kind = self._mix.next(self._chance, len(self._keys))
        try:
            conn = self._connected()
        except CannotConnect:
            return Done(kind, NO_CONNECTION)
        except psycopg.Error as exc:
            return Done(kind, exc.sqlstate or NO_CONNECTION)
        try:
            with translated():
                error = self._search(kind) if "search" in kind else self._write(conn, kind)
        except TargetError as exc:
            lost = conn.closed
            if lost:
                self._conn = None
            return Done(kind, exc.sqlstate or CONNECTION_LOST, lost)
        return Done(kind, error)

    def cut(self) -> None:
        """End what another thread waits for."""
        self._ending.set()
        if (conn := self._conn) is not None:
            cut(conn)

    def close(self) -> None:
        """Disconnect."""
        if self._conn is not None:
            self._conn.close()

    def _connected(self) -> psycopg.Connection[Any]:
        if self._conn is None:
            if self._ending.wait(max(0.0, self._connects_at - monotonic())):
                raise CannotConnect("the soak is ending")
            self._connects_at = monotonic() + _CONNECTS_AFTER_S
            conn = self._database.connect()
            try:
                conn.execute(
                    "SELECT set_config('statement_timeout', %s, false)", [_STATEMENT_TAKES_AT_MOST]
                )
                self._conn, self._searcher = conn, Searcher(conn)
            except psycopg.Error:
                conn.close()
                raise
        return self._conn

    def _search(self, kind: str) -> str | None:
        assert self._searcher is not None
        row, where, source = self._chance.choice(self._rows), None, None
        if kind == "filtered search":
            where = row.where
            source = row.source if where is None else None
        condition = compile_filter(where, source=source)
        query = Query(self._moved(row.embedding), self._mix.k, condition)
        found = self._searcher.search(query, self._space)
        # Of what a filter asks for, somebody may have deleted the last row.
        return None if found.hits or condition is not None else NO_RESULTS

    def _write(self, conn: psycopg.Connection[Any], kind: str) -> str | None:
        if kind == "insert":
            key = f"{self._number}-{self._inserted}"
            self._inserted += 1
        else:
            # Without an answer nobody knows whether the row is there; so it is left alone then.
            key = self._keys.pop(self._chance.randrange(len(self._keys)))
        statement = {"insert": _INSERT, "update": _UPDATE, "delete": _DELETE}[kind]
        done = conn.execute(statement, self._values(key))
        if kind != "delete":
            self._keys.append(key)
        return None if done.rowcount == 1 else LOST_ROW

    def _values(self, key: str) -> dict[str, Any]:
        # Opposites, of which fewer than of likenesses are near to what people search for.
        embedding = -self._moved(self._chance.choice(self._rows).embedding)
        label = self._space.model_id
        return {
            "key": key,
            "store": STORE,
            "content": f"harca soak {key}, version {self._noise.integers(1_000_000)}",
            "embedding": orjson.dumps(embedding, option=orjson.OPT_SERIALIZE_NUMPY).decode(),
            "model_id": label if self._mix.in_place else f"{SOAK_LABEL}{label}",
        }

    def _moved(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        length = np.float32(np.linalg.norm(embedding) * _MOVED / len(embedding) ** 0.5)
        moved: NDArray[np.float32] = (
            embedding + self._noise.standard_normal(len(embedding), dtype=np.float32) * length
        )
        return moved


class Observer:
    """A session that holds the lock of all soaks, looks at the table, and cleans up."""

    def __init__(self, database: Database) -> None:
        self._database, self._ours = database, OwnSessions()
        self._conn: psycopg.Connection[Any] | None = None

    def conn(self) -> psycopg.Connection[Any]:
        """Return the session, a new one if it was lost.

        Raises:
            StoreBusy: Another soak is running.
            TargetError: There is no connection.
        """
        if self._conn is not None and not takes_statements(self._conn):  # an interruption
            self._conn.close()
        if self._conn is None or self._conn.closed:
            conn = self._database.connect()
            try:
                lock_store(conn, STORE, ours=self._ours)
                conn.execute(
                    "SELECT set_config('statement_timeout', %s, false)", [_LOOK_TAKES_AT_MOST]
                )
            except BaseException:
                conn.close()
                raise
            self._conn = conn
        return self._conn

    def sample(self, clients: Sequence[SoakClient]) -> Sample:
        """Return what can be seen now."""
        own = private_bytes()
        try:
            with translated():
                conn = self.conn()
                row = conn.execute(_TABLE).fetchone()
        except TargetError:  # the requests tell what is wrong; this is only not measured
            return Sample(client_bytes=own)
        live, dead, table, index = row or (None, None, None, None)
        return Sample(own, _server_bytes(conn, clients), live, dead, table, index)

    def vacuumable(self) -> dict[str, float] | None:
        """Return what the extension pgstattuple says of the table; None if it cannot be asked."""
        conn = self.conn()
        found = conn.execute(
            "SELECT nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace "
            "WHERE extname = 'pgstattuple'"
        ).fetchone()
        if found is None:
            return None
        with suppress(pg.InsufficientPrivilege, pg.QueryCanceled, pg.UndefinedFunction):
            row = conn.execute(
                sql.SQL(
                    "SELECT dead_tuple_percent, approx_free_percent "
                    "FROM {}('vector_embeddings'::regclass)"
                ).format(sql.Identifier(found[0], "pgstattuple_approx"))
            ).fetchone()
            if row is not None:
                return {"dead_percent": float(row[0]), "free_percent": float(row[1])}
        return None

    def clean_up(self) -> int:
        """Take away the rows of this soak, or of one that was killed; return their number."""
        conn = self.conn()
        conn.execute("SELECT set_config('statement_timeout', '0', false)")
        return conn.execute(_CLEAN_UP, [STORE]).rowcount

    def close(self) -> None:
        """Disconnect, which frees the lock."""
        if self._conn is not None:
            self._conn.close()


def _server_bytes(conn: psycopg.Connection[Any], clients: Sequence[SoakClient]) -> int | None:
    """Return the private memory of a server process, if the server is on this machine."""
    title = f"{conn.info.user} {conn.info.dbname}"
    found = [
        held
        for client in clients
        if (pid := client.backend) is not None
        and (held := private_bytes(pid, titled=title)) is not None
    ]
    return sum(found) // len(found) if found else None
