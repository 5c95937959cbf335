"""The commands that measure: what they find, what they keep, what they refuse."""

import secrets
from dataclasses import replace

import numpy as np
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from harca.bench import rivals
from harca.bench.contestant import Key
from harca.bench.memory import InMemory
from harca.bench.process import Backend, is_here
from harca.bench.truth import Truth, unit
from harca.bench.worker import ContestantFailed, Worker
from harca.model import Space
from harca.postgres import measurements, space_rows
from harca.postgres.by_hand import backends_of, hand_written, ready
from harca.postgres.connect import Database
from harca.postgres.space_index import SpaceIndex, capabilities, creating
from harca.postgres.space_settings import Effort
from tests.stores import record, write_record, write_store

QUICK = ("--queries", "3", "--rounds", "2", "--clients", "1", "--seconds", "0.1", "--json")


@pytest.fixture
def store(tmp_path, database, run_unbacked):
    folder = write_store(tmp_path / "store", 40)
    assert run_unbacked("migrate", folder, database=database).code == 0
    return folder


def test_every_contestant_finds_the_exact_answers(store, database, conn, run_harca):
    write_record(store, record("came later", [1.0] * 8))
    before = conn.execute("SELECT count(*), max(updated_at) FROM vector_embeddings").fetchone()

    done = run_harca("bench", "search", store, *QUICK, "--rivals", database=database)

    assert done.code == 0, done.err
    found = {one["name"]: one for one in done.json["contestants"]}
    assert {"files", "numpy", "harca", "sql"} <= set(found)
    # The exact search finds everything; in the files is one record more.
    assert {name: one["recall"] for name, one in found.items() if name != "files"} == dict.fromkeys(
        found.keys() - {"files"}, 1
    )
    assert found["files"]["recall"] > 0.8
    assert done.json["notes"] == ["1 of the store's 41 records are not among the rows searched"]
    assert "read by a plain loop with orjson" in found["files"]["notes"]
    for one in found.values():
        assert one["answered"] == 6
        assert one["p50_ms"] > 0
        assert [at_once["clients"] for at_once in one["clients"]] == [1]
        assert one["clients"][0]["qps"] > 0
    assert done.json["ratios"]["harca_to_sql"] == pytest.approx(
        found["harca"]["p50_ms"] / found["sql"]["p50_ms"], abs=0.001
    )
    assert {*found, *(one["name"] for one in done.json["skipped"])} >= set(rivals.RIVALS)
    assert "round 2 of 2" in done.err
    (kept,) = measurements.kept(conn, "bench search")
    assert kept.result == done.json
    after = conn.execute("SELECT count(*), max(updated_at) FROM vector_embeddings").fetchone()
    assert after == before


def test_ten_times_the_rows_are_measured_in_databases_that_are_dropped(database, conn, run_harca):
    done = run_harca(
        "bench", "scale", "--rows", "100", "--dims", "8", "--queries", "10", "--rounds", "1",
        "--recall", "0.9", "--json", database=database,
    )  # fmt: skip

    assert done.code == 0, done.err
    small, large = done.json["sizes"]
    assert (small["rows"], large["rows"]) == (100, 1_000)
    assert small["index"] is None
    assert large["index"]["effort"] == large["tried"][-1]["effort"] != {}
    assert [one["recall"] for one in (small, small["sql"], small["numpy"])] == [1, 1, 1]
    assert large["recall"] >= 0.8
    assert large["numpy"]["recall"] == 1
    assert done.json["growth"] == done.json["rounds_growth"][0] > 0
    assert done.json["reached"] is (
        done.json["growth"] <= 1.1 and min(small["recall"], large["recall"]) >= 0.9
    )
    assert "100 rows are searched exactly" in done.json["why"][0]
    (kept,) = measurements.kept(conn, "bench scale")
    assert kept.result == done.json
    left = conn.execute("SELECT FROM pg_database WHERE datname LIKE 'harca\\_bench\\_%'")
    assert left.rowcount == 0
    assert conn.execute("SELECT FROM vector_embeddings").rowcount == 0


