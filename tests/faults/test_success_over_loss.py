"""Success over loss is impossible: each way in which loaders have reported it, tried for real.

Exit code 0 means that every record is in and compared. Anything else says what is missing.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from tests.stores import record, write_record, write_store

pytestmark = pytest.mark.one_server


STRANGERS = (
    "INSERT INTO vector_embeddings (content, embedding, metadata, model_id{columns}) "
    "SELECT 'a stranger', '[1,0,0,0]', '{{}}', 'unknown'{values} FROM generate_series(1, 5) n"
)


def lines(count, **fields):
    """Return *count* records as JSON values, in four dimensions."""
    return [
        {"id": f"k{number}", "text": f"text {number}", "embedding": [1.0, number, 0.5, -2.0]}
        | fields
        for number in range(count)
    ]


def write_lines(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def on_insert(conn, action, *, table="vector_embeddings", name="meddle", event="INSERT"):
    """Have a trigger act on each row of *table*."""
    conn.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {action}; RETURN NEW; END $$"
    )
    conn.execute(
        f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
    )


def count_of(conn, where="true"):
    return conn.execute(f"SELECT count(*) FROM vector_embeddings WHERE {where}").fetchone()[0]


def rejections(run_unbacked, database):
    found = run_unbacked("rejections", "list", "--json", database=database).json["rejections"]
    return {row["origin"]: row["reason"] for row in found}


def test_counts_that_match_by_chance(tmp_path, database, conn, run_unbacked):
    conn.execute(STRANGERS.format(columns="", values=""))
    on_insert(conn, "IF NEW.content >= 'text 5' THEN RETURN NULL; END IF")
    store = write_lines(tmp_path / "store.jsonl", lines(10))

    done = run_unbacked("migrate", store, "--id-field", "id", "--json", database=database)

    assert done.code == 3, done.err
    assert (done.json["loaded"], done.json["rejected"]) == (5, 5)
    assert count_of(conn) == 10
    # Now the same number of rows even under the store's name, and in the same space.
    conn.execute("DROP TRIGGER meddle ON vector_embeddings")
    assert run_unbacked("migrate", store, "--id-field", "id", database=database).code == 0
    conn.execute("DELETE FROM vector_embeddings WHERE content >= 'text 5'")
    conn.execute(STRANGERS.format(columns=", store, store_key", values=f", '{store}', 's' || n"))

    found = run_unbacked("verify", store, "--json", database=database)

    assert found.code == 3, found.err
    assert {one["store_key"]: one["difference"] for one in found.json["mismatches"]} == {
        **{f"k{number}": "missing" for number in range(5, 10)},
        **{f"s{number}": "extra" for number in range(1, 6)},
    }


def test_every_record_rejected_and_the_load_called_done(
    tmp_path, database, conn, run_unbacked, run_alembic
):
    store = write_store(tmp_path / "store", 5)
    on_insert(conn, "RAISE 'no'")
    load = ("-n", "data", "-x", f"store={store}", "-x", "max_rejects=5")

    loaded = run_unbacked("migrate", store, "--max-rejects", "5", "--json", database=database)
    stamped = run_alembic(*load, "upgrade", "head", database=database)

    assert (loaded.code, stamped.code) == (3, 255)
    assert (loaded.json["read"], loaded.json["loaded"], loaded.json["rejected"]) == (5, 0, 5)
    assert loaded.json["verified"] is False
    assert "records that are not rejected: expected 1 or more, found 0" in stamped.err
    assert conn.execute("SELECT FROM alembic_version_data").fetchall() == []
    # What went wrong once can be done, taken back and done again.
    conn.execute("DROP TRIGGER meddle ON vector_embeddings")
    for command, rows in (
        (("upgrade", "head"), 5),
        (("downgrade", "-1"), 0),
        (("upgrade", "head"), 5),
    ):
        assert run_alembic(*load, *command, database=database).code == 0
        assert count_of(conn) == rows


def test_rows_counted_before_the_server_has_them(tmp_path, database, conn, run_unbacked):
    store = write_lines(tmp_path / "store.jsonl", lines(6))
    # After COPY has counted them, within the same transaction.
    on_insert(conn, "DELETE FROM vector_embeddings WHERE content = 'text 3'", table="load_batches")

    done = run_unbacked("migrate", store, "--json", database=database)

    assert done.code == 3, done.err
    failed = {check["name"] for check in done.json["verification"]["checks"] if not check["ok"]}
    assert failed == {"ledger", "records", "space unknown/4", "fingerprint"}
    assert done.json["verification"]["mismatches"][0]["difference"] == "missing"


def test_a_checkpoint_ahead_of_the_data(tmp_path, database, conn, run_unbacked):
    store = write_lines(tmp_path / "store.jsonl", lines(100))
    on_insert(
        conn,
        "IF NEW.number = 4 AND NEW.attempt = 1 THEN PERFORM pg_advisory_xact_lock(4); END IF",
        table="load_batches",
    )
    conn.execute("SELECT pg_advisory_lock(4)")
    command = [sys.executable, "-m", "harca", "migrate", str(store), "--batch-rows", "10"]
    environment = {**os.environ, "HARCA_DATABASE_URL": database.conninfo}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as killed:
        # The batch is in flight, with its note, and the next one is read.
        waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        deadline = time.monotonic() + 60
        while not conn.execute(waits).fetchall() and time.monotonic() < deadline:
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
    conn.execute("SELECT pg_advisory_unlock(4)")

    refused = run_unbacked("verify", store, database=database)
    resumed = run_unbacked("migrate", store, "--batch-rows", "10", "--json", database=database)

    assert refused.code == 1
    assert "is not finished" in refused.err
    assert resumed.code == 0, resumed.err
    assert resumed.json["resumed"] is True
    assert (resumed.json["read"], resumed.json["loaded"], count_of(conn)) == (100, 100, 100)


def test_a_batch_that_fails_for_good_and_is_passed_over(tmp_path, database, conn, run_unbacked):
    store = write_lines(tmp_path / "store.jsonl", lines(50))
    on_insert(
        conn,
        "IF NEW.content = 'text 25' "
        "THEN RAISE 'the disk is broken' USING ERRCODE = '58030'; END IF",
    )
    command = ("migrate", store, "--id-field", "id", "--batch-rows", "10")

    failed = [run_unbacked(*command, database=database) for _ in range(2)]
    unfinished = run_unbacked("verify", store, database=database)
    conn.execute("DROP TRIGGER meddle ON vector_embeddings")
    done = run_unbacked(*command, "--json", database=database)

    assert [one.code for one in failed] == [1, 1]
    assert all("the disk is broken" in one.err and not one.out for one in failed)
    assert unfinished.code == 1
    assert (done.code, done.json["loaded"], done.json["resumed"]) == (0, 50, True)


def test_an_error_in_a_worker_that_nobody_reads(tmp_path, database, run_unbacked, monkeypatch):
    """The process that reads ahead ends midway, as if it were out of memory."""
    monkeypatch.setattr("harca.ahead.WORTH_ENTRIES", 10)
    marker = tmp_path / "sitecustomize.py"
    marker.write_text(
        "import os, harca.ahead as a\n"
        "whole = a.batched\n"
        "def some(entries, rows):\n"
        "    for batch in whole(entries, rows=rows):\n"
        "        if batch.number == 3: os.kill(os.getpid(), 9)\n"
        "        yield batch\n"
        "a.batched = some\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    store = write_store(tmp_path / "store", 50)

    failed = run_unbacked("migrate", store, "--batch-rows", "10", database=database)
    marker.unlink()
    done = run_unbacked("migrate", store, "--batch-rows", "10", "--json", database=database)

    assert failed.code == 1
    assert "the process that read the store ended early (exit code -9)" in failed.err
    assert (done.code, done.json["read"], done.json["loaded"]) == (0, 50, 50)


def test_a_key_that_is_longer_than_the_first(tmp_path, database, conn, run_unbacked):
    keys = ["k", "k" * 300, "ключ " * 100, "k" * 2_000]
    values = [value | {"id": key} for value, key in zip(lines(4), keys, strict=True)]
    store = write_lines(tmp_path / "store.jsonl", values)

    done = run_unbacked(
        "migrate", store, "--id-field", "id", "--batch-rows", "1", database=database
    )

    assert done.code == 0, done.err
    stored = conn.execute("SELECT store_key FROM vector_embeddings").fetchall()
    assert {key for (key,) in stored} == set(keys)


def test_an_empty_verification_that_passes(tmp_path, database, conn, run_unbacked):
    store = write_lines(tmp_path / "store.jsonl", lines(5))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    without = write_lines(tmp_path / "without.jsonl", [{"text": "a"}, {"text": "b"}])

    never_loaded = run_unbacked("verify", store, database=database)
    nothing_loaded = run_unbacked("verify", database=database)
    no_records = [run_unbacked("migrate", path, database=database) for path in (empty, without)]
    assert run_unbacked("migrate", store, "--id-field", "id", database=database).code == 0
    conn.execute("DELETE FROM vector_embeddings")
    no_rows = run_unbacked("verify", store, database=database)
    store.write_text("")
    neither = run_unbacked("verify", store, database=database)

    assert (never_loaded.code, nothing_loaded.code) == (1, 1)
    assert [one.code for one in no_records] == [1, 1]
    assert no_rows.code == 3
    assert "records: expected 5, found 0" in no_rows.out
    assert neither.code == 1
    assert neither.err.count("error: ") == 1


def test_what_the_store_has_no_more_or_has_otherwise(tmp_path, database, run_unbacked):
    store = write_lines(tmp_path / "store.jsonl", lines(6))
    assert run_unbacked("migrate", store, "--id-field", "id", database=database).code == 0
    values = lines(6)
    values[1]["text"] = "another text"
    values[2]["embedding"][3] = float(np.nextafter(np.float32(-2), np.float32(0)))
    values[3]["note"] = "a value more"
    write_lines(store, values[:5])

    found = run_unbacked("verify", store, "--json", database=database)

    assert found.code == 3, found.err
    assert {one["store_key"]: one["difference"] for one in found.json["mismatches"]} == {
        "k1": "content", "k2": "embedding", "k3": "metadata", "k5": "extra",
    }  # fmt: skip
    again = run_unbacked("migrate", store, "--id-field", "id", database=database)
    assert again.code == 3  # a record that is gone does not take its row along
    assert "k5: extra" in again.out


def test_rows_changed_on_their_way_in(tmp_path, database, conn, run_unbacked):
    on_insert(conn, "NEW.content := upper(NEW.content)")
    store = write_lines(tmp_path / "store.jsonl", lines(3))

    done = run_unbacked("migrate", store, "--json", database=database)

    assert done.code == 3, done.err
    assert done.json["verification"]["mismatch_count"] == 3
    assert {one["difference"] for one in done.json["verification"]["mismatches"]} == {"content"}


def test_new_contents_that_an_update_leaves_out(tmp_path, database, conn, run_unbacked):
    store = write_lines(tmp_path / "store.jsonl", lines(4))
    run_unbacked("migrate", store, "--id-field", "id", database=database)
    conn.execute(
        "CREATE RULE swallow AS ON UPDATE TO vector_embeddings "
        "WHERE OLD.store_key = 'k2' DO INSTEAD NOTHING"
    )
    write_lines(store, lines(4, note="new"))

    done = run_unbacked("migrate", store, "--id-field", "id", "--json", database=database)

    assert done.code == 3, done.err
    assert (done.json["loaded"], done.json["rejected"], done.json["outlived"]) == (3, 1, 1)
    assert rejections(run_unbacked, database) == {"store.jsonl:3": "refused-by-server"}


def test_one_bad_record_stops_or_spoils_the_rest(tmp_path, database, conn, run_unbacked):
    values = lines(20)
    values[11]["embedding"] = [float("nan"), 1, 1, 1]
    values[12]["embedding"] = [1, float("inf"), 1, 1]
    values[13]["embedding"] = None
    values[14]["text"] = "NUL \0"
    values[15]["note"] = float("nan")
    values[16]["embedding"] = [1, 2, 3, "4"]
    values[17]["embedding"] = [1.0, 2.0]  # of two dimensions: a space of its own
    values[18]["embedding"] = [0, 0, 0, 0]
    store = write_lines(tmp_path / "store.jsonl", values)

    done = run_unbacked("migrate", store, "--id-field", "id", "--json", database=database)

    assert done.code == 3, done.err
    assert (done.json["read"], done.json["loaded"], done.json["rejected"]) == (20, 14, 6)
    assert done.json["verified"] is True
    assert rejections(run_unbacked, database) == {
        "store.jsonl:12": "non-finite",
        "store.jsonl:13": "non-finite",
        "store.jsonl:14": "no-vector",
        "store.jsonl:15": "nul-in-text",
        "store.jsonl:16": "bad-metadata",
        "store.jsonl:17": "not-a-vector",
    }
    assert {(space["dims"], space["records"]) for space in done.json["spaces"]} == {(2, 1), (4, 13)}
    assert done.json["warnings"] == {"zero-vector": 1}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_one_id_for_several_records(kind, tmp_path, database, conn, run_unbacked):
    values = lines(20)
    values[12]["id"] = "k3"
    values[13] = values[4]
    store = tmp_path / f"store.{kind}"
    if kind == "jsonl":
        write_lines(store, values)
    else:
        pq.write_table(pa.Table.from_pylist(values), store)

    guessed = run_unbacked("migrate", store, "--name", "guessed", "--json", database=database)
    named = run_unbacked("migrate", store, "--id-field", "id", "--json", database=database)

    # Where the field was guessed, it is no id, or the load says so.
    if guessed.code == 0:
        assert guessed.json["loaded"] == 20
    else:
        assert guessed.code == 1
        assert "k3" in guessed.err
    assert named.code == 0, named.err
    assert (named.json["read"], named.json["loaded"], named.json["superseded"]) == (20, 18, 2)
    lost = conn.execute("SELECT store_key, kind FROM superseded ORDER BY store_key").fetchall()
    assert lost == [("k3", "conflict"), ("k4", "duplicate")]
    conn.execute("DELETE FROM superseded WHERE kind = 'conflict'")
    assert run_unbacked("verify", store, database=database).code == 3


def test_values_that_only_look_like_others(tmp_path, database, conn, run_unbacked):
    texts = ["1e5", "null", "true", "{}", "[1]", '"quoted"', "NaN", " 1 ", "", "0x10", "2025-01-01"]
    values = lines(1, note=texts, **{f"f{number}": text for number, text in enumerate(texts)})
    values[0]["text"] = "1e5"
    store = write_lines(tmp_path / "store.jsonl", values)

    done = run_unbacked("migrate", store, "--id-field", "id", database=database)

    assert done.code == 0, done.err
    metadata, content = conn.execute("SELECT metadata, content FROM vector_embeddings").fetchone()
    assert content == "1e5"
    assert metadata["note"] == texts
    assert [metadata[f"f{number}"] for number in range(len(texts))] == texts


def cut(path, whole):
    path.write_bytes(whole[: len(whole) - len(whole) // 3])
    return path


def cut_jsonl(folder):
    values = "".join(json.dumps(value) + "\n" for value in lines(30))
    return cut(folder / "store.jsonl", values.encode())


def cut_json(folder):
    return cut(folder / "store.json", json.dumps(lines(30)).encode())


def cut_gzip(folder):
    values = "".join(json.dumps(value) + "\n" for value in lines(30))
    return cut(folder / "store.jsonl.gz", gzip.compress(values.encode()))


def cut_csv(folder):
    rows = [f'k{number},"text {number}","[1.0, {number}, 0.5]"' for number in range(30)]
    return cut(folder / "store.csv", "\n".join(["id,text,embedding", *rows]).encode())


def cut_npy(folder):
    whole = folder / "whole.npy"
    np.save(whole, np.ones((30, 4), np.float32))
    taken = whole.read_bytes()
    whole.unlink()
    (folder / "store").mkdir()
    (folder / "store" / "texts.json").write_text(json.dumps([f"text {n}" for n in range(30)]))
    cut(folder / "store" / "embeddings.npy", taken)
    return folder / "store"


def cut_parquet(folder):
    whole = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(lines(30)), whole)
    return cut(folder / "store.parquet", whole.getvalue().to_pybytes())


def cut_record(folder):
    store = write_store(folder / "store", 5)
    path = write_record(store, record("cut", [0.5] * 50))
    cut(path, path.read_bytes())
    return store


CUTS = (cut_jsonl, cut_json, cut_gzip, cut_csv, cut_npy, cut_parquet, cut_record)


def test_a_file_that_was_cut_short_and_is_read_as_whole(tmp_path, database, run_unbacked):
    codes = {}
    for make in CUTS:
        folder = tmp_path / make.__name__
        folder.mkdir()

        done = run_unbacked("migrate", make(folder), "--json", database=database)

        codes[make.__name__] = done.code
        if done.code == 3:
            assert done.json["rejected"] > 0, make
            assert done.json["verified"] is True, make
        else:
            assert "error: " in done.err, make
            assert "hint: " in done.err, make
    # Of these two nothing can be read without their ends.
    assert codes == dict.fromkeys(codes, 3) | {"cut_gzip": 1, "cut_parquet": 1}


def test_more_rows_in_one_batch_than_a_statement_has_parameters(
    tmp_path, database, conn, run_unbacked
):
    store = write_lines(tmp_path / "store.jsonl", lines(6_600))

    done = run_unbacked(
        "migrate", store, "--id-field", "id", "--batch-rows", "50000", "--json", database=database
    )

    assert done.code == 0, done.err
    assert (done.json["loaded"], count_of(conn)) == (6_600, 6_600)
    assert conn.execute("SELECT count(*) FROM load_batches").fetchone() == (1,)


def test_a_list_of_what_is_not_in_the_table_that_lacks_some(tmp_path, database, conn, run_unbacked):
    """A record that is in no row must be in a list, or the run has lost it."""
    for table in ("rejections", "superseded"):
        on_insert(conn, "RETURN NULL", table=table, name=f"on_{table}")
    values = lines(6)
    values[3]["id"] = "k1"
    lost = write_lines(tmp_path / "lost.jsonl", values)
    values[3]["id"] = "k3"
    values[4]["embedding"] = [1, None, 1, 1]
    rejected = write_lines(tmp_path / "rejected.jsonl", values)
    command = ("--id-field", "id", "--max-rejects", "1", "--json")

    done = [
        run_unbacked("migrate", store, *command, database=database) for store in (lost, rejected)
    ]

    assert [one.code for one in done] == [3, 3]
    for one in done:
        failed = {c["name"] for c in one.json["verification"]["checks"] if not c["ok"]}
        assert "ledger" in failed
    # What does not get onto one list is on the other.
    conn.execute("DROP TRIGGER on_rejections ON rejections")
    again = run_unbacked("migrate", lost, *command, database=database)
    assert again.code == 0, again.err
    assert (again.json["superseded"], again.json["rejected"]) == (0, 1)
    assert "superseded" in conn.execute("SELECT detail FROM rejections").fetchone()[0]


def test_a_run_whose_end_was_never_noted(tmp_path, database, conn, run_unbacked):
    on_insert(conn, "RETURN NULL", table="load_batches")
    store = write_lines(tmp_path / "store.jsonl", lines(4))

    done = run_unbacked("migrate", store, "--json", database=database)

    assert done.code == 3, done.err
    failed = {check["name"] for check in done.json["verification"]["checks"] if not check["ok"]}
    assert "ledger" in failed


def test_a_field_that_is_not_there(tmp_path, database, conn, run_unbacked):
    store = write_lines(tmp_path / "store.jsonl", lines(3))

    for option in ("--id-field", "--vector-field", "--text-field", "--metadata-field"):
        wrong = run_unbacked("migrate", store, option, "no_such_field", database=database)

        assert wrong.code == 2, option
        assert 'no field "no_such_field"' in wrong.err
    assert count_of(conn) == 0


def test_an_interruption_that_nobody_can_be_told_of(tmp_path, database, conn):
    """As of `harca ... 2>&1 | tee log`, where Ctrl-C ends tee first."""
    store = write_store(tmp_path / "store", 3)
    with database.connect(autocommit=False) as other:
        other.execute("LOCK TABLE load_batches IN EXCLUSIVE MODE")
        process = subprocess.Popen(
            [sys.executable, "-m", "harca", "migrate", store, "--no-backup", "--quiet"],
            env={**os.environ, "HARCA_DATABASE_URL": database.conninfo},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
        )
        assert process.stderr is not None
        process.stderr.close()
        until = time.monotonic() + 60
        while not conn.execute("SELECT FROM pg_locks WHERE NOT granted").rowcount:
            assert time.monotonic() < until, "it has not come to the table"
            time.sleep(0.05)

        process.terminate()
        process.wait(60)

    assert process.returncode == 143
    assert count_of(conn) == 0
