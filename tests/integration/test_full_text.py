"""Hybrid search: what a text finds, in which order, by index or without, and what it cannot."""

import os
import subprocess

import numpy as np
import psycopg
import pytest

from harca.errors import SchemaNotReady, TargetError, UsageError
from harca.model import Space
from harca.postgres import programs
from harca.postgres.filters import compile_filter
from harca.postgres.full_text import FusedHit, build_index, drop_index, hybrid, index_there
from harca.postgres.schema import FULL_TEXT_INDEX
from harca.postgres.search import Position, Query, Searcher
from harca.store import VectorStore
from tests.conftest import in_database, recreate

SPACE = Space("m", 2, 0)
FAR = np.array([-1.0, 0.001], np.float32)

TEXTS = [
    "全文検索はデータベースの機能です",
    "犬と猫",
    "A database backup that nobody has restored",
    "ｱﾊﾟｰﾄ in Ｔｏｋｙｏ 東京",
    "bread 🍞 and ☕️",
    "don't panic: error_code 42P01",
    "안녕하세요 세계",
    "",
]


@pytest.fixture(params=["indexed", "not indexed"])
def filled(request, conn):
    """The texts, each with an embedding of its own, in two spaces."""
    for model in ("m", "other"):
        for number, text in enumerate(TEXTS):
            conn.execute(
                "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
                "VALUES (%s, %s::real[]::vector, jsonb_build_object('n', %s::int), %s)",
                [text, [1.0, number / 10], number, model],
            )
    if request.param == "indexed":
        assert build_index(conn)
    return conn


def by_text(conn, text, **options):
    """Search so that only the text finds: no similarity with the query is left out, none helps."""
    query = Query(FAR, options.pop("k", 10), **options)
    answer = hybrid(Searcher(conn), query, text, SPACE)
    alone = Searcher(conn).search(query, SPACE).hits
    ranks = {hit.id: 1 / (60 + rank) for rank, hit in enumerate(alone, 1)}
    return [hit.content for hit in answer.hits if score(hit) > ranks.get(hit.id, 0) + 1e-9]


def score(hit):
    assert isinstance(hit, FusedHit)
    return hit.score


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("検索", [0]),
        ("索検", []),
        ("データ構造", [0]),
        ("犬", [1]),
        ("犬猫", []),
        ("アパート", [3]),
        ("tokyo", [3]),
        ("東京 tokyo backup", [3, 2]),
        ("BACKUP", [2]),
        ("backups", []),
        ("🍞", [4]),
        ("☕", [4]),
        ("42p01", [5]),
        ("세계", [6]),
        ("'; DROP TABLE x; -- \\ & | ! :* <->", []),
    ],
)
def test_a_text_finds_the_rows_that_have_its_words_or_pairs(text, numbers, filled):
    found = by_text(filled, text)

    assert sorted(found) == sorted(TEXTS[number] for number in numbers)


@pytest.mark.parametrize("text", ["", " \t", "?!。、", "\u200d"])
def test_a_text_without_words_says_so_and_leaves_what_is_near(text, filled):
    query = Query(np.array([1.0, 0.0], np.float32), 3)

    answer = hybrid(Searcher(filled), query, text, SPACE)

    assert answer.answered_by == "exact + no words in the text"
    assert [hit.content for hit in answer.hits] == TEXTS[:3]


def test_what_is_near_and_fits_comes_first_with_score_and_similarity(filled):
    query = Query(np.array([1.0, 0.0], np.float32), 3)

    answer = hybrid(Searcher(filled), query, "backup", SPACE)

    first = answer.hits[0]
    assert first.content == TEXTS[2]
    assert score(first) == pytest.approx(1 / 63 + 1 / 61)
    assert first.similarity == pytest.approx(1 / np.hypot(1, 0.2))
    assert first.as_dict()["score"] == score(first)
    assert first.model_id == "m"
    by = FULL_TEXT_INDEX if index_there(filled) else "full text of every row"
    assert answer.answered_by == f"exact + {by}"


def test_filters_hold_for_both_sides(filled):
    chosen = compile_filter({"n": {"$lte": 2}})

    answer = hybrid(Searcher(filled), Query(FAR, 10, chosen), "tokyo backup", SPACE)

    assert {hit.metadata["n"] for hit in answer.hits} == {0, 1, 2}
    assert by_text(filled, "tokyo backup", filter=chosen) == [TEXTS[2]]


