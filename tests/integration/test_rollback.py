"""What a rollback refuses, keeps, discards and finishes, and what it says when it is cut off."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from harca import migrations
from harca.apply import FIRST
from harca.errors import TargetError
from harca.postgres.connect import database as resolve_database
from harca.retry import Patience
from harca.rollback import rollback, rollback_revision
from tests.faults.proxy import How, Proxy
from tests.stores import record, write_record, write_store

pytestmark = pytest.mark.one_server

OLD, NEW = "2025-01-01T00:00:00.000Z", "2025-02-01T00:00:00.000Z"
WAITING = (
    "SELECT FROM pg_stat_activity WHERE query ~ 'FOR UPDATE' AND wait_event_type = 'Lock' "
    "AND datname = current_database()"
)
NEEDLESS = "vector_embeddings_ann_needless_idx"


def rows(conn: Any) -> Any:
    return conn.execute("SELECT v::text FROM vector_embeddings v ORDER BY id").fetchall()


def contents(conn: Any) -> Any:
    found = conn.execute("SELECT content, run_id FROM vector_embeddings ORDER BY content")
    return found.fetchall()


def needless_index(conn) -> None:
    """Make an index that no space deserves; adapting the indexes drops it."""
    conn.execute(
        f"CREATE INDEX {NEEDLESS} ON vector_embeddings USING hnsw "
        "((embedding::vector(8)) vector_cosine_ops) WHERE dims = 8"
    )


def is_there(conn, name: str = NEEDLESS) -> bool:
    return bool(conn.execute("SELECT FROM pg_class WHERE relname = %s", [name]).rowcount)


@pytest.fixture
def overwritten(tmp_path, database, conn, run_harca):
    """Two runs of a store of one record, the second over the first; the row after the first."""
    store = tmp_path / "store"
    write_record(store, record("key", [1.0, 0.0], createdAt=OLD))
    run_harca("migrate", store, database=database)
    before = rows(conn)
    write_record(store, record("key", [0.0, 1.0], createdAt=NEW))
    done = run_harca("migrate", store, database=database)
    assert done.code == 0, done.err
    return before


CHANGES = {
    "edited": "UPDATE vector_embeddings SET content = 'theirs'",
    "dated by hand": "UPDATE vector_embeddings SET updated_at = '2001-01-01'",
    "given another key": "UPDATE vector_embeddings SET store_key = 'theirs'",
    "given to another store": "UPDATE vector_embeddings SET store = 'theirs'",
    "deleted": "DELETE FROM vector_embeddings",
    "replaced": "",  # the key is free only when the statement that frees it is over
}


@pytest.fixture(params=CHANGES)
def change(request, overwritten, conn):
    """Somebody changes the row that the second run overwrote."""
    if request.param == "replaced":
        kept = conn.execute("DELETE FROM vector_embeddings RETURNING store, store_key").fetchone()
        conn.execute(
            "INSERT INTO vector_embeddings (content, embedding, metadata, model_id, store, "
            "store_key) VALUES ('theirs', '[5,5]', '{}', 'm', %s, %s)",
            kept,
        )
    else:
        conn.execute(CHANGES[request.param])
    return request.param


def test_a_change_to_an_overwritten_row_is_refused_or_kept_to_the_letter(
    change, conn, database, run_harca
):
    where = "to_jsonb(v) - 'run_id'"
    before = rows(conn)
    contents_before = conn.execute(f"SELECT {where} FROM vector_embeddings v").fetchall()

    refused = run_harca("rollback", "2", "--json", database=database)
    left = rows(conn)
    kept = run_harca("rollback", "2", "--changed", "keep", "--json", database=database)
    first = run_harca("rollback", "1", "--json", database=database)

    assert refused.code == 4
    assert "error: 1 row of run 2 changed since loading: " in refused.err
    [told] = refused.json["changed"]
    assert told["change"] == (change if change in ("deleted", "replaced") else "edited")
    assert left == before
    assert (kept.code, first.code) == (0, 0), kept.err + first.err
    counts = ("deleted", "restored", "kept")
    assert [kept.json[name] for name in counts] == [0, 0, 1]
    assert [first.json[name] for name in counts] == [0, 0, 0]
    assert conn.execute(f"SELECT {where} FROM vector_embeddings v").fetchall() == contents_before
    assert {run_id for _, run_id in contents(conn)} <= {None}


def test_a_change_to_an_overwritten_row_is_discarded_if_told_so(
    change, overwritten, conn, database, run_harca
):
    done = run_harca("rollback", "2", "--changed", "delete", "--json", database=database)

    assert done.code == 0, done.err
    assert [done.json[name] for name in ("deleted", "restored", "kept")] == [0, 1, 0]
    assert rows(conn) == overwritten


def test_rows_whose_keys_were_exchanged_get_theirs_back(tmp_path, conn, database, run_harca):
    store = tmp_path / "store"
    for when in (OLD, NEW):
        for name in ("a", "b"):
            write_record(store, record(name, [float(when == NEW), 1.0], createdAt=when))
        run_harca("migrate", store, database=database)
        if when == OLD:
            before = rows(conn)
    conn.execute("UPDATE vector_embeddings SET store_key = 'left' WHERE content = 'a'")
    conn.execute(
        "UPDATE vector_embeddings v SET store_key = o.store_key FROM superseded o "
        "WHERE v.content = 'b' AND o.content = 'a'"
    )
    conn.execute(
        "UPDATE vector_embeddings v SET store_key = o.store_key FROM superseded o "
        "WHERE v.content = 'a' AND o.content = 'b'"
    )

    done = run_harca("rollback", "2", "--changed", "delete", database=database)

    assert done.code == 0, done.err
    assert rows(conn) == before


def test_rows_deleted_since_and_put_in_anew_are_the_applications(
    tmp_path, conn, database, run_harca
):
    run_harca("migrate", write_store(tmp_path / "store", 3), database=database)
    kept = conn.execute(
        "DELETE FROM vector_embeddings WHERE id = (SELECT min(id) FROM vector_embeddings) "
        "RETURNING store, store_key"
    ).fetchone()
    conn.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id, store, store_key) "
        "VALUES ('theirs', '[5,5]', '{}', 'm', %s, %s)",
        kept,
    )

    done = run_harca("rollback", "1", "--json", database=database)

    assert done.code == 0, done.err
    assert done.json["deleted"] == 2
    assert contents(conn) == [("theirs", None)]


def test_a_refusal_lists_some_and_all_of_them_in_json(tmp_path, conn, database, run_harca):
    run_harca("migrate", write_store(tmp_path / "store", 12), database=database)
    conn.execute("UPDATE vector_embeddings SET content = 'theirs ' || id")

    done = run_harca("rollback", "1", "--json", database=database)

    assert done.code == 4
    assert "12 rows of run 1 changed since loading: " in done.err
    assert done.err.count("(edited)") == 8
    assert "`harca rollback 1 --changed keep`" in done.err
    assert "`harca rollback 1 --changed delete`" in done.err
    assert len(done.json["changed"]) == 12
    assert set(done.json["changed"][0]) == {"key", "change", "changed_at", "overwritten_by"}


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(tmp_path, conn, database, run_harca):
    store = write_store(tmp_path / "store", 4)
    write_record(store, record("key", [1.0, 0.0], createdAt=OLD))
    run_harca("migrate", store, database=database)
    write_record(store, record("key", [0.0, 1.0], createdAt=NEW))
    write_record(store, record("new", [1.0]))
    write_record(store, record("theirs", [1.0]))
    run_harca("migrate", store, database=database)
    conn.execute("UPDATE vector_embeddings SET metadata = '{}' WHERE content = 'theirs'")
    before = rows(conn)
    dry = {}

    for choice in ("refuse", "keep", "delete"):
        words = ("rollback", "last", "--dry-run", "--changed", choice)
        dry[choice] = run_harca(*words, database=database)
        as_json = run_harca(*words, "--json", database=database)
        assert (as_json.code, as_json.json["dry_run"]) == (dry[choice].code, True)
        assert [change["change"] for change in as_json.json["changed"]] == ["edited"]
    read_only = run_harca(
        *words, database=database, PGOPTIONS="-c default_transaction_read_only=on"
    )

    assert rows(conn) == before
    assert [dry[choice].code for choice in dry] == [4, 0, 0]
    assert "run 2 would be taken back: 1 row deleted, 1 restored" in dry["keep"].out
    assert "1 changed since: kept" in dry["keep"].out
    assert "run 2 would be taken back: 2 rows deleted, 1 restored" in dry["delete"].out
    assert (
        "1 changed since: this is refused, --changed keep or --changed delete decides"
        in dry["refuse"].out
    )
    assert read_only.out == dry["delete"].out
    assert run_harca("rollback", "last", "--changed", "keep", database=database).out == (
        "run 2 taken back: 1 row deleted, 1 restored, 1 changed since and kept\n"
    )


def test_a_rollback_leaves_nothing_half_done_if_a_trigger_keeps_rows(
    tmp_path, conn, database, run_harca
):
    run_harca("migrate", write_store(tmp_path / "store", 3), database=database)
    conn.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    conn.execute(
        "CREATE TRIGGER keep BEFORE DELETE ON vector_embeddings FOR EACH ROW "
        "WHEN (old.content LIKE '%2') EXECUTE FUNCTION keep()"
    )

    done = run_harca("rollback", "1", database=database)

    assert done.code == 1
    assert "deleted 2 of 3 rows" in done.err
    assert len(rows(conn)) == 3


def test_a_rollback_waits_for_a_change_that_is_under_way(tmp_path, conn, database, run_harca):
    run_harca("migrate", write_store(tmp_path / "store", 3), database=database)
    with ThreadPoolExecutor(1) as other, database.connect() as application:
        with application.transaction():
            application.execute("UPDATE vector_embeddings SET content = 'theirs ' || id")
            going_on = other.submit(rollback, database, 1)
            wait_until(conn, WAITING)
        refused = going_on.exception(60)

    assert "3 rows of run 1 changed since loading" in str(refused)


def wait_until(conn, query: str) -> None:
    for _ in range(3000):
        if conn.execute(query).rowcount:
            return
        conn.execute("SELECT pg_sleep(0.01)")
    pytest.fail(f"never so: {query}")


def test_a_batch_that_is_committed_meanwhile_is_taken_back_too(tmp_path, conn, database, run_harca):
    run_harca("migrate", write_store(tmp_path / "store", 3), database=database)
    conn.execute("UPDATE load_runs SET status = 'loading'")
    with ThreadPoolExecutor(1) as other, database.connect() as loader:
        with loader.transaction():  # a loader whose lock the server has ended
            loader.execute("SELECT FROM load_runs WHERE run_id = 1 FOR SHARE")
            going_on = other.submit(rollback, database, 1)
            wait_until(conn, WAITING)
            loader.execute(
                "INSERT INTO vector_embeddings (content, embedding, metadata, model_id, "
                "updated_at, store, store_key, run_id) SELECT 'late', '[1]', '{}', 'm', "
                "started_at, store, 'late', run_id FROM load_runs"
            )
        done = going_on.result(60)

    assert done.deleted == 4
    assert rows(conn) == []


def test_an_interrupted_run_is_taken_back_and_loaded_anew(tmp_path, conn, database, run_harca):
    store = write_store(tmp_path / "store", 5)
    run_harca("migrate", store, database=database)
    conn.execute("UPDATE load_runs SET status = 'loading'")

    taken_back = run_harca("rollback", "last", "--json", database=database)
    again = run_harca("migrate", store, "--json", database=database)

    assert taken_back.json["deleted"] == 5
    assert (again.code, again.json["run_id"], again.json["resumed"]) == (0, 2, False)


@pytest.fixture
def impatient(monkeypatch):
    """Nothing is tried again."""
    monkeypatch.setattr("harca.retry.PATIENCE", Patience(total_s=0, attempts=1))


@pytest.fixture
def network(database):
    with Proxy(database.conninfo) as proxy:
        yield proxy


def test_indexes_are_finished_by_the_same_command_and_no_other_run_is_taken_back(
    tmp_path, conn, database, network, run_harca, impatient
):
    for seed in (1, 2):
        store = write_store(tmp_path / f"store {seed}", 3, seed=seed)
        run_harca("migrate", store, database=database)
    needless_index(conn)
    network.cut_at(b"DROP INDEX")

    cut = run_harca("rollback", "last", database=network.through(database))
    left = is_there(conn)
    again = run_harca("rollback", "last", "--json", database=database)
    once_more = run_harca("rollback", "2", database=database)

    assert cut.code == 1
    assert "run 2 is taken back, but the indexes are not adapted yet" in cut.err
    assert "same command again" in cut.err
    assert left
    assert (again.code, again.json["run_id"], again.json["finished"]) == (0, 2, True)
    assert not is_there(conn)
    assert contents(conn)[0][1] == 1
    assert once_more.code == 0
    assert once_more.out.endswith("; nothing was changed\n")


def test_an_index_left_invalid_is_dropped_by_a_second_call(tmp_path, conn, database, run_harca):
    run_harca("migrate", write_store(tmp_path / "store", 3), database=database)
    run_harca("rollback", "1", database=database)
    needless_index(conn)
    conn.execute(
        f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{NEEDLESS}'::regclass"
    )

    done = run_harca("rollback", "1", database=database)

    assert done.code == 0, done.err
    assert not is_there(conn)


def test_a_downgrade_finishes_the_indexes_before_its_stamp_goes(
    tmp_path, conn, database, network, run_alembic, impatient
):
    store = write_store(tmp_path / "store", 3)
    run_alembic("-n", "data", "-x", f"store={store}", "upgrade", "head", database=database)
    needless_index(conn)
    network.cut_at(b"DROP INDEX")

    cut = run_alembic("-n", "data", "downgrade", "base", database=network.through(database))
    stamped = migrations.current(database, migrations.DATA)
    again = run_alembic("-n", "data", "downgrade", "base", database=database)

    assert cut.code != 0
    assert "is taken back, but the indexes are not adapted yet" in cut.err
    assert stamped == FIRST
    assert again.code == 0, again.err
    assert not is_there(conn)
    assert migrations.current(database, migrations.DATA) is None


def test_a_downgrade_refuses_keeps_or_discards_changes(tmp_path, conn, database, run_alembic):
    store = write_store(tmp_path / "store", 3)
    up = ("-n", "data", "-x", f"store={store}", "upgrade", "head")
    run_alembic(*up, database=database)
    conn.execute("UPDATE vector_embeddings SET content = 'theirs' WHERE content LIKE '%1'")
    down = ("-n", "data", "downgrade", "base")

    refused = run_alembic(*down, database=database)
    left = len(rows(conn))
    kept = run_alembic("-x", "changed=keep", *down, database=database)

    assert refused.code != 0
    assert "1 row of run 1 changed since loading" in refused.err
    assert "`-x changed=keep`" in refused.err
    assert left == 3
    assert kept.code == 0, kept.err
    assert contents(conn) == [("theirs", None)]


@pytest.mark.parametrize("how", [How.BEFORE, How.AFTER], ids=["not committed", "committed"])
def test_after_a_connection_lost_at_commit_the_ledger_is_asked(
    how, tmp_path, conn, database, network, run_harca
):
    run_harca("migrate", write_store(tmp_path / "store", 3), database=database)
    needless_index(conn)
    point = network.hold_at(b"COMMIT\0", how=how)
    told: list[str] = []

    with ThreadPoolExecutor(1) as other:
        going_on = other.submit(rollback, network.through(database), None, told=told.append)
        assert point.wait()
        network.cut()
        done = going_on.result(60)

    assert (done.run_id, done.deleted, done.before) == (1, 3, None)
    assert told[0].startswith("connection lost, trying again")
    assert (rows(conn), is_there(conn)) == ([], False)


def test_a_commit_that_nobody_can_ask_about_is_called_unknown(
    tmp_path, conn, database, network, run_harca, impatient
):
    run_harca("migrate", write_store(tmp_path / "store", 3), database=database)
    point = network.hold_at(b"COMMIT\0", how=How.AFTER)

    with ThreadPoolExecutor(1) as other:
        going_on = other.submit(rollback, network.through(database), None)
        assert point.wait()
        network.cut_off()
        problem = going_on.exception(60)
    again = run_harca("rollback", "last", "--json", database=database)

    assert isinstance(problem, TargetError)
    assert "whether run 1 is taken back is not known" in str(problem)
    assert (again.code, again.json["run_id"], again.json["finished"]) == (0, 1, True)
    assert rows(conn) == []


def test_a_lost_server_leaves_the_run_as_it_was_and_that_is_said(
    tmp_path, conn, database, network, run_harca, impatient
):
    run_harca("migrate", write_store(tmp_path / "store", 3), database=database)
    network.cut_at(b"DELETE FROM vector_embeddings")

    done = run_harca("rollback", "last", database=network.through(database))

    assert done.code == 1
    assert "error: run 1 is not taken back, nothing was changed: " in done.err
    assert "same command again" in done.err
    assert len(rows(conn)) == 3


def test_a_dry_run_of_a_run_taken_back_says_so(tmp_path, database, run_harca):
    run_harca("migrate", write_store(tmp_path / "store", 3), database=database)
    run_harca("rollback", "1", database=database)

    dry = run_harca("rollback", "1", "--dry-run", "--json", database=database)
    last = run_harca("rollback", "last", database=database)

    assert dry.code == 0
    assert dry.json["before"]
    assert (dry.json["store"], dry.json["dry_run"]) == (str(tmp_path / "store"), True)
    assert (last.code, last.err.splitlines()[0]) == (1, "error: there is no run to take back")


def test_a_conflict_in_a_run_whose_rows_were_changed_names_both(
    tmp_path, conn, database, run_harca
):
    for folder, vector in (("a", [1.0]), ("b", [2.0])):
        write_record(tmp_path / "store" / folder, record("key", vector))
    conn.execute(
        "CREATE FUNCTION edit() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN UPDATE vector_embeddings SET content = ''theirs''; RETURN NULL; END'"
    )
    conn.execute(
        "CREATE TRIGGER edit AFTER INSERT ON load_batches FOR EACH ROW EXECUTE FUNCTION edit()"
    )

    done = run_harca(
        "migrate", tmp_path / "store", "--on-conflict", "error", "--batch-rows", "1",
        database=database,
    )  # fmt: skip

    assert done.code == 4
    assert "1 row of run 1 changed since loading" in done.err
    assert "The run stopped as key " in done.err
    assert "`harca rollback 1 --changed keep`" in done.err


def test_a_downgrade_takes_its_own_runs_back_and_a_dry_run_is_refused_as_the_rollback_is(
    tmp_path, conn, database, run_harca, run_alembic
):
    store, other = write_store(tmp_path / "store", 3), write_store(tmp_path / "other", 2, seed=2)
    run_alembic("-n", "data", "-x", f"store={store}", "upgrade", "head", database=database)
    run_harca("migrate", other, database=database)

    refused = [
        run_harca("rollback", "1", *options, database=database) for options in ((), ("--dry-run",))
    ]
    down = run_alembic("-n", "data", "downgrade", "base", database=database)

    assert [done.code for done in refused] == [4, 4]
    assert refused[0].err == refused[1].err
    assert down.code == 0, down.err
    assert conn.execute("SELECT DISTINCT store FROM vector_embeddings").fetchall() == [
        (str(other),)
    ]
    assert rollback_revision(database, FIRST) == []  # what is taken back is left alone


def test_a_server_lost_before_the_run_is_known_is_told_so(
    tmp_path, conn, database, network, run_harca, impatient
):
    run_harca("migrate", write_store(tmp_path / "store", 3), database=database)
    network.cut_at(b"FROM load_runs")

    done = run_harca("rollback", "last", database=network.through(database))

    assert done.code == 1
    assert "error: the latest run is not taken back, nothing was changed: " in done.err
    assert "The run is" not in done.err


@pytest.fixture
def short_sighted(database, conn):
    """The database as a role reaches it from which a policy hides what harca has loaded."""
    role = f"short_sighted_{secrets.token_hex(4)}"
    conn.execute(f"CREATE ROLE {role}")
    conn.execute(f"GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    conn.execute("ALTER TABLE vector_embeddings ENABLE ROW LEVEL SECURITY")
    conn.execute("CREATE POLICY own ON vector_embeddings USING (store IS NULL)")
    yield resolve_database(make_conninfo(database.conninfo, options=f"-c role={role}"))
    conn.execute(f"DROP OWNED BY {role}")
    conn.execute(f"DROP ROLE {role}")


def test_a_run_whose_rows_a_policy_hides_is_not_called_taken_back(
    tmp_path, database, conn, short_sighted, run_harca
):
    run_harca("migrate", write_store(tmp_path / "store", 3), database=database)

    previewed = run_harca("rollback", "last", "--dry-run", database=short_sighted)
    done = run_harca("rollback", "last", database=short_sighted)

    for refused in (previewed, done):
        assert refused.code == 1
        assert "row-level security" in refused.err
    assert "run 1 is not taken back, nothing was changed" in done.err
    assert conn.execute("SELECT status FROM load_runs").fetchall() == [("verified",)]
    assert len(rows(conn)) == 3
