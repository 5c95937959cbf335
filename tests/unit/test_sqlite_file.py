"""SQLite files are opened as they lie, and nothing is written beside them."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from harca.errors import LfsPointer, SourceError
from harca.readers.sqlite_file import connect, is_sqlite

CRASH = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    db.execute(statement)
os._exit(0)
"""


def crash(path, *statements):
    """Run statements in a program that ends without closing the database."""
    subprocess.run([sys.executable, "-c", CRASH, str(path), *statements], check=True)


def made(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in ("CREATE TABLE t(x)", "INSERT INTO t VALUES (1)", *statements):
            db.execute(statement)
    return path


def lies_in(folder):
    return {one.name: (one.read_bytes(), one.stat().st_mtime_ns) for one in folder.iterdir()}


def values(path):
    with closing(connect(path)) as db:
        return [value for (value,) in db.execute("SELECT x FROM t ORDER BY rowid")]


def rollback(path):
    made(path)


def wal_without_log(path):
    made(path, "PRAGMA journal_mode=WAL")


def wal_with_log(path):
    made(path)
    crash(path, "PRAGMA journal_mode=WAL", "INSERT INTO t VALUES (2)")


def wal_with_log_alone(path):
    wal_with_log(path)
    path.with_name(path.name + "-shm").unlink()


def hot_journal(path):
    made(path)
    crash(
        path,
        "PRAGMA cache_size=1",
        "BEGIN",
        "UPDATE t SET x = 3",
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)"
        " INSERT INTO t SELECT randomblob(500) FROM n",
    )
    assert path.with_name(path.name + "-journal").stat().st_size


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (rollback, [1]),
        (wal_without_log, [1]),
        (wal_with_log, [1, 2]),
        (wal_with_log_alone, [1, 2]),
        (hot_journal, [1]),
    ],
)
@pytest.mark.parametrize("name", ["store.db", "日本 %3f?#.db"])
def test_what_is_committed_is_read_and_nothing_is_written(make, expected, name, tmp_path):
    make(tmp_path / name)
    before = lies_in(tmp_path)

    assert values(tmp_path / name) == expected

    assert lies_in(tmp_path) == before


def test_a_database_in_use_is_read(tmp_path):
    path = made(tmp_path / "store.db", "PRAGMA journal_mode=WAL")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("INSERT INTO t VALUES (2)")

        assert values(path) == [1, 2]

        db.execute("INSERT INTO t VALUES (3)")
        assert values(path) == [1, 2, 3]


def test_a_link_is_followed_to_the_log(tmp_path):
    (tmp_path / "real").mkdir()
    wal_with_log_alone(tmp_path / "real" / "store.db")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "store.db")

    assert values(tmp_path / "link") == [1, 2]


def test_a_copy_goes_with_its_connection(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    wal_with_log_alone(tmp_path / "store.db")

    db = connect(tmp_path / "store.db")

    assert len(os.listdir(tmp_path / "temporary")) == 1
    db.close()
    assert not os.listdir(tmp_path / "temporary")


def test_text_that_is_no_utf8_comes_with_surrogates(tmp_path):
    path = made(tmp_path / "store.db", "INSERT INTO t VALUES (CAST(x'61ff' AS TEXT))")

    assert values(path) == [1, "a\udcff"]


def test_a_database_cannot_be_written(tmp_path):
    path = made(tmp_path / "store.db")

    with closing(connect(path)) as db, pytest.raises(sqlite3.OperationalError):
        db.execute("INSERT INTO t VALUES (2)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no SQLite database"),
        (b"hello", "is no SQLite database"),
        (b"SQLite format 3\0", "cannot be read as a SQLite database: file is not a database"),
        (b"SQLite format 3\0" + bytes(500), "cannot be read as a SQLite database"),
    ],
    ids=["empty", "text", "magic alone", "zeros"],
)
def test_what_is_no_database_is_refused(content, message, tmp_path):
    path = tmp_path / "store.db"
    path.write_bytes(content)

    with pytest.raises(SourceError) as caught:
        connect(path)

    assert f'"{path}" {message}' in str(caught.value)
    assert caught.value.hint.endswith(".")


def test_an_lfs_pointer_is_told(tmp_path):
    path = tmp_path / "store.db"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")

    for ask in (connect, is_sqlite):
        with pytest.raises(LfsPointer):
            ask(path)


def test_a_database_is_known_by_its_first_bytes(tmp_path):
    path = made(tmp_path / "store")
    shutil.copy(path, tmp_path / "renamed.txt")
    (tmp_path / "other").write_bytes(b"SQLite")

    assert [is_sqlite(tmp_path / name) for name in ("store", "renamed.txt", "other", "none")] == [
        True, True, False, False,
    ]  # fmt: skip


def test_a_file_cut_short_within_a_page_is_refused(tmp_path):
    path = tmp_path / "s.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (zeroblob(9000))")
        connection.commit()
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(SourceError, match="bytes are no whole number of pages of 4096"):
        connect(path)
