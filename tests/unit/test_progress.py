"""What is shown of progress where a person looks on, where a log does, and in trouble."""

import os
import pty
import sys
from contextlib import contextmanager, suppress

import pytest

from harca.cli import progress
from harca.cli.progress import BarWatcher, LineWatcher, watcher

TROUBLE = "connection lost, trying again in 3 s (attempt 4)"


@pytest.mark.parametrize("kind", [BarWatcher, LineWatcher])
def test_what_is_tried_again_is_shown(kind, capsys):
    with kind() as watching:
        watching.stage("load", 10)
        watching.step(5)
        watching.trouble(TROUBLE)
        watching.stage("schema")

    assert TROUBLE in capsys.readouterr().err


def test_a_bar_stays_where_the_stage_was_given_up(capsys):
    with BarWatcher() as watching:
        watching.stage("load", 10)
        watching.step(5)
        watching.trouble(TROUBLE)
        watching.stage("load", 10)
        watching.step(10)

        assert watching._progress is not None
        assert [task.completed for task in watching._progress.tasks] == [5, 10]
        assert [task.total for task in watching._progress.tasks] == [10, 10]


def test_time_left_is_shown_only_where_it_can_be_known(capsys):
    with BarWatcher() as watching:
        assert watching._progress is not None
        watching.stage("schema")
        shown = watching._progress.columns[-1]
        assert not isinstance(shown, str)
        watching.stage("load", 10)
        watching.step(5)

        assert [str(shown(task)) for task in watching._progress.tasks] == ["", "ETA -:--:--"]


def test_a_silent_watcher_leaves_it_to_the_log(capsys):
    with LineWatcher(silent=True) as watching:
        watching.trouble(TROUBLE)

    assert capsys.readouterr().err == ""


@contextmanager
def terminal():
    """Have stderr be a terminal; give what it has shown, once that is over."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    shown: list[str] = []
    with pytest.MonkeyPatch.context() as patch, os.fdopen(slave, "w") as stderr:
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "120")
        patch.setattr(sys, "stderr", stderr)
        yield shown
        stderr.flush()
        pieces = []
        with suppress(BlockingIOError):  # nothing more; one call does not give it all
            while piece := os.read(master, 1 << 20):
                pieces.append(piece)
        shown.append(b"".join(pieces).decode())
    os.close(master)


def work(watching):
    with watching:
        watching.stage("schema")
        watching.stage("load", 2_000)
        watching.step(1_000)
        watching.wait("the replicas lag behind")
        watching.wait(None)
        watching.trouble("the connection was lost [again]; trying again")
        watching.stage("load", 2_000)
        watching.step(2_000)
        watching.stage("verify")


def test_a_terminal_has_a_bar_for_each_stage_and_trouble_above_it():
    with terminal() as shown:
        watching = watcher(quiet=False)
        assert isinstance(watching, BarWatcher)
        work(watching)

    for expected in ("schema", "load", "verify", "2,000 rows", "lost [again]; trying again"):
        assert expected in shown[0]


def failing(watching):
    with watching:
        watching.stage("load", 2_000)
        watching.step(500)
        raise ValueError("broken")


def test_a_bar_that_fails_leaves_the_stage_where_it_was():
    with terminal() as shown, pytest.raises(ValueError, match="broken"):
        failing(watcher(quiet=False))

    assert "500 rows" in shown[0]


def test_a_log_has_lines(monkeypatch, capsys):
    monkeypatch.setattr("harca.cli.progress._EVERY_S", 0)
    watching = watcher(quiet=False)
    assert isinstance(watching, LineWatcher)

    work(watching)

    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["schema", "load (about 2,000 entries)"]
    assert said[2].startswith("load: 1,000 rows, ")
    assert said[3:6] == [
        "load: the replicas lag behind",
        "load: goes on",
        "the connection was lost [again]; trying again",
    ]
    assert said[-1] == "verify"


def test_lines_say_now_and_then_which_phase_a_stage_is_in(capsys, monkeypatch):
    moments = iter([0.0, 0.0, 1.0, 4.0, 5.0, 8.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(moments))
    watching = LineWatcher()

    watching.stage("hnsw index for m/4, 1,000 rows")
    watching.phase("initializing", 0, None)
    watching.phase("loading tuples", 250, 1000)
    watching.phase("loading tuples", 500, 1000)
    watching.phase("waiting for old snapshots", 0, None)

    assert capsys.readouterr().err.splitlines() == [
        "hnsw index for m/4, 1,000 rows",
        "hnsw index for m/4, 1,000 rows: loading tuples, 250 of 1,000 (25 %)",
        "hnsw index for m/4, 1,000 rows: waiting for old snapshots",
    ]


def test_a_bar_shows_the_phase_beside_it(capsys):
    with BarWatcher() as watching:
        watching.stage("index")
        watching.phase("loading tuples", 250, 1000)
        watching.phase("waiting for old snapshots, server process 7", 0, None)
        watching.stage("verify")

    assert "waiting for old snapshots, server process 7" in capsys.readouterr().err
