"""Nearest neighbours within one space."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from harca.errors import UsageError
from harca.model import Space
from harca.postgres.space_index import SpaceIndex, capabilities, spaces, valid_index

_EF_SEARCH = 40  # pgvector's default; it must not be below k
_MAX_EF_SEARCH = 1_000
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_TIES = 20  # fetched beyond k, so that equals at the end come in the order of their ids
MAX_K = 1_000


@dataclass(frozen=True, slots=True)
class Hit:
    """One result; *similarity* is the cosine, 1 for the same direction."""

    id: int
    store_key: str | None
    similarity: float
    content: str
    metadata: Any
    model_id: str
    source: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the hit as ``--json`` shows it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits, and how they were found: ``exact`` or the index's name."""

    hits: list[Hit]
    space: Space
    answered_by: str


def search(
    conn: psycopg.Connection[Any],
    embedding: NDArray[np.float32],
    space: Space,
    *,
    k: int = 10,
    where: Mapping[str, Any] | None = None,
    source: str | None = None,
) -> Answer:
    """Return the *k* records of *space* nearest to *embedding* by cosine distance.

    Args:
        embedding: float32, shape ``(space.dims,)``.
        where: Only records whose metadata contain this object (``@>``).

    Ties come in the order of their ids. Zero vectors have no direction: they are never
    found, and cannot be searched for.

    Raises:
        UsageError: *k* or *embedding* does not fit.
    """
    if not 1 <= k <= MAX_K:
        raise UsageError(
            f"k is {k}, expected 1 to {MAX_K}", hint="Ask for a number of results in that range."
        )
    if len(embedding) != space.dims:
        raise UsageError(
            f'the query has {len(embedding)} dimensions, space "{space.model_id}" {space.dims}',
            hint="Embed the query with the model that made the stored embeddings.",
        )
    if not embedding.any():
        raise UsageError(
            "the query is a zero vector, which is near to nothing",
            hint="Was the query's text empty?",
        )
    query = _Query(embedding, space, k, where, source)
    index = valid_index(conn, space)
    if index is not None and index.type == "bit":
        index = None  # the signs' nearest are to be put in order by their embeddings
    if index is not None and query.filtered and not capabilities(conn).iterative_scan:
        index = None  # the index's candidates are few, and a filter can leave none of them
    rows = _rows(conn, query, index)
    if index is not None and (query.filtered or index.method == "ivfflat") and len(rows) < k:
        # An index scan gives up in the end; a filter this selective is quick to search by,
        # and so are lists that hold so little.
        index = None
        rows = _rows(conn, query, None)
    hits = [
        Hit(similarity=1.0 - row.pop("distance"), **row)
        for row in rows
        if not math.isnan(row["distance"])
    ]
    return Answer(hits, space, index.name if index else "exact")


@dataclass(frozen=True, slots=True)
class _Query:
    embedding: NDArray[np.float32]
    space: Space
    k: int
    where: Mapping[str, Any] | None
    source: str | None

    @property
    def filtered(self) -> bool:
        return self.where is not None or self.source is not None


def _rows(
    conn: psycopg.Connection[Any], query: _Query, index: SpaceIndex | None
) -> list[dict[str, Any]]:
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        _prefer(conn, index, k=query.k)
        cursor.execute(
            _statement(conn, query, index),
            {
                "query": _text(query.embedding),
                "k": query.k,
                "fetched": query.k + _TIES,
                "where": Jsonb(dict(query.where or {})),
                "source": query.source,
            },
        )
        return cursor.fetchall()


def _statement(
    conn: psycopg.Connection[Any], query: _Query, index: SpaceIndex | None
) -> sql.Composed:
    space = query.space
    kind = index.type if index else "vector"
    expression = sql.SQL("(embedding::{}({}))").format(
        sql.Identifier(kind), sql.Literal(space.dims)
    )
    # The space is written out, not passed: a generic plan could not use a partial index.
    # Beside parameters, a percent sign in it has to be doubled.
    model_id = sql.Literal(space.model_id).as_string(conn).replace("%", "%%")
    # The index gives the order of the inner query; before PostgreSQL 17 it could not be used
    # for the first of two keys, so ties are put in order outside.
    return sql.SQL(
        "SELECT * FROM ("
        "SELECT id, store_key, {expression} <=> %(query)s::{kind}({dims}) AS distance, "
        "content, metadata, model_id, source FROM vector_embeddings "
        "WHERE model_id = {model_id} AND dims = {dims}{where}{source} "
        "ORDER BY distance{tie_break} LIMIT %(fetched)s"
        ") nearest ORDER BY distance, id LIMIT %(k)s"
    ).format(
        tie_break=sql.SQL("" if index else ", id"),
        expression=expression,
        kind=sql.Identifier(kind),
        dims=sql.Literal(space.dims),
        model_id=sql.SQL(model_id),
        where=sql.SQL(" AND metadata @> %(where)s" if query.where is not None else ""),
        source=sql.SQL(" AND source = %(source)s" if query.source is not None else ""),
    )


def _prefer(conn: psycopg.Connection[Any], index: SpaceIndex | None, *, k: int) -> None:
    """Have the planner use the space's index: left alone, it scans smaller tables."""
    if index is None:
        return
    conn.execute("SET LOCAL enable_seqscan = off")
    conn.execute("SET LOCAL enable_bitmapscan = off")
    conn.execute("SET LOCAL enable_sort = off")
    iterative = capabilities(conn).iterative_scan
    if index.method == "ivfflat":
        # pgvector's advice: the square root of the lists, of which it puts 100 by default.
        probes = round(index.parameters.get("lists", 100) ** 0.5)
        conn.execute(sql.SQL("SET LOCAL ivfflat.probes = {}").format(sql.Literal(probes)))
        if iterative:
            conn.execute("SET LOCAL ivfflat.iterative_scan = relaxed_order")
        return
    effort = min(max(_EF_SEARCH, 2 * k, k + _TIES), _MAX_EF_SEARCH)
    conn.execute(sql.SQL("SET LOCAL hnsw.ef_search = {}").format(sql.Literal(effort)))
    if iterative:
        # Otherwise a filter can leave fewer than k of the candidates.
        conn.execute("SET LOCAL hnsw.iterative_scan = strict_order")


def _text(embedding: NDArray[np.float32]) -> str:
    # Prints the shortest text that gives the same float32 again.
    return orjson.dumps(np.ascontiguousarray(embedding), option=_NUMPY).decode()


def find_space(conn: psycopg.Connection[Any], *, model_id: str | None, dims: int | None) -> Space:
    """Return the one space that fits.

    Raises:
        UsageError: None fits, or several do.
    """
    all_spaces = spaces(conn)
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
    """Return embedding and model of the first row whose *column* is *value*, if any."""
    row = conn.execute(
        sql.SQL(
            "SELECT embedding::real[], model_id FROM vector_embeddings WHERE {} = %(value)s "
            "AND (%(model)s::text IS NULL OR model_id = %(model)s) ORDER BY id LIMIT 1"
        ).format(sql.Identifier(column)),
        {"value": value, "model": model_id},
    ).fetchone()
    return None if row is None else (np.array(row[0], dtype=np.float32), row[1])
