"""Locks that others hold: wait a little, let them pass, ask again."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_fixed,
    wait_random_exponential,
)

from harca.errors import TargetError
from harca.postgres.connect import target_error

# Whoever waits for a strong lock makes everybody behind it wait as long. And of two who wait
# for each other, the one that gives way must not be the application: the server looks for
# that after deadlock_timeout.
_GIVE_WAY = """
    SELECT set_config('lock_timeout', greatest(least(300, setting::int / 2), 10) || 'ms', true)
    FROM pg_settings WHERE name = 'deadlock_timeout'
"""

_T = TypeVar("_T")

_log = logging.getLogger("harca.retry")

# An autovacuum of a large table holds its lock that long.
_GIVE_UP_AFTER_S = 600
# Who had to wait behind an attempt is let through before the next.
_SHORTEST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 3


def give_way_early(conn: psycopg.Connection[Any]) -> None:
    """Have this transaction wait for no lock longer than others can bear."""
    conn.execute(_GIVE_WAY)


def until_free(attempt: Callable[[], _T]) -> _T:
    """Return what *attempt*, a whole transaction, returns; again while others hold its locks.

    Raises:
        TargetError: They hold them for minutes on end. It does not pass by itself, then.
    """
    retrying = Retrying(
        retry=retry_if_exception_type((pg.LockNotAvailable, pg.DeadlockDetected)),
        wait=wait_fixed(_SHORTEST_PAUSE_S)
        + wait_random_exponential(multiplier=0.1, max=_LONGEST_PAUSE_S),
        stop=stop_after_delay(_GIVE_UP_AFTER_S),
        before_sleep=lambda state: _log.info(
            "another session holds a lock; attempt %d failed, there will be more",
            state.attempt_number,
        ),
        reraise=True,
    )
    try:
        return retrying(attempt)
    except (pg.LockNotAvailable, pg.DeadlockDetected) as exc:
        told = target_error(exc)
        raise TargetError(str(told), hint=told.hint, sqlstate=exc.sqlstate) from exc
