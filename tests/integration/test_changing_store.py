"""Stores that programs write to while they are migrated: it ends, and nothing is lost."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest

from harca.cli import render
from harca.migrate import MOST_PASSES, migrate
from harca.options import LoadOptions
from harca.postgres.lock import lock_store
from harca.watcher import Unwatched
from tests.stores import record, write_record, write_store

pytestmark = pytest.mark.one_server

# Told to end, they finish what they are writing.
ENDS = """
import json, signal, sqlite3, sys, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(True))
"""

# As HARCA does on every read: the file is truncated, and written again with new counters.
HARCA = """
from hashlib import sha256
from pathlib import Path
root = Path(sys.argv[1])
known = sorted(root.rglob("*.json"))[:20]
number = 0
while not told:
    number += 1
    path = known[number % len(known)]
    value = json.loads(path.read_text("utf-8"))
    if "accessCount" in value:
        value["accessCount"] += 1
        text = json.dumps(value, ensure_ascii=False)
        with path.open("w", encoding="utf-8") as file:
            file.write(text[: len(text) // 2])
            file.flush()
            time.sleep(0.001)
            file.write(text[len(text) // 2 :])
    new = {**value, "text": f"new {number}", "modelName": "test-model", "embedding": [1.0, number]}
    name = sha256(f"test-model:new {number}".encode()).hexdigest()
    (root / f"{name}.json").write_text(json.dumps(new))
    print(number, flush=True)
    time.sleep(0.01)
"""

# Half a line at a time.
JSONL = """
with open(sys.argv[1], "a") as file:
    number = 0
    while not told:
        number += 1
        line = json.dumps({"id": f"new {number}", "text": "t", "embedding": [0.5, number]})
        for part in (line[:20], line[20:] + "\\n"):
            file.write(part)
            file.flush()
            time.sleep(0.002)
        print(number, flush=True)
"""

SQLITE = """
with sqlite3.connect(sys.argv[1], isolation_level=None) as database:
    number = 0
    while not told:
        number += 1
        row = [f"new {number}", f"[0.5, {number}]"]
        database.execute("INSERT INTO items VALUES (?, 't', ?)", row)
        print(number, flush=True)
        time.sleep(0.01)
"""


@contextmanager
def writing(program, store):
    """Have a process write to *store* all the time."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENDS + program, str(store)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline()  # it has begun
        yield
        assert process.poll() is None, "the writer has ended by itself"
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def harca_store(tmp_path):
    return write_store(tmp_path / "store", 60)


def jsonl_store(tmp_path):
    path = tmp_path / "items.jsonl"
    lines = (
        json.dumps({"id": str(number), "text": f"t {number}", "embedding": [1.0, number]})
        for number in range(60)
    )
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def sqlite_store(tmp_path, *, mode):
    path = tmp_path / "items.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"PRAGMA journal_mode = {mode}")
        database.execute("CREATE TABLE items (id TEXT PRIMARY KEY, text TEXT, embedding TEXT)")
        database.executemany(
            "INSERT INTO items VALUES (?, ?, ?)",
            [(str(number), f"t {number}", f"[1.0, {number}]") for number in range(60)],
        )
    return path


STORES = {
    "harca": (harca_store, HARCA),
    "jsonl": (jsonl_store, JSONL),
    "sqlite": (lambda path: sqlite_store(path, mode="DELETE"), SQLITE),
    "sqlite with a log": (lambda path: sqlite_store(path, mode="WAL"), SQLITE),
}


@pytest.mark.parametrize(("made", "program"), STORES.values(), ids=STORES)
def test_a_store_that_is_written_to_all_the_time_is_migrated_all_the_same(
    made, program, tmp_path, database, conn
):
    store = made(tmp_path)

    with writing(program, store):
        done = migrate(store, lambda: database, LoadOptions())

    assert done.verification.ok, done.verification.as_dict()
    assert done.complete, done.result.rejected
    assert len(done.earlier) == MOST_PASSES - 1
    assert done.written_since >= 1
    assert "run again to take in the rest" in render.migration(done)
    assert stood_before(conn) == 60

    rest = migrate(store, lambda: database, LoadOptions())

    assert rest.complete, rest.verification.as_dict()
    assert (rest.earlier, rest.written_since) == ((), 0)
    assert rest.result.tally.loaded >= 1
    assert rest.result.tally.read == rest.result.tally.loaded + rest.result.tally.unchanged
    (rows,) = conn.execute("SELECT count(*) FROM vector_embeddings").fetchone()
    assert rows == rest.result.tally.read > 60


def stood_before(conn):
    (count,) = conn.execute(
        "SELECT count(*) FROM vector_embeddings "
        "WHERE store_key NOT LIKE 'new %' AND content NOT LIKE 'new %'"
    ).fetchone()
    return count


class Meddler(Unwatched):
    """Does something to the store, or the table, when a stage or a step is reached."""

    def __init__(self, *, at, does, times=1):
        self.at, self.does, self.left = at, does, times

    def stage(self, name, total=None):
        self._reached(name)

    def step(self, done):
        self._reached("step")

    def _reached(self, what):
        if what == self.at and self.left:
            self.left -= 1
            self.does()


def last_file(store):
    """Return the file that is read last, which is in the folder that is listed last."""
    folder = sorted(path for path in store.rglob("*") if list(path.glob("*.json")))[-1]
    return max(path for path in folder.glob("*.json") if path.name != "stats.json")


def test_a_file_that_is_gone_when_it_is_to_be_read_is_noted(tmp_path, database, conn):
    store = write_store(tmp_path / "store", 60)
    meddler = Meddler(at="step", does=lambda: last_file(store).unlink())

    # After the first batch the second one has been read, and the last folder listed.
    done = migrate(store, lambda: database, LoadOptions(batch_rows=25), watcher=meddler)

    assert [one.result.tally.read for one in (*done.earlier, done)] == [60, 59]
    assert done.earlier[0].result.rejected == {"vanished": 1}
    assert done.complete
    assert done.written_since == 0
    noted = conn.execute("SELECT run_id, reason FROM rejections").fetchall()
    assert noted == [(done.earlier[0].run_id, "vanished")]


def test_a_file_that_appears_meanwhile_is_taken_in(tmp_path, database, run_harca, conn):
    store = write_store(tmp_path / "store", 60)
    meddler = Meddler(at="verify", does=lambda: write_record(store, record("new", [1.0, 2.0])))

    done = migrate(store, lambda: database, LoadOptions(), watcher=meddler)

    assert done.complete
    first, last = done.earlier[0].result.tally, done.result.tally
    assert (first.loaded, last.loaded, last.unchanged) == (60, 1, 60)
    shown = render.migration(done)
    assert "run 1: read 60 = 60 loaded" in shown
    assert "run 2: read 61 = 1 loaded" in shown
    assert shown.endswith("To take it back: harca rollback 2, then 1")
    for run in ("2", "1"):
        assert run_harca("rollback", run, database=database).code == 0
    assert conn.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (0,)


def test_who_takes_the_store_between_two_passes_takes_in_what_is_new(tmp_path, database, conn):
    store = write_store(tmp_path / "store", 60)

    class Another(Meddler):
        def stage(self, name, total=None):
            super().stage(name, total)
            if name.startswith("pass 2"):
                assert name == "pass 2 of 3 at most: 1 file written meanwhile"
                lock_store(conn, str(store))

    another = Another(at="verify", does=lambda: write_record(store, record("new", [1.0, 2.0])))

    done = migrate(store, lambda: database, LoadOptions(), watcher=another)

    assert (done.earlier, done.written_since) == ((), 1)


def test_half_a_file_is_read_again_when_it_is_whole(tmp_path, database, monkeypatch):
    store = write_store(tmp_path / "store", 60)
    path = last_file(store)
    data = path.read_bytes()
    pauses = []

    def write_the_rest(seconds):
        pauses.append(seconds)
        if len(pauses) == 4:
            path.write_bytes(data)

    monkeypatch.setattr("harca.readers.files.time.sleep", write_the_rest)
    meddler = Meddler(at="step", does=lambda: path.write_bytes(data[:-30]))

    done = migrate(store, lambda: database, LoadOptions(batch_rows=10), watcher=meddler)

    assert done.complete
    assert done.earlier[0].result.rejected == {}
    assert len(pauses) == 4


def test_half_a_file_that_stays_so_is_rejected(tmp_path, database):
    store = write_store(tmp_path / "store", 60)
    path = last_file(store)
    data = path.read_bytes()
    meddler = Meddler(at="step", does=lambda: path.write_bytes(data[:-30]))

    done = migrate(store, lambda: database, LoadOptions(batch_rows=10), watcher=meddler)

    assert not done.complete
    assert done.result.rejected == {"unparsable": 1}


def test_what_is_missing_is_not_excused_by_a_store_that_changes(tmp_path, database, conn):
    store = write_store(tmp_path / "store", 60)
    numbers = iter(range(100))

    def meddle():
        write_record(store, record(f"new {next(numbers)}", [1.0, 2.0]))
        conn.execute("DELETE FROM vector_embeddings WHERE content = 'テキスト 7'")

    meddler = Meddler(at="verify", does=meddle, times=MOST_PASSES)

    done = migrate(store, lambda: database, LoadOptions(), watcher=meddler)

    assert not done.complete
    assert done.verification.mismatch_count == 2  # the new one and the one that was deleted
    shown = render.migration(done)
    assert "missing" in shown
    assert (
        "1 file was written to since the last pass began, which may be all that differs: stop "
        "what writes to the store, and run again"
    ) in shown

    again = migrate(store, lambda: database, LoadOptions())

    assert again.complete
    assert again.result.tally.loaded == 2


def test_the_exit_code_and_the_json_tell_of_the_passes(tmp_path, database, run_harca):
    store = write_store(tmp_path / "store", 60)

    with writing(HARCA, store):
        done = run_harca("migrate", store, "--json", database=database)

    assert done.code == 0, done.out
    assert "pass 2 of 3 at most: " in done.err
    assert [one["run_id"] for one in done.json["passes"]] == [1, 2, 3]
    assert done.json["run_id"] == 3
    assert done.json["passes"][0]["loaded"] >= 60
    assert done.json["written_since"] >= 1
