"""What the operator is shown while something goes wrong and is tried again."""

import pytest

from harca.cli.progress import BarWatcher, LineWatcher

TROUBLE = "connection lost, trying again in 3 s (attempt 4)"


@pytest.mark.parametrize("kind", [BarWatcher, LineWatcher])
def test_what_is_tried_again_is_shown(kind, capsys):
    with kind() as watcher:
        watcher.stage("load", 10)
        watcher.step(5)
        watcher.trouble(TROUBLE)
        watcher.stage("schema")

    assert TROUBLE in capsys.readouterr().err


def test_a_bar_stays_where_the_stage_was_given_up(capsys):
    with BarWatcher() as watcher:
        watcher.stage("load", 10)
        watcher.step(5)
        watcher.trouble(TROUBLE)
        watcher.stage("load", 10)
        watcher.step(10)

        assert watcher._progress is not None
        assert [task.completed for task in watcher._progress.tasks] == [5, 10]
        assert [task.total for task in watcher._progress.tasks] == [10, 10]


def test_time_left_is_shown_only_where_it_can_be_known(capsys):
    with BarWatcher() as watcher:
        assert watcher._progress is not None
        watcher.stage("schema")
        shown = watcher._progress.columns[-1]
        assert not isinstance(shown, str)
        watcher.stage("load", 10)
        watcher.step(5)

        assert [str(shown(task)) for task in watcher._progress.tasks] == ["", "ETA -:--:--"]


def test_a_silent_watcher_leaves_it_to_the_log(capsys):
    with LineWatcher(silent=True) as watcher:
        watcher.trouble(TROUBLE)

    assert capsys.readouterr().err == ""
