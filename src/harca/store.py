"""What applications call: searches in the table, from any number of threads."""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import psycopg
from numpy.typing import ArrayLike, NDArray
from psycopg_pool import ConnectionPool, PoolTimeout

from harca.embedders.base import Embedder
from harca.errors import TargetError, UsageError
from harca.model import Space
from harca.postgres.connect import Database, translated
from harca.postgres.connect import database as resolve
from harca.postgres.filters import compile_filter
from harca.postgres.full_text import HybridSearcher
from harca.postgres.search import (
    Answer,
    Position,
    Query,
    Searcher,
    find_space,
    stored_embedding,
)
from harca.store_texts import Texts

_Result = TypeVar("_Result")

_PATIENCE_S = 10  # for a connection


class _Connection(psycopg.Connection[Any]):
    """A connection of the pool, which keeps its searcher."""

    searcher: Searcher
    hybrid: HybridSearcher


class VectorStore:
    """The table as a vector store.

    Connects when it is first asked. A connection that is lost is replaced, and the search
    tried again: a restart of the server costs time, not an error.

        with VectorStore("postgresql://…") as store:
            for hit in store.search(embedding, model_id="text-embedding-3-small", k=5).hits:
                print(hit.similarity, hit.content)
    """

    def __init__(
        self,
        database: Database | str | None = None,
        *,
        connections: int = 4,
        embedder: Embedder | str | None = None,
    ) -> None:
        """Name the database.

        Args:
            database: As `harca --database`; None: as the commands find it.
            connections: How many at most: searches beyond that wait for one another. They
                set session parameters: behind a pooler, they need its session mode.
            embedder: What embeds texts to search by, or its name, such as
                ``openai:text-embedding-3-small``; None: what is kept with the space.

        Raises:
            UsageError: It cannot be read.
        """
        self._database = database if isinstance(database, Database) else resolve(database)
        self._most = connections
        self._texts = Texts(embedder)
        self._spaces: dict[tuple[str | None, int], Space] = {}
        self._closed = False
        self._pool, self._pid = self._new_pool(), os.getpid()
        self._pools_of_parents: list[object] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, for good."""
        self._closed = True
        if self._pid == os.getpid():  # else they are the parent's
            self._pool.close()

    def search(
        self,
        query: ArrayLike,
        *,
        model_id: str | None = None,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        source: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        min_similarity: float | None = None,
        after: Position | str | None = None,
        hybrid: str | None = None,
    ) -> Answer:
        """Return the *k* rows nearest to a query by cosine similarity.

        Args:
            query: An embedding, shape ``(dims,)``, or a text.
            model_id: Label of the model; can be left out if one space has these dimensions.
            where: What the metadata must fulfil, see docs/search.md.
            source: Only rows of this source.
            since, until: Only rows created at *since* or later, and before *until*.
            min_similarity: Results below this cosine are left out.
            after: ``next`` of the answer that these results continue.
            hybrid: A text: what fits it ranks with what is near, see docs/search.md.

        Raises:
            UsageError: Something given does not fit, or there is no embedder for a text.
            EmbedderError: The embedder failed.
            TargetError: The server refused, or cannot be reached.
        """
        found = self._answers(
            [query],
            model_id=model_id,
            k=k,
            where=where,
            source=source,
            since=since,
            until=until,
            min_similarity=min_similarity,
            after=after,
            hybrid=hybrid,
        )
        return found[0]

    def search_many(
        self,
        queries: Sequence[ArrayLike],
        *,
        model_id: str | None = None,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        source: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        min_similarity: float | None = None,
        after: Position | str | None = None,
    ) -> list[Answer]:
        """Return the answer to each query, as `search` does, in one round trip for all.

        Raises:
            UsageError: Something given does not fit, or there is no embedder for texts.
            EmbedderError: The embedder failed.
            TargetError: The server refused, or cannot be reached.
        """
        return self._answers(
            queries,
            model_id=model_id,
            k=k,
            where=where,
            source=source,
            since=since,
            until=until,
            min_similarity=min_similarity,
            after=after,
        )

    def like(self, key: str | int, *, model_id: str | None = None, **options: Any) -> Answer:
        """Return the rows nearest to a stored one, itself first.

        Args:
            key: Its ``store_key``; if an integer, its ``id``.
            options: As `search` takes them.

        Raises:
            UsageError: There is no such row, or something given does not fit.
            TargetError: The server refused, or cannot be reached.
        """
        if isinstance(key, bool) or not isinstance(key, int | str):
            raise UsageError(
                f"the key is {type(key).__name__}, expected a store_key or an id",
                hint="Results of a search show both.",
            )
        column = "id" if isinstance(key, int) else "store_key"
        found = self._with(lambda conn: stored_embedding(conn, column, key, model_id=model_id))
        if found is None:
            raise UsageError(
                f'no row has "{key}" as {column}', hint="Results of a search show both."
            )
        query, model = found
        return self.search(query, model_id=model, **options)

    def _answers(
        self,
        queries: Sequence[ArrayLike],
        *,
        model_id: str | None,
        k: int,
        where: Mapping[str, Any] | None,
        source: str | None,
        since: datetime | None,
        until: datetime | None,
        min_similarity: float | None,
        after: Position | str | None,
        hybrid: str | None = None,
    ) -> list[Answer]:
        chosen = compile_filter(where, source=source, since=since, until=until)
        position = Position.from_token(after) if isinstance(after, str) else after
        texts = [query for query in queries if isinstance(query, str)]
        if texts:
            made, model_id = self._texts.embed(texts, model_id=model_id, ask=self._with)
            embedded = iter(made)
            queries = [next(embedded) if isinstance(query, str) else query for query in queries]
        asked = [Query(embedding(query), k, chosen, min_similarity, position) for query in queries]
        if not asked:
            return []
        dims = {len(query.embedding) for query in asked}
        if len(dims) > 1:
            raise UsageError(
                f"the queries have {' and '.join(map(str, sorted(dims)))} dimensions",
                hint="Search for queries of one space at a time.",
            )

        (size,) = dims

        def answer(conn: _Connection) -> list[Answer]:
            space = self._space(conn, model_id, size)
            if hybrid is not None:
                return [conn.hybrid.search(query, hybrid, space) for query in asked]
            if len(asked) == 1:
                return [conn.searcher.search(asked[0], space)]
            return conn.searcher.search_many(asked, space)

        answers = self._with(answer)
        if not any(found.hits for found in answers):
            self._spaces.pop((model_id, size), None)  # perhaps it is not there any more
        return answers

    def _new_pool(self) -> "ConnectionPool[_Connection]":
        return ConnectionPool(
            self._database.conninfo,
            connection_class=_Connection,
            kwargs={"autocommit": True},
            configure=self._ready,
            min_size=1,
            max_size=self._most,
            timeout=_PATIENCE_S,
            open=False,
            name="harca",
        )

    def _leave_parent(self) -> None:
        """Have connections of our own in a process that was forked: the others are its parent's.

        Both would read each other's answers. They are left as they are, neither closed nor freed.
        """
        self._pools_of_parents.append(self._pool)
        self._pool, self._pid = self._new_pool(), os.getpid()

    def _ready(self, conn: _Connection) -> None:
        self._database.settle(conn)
        conn.searcher = Searcher(conn)
        conn.hybrid = HybridSearcher(conn.searcher)

    def _space(self, conn: _Connection, model_id: str | None, dims: int) -> Space:
        key = (model_id, dims)
        known = self._spaces.get(key)
        if known is None:
            known = find_space(conn, model_id=model_id, dims=dims)
            if model_id is not None:  # without, another model's space can come to fit too
                self._spaces[key] = known
        return known

    def _with(self, act: Callable[[_Connection], _Result]) -> _Result:
        """Run *act* on a connection, again on another one if that turns out to be lost."""
        if self._closed:
            raise UsageError(
                "the store is closed", hint="Search before it is closed, or open another one."
            )
        if self._pid != os.getpid():
            self._leave_parent()
        if self._pool.closed:
            self._database.reach()  # says at once what is wrong; the pool would go on trying
            self._pool.open()
        with translated():
            for _ in range(self._most):
                conn = self._connection()
                try:
                    return act(conn)
                except psycopg.OperationalError:
                    if not conn.broken:
                        raise
                finally:
                    self._pool.putconn(conn)  # which replaces it if it is lost
            conn = self._connection()
            try:
                return act(conn)
            finally:
                self._pool.putconn(conn)

    def _connection(self) -> _Connection:
        """Take a connection from the pool, which must get it back.

        Raises:
            CannotConnect: The server is gone.
            TargetError: All connections were busy for too long.
        """
        try:
            return self._pool.getconn()
        except PoolTimeout as exc:
            self._database.reach()
            raise TargetError(
                f"all {self._most} connections of the store were busy for {_PATIENCE_S} s",
                hint="Open it with more connections.",
            ) from exc


def embedding(query: ArrayLike) -> NDArray[np.float32]:
    """Return a query's embedding, float32, shape ``(dims,)``.

    Raises:
        UsageError: It is none.
    """
    if isinstance(query, np.ndarray) and query.dtype == np.float32 and query.ndim == 1:
        found = query
    else:
        found = _converted(query)
    if found.ndim != 1 or not found.size:
        raise UsageError(
            f"the query is {type(query).__name__} of shape {np.shape(found)}, expected one vector",
            hint="Give a list of numbers or an array of one dimension.",
        )
    return found


def _converted(query: ArrayLike) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # it becomes infinite, which is refused by its name
            return np.asarray(query, dtype=np.float32)
    except (TypeError, ValueError):
        return np.empty(0, np.float32)