def test_without_rows_there_is_nothing_to_measure(database, run_harca):
    done = run_harca("bench", "search", database=database)

    assert done.code == 2
    assert done.err == (
        'error: no space fits "any model/any dimension"\n'
        "hint:  The table is empty: `harca migrate STORE`.\n"
    )


def test_a_store_of_other_spaces_is_refused(store, tmp_path, database, run_harca):
    other = tmp_path / "other"
    write_record(other, record("text", [1.0, 2.0], model="another"))

    done = run_harca("bench", "search", other, "--clients", "0", database=database)

    assert done.code == 2
    assert done.err.splitlines()[-2:] == [
        f'error: "{other}" has no record of the space test-model/8',
        "hint:  It holds: another/2. Name one of these by --model.",
    ]


def test_a_store_that_was_not_loaded_is_refused(store, tmp_path, database, run_harca):
    other = tmp_path / "other"
    write_record(other, record("nobody knows it", [1.0] * 8))

    done = run_harca("bench", "search", other, "--clients", "0", database=database)

    assert done.code == 2
    assert f'no record of "{other}" is among the rows of test-model/8' in done.err


def test_zero_vectors_alone_are_refused(tmp_path, database, run_unbacked, run_harca):
    write_record(tmp_path / "store", record("nothing", [0.0] * 4))
    assert run_unbacked("migrate", tmp_path / "store", database=database).code == 0

    done = run_harca("bench", "search", database=database)

    assert done.code == 2
    assert "error: all rows of test-model/4 are zero vectors" in done.err


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("search", ["--clients", "1,many"], '--clients is "1,many", expected numbers'),
        ("search", ["-k", "0"], "k is 0, expected 1 to 1000"),
        ("scale", ["--recall", "1.5"], "the recall is 1.5, expected more than 0 and at most 1"),
        ("scale", ["--rows", "5"], "k is 10, expected 1 to 5"),
    ],
)
def test_what_makes_no_sense_is_refused(command, arguments, message, database, run_harca):
    done = run_harca("bench", command, *arguments, database=database)

    assert done.code == 2
    assert message in done.err


def test_a_schema_that_cannot_keep_the_result_is_refused_first(
    empty_database, run_harca, run_alembic
):
    assert run_alembic("upgrade", "f06b2d81c9e7", database=empty_database).code == 0

    done = run_harca("bench", "scale", database=empty_database)

    assert done.code == 1
    assert "error: the schema is at revision f06b2d81c9e7, this needs 7c15d08e42b6" in done.err


def test_a_role_that_may_make_no_database_is_told_so(database, conn, run_harca):
    role = f"measurer_{secrets.token_hex(4)}"
    named = sql.Identifier(role)
    conn.execute(sql.SQL("CREATE ROLE {}").format(named))
    try:
        conn.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(named))
        acting = make_conninfo(database.conninfo, options=f"-c role={role}")

        done = run_harca("bench", "scale", database=Database(acting, "test"))
    finally:
        conn.execute(sql.SQL("DROP OWNED BY {}").format(named))
        conn.execute(sql.SQL("DROP ROLE {}").format(named))

    assert done.code == 1
    assert "may not create a database to measure in" in done.err


@pytest.mark.parametrize("command", [("bench", "search"), ("index", "advise")])
def test_a_role_that_may_keep_no_result_is_told_so_before_anything_is_measured(
    command, store, database, conn, run_harca
):
    role = f"measurer_{secrets.token_hex(4)}"
    named = sql.Identifier(role)
    conn.execute(sql.SQL("CREATE ROLE {}").format(named))
    try:
        conn.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(named))
        acting = make_conninfo(database.conninfo, options=f"-c role={role}")

        done = run_harca(*command, database=Database(acting, "test"))
    finally:
        conn.execute(sql.SQL("DROP OWNED BY {}").format(named))
        conn.execute(sql.SQL("DROP ROLE {}").format(named))

    assert done.code == 1
    assert "error: the role may not insert into measurements" in done.err
    assert "round 1" not in done.err


