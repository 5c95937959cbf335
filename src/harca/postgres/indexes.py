"""Indexes on embeddings: one per space that deserves one, built after loading.

Below `EXACT_BELOW` rows a space is searched exactly: that finds everything, costs a few
milliseconds and no upkeep (docs/tuning.md). Above, the space gets an HNSW index on an
expression, as a column of mixed dimensions cannot be indexed itself.
"""

import hashlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.rows import dict_row

from harca.model import Space
from harca.postgres import legacy
from harca.postgres.digest import query

if TYPE_CHECKING:
    from collections.abc import Iterator

# Measured by benchmarks/exact_or_index.py; see docs/tuning.md.
EXACT_BELOW = 1_000

PLAN_INDEX = "vector_embeddings_embedding_idx"
PLAN_DIMS = 1536
_PREFIX = "vector_embeddings_ann_"

_HNSW_M = 16
_MAX_VECTOR_DIMS = 2_000  # HNSW_MAX_DIM, pgvector src/hnsw.h
_MAX_HALFVEC_DIMS = 4_000
_MB = 1024 * 1024
_LEAST_MEMORY = 64 * _MB
_MOST_MEMORY = 2048 * _MB
# Below this a second worker costs more to start than it gains.
_PARALLEL_FROM_ROWS = 50_000


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
        """Half-precision vectors, since 0.7."""
        return self.version >= (0, 7)

    @property
    def iterative_scan(self) -> bool:
        """Index scans that go on until a filter has let enough rows through, since 0.8."""
        return self.version >= (0, 8)


@dataclass(frozen=True, slots=True)
class SpaceIndex:
    """An index on one space's embeddings.

    Attributes:
        type: ``vector`` or ``halfvec``: what the embeddings are cast to.
    """

    name: str
    space: Space
    method: str
    type: str

    @property
    def expression(self) -> sql.Composed:
        """What is indexed, as a query must repeat it."""
        return sql.SQL("(embedding::{}({}))").format(
            sql.SQL(self.type), sql.Literal(self.space.dims)
        )


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
    if space.records < EXACT_BELOW or not can.hnsw:
        return None
    if space.dims <= _MAX_VECTOR_DIMS:
        kind = "vector"
    elif space.dims <= _MAX_HALFVEC_DIMS and can.halfvec:
        kind = "halfvec"
    else:
        return None
    return SpaceIndex(index_name(space), space, "hnsw", kind)


def index_name(space: Space) -> str:
    """Return the name of a space's index; labels are hashed, as they can be anything."""
    hashed = hashlib.sha256(f"{space.dims}:{space.model_id}".encode()).hexdigest()
    return f"{_PREFIX}{hashed[:12]}_idx"


def existing(conn: psycopg.Connection[Any]) -> dict[str, bool]:
    """Return the indexes on embeddings by name, with whether each is valid."""
    found = conn.execute(
        "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = 'vector_embeddings'::regclass "
        "AND (c.relname LIKE %s OR c.relname = %s)",
        [_PREFIX.replace("_", r"\_") + "%", PLAN_INDEX],
    )
    return dict(found.fetchall())


def build(
    conn: psycopg.Connection[Any],
    *,
    progress: Callable[[str], None] = lambda message: None,
    patience: str = "0",
) -> list[str]:
    """Make the indexes that the spaces deserve, drop others, refresh statistics.

    Readers and writers go on meanwhile. Returns the names of the indexes built. An
    INVALID index, as an interrupted build leaves it, is dropped and built again. Needs a
    connection in autocommit mode.

    Args:
        patience: How long a build waits for older snapshots (``lock_timeout``); 0: for ever.

    Raises:
        psycopg.errors.LockNotAvailable: Longer than that.
    """
    can = capabilities(conn)
    deserved = {
        index.name: index
        for space in spaces(conn)
        if (index := index_for(space, can)) is not None and not _could_refuse(conn, index)
    }
    there = existing(conn)
    built = []
    with _patient(conn, patience):
        for name, valid in there.items():
            if name != PLAN_INDEX and (not valid or name not in deserved):
                _drop(conn, name)
        for name, index in deserved.items():
            if not there.get(name):
                space = index.space
                progress(f"index for {space.model_id}/{space.dims}, {space.records:,} rows")
                try:
                    _create(conn, index)
                except pg.NumericValueOutOfRange:
                    _drop(conn, name)  # a component is beyond half precision: searched exactly
                    continue
                built.append(name)
        built += _plan_index(conn, list(deserved.values()), there, progress)
    # Autovacuum would come to it later; the planner needs it for the first search.
    conn.execute("ANALYZE vector_embeddings")
    return built


