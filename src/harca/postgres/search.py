"""Nearest neighbours within one space, over one connection."""

import json
import math
import numbers
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.json import set_json_loads

from harca.condition import storable
from harca.errors import UsageError
from harca.model import Space
from harca.postgres import nearest
from harca.postgres.filters import Filter, compile_filter
from harca.postgres.selectivity import Selectivity
from harca.postgres.space_index import space_names
from harca.postgres.space_plan import EXACTLY, Session, SpacePlan, plan_of

MAX_K = 1_000
_MAX_ID = 2**31 - 1

# For so long a search does not look again which index there is, and how it is to be used.
_FRESH_S = 1.0

# pgvector sums squares in single precision, which holds 1e-45 to 3e38.
_LEAST_PEAK, _GREATEST_PEAK = 1e-12, 1e12
_MOST_STATEMENTS = 1_000

_DECODE = json.JSONDecoder().decode


class Position(NamedTuple):
    """Where one stands in the results of a query: after how many, after which one."""

    seen: int
    distance: float
    id: int

    def token(self) -> str:
        """Return it for people to pass on."""
        return f"{self.seen}:{self.distance!r}:{self.id}"

    @classmethod
    def from_token(cls, token: str) -> "Position":
        """Return the position that a token names.

        Raises:
            UsageError: It is none.
        """
        try:
            seen, distance, id_ = token.split(":")
            found = cls(int(seen), float(distance), int(id_))
        except ValueError:
            found = cls(-1, 0.0, 0)
        fits = 0 <= found.seen <= _MAX_ID and 0 <= found.id <= _MAX_ID
        if not fits or not 0 <= found.distance <= 2:
            raise UsageError(
                f'"{token}" is no position in results',
                hint="Take it from the field `next` of the results that come before.",
            )
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is searched for.

    Attributes:
        embedding: float32, shape ``(dims,)``. One whose squares the server's arithmetic cannot
            hold is brought to another length, which a cosine does not mind.
        k: How many results, 1 to `MAX_K`.
        filter: What a row must fulfil.
        min_similarity: Results below this cosine are left out.
        after: Results begin after this position.
    """

    embedding: NDArray[np.float32]
    k: int = 10
    filter: Filter | None = None
    min_similarity: float | None = None
    after: Position | None = None

    def __post_init__(self) -> None:
        if self.has_usual_length:
            return
        peak = float(np.abs(self.embedding).max(initial=0.0))
        if 0 < peak < _LEAST_PEAK or _GREATEST_PEAK < peak < math.inf:
            scaled = (self.embedding.astype(np.float64) / peak).astype(np.float32)
            object.__setattr__(self, "embedding", scaled)  # the class is frozen

    @property
    def has_usual_length(self) -> bool:
        """Whether it is neither zero nor infinite nor anywhere near: looked at in one go."""
        square = float(np.vdot(self.embedding, self.embedding))
        return _LEAST_PEAK < square < _GREATEST_PEAK


@dataclass(slots=True)  # to make a frozen one takes twice as long, and a search makes many
class Hit:
    """One result; *distance* is the cosine distance, 0 for the same direction."""

    id: int
    store_key: str | None
    distance: float
    content: str
    metadata: Any
    model_id: str
    source: str | None

    @property
    def similarity(self) -> float:
        """The cosine: 1 for the same direction."""
        return 1.0 - self.distance

    def as_dict(self) -> dict[str, Any]:
        """Return the hit as ``--json`` shows it."""
        return {
            "id": self.id,
            "store_key": self.store_key,
            "similarity": self.similarity,
            "content": self.content,
            "metadata": self.metadata,
            "model_id": self.model_id,
            "source": self.source,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits, and how they were found: ``exact`` or the index's name.

    Attributes:
        next: Where the following results begin; None: there are none.
    """

    hits: list[Hit]
    space: Space
    answered_by: str
    next: Position | None = None


