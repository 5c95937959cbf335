"""Two processes never work on one store at once, and nobody is locked out for ever."""

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import nullcontext

import psycopg
import pytest

from harca import retry
from harca.errors import RunError, Session, StoreBusy, TargetError
from harca.migrate import migrate
from harca.options import LoadOptions
from harca.postgres import lock
from harca.postgres.connect import translated
from harca.postgres.lock import INDEX_LOCK, OwnSessions, alone, lock_store, locked, watched
from harca.rollback import rollback
from harca.watcher import Unwatched
from tests.faults.proxy import Proxy
from tests.stores import write_store

BATCHES = LoadOptions(batch_rows=1)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(retry, "PATIENCE", retry.Patience(first_pause_s=0.02))


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store", 3)


def test_a_second_process_is_refused_with_who_is_at_it(store, database, run_harca):
    with database.connect() as other:
        lock_store(other, str(store))
        pid = other.info.backend_pid

        done = run_harca("migrate", store, database=database)

    user = other_user(database)
    assert done.code == 4
    assert (
        f'another process is working on store "{store}" (server process {pid}, "harca" of '
        f"{user} from " in done.err
    )
    assert ", since 20" in done.err
    assert f"SELECT pg_terminate_backend({pid})" in done.err


def test_a_session_that_was_just_closed_is_in_nobodys_way(store, database, monkeypatch):
    monkeypatch.setattr(lock, "_CLOSES_WITHIN_S", 60)
    before = database.connect()
    lock_store(before, str(store))
    threading.Timer(0.2, before.close).start()

    with database.connect() as conn:
        lock_store(conn, str(store))


def other_user(database):
    with database.connect() as conn:
        return conn.execute("SELECT session_user").fetchone()[0]


def test_the_lock_is_that_of_its_database(store, database, empty_database):
    with database.connect() as here, empty_database.connect() as there:
        lock_store(here, str(store))
        (key,) = next(there.execute(lock._STORE_LOCK, [f"harca:{store}"]))

        assert lock.holder(there, key) is None  # although the server lists all databases' locks
        lock_store(there, str(store))
        assert holder_of(there, key) == there.info.backend_pid


def test_a_session_of_our_own_that_was_lost_is_ended(store, database):
    ours = OwnSessions()
    lost = database.connect()
    lock_store(lost, str(store), ours=ours)

    with database.connect() as conn:
        lock_store(conn, str(store), ours=ours)

    with pytest.raises(psycopg.OperationalError), lost:
        lost.execute("SELECT 1")


def test_a_conflict_is_taken_back_while_the_server_ends_the_sessions_of_the_load(
    store, database, conn
):
    run_id = migrate(store, lambda: database, LoadOptions()).run_id
    ours = OwnSessions()
    closing = database.connect()
    lock_store(closing, str(store), ours=ours)

    done = rollback(database, run_id, ours=ours)

    closing.close()
    assert done.deleted == 3


def test_a_session_at_work_may_take_its_time(database, conn):
    """A limit for the application's statements would end a verification each time again."""
    names = ["statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout"]
    limited = conn.execute("SELECT name FROM pg_settings WHERE name = ANY (%s)", [names]).fetchall()
    for (name,) in limited:
        conn.execute(f"ALTER DATABASE {conn.info.dbname} SET {name} = '50s'")

    for given in (locked(database, "x"), watched(database)):
        with given as working:
            found = working.execute(
                "SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", [names]
            ).fetchall()

        assert found == [(name, "0") for (name,) in limited]


def test_the_server_notices_a_client_that_vanished_while_it_works(database, conn, monkeypatch):
    at_work = lock._NOTICE_LOSS_AT_WORK.replace("10s", "100ms")
    monkeypatch.setattr(lock, "_NOTICE_LOSS_AT_WORK", at_work)
    with locked(database, "x") as working, lock._socket(working) as connected:
        gone = threading.Timer(0.1, connected.shutdown, [socket.SHUT_RDWR])
        gone.start()
        with pytest.raises(psycopg.OperationalError):
            working.execute("SELECT pg_sleep(600)")
        gone.join()

        until = time.monotonic() + 60
        while conn.execute(
            "SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' "
            "AND datname = current_database()"
        ).rowcount:
            assert time.monotonic() < until, "the server goes on for nobody"
            time.sleep(0.05)


def test_a_session_on_a_network_is_asked_for_signs_of_life(database):
    with locked(database, "x") as working:
        on_network = working.info.host[:1] != "/"
        found = dict(
            working.execute(
                "SELECT name, setting FROM pg_settings WHERE name LIKE 'tcp%' "
                "OR name = 'idle_session_timeout'"
            ).fetchall()
        )

    assert found == {
        "idle_session_timeout": "0",
        "tcp_keepalives_idle": "30" if on_network else "0",
        "tcp_keepalives_interval": "10" if on_network else "0",
        "tcp_keepalives_count": "3" if on_network else "0",
        "tcp_user_timeout": "60000" if on_network else "0",
    }


def test_a_connection_that_lost_its_lock_is_cut(database, conn):
    with locked(database, "x") as working:
        pid = conn.execute(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        ).fetchone()
        conn.execute("SELECT pg_terminate_backend(%s)", pid)

        with pytest.raises(TargetError) as caught, translated():
            working.execute("SELECT pg_sleep(60)")

    assert caught.value.passes_by_itself


