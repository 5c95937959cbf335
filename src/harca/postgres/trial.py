"""Search a space in several ways, on a copy of its rows, and measure each.

The rows are copied into an UNLOGGED table in a schema of its own, where the indexes are built;
the table that applications search is only read, once. All indexes stand on one copy, so that
searches of all kinds can take turns: each way has a view of the table, whose condition is true
for every row and is part of one index's condition only. The planner then has the choice
between that index and none.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from math import isnan
from statistics import quantiles
from time import perf_counter
from typing import Any

import numpy as np
import orjson
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from psycopg import errors as pg
from psycopg import sql

from harca.advise import EXACT, Candidate, Point, disk_bytes
from harca.errors import Refused, TargetError, UsageError
from harca.model import Space
from harca.postgres import lock, nearest
from harca.postgres.build_progress import BuildProgress
from harca.postgres.connect import Database, takes_statements
from harca.postgres.index_build import REFUSALS
from harca.postgres.index_memory import given_memory, memory_for, workers_for
from harca.postgres.space_index import SpaceIndex, capabilities
from harca.postgres.space_plan import EXACTLY, Session, SpacePlan
from harca.postgres.space_settings import Effort
from harca.watcher import Unwatched, Watcher

SCHEMA = "harca_advice"
_OURS = "harca: made and dropped by harca index advise"

SEED = 6  # any number: the same rows are taken on every run
REPETITIONS = 3

_MAX_SHARE = 5  # of so many rows one is a query, at most
_ENOUGH = 0.9995  # more effort finds no more
_SLOWER = 1.5  # than an exact search, by more than the noise: more effort is for nothing
# An exact search that takes longer cannot be about as fast as an index, whoever is measured
# beside it; and it would take most of the time of the whole.
_TAKES_TURNS_MS = 50.0
_SAME = 1e-9  # two distances of one pair of vectors, computed twice


@dataclass(frozen=True, slots=True)
class Measured:
    """What the ways to search a space gave.

    Attributes:
        sampled_rows: How many of the space's rows were taken.
        queries: How many of those were searched for; they are not among the rows searched.
        left_out: What could not be measured, and why.
    """

    space: Space
    sampled_rows: int
    queries: int
    points: list[Point]
    left_out: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Way:
    """One way to search, at one effort, and the times that its searches took.

    Attributes:
        index: None: exactly.
        candidates: How many rows are taken from the index.
    """

    number: int
    candidate: Candidate
    effort: Mapping[str, int]
    index: SpaceIndex | None
    session: Session
    candidates: int = 0
    build_s: float = 0.0
    size_bytes: int = 0
    recall: float = 1.0
    took_ms: list[float] = field(default_factory=list)

    def point(self) -> Point:
        p50, p95 = _percentiles(self.took_ms)
        return Point(
            self.candidate.method,
            self.candidate.type,
            self.candidate.parameters,
            self.effort,
            self.recall,
            p50,
            p95,
            self.build_s,
            self.size_bytes,
        )


def counted(conn: psycopg.Connection[Any], space: Space) -> Space:
    """Return *space* with the number of its rows."""
    row = conn.execute(
        "SELECT count(*) FROM vector_embeddings WHERE model_id = %s AND dims = %s",
        [space.model_id, space.dims],
    ).fetchone()
    assert row is not None
    return replace(space, records=row[0])


def measure(
    database: Database,
    space: Space,
    candidates: Sequence[Candidate],
    *,
    k: int,
    queries: int,
    max_rows: int,
    watcher: Watcher | None = None,
) -> Measured:
    """Search *space* by each candidate at each of its efforts; the first must be exact.

    Rows of the space are the queries; they are left out of the rows that are searched, so that
    no row finds itself. What the exact search finds is the truth; a row at the distance of the
    last true one counts as found, so that ties do not count against an index. Efforts are
    raised until all is found, or an exact search is faster. The searches of all ways then take
    turns, query by query, with everything in memory that there is room for.

    Whatever happens, the copy is dropped; if the process is killed, by the next call.

    Raises:
        UsageError: The space has too few rows.
        Refused: Somebody has made a schema of the name that is needed.
        TargetError: The disk is full.
    """
    watcher = watcher or Unwatched()
    with _scratch(database, watcher) as conn:
        try:
            shown = BuildProgress(database, watcher, table=f"{SCHEMA}.tried")
            trial = _Trial(conn, space, k, watcher, shown)
            trial.copy(queries=queries, max_rows=max_rows, candidates=candidates)
            return trial.run(candidates)
        except pg.DiskFull as exc:
            raise TargetError(
                "PostgreSQL: the server ran out of disk space while indexes were tried",
                hint="What was tried is dropped. Make room, or measure fewer rows with --max-rows.",
                sqlstate=exc.sqlstate,
            ) from exc


@contextmanager
def _scratch(database: Database, watcher: Watcher) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection, and a schema to work in that is empty before and gone afterwards."""
    with database.connect() as locker, database.connect() as conn:
        lock.notice_loss(locker)
        lock.notice_loss(conn)
        lock.notice_loss_at_work(conn)  # a build would go on, and be waited for by the next call
        lock.take(locker, lock.ADVICE_LOCK, waiting=watcher.trouble)
        _make(locker)
        try:
            with lock.looked_after(locker, conn):
                yield conn
        finally:
            if not takes_statements(conn):  # interrupted: what it does holds locks
                lock.cut(conn)
            # Else the next one drops it.
            with suppress(psycopg.OperationalError):
                _drop(locker)