class Searcher:
    """Searches over one connection, which must be in autocommit mode.

    It looks once a second which index a space has, keeps its statements prepared and sets the
    session parameters of its searches: the connection should serve nothing else.
    """

    def __init__(self, conn: psycopg.Connection[Any], *, local: bool = False) -> None:
        """Make *conn* ready.

        Args:
            local: Set session parameters for the transaction only, which must be open.
        """
        self._conn = conn
        self._local = local
        self._set: dict[str, str] = {}
        self._session: Session | None = None
        self._plans: dict[tuple[str, int], tuple[float, SpacePlan]] = {}
        self._ways: dict[tuple[str, int, int], tuple[SpacePlan, _Way]] = {}
        self._statements: dict[tuple[object, ...], bytes] = {}
        self._selectivity = Selectivity(conn)
        if conn.adapters.types.get("vector") is None:
            register_vector(conn)
        set_json_loads(_json, conn)

    def search(self, query: Query, space: Space) -> Answer:
        """Return the rows of *space* nearest to a query by cosine distance.

        Equal distances come in the order of the rows' ids. Zero vectors have no direction:
        they are never found, and cannot be searched for.

        Raises:
            UsageError: The query does not fit.
        """
        check(query, space)
        plan = self._plan(space)
        way = self._way(plan, query)
        return self._answer(self._execute(way, query, space).fetchall(), way, query, plan)

    def search_many(self, queries: Sequence[Query], space: Space) -> list[Answer]:
        """Return the answer to each query, as `search` does, in one round trip for all.

        Raises:
            UsageError: A query does not fit.
        """
        for query in queries:
            check(query, space)
        plan = self._plan(space)
        ways = [self._way(plan, query) for query in queries]
        with self.pipeline():
            cursors = [
                self._execute(way, query, space) for way, query in zip(ways, queries, strict=True)
            ]
        return [
            self._answer(cursor.fetchall(), way, query, plan)
            for cursor, way, query in zip(cursors, ways, queries, strict=True)
        ]

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The connection."""
        return self._conn

    def _plan(self, space: Space) -> SpacePlan:
        key = (space.model_id, space.dims)
        now = time.monotonic()
        known = self._plans.get(key)
        if known is None or now - known[0] > _FRESH_S:
            known = self._plans[key] = (now, plan_of(self._conn, space))
        return known[1]

    def _way(self, plan: SpacePlan, query: Query) -> "_Way":
        if plan.index is None:
            return _EXACT
        if query.filter is not None or query.after is not None:
            return self._new_way(plan, query)
        key = (plan.space.model_id, plan.space.dims, query.k)
        known = self._ways.get(key)
        if known is None or known[0] is not plan:
            known = self._ways[key] = (plan, self._new_way(plan, query))
        return known[1]

    def _new_way(self, plan: SpacePlan, query: Query) -> "_Way":
        wanted = query.k + (query.after.seen if query.after else 0)
        filtered = query.filter is not None
        candidates = plan.candidates(wanted, filtered=filtered)
        if query.filter is not None and (
            # Of the index's first candidates, a filter can leave none.
            not plan.can.iterative_scan
            or plan.is_quicker_exactly(self._selectivity.rows(plan.space, query.filter), candidates)
        ):
            return _EXACT
        session = plan.session(candidates, iterative=filtered)
        if session is None:
            return self._further(plan, candidates)
        return _Way(session, plan, candidates, further=filtered)

    def _further(self, plan: SpacePlan, candidates: int) -> "_Way":
        """Return the way that goes on behind what the index brings first."""
        session = plan.session(candidates, iterative=True)
        return _EXACT if session is None else _Way(session, plan, candidates, further=True)

    def _answer(
        self, rows: list[tuple[Any, ...]], way: "_Way", query: Query, plan: SpacePlan
    ) -> Answer:
        """Make the answer of *rows*; if they are too few, ask again, exactly in the end.

        An index brings less than it should after rows were deleted, under a filter that lets
        hardly any through, and from lists that hold so little.
        """
        hits = hits_of(rows, plan.space)
        while len(hits) < query.k and way.plan is not None:
            way = _EXACT if way.further else self._further(plan, way.candidates)
            hits = hits_of(self._execute(way, query, plan.space).fetchall(), plan.space)
        after = _after(hits, query)
        if query.min_similarity is not None:
            near = [hit for hit in hits if hit.similarity >= query.min_similarity]
            hits, after = near, after if len(near) == len(hits) else None
        index = way.plan.index if way.plan is not None else None
        return Answer(hits, plan.space, index.name if index else "exact", after)

    def _execute(self, way: "_Way", query: Query, space: Space) -> psycopg.Cursor[tuple[Any, ...]]:
        self.apply(way.session)
        values: dict[str, Any] = {
            "query": query.embedding,
            "k": query.k,
            "candidates": way.candidates,
        }
        if query.filter is not None:
            values.update(query.filter.values)
        if query.after is not None:
            values["after_distance"] = query.after.distance
            values["after_id"] = query.after.id
        cursor = self._conn.cursor(binary=True, row_factory=tuple_row)
        return cursor.execute(self._statement(way, query, space), values, prepare=True)

    def _statement(self, way: "_Way", query: Query, space: Space) -> bytes:
        index = way.plan.index if way.plan is not None else None
        clause = query.filter.clause if query.filter is not None else None
        shape = (clause and clause.as_bytes(None), query.after is not None)
        key = (space.model_id, space.dims, index and index.type, *shape)
        made = self._statements.get(key)
        if made is None:
            if len(self._statements) >= _MOST_STATEMENTS:
                self._statements.clear()
            made = self._statements[key] = nearest.statement(
                space, index, clause=clause, after=query.after is not None
            )
        return made

    @contextmanager
    def pipeline(self) -> Iterator[None]:
        """Send what follows in one round trip."""
        try:
            with self._conn.pipeline():
                yield
        except BaseException:
            # It is one transaction: what failed has taken the session parameters back.
            self._set.clear()
            self._session = None
            raise

    def apply(self, session: Session) -> None:
        """Set the session parameters that are not set so already."""
        if session is self._session:
            return
        changes = {name: value for name, value in session.items() if self._set.get(name) != value}
        if changes:
            call = sql.SQL("set_config({}, {}, {})")
            calls = [call.format(name, value, self._local) for name, value in changes.items()]
            self._conn.execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls)))
            self._set.update(changes)
        self._session = session


def _json(data: str | bytes) -> Any:
    """Return what JSON says. The server's is UTF-8, which `json.loads` would find out each time."""
    return _DECODE(data if isinstance(data, str) else str(data, "utf-8"))


