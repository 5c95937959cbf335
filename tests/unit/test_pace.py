"""How fast a load may go: limits as they are written, the throttle, the checkpoint."""

import pytest

from harca.batching import Batch
from harca.cli.progress import LineWatcher
from harca.errors import UsageError
from harca.model import Reason, Rejection
from harca.pace import Checkpoint, Limit, Pace, Throttle
from harca.watcher import Unwatched


class Time:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 100.0
        self.slept = []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


class Waits(Unwatched, list[str | None]):
    def wait(self, why):
        self.append(why)


def batch(rows):
    return Batch(1, rejections=[Rejection("x", Reason.NO_TEXT, "")] * rows)


@pytest.mark.parametrize(
    ("text", "what", "most"),
    [
        ("lag>10s", "lag", 10),
        (" lag > 1.5 s ", "lag", 1.5),
        ("lag>500ms", "lag", 0.5),
        ("lag>2min", "lag", 120),
        ("load>8", "load", 8),
        ("load > 0", "load", 0),
    ],
)
def test_a_limit_is_what_must_not_be_more_than_how_much(text, what, most):
    limit = Limit.read(text)

    assert (limit.what, limit.most) == (what, most)
    assert limit.text == "".join(text.split())


@pytest.mark.parametrize(
    "text",
    ["", "lag", "lag>", "lag>10", "lag>10h", "lag<10s", "load>8s", "load>-1", "load>x", "cpu>3",
     "lag>10s load>8", "load>1e9", "load>" + "9" * 40],
)  # fmt: skip
def test_nonsense_is_no_limit(text):
    with pytest.raises(UsageError) as refused:
        Limit.read(text)

    assert f'"{text}"' in str(refused.value)
    assert "lag>10s" in refused.value.hint


@pytest.mark.parametrize(
    ("most", "asked", "rows"),
    [(None, 1000, 1000), (100, 1000, 25), (3, 1000, 1), (1_000_000, 1000, 1000), (100, 7, 7)],
)
def test_batches_are_small_enough_to_go_smoothly(most, asked, rows):
    assert Pace(most).batch_rows(asked) == rows


def test_no_more_rows_pass_than_asked_for_and_no_less():
    time = Time()
    throttle = Throttle(100, clock=time.clock, sleeping=time.sleep)

    for _ in range(41):
        throttle.take(25)
        time.now += 0.05  # what the batch itself takes

    assert sum(time.slept) + 40 * 0.05 == pytest.approx(40 * 0.25)
    assert max(time.slept) <= 0.25


def test_what_a_pause_has_left_unused_is_not_rushed_through_afterwards():
    time = Time()
    throttle = Throttle(100, clock=time.clock, sleeping=time.sleep)
    throttle.take(25)
    time.now += 3600

    for _ in range(11):
        throttle.take(25)

    assert sum(time.slept) >= 10 * 0.25 - 0.5


def test_a_checkpoint_waits_for_every_reason_and_says_which():
    time, waits = Time(), Waits()
    paused = iter(["paused", "paused", None, None])
    pressing = iter(["busy", None])
    point = Checkpoint(
        [lambda: next(paused), lambda: next(pressing)],
        None,
        waits,
        clock=time.clock,
        sleeping=time.sleep,
    )

    point.passed(batch(1))

    assert waits == ["paused", "paused", "busy", None]
    assert time.slept == [1.0] * 3


def test_a_checkpoint_asks_no_more_than_once_a_second():
    time, asked = Time(), []
    point = Checkpoint(
        [lambda: asked.append(time.now)], None, Waits(), clock=time.clock, sleeping=time.sleep
    )

    for _ in range(100):
        point.passed(batch(1))
        time.now += 0.1

    assert 9 <= len(asked) <= 11


def test_the_progress_says_once_why_a_load_waits(capsys):
    watcher = LineWatcher()
    watcher.stage("load", 10)

    for why in ("paused", "paused", "busy", None, None):
        watcher.wait(why)

    assert capsys.readouterr().err.splitlines() == [
        "load (about 10 entries)", "load: paused", "load: goes on",
    ]  # fmt: skip
