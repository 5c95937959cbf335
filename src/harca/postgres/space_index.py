"""The index that a space deserves: which one, what it is called, how it is made.

Below `EXACT_BELOW` rows a space is searched exactly: that finds everything, costs a few
milliseconds and no upkeep (docs/tuning.md). Above, the space gets an HNSW index on an
expression, as a column of mixed dimensions cannot be indexed itself.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from harca.model import Space
from harca.postgres.digest import query

# Measured by benchmarks/exact_or_index.py; see docs/tuning.md.
EXACT_BELOW = 1_000

PREFIX = "vector_embeddings_ann_"
KEPT = "harca: made by a revision, which drops it too"

_MAX_VECTOR_DIMS = 2_000  # HNSW_MAX_DIM, pgvector src/hnsw.h
_MAX_HALFVEC_DIMS = 4_000


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the server's pgvector can do."""

    version: tuple[int, ...]

    @property
    def hnsw(self) -> bool:
        """HNSW indexes, since 0.5."""
        return self.version >= (0, 5)

    @property
    def halfvec(self) -> bool:
        """Half-precision vectors and binary quantisation, since 0.7."""
        return self.version >= (0, 7)

    @property
    def iterative_scan(self) -> bool:
        """Index scans that go on until a filter has let enough rows through, since 0.8."""
        return self.version >= (0, 8)

    def make(self, method: str, kind: str) -> bool:
        """Say whether there can be an index by *method* on embeddings cast to *kind*."""
        return (method != "hnsw" or self.hnsw) and (kind == "vector" or self.halfvec)


@dataclass(frozen=True, slots=True)
class SpaceIndex:
    """An index on one space's embeddings.

    Attributes:
        type: What it holds of an embedding: ``vector``, ``halfvec``, or ``bit``: the signs.
        parameters: Of the method, where they are not pgvector's own.
    """

    name: str
    space: Space
    method: str
    type: str
    parameters: Mapping[str, int] = field(default_factory=dict)

    @property
    def expression(self) -> sql.Composed:
        """What is indexed, as a query must repeat it."""
        form = "(binary_quantize(embedding::vector({1}))::bit({1}))"
        return sql.SQL(form if self.type == "bit" else "(embedding::{0}({1}))").format(
            sql.Identifier(self.type), sql.Literal(self.space.dims)
        )

    @property
    def operators(self) -> str:
        """The operator class by which it is ordered."""
        return "bit_hamming_ops" if self.type == "bit" else f"{self.type}_cosine_ops"


def capabilities(conn: psycopg.Connection[Any]) -> Capabilities:
    """Return what the server's pgvector can do."""
    row = conn.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    parts = row[0].split(".") if row else []
    return Capabilities(tuple(int(part) for part in parts if part.isdigit()))


def spaces(conn: psycopg.Connection[Any]) -> list[Space]:
    """Return all spaces of the table, with their number of rows."""
    found = conn.execute(
        "SELECT model_id, dims, count(*) FROM vector_embeddings "
        "GROUP BY model_id, dims ORDER BY model_id, dims"
    )
    return [Space(*row) for row in found]


def index_for(space: Space, can: Capabilities) -> SpaceIndex | None:
    """Return the index that *space* deserves; None if it is searched exactly."""
    kind = indexed_type(space.dims)
    if space.records < EXACT_BELOW or kind is None or not can.make("hnsw", kind):
        return None
    return SpaceIndex(index_name(space), space, "hnsw", kind)


def indexed_type(dims: int) -> str | None:
    """Return what embeddings are cast to so that they can be indexed; None: they cannot."""
    if dims <= _MAX_VECTOR_DIMS:
        return "vector"
    return "halfvec" if dims <= _MAX_HALFVEC_DIMS else None


def index_name(space: Space) -> str:
    """Return the name of a space's index; labels are hashed, as they can be anything."""
    hashed = hashlib.sha256(f"{space.dims}:{space.model_id}".encode()).hexdigest()
    return f"{PREFIX}{hashed[:12]}_idx"


def valid_index(conn: psycopg.Connection[Any], space: Space) -> SpaceIndex | None:
    """Return the index that answers searches in *space*, if there is one."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(query("space_index"), {"name": index_name(space)})
        row = cursor.fetchone()
    if row is None:
        return None
    kind = next(kind for kind in ("bit", "halfvec", "vector") if f"{kind}_" in row["operators"])
    pairs = (parameter.split("=") for parameter in row["parameters"])
    parameters = {name: int(value) for name, value in pairs}
    return SpaceIndex(row["name"], space, row["method"], kind, parameters)


def ivfflat_lists(rows: int) -> int:
    """Return the number of lists that pgvector's manual advises; 1 at least.

    https://github.com/pgvector/pgvector#ivfflat: rows / 1000 up to 1 M, else sqrt(rows).
    """
    return max(1, rows // 1000 if rows <= 1_000_000 else round(rows**0.5))


def dropping(name: str) -> sql.Composed:
    """Return the statement that drops an index while readers and writers go on."""
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(name))


def creating(index: SpaceIndex) -> sql.Composed:
    """Return the statement that makes an index while readers and writers go on."""
    space = index.space
    parameters = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))
        for name, value in index.parameters.items()
    )
    return sql.SQL(
        "CREATE INDEX CONCURRENTLY {name} ON vector_embeddings USING {method} "
        "({expression} {operators}){parameters} WHERE model_id = {model_id} AND dims = {dims}"
    ).format(
        name=sql.Identifier(index.name),
        method=sql.Identifier(index.method),
        expression=index.expression,
        operators=sql.Identifier(index.operators),
        parameters=sql.SQL(" WITH ({})").format(parameters) if index.parameters else sql.SQL(""),
        model_id=sql.Literal(space.model_id),
        dims=sql.Literal(space.dims),
    )


def keeping(name: str) -> sql.Composed:
    """Return the statement that marks an index as a revision's own."""
    return sql.SQL("COMMENT ON INDEX {} IS {}").format(sql.Identifier(name), sql.Literal(KEPT))
