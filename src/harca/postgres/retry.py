"""Locks that others hold: wait a little, let them pass, try again."""

from collections.abc import Callable
from typing import TypeVar

from psycopg import errors as pg
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

# Whoever waits for a strong lock makes everybody behind it wait as long.
LOCK_TIMEOUT = "300ms"

_T = TypeVar("_T")

_GIVE_UP_AFTER_S = 180
_LONGEST_PAUSE_S = 3


def retried(attempt: Callable[[], _T], *, told: Callable[[str], None] = lambda message: None) -> _T:
    """Return what *attempt*, a whole transaction, returns; again while others hold its locks.

    Raises:
        psycopg.errors.LockNotAvailable: For minutes on end.
    """
    retrying = Retrying(
        retry=retry_if_exception_type((pg.LockNotAvailable, pg.DeadlockDetected)),
        wait=wait_random_exponential(multiplier=0.1, max=_LONGEST_PAUSE_S),
        stop=stop_after_delay(_GIVE_UP_AFTER_S),
        before_sleep=lambda state: told(f"waiting for a lock, attempt {state.attempt_number}"),
        reraise=True,
    )
    return retrying(attempt)