def test_the_least_similarity_holds_for_both_sides(filled):
    query = Query(np.array([1.0, 0.0], np.float32), 10, min_similarity=0.98)

    answer = hybrid(Searcher(filled), query, "세계", SPACE)

    assert [hit.metadata["n"] for hit in answer.hits] == [0, 1, 2]


def test_rows_that_fit_equally_come_in_the_order_of_their_ids(conn):
    conn.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
        "SELECT 'equal 同じ', '[1,0]', '{}', 'm' FROM generate_series(1, 300)"
    )
    conn.execute("CREATE TEMP TABLE shuffled AS SELECT * FROM vector_embeddings ORDER BY random()")
    for build in (lambda conn: None, build_index):
        build(conn)
        answer = hybrid(Searcher(conn), Query(FAR, 7), "同じ equal", SPACE)

        ids = conn.execute("SELECT id FROM vector_embeddings ORDER BY id LIMIT 7").fetchall()
        assert [(hit.id,) for hit in answer.hits] == ids


def test_rare_words_rank_higher_and_common_ones_find_where_there_is_no_other(conn):
    conn.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
        "SELECT 'the text ' || n || CASE n WHEN 1100 THEN ' quokka' ELSE '' END, "
        "'[1,0]', '{}', 'm' FROM generate_series(1, 1100) n"
    )
    build_index(conn)

    rare = by_text(conn, "the quokka", k=3)
    common = by_text(conn, "the", k=3)

    assert rare[0] == "the text 1100 quokka"
    assert len(common) == 3


def test_a_zero_vector_is_found_by_its_text(filled):
    filled.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
        "VALUES ('nowhere', '[0,0]', '{}', 'm')"
    )

    answer = hybrid(Searcher(filled), Query(FAR, 20), "nowhere", SPACE)

    assert [hit.similarity for hit in answer.hits if hit.content == "nowhere"] == [0.0]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 3_000_000,
        "".join(map(chr, range(0x20000, 0x2A000))) * 3,
        " ".join(f"w{number:x}" for number in range(60_000)),
        "ﷺ" * 20_000,
    ],
    ids=["one word", "all Han", "many words", "grows by NFKC"],
)
def test_a_huge_text_can_be_written_and_asked_for(text, conn):
    build_index(conn)
    notices = []
    conn.add_notice_handler(lambda notice: notices.append(notice.message_primary))

    conn.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
        "VALUES (%s, '[1,0]', '{}', 'm')",
        [text],
    )

    asked = conn.execute("SELECT numnode(harca_tsquery(%s))", [text]).fetchone()
    assert asked is not None
    assert asked[0] <= 127  # 64 lexemes, and what joins them
    assert by_text(conn, text[: 3 if ord(text[0]) > 255 else 300]) == [text]
    assert notices == []


def test_the_functions_do_with_an_empty_search_path(filled):
    filled.execute("SET search_path = ''")

    row = filled.execute(
        "SELECT public.harca_tsvector('犬 Dog'), public.harca_tsquery('犬 Dog')"
    ).fetchone()
    filled.execute("ANALYZE public.vector_embeddings")
    filled.execute("REINDEX TABLE public.vector_embeddings")

    assert row == ("'dog' '犬'", "'犬' | 'dog'")


def test_the_functions_run_in_parallel_workers(conn):
    conn.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
        "SELECT 'dog 犬 ' || n, '[1,0]', '{}', 'm' FROM generate_series(1, 500) n"
    )
    for name, value in {
        "parallel_setup_cost": 0, "parallel_tuple_cost": 0, "min_parallel_table_scan_size": 0,
        "max_parallel_workers_per_gather": 2,
    }.items():  # fmt: skip
        conn.execute("SELECT set_config(%s, %s, false)", [name, str(value)])
    statement = (
        "SELECT count(*) FROM vector_embeddings "
        "WHERE harca_tsvector(content) @@ harca_tsquery('犬')"
    )

    plan = conn.execute(f"EXPLAIN {statement}").fetchall()

    assert any("Gather" in line for (line,) in plan)
    assert conn.execute(statement).fetchone() == (500,)


