"""Loading: conflicts, expiry, resuming, provenance, the ledger."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from harca.migrate import migrate
from harca.options import LoadOptions
from harca.readers import harca as harca_reader
from tests.stores import record, write_record, write_store

OLD, NEW = "2025-01-01T00:00:00.000Z", "2025-06-01T00:00:00.000Z"

CONTENTS = (
    "SELECT store_key, content, embedding::text, metadata::text, model_id, created_at, source "
    "FROM vector_embeddings ORDER BY store_key"
)


@pytest.fixture
def conflicting(tmp_path):
    """A store with one key in two folders, with different vectors and dates."""
    store = write_store(tmp_path / "store", 6)
    write_record(store / "a", record("twice", [1.0, 0.0], createdAt=NEW))
    write_record(store / "b", record("twice", [0.0, 1.0], createdAt=OLD))
    return store


def vector_of(conn, text):
    row = conn.execute(
        "SELECT embedding::text FROM vector_embeddings WHERE content = %s", [text]
    ).fetchone()
    return row and row[0]


@pytest.mark.parametrize(
    ("policy", "kept"), [("newest", "[1,0]"), ("oldest", "[0,1]"), ("keep", "[1,0]")]
)
@pytest.mark.parametrize("order", ["as listed", "reversed"])
def test_a_conflict_is_decided_whatever_the_order(
    policy, kept, order, conflicting, database, conn, monkeypatch
):
    if order == "reversed":
        inner = harca_reader.HarcaReader._folders
        monkeypatch.setattr(
            harca_reader.HarcaReader,
            "_folders",
            lambda self, notes: iter(list(inner(self, notes))[::-1]),
        )
    options = LoadOptions.from_text({"on_conflict": policy})

    done = migrate(conflicting, lambda: database, options)

    tally = done.result.tally
    assert (tally.read, tally.loaded, tally.superseded) == (8, 7, 1)
    assert done.verification.ok
    assert vector_of(conn, "twice") == kept
    lost = conn.execute("SELECT kind, embedding::text FROM superseded").fetchall()
    assert lost == [("conflict", "[0,1]" if kept == "[1,0]" else "[1,0]")]

    again = migrate(conflicting, lambda: database, options)

    assert (again.result.tally.loaded, again.result.tally.unchanged) == (0, 7)
    assert again.verification.ok
    assert vector_of(conn, "twice") == kept


def test_error_stops_at_a_conflict_and_leaves_no_row(conflicting, database, conn, run_harca):
    done = run_harca(
        "migrate", conflicting, "--on-conflict", "error", "--batch-rows", "2", database=database
    )

    assert done.code == 1
    assert "has different contents in" in done.err
    assert "a/" in done.err
    assert "b/" in done.err
    assert conn.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (0,)
    assert conn.execute("SELECT status FROM load_runs").fetchall() == [("rolled back",)]


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("newest", "[0,0,1]"), ("oldest", "[1,0,0]"), ("keep", "[1,0,0]"), ("error", "[1,0,0]")],
)
def test_a_store_that_moved_on_meets_its_rows(policy, kept, tmp_path, database, conn, run_harca):
    store = write_store(tmp_path / "store", 3)
    write_record(store / "a", record("moving", [1.0, 0.0, 0.0], createdAt=OLD))
    run_harca("migrate", store, database=database)
    write_record(store / "a", record("moving", [0.0, 0.0, 1.0], createdAt=NEW))

    done = run_harca("migrate", store, "--on-conflict", policy, "--json", database=database)

    assert vector_of(conn, "moving") == kept
    if policy == "newest":
        assert done.code == 0, done.err
        assert (done.json["loaded"], done.json["unchanged"]) == (1, 3)
    elif policy == "error":
        assert done.code == 1
    else:
        assert done.code == 0, done.err
        assert (done.json["superseded"], done.json["unchanged"], done.json["outlived"]) == (1, 3, 1)
        assert run_harca("verify", store, database=database).code == 0


def test_rollback_restores_what_a_run_overwrote(tmp_path, database, conn, run_harca):
    store = write_store(tmp_path / "store", 3)
    write_record(store / "a", record("moving", [1.0, 0.0], createdAt=OLD))
    run_harca("migrate", store, database=database)
    before = conn.execute("SELECT v::text FROM vector_embeddings v ORDER BY id").fetchall()
    write_record(store / "a", record("moving", [0.0, 1.0], createdAt=NEW))
    write_record(store / "a", record("added", [0.5, 0.5]))
    second = run_harca("migrate", store, "--json", database=database)

    done = run_harca("rollback", str(second.json["run_id"]), "--json", database=database)

    assert done.code == 0, done.err
    assert (done.json["deleted"], done.json["restored"]) == (1, 1)
    after = conn.execute("SELECT v::text FROM vector_embeddings v ORDER BY id").fetchall()
    assert after == before


@pytest.mark.parametrize("choice", ["refuse", "keep", "delete"])
def test_rows_changed_since_are_not_lost_by_a_rollback(choice, tmp_path, database, conn, run_harca):
    store = write_store(tmp_path / "store", 5)
    run_harca("migrate", store, database=database)
    conn.execute("UPDATE vector_embeddings SET content = 'edited' WHERE content = 'テキスト 2'")

    done = run_harca("rollback", "last", "--changed", choice, database=database)

    left = conn.execute("SELECT count(*) FROM vector_embeddings").fetchone()
    edited = conn.execute("SELECT count(*) FROM vector_embeddings WHERE content = 'edited'")
    if choice == "refuse":
        assert done.code == 4
        assert "1 row of run 1 changed since loading" in done.err
        assert left == (5,)
    else:
        assert done.code == 0, done.err
        assert left == ((1,) if choice == "keep" else (0,))
        assert edited.fetchone() == left


def test_a_run_is_rolled_back_once_and_a_second_time_does_nothing(tmp_path, database, run_harca):
    store = write_store(tmp_path / "store", 3)
    run_harca("migrate", store, database=database)

    first = run_harca("rollback", "1", database=database)
    second = run_harca("rollback", "1", database=database)
    none = run_harca("rollback", "77", database=database)

    assert (first.code, second.code, none.code) == (0, 0, 1)
    assert "run 1 was taken back at" in second.out
    assert "there is no run 77" in none.err


def test_expired_records_are_kept_or_skipped(tmp_path, database, run_harca):
    store = write_store(tmp_path / "store", 4)
    live = datetime(2999, 1, 1, tzinfo=UTC).isoformat()
    write_record(store / "cache", record("live", [1.0], expiresAt=live))
    write_record(store / "cache", record("no date", [1.0], expiresAt="soon"))

    skipped = run_harca("migrate", store, "--expired", "skip", "--json", database=database)
    verified = run_harca("verify", store, "--json", database=database)
    kept = run_harca("migrate", store, "--json", database=database)

    assert skipped.code == 0, skipped.err
    assert (skipped.json["read"], skipped.json["loaded"], skipped.json["skipped"]) == (2, 2, 4)
    assert verified.code == 0, verified.err
    assert (kept.json["loaded"], kept.json["unchanged"]) == (4, 2)


def test_labels_are_kept_verbatim_and_metadata_tells_the_origin(
    tmp_path, database, conn, run_harca
):
    label = "モデル：" + "長い名前" * 30
    store = tmp_path / "store"
    write_record(
        store / "メモ（全角）", record("文", [0.5, 0.25], model=label, version=1742100000000)
    )

    run_harca("migrate", store, "--source", "本番の" * 30, database=database)

    row = conn.execute(
        "SELECT model_id, source, store, store_key, run_id, created_at, metadata "
        "FROM vector_embeddings"
    ).fetchone()
    assert row[0] == label
    assert row[1] == "本番の" * 30
    assert row[2] == str(store)
    assert row[3] == harca_reader.record_key(label, "文")
    assert row[5] == datetime.fromisoformat("2025-03-16T03:08:02.864+00:00")
    assert row[6] == {
        "directory": "メモ（全角）",
        "createdAt": "2025-03-16T03:08:02.864Z",
        "lastAccessed": "2025-03-16T03:08:02.864Z",
        "expiresAt": "2025-03-16T03:09:29.264Z",
        "accessCount": 1,
        "version": 1742100000000,
    }


def test_the_ledger_accounts_for_every_record(tmp_path, database, conn, run_harca):
    store = write_store(tmp_path / "store", 25)
    write_record(store / "a", record("nan", [None]))
    run_harca("migrate", store, "--batch-rows", "4", database=database)

    batches = conn.execute(
        "SELECT number, read, loaded + unchanged + superseded + rejected, committed_at "
        "IS NOT NULL FROM load_batches ORDER BY number"
    ).fetchall()

    assert [batch[0] for batch in batches] == list(range(1, 8))
    assert all(read == accounted and dated for _, read, accounted, dated in batches)
    assert sum(batch[1] for batch in batches) == 26


@pytest.mark.parametrize(
    "sent",
    [signal.SIGINT, signal.SIGTERM, signal.SIGKILL],
    ids=["Ctrl-C", "kill", "kill -9"],
)
def test_an_interrupted_load_goes_on_where_it_was(sent, tmp_path, database, conn, run_harca):
    store = write_store(tmp_path / "store", 600, dims=64)
    environment = {**os.environ, "HARCA_DATABASE_URL": database.conninfo}
    # The fourth batch waits for what this connection holds.
    conn.execute("SELECT pg_advisory_lock(4)")
    conn.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_advisory_xact_lock(4); RETURN NEW; END'"
    )
    conn.execute(
        "CREATE TRIGGER wait BEFORE INSERT ON load_batches FOR EACH ROW WHEN (NEW.number = 4) "
        "EXECUTE FUNCTION wait()"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "harca", "migrate", str(store), "--batch-rows", "20"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    deadline = time.monotonic() + 60
    while conn.execute("SELECT count(*) FROM load_batches").fetchone()[0] < 3:
        assert time.monotonic() < deadline, "no batch came in"
        time.sleep(0.005)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    conn.execute("SELECT pg_advisory_unlock(4)")
    halfway = conn.execute("SELECT count(*) FROM vector_embeddings").fetchone()[0]

    done = run_harca("migrate", store, "--json", database=database)

    assert 0 < halfway < 600
    if sent is not signal.SIGKILL:
        assert process.returncode == (143 if sent is signal.SIGTERM else 130)
        assert "Run the same command again" in err
        assert "Traceback" not in err
    assert done.code == 0, done.err
    assert done.json["resumed"] is True
    assert (done.json["read"], done.json["loaded"], done.json["unchanged"]) == (600, 600, 0)
    assert conn.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (600,)
    assert conn.execute("SELECT DISTINCT run_id FROM vector_embeddings").fetchall() == [(1,)]


def test_a_moved_store_is_known_by_its_name(tmp_path, database, run_harca):
    store = write_store(tmp_path / "store", 4)
    run_harca("migrate", store, "--name", "production", database=database)
    moved = store.rename(tmp_path / "elsewhere")

    done = run_harca("migrate", moved, "--name", "production", "--json", database=database)

    assert (done.json["loaded"], done.json["unchanged"]) == (0, 4)


def test_progress_goes_to_stderr_and_the_result_to_stdout(tmp_path, database, run_harca):
    store = write_store(tmp_path / "store", 3)

    text = run_harca("migrate", store, database=database)
    as_json = run_harca("migrate", store, "--json", database=database)
    quiet = run_harca("migrate", store, "-q", database=database)
    verbose = run_harca("migrate", store, "-v", database=database)

    assert "load (about 3 entries)" in text.err
    assert text.out.startswith("run 1: read 3 = 3 loaded")
    assert json.loads(as_json.out)["read"] == 3
    assert (quiet.out, quiet.err) == ("", "")
    assert "DEBUG harca.sql: INSERT INTO load_runs" in verbose.err


def test_sql_in_a_label_is_only_a_label(tmp_path, database, conn, run_harca):
    label = "x'); DROP TABLE vector_embeddings; --%s{}\""
    store = tmp_path / "store"
    for number in range(1100):
        angle = number * 2 * math.pi / 1100
        vector = [math.cos(angle), math.sin(angle)]
        write_record(store, record(f"t{number}", vector, model=label))

    done = run_harca("migrate", store, "--json", database=database)
    found = run_harca("search", "--text", "t7", "--json", "-k", "2", database=database)

    assert (done.code, found.code) == (0, 0), done.err + found.err
    assert found.json["results"][0]["content"] == "t7"
    assert found.json["answered_by"].startswith("vector_embeddings_ann_")
    assert conn.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (1100,)


def test_an_invalid_index_is_built_again(tmp_path, database, conn, run_harca):
    store = tmp_path / "store"
    for number in range(1000):
        write_record(store, record(f"t{number}", [1.0, number]))
    first = run_harca("migrate", store, "--json", database=database)
    (name,) = [one for one in first.json["indexes_built"] if "_ann_" in one]
    conn.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", [name])

    done = run_harca("migrate", store, "--json", database=database)

    assert name in done.json["indexes_built"]
    valid = conn.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = %s::regclass", [name])
    assert valid.fetchone() == (True,)


def test_a_guessed_id_that_repeats_with_other_contents_stops_the_load(
    tmp_path, database, run_harca
):
    store = tmp_path / "store"
    store.mkdir()
    for part in range(2):
        rows = [{"id": n, "text": f"{part} {n}", "embedding": [1.0, n, part]} for n in range(3)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (store / f"part-{part}.jsonl").write_text(text)

    refused = run_harca("migrate", store, "--json", database=database)
    by_place = run_harca("migrate", store, "--id-field", "-", "--json", database=database)
    named = run_harca(
        "migrate", store, "--id-field", "id", "--name", "named", "--json", database=database
    )

    assert refused.code == 1
    assert 'key "0" has different contents in part-0.jsonl:1 and part-1.jsonl:1' in refused.err
    assert "--id-field - to know records by where they stand" in refused.err
    assert (by_place.code, by_place.json["loaded"]) == (0, 6)
    assert (named.json["loaded"], named.json["superseded"]) == (3, 3)
