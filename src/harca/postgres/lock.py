"""One process at a time: the lock of a store, and of what sessions cannot do side by side.

Whoever waits for a lock inside the server holds a snapshot meanwhile, for which a concurrent
index build in another session waits: both would wait for ever. So a lock is asked for again
and again instead (`alone`), or its holder is named at once (`lock_store`).
"""

import logging
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from time import monotonic, sleep
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.rows import dict_row, scalar_row

from harca.errors import Session, StoreBusy, TargetError
from harca.postgres.connect import Database, takes_statements
from harca.postgres.digest import query

_log = logging.getLogger("harca.lock")

SCHEMA_LOCK = "SELECT hashtextextended('harca', 1)"
INDEX_LOCK = "SELECT hashtextextended('harca', 2)"
ADVICE_LOCK = "SELECT hashtextextended('harca', 3)"
_STORE_LOCK = "SELECT hashtextextended(%s, 0)"

_ASK_EVERY_S = 0.3
# A session of ours that is told to end does so as soon as it is scheduled. So does one that its
# client has closed: who does one thing after the other must not meet the lock of the first.
_ENDS_WITHIN_S = 10
_CLOSES_WITHIN_S = 1

# How often it is looked whether the lock is still held, and how long the answer may take
# before the session that holds it counts as lost: as long as libpq waits for the network.
_LOOK_EVERY_S = 10.0
_ANSWER_WITHIN_S = 60.0
_LAST_ANSWER_WITHIN_S = 2.0
_CANCELS_WITHIN_S = 2.0

# The server notices within that time that a client has vanished, and frees what it held.
# Without it that takes two hours, Linux's default.
# And a large table takes longer to read than a role may be given for a statement: it would be
# tried again, and be too long again.
_NOTICE_LOSS = """
    SELECT set_config(s.name, s.value, false) FROM (VALUES ('tcp_keepalives_idle', '30'),
        ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '3'),
        ('tcp_user_timeout', '60s'), ('idle_session_timeout', '0'), ('statement_timeout', '0'),
        ('transaction_timeout', '0'), ('idle_in_transaction_session_timeout', '0')
    ) s (name, value)
    WHERE s.name IN (SELECT name FROM pg_settings)
"""
_NOTICE_LOSS_AT_WORK = "SELECT set_config('client_connection_check_interval', '10s', false)"


class OwnSessions:
    """The sessions that one command has opened, over all its attempts.

    A connection can be lost without the server noticing for a while. What the session holds
    is in nobody's way but our own then, and the next attempt may end it.
    """

    def __init__(self) -> None:
        self._opened: set[tuple[int, datetime]] = set()

    def add(self, conn: psycopg.Connection[Any]) -> None:
        """Remember a session, unless a pooler stands between: then it is not ours alone."""
        row = conn.execute(
            "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        ).fetchone()
        if row is not None and row[0] == conn.info.backend_pid:
            self._opened.add(row)

    def include(self, session: Session) -> bool:
        """Say whether *session* is one of them."""
        return session.since is not None and (session.pid, session.since) in self._opened

    def end(self, conn: psycopg.Connection[Any]) -> None:
        """End those that the server still has, by *conn*, which must not be one of them."""
        for pid, since in self._opened:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid = %s AND backend_start = %s",
                [pid, since],
            )


def lock_store(
    conn: psycopg.Connection[Any], store: str, *, ours: OwnSessions | None = None
) -> None:
    """Keep other processes off *store* until the connection closes, which is left idle.

    Args:
        ours: Sessions of earlier attempts, which are no other process: they are ended, and
            this one is added.

    Raises:
        StoreBusy: Another one is working on it.
    """
    notice_loss(conn)
    key = conn.execute(_STORE_LOCK, [f"harca:{store}"]).fetchone()
    assert key is not None
    if ours is not None:
        ours.end(conn)
        # Before it has the lock: the answer to that can be lost, and the lock be held all the same.
        ours.add(conn)
    began = monotonic()
    while not _is_free(conn, key[0]):
        found, waited_s = holder(conn, key[0]), monotonic() - began
        is_ours = found is None or (ours is not None and ours.include(found))
        if found is not None and not is_ours and waited_s > _CLOSES_WITHIN_S:
            raise StoreBusy(store, held_by=found)
        if waited_s > _ENDS_WITHIN_S:
            raise TargetError(
                f'the server still holds the lock of store "{store}" for a connection that was '
                "lost",
                hint="Run the same command again in a minute: by then the server has noticed.",
                passes_by_itself=True,
            )
        sleep(_ASK_EVERY_S)


def notice_loss(conn: psycopg.Connection[Any]) -> None:
    """Have the server notice soon if this client vanishes, and else give it all the time it takes.

    However idle it is, and however long a statement is at work.
    """
    conn.execute(_NOTICE_LOSS)


def notice_loss_at_work(conn: psycopg.Connection[Any]) -> None:
    """Have the server end a statement soon whose client has vanished."""
    # A server on a platform that cannot tell says so, and goes on as before.
    with suppress(pg.InvalidParameterValue, pg.UndefinedObject):
        conn.execute(_NOTICE_LOSS_AT_WORK)


@contextmanager
def locked(
    database: Database, store: str, *, ours: OwnSessions | None = None
) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection to work on *store* with, while no other process does.

    The lock is held on a connection of its own, which nothing else can break, and which is
    looked after: if it is lost, the one that works is cut.

    Raises:
        StoreBusy: Another process is working on it.
    """
    with database.connect() as conn, database.connect() as locker:
        lock_store(locker, store, ours=ours)
        notice_loss(conn)
        notice_loss_at_work(conn)
        if ours is not None:
            ours.add(conn)
        with looked_after(locker, conn):
            yield conn


@contextmanager
def watched(database: Database, *, autocommit: bool = True) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection that is cut if the server does not answer, on another one, any more.

    A network that takes what is sent and delivers nothing would be waited for otherwise: that
    a statement takes long says nothing.
    """
    with (
        database.connect() as conn,
        database.connect() as other,
        looked_after(other, conn),
    ):
        notice_loss(conn)
        conn.autocommit = autocommit
        yield conn


