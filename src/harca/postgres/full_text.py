"""Full text search in one space, and the two searches as one: see docs/search.md."""

import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from harca.condition import storable
from harca.errors import SchemaNotReady, TargetError, UsageError
from harca.fusion import fuse
from harca.model import Space
from harca.postgres.build_progress import BuildProgress
from harca.postgres.digest import composed
from harca.postgres.filters import Filter
from harca.postgres.index_memory import session_settings
from harca.postgres.lock import INDEX_LOCK, alone
from harca.postgres.nearest import literal
from harca.postgres.owned import SCHEMA_VERSION, is_there
from harca.postgres.schema import FULL_TEXT_INDEX
from harca.postgres.search import MAX_K, Answer, Hit, Query, Searcher, check, hits_of
from harca.postgres.space_index import dropping
from harca.postgres.space_plan import EXACTLY

if TYPE_CHECKING:
    from collections.abc import Iterator

REVISION = "b3f19a6e27d0"  # makes the functions

_NOT_INDEXED = "full text of every row"
_FRESH_S = 1.0  # for so long it is not looked again whether there is the index

# Of each side of a hybrid search so many results are fused: what is far down in both adds little.
_DEPTH = 5
_LEAST_DEPTH = 50
# To rank a text of 1,000 characters takes about a tenth of a millisecond.
_CANDIDATES = 100
# A lexeme that more rows have is common.
_LEAST_COMMON = 1_000
_COMMON_SHARE = 0.01
_MEMORY = "256MB"


@dataclass(slots=True)
class FusedHit(Hit):
    """One result of a hybrid search; *score* is that of the fusion."""

    score: float

    def as_dict(self) -> dict[str, Any]:
        """Return the hit as ``--json`` shows it."""
        return {**Hit.as_dict(self), "score": self.score}


@dataclass(frozen=True, slots=True)
class FullTextState:
    """What there is for full text search.

    Attributes:
        has_index: An index that is valid.
        rows: Of the table, roughly.
    """

    has_index: bool
    rows: int


def state_of(conn: psycopg.Connection[Any]) -> FullTextState:
    """Return what there is for full text search.

    Raises:
        TargetError: The database cannot have it.
        SchemaNotReady: The functions are not there.
    """
    encoding = conn.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise TargetError(
            f"the database is in {encoding}, full text search needs UTF8",
            hint="Search by vector alone, or move to a database made with ENCODING 'UTF8'.",
        )
    row = conn.execute(
        "SELECT to_regprocedure('harca_tsvector(text)') IS NOT NULL, coalesce(indisvalid, false), "
        "greatest(reltuples, 0)::bigint FROM pg_class c "
        "LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indexrelid = to_regclass(%s) "
        "WHERE c.oid = to_regclass('vector_embeddings')",
        [FULL_TEXT_INDEX],
    ).fetchone()
    if row is None or not row[0]:
        found = None
        if is_there(conn, SCHEMA_VERSION):
            found = conn.execute("SELECT version_num FROM alembic_version").fetchone()
        raise SchemaNotReady(found=found and found[0], expected=REVISION)
    return FullTextState(row[1], row[2])


def index_there(conn: psycopg.Connection[Any]) -> bool:
    """Say whether there is an index for full text search that is valid."""
    found = conn.execute(
        "SELECT FROM pg_index WHERE indexrelid = to_regclass(%s) AND indisvalid "
        "AND indrelid = to_regclass('vector_embeddings')",
        [FULL_TEXT_INDEX],
    )
    return found.fetchone() is not None


def build_index(
    conn: psycopg.Connection[Any],
    *,
    progress: Callable[[str], object] = lambda message: None,
    shown: BuildProgress | None = None,
    patience_s: float | None = None,
) -> bool:
    """Build the index for full text search while reads and writes go on; false: it is there.

    An INVALID one, as an interrupted build leaves it, is dropped first. Needs a connection in
    autocommit mode.

    Args:
        progress: Is told what is being done, and for whom it waits.
        shown: Shows how far it is.
        patience_s: How long it waits for another build; None: for ever.

    Raises:
        TargetError: The database cannot have it.
        SchemaNotReady: The functions are not there.
        psycopg.errors.LockNotAvailable: Somebody held a lock longer than *patience_s*.
    """
    with _alone(conn, patience_s, progress):
        state = state_of(conn)
        if state.has_index:
            return False
        progress("index for full text")
        conn.execute(dropping(FULL_TEXT_INDEX))
        with (
            session_settings(conn, maintenance_work_mem=_MEMORY),
            nullcontext() if shown is None else shown.during(state.rows),
        ):
            conn.execute(
                sql.SQL(
                    "CREATE INDEX CONCURRENTLY {} ON vector_embeddings "
                    "USING gin (harca_tsvector(content))"
                ).format(sql.Identifier(FULL_TEXT_INDEX))
            )
    return True


def drop_index(conn: psycopg.Connection[Any], *, patience_s: float | None = None) -> None:
    """Drop it if it is there, while reads and writes go on."""
    with _alone(conn, patience_s, lambda message: None):
        conn.execute(dropping(FULL_TEXT_INDEX))


