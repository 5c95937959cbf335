"""What passes by itself is waited for, and not for ever; anything else is told at once."""

import os
import subprocess
import sys

import pytest

from harca import migrations, retry
from harca.errors import RunError, TargetError
from harca.migrate import migrate, verify_store
from harca.migrations import DATA
from harca.options import LoadOptions
from harca.postgres import lock
from harca.retry import Patience
from harca.rollback import rollback
from harca.watcher import Unwatched
from tests.faults.proxy import Proxy
from tests.stores import write_store

pytestmark = pytest.mark.one_server  # what servers say, they say by the same codes

SHORT = Patience(total_s=0.5, attempts=3, first_pause_s=0.02, longest_pause_s=0.1)
BATCHES = LoadOptions(batch_rows=2)


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch):
    monkeypatch.setattr(retry, "PATIENCE", SHORT)


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store", 10)


class Told(Unwatched):
    """Notes what a migration tells its watcher of, and does something about it."""

    def __init__(self, mend=lambda: None):
        self.troubles, self.mend = [], mend

    def trouble(self, message):
        self.troubles.append(message)
        self.mend()


def fail_at_batch(conn, number, statement, *, times=None):
    """Have the server run *statement* when a batch is noted, *times* times, else always."""
    # Sequences take no part in transactions: what is counted stays counted.
    conn.execute("CREATE SEQUENCE failures")
    once = f"IF nextval('failures') > {times} THEN RETURN NULL; END IF;" if times else ""
    conn.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {once} {statement}; RETURN NULL; END $$"
    )
    conn.execute(
        "CREATE TRIGGER fail AFTER INSERT ON load_batches FOR EACH ROW "
        f"WHEN (NEW.number = {number}) EXECUTE FUNCTION fail()"
    )


def raising(sqlstate):
    return f"RAISE EXCEPTION 'made up' USING ERRCODE = '{sqlstate}'"


CUT = "PERFORM pg_terminate_backend(pg_backend_pid())"
PASSING = {"the session is ended": CUT, "a deadlock": raising("40P01")}


@pytest.mark.parametrize("statement", PASSING.values(), ids=PASSING)
def test_what_passes_by_itself_is_tried_again_from_where_it_was(statement, store, database, conn):
    fail_at_batch(conn, 3, statement, times=2)
    told = Told()

    done = migrate(store, lambda: database, BATCHES, watcher=told)

    assert done.complete
    assert (done.result.tally.read, done.result.tally.loaded) == (10, 10)
    assert len(told.troubles) == 2
    assert told.troubles[1].endswith(" s (attempt 3)")
    runs = conn.execute("SELECT run_id, status, attempt FROM load_runs").fetchall()
    assert runs == [(done.run_id, "verified", 3)]
    assert conn.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (10,)


def test_what_does_not_pass_stops_at_once(store, database, conn):
    fail_at_batch(conn, 3, raising("53100"))
    told = Told()

    with pytest.raises(TargetError, match="made up") as caught:
        migrate(store, lambda: database, BATCHES, watcher=told)

    assert caught.value.sqlstate == "53100"
    assert told.troubles == []
    assert conn.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (4,)


def test_a_connection_that_is_cut_at_the_same_place_is_given_up(store, database, conn, run_harca):
    fail_at_batch(conn, 3, CUT)

    cut = run_harca("migrate", store, "--batch-rows", "2", database=database)
    rows = conn.execute("SELECT count(*) FROM vector_embeddings").fetchone()
    conn.execute("DROP TRIGGER fail ON load_batches")
    done = run_harca("migrate", store, "--json", database=database)

    assert cut.code == 1
    assert "connection lost, trying again in 0 s (attempt 3)" in cut.err
    assert "none further than before" in cut.err
    assert "Run the same command again" in cut.err
    assert rows == (4,)
    assert (done.code, done.json["loaded"], done.json["resumed"]) == (0, 10, True)


def test_a_pause_ends_when_the_process_is_told_to(store, database, conn):
    fail_at_batch(conn, 3, CUT)
    process = subprocess.Popen(
        [sys.executable, "-m", "harca", "migrate", store, "--batch-rows", "2"],
        env={**os.environ, "HARCA_DATABASE_URL": database.conninfo},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=store.parent,
    )
    assert process.stderr is not None
    while "trying again in" not in (line := process.stderr.readline()):
        assert line, "ended without a pause"

    process.terminate()
    _, err = process.communicate(timeout=60)

    assert process.returncode == 143
    assert err == (
        "error: interrupted; every batch is in or not, never half of one\n"
        "hint:  Run the same command again: a load goes on where it was.\n"
    )