def test_a_lock_on_a_network_that_stalls_counts_as_lost(database, monkeypatch):
    monkeypatch.setattr(lock, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(lock, "_ANSWER_WITHIN_S", 0.5)
    with Proxy(database.conninfo) as network, locked(network.through(database), "x") as working:
        network.stall()

        with pytest.raises(TargetError) as caught, translated():
            working.execute("SELECT 1")

    assert caught.value.passes_by_itself


def looking():
    return [thread for thread in threading.enumerate() if thread.name == "harca-lock"]


def test_work_that_is_done_does_not_wait_for_the_network(database, monkeypatch):
    monkeypatch.setattr(lock, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(lock, "_LAST_ANSWER_WITHIN_S", 0.1)
    with Proxy(database.conninfo) as network, locked(network.through(database), "x"):
        network.stall()

    assert looking() == []


class Displaced(Unwatched):
    """Loses the store's lock to another process, which migrates it, after the first batch."""

    def __init__(self, store, database, conn, *, notices):
        self.store, self.database, self.conn, self.notices = store, database, conn, notices
        self.others = []

    def step(self, done):
        if self.others:
            return
        (key,) = self.conn.execute(lock._STORE_LOCK, [f"harca:{self.store}"]).fetchone()
        self.conn.execute("SELECT pg_terminate_backend(%s, 60000)", [holder_of(self.conn, key)])
        until = time.monotonic() + 60
        while (
            self.notices
            and self.conn.execute(
                "SELECT FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).rowcount
        ):
            assert time.monotonic() < until, "the connection that works is not cut"
            time.sleep(0.01)
        self.others.append(migrate(self.store, lambda: self.database, BATCHES))


def holder_of(conn, key):
    found = lock.holder(conn, key)
    assert found is not None
    return found.pid


def test_who_has_lost_the_lock_unnoticed_does_not_write(store, database, conn, monkeypatch):
    monkeypatch.setattr(lock, "looked_after", lambda locker, conn: nullcontext())
    displaced = Displaced(store, database, conn, notices=False)

    with pytest.raises(RunError, match="taken up by another process meanwhile"):
        migrate(store, lambda: database, BATCHES, watcher=displaced)

    assert [other.complete for other in displaced.others] == [True]
    assert conn.execute("SELECT status, attempt, loaded FROM load_runs").fetchall() == [
        ("verified", 2, 3)
    ]


def test_who_has_noticed_it_comes_after_the_other(store, database, conn):
    displaced = Displaced(store, database, conn, notices=True)

    done = migrate(store, lambda: database, BATCHES, watcher=displaced)

    assert done.complete
    assert [other.complete for other in displaced.others] == [True]
    assert conn.execute("SELECT DISTINCT run_id FROM vector_embeddings").fetchall() == [(1,)]
    assert conn.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (3,)


def test_looking_after_a_lock_ends_with_the_work(database):
    with locked(database, "x") as working:
        assert len(looking()) == 1
        working.execute("SELECT 1")

    assert looking() == []
    with locked(database, "x"):
        pass


def test_who_waits_for_an_index_build_is_not_waited_for(database):
    """A concurrent build waits for every older snapshot, so that waiting must hold none."""
    with database.connect() as builder, database.connect() as waiter:
        waits = threading.Event()

        def wait():
            with alone(waiter, INDEX_LOCK, waiting=lambda message: waits.set()):
                pass

        thread = threading.Thread(target=wait)
        with alone(builder, INDEX_LOCK):
            thread.start()
            assert waits.wait(60)
            builder.execute("SET statement_timeout = '60s'")
            builder.execute("CREATE INDEX CONCURRENTLY ON vector_embeddings (source)")
        thread.join(60)

    assert not thread.is_alive()


def test_waiting_for_another_index_build_has_an_end_if_wanted(database):
    with (
        database.connect() as builder,
        database.connect() as waiter,
        alone(builder, INDEX_LOCK),
        pytest.raises(TargetError, match="another harca") as caught,
        translated(),
        alone(waiter, INDEX_LOCK, patience_s=0),
    ):
        pass

    assert caught.value.passes_by_itself


def test_a_lock_that_goes_with_its_connection_is_not_given_back(database):
    with database.connect() as conn:
        with pytest.raises(TargetError) as caught, translated(), alone(conn, INDEX_LOCK):
            conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        assert caught.value.sqlstate == "57P01"


def test_four_first_migrations_at_once_all_succeed(tmp_path, empty_database):
    """They upgrade the schema, load and build indexes in each other's way."""
    environment = {**os.environ, "HARCA_DATABASE_URL": empty_database.conninfo}
    all_of_them = [
        subprocess.Popen(
            [sys.executable, "-m", "harca", "migrate", write_store(tmp_path / name, 3, seed=seed)],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed, name in enumerate("abcd")
    ]

    ended = [(one.communicate(timeout=240)[1], one.returncode) for one in all_of_them]

    assert [code for _, code in ended] == [0, 0, 0, 0], ended
    with empty_database.connect() as conn:
        assert conn.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (12,)
        assert conn.execute(
            "SELECT count(*) FROM pg_index WHERE indrelid = 'vector_embeddings'::regclass "
            "AND NOT indisvalid"
        ).fetchone() == (0,)


@pytest.mark.parametrize("sent", [b"pg_try_advisory_lock", b"ADD COLUMN store_key"])
def test_an_upgrade_whose_connection_is_lost_is_told_without_a_traceback(
    sent, empty_database, run_alembic
):
    with Proxy(empty_database.conninfo) as network:
        network.cut_at(sent)

        cut = run_alembic("upgrade", "head", database=network.through(empty_database))

    assert cut.code == 255
    assert "The connection was lost" in cut.err
    assert "Traceback" not in cut.err


def test_refusal_says_whom_it_cannot_see():
    refused = StoreBusy("store", held_by=Session(7))

    assert str(refused) == 'another process is working on store "store" (server process 7)'