def test_an_interrupted_build_is_repaired(filled):
    drop_index(filled)
    build_index(filled)
    filled.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", [FULL_TEXT_INDEX]
    )

    was_there = index_there(filled)
    built, again = build_index(filled), build_index(filled)

    assert (was_there, built, again) == (False, True, False)
    assert index_there(filled)


def test_a_dump_with_the_index_is_restored_by_psql(filled, database, server):
    name = f"{filled.info.dbname}_restored"
    major = filled.info.server_version // 10_000
    program = programs.find("pg_dump", at_least=major)
    psql = programs.find("psql", at_least=major)
    if program is None or psql is None:
        pytest.skip(f"there is no pg_dump {major} here")
    build_index(filled)
    recreate(server, name)
    restored = in_database(server, name)

    dumped = subprocess.run(
        [program.path, "--no-password", programs.connection_option(database)],
        capture_output=True, check=True, env=programs.environment(database),
    )  # fmt: skip
    # A newer pg_dump sets what an older server does not know.
    dump = dumped.stdout.replace(b"SET transaction_timeout = 0;\n", b"")
    done = subprocess.run(
        [psql.path, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", restored],
        input=dump, capture_output=True, check=False, env=os.environ,
    )  # fmt: skip

    try:
        assert done.returncode == 0, done.stderr.decode()
        with psycopg.connect(restored, autocommit=True) as conn:
            assert index_there(conn)
            assert by_text(conn, "検索") == [TEXTS[0]]
    finally:
        with psycopg.connect(server, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_downgrade_takes_the_index_along_and_a_search_then_says_what_to_do(
    conn, database, run_alembic
):
    build_index(conn)

    down = run_alembic("downgrade", "7c15d08e42b6", database=database)

    assert down.code == 0, down.err
    assert not index_there(conn)
    with pytest.raises(SchemaNotReady, match=r"at revision 7c15d08e42b6, this needs b3f19a6e27d0"):
        hybrid(Searcher(conn), Query(FAR, 3), "dog", SPACE)
    up = run_alembic("upgrade", "head", database=database)
    assert up.code == 0, up.err
    assert hybrid(Searcher(conn), Query(FAR, 3), "dog", SPACE).hits == []


def test_a_database_in_another_encoding_is_refused(server, empty_database):
    with empty_database.connect() as here:
        name = f"{here.info.dbname}_latin"
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        try:
            with (
                psycopg.connect(in_database(server, name), autocommit=True) as latin,
                pytest.raises(TargetError, match="the database is in LATIN1"),
            ):
                build_index(latin)
        finally:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_an_application_and_the_command_search_so_too(filled, database, run_harca, tmp_path):
    vector = tmp_path / "query.json"
    vector.write_text("[1.0, 0.0]")

    with VectorStore(database) as store:
        answer = store.search([1.0, 0.0], model_id="m", k=1, hybrid="backup")
        with pytest.raises(UsageError, match="no position to go on after"):
            store.search([1.0, 0.0], model_id="m", k=1, hybrid="backup", after=Position(1, 0.1, 1))
    options = ("--vector", vector, "--model", "m", "-k", "1", "--hybrid", "backup")
    told = run_harca("search", *options, "--json", database=database)
    shown = run_harca("search", *options, database=database)
    refused = run_harca("search", *options, "--after", "1:0.1:1", database=database)

    assert [hit.content for hit in answer.hits] == [TEXTS[2]]
    assert told.json["results"][0]["content"] == TEXTS[2]
    assert told.json["results"][0]["score"] == score(answer.hits[0])
    assert told.json["answered_by"] == answer.answered_by
    assert shown.out.strip().endswith(answer.answered_by.replace("+ vector", "+ index vector"))
    assert (refused.code, refused.err.splitlines()[0]) == (
        2, "error: --hybrid and --after do not go together",
    )  # fmt: skip


def test_the_command_builds_the_index(conn, database, run_harca):
    built = run_harca("index", "build", "--full-text", "--json", database=database)
    again = run_harca("index", "build", "--full-text", "--json", database=database)
    refused = run_harca("index", "build", "--full-text", "--exact", database=database)

    assert (built.json["built"], again.json["built"]) == ([FULL_TEXT_INDEX], [])
    assert built.json["full_text"] == FULL_TEXT_INDEX
    assert index_there(conn)
    assert refused.code == 2
