"""Whoever interrupts a command is not told of an error, nor is it tried again."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from harca.migrate import migrate
from harca.options import LoadOptions
from harca.postgres import indexes, plan_index, space_index
from tests.stores import record, write_record, write_store

pytestmark = pytest.mark.one_server


def test_an_interruption_within_a_statement_stays_one(database, tmp_path):
    write_record(tmp_path / "store", record("text", [1.0] * plan_index.PLAN_DIMS))
    migrate(tmp_path / "store", lambda: database, LoadOptions())
    conn = database.connect()
    conn.execute(space_index.dropping(plan_index.PLAN_INDEX))

    def interrupted(message):
        conn.pgconn.send_query(b"SELECT pg_sleep(60)")  # whose answer nobody reads any more
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        indexes.build(conn, progress=interrupted)
    conn.close()


def test_a_terminal_that_is_closed_leaves_nothing_behind(database, conn, tmp_path):
    packed = shutil.make_archive(
        str(tmp_path / "packed"), "zip", write_store(tmp_path / "store", 3)
    )
    (temporary := tmp_path / "temporary").mkdir()
    with database.connect(autocommit=False) as other:
        other.execute("LOCK TABLE load_batches IN EXCLUSIVE MODE")
        process = subprocess.Popen(
            [sys.executable, "-m", "harca", "migrate", packed, "--quiet"],
            env={
                **os.environ,
                "HARCA_DATABASE_URL": database.conninfo,
                "TMPDIR": str(temporary),
            },
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        until = time.monotonic() + 60
        while not conn.execute("SELECT FROM pg_locks WHERE NOT granted").rowcount:
            assert time.monotonic() < until, "it has not come to the table"
            time.sleep(0.05)
        unpacked = list(temporary.iterdir())

        process.send_signal(signal.SIGHUP)
        process.wait(60)

    assert process.returncode == 143
    assert unpacked
    assert list(temporary.iterdir()) == []
