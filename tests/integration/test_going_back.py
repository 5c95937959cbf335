"""Rollbacks out of order, edits by the application, interruptions: nothing is lost."""

import json

import pytest

from harca.errors import RunError
from harca.load import Intake, load
from harca.options import LoadOptions
from harca.postgres.target import PostgresTarget, begin_run
from harca.readers.base import open_store
from tests.stores import record, write_record, write_store


@pytest.fixture
def migrate(tmp_path, database, run_harca):
    """Migrate a store of one record whose vector and date are given; return the run's id."""

    def go(vector, created, *options) -> int:
        write_record(tmp_path / "store", record("key", vector, createdAt=created))
        done = run_harca("migrate", tmp_path / "store", "--json", *options, database=database)
        assert done.code == 0, done.err
        return int(done.json["run_id"])

    return go


@pytest.fixture
def three_runs(migrate):
    return [migrate([float(month), 1.0], f"2025-0{month}-01T00:00:00.000Z") for month in (1, 2, 3)]


def vectors(conn) -> list[str]:
    return [row[0] for row in conn.execute("SELECT embedding::text FROM vector_embeddings")]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)], ids=["middle first", "last first"])
def test_rollbacks_in_any_order_leave_what_the_first_run_loaded(
    order, three_runs, conn, database, run_harca
):
    for index in order:
        assert run_harca("rollback", three_runs[index], database=database).code == 0

    assert vectors(conn) == ["[1,1]"]
    assert run_harca("rollback", three_runs[0], database=database).code == 0
    assert vectors(conn) == []


def test_an_edit_that_a_later_run_overwrote_is_refused_or_kept(migrate, conn, database, run_harca):
    first = migrate([1.0, 1.0], "2025-01-01T00:00:00.000Z")
    conn.execute("UPDATE vector_embeddings SET content = 'an edit'")
    second = migrate([2.0, 1.0], "2025-02-01T00:00:00.000Z")

    refused = run_harca("rollback", first, database=database)
    kept = run_harca("rollback", first, "--changed", "keep", "--json", database=database)
    assert run_harca("rollback", second, database=database).code == 0

    assert refused.code == 4
    assert kept.json["kept"] == 1
    assert conn.execute("SELECT content, run_id FROM vector_embeddings").fetchall() == [
        ("an edit", None)
    ]


def test_rows_kept_from_earlier_runs_are_verified_too(tmp_path, migrate, conn, database, run_harca):
    migrate([1.0, 1.0], "2025-01-01T00:00:00.000Z")
    migrate([2.0, 1.0], "2025-01-01T00:00:00.000Z", "--on-conflict", "keep")
    before = run_harca("verify", tmp_path / "store", database=database)
    conn.execute("TRUNCATE vector_embeddings")

    after = run_harca("verify", tmp_path / "store", "--json", database=database)

    assert before.code == 0, before.out
    assert after.code == 3
    assert "rows kept from earlier runs" in [
        check["name"] for check in after.json["checks"] if not check["ok"]
    ]


def test_resuming_keeps_what_the_application_changed_meanwhile(tmp_path, conn, database, run_harca):
    store = write_store(tmp_path / "store", 10)
    run_id = run_harca("migrate", store, "--json", database=database).json["run_id"]
    conn.execute("UPDATE load_runs SET status = 'loading'")  # as an interruption leaves it
    conn.execute("UPDATE vector_embeddings SET content = 'edited ' || id WHERE id <= 5")
    edits = {row[0] for row in conn.execute("SELECT content FROM vector_embeddings WHERE id <= 5")}

    done = run_harca("migrate", store, "--json", database=database)

    assert done.code == 0, done.err
    assert done.json["run_id"] == run_id
    kept = conn.execute("SELECT content FROM superseded WHERE kind = 'overwritten'")
    assert {row[0] for row in kept} == edits
    assert run_harca("rollback", run_id, database=database).code == 0
    left = conn.execute("SELECT content FROM vector_embeddings")
    assert {row[0] for row in left} == edits


