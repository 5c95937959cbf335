"""Latency is counted from when a request was due, so that a stall is seen as it was felt."""

import threading

import pytest

from harca.open_loop import Done, OpenLoop


class FakeClient:
    """Answers at once, but for one request that stalls."""

    def __init__(self, *, stalls_at=None, stall_s=0.0, raises=None):
        self.stalls_at, self.stall_s, self.raises = stalls_at, stall_s, raises
        self.count, self.is_cut = 0, threading.Event()

    def request(self):
        self.count += 1
        if self.count - 1 == self.stalls_at:
            if self.raises is not None:
                raise self.raises
            self.is_cut.wait(self.stall_s)
        return Done("search", "cut" if self.is_cut.is_set() else None)

    def cut(self):
        self.is_cut.set()


def run(clients, *, rate, seconds, until=None):
    found = []
    loop = OpenLoop(clients, rate, seconds, lambda *told: found.append(told))
    loop.start()
    loop.wait_until(until if until is not None else 30)
    return found, loop.end()


def test_a_stall_is_felt_by_all_that_were_due_in_it():
    client = FakeClient(stalls_at=5, stall_s=0.5)

    found, unserved = run([client], rate=50, seconds=0.4)

    assert (len(found), unserved) == (20, 0)
    # Due at 0.10 to 0.38 s, answered after 0.6 s: as if each had been sent.
    late = [latency for due, latency, _ in found if due >= 0.1]
    assert len(late) == 15
    assert min(late) > 0.2


def test_others_go_on_while_one_client_waits():
    clients = [FakeClient(stalls_at=0, stall_s=30), FakeClient()]

    found, unserved = run(clients, rate=100, seconds=0.3, until=0.5)

    assert len([1 for _, _, done in found if done.error is None]) == 29
    assert [done.error for _, _, done in found if done.error] == ["cut"]
    assert unserved == 0


def test_what_was_due_and_not_begun_is_counted():
    found, unserved = run([FakeClient(stalls_at=0, stall_s=30)], rate=100, seconds=0.2, until=0.4)

    assert len(found) + unserved == 20
    assert unserved == 19


def test_what_is_not_due_yet_when_it_ends_is_not_missed():
    found, unserved = run([FakeClient()], rate=10, seconds=60, until=0.25)

    assert 1 <= len(found) <= 20
    assert unserved <= 1


def test_a_fault_of_ours_is_no_error_of_the_servers():
    loop = OpenLoop(
        [FakeClient(stalls_at=3, raises=ZeroDivisionError("ours")), FakeClient()],
        1000, 5, lambda *told: None,
    )  # fmt: skip
    loop.start()

    with pytest.raises(ZeroDivisionError, match="ours"):
        loop.wait_until(30)
    loop.end()


def test_requests_come_at_the_rate_that_was_asked_for():
    found, _ = run([FakeClient(), FakeClient()], rate=40, seconds=0.5)

    assert sorted(due for due, _, _ in found) == pytest.approx([n / 40 for n in range(20)])
