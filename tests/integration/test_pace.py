"""Loads that go slowly, and loads that wait: for a server that is busy, or for a person."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress

import pytest
from psycopg import errors as pg

from harca.errors import Refused
from harca.migrate import migrate
from harca.options import LoadOptions
from harca.pace import Limit, Pace
from harca.postgres import pauses, pressure
from harca.postgres.lock import lock_store
from harca.postgres.pauses import WHY
from harca.postgres.target import begin_run
from harca.watcher import Unwatched
from tests.stores import write_store

pytestmark = pytest.mark.one_server


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store", 60)


def until(condition, *, seconds=60.0):
    """Return what *condition* returns once it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def rows(conn):
    return conn.execute("SELECT count(*) FROM vector_embeddings").fetchone()[0]


class Elsewhere:
    """`harca migrate` in a process of its own, and what it has said by now."""

    def __init__(self, database, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harca", "migrate", *map(str, arguments)],
            env={**os.environ, "HARCA_DATABASE_URL": database.conninfo},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self):
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line

    def end(self, sent=None):
        """Return the exit code, after *sent* if that is a signal."""
        if sent is not None:
            self.process.send_signal(sent)
        code = self.process.wait(60)
        self._listener.join(60)
        return code

    def close(self):
        self.process.kill()
        self.end()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def elsewhere(database):
    with ExitStack() as stack:

        def start(*arguments):
            started = Elsewhere(database, *arguments)
            stack.callback(started.close)
            return started

        yield start


def test_no_more_rows_a_second_are_loaded_than_asked_for(store, database, conn):
    done = migrate(store, lambda: database, LoadOptions(), pace=Pace(max_rows_per_s=100))

    assert done.verification.ok
    assert done.result.tally.loaded == 60
    batches = conn.execute(
        "SELECT read, extract(epoch FROM committed_at - min(committed_at) OVER ()) "
        "FROM load_batches ORDER BY number"
    ).fetchall()
    assert [read for read, _ in batches] == [25, 25, 10]
    # The first batch's commit may have taken its time: the others need not wait for that.
    assert done.result.seconds >= 0.45


def test_a_load_waits_while_it_is_paused_and_goes_on(store, database, conn, run_harca):
    class Elsewhere(Unwatched):
        """Somebody at another terminal, who sees what the load says."""

        said: list[str | None] = []  # noqa: RUF012

        def step(self, done):
            if not self.said:
                paused = run_harca("pause", store, database=database)
                assert paused.code == 0, paused.err
                time.sleep(1.1)  # until it looks again
                self.said.append("paused")

        def wait(self, why):
            self.said.append(why)
            if why is None:
                return
            assert rows(conn) == 10
            states = conn.execute(
                "SELECT DISTINCT state FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'harca' AND pid <> pg_backend_pid()"
            ).fetchall()
            assert ("idle",) in states
            assert "transaction" not in str(states)
            busy = run_harca("migrate", store, database=database)
            assert (busy.code, "another process is working on store" in busy.err) == (4, True)
            assert "loading, paused" in run_harca("status", database=database).out
            resumed = run_harca("resume", "--json", database=database)
            assert resumed.json == {"store": str(store), "paused": False, "loading": True}

    done = migrate(store, lambda: database, LoadOptions(batch_rows=10), watcher=Elsewhere())

    assert Elsewhere.said == ["paused", WHY, None]
    assert done.verification.ok
    assert rows(conn) == 60
    assert ", paused" not in run_harca("status", database=database).out


def test_a_paused_load_that_is_ended_is_started_again(
    tmp_path, database, conn, elsewhere, run_harca
):
    store = write_store(tmp_path / "store", 300)
    migrating = elsewhere(store, "--max-rows-per-s", "10")
    until(lambda: rows(conn))
    paused = run_harca("pause", "--json", database=database)
    assert paused.json == {"store": str(store), "paused": True, "loading": True}
    until(lambda: WHY in migrating.said)

    assert migrating.end(signal.SIGTERM) == 143
    assert "error: interrupted" in migrating.said

    again = run_harca("migrate", store, "--json", database=database)

    assert again.code == 0, again.err
    assert again.json["resumed"]
    assert (again.json["read"], again.json["loaded"]) == (300, 300)
    assert ", paused" not in run_harca("status", database=database).out


