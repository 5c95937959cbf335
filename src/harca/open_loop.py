"""Requests at a set rate, whatever the server does: an open loop.

A loop that sends the next request when the last is answered sends none during a stall, and
measures the stall once ("coordinated omission": G. Tene, "How NOT to Measure Latency"). Here
each request has a time at which it is due, and its latency counts from then.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

# What was due at the end may still be answered for so long.
GRACE_S = 10.0
# And what was begun when somebody ends it before.
_LAST_ANSWERS_S = 1.0


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a request.

    Attributes:
        error: SQLSTATE, or another short code; None if it was answered.
        lost: The connection was lost over it.
    """

    kind: str
    error: str | None = None
    lost: bool = False


class Client(Protocol):
    """Sends one request at a time."""

    def request(self) -> Done:
        """Send one and wait for its answer. What the server does is no exception."""
        ...

    def cut(self) -> None:
        """End a request of another thread, and begin no more that take long."""
        ...


class OpenLoop:
    """Several clients, which take turns at the requests that are due.

    Args:
        done: Is told when a request was due, how long it took from then, and what came of it;
            by one thread at a time.
    """

    def __init__(
        self,
        clients: Sequence[Client],
        rate: float,
        seconds: float,
        done: Callable[[float, float, Done], None],
    ) -> None:
        self._clients, self._rate, self._done = clients, rate, done
        self._total = max(1, round(rate * seconds))
        self._next = self._recorded = 0
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._failed: BaseException | None = None
        self._threads = [
            # Not waited for by Python's end: an interruption of an interruption ends at once.
            threading.Thread(target=self._run, args=[client], daemon=True)
            for client in clients
        ]
        self._began = monotonic()

    def start(self) -> None:
        """Begin."""
        self._began = monotonic()
        for thread in self._threads:
            thread.start()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return monotonic() - self._began

    def wait_until(self, elapsed_s: float) -> bool:
        """Wait until so much time has gone by; return False if all is done before.

        Raises:
            BaseException: What a client has raised.
        """
        for thread in self._threads:
            thread.join(max(0.0, elapsed_s - self.elapsed_s))
        if self._failed is not None:
            raise self._failed
        return any(thread.is_alive() for thread in self._threads)

    def end(self) -> int:
        """Begin no more, cut what is not answered; return how many were due and not begun."""
        due = self._due_by(self.elapsed_s)
        self._stop.set()
        enough = self.elapsed_s + _LAST_ANSWERS_S
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, enough - self.elapsed_s))
        for thread, client in zip(self._threads, self._clients, strict=True):
            if thread.is_alive():
                client.cut()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(GRACE_S)
        with self._lock:
            return max(0, due - self._recorded)

    def _due_by(self, elapsed_s: float) -> int:
        return min(self._total, int(elapsed_s * self._rate) + 1)

    def _run(self, client: Client) -> None:
        try:
            while (due_s := self._take()) is not None:
                if self._stop.wait(max(0.0, due_s - self.elapsed_s)):
                    return
                done = client.request()
                with self._lock:
                    self._recorded += 1
                    self._done(due_s, self.elapsed_s - due_s, done)
        except BaseException as exc:  # raised again where the loop is waited for
            self._failed = exc
            self._stop.set()

    def _take(self) -> float | None:
        with self._lock:
            if self._next >= self._total:
                return None
            self._next += 1
            return (self._next - 1) / self._rate
