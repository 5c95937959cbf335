"""Build the indexes on embeddings after loading, and keep them fitting: see `space_index`."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from harca.errors import TargetError
from harca.model import Space
from harca.postgres import legacy
from harca.postgres.connect import takes_statements
from harca.postgres.lock import INDEX_LOCK, alone
from harca.postgres.space_index import (
    KEPT,
    PREFIX,
    SpaceIndex,
    capabilities,
    creating,
    dropping,
    index_for,
    ivfflat_lists,
    keeping,
    spaces,
    valid_index,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


PLAN_INDEX = "vector_embeddings_embedding_idx"
PLAN_DIMS = 1536

_HNSW_M = 16
_MB = 1024 * 1024
_LEAST_MEMORY = 64 * _MB
_MOST_MEMORY = 2048 * _MB
# Below this a second worker costs more to start than it gains.
_PARALLEL_FROM_ROWS = 50_000


def existing(conn: psycopg.Connection[Any]) -> dict[str, bool]:
    """Return the indexes on embeddings by name, with whether each is valid."""
    found = conn.execute(
        "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = 'vector_embeddings'::regclass "
        "AND (c.relname LIKE %s OR c.relname = %s)",
        [PREFIX.replace("_", r"\_") + "%", PLAN_INDEX],
    )
    return dict(found.fetchall())


def build(
    conn: psycopg.Connection[Any],
    *,
    progress: Callable[[str], None] = lambda message: None,
    patience_s: float | None = None,
) -> list[str]:
    """Make the indexes that the spaces deserve, drop others, refresh statistics.

    Readers and writers go on meanwhile. Returns the names of the indexes built. An
    INVALID index, as an interrupted build leaves it, is dropped and built again. One that a
    revision has made is left alone. Needs a connection in autocommit mode.

    Args:
        patience_s: How long it waits for another build, and for older snapshots; None: for
            ever.

    Raises:
        psycopg.errors.LockNotAvailable: Longer than that.
    """
    with _patient(conn, patience_s, waiting=progress):
        built = _build(conn, progress)
        # Autovacuum would come to it later; the planner needs it for the first search.
        conn.execute("ANALYZE vector_embeddings")
    return built


def _build(conn: psycopg.Connection[Any], progress: Callable[[str], None]) -> list[str]:
    can = capabilities(conn)
    deserved = {
        index.name: index
        for space in spaces(conn)
        if (index := index_for(space, can)) is not None and not _could_refuse(conn, index)
    }
    there = existing(conn)
    left_alone = _kept(conn)
    built = []
    for name, valid in there.items():
        if name != PLAN_INDEX and not (valid and (name in deserved or name in left_alone)):
            conn.execute(dropping(name))
    for name, index in deserved.items():
        if not there.get(name):
            space = index.space
            progress(f"index for {space.model_id}/{space.dims}, {space.records:,} rows")
            try:
                _create(conn, index)
            except pg.NumericValueOutOfRange:
                # A component is beyond half precision: searched exactly.
                conn.execute(dropping(name))
                continue
            built.append(name)
    return built + _plan_index(conn, list(deserved.values()), there, progress)


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
        [PREFIX.replace("_", r"\_") + "%", "%halfvec%"],
    )
    with _patient(conn):
        for (name,) in found.fetchall():
            conn.execute(dropping(name))


def create(conn: psycopg.Connection[Any], index: SpaceIndex) -> None:
    """Make an index as a revision wants it; `build` then leaves it alone.

    A valid one that is made so is kept, any other of its name is dropped first. Needs a
    connection in autocommit mode.

    Raises:
        TargetError: The server's pgvector has no such index.
    """
    can = capabilities(conn)
    if not can.make(index.method, index.type):
        raise TargetError(
            f"pgvector {'.'.join(map(str, can.version))} has no {index.method} index on "
            f"{index.type}",
            hint="Update the extension: HNSW came with 0.5, halfvec with 0.7.",
        )
    with _patient(conn):
        there = valid_index(conn, index.space)
        if there is None or not _is_made_as(there, index):
            row = conn.execute(
                "SELECT count(*) FROM vector_embeddings WHERE model_id = %s AND dims = %s",
                [index.space.model_id, index.space.dims],
            ).fetchone()
            assert row is not None
            conn.execute(dropping(index.name))
            _create(conn, _sized(index, rows=row[0]))
        conn.execute(keeping(index.name))


def set_aside(conn: psycopg.Connection[Any]) -> list[sql.SQL | sql.Composed]:
    """Drop the indexes on embeddings, within a transaction that replaces the rows.

    Filling them row by row is slow. Returns the statements that make those again that a
    revision has made; `build` makes the others.
    """
    remade: list[sql.SQL | sql.Composed] = []
    left_alone = _kept(conn)
    for name in existing(conn):
        if name in left_alone:
            row = conn.execute("SELECT pg_get_indexdef(%s::regclass)", [name]).fetchone()
            assert row is not None
            remade += [sql.SQL(row[0]), keeping(name)]
        conn.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    return remade


def drop(conn: psycopg.Connection[Any], name: str) -> None:
    """Drop an index if it is there. Needs a connection in autocommit mode."""
    with _patient(conn):
        conn.execute(dropping(name))


def _is_made_as(there: SpaceIndex, index: SpaceIndex) -> bool:
    if (there.method, there.type) != (index.method, index.type):
        return False
    # Lists that are not given fit the number of rows when they are built.
    return there.parameters == index.parameters or (
        index.method == "ivfflat" and not index.parameters
    )


def _sized(index: SpaceIndex, *, rows: int) -> SpaceIndex:
    """Return *index* for a number of rows."""
    space = Space(index.space.model_id, index.space.dims, rows)
    parameters = index.parameters
    if index.method == "ivfflat" and not parameters:
        parameters = {"lists": ivfflat_lists(rows)}
    return replace(index, space=space, parameters=parameters)


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
            conn.execute(dropping(PLAN_INDEX))
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
    conn.execute(dropping(PLAN_INDEX))
    with _memory(conn, _ivfflat_memory(lists, PLAN_DIMS), workers=0):
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
    drop(conn, PLAN_INDEX)
    return True


def _kept(conn: psycopg.Connection[Any]) -> set[str]:
    found = conn.execute(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = 'vector_embeddings'::regclass "
        "AND obj_description(c.oid, 'pg_class') = %s",
        [KEPT],
    )
    return {name for (name,) in found}


def _create(conn: psycopg.Connection[Any], index: SpaceIndex) -> None:
    space, parameters = index.space, index.parameters
    if index.method == "ivfflat":
        with _memory(conn, _ivfflat_memory(parameters["lists"], space.dims), workers=0):
            conn.execute(creating(index))
        return
    # The graph: the vector, and 2 m neighbours on the ground level of about 16 bytes.
    component = 2 if index.type == "halfvec" else 4
    neighbours = 32 * parameters.get("m", _HNSW_M)
    memory = round(1.3 * space.records * (component * space.dims + neighbours + 200))
    workers = 2 if space.records >= _PARALLEL_FROM_ROWS else 0
    try:
        with _memory(conn, memory, workers=workers):
            conn.execute(creating(index))
    except pg.DiskFull:
        # A parallel build keeps the graph in shared memory, of which containers have 64 MB.
        if not workers:
            raise
        conn.execute(dropping(index.name))
        with _memory(conn, memory, workers=0):
            conn.execute(creating(index))


def _ivfflat_memory(lists: int, dims: int) -> int:
    # 50 samples a list, 10,000 at least, as pgvector's build takes them.
    return max(10_000, 50 * lists) * (4 * dims + 8) + _LEAST_MEMORY


@contextmanager
def _patient(
    conn: psycopg.Connection[Any],
    patience_s: float | None = None,
    *,
    waiting: Callable[[str], object] = lambda message: None,
) -> "Iterator[None]":
    """Build and drop indexes as the only one who does, however long it takes.

    Two who build on one table side by side wait for each other: one for the table, holding a
    snapshot, the other for that snapshot.
    """
    with (
        alone(conn, INDEX_LOCK, patience_s=patience_s, waiting=waiting),
        # A concurrent build waits for older snapshots. A timeout would end it and leave an
        # INVALID index; concurrent commands make nobody wait, so they can be patient.
        _set(conn, lock_timeout=f"{1000 * (patience_s or 0):.0f}ms", statement_timeout="0"),
    ):
        yield


@contextmanager
def _memory(conn: psycopg.Connection[Any], needed: int, *, workers: int) -> "Iterator[None]":
    megabytes = min(max(needed, _LEAST_MEMORY), _MOST_MEMORY) // _MB
    with _set(
        conn,
        maintenance_work_mem=f"{megabytes}MB",
        max_parallel_maintenance_workers=str(workers),
    ):
        yield


@contextmanager
def _set(conn: psycopg.Connection[Any], **settings: str) -> "Iterator[None]":
    """Set what the session has otherwise; a revision's connection has a lock_timeout too."""
    change = "SELECT set_config(%s, %s, false)"
    before = {}
    for name, value in settings.items():
        row = conn.execute("SELECT current_setting(%s)", [name]).fetchone()
        assert row is not None
        before[name] = row[0]
        conn.execute(change, [name, value])
    try:
        yield
    finally:
        if takes_statements(conn):
            for name, value in before.items():
                conn.execute(change, [name, value])
