"""A soak finds what is wrong, disturbs nobody, and leaves nothing behind."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import closing
from time import monotonic, sleep

import pytest

from harca.errors import UsageError
from harca.model import Space
from harca.postgres import measurements
from harca.postgres.connect import Database
from harca.postgres.search import find_space
from harca.postgres.soaking import STORE, Mix, Observer, SoakClient, examples
from harca.postgres.space_index import spaces
from harca.soak import Load, soak
from harca.soak_result import Limits
from tests.faults.proxy import Proxy
from tests.stores import write_store

# What a machine with much else to do makes of a few seconds is no drift to be tested here.
NO_DRIFT = ("--max-latency-drift", "1000", "--max-memory-drift", "1000", "--max-bloat", "1000")
ANY_DRIFT = Limits(latency=1000, memory=1000, bloat=1000)
WAIT_S = 60


@pytest.fixture
def loaded(tmp_path, database, run_unbacked):
    done = run_unbacked("migrate", write_store(tmp_path / "store", 40), database=database)
    assert done.code == 0, done.err
    return tmp_path / "store"


def rows(conn):
    return conn.execute("SELECT v::text FROM vector_embeddings v ORDER BY id").fetchall()


def own_rows(conn):
    found = conn.execute("SELECT count(*) FROM vector_embeddings WHERE store = %s", [STORE])
    return found.fetchone()[0]


def client(database, conn, **mix):
    [space] = spaces(conn)
    made_of = examples(conn, space, seed=1)
    return SoakClient(database, space, made_of, Mix(filtered=0.5, k=3, **mix), number=0, seed=1)


def test_a_healthy_database_is_steady_and_as_before(loaded, database, conn, run_harca):
    before = rows(conn)

    done = run_harca(
        "soak", "--minutes", "0.04", "--rate", "50", "--writes", "0.5", *NO_DRIFT, "--json",
        database=database,
    )  # fmt: skip

    assert done.code == 0, done.out + done.err
    assert done.json["verdict"] == "steady"
    assert done.json["requests"] == 120
    assert done.json["errors"] == {}
    answered = {kind: found["answered"] for kind, found in done.json["kinds"].items()}
    assert sum(answered.values()) == 120
    assert min(answered.values()) > 0
    assert sum(window["requests"] for window in done.json["windows"]) == 120
    assert rows(conn) == before
    [kept] = measurements.kept(conn, "soak")
    assert kept.result == done.json


def test_status_verify_rollback_and_searches_do_not_see_its_rows(
    loaded, tmp_path, database, conn, run_harca
):
    def shown(*command):
        return run_harca(*command, "--json", database=database).json

    vector = tmp_path / "query.json"
    vector.write_text(json.dumps([1.0] * 8))
    commands = (("status",), ("verify", loaded), ("search", "--vector", vector, "--k", "100"))
    before = [shown(*command) for command in commands]
    with closing(client(database, conn, writes=1.0)) as writing:
        done = [writing.request() for _ in range(30)]  # and is killed: nothing is cleaned up

    assert not [one for one in done if one.error]
    assert own_rows(conn) > 0
    assert [shown(*command) for command in commands] == before
    assert shown("rollback", "last")["deleted"] == 40
    left = own_rows(conn)
    assert conn.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (left,)
    assert shown("soak", "--clean-up") == {"removed": left}
    assert own_rows(conn) == 0


def test_rows_in_place_are_in_the_space_and_told_by_their_source(loaded, database, conn, run_harca):
    before = rows(conn)
    with closing(client(database, conn, writes=1.0, in_place=True)) as writing:
        for _ in range(20):
            assert writing.request().error is None

    [space] = spaces(conn)
    assert space.records == 40 + own_rows(conn) > 40
    found = conn.execute(
        "SELECT DISTINCT source, metadata FROM vector_embeddings WHERE store = %s", [STORE]
    )
    assert found.fetchall() == [(STORE, {"harca_soak": True})]
    run_harca("soak", "--clean-up", database=database)
    assert rows(conn) == before


def test_the_rows_of_a_store_of_the_same_name_stay(tmp_path, database, conn, run_unbacked):
    store = write_store(tmp_path / "store", 40)
    done = run_unbacked("migrate", store, "--name", STORE, database=database)
    assert done.code == 0, done.err
    before = rows(conn)

    done = run_unbacked("soak", "--minutes", "0.01", "--writes", "0.5", *NO_DRIFT,
        database=database)  # fmt: skip
    cleaned = run_unbacked("soak", "--clean-up", "--json", database=database)

    assert done.code == 0, done.out + done.err
    assert cleaned.json == {"removed": 0}
    assert rows(conn) == before


def test_the_next_soak_takes_away_what_one_that_was_killed_has_left(
    loaded, database, conn, run_harca
):
    with closing(client(database, conn, writes=1.0)) as writing:
        for _ in range(20):
            writing.request()
    left = own_rows(conn)
    assert left > 0

    done = run_harca("soak", "--minutes", "0.005", *NO_DRIFT, database=database)

    assert done.code == 0, done.out + done.err
    assert f"took away {left} row" in done.err
    assert own_rows(conn) == 0


def test_a_network_that_is_cut_is_failing_and_is_reached_again(loaded, database, conn):
    before = rows(conn)
    with Proxy(database.conninfo) as network:
        later = threading.Timer(0.7, network.cut_off), threading.Timer(1.5, network.restore)
        for timer in later:
            timer.start()

        done = soak(
            network.through(database),
            Load(minutes=0.05, rate=40, writes=0.3),
            ANY_DRIFT,
        )
        for timer in later:
            timer.join()

    assert done.verdict == "failing"
    assert done.measured.losses >= 1
    assert {"connection-lost", "no-connection"} <= set(done.measured.errors)
    assert done.measured.requests == 120
    # It goes on behind the cut.
    assert sum(window.reads.count for window in done.measured.windows[-2:]) > 0
    assert done.removed is not None
    assert rows(conn) == before


def test_sessions_that_are_ended_are_counted_and_no_row_is_lost(loaded, database, conn):
    with closing(client(database, conn, writes=0.7)) as one:
        done = []
        for number in range(60):
            if number % 20 == 10:
                assert one.backend is not None
                conn.execute("SELECT pg_terminate_backend(%s, 10000)", [one.backend])
            done.append(one.request())

    assert [request.error for request in done if request.error] == ["57P01"] * 3
    assert sum(request.lost for request in done) == 3


def test_rows_that_somebody_takes_away_are_missed(loaded, database, conn):
    with closing(client(database, conn, writes=1.0)) as writing:
        for _ in range(10):
            writing.request()
        conn.execute("DELETE FROM vector_embeddings WHERE store = %s", [STORE])
        done = [writing.request() for _ in range(10)]

    assert "lost-row" in {request.error for request in done}


def test_a_space_that_answers_nothing_is_noticed(loaded, database, conn):
    searching = client(database, conn, writes=0.0)
    conn.execute("DELETE FROM vector_embeddings")

    with closing(searching):
        done = [searching.request() for _ in range(10)]

    assert {(one.kind, one.error) for one in done} == {
        ("search", "no-results"), ("filtered search", None),
    }  # fmt: skip


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_an_interrupted_soak_keeps_what_it_measured_and_leaves_no_row(
    sent, code, loaded, database, conn
):
    process = subprocess.Popen(
        [sys.executable, "-m", "harca", "soak", "--writes", "1", "--rate", "50", "--json"],
        env={**os.environ, "HARCA_DATABASE_URL": database.conninfo},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    gives_up = monotonic() + WAIT_S
    while not own_rows(conn) and monotonic() < gives_up:
        sleep(0.05)
    process.send_signal(sent)
    out, err = process.communicate(timeout=WAIT_S)

    assert process.returncode == code, err
    found = json.loads(out)
    assert found["interrupted"]
    assert found["requests"] > 0
    assert found["seconds"] < 600
    assert own_rows(conn) == 0
    [kept] = measurements.kept(conn, "soak")
    assert kept.result == found


def test_the_table_and_the_server_s_processes_are_looked_at(loaded, database, conn):
    with closing(Observer(database)) as observer, closing(client(database, conn, writes=0)) as one:
        one.request()

        seen = observer.sample([one])

    assert seen.client_bytes is None or seen.client_bytes > 10**6
    # In a container its processes have other numbers here, which are nobody's or another's.
    if on_this_machine(conn):
        assert seen.server_bytes is not None
        assert 10**5 < seen.server_bytes < 10**9
    assert seen.table_bytes is not None
    assert seen.index_bytes is not None
    assert seen.table_bytes > 0
    assert seen.index_bytes > 0


def on_this_machine(conn):
    return sys.platform == "linux" and conn.info.host.startswith("/")


def test_pgstattuple_is_asked_where_it_is_and_left_alone_where_not(loaded, database, conn):
    available = conn.execute("SELECT FROM pg_available_extensions WHERE name = 'pgstattuple'")
    with closing(Observer(database)) as observer:
        assert observer.vacuumable() is None
        if not available.rowcount:
            pytest.skip("the server has no extension pgstattuple")
        conn.execute("CREATE EXTENSION pgstattuple")

        found = observer.vacuumable()

    assert found is not None
    assert set(found) == {"dead_percent", "free_percent"}
    assert 0 <= found["dead_percent"] <= 100


def test_two_soaks_at_once_are_refused(loaded, database, conn, run_harca):
    with closing(Observer(database)) as other:
        other.conn()

        done = run_harca("soak", "--minutes", "1", database=database)

    assert done.code == 4
    assert 'another process is working on store "harca-soak"' in done.err


def test_an_empty_table_has_nothing_to_search(database, run_harca):
    done = run_harca("soak", "--minutes", "1", database=database)

    assert done.code == 2
    assert 'error: no space fits "any model/any dimension"' in done.err
    assert "The table is empty" in done.err


def test_the_largest_space_is_searched_unless_another_is_named(database, conn):
    for model, dims, count in (("a", 2, 3), ("b", 2, 5), ("b", 3, 4)):
        for number in range(count):
            conn.execute(
                "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
                "VALUES ('x', %s::real[]::vector, '{}', %s)", [[1.0 + number] * dims, model],
            )  # fmt: skip

    def space(**named):
        done = soak(database, Load(minutes=0.001, rate=100, writes=0, **named), Limits())
        return (done.space.model_id, done.space.dims)

    assert [space(), space(model_id="a"), space(model_id="b", dims=3)] == [
        ("b", 2), ("a", 2), ("b", 3),
    ]  # fmt: skip


def test_a_space_of_zero_vectors_has_no_query(database, conn):
    conn.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
        "VALUES ('x', '[0,0]', '{}', 'm')"
    )

    with pytest.raises(UsageError, match='space "m"/2 has no embedding to search by'):
        soak(database, Load(), Limits())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"minutes": 0}, "--minutes is 0, expected more than 0, a year at most"),
        ({"minutes": float("nan")}, "--minutes is nan"),
        ({"rate": -1}, "--rate is -1"),
        ({"writes": 1.5}, "--writes is 1.5, expected a share from 0 to 1"),
        ({"filtered": -0.1}, "--filtered is -0.1"),
        ({"clients": 0}, "--clients is 0"),
        ({"k": 0}, "--k is 0"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_what_makes_no_sense_is_refused_before_anybody_is_asked(given, told):
    nobody = Database("host=/nowhere", "the test")

    with pytest.raises(UsageError) as refused:
        soak(nobody, Load(**given), Limits())

    assert told in str(refused.value)


def test_requests_are_mixed_as_asked_and_own_rows_stay_few():
    chance, own, kinds = random.Random(1), 0, []
    for _ in range(20_000):
        kind = Mix(writes=0.5, filtered=0.2, k=10).next(chance, own)
        own += (kind == "insert") - (kind == "delete")
        assert 0 <= own <= 50
        kinds.append(kind)

    shares = {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}
    assert shares["insert"] + shares["update"] + shares["delete"] == pytest.approx(0.5, abs=0.02)
    assert shares["filtered search"] == pytest.approx(0.1, abs=0.02)
    assert min(shares["insert"], shares["update"], shares["delete"]) > 0.05


def test_a_soak_s_space_is_none_of_the_applications(loaded, database, conn):
    with closing(client(database, conn, writes=1.0)) as writing:
        writing.request()

    assert find_space(conn, model_id=None, dims=8) == Space("test-model", 8, 0)
    assert [space.records for space in spaces(conn)] == [40]
