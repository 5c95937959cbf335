"""Locks that others hold: wait a little, let them pass, try again."""

from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

# Whoever waits for a strong lock makes everybody behind it wait as long. And of two who wait
# for each other, the one that gives way must not be the application: the server looks for
# that after deadlock_timeout.
_GIVE_WAY = """
    SELECT set_config('lock_timeout', greatest(least(300, setting::int / 2), 10) || 'ms', true)
    FROM pg_settings WHERE name = 'deadlock_timeout'
"""

_T = TypeVar("_T")

_GIVE_UP_AFTER_S = 180
_LONGEST_PAUSE_S = 3


def give_way_early(conn: psycopg.Connection[Any]) -> None:
    """Have this transaction wait for no lock longer than others can bear."""
    conn.execute(_GIVE_WAY)


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