def test_what_is_tried_again_stays_paused(store, conn):
    def begun(again):
        run = begin_run(
            conn, str(store), store_format="harca", revision=None, options={}, again=again
        )
        return run.run_id, pauses.is_paused(conn, run.run_id)

    first, is_paused = begun(None)
    assert not is_paused
    lock_store(conn, str(store))
    pauses.pause(conn, (str(store),))

    assert begun(first) == (first, True)  # after a lost connection
    assert begun(None) == (first, False)  # by another command


def test_what_nobody_loads_cannot_be_paused(store, database, run_harca):
    migrate(store, lambda: database, LoadOptions())

    by_path = run_harca("pause", store, database=database)
    at_all = run_harca("pause", database=database)
    resumed = run_harca("resume", store, database=database)

    assert (by_path.code, at_all.code, resumed.code) == (4, 4, 4)
    assert f'error: store "{store}" is not being loaded' in by_path.err
    assert "error: no store is being loaded" in at_all.err
    assert f'error: store "{store}" is not paused' in resumed.err


def test_a_load_waits_while_many_others_are_at_work(store, database):
    class Watcher(Unwatched):
        waits = []  # noqa: RUF012

        def wait(self, why):
            self.waits.append(why)
            for session in sessions:
                session.cancel_safe()

    sessions = [database.connect() for _ in range(6)]
    sleepers = [threading.Thread(target=asleep, args=[session]) for session in sessions]
    for sleeper in sleepers:
        sleeper.start()
    with database.connect() as looking:
        until(lambda: pressure.exceeded(looking, Limit.read("load>5")))

    done = migrate(
        store,
        lambda: database,
        LoadOptions(),
        pace=Pace(pause_when=(Limit.read("load>5"),)),
        watcher=Watcher(),
    )

    for sleeper, session in zip(sleepers, sessions, strict=True):
        sleeper.join(60)
        session.close()
    assert done.verification.ok
    assert Watcher.waits[0].endswith("other sessions are at work (load>5)")
    assert Watcher.waits[-1] is None


def asleep(session):
    with suppress(pg.QueryCanceled):
        session.execute("SELECT pg_sleep(300)")


@pytest.mark.parametrize(
    ("lags", "why"),
    [
        (["interval '2 s'", "interval '12.34 s'", "NULL"], "a replica is 12.3 s behind (lag>10s)"),
        (["interval '9.9 s'"], None),
        (["NULL"], None),
        ([], None),
    ],
)
def test_the_replica_that_is_farthest_behind_counts(lags, why, conn):
    show_replicas(conn, lags)

    assert pressure.exceeded(conn, Limit.read("lag>10s")) == why


def test_lag_is_refused_where_there_is_no_replica(store, database, conn, run_harca):
    done = run_harca("migrate", store, "--pause-when", "lag>10s", database=database)

    assert done.code == 4
    assert "schema" not in done.err  # neither a backup nor an upgrade of the schema is begun
    assert "backup" not in done.err
    assert 'no replica is connected to the server, so "lag>10s" cannot be measured' in done.err
    assert rows(conn) == 0
    show_replicas(conn, ["NULL"])
    pressure.require_measurable(conn, (Limit.read("lag>10s"),))


def show_replicas(conn, lags):
    """Have this session see replicas that are so far behind."""
    conn.execute("CREATE SCHEMA shown")
    conn.execute("CREATE TABLE shown.pg_stat_replication (replay_lag interval)")
    for lag in lags:
        conn.execute(f"INSERT INTO shown.pg_stat_replication VALUES ({lag})")
    conn.execute("SET search_path = shown, pg_catalog, public")


def test_what_the_role_may_not_see_is_not_taken_for_quiet(conn):
    limits = (Limit.read("load>8"),)
    with conn.transaction(force_rollback=True):
        conn.execute("CREATE ROLE harca_test_blind")
        conn.execute("SET LOCAL ROLE harca_test_blind")

        with pytest.raises(Refused, match=r'role "harca_test_blind" may not see .* "load>8"') as no:
            pressure.require_measurable(conn, limits)

        assert 'GRANT pg_monitor TO "harca_test_blind"' in no.value.hint
        conn.execute("RESET ROLE")
        conn.execute("GRANT pg_monitor TO harca_test_blind")
        conn.execute("SET LOCAL ROLE harca_test_blind")
        pressure.require_measurable(conn, limits)
        pressure.require_measurable(conn, ())


def test_a_condition_that_is_none_is_refused_before_anything_is_read(database, run_harca):
    done = run_harca("migrate", "nowhere", "--pause-when", "lag>10", database=database)

    assert done.code == 2
    assert '--pause-when is "lag>10", expected' in done.err
