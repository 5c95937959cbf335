"""The memory that an index build needs, and how much of it it is given."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from harca.postgres.connect import takes_statements
from harca.postgres.space_index import METHODS, Capabilities, SpaceIndex

_MB = 1024 * 1024
_LEAST = 64 * _MB
# Below this a second worker costs more to start than it gains.
_PARALLEL_FROM_ROWS = 50_000
_WORKERS = 2

# Of an element of the graph besides its value, and of a neighbour: pgvector src/hnsw.h,
# HnswElementData and HnswCandidate. An element has m neighbours for each level it is on, and
# twice as many on the lowest. What the allocator adds is in the factor; see the test.
_ELEMENT = 200
_NEIGHBOUR = 16
_ALLOCATION = 1.3
_BLOCKS = 2 * _MB  # it takes memory in blocks of 1 MB (src/hnswbuild.c)

# pgvector src/ivfbuild.c: so many rows are sampled to find the centres of the lists.
_SAMPLES_A_LIST = 50
_LEAST_SAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class BuildMemory:
    """What a build needs and is given.

    Attributes:
        must_fit: The build is refused otherwise; else it is slow.
    """

    needed: int
    given: int
    must_fit: bool

    @property
    def shortage(self) -> str | None:
        """What to say if the build is going to be slow."""
        if self.must_fit or self.needed <= self.given:
            return None
        return (
            f"its graph needs {self.needed // _MB:,} MB and is given {self.given // _MB:,}, so it "
            "goes on slowly on disk when that is full: more is given if maintenance_work_mem or "
            "effective_cache_size is larger"
        )


def memory_for(conn: psycopg.Connection[Any], index: SpaceIndex) -> BuildMemory:
    """Return the memory for a build of *index*: no more than the server is said to have.

    A graph is given half of effective_cache_size at most, which is what the operator says the
    server has for its data, or maintenance_work_mem, if that is more.
    """
    row = conn.execute(
        "SELECT greatest(pg_size_bytes(current_setting('maintenance_work_mem')), "
        "pg_size_bytes(current_setting('effective_cache_size')) / 2)"
    ).fetchone()
    assert row is not None
    needed, must_fit = needed_bytes(index), index.method == "ivfflat"
    given = max(needed, _LEAST)
    return BuildMemory(needed, given if must_fit else min(given, max(row[0], _LEAST)), must_fit)


def needed_bytes(index: SpaceIndex) -> int:
    """Return the bytes that a build of *index* needs for its number of rows."""
    parameters = {**METHODS[index.method], **index.parameters}
    dims, rows = index.space.dims, index.space.records
    value = 8 + {"vector": 4 * dims, "halfvec": 2 * dims, "bit": dims // 8}[index.type]
    if index.method == "hnsw":
        neighbours = 2 * parameters["m"] * _NEIGHBOUR
        return round(_ALLOCATION * rows * (value + neighbours + _ELEMENT)) + _BLOCKS
    # pgvector src/ivfkmeans.c (ElkanKmeans), which counts it beforehand and refuses: the samples,
    # three sets of centres, the bounds between them. And what the sorting of the rows needs.
    lists = parameters["lists"]
    samples = max(_LEAST_SAMPLES, _SAMPLES_A_LIST * lists)
    bounds = 4 * samples * lists + 4 * lists * lists + 16 * (samples + lists)
    return samples * value + 3 * lists * value + bounds + _LEAST


def workers_for(index: SpaceIndex, can: Capabilities) -> int:
    """Return how many processes help the one that builds."""
    if index.method != "hnsw" or not can.parallel_build:
        return 0
    return _WORKERS if index.space.records >= _PARALLEL_FROM_ROWS else 0


@contextmanager
def given_memory(conn: psycopg.Connection[Any], given: int, *, workers: int) -> Iterator[None]:
    """Give the session's builds that much memory, and that many helpers."""
    with session_settings(
        conn,
        maintenance_work_mem=f"{given // 1024}kB",
        max_parallel_maintenance_workers=str(workers),
    ):
        yield


@contextmanager
def session_settings(conn: psycopg.Connection[Any], **settings: str) -> Iterator[None]:
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