def _make(conn: psycopg.Connection[Any]) -> None:
    name = sql.Identifier(SCHEMA)
    found = conn.execute(
        "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s", [SCHEMA]
    ).fetchone()
    if found is not None and found[0] != _OURS:
        raise Refused(
            f'there is a schema "{SCHEMA}" that is none of harca\'s making',
            hint="Nothing was changed. Rename it: harca works in a schema of that name, and drops "
            "it.",
        )
    with conn.transaction():
        _drop(conn)
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(name))
        conn.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(name, sql.Literal(_OURS)))


def _drop(conn: psycopg.Connection[Any]) -> None:
    conn.execute("SET client_min_messages = warning")
    conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA)))


class _Trial:
    def __init__(
        self,
        conn: psycopg.Connection[Any],
        space: Space,
        k: int,
        watcher: Watcher,
        shown: BuildProgress,
    ) -> None:
        self._conn, self._space, self._k = conn, space, k
        self._watcher, self._shown = watcher, shown
        self._can = capabilities(conn)
        self._queries: list[NDArray[np.float32]] = []
        self._copied = 0
        self._left_out: list[str] = []
        register_vector(conn)

    def copy(self, *, queries: int, max_rows: int, candidates: Sequence[Candidate]) -> None:
        """Take rows of the space, in an order that is the same on every run."""
        taken = min(self._space.records, max_rows)
        wanted = max(1, min(queries, taken // _MAX_SHARE))
        if self._k > taken - wanted:
            raise UsageError(
                f"k is {self._k}, and {taken:,} rows are measured, {wanted:,} of them as queries",
                hint="Ask for fewer results with -k; a space this small is searched exactly.",
            )
        self._watcher.stage(f"choose {taken:,} rows")
        self._execute(
            "CREATE UNLOGGED TABLE {schema}.picked AS SELECT id, row_number() OVER ("
            "ORDER BY hashint8extended(id::bigint, {seed}), id) AS place FROM vector_embeddings "
            "WHERE model_id = {model_id} AND dims = {dims} ORDER BY place LIMIT {taken}",
            seed=SEED,
            taken=taken,
        )
        found = self._execute(
            "SELECT v.id, v.embedding::real[], pg_column_size(v.*) FROM {schema}.picked p "
            "JOIN vector_embeddings v USING (id) WHERE vector_norm(v.embedding) > 0 "
            "ORDER BY p.place LIMIT {wanted}",
            wanted=wanted,
        ).fetchall()
        if not found:
            raise UsageError(
                f'space "{self._space.model_id}" has zero vectors only, which nothing is near to',
                hint="Were its texts empty? There is nothing to search in it.",
            )
        self._queries = [np.array(embedding, dtype=np.float32) for _, embedding, _ in found]
        row_bytes = sum(size for _, _, size in found) / len(found)
        needed = disk_bytes(taken, self._space.dims, row_bytes, candidates)
        self._watcher.stage(
            f"copy {taken:,} rows; copy and indexes take about {_megabytes(needed)} of the "
            "server's disk until the end"
        )
        # With all columns, as the real table stores them, and in its order: it is pages that are
        # read, and a graph depends on the order in which it is built.
        self._execute(
            "CREATE UNLOGGED TABLE {schema}.tried (LIKE {table} INCLUDING STORAGE) "
            "WITH (toast_tuple_target = 8160)"
        )
        self._execute(
            "INSERT INTO {schema}.tried SELECT v.* FROM {schema}.picked p "
            "JOIN vector_embeddings v USING (id) WHERE NOT id = ANY ({queries}) ORDER BY v.id",
            queries=[one[0] for one in found],
        )
        self._execute("ANALYZE {schema}.tried")
        self._copied = taken - len(found)

    def run(self, candidates: Sequence[Candidate]) -> Measured:
        """Build, find out what each way finds, then how fast it is."""
        assert candidates[0].method == EXACT
        self._watcher.stage("search exactly")
        self._make_view(0)
        exact = _Way(0, candidates[0], {}, None, EXACTLY)
        for query in self._queries[:3]:  # until it is in memory and the statement is planned
            self._ask(exact, query)
        exact.took_ms.clear()
        truth = [self._ask(exact, query) for query in self._queries]
        exact_ms = _percentiles(exact.took_ms)[0]
        ways = [exact]
        for number, candidate in enumerate(candidates[1:], 1):
            self._watcher.stage(f"build and try {candidate}")
            ways += self._tried(number, candidate, truth, exact_ms)
        self._take_turns([way for way in ways if way is not exact or exact_ms <= _TAKES_TURNS_MS])
        return Measured(
            self._space,
            self._copied + len(self._queries),
            len(self._queries),
            [way.point() for way in ways],
            self._left_out,
        )

    def _take_turns(self, ways: list[_Way]) -> None:
        """Time the searches of all *ways*, each beginning as often as the others."""
        for way in ways:
            way.took_ms.clear()
        for repetition in range(REPETITIONS):
            self._watcher.stage(
                f"time {len(ways)} ways, {len(self._queries)} searches each, "
                f"{repetition + 1} of {REPETITIONS}"
            )
            for at, query in enumerate(self._queries):
                first = (at + repetition) % max(len(ways), 1)
                for way in ways[first:] + ways[:first]:
                    self._ask(way, query)

    def _tried(
        self, number: int, candidate: Candidate, truth: list[list[float]], exact_ms: float
    ) -> list[_Way]:
        """Build an index; return the ways to search by it, with the recall of each."""
        assert candidate.type is not None
        self._make_view(number)
        index = SpaceIndex(
            f"i{number}",
            replace(self._space, records=self._copied),
            candidate.method,
            candidate.type,
            candidate.parameters,
        )
        started = perf_counter()
        try:
            self._build(number, index)
        except REFUSALS as exc:
            self._left_out.append(f"{candidate}: {exc.diag.message_primary}")
            return []
        build_s = perf_counter() - started
        row = self._conn.execute(
            "SELECT pg_relation_size(to_regclass(%s))", [f"{SCHEMA}.{index.name}"]
        ).fetchone()
        assert row is not None
        ways: list[_Way] = []
        for effort in candidate.efforts:
            plan = SpacePlan(
                self._space, index, self._copied, Effort(**effort, k=self._k), self._can
            )
            taken = plan.candidates(self._k)
            session = plan.session(taken, iterative=False)
            if session is None:  # pgvector's limit
                break
            way = _Way(number, candidate, effort, index, session, taken, build_s, row[0])
            shares = [
                _share(self._ask(way, query), true)
                for query, true in zip(self._queries, truth, strict=True)
                if true
            ]
            way.recall = sum(shares) / len(shares) if shares else 1.0
            ways.append(way)
            if way.recall >= _ENOUGH or _percentiles(way.took_ms)[0] > _SLOWER * exact_ms:
                break
        return ways

    def _make_view(self, number: int) -> None:
        self._execute(
            "CREATE VIEW {schema}.{view} AS SELECT * FROM {schema}.tried WHERE {mark}",
            view=_view(number),
            mark=_mark(number),
        )

    def _statement(self, way: _Way) -> bytes:
        table = sql.SQL("{}.{}").format(sql.Identifier(SCHEMA), _view(way.number))
        return nearest.statement(self._space, way.index, table=table)

    def _build(self, number: int, index: SpaceIndex) -> None:
        given = memory_for(self._conn, index).given
        workers = workers_for(index, self._can)
        try:
            with (
                given_memory(self._conn, given, workers=workers),
                self._shown.during(index.space.records),
            ):
                self._create(index, _mark(number))
        except pg.DiskFull:
            # A parallel build keeps the graph in shared memory, of which containers have 64 MB.
            if not workers:
                raise
            with given_memory(self._conn, given, workers=0):
                self._create(index, _mark(number))

    def _create(self, index: SpaceIndex, mark: sql.Composed) -> None:
        parameters = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in index.parameters.items()
        )
        self._execute(
            "CREATE INDEX {name} ON {schema}.tried USING {method} ({expression} {operators}) "
            "WITH ({parameters}) WHERE model_id = {model_id} AND dims = {dims} AND {mark}",
            name=sql.Identifier(index.name),
            method=sql.Identifier(index.method),
            expression=index.expression,
            operators=sql.Identifier(index.operators),
            parameters=parameters,
            mark=mark,
        )

    def _ask(self, way: _Way, query: NDArray[np.float32]) -> list[float]:
        """Search once; return the distances of what is found, the nearest first."""
        self._conn.execute(_SET, [orjson.dumps(way.session).decode()])
        statement = self._statement(way)
        values = {"query": query, "k": self._k, "candidates": way.candidates}
        started = perf_counter()
        cursor = self._conn.cursor(binary=True).execute(statement, values, prepare=True)
        rows = cursor.fetchall()
        way.took_ms.append(1_000 * (perf_counter() - started))
        return [row[0] for row in rows if not isnan(row[0])]

    def _execute(self, statement: str, **parts: Any) -> psycopg.Cursor[Any]:
        written = {
            name: part if isinstance(part, sql.Composable) else sql.Literal(part)
            for name, part in parts.items()
        }
        return self._conn.execute(
            sql.SQL(statement).format(
                schema=sql.Identifier(SCHEMA),
                model_id=sql.Literal(self._space.model_id),
                dims=sql.Literal(self._space.dims),
                table=nearest.TABLE,
                **written,
            )
        )


_SET = "SELECT set_config(key, value, false) FROM jsonb_each_text(%s::jsonb) settings (key, value)"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB" if count >= 1e6 else "1 MB"


def _view(number: int) -> sql.Identifier:
    return sql.Identifier(f"w{number}")


def _mark(number: int) -> sql.Composed:
    # Nothing that the planner could conclude from dims alone: it compares it as it stands.
    return sql.SQL("dims + {} <> 0").format(sql.Literal(number))


def _share(found: list[float], true: list[float]) -> float:
    """Return how many of the true neighbours are found; any at the last one's distance is one."""
    return min(sum(distance <= true[-1] + _SAME for distance in found), len(true)) / len(true)


def _percentiles(took_ms: list[float]) -> tuple[float, float]:
    if len(took_ms) < 2:
        return took_ms[0], took_ms[0]
    cuts = quantiles(took_ms, n=20, method="inclusive")
    return cuts[9], cuts[18]