def test_a_run_does_not_take_its_own_replacements_for_edits(tmp_path, database, run_harca):
    for folder, vector, created in (
        ("a", [1.0, 1.0], "2025-01-01T00:00:00.000Z"),
        ("b", [2.0, 1.0], "2025-02-01T00:00:00.000Z"),
    ):
        write_record(tmp_path / "store" / folder, record("key", vector, createdAt=created))
    run_harca("migrate", tmp_path / "store", "--batch-rows", "1", database=database)

    assert run_harca("rollback", "last", database=database).code == 0


def test_an_interruption_while_verifying_is_resumed(tmp_path, conn, database, run_harca):
    store = write_store(tmp_path / "store", 5)
    first = run_harca("migrate", store, "--json", database=database).json
    conn.execute("UPDATE load_runs SET status = 'loaded'")  # as Ctrl-C in the index build does

    second = run_harca("migrate", store, "--json", database=database).json
    third = run_harca("migrate", store, "--json", database=database).json

    assert (second["run_id"], second["resumed"], second["loaded"]) == (first["run_id"], True, 5)
    assert (third["resumed"], third["unchanged"]) == (False, 5)


def test_what_an_interrupted_attempt_rejected_stays_when_its_file_goes(
    tmp_path, conn, database, run_harca
):
    store = write_store(tmp_path / "store", 5)
    bad = write_record(store / "cache", record("bad", [1.0, None]))
    lost = [
        write_record(store / folder, record("twice", [float(n), 1.0], createdAt=f"2025-0{n}-01"))
        for n, folder in ((1, "cache/x"), (2, "cache/y"))
    ]
    payload = bad.read_bytes()
    stopped = run_harca("migrate", store, "--max-rejects", "0", database=database)
    bad.unlink()
    lost[0].unlink()

    done = run_harca("migrate", store, database=database)

    assert (stopped.code, done.code) == (1, 0), done.out
    assert conn.execute("SELECT payload FROM rejections").fetchall() == [(payload,)]
    assert conn.execute("SELECT embedding::text FROM superseded").fetchall() == [("[1,1]",)]


def test_a_run_that_was_rolled_back_takes_no_more_rows(tmp_path, conn, database):
    reader = open_store(write_store(tmp_path / "store", 10))
    run = begin_run(conn, "s", store_format="harca", revision=None, options={})
    intake = Intake(reader, LoadOptions(), now=run.started_at)
    conn.execute("UPDATE load_runs SET status = 'rolled back'")

    with pytest.raises(RunError, match="rolled back"):
        load(intake, PostgresTarget(conn, run), LoadOptions())

    assert vectors(conn) == []


def test_a_loser_of_a_run_that_was_rolled_back_can_still_win(migrate, conn, database, run_harca):
    day = "2025-01-01T00:00:00.000Z"
    migrate([1.0, 1.0], day)
    kept = migrate([2.0, 1.0], day, "--on-conflict", "keep")
    run_harca("rollback", kept, database=database)

    migrate([2.0, 1.0], day)

    assert vectors(conn) == ["[2,1]"]


def test_two_schemas_of_a_database_keep_their_rows_apart(
    tmp_path, empty_database, run_alembic, run_harca
):
    with empty_database.connect() as conn:
        conn.execute("CREATE EXTENSION vector; CREATE SCHEMA a; CREATE SCHEMA b")
    where = {name: {"PGOPTIONS": f"-c search_path={name},public"} for name in ("a", "b")}
    for name in ("a", "b"):
        store = write_store(tmp_path / name, 3, seed=ord(name))
        run_harca("migrate", store, database=empty_database, **where[name])

    assert run_alembic("downgrade", "base", database=empty_database, **where["a"]).code == 0
    assert run_alembic("downgrade", "base", database=empty_database, **where["b"]).code == 0
    assert run_alembic("upgrade", "head", database=empty_database, **where["a"]).code == 0

    found = run_harca("verify", tmp_path / "a", database=empty_database, **where["a"])
    assert found.code == 0, found.err
    with empty_database.connect() as conn:
        kept = conn.execute("SELECT count(*) FROM harca_aside_b.load_runs").fetchone()
    assert kept == (1,)