def test_quiet_leaves_a_line_in_the_log(store, database, conn, run_harca):
    fail_at_batch(conn, 3, CUT, times=1)

    done = run_harca("migrate", store, "--batch-rows", "2", "-q", database=database)

    assert (done.code, done.out) == (0, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("WARNING harca.retry: connection lost, trying again in ")


def test_a_read_only_server_is_waited_for_after_a_failover_only(store, database, conn):
    fail_at_batch(conn, 3, raising("25006"), times=1)
    told = Told()

    with pytest.raises(TargetError, match="made up"):
        migrate(store, lambda: database, BATCHES, watcher=told)

    assert told.troubles == []


def test_a_server_that_is_not_there_is_told_at_once(store, database, run_harca):
    with Proxy(database.conninfo) as network:
        behind = network.through(database)
        network.cut_off()

        done = run_harca("migrate", store, database=behind)

        assert network.accepted == 1
    assert done.code == 1
    assert "cannot connect to" in done.err
    assert "trying again" not in done.err


def test_a_network_that_is_gone_for_a_while_is_waited_for(store, database):
    with Proxy(database.conninfo) as network:

        class Restoring(Told):
            def trouble(self, message):
                super().trouble(message)
                if len(self.troubles) == 2:
                    network.restore()

            def stage(self, name, total=None):
                if name == "load" and not self.troubles:
                    network.cut_off()

        told = Restoring()

        done = migrate(store, lambda: network.through(database), BATCHES, watcher=told)

    assert done.complete
    assert told.troubles[0].startswith("connection lost")
    assert told.troubles[1].startswith("no connection")


@pytest.fixture
def impatient(monkeypatch):
    """The server has to answer soon."""
    monkeypatch.setattr(lock, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(lock, "_ANSWER_WITHIN_S", 1.5)


STALLS = {
    "upgrading": b"CREATE TABLE rejections",
    "loading": b"INSERT INTO load_batches",
    "verifying": b"UPDATE load_runs SET status = $1",
}


@pytest.mark.parametrize("sent", STALLS.values(), ids=STALLS)
def test_a_network_that_delivers_nothing_is_not_waited_for(sent, store, empty_database, impatient):
    with Proxy(empty_database.conninfo) as network:
        told = Told(network.restore)
        network.stall_at(sent)

        done = migrate(store, lambda: network.through(empty_database), BATCHES, watcher=told)

    assert done.complete
    assert done.result.tally.loaded == 10
    assert {trouble.split(",")[0] for trouble in told.troubles} == {"connection lost"}


def test_a_verification_and_a_rollback_do_not_wait_for_such_a_network(
    store, database, conn, impatient
):
    run_id = migrate(store, lambda: database, BATCHES).run_id
    with Proxy(database.conninfo) as network:
        behind, told = network.through(database), Told(network.restore)

        network.stall_at(b"outlived")
        verification = verify_store(behind, store, watcher=told)
        network.stall_at(b"SET status = 'rolled back'")
        done = rollback(behind, run_id, told=told.trouble)

    assert verification.ok
    assert done.deleted == 10
    assert len(told.troubles) >= 2
    assert conn.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (0,)


def test_a_table_that_somebody_locks_is_waited_for(store, database, conn):
    conn.execute(f"ALTER DATABASE {conn.info.dbname} SET lock_timeout = '50ms'")
    with database.connect(autocommit=False) as other:
        other.execute("LOCK TABLE vector_embeddings")
        told = Told(other.rollback)

        done = migrate(store, lambda: database, BATCHES, watcher=told)

    assert done.complete
    assert {trouble.split(",")[0] for trouble in told.troubles} == {"another session is in the way"}


def test_a_run_that_was_done_when_the_connection_was_lost_is_no_new_one(store, database, conn):
    with Proxy(database.conninfo) as network:
        network.cut_at(b"WHERE store = $1 GROUP BY model_id")  # asked when all is done and noted

        done = migrate(store, lambda: network.through(database), BATCHES)

    assert done.complete
    assert done.result.tally.loaded == 10
    assert conn.execute("SELECT run_id, status, attempt FROM load_runs").fetchall() == [
        (done.run_id, "verified", 2)
    ]


def test_a_verification_is_tried_again(store, database, conn, run_harca):
    run_harca("migrate", store, database=database)
    with Proxy(database.conninfo) as network:
        network.cut_at(b"outlived")

        done = run_harca("verify", store, database=network.through(database))

    assert done.code == 0, done.err
    assert "connection lost, trying again in" in done.err


def test_what_another_process_has_taken_over_is_left_to_it(store, database, conn):
    """Without its lock, which nobody has noticed to be lost, a process does no harm."""
    fail_at_batch(conn, 3, "UPDATE load_runs SET attempt = attempt + 1", times=1)
    told = Told()

    with pytest.raises(RunError, match="taken up by another process"):
        migrate(store, lambda: database, BATCHES, watcher=told)

    assert told.troubles == []


@pytest.mark.parametrize(
    "sent", [b"COMMIT", b"hashtextextended('harca', 2)"], ids=["before", "after"]
)
def test_a_rollback_is_done_once_whenever_the_connection_is_lost(
    sent, tmp_path, database, conn, run_harca
):
    for number in (1, 2):
        run_harca(
            "migrate", write_store(tmp_path / f"s{number}", 3, seed=number), database=database
        )
    with Proxy(database.conninfo) as network:
        network.cut_at(sent)

        done = run_harca("rollback", "last", "--json", database=network.through(database))

    assert done.code == 0, done.err
    assert "connection lost, trying again in" in done.err
    assert (done.json["run_id"], done.json["deleted"]) == (2, 3)
    runs = conn.execute("SELECT run_id, status FROM load_runs ORDER BY run_id").fetchall()
    assert runs == [(1, "verified"), (2, "rolled back")]
    assert conn.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (3,)


def test_a_rollback_that_is_given_up_names_the_run(store, database, conn, run_harca):
    """For "last" is another one, should it have been taken back after all."""
    run_harca("migrate", store, database=database)
    conn.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {CUT}; RETURN NULL; END $$"
    )
    conn.execute(
        "CREATE TRIGGER fail AFTER UPDATE ON load_runs FOR EACH ROW EXECUTE FUNCTION fail()"
    )

    given_up = run_harca("rollback", "last", database=database)

    assert given_up.code == 1
    assert given_up.err.endswith("The run is 1: `harca rollback 1`.\n")
    assert conn.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (10,)


def test_an_export_is_written_again(store, tmp_path, database, run_harca):
    run_harca("migrate", store, database=database)
    with Proxy(database.conninfo) as network:
        network.cut_at(b"FETCH")

        done = run_harca(
            "export", tmp_path / "out", "--format", "jsonl", database=network.through(database)
        )

    assert done.code == 0, done.err
    assert "connection lost, trying again in" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rows.jsonl"]
    assert len((tmp_path / "out" / "rows.jsonl").read_text("utf-8").splitlines()) == 10


@pytest.mark.parametrize("sent", [b"COPY", b"INSERT INTO alembic_version_data"])
def test_a_planned_load_goes_on_with_its_run_until_it_is_stamped(
    sent, store, project, database, conn, run_harca
):
    run_harca("plan", store, "-m", "load it", database=database)
    with Proxy(database.conninfo) as network:
        network.cut_at(sent)

        done = run_harca("load", database=network.through(database))

    assert done.code == 0, done.err
    assert "connection lost, trying again in" in done.err
    runs = conn.execute("SELECT status, loaded FROM load_runs").fetchall()
    assert runs == [("verified", 10)]
    assert migrations.current(database, DATA) == migrations.head(DATA)


def test_a_verification_does_not_finish_a_run_that_was_taken_up_again(store, database, conn):
    class TakingUp(Unwatched):
        def stage(self, name, total=None):
            if name == "verify":  # another process, while this one reads the store
                conn.execute("UPDATE load_runs SET status = 'loading', attempt = attempt + 1")

    migrate(store, lambda: database, BATCHES)

    verification = verify_store(database, store, watcher=TakingUp())

    assert verification.ok
    assert conn.execute("SELECT status FROM load_runs").fetchall() == [("loading",)]