@contextmanager
def looked_after(locker: psycopg.Connection[Any], conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Cut *conn* as soon as *locker* has lost its locks, so that two never work at once.

    Or as soon as it does not answer any more. Nobody else uses *locker* meanwhile.
    """
    watch = _Watch(locker, conn)
    watch.thread.start()
    try:
        yield
    finally:
        watch.end()


class _Watch:
    """A thread that asks the session beside the one that works if it has its locks still."""

    def __init__(self, locker: psycopg.Connection[Any], conn: psycopg.Connection[Any]) -> None:
        self._locker = locker
        self._held = self._count()
        # The sockets by descriptors of our own: those of the connections can be closed, and
        # given to something else, while this thread is about to cut them.
        self._working = _socket(conn)
        self._holding = _socket(locker)
        self._ended, self._end = socket.socketpair()
        self.thread = threading.Thread(target=self._look_after, name="harca-lock", daemon=True)

    def end(self) -> None:
        """Stop looking."""
        self._end.close()
        self.thread.join(_LAST_ANSWER_WITHIN_S)
        if self.thread.is_alive():  # it waits for an answer that nobody needs any more
            _shut_down(self._holding)
            self.thread.join()
        for one in (self._holding, self._working, self._ended):
            one.close()

    def _look_after(self) -> None:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._ended, selectors.EVENT_READ)
            # What comes unasked is the news that the session has been ended.
            waiting.register(self._holding, selectors.EVENT_READ)
            while not any(key.fileobj is self._ended for key, _ in waiting.select(_LOOK_EVERY_S)):
                if not self._is_held():
                    _log.warning("the session beside it is lost; the connection that works is cut")
                    self._cut()
                    return

    def _is_held(self) -> bool:
        # A network that swallows everything gives no error, and libpq waits for an answer.
        too_late = threading.Timer(_ANSWER_WITHIN_S, self._cut)
        too_late.start()
        try:
            return self._count() == self._held
        except psycopg.Error as exc:
            _log.info("the session beside it does not answer: %s", exc)
            return False
        finally:
            too_late.cancel()
            too_late.join()

    def _count(self) -> int:
        row = self._locker.execute(
            "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() "
            "AND locktype = 'advisory' AND granted"
        ).fetchone()
        assert row is not None
        return int(row[0])

    def _cut(self) -> None:
        _shut_down(self._holding)
        _shut_down(self._working)


def _socket(conn: psycopg.Connection[Any]) -> socket.socket:
    return socket.fromfd(conn.fileno(), socket.AF_INET, socket.SOCK_STREAM)


def cut(conn: psycopg.Connection[Any]) -> None:
    """End a connection that another thread is using: what it waits for does not come."""
    # First in peace, so that the server does not wait on for a lock that nobody wants.
    with suppress(psycopg.Error):
        conn.cancel_safe(timeout=_CANCELS_WITHIN_S)
    with suppress(psycopg.Error), _socket(conn) as connected:
        _shut_down(connected)


def _shut_down(connected: socket.socket) -> None:
    with suppress(OSError):  # it is cut already
        connected.shutdown(socket.SHUT_RDWR)


@contextmanager
def alone(
    conn: psycopg.Connection[Any],
    lock: str,
    *,
    patience_s: float | None = None,
    waiting: Callable[[str], object] = lambda message: None,
) -> Iterator[None]:
    """Hold *lock*, which others may hold for long, while the body runs.

    It is asked for again and again: who waits inside the server holds a snapshot, for which
    a concurrent index build waits. Needs a connection in autocommit mode.

    Args:
        lock: `SCHEMA_LOCK`, `INDEX_LOCK` or `ADVICE_LOCK`.
        patience_s: How long others are waited for; None: until they are done.
        waiting: Is told once whom this waits for.

    Raises:
        psycopg.errors.LockNotAvailable: Longer than *patience_s*.
    """
    take(conn, lock, patience_s=patience_s, waiting=waiting)
    try:
        yield
    finally:
        # The server has the locks of a connection back when it is lost, or closed soon.
        if takes_statements(conn):
            conn.execute(f"SELECT pg_advisory_unlock(({lock}))")


def take(
    conn: psycopg.Connection[Any],
    lock: str,
    *,
    patience_s: float | None = None,
    waiting: Callable[[str], object] = lambda message: None,
) -> None:
    """Take *lock* as `alone` does, until the connection closes."""
    row = conn.execute(lock).fetchone()
    assert row is not None
    began, is_told = monotonic(), False
    while not _is_free(conn, row[0]):
        if patience_s is not None and monotonic() - began > patience_s:
            raise pg.LockNotAvailable("another harca is doing the same")
        if not is_told and (found := holder(conn, row[0])):
            waiting(f"waiting for another harca to be done: {found}")
            is_told = True
        sleep(_ASK_EVERY_S)


def holder(conn: psycopg.Connection[Any], key: int) -> Session | None:
    """Return who holds the lock *key*; None if nobody does, or it is held unseen."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(query("lock_holder"), {"key": key})
        row = cursor.fetchone()
    return Session(**row) if row is not None else None


def _is_free(conn: psycopg.Connection[Any], key: int) -> bool:
    with conn.cursor(row_factory=scalar_row) as cursor:
        return bool(cursor.execute("SELECT pg_try_advisory_lock(%s)", [key]).fetchone())