def _could_refuse(conn: psycopg.Connection[Any], index: SpaceIndex) -> bool:
    """Say whether an index could make the old application's writes fail.

    One in half precision refuses components beyond 65,504, and rows of the old tables come
    without being asked.
    """
    if index.type != "halfvec":
        return False
    found = conn.execute(
        "SELECT FROM vector_embeddings v JOIN load_runs r USING (run_id) "
        "WHERE v.model_id = %s AND v.dims = %s AND r.format = %s LIMIT 1",
        [index.space.model_id, index.space.dims, legacy.FORMAT],
    )
    return bool(found.rowcount)


def drop_halfvec(conn: psycopg.Connection[Any]) -> None:
    """Drop the indexes in half precision, which cannot take a component beyond 65,504."""
    found = conn.execute(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = 'vector_embeddings'::regclass AND c.relname LIKE %s "
        "AND pg_get_indexdef(i.indexrelid) LIKE %s",
        [_PREFIX.replace("_", r"\_") + "%", "%halfvec%"],
    )
    for (name,) in found.fetchall():
        _drop(conn, name)


def _plan_index(
    conn: psycopg.Connection[Any],
    deserved: list[SpaceIndex],
    there: dict[str, bool],
    progress: Callable[[str], None],
) -> list[str]:
    """Keep the plan's ivfflat index on the 1536-d rows, until a space has a better one.

    It is rebuilt when its number of lists no longer fits the number of rows: built on an
    empty table, it finds about a quarter of the neighbours.
    """
    if any(index.space.dims == PLAN_DIMS for index in deserved):
        if PLAN_INDEX in there:
            _drop(conn, PLAN_INDEX)
        return []
    found = conn.execute(
        "SELECT count(*) FROM vector_embeddings WHERE dims = %s", [PLAN_DIMS]
    ).fetchone()
    assert found is not None
    lists = ivfflat_lists(found[0])
    if there.get(PLAN_INDEX) and not found[0]:
        return []  # as the schema made it
    if there.get(PLAN_INDEX) and _built_for(conn) == (lists, found[0]):
        return []
    if found[0]:
        progress(f"ivfflat index for {found[0]:,} rows of {PLAN_DIMS} dimensions")
    _drop(conn, PLAN_INDEX)
    # 50 samples a list, 10,000 at least, as pgvector's build takes them.
    memory = max(10_000, 50 * lists) * (4 * PLAN_DIMS + 8) + _LEAST_MEMORY
    with _memory(conn, memory, workers=0):
        conn.execute(
            sql.SQL(
                "CREATE INDEX CONCURRENTLY {name} ON vector_embeddings USING ivfflat "
                "((embedding::vector(1536)) vector_cosine_ops) WITH (lists = {lists}) "
                "WHERE dims = 1536"
            ).format(name=sql.Identifier(PLAN_INDEX), lists=sql.Literal(lists))
        )
    conn.execute(
        sql.SQL("COMMENT ON INDEX {} IS {}").format(
            sql.Identifier(PLAN_INDEX), sql.Literal(_comment(lists, found[0]))
        )
    )
    return [PLAN_INDEX] if found[0] else []


