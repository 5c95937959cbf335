"""The embedded server stays as long as it is wanted, and no longer."""

import json
import os
import signal
import subprocess
import sys
import time

import psycopg
import pytest

from harca import embedded
from tests.stores import write_store


@pytest.fixture(autouse=True)
def _stopped(run_harca):
    yield
    run_harca("db", "stop")


def test_the_address_that_is_printed_is_that_of_a_server_that_runs(run_harca):
    shown = run_harca("db", "url", "--password", "--quiet")

    with psycopg.connect(shown.out.strip()) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    assert run_harca("db", "stop").code == 0
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(shown.out.strip())


def test_a_process_that_was_killed_does_not_keep_the_server(tmp_path, run_harca):
    store = write_store(tmp_path / "store", 3)
    assert run_harca("migrate", store).code == 0
    users = embedded.home() / "postgres" / ".handle_pids.json"
    with subprocess.Popen(
        [sys.executable, "-c", "from harca import embedded; embedded.url(); print(); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        os.kill(killed.pid, signal.SIGKILL)
    assert json.loads(users.read_text()) == [killed.pid]

    assert run_harca("status").code == 0

    assert json.loads(users.read_text()) == []
    running = embedded.home() / "postgres" / "postmaster.pid"
    for _ in range(50):
        if not running.exists():
            break
        time.sleep(0.1)
    assert not running.exists()


def test_a_new_server_keeps_more_of_its_tables_in_memory_than_by_default(run_harca):
    shown = run_harca("db", "url", "--password", "--quiet")

    with psycopg.connect(shown.out.strip()) as conn:
        found = conn.execute(
            "SELECT setting::int / 128 FROM pg_settings WHERE name = 'shared_buffers'"
        ).fetchone()
    assert found == (embedded._buffers_mb(),)
    assert 128 <= embedded._buffers_mb() <= 2_048