def test_a_downgrade_keeps_columns_that_the_application_added(empty_database, run_alembic):
    run_alembic("upgrade", "head", database=empty_database)
    with empty_database.connect() as conn:
        conn.execute("ALTER TABLE vector_embeddings ADD COLUMN tags text")
        conn.execute(
            "INSERT INTO vector_embeddings (content, embedding, metadata, model_id, tags) "
            "VALUES ('c', '[1,2]', '{}', 'm', 'kept')"
        )
    for target in (("downgrade", "3f1a6c0d9b21"), ("upgrade", "head")):
        assert run_alembic(*target, database=empty_database).code == 0

    with empty_database.connect() as conn:
        assert conn.execute("SELECT tags FROM vector_embeddings").fetchall() == [("kept",)]


def test_a_downgrade_that_would_cascade_is_refused(empty_database, run_alembic):
    run_alembic("upgrade", "head", database=empty_database)
    with empty_database.connect() as conn:
        conn.execute(
            "CREATE TABLE bookmarks (row_id int REFERENCES vector_embeddings ON DELETE CASCADE)"
        )
        conn.execute(
            "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
            "VALUES ('c', '[1,2]', '{}', 'm')"
        )
        conn.execute("INSERT INTO bookmarks SELECT id FROM vector_embeddings")

    done = run_alembic("downgrade", "3f1a6c0d9b21", database=empty_database)

    assert done.code != 0
    assert "foreign keys reference vector_embeddings" in done.err
    with empty_database.connect() as conn:
        assert conn.execute("SELECT count(*) FROM bookmarks").fetchone() == (1,)


def test_a_component_beyond_half_precision_stops_nothing(tmp_path, conn, database, run_harca):
    store = tmp_path / "store.json"
    rows = [
        {"id": str(n), "content": f"c{n}", "embedding": [1.0, float(n)] + [0.0] * 1999}
        for n in range(1000)
    ]
    store.write_text(json.dumps(rows))
    assert run_harca("migrate", store, database=database).code == 0
    rows.append({"id": "big", "content": "big", "embedding": [70000.0] + [1.0] * 2000})
    store.write_text(json.dumps(rows))

    done = run_harca("migrate", store, "--json", database=database)

    assert done.code == 0, done.err
    assert done.json["loaded"] == 1
    assert done.json["verified"] is True


def test_the_clients_encoding_does_not_matter(tmp_path, database, run_harca):
    store = write_store(tmp_path / "store", 3)

    done = run_harca("migrate", store, database=database, PGCLIENTENCODING="LATIN1")

    assert done.code == 0, done.out


def test_a_session_that_only_reads_can_verify(tmp_path, database, run_harca):
    store = write_store(tmp_path / "store", 3)
    run_harca("migrate", store, database=database)

    found = run_harca(
        "verify", store, database=database, PGOPTIONS="-c default_transaction_read_only=on"
    )

    assert found.code == 0, found.err


def test_one_read_more_is_no_difference(tmp_path, database, run_harca):
    store = tmp_path / "store"
    write_record(store, record("key", [1.0, 2.0]))
    run_harca("migrate", store, database=database)
    write_record(store, record("key", [1.0, 2.0], accessCount=2))

    assert run_harca("migrate", store, database=database).code == 0


def test_a_label_that_no_index_takes_is_rejected(tmp_path, database, run_harca):
    store = write_store(tmp_path / "store", 3)
    write_record(store / "cache", record("long", [1.0], model="漢" * 1500), name="0" * 64)

    done = run_harca("migrate", store, "--json", database=database)

    assert (done.code, done.json["loaded"], done.json["reasons"]) == (3, 3, {"too-large": 1})


def test_both_tables_of_an_export_are_read_and_no_field_is_lost(
    tmp_path, conn, database, run_harca
):
    store = tmp_path / "store"
    store.mkdir()
    entry = {"content": "c", "embedding": "[1,2]", "title": "t", "metadata": {"a": 1}}
    (store / "export.json").write_text(
        json.dumps({"code_vectors": [{**entry, "id": "1"}], "embeddings": [{**entry, "id": "2"}]})
    )
    write_record(store, record("own", [1.0], directory="mine"))

    run_harca("migrate", store, database=database)

    rows = dict(
        conn.execute("SELECT content || coalesce(source, ''), metadata FROM vector_embeddings")
    )
    assert rows["ccode_vectors"] == rows["cembeddings"] == {"a": 1, "title": "t"}
    assert rows["ownharca-files"]["directory"] == "mine"
    assert rows["ownharca-files"]["store_directory"] == "."
