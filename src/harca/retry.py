"""Try a command again, as a whole, while what stops it passes by itself.

A server that restarts, a connection that is lost, a lock that somebody holds: after a while
the same command succeeds, and goes on where it was. What does not pass, a full disk or a
missing right, is told at once.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random

from harca.errors import CannotConnect, TargetError, counted

_log = logging.getLogger("harca.retry")

_T = TypeVar("_T")

# A server that was writable is read-only after a failover, until the other one takes over. One
# that was never writable stays as it is.
_READ_ONLY = "25006"
_IN_THE_WAY = ("40001", "40P01", "55P03")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a command is tried again without getting any further.

    Attributes:
        total_s: Counted from the first failure since it last got further. A server that
            restarts, or fails over, is back by then.
        attempts: It fails that often, however long an attempt takes: one that reads a large
            store again takes longer than *total_s* to come to where it was.
        first_pause_s, longest_pause_s: Between attempts; each pause is twice the one before.
    """

    total_s: float = 300
    attempts: int = 3
    first_pause_s: float = 1
    longest_pause_s: float = 15


PATIENCE = Patience()


class Reached(Protocol):
    """Is told how far an attempt has come, in what stays when it fails."""

    def __call__(self, *position: int) -> None:
        """Note a position; one is further than another if it is greater."""
        ...


def retried(
    attempt: Callable[[Reached], _T],
    *,
    told: Callable[[str], object],
    patience: Patience | None = None,
) -> _T:
    """Return what *attempt* returns, made again while it fails of what passes by itself.

    Args:
        told: Is told of each failure that is not the last.
        patience: `PATIENCE` unless given.

    Raises:
        HarcaError: What does not pass by itself, or has not passed in time. A lost connection
            does not pass if there was none before: connect once first.
    """
    attempts = _Attempts(patience or PATIENCE, told)
    retrying = Retrying(
        retry=retry_if_exception(attempts.may_pass),
        wait=attempts.pause,
        stop=attempts.are_enough,
        before_sleep=attempts.tell,
        reraise=True,
    )

    def once() -> _T:
        try:
            return attempt(attempts.reached)
        except TargetError as exc:
            attempts.failed(exc)
            raise

    try:
        return retrying(once)
    except TargetError as exc:
        attempts.give_up(exc)
        raise


class _Attempts:
    """What is known of a command's attempts.

    Attributes:
        failures: Since it last got further than ever before.
    """

    def __init__(self, patience: Patience, told: Callable[[str], object]) -> None:
        self._patience, self._told = patience, told
        self._furthest: tuple[int, ...] = ()
        self._furthest_before: tuple[int, ...] | None = None
        self._failing_since = 0.0
        self._made = self.failures = 0

    def reached(self, *position: int) -> None:
        self._furthest = max(self._furthest, position)

    def failed(self, exc: TargetError) -> None:
        self._made += 1
        # An attempt that ends where one ended before has not brought anything.
        if self._furthest_before is None or self._furthest > self._furthest_before:
            self._furthest_before = self._furthest
            self._failing_since, self.failures = monotonic(), 0
        self.failures += 1

    def may_pass(self, exc: BaseException) -> bool:
        if not isinstance(exc, TargetError):
            return False
        return exc.passes_by_itself or (exc.sqlstate == _READ_ONLY and self._made > 1)

    def pause(self, state: RetryCallState) -> float:
        first = self._patience.first_pause_s
        pause = min(first * 2.0 ** min(self.failures - 1, 10), self._patience.longest_pause_s)
        # Not all clients of a server that is back come at the same time.
        return pause + wait_random(0, first)(state)

    def are_enough(self, state: RetryCallState) -> bool:
        return (
            self.failures >= self._patience.attempts
            and monotonic() - self._failing_since >= self._patience.total_s
        )

    def tell(self, state: RetryCallState) -> None:
        assert state.outcome is not None
        exc = state.outcome.exception()
        assert isinstance(exc, TargetError)
        line = (
            f"{_reason(exc)}, trying again in {state.upcoming_sleep:.0f} s "
            f"(attempt {self._made + 1})"
        )
        _log.warning("%s: %s", line, exc)
        self._told(line)

    def give_up(self, exc: TargetError) -> None:
        if self._made > 1 and exc.passes_by_itself:
            minutes = (monotonic() - self._failing_since) / 60
            exc.hint = (
                f"{counted(self._made, 'attempt')}, the last {self.failures} of them within "
                f"{minutes:.0f} min and none further than before. {exc.hint}"
            )
            exc.passes_by_itself = False  # whoever called has no reason to hope either


def _reason(exc: TargetError) -> str:
    if isinstance(exc, CannotConnect):
        return "no connection"
    if exc.sqlstate in _IN_THE_WAY:
        return "another session is in the way"
    return "the server is read-only" if exc.sqlstate == _READ_ONLY else "connection lost"