@contextmanager
def _alone(
    conn: psycopg.Connection[Any],
    patience_s: float | None,
    progress: Callable[[str], object],
) -> "Iterator[None]":
    with (
        alone(conn, INDEX_LOCK, patience_s=patience_s, waiting=progress),
        # A timeout would end the build and leave an INVALID index.
        session_settings(
            conn, lock_timeout=f"{1000 * (patience_s or 0):.0f}ms", statement_timeout="0"
        ),
    ):
        yield


class HybridSearcher:
    """Searches by vector and by full text at once, over a searcher's connection."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._looked = float("-inf")
        self._state = FullTextState(False, 0)

    def search(self, query: Query, text: str, space: Space) -> Answer:
        """Return the rows of *space* that are near to *query*, that fit *text*, or both.

        The best of each side, five times k and 50 at least, are put in one order by reciprocal
        rank fusion; both go to the server in one round trip. The query's filter and least
        similarity hold for both. A text in which nothing can be searched for is no error: what
        the vector finds is the answer, which then says so.

        Raises:
            UsageError: The query does not fit, or is to go on after a position.
            TargetError: The database cannot have full text search.
            SchemaNotReady: Its functions are not there.
        """
        if query.after is not None:
            raise UsageError(
                "a hybrid search has no position to go on after",
                hint="Ask for more results at once, or search by vector alone.",
            )
        if not isinstance(text, str):
            raise UsageError(
                f"the text is {type(text).__name__}, expected a string",
                hint="Give the words that are to be found.",
            )
        storable(text, "text")
        check(query, space)
        state = self._fresh_state()
        depth = min(max(_LEAST_DEPTH, _DEPTH * query.k), MAX_K)
        deep = Query(query.embedding, depth, query.filter, query.min_similarity)
        conn = self._searcher.connection
        with self._searcher.pipeline():
            self._searcher.apply(EXACTLY)
            fitting = conn.cursor(binary=True).execute(
                _statement(space, query.filter, state), _values(deep, text, state), prepare=True
            )
            asked = conn.execute(
                "SELECT cardinality(harca_lexemes(harca_folded(%s), true))", [text]
            )
            near = self._searcher.search(deep, space)
        has_words = asked.fetchone() != (0,)
        by_text = [
            hit
            for hit in hits_of(fitting.fetchall(), space)
            if query.min_similarity is None or hit.similarity >= query.min_similarity
        ]
        hits = {hit.id: hit for hit in (*by_text, *near.hits)}
        fused = fuse([[hit.id for hit in side] for side in (near.hits, by_text)])
        by = FULL_TEXT_INDEX if state.has_index else _NOT_INDEXED
        return Answer(
            [_fused(hits[id_], score) for id_, score in fused[: query.k]],
            space,
            f"{near.answered_by} + {by if has_words else 'no words in the text'}",
        )

    def _fresh_state(self) -> FullTextState:
        now = time.monotonic()
        if now - self._looked > _FRESH_S:
            self._state = state_of(self._searcher.connection)
            self._looked = now
        return self._state


def hybrid(searcher: Searcher, query: Query, text: str, space: Space) -> Answer:
    """Search once by vector and by full text, see `HybridSearcher.search`."""
    return HybridSearcher(searcher).search(query, text, space)


def _fused(hit: Hit, score: float) -> FusedHit:
    return FusedHit(
        hit.id, hit.store_key, hit.distance, hit.content, hit.metadata, hit.model_id, hit.source,
        score,
    )  # fmt: skip


def _values(query: Query, text: str, state: FullTextState) -> dict[str, Any]:
    return {
        **(query.filter.values if query.filter is not None else {}),
        "query": query.embedding,
        "text": text,
        "k": query.k,
        "candidates": max(_CANDIDATES, query.k),
        "most": max(_LEAST_COMMON, int(_COMMON_SHARE * state.rows)),
        "rows": state.rows,
    }


def _statement(space: Space, chosen: Filter | None, state: FullTextState) -> bytes:
    parts = [
        sql.SQL("model_id = {} AND dims = {}").format(
            literal(space.model_id), sql.Literal(space.dims)
        )
    ]
    if chosen is not None:
        parts.append(sql.SQL("({})").format(chosen.clause))
    rows = sql.SQL("FROM vector_embeddings WHERE {}").format(sql.SQL(" AND ").join(parts))
    scanned: sql.Composable = sql.SQL("")
    matching: sql.Composable
    if state.has_index:
        matching = sql.SQL(
            "SELECT id, octet_length(content) AS size {} AND harca_tsvector(content) @@ sought"
        ).format(rows)
    else:
        # Contents are looked through as they are; those that can match are cut, once.
        scanned = sql.SQL(
            "scanned AS MATERIALIZED (SELECT id, octet_length(content) AS size, "
            "harca_tsvector(content) AS words FROM (SELECT id, content, "
            "harca_folded(content) AS folded {} OFFSET 0) AS rows WHERE EXISTS "
            "(SELECT FROM asked WHERE lexeme <> '' AND strpos(folded, lexeme) > 0)), "
        ).format(rows)
        matching = sql.SQL("SELECT id, size FROM scanned WHERE words @@ sought")
    return composed("full_text", scanned=scanned, matching=matching).as_bytes(None)