@dataclass(frozen=True, slots=True)
class _Way:
    """How one query is answered: exactly if there is no plan.

    Attributes:
        further: The index's scan goes on behind what it brings first.
    """

    session: Session
    plan: SpacePlan | None = None
    candidates: int = 0
    further: bool = False


_EXACT = _Way(EXACTLY)


def hits_of(rows: list[tuple[Any, ...]], space: Space) -> list[Hit]:
    """Return the hits of rows of a distance and the columns of `nearest`."""
    return [
        Hit(id_, store_key, distance, content, metadata, space.model_id, source)
        for distance, id_, store_key, content, metadata, source in rows
        if not math.isnan(distance)  # a zero vector's
    ]


def _after(hits: list[Hit], query: Query) -> Position | None:
    if len(hits) < query.k:
        return None
    seen = query.after.seen if query.after else 0
    return Position(seen + len(hits), hits[-1].distance, hits[-1].id)


def check(query: Query, space: Space) -> None:
    """Refuse a query that does not fit.

    Raises:
        UsageError: Something in it is not what is expected.
    """
    is_whole = isinstance(query.k, numbers.Integral) and not isinstance(query.k, bool)
    if not is_whole or not 1 <= query.k <= MAX_K:
        raise UsageError(
            f"k is {query.k}, expected 1 to {MAX_K}",
            hint="Ask for a number of results in that range.",
        )
    least = query.min_similarity
    if least is not None and not (isinstance(least, numbers.Real) and -1 <= least <= 1):
        raise UsageError(
            f"the least similarity is {least}, expected -1 to 1",
            hint="It is a cosine: 1 for the same direction, 0 for a right angle.",
        )
    if query.after is not None and not isinstance(query.after, Position):
        raise UsageError(
            f"{query.after!r} is no position in results",
            hint="Take it from the field `next` of the results that come before.",
        )
    if query.embedding.shape != (space.dims,):
        raise UsageError(
            f"the query has {query.embedding.size} dimensions, "
            f'space "{space.model_id}" {space.dims}',
            hint="Embed the query with the model that made the stored embeddings.",
        )
    if query.has_usual_length:
        return
    if not np.isfinite(query.embedding).all():
        raise UsageError(
            "the query has components that are no finite numbers",
            hint="Look at what made it: a division by zero?",
        )
    if not query.embedding.any():
        raise UsageError(
            "the query is a zero vector, which is near to nothing",
            hint="Was the text that it was made of empty?",
        )


