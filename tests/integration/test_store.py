"""The store that applications call: searches, batches, pages, lost connections."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql

from harca.errors import TargetError, UsageError
from harca.postgres import space_settings
from harca.postgres.filters import Filter
from harca.postgres.search import Position, Query, Searcher, find_space, search
from harca.postgres.space_index import SpaceIndex, capabilities, creating, index_name
from harca.postgres.space_settings import Effort
from harca.store import VectorStore

ROWS, DIMS = 1_500, 16
KINDS = ["exact", "vector", "halfvec", "bit", "ivfflat"]


def clustered(rows: int, *, seed: int = 3) -> np.ndarray:
    dice = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(20, DIMS))
    points = centres[dice.integers(20, size=rows)] + 0.4 * dice.normal(size=(rows, DIMS))
    return points.astype(np.float32)


def insert(conn: psycopg.Connection, vectors: np.ndarray, model: str = "m") -> None:
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
            "VALUES (%s, %s::real[]::vector, jsonb_build_object('n', %s::int), %s)",
            [(f"t{n}", vector.tolist(), n, model) for n, vector in enumerate(vectors)],
        )


def index(conn: psycopg.Connection, kind: str) -> None:
    space = find_space(conn, model_id="m", dims=DIMS)
    if kind == "exact":
        return
    method, of = ("ivfflat", "vector") if kind == "ivfflat" else ("hnsw", kind)
    if not capabilities(conn).make(method, of):
        pytest.skip(f"this pgvector has no index on {of}")
    parameters = {"lists": 4} if kind == "ivfflat" else {}
    conn.execute(creating(SpaceIndex(index_name(space), space, method, of, parameters)))
    # The signs of 16 numbers tell little.
    space_settings.keep(conn, space, effort=Effort(candidates=400 if kind == "bit" else None))


@pytest.fixture(scope="module")
def vectors():
    return clustered(ROWS)


@pytest.fixture
def filled(database, conn, vectors):
    insert(conn, vectors)
    return database


@pytest.fixture
def store(filled):
    with VectorStore(filled) as opened:
        yield opened


def truth(vectors: np.ndarray, query: np.ndarray) -> list[str]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return [f"t{n}" for n in np.argsort(-(unit @ query), kind="stable")]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_index_finds_the_neighbours_and_their_exact_similarity(
    kind, store, conn, vectors
):
    index(conn, kind)
    queries = clustered(20, seed=8)

    answers = [store.search(query, model_id="m") for query in queries]

    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = 0
    for query, answer in zip(queries, answers, strict=True):
        assert (answer.answered_by == "exact") is (kind == "exact")
        found += len({hit.content for hit in answer.hits} & set(truth(vectors, query)[:10]))
        for hit in answer.hits:
            cosine = unit[hit.metadata["n"]] @ query / np.linalg.norm(query)
            assert hit.similarity == pytest.approx(cosine, abs=1e-5)
    assert found == 200 if kind == "exact" else found > 190


@pytest.mark.parametrize("kind", KINDS)
def test_pages_follow_on_one_another_without_gap_or_repetition(kind, store, conn, vectors):
    index(conn, kind)
    query = vectors[7]
    pages = [store.search(query, model_id="m", k=25)]
    while pages[-1].next and len(pages) < 8:
        pages.append(store.search(query, model_id="m", k=25, after=pages[-1].next.token()))

    found = [hit for page in pages for hit in page.hits]
    order = [(hit.distance, hit.id) for hit in found]
    assert len(found) == 200
    assert order == sorted(set(order))
    right = len({hit.content for hit in found} & set(truth(vectors, query)[:200]))
    # Pages this deep are more than half of the lists' rows that are looked through.
    assert right == 200 if kind == "exact" else right > (150 if kind == "ivfflat" else 190)


def test_the_last_page_says_that_nothing_follows(store, conn):
    conn.execute("DELETE FROM vector_embeddings WHERE (metadata->>'n')::int >= 12")
    first = store.search(clustered(1)[0], k=10)
    second = store.search(clustered(1)[0], k=10, after=first.next)

    assert (len(first.hits), len(second.hits), second.next) == (10, 2, None)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_come_by_their_ids_across_the_end_of_a_page(kind, database, conn):
    insert(conn, np.repeat(clustered(20), 5, axis=0))
    index(conn, kind)
    with VectorStore(database) as store:
        first = store.search(clustered(20)[4], k=3)
        second = store.search(clustered(20)[4], k=3, after=first.next)

    assert [hit.metadata["n"] for hit in first.hits + second.hits][:5] == [20, 21, 22, 23, 24]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_has_the_answers_of_its_queries(kind, store, conn):
    index(conn, kind)
    queries = list(clustered(30, seed=9))

    together = store.search_many(queries, model_id="m", k=4)

    alone = [store.search(query, model_id="m", k=4) for query in queries]
    assert [answer.hits for answer in together] == [answer.hits for answer in alone]


def test_a_batch_is_one_round_trip(filled, conn, vectors, tmp_path, monkeypatch):
    index(conn, "vector")
    space = find_space(conn, model_id="m", dims=DIMS)
    monkeypatch.setattr("harca.postgres.search._FRESH_S", 3_600)
    trace = tmp_path / "trace"
    with filled.connect() as own, trace.open("w") as file:
        searcher = Searcher(own)
        searcher.search(Query(vectors[0]), space)
        own.pgconn.trace(file.fileno())
        searcher.search_many([Query(vector) for vector in vectors[:10]], space)
        own.pgconn.untrace()

    messages = [line.split("\t")[3] for line in trace.read_text().splitlines()]
    assert messages.count("Bind") == 10
    assert messages.count("Sync") == 1


@pytest.mark.parametrize("share", [2, 10, 100, 1_000], ids=lambda share: f"1 in {share}")
@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_loses_no_results(kind, share, store, conn, vectors):
    index(conn, kind)
    conn.execute(
        "UPDATE vector_embeddings SET metadata = metadata || "
        "jsonb_build_object('chosen', (metadata->>'n')::int %% %s = 0)",
        [share],
    )
    conn.execute("ANALYZE vector_embeddings")
    found = wanted = 0
    for query in clustered(10, seed=5):
        answer = store.search(query, model_id="m", where={"chosen": True})
        right = [name for name in truth(vectors, query) if int(name[1:]) % share == 0][:10]
        found += len({hit.content for hit in answer.hits} & set(right))
        wanted += len(right)

    assert found / wanted >= 0.95


def test_rows_deleted_since_the_index_was_built_do_not_shorten_an_answer(store, conn, vectors):
    index(conn, "vector")
    near = truth(vectors, vectors[0])[:300]
    conn.execute("DELETE FROM vector_embeddings WHERE content = ANY (%s)", [near])

    answer = store.search(vectors[0], model_id="m")

    assert {hit.content for hit in answer.hits} <= set(truth(vectors, vectors[0])[300:])
    assert len(answer.hits) == 10


def test_results_below_the_least_similarity_are_left_out(store):
    query = clustered(1, seed=4)[0]
    least = store.search(query, k=5).hits[2].similarity

    answer = store.search(query, k=5, min_similarity=least)

    assert len(answer.hits) == 3
    assert answer.next is None


def test_settings_that_say_exact_keep_the_index_from_answering(store, conn):
    index(conn, "vector")
    space = find_space(conn, model_id="m", dims=DIMS)
    space_settings.keep(conn, space, method=space_settings.EXACT)

    assert store.search(clustered(1)[0], model_id="m").answered_by == "exact"


def test_the_measured_effort_is_what_the_session_has(filled, conn):
    index(conn, "vector")
    space = find_space(conn, model_id="m", dims=DIMS)
    space_settings.keep(conn, space, effort=Effort(ef_search=23))
    with filled.connect() as own:
        Searcher(own).search(Query(clustered(1)[0]), space)

        assert own.execute("SHOW hnsw.ef_search").fetchone() == ("23",)


def test_a_schema_without_settings_is_searched_as_one_with_none(filled, conn, vectors, run_alembic):
    index(conn, "vector")
    with VectorStore(filled) as store:
        before = store.search(vectors[0], model_id="m")

    down = run_alembic("downgrade", "f06b2d81c9e7", database=filled)

    assert down.code == 0, down.err
    with VectorStore(filled) as store:
        found = store.search(vectors[0], model_id="m")
    assert found.hits == before.hits
    assert found.answered_by == before.answered_by != "exact"


def test_a_batch_that_fails_leaves_the_next_search_its_session_parameters(filled, conn, vectors):
    index(conn, "vector")
    space = find_space(conn, model_id="m", dims=DIMS)
    space_settings.keep(conn, space, effort=Effort(ef_search=77))
    failing = Filter(sql.SQL("1 / (dims - dims) = 1"), {})
    with filled.connect() as session:
        searcher = Searcher(session)
        with pytest.raises(pg.DivisionByZero):
            searcher.search_many([Query(vectors[0]), Query(vectors[0], filter=failing)], space)

        searcher.search(Query(vectors[0]), space)

        has = session.execute(
            "SELECT current_setting('hnsw.ef_search'), current_setting('enable_seqscan')"
        )
        assert has.fetchone() == ("77", "off")


def test_a_search_within_a_transaction_leaves_its_session_parameters_alone(filled, conn, vectors):
    index(conn, "vector")
    space = find_space(conn, model_id="m", dims=DIMS)
    with filled.connect() as session, session.transaction():
        session.execute("SET LOCAL work_mem = '5MB'")

        assert search(session, vectors[0], space).answered_by != "exact"

        has = session.execute(
            "SELECT current_setting('enable_sort'), current_setting('enable_seqscan'), "
            "current_setting('plan_cache_mode'), current_setting('work_mem')"
        )
        assert has.fetchone() == ("on", "on", "auto", "5MB")


def test_another_index_on_the_same_expression_costs_no_neighbours(filled, conn, vectors):
    index(conn, "vector")
    space = find_space(conn, model_id="m", dims=DIMS)
    conn.execute(
        "CREATE INDEX of_the_plan ON vector_embeddings USING ivfflat "
        f"((embedding::vector({DIMS})) vector_cosine_ops) WITH (lists = 100) WHERE dims = {DIMS}"
    )
    conn.execute("ANALYZE vector_embeddings")
    found = 0
    with filled.connect() as session:
        searcher = Searcher(session)
        for query in clustered(20, seed=8):
            answer = searcher.search(Query(query), space)
            found += len({hit.content for hit in answer.hits} & set(truth(vectors, query)[:10]))

    assert found / 200 > 0.95


def test_like_finds_a_stored_row_and_what_is_near_it(store, conn):
    ((id_,),) = conn.execute("SELECT id FROM vector_embeddings WHERE content = 't5'").fetchall()

    assert store.like(id_, k=3).hits[0].content == "t5"
    with pytest.raises(UsageError, match='no row has "nobody" as store_key'):
        store.like("nobody")
    with pytest.raises(UsageError, match="the key is bool, expected a store_key or an id"):
        store.like(True)


def test_a_lost_connection_costs_no_error(store, conn, database):
    store.search(clustered(1)[0])
    conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    assert len(store.search(clustered(1)[0]).hits) == 10


def test_many_threads_share_few_connections(store, conn, vectors):
    index(conn, "vector")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda v: store.search(v, model_id="m", k=1), vectors[:100]))

    assert [answer.hits[0].metadata["n"] for answer in answers] == list(range(100))


def test_a_process_that_is_forked_has_connections_of_its_own(store, vectors):
    theirs = store.search(vectors[0], model_id="m").hits
    child = os.fork()
    if not child:
        code = 1
        with suppress(BaseException):
            # From the parent's connection an answer to another query could come.
            found = [store.search(vector, model_id="m").hits[0] for vector in vectors[:50]]
            code = int([hit.content for hit in found] != [f"t{n}" for n in range(50)])
        os._exit(code)
    ours = [store.search(vectors[0], model_id="m").hits for _ in range(50)]
    _, status = os.waitpid(child, 0)

    assert ours == [theirs] * 50
    assert status == 0


def test_a_store_whose_connections_are_all_busy_says_so(filled, monkeypatch):
    monkeypatch.setattr("harca.store._PATIENCE_S", 0.2)
    with VectorStore(filled, connections=1) as store:
        store.search(clustered(1)[0])
        held = store._connection()
        try:
            with pytest.raises(TargetError, match="all 1 connections of the store were busy"):
                store.search(clustered(1)[0])
        finally:
            store._pool.putconn(held)

        assert store.search(clustered(1)[0]).hits


def test_no_server_is_said_at_once():
    with (
        VectorStore("postgresql://nobody@127.0.0.1:1/none?connect_timeout=2") as store,
        pytest.raises(TargetError, match="cannot connect to"),
    ):
        store.search([1.0])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ([], "expected one vector"),
        ([[1.0] * DIMS], "expected one vector"),
        (["a"], "expected one vector"),
        ([0.0] * DIMS, "the query is a zero vector"),
        ([float("nan")] * DIMS, "no finite numbers"),
        (np.full(DIMS, 1e300), "no finite numbers"),
        ([1.0] * 3, 'no space fits "any model/3"'),
    ],
    ids=["empty", "two", "text", "zero", "nan", "huge", "dims"],
)
def test_a_query_that_is_none_is_refused(query, message, store):
    with pytest.raises(UsageError, match=message):
        store.search(query)


@pytest.mark.parametrize("kind", ["exact", "vector"])
@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1e25, 1e37])
def test_the_length_of_a_query_changes_no_result(scale, kind, store, conn, vectors):
    index(conn, kind)
    query = vectors[5].astype(np.float64) / np.abs(vectors[5]).max()
    expected = store.search(query).hits

    found = store.search(query * scale).hits

    assert [hit.id for hit in found] == [hit.id for hit in expected]
    for hit, other in zip(found, expected, strict=True):
        assert hit.similarity == pytest.approx(other.similarity, abs=1e-5)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("k", 2.5, "k is 2.5, expected"),
        ("k", True, "k is True, expected"),
        ("k", "3", "k is 3, expected"),
        ("min_similarity", "0.5", "the least similarity is 0.5, expected"),
        ("after", (1, 0.5, 3), "is no position in results"),
        ("source", 3, "the source is int, expected a string"),
        ("hybrid", 3, "the text is int, expected a string"),
    ],
)
def test_what_is_of_the_wrong_type_is_refused(option, value, message, store):
    with pytest.raises(UsageError, match=message):
        store.search([1.0] * DIMS, **{option: value})


@pytest.mark.parametrize("k", [0, -1, 1_001])
def test_a_hybrid_search_refuses_the_k_that_others_refuse(k, store):
    with pytest.raises(UsageError, match=f"k is {k}, expected 1 to 1000"):
        store.search([1.0] * DIMS, hybrid="t1", k=k)


def test_a_store_that_was_closed_says_so(filled):
    store = VectorStore(filled)
    store.close()

    with pytest.raises(UsageError, match="the store is closed"):
        store.search([1.0] * DIMS)


def test_a_space_that_is_gone_is_said_to_be(store, conn):
    query = clustered(1)[0]
    store.search(query, model_id="m")
    conn.execute("DELETE FROM vector_embeddings")
    store.search(query, model_id="m")

    with pytest.raises(UsageError, match='no space fits "m/16"'):
        store.search(query, model_id="m")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "1:2",
        "x:0.5:3",
        "-1:0.5:3",
        "1:nan:3",
        "1:0.5:3:4",
        "1:0.5:2147483648",
        "2147483648:0:1",
    ],
)
def test_a_token_that_is_none_is_refused(token):
    with pytest.raises(UsageError, match="is no position in results"):
        Position.from_token(token)
