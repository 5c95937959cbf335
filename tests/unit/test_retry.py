"""A command is tried again while it may get further, and not for ever."""

import pytest

from harca.errors import CannotConnect, HarcaError, TargetError
from harca.retry import Patience, retried

HASTY = Patience(total_s=0, attempts=3, first_pause_s=0.001, longest_pause_s=0.002)


def lost(sqlstate=None, *, passes=True):
    return TargetError("lost", hint="Go on.", sqlstate=sqlstate, passes_by_itself=passes)


class Command:
    """Fails of each of *failures* in turn, having reached its position, then succeeds."""

    def __init__(self, *failures):
        self.failures, self.attempts, self.told = list(failures), 0, []

    def __call__(self, reached):
        self.attempts += 1
        if self.failures:
            position, failure = self.failures.pop(0)
            reached(*position)
            raise failure
        return "done"

    def run(self, patience=HASTY):
        return retried(self, told=self.told.append, patience=patience)


def test_what_passes_is_tried_again():
    command = Command(((1, 5), lost()), ((1, 5), lost()))

    assert command.run() == "done"
    assert command.attempts == 3
    assert command.told == [
        "connection lost, trying again in 0 s (attempt 2)",
        "connection lost, trying again in 0 s (attempt 3)",
    ]


@pytest.mark.parametrize(
    "failure",
    [lost(passes=False), HarcaError("ours"), ValueError("a bug"), KeyboardInterrupt()],
    ids=["a full disk", "an error of ours", "a bug", "Ctrl-C"],
)
def test_anything_else_is_not(failure):
    command = Command(((1, 5), failure))

    with pytest.raises(type(failure)) as caught:
        command.run()

    assert caught.value is failure
    assert (command.attempts, command.told) == (1, [])


def test_what_fails_at_the_same_place_is_given_up():
    command = Command(*[((1, 5), lost()) for _ in range(100)])

    with pytest.raises(TargetError) as caught:
        command.run()

    assert command.attempts == 3
    assert caught.value.hint == (
        "3 attempts, the last 3 of them within 0 min and none further than before. Go on."
    )
    assert not caught.value.passes_by_itself  # or somebody outside would begin anew


def test_coming_less_far_than_before_is_no_progress():
    command = Command(((1, 5), lost()), ((1, 3), lost()), ((1, 4), lost()), ((1, 6), lost()))

    with pytest.raises(TargetError):
        command.run()

    assert command.attempts == 3


def test_patience_begins_anew_with_what_has_been_reached():
    command = Command(*[((1, number), lost()) for number in range(20)], ((2,), lost()))

    assert command.run() == "done"
    assert command.attempts == 22


def test_an_attempt_that_takes_long_does_not_end_it():
    """It reads the store again: that can take longer than anybody waits for a server."""
    command = Command(((1, 5), lost()), ((1, 5), lost()))

    assert command.run(Patience(total_s=0, attempts=3, first_pause_s=0.001)) == "done"


def test_quick_failures_are_tried_again_until_the_time_is_up():
    command = Command(*[((0,), lost()) for _ in range(8)])

    assert command.run(Patience(total_s=60, attempts=3, first_pause_s=0.001)) == "done"


def test_a_read_only_server_is_waited_for_only_if_something_was_lost_before():
    always = Command(((0,), lost("25006", passes=False)))
    with pytest.raises(TargetError):
        always.run()
    failover = Command(((1, 5), lost()), ((0,), lost("25006", passes=False)))

    assert always.attempts == 1
    assert failover.run() == "done"
    assert failover.told[1].startswith("the server is read-only, trying again in ")


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (CannotConnect("no"), "no connection"),
        (lost("57P01"), "connection lost"),
        (lost("40P01"), "another session is in the way"),
        (lost("55P03"), "another session is in the way"),
    ],
)
def test_the_operator_is_told_what_is_waited_for(failure, said, caplog):
    command = Command(((0,), failure))

    command.run()

    assert command.told == [f"{said}, trying again in 0 s (attempt 2)"]
    assert caplog.messages == [f"{command.told[0]}: {failure}"]