@pytest.mark.parametrize("kind", [None, "vector", "halfvec", "bit"])
def test_sql_by_hand_uses_the_index_it_is_given(kind, tmp_path, conn, database, run_unbacked):
    if kind not in (None, "vector") and not capabilities(conn).halfvec:
        pytest.skip("this pgvector has no such index")
    model, dice = "100 %s", np.random.default_rng(5)
    vectors = dice.normal(size=(60, 16)).astype(np.float32)
    for number, vector in enumerate(vectors):
        write_record(tmp_path / "store", record(f"t{number}", vector.tolist(), model=model))
    assert run_unbacked("migrate", tmp_path / "store", database=database).code == 0
    space = Space(model, 16, 60)
    by_hand = hand_written(database, space)
    if kind is not None:
        index = SpaceIndex("given_idx", space, "hnsw", kind)
        conn.execute(creating(index))
        by_hand = replace(by_hand, index=index, effort=Effort(ef_search=60, candidates=60))
    rows = space_rows.write(conn, space, tmp_path)
    places: dict[Key, int] = {int(number): at for at, number in enumerate(np.load(rows.ids))}
    queries = unit(dice.normal(size=(5, 16)).astype(np.float32))
    exact = Truth(rows.mapped(), queries, 10)

    session = by_hand.start()
    found = [session.search(query, 10) for query in queries]
    session.close()

    assert [len(set(keys)) for keys in found] == [10] * 5
    recall = [exact.recall(at, [places[key] for key in keys]) for at, keys in enumerate(found)]
    assert np.mean(recall) >= 0.98
    explain = sql.SQL("EXPLAIN {}").format(ready(conn, by_hand, 10))
    plan = "\n".join(line for (line,) in conn.execute(explain, {"query": queries[0]}))
    assert ("Index Scan using given_idx" in plan) is (kind is not None)


def test_the_rows_of_a_space_are_written_as_they_are(tmp_path, database, conn, run_unbacked):
    for number, vector in enumerate([[3.0, 4.0], [0.0, 0.0], [-1e30, 0.0]]):
        write_record(tmp_path / "store", record(f"t{number}", vector))
    write_record(tmp_path / "store", record("other", [1.0, 2.0, 3.0]))
    assert run_unbacked("migrate", tmp_path / "store", database=database).code == 0

    rows = space_rows.write(conn, Space("test-model", 2, 0), tmp_path)

    assert rows.zeros == 1
    expected = conn.execute(
        "SELECT id, store_key FROM vector_embeddings WHERE dims = 2 AND content <> 't1' ORDER BY id"
    ).fetchall()
    assert list(zip(np.load(rows.ids).tolist(), rows.keys, strict=True)) == expected
    assert sorted(np.round(rows.mapped(), 6).tolist()) == [[-1, 0], pytest.approx([0.6, 0.8])]


@pytest.fixture
def in_memory(tmp_path):
    np.save(tmp_path / "rows.npy", np.eye(4, dtype=np.float32))
    np.save(tmp_path / "ids.npy", np.array([7, 8, 9, 10]))
    return InMemory(tmp_path / "rows.npy", tmp_path / "ids.npy")


@pytest.mark.one_server
def test_numpy_has_the_kernel_of_the_processor_whatever_a_variable_says(in_memory, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")

    with Worker(in_memory, threads=1) as worker:
        turn = worker.ask(np.eye(4, dtype=np.float32)[2:], 1, budget_s=5)

    assert turn.found == [[9], [10]]
    assert "Prescott" not in worker.notes[0]


@pytest.mark.one_server
def test_a_contestant_that_fails_is_named(in_memory, tmp_path):
    with Worker(replace(in_memory, matrix=tmp_path / "gone.npy"), threads=1) as worker:
        with pytest.raises(ContestantFailed) as failed:
            _ = worker.notes
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(ContestantFailed) as ended:
            worker.ask(np.eye(4, dtype=np.float32), 1, budget_s=1)

    assert str(failed.value).startswith("numpy: FileNotFoundError: ")
    assert str(ended.value) == "the process of numpy ended"


def test_a_backend_elsewhere_is_not_taken_for_one_here(conn):
    assert not is_here(Backend(conn.info.backend_pid, 0.0))
    assert not is_here(Backend(2**22 + 1, 0.0))
    for backend in backends_of(conn):
        assert is_here(backend)
