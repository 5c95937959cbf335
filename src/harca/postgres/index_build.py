"""Build one index while searches and writes go on: `CONCURRENTLY`, beside the one it replaces."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from harca.postgres.build_progress import BuildProgress
from harca.postgres.index_memory import given_memory, memory_for, workers_for
from harca.postgres.space_index import (
    Made,
    SpaceIndex,
    beside,
    capabilities,
    creating,
    dropping,
    ivfflat_lists,
    outlived,
    taking_over,
)

# What the server refuses an index for, that nothing but another index or other rows can change:
# a component beyond half precision; more memory than there can be.
REFUSALS = (pg.NumericValueOutOfRange, pg.ProgramLimitExceeded)


def sized(index: SpaceIndex) -> SpaceIndex:
    """Return *index* with as many lists as fit its space, where nobody has said how many."""
    if index.method != "ivfflat" or index.parameters:
        return index
    return replace(index, parameters={"lists": ivfflat_lists(index.space.records, index.type)})


def put(
    conn: psycopg.Connection[Any],
    index: SpaceIndex,
    there: dict[str, Made],
    *,
    statement: Callable[[SpaceIndex], sql.Composed] = creating,
    shown: BuildProgress | None = None,
) -> None:
    """Make *index*, in place of one of its name if that is there.

    A valid one answers searches until the new one is ready, and takes its place in one short
    transaction. An INVALID one is dropped first. Needs a connection in autocommit mode.

    Args:
        there: The indexes that are there, by name.
        statement: What makes it.

    Raises:
        psycopg.Error: One of `REFUSALS`, or the connection's; what was there is there still.
    """
    name = index.name
    if name not in there or not there[name].valid:
        conn.execute(dropping(name))
        _create(conn, index, statement, shown)
        return
    new = there.get(beside(name))
    if new is None or not (new.valid and new.is_as(index)):
        conn.execute(dropping(beside(name)))
        _create(conn, replace(index, name=beside(name)), statement, shown)
    conn.execute(dropping(outlived(name)))
    with conn.transaction():
        for renaming in taking_over(name):
            conn.execute(renaming)
    conn.execute(dropping(outlived(name)))


def _create(
    conn: psycopg.Connection[Any],
    index: SpaceIndex,
    statement: Callable[[SpaceIndex], sql.Composed],
    shown: BuildProgress | None,
) -> None:
    index = sized(index)
    memory, workers = memory_for(conn, index), workers_for(index, capabilities(conn))
    try:
        _run(conn, statement(index), index, memory.given, workers, shown)
    except pg.DiskFull:
        # A parallel build keeps the graph in shared memory, of which containers have 64 MB.
        if not workers:
            raise
        conn.execute(dropping(index.name))
        _run(conn, statement(index), index, memory.given, 0, shown)
    except REFUSALS:
        conn.execute(dropping(index.name))
        raise


def _run(
    conn: psycopg.Connection[Any],
    statement: sql.Composed,
    index: SpaceIndex,
    given: int,
    workers: int,
    shown: BuildProgress | None,
) -> None:
    with given_memory(conn, given, workers=workers):
        if shown is None:
            conn.execute(statement)
            return
        with shown.during(index.space.records):
            conn.execute(statement)