def ivfflat_lists(rows: int) -> int:
    """Return the number of lists that pgvector's manual advises; 1 at least.

    https://github.com/pgvector/pgvector#ivfflat: rows / 1000 up to 1 M, else sqrt(rows).
    """
    return max(1, rows // 1000 if rows <= 1_000_000 else round(rows**0.5))


def _comment(lists: int, rows: int) -> str:
    return f"harca: lists = {lists}, built for {rows} rows"


def _built_for(conn: psycopg.Connection[Any]) -> tuple[int, int] | None:
    row = conn.execute("SELECT obj_description(%s::regclass, 'pg_class')", [PLAN_INDEX]).fetchone()
    words = (row[0] or "").replace(",", "").split() if row else []
    numbers = [int(word) for word in words if word.isdigit()]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else None


def drop_before_first_load(conn: psycopg.Connection[Any]) -> bool:
    """Drop the plan's index if no row is in it; return whether it was dropped.

    Filling it row by row is slow, and `build` makes it anew after the load.
    """
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM vector_embeddings WHERE dims = %s)", [PLAN_DIMS]
    ).fetchone()
    if row == (True,) or PLAN_INDEX not in existing(conn):
        return False
    with _patient(conn):
        _drop(conn, PLAN_INDEX)
    return True


def valid_index(conn: psycopg.Connection[Any], space: Space) -> SpaceIndex | None:
    """Return the index that answers searches in *space*, if there is one."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(query("space_index"), {"name": index_name(space)})
        row = cursor.fetchone()
    if row is None:
        return None
    kind = "halfvec" if "halfvec(" in row["definition"] else "vector"
    return SpaceIndex(row["name"], space, row["method"], kind)


def _create(conn: psycopg.Connection[Any], index: SpaceIndex) -> None:
    space = index.space
    statement = sql.SQL(
        "CREATE INDEX CONCURRENTLY {name} ON vector_embeddings USING hnsw "
        "({expression} {operators}) WHERE model_id = {model_id} AND dims = {dims}"
    ).format(
        name=sql.Identifier(index.name),
        expression=index.expression,
        operators=sql.Identifier(f"{index.type}_cosine_ops"),
        model_id=sql.Literal(space.model_id),
        dims=sql.Literal(space.dims),
    )
    # The graph: the vector, and 2 m neighbours on the ground level of about 16 bytes.
    component = 2 if index.type == "halfvec" else 4
    memory = round(1.3 * space.records * (component * space.dims + 32 * _HNSW_M + 200))
    workers = 2 if space.records >= _PARALLEL_FROM_ROWS else 0
    try:
        with _memory(conn, memory, workers=workers):
            conn.execute(statement)
    except pg.DiskFull:
        # A parallel build keeps the graph in shared memory, of which containers have 64 MB.
        if not workers:
            raise
        _drop(conn, index.name)
        with _memory(conn, memory, workers=0):
            conn.execute(statement)


def _drop(conn: psycopg.Connection[Any], name: str) -> None:
    conn.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(name)))


@contextmanager
def _patient(conn: psycopg.Connection[Any], patience: str = "0") -> "Iterator[None]":
    # A concurrent build waits for older snapshots. A timeout would end it and leave an
    # INVALID index; concurrent commands make nobody wait, so they can be patient.
    conn.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(patience)))
    conn.execute("SET statement_timeout = 0")
    try:
        yield
    finally:
        if not conn.broken:
            conn.execute("RESET lock_timeout")
            conn.execute("RESET statement_timeout")


@contextmanager
def _memory(conn: psycopg.Connection[Any], needed: int, *, workers: int) -> "Iterator[None]":
    megabytes = min(max(needed, _LEAST_MEMORY), _MOST_MEMORY) // _MB
    conn.execute(sql.SQL("SET maintenance_work_mem = {}").format(sql.Literal(f"{megabytes}MB")))
    conn.execute(sql.SQL("SET max_parallel_maintenance_workers = {}").format(sql.Literal(workers)))
    try:
        yield
    finally:
        if not conn.broken:
            conn.execute("RESET maintenance_work_mem")
            conn.execute("RESET max_parallel_maintenance_workers")
