"""What the application changes in a row while it is being replaced is kept, as anything else."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from psycopg import errors as pg

from harca.errors import TargetError
from harca.migrate import migrate
from harca.options import LoadOptions
from tests.faults.proxy import Proxy
from tests.stores import record, write_record, write_store

pytestmark = pytest.mark.one_server  # all its versions lock rows alike

LATER = "2025-06-01T00:00:00.000Z"
EDIT = "UPDATE vector_embeddings SET metadata = '{\"edited\": true}' WHERE content = 'changes'"
EDITED = "metadata = '{\"edited\": true}'"


@pytest.fixture
def store(tmp_path):
    store = write_store(tmp_path / "store", 3)
    write_record(store / "a", record("changes", [1.0, 0.0]))
    return store


def change(store):
    write_record(store / "a", record("changes", [0.0, 1.0], createdAt=LATER))


@contextmanager
def migrating(store, database, *, held_at):
    """Migrate in another thread, which is held within; give what comes of it afterwards."""
    with Proxy(database.conninfo) as network, ThreadPoolExecutor(1) as other:
        point = network.hold_at(held_at)
        done = other.submit(migrate, store, lambda: network.through(database), LoadOptions())
        try:
            assert point.wait()
            yield done
        finally:
            point.release()


def test_a_row_is_not_changed_any_more_between_being_kept_and_replaced(store, database, conn):
    migrate(store, lambda: database, LoadOptions())
    change(store)
    conn.execute("SET lock_timeout = '100ms'")
    with (
        migrating(store, database, held_at=b'COPY "harca_stage"') as done,
        pytest.raises(pg.LockNotAvailable),
    ):
        conn.execute(EDIT)

    assert done.result().complete


def test_a_row_of_the_run_that_was_changed_since_it_was_looked_at_is_kept(store, database, conn):
    conn.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$"
    )
    conn.execute(
        "CREATE TRIGGER fail BEFORE UPDATE ON load_runs FOR EACH ROW "
        "WHEN (NEW.status = 'loaded') EXECUTE FUNCTION fail()"
    )
    with pytest.raises(TargetError, match="no room"):
        migrate(store, lambda: database, LoadOptions())
    conn.execute("DROP TRIGGER fail ON load_runs")
    change(store)
    with migrating(store, database, held_at=b"FOR SHARE") as done:
        conn.execute(EDIT)

    assert done.result().resumed
    assert done.result().complete
    kept = conn.execute(f"SELECT kind, row_run_id FROM superseded WHERE {EDITED}").fetchall()
    assert kept == [("overwritten", None)]