def search(
    conn: psycopg.Connection[Any],
    embedding: NDArray[np.float32],
    space: Space,
    *,
    k: int = 10,
    where: Mapping[str, Any] | None = None,
    source: str | None = None,
) -> Answer:
    """Search once, over a connection that serves other things too, see `Searcher`.

    Args:
        embedding: float32, shape ``(space.dims,)``.
        where: What the metadata must fulfil, see `compile_filter`.

    Raises:
        UsageError: Something given does not fit.
    """
    query = Query(np.asarray(embedding, np.float32), k, compile_filter(where, source=source))
    # Of a transaction that goes on, the session parameters would stay: they are taken back.
    is_inside = conn.info.transaction_status == TransactionStatus.INTRANS
    with conn.transaction(force_rollback=is_inside):
        return Searcher(conn, local=True).search(query, space)


def find_space(conn: psycopg.Connection[Any], *, model_id: str | None, dims: int | None) -> Space:
    """Return the one space that fits; its records are not counted.

    Raises:
        UsageError: None fits, or several do.
    """
    all_spaces = space_names(conn)
    fitting = [
        space
        for space in all_spaces
        if model_id in (None, space.model_id) and dims in (None, space.dims)
    ]
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(f"{space.model_id}/{space.dims}" for space in fitting or all_spaces)
    wanted = f"{model_id or 'any model'}/{dims or 'any dimension'}"
    if not fitting:
        raise UsageError(
            f'no space fits "{wanted}"',
            hint=f"There are: {shown}." if shown else "The table is empty: `harca migrate STORE`.",
        )
    raise UsageError(f'{len(fitting)} spaces fit "{wanted}"', hint=f"Name one by --model: {shown}.")


def stored_embedding(
    conn: psycopg.Connection[Any], column: str, value: str | int, *, model_id: str | None
) -> tuple[NDArray[np.float32], str] | None:
    """Return embedding and model of the first row whose *column* is *value*, if any.

    Raises:
        UsageError: The value, or the model's label, cannot be in any row.
    """
    if isinstance(value, str):
        storable(value, "query")
    if model_id is not None:
        storable(model_id, "label")
    row = conn.execute(
        sql.SQL(
            "SELECT embedding::real[], model_id FROM vector_embeddings WHERE {} = %(value)s "
            "AND (%(model)s::text IS NULL OR model_id = %(model)s) ORDER BY id LIMIT 1"
        ).format(sql.Identifier(column)),
        {"value": value, "model": model_id},
    ).fetchone()
    return None if row is None else (np.array(row[0], dtype=np.float32), row[1])
