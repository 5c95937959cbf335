"""A space's index: what it is called, what it is made of, how it is made and found again.

It is on an expression, as a column of mixed dimensions cannot be indexed itself. Which index
a space deserves is told by `index_choice`.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from harca.model import Space
from harca.postgres.digest import query

PREFIX = "vector_embeddings_ann_"
# Rows that `harca soak` writes beside those of the application, while it runs.
SOAK_LABEL = "harca-soak:"
KEPT = "harca: made by a revision, which drops it too"

# Lists that are twice as many or half as few as fit cost a search time or recall.
_OUTGROWN = 2

# HNSW_MAX_DIM, IVFFLAT_MAX_DIM and their multiples by type: pgvector src/hnswutils.c. A vector
# has 16,000 dimensions at most, so that all have signs that can be indexed.
MOST_DIMS = {"vector": 2_000, "halfvec": 4_000, "bit": 16_000}
METHODS: Mapping[str, Mapping[str, int]] = {  # parameters, and what pgvector takes for them
    "hnsw": {"m": 16, "ef_construction": 64},
    "ivfflat": {"lists": 100},
}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the server's pgvector can do."""

    version: tuple[int, ...]

    @classmethod
    def of(cls, version: str | None) -> "Capabilities":
        """Return those of a version of pgvector; None: it is not installed."""
        parts = (version or "").split(".")
        return cls(tuple(int(part) for part in parts if part.isdigit()))

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

    @property
    def parallel_build(self) -> bool:
        """HNSW builds by several processes, which can crash before 0.8.2.

        https://github.com/pgvector/pgvector/issues/959
        """
        return self.version >= (0, 8, 2)

    @property
    def shown(self) -> str:
        """The version, for people."""
        return ".".join(map(str, self.version)) or "?"

    @property
    def warnings(self) -> list[str]:
        """What is known to be wrong with the version."""
        if not self.version:
            return []
        found = []
        if self.version >= (0, 6) and not self.parallel_build:
            found.append(
                f"pgvector {self.shown} can crash the server when it builds an HNSW index by "
                "several processes: harca builds by one; update to 0.8.2 or later"
            )
        if self.version < (0, 8, 4):
            damage = "can damage an HNSW index by VACUUM, and " if self.hnsw else ""
            found.append(
                f"pgvector {self.shown} {damage}takes more than maintenance_work_mem to build "
                "ivfflat: update to 0.8.4 or later, then REINDEX"
            )
        return found

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
    return Capabilities.of(row[0] if row else None)


def spaces(conn: psycopg.Connection[Any]) -> list[Space]:
    """Return all spaces of the table, with their number of rows; not that of a soak."""
    found = conn.execute(
        "SELECT model_id, dims, count(*) FROM vector_embeddings WHERE NOT starts_with(model_id, %s)"
        " GROUP BY model_id, dims ORDER BY model_id, dims",
        [SOAK_LABEL],
    )
    return [Space(*row) for row in found]


def space_names(conn: psycopg.Connection[Any]) -> list[Space]:
    """Return all spaces of the table, without counting their rows."""
    found = conn.execute(query("space_names"), {"soak": SOAK_LABEL})
    return [Space(model_id, dims, 0) for model_id, dims in found]


def indexed_type(dims: int) -> str | None:
    """Return what embeddings are cast to so that they can be indexed; None: they cannot."""
    return next((kind for kind, most in MOST_DIMS.items() if dims <= most), None)


def index_name(space: Space) -> str:
    """Return the name of a space's index; labels are hashed, as they can be anything."""
    hashed = hashlib.sha256(f"{space.dims}:{space.model_id}".encode()).hexdigest()
    return f"{PREFIX}{hashed[:12]}_idx"


@dataclass(frozen=True, slots=True)
class Made:
    """An index that is there.

    Attributes:
        type: As of a `SpaceIndex`; empty if it is none of harca's making.
        valid: False if a build was interrupted.
        comment: What says who made it.
    """

    name: str
    method: str
    type: str
    parameters: Mapping[str, int]
    valid: bool
    bytes: int
    comment: str | None

    @property
    def is_kept(self) -> bool:
        """True if a revision has made it, which drops it too."""
        return self.comment == KEPT

    def is_as(self, index: SpaceIndex) -> bool:
        """Say whether it is made as *index*, for so many rows if it has lists."""
        if (self.method, self.type) != (index.method, index.type):
            return False
        defaults = METHODS[index.method]
        if index.method == "ivfflat" and not index.parameters:
            lists = self.parameters.get("lists", defaults["lists"])
            fitting = ivfflat_lists(index.space.records, index.type)
            return fitting < _OUTGROWN * lists and lists < _OUTGROWN * fitting
        return {**defaults, **self.parameters} == {**defaults, **index.parameters}

    def of(self, space: Space) -> SpaceIndex:
        """Return it as an index of *space*."""
        return SpaceIndex(self.name, space, self.method, self.type, self.parameters)


def made_indexes(conn: psycopg.Connection[Any], prefix: str) -> dict[str, Made]:
    """Return the indexes of the table whose names begin with *prefix*, by name."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(query("made_indexes"), {"prefix": prefix})
        return {row["name"]: made(**row) for row in cursor}


def made(*, operators: str, parameters: list[str], **row: Any) -> Made:
    """Return the index that the catalog describes, see sql/made_indexes.sql."""
    types = (kind for kind in ("bit_hamming", "halfvec", "vector") if operators.startswith(kind))
    pairs = (parameter.split("=") for parameter in parameters)
    return Made(
        type=next(types, "").removesuffix("_hamming"),
        parameters={name: int(value) for name, value in pairs if value.isdecimal()},
        **row,
    )


def valid_index(conn: psycopg.Connection[Any], space: Space) -> SpaceIndex | None:
    """Return the index that answers searches in *space*, if there is one."""
    name = index_name(space)
    found = made_indexes(conn, name).get(name)
    return found.of(space) if found is not None and found.valid else None


def ivfflat_lists(rows: int, kind: str = "vector") -> int:
    """Return the number of lists that pgvector's manual advises, twice as many of signs.

    https://github.com/pgvector/pgvector#ivfflat: rows / 1000 up to 1 M, else sqrt(rows). A list
    of signs is compared so quickly that putting its rows in order takes longer; shorter ones find
    as much with fewer rows (docs/benchmarks.md).
    """
    times = 2 if kind == "bit" else 1
    return max(1, times * rows // 1000 if rows <= 1_000_000 else round(times * math.sqrt(rows)))


def ivfflat_probes(lists: int) -> int:
    """Return how many lists to look through: half as many again as pgvector's manual advises.

    The square root alone is too little where lists are few: docs/tuning.md has the measurement.
    """
    return min(lists, math.ceil(1.5 * math.sqrt(lists)))


def beside(name: str) -> str:
    """Return what an index is called while it is built to take the place of *name*."""
    return f"{name}_new"


def taking_over(name: str) -> list[sql.Composed]:
    """Return the statements, of one transaction, by which `beside` becomes *name*.

    The old index is called `outlived` then. Searches go on: the lock is SHARE UPDATE EXCLUSIVE.
    """
    renaming = sql.SQL("ALTER INDEX {} RENAME TO {}")
    return [
        renaming.format(sql.Identifier(name), sql.Identifier(outlived(name))),
        renaming.format(sql.Identifier(beside(name)), sql.Identifier(name)),
    ]


def outlived(name: str) -> str:
    """Return what an index is called when another one has taken its place."""
    return f"{name}_old"


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
