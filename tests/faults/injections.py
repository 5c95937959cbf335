"""What can happen to a command, done to one that is held at a point."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import psycopg
from psycopg import sql

from harca.postgres.connect import Database
from tests.conftest import Ran
from tests.faults.forked import Command
from tests.faults.proxy import Hold, Proxy
from tests.faults.servers import OwnServer, SmallDisk

_SOON_S = 30
_LOOK_AGAIN_S = 0.01
_LONG_S = 0.1  # for a network to be still, so that whoever waits for an answer does wait


class Fault(StrEnum):
    """What happens."""

    KILLED = "killed"
    ASKED_TO_END = "asked to end"
    TERMINATED = "backend terminated"
    STOPPED = "server stopped"
    CUT = "network cut"
    STALLED = "network stalled"
    LEFT_BEHIND = "killed behind a stalled network"
    LOCKED = "lock held"
    FULL = "disk full"
    NO_ROOM = "no room for the backup"


@dataclass
class Scene:
    """A command that is held at a point, and what it depends on."""

    command: Command
    held: Hold
    network: Proxy
    database: Database
    contended: str
    server: OwnServer | None = None
    disk: SmallDisk | None = None
    blocked_by: ExitStack = field(default_factory=ExitStack)

    def go_on(self) -> None:
        """Let the command go on, now that it has happened."""
        self.held.release()
        self.blocked_by.close()


def inflict(fault: Fault, scene: Scene) -> Ran:
    """Do it, let the command go on, and return how it has ended."""
    return _INJECTIONS[fault](scene)


def _killed(scene: Scene) -> Ran:
    scene.command.send(signal.SIGKILL)
    ended = scene.command.wait()
    scene.go_on()
    return ended


def _asked_to_end(scene: Scene) -> Ran:
    scene.command.send(signal.SIGTERM)
    scene.go_on()
    return scene.command.wait()


def _terminated(scene: Scene) -> Ran:
    with scene.database.connect() as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 10000)", [scene.held.backend])
    scene.go_on()
    return scene.command.wait()


def _stopped(scene: Scene) -> Ran:
    assert scene.server is not None
    scene.server.stop("immediate")
    try:
        scene.go_on()
    finally:
        scene.server.start()
    return scene.command.wait()


def _cut(scene: Scene) -> Ran:
    scene.network.cut()
    scene.go_on()
    return scene.command.wait()


def _stalled(scene: Scene) -> Ran:
    scene.network.stall()
    scene.go_on()
    time.sleep(_LONG_S)
    assert scene.command.runs
    scene.network.restore()
    return scene.command.wait()


def _left_behind(scene: Scene) -> Ran:
    """Leave the server with sessions that nobody talks to any more, as a lost machine does."""
    scene.network.stall()
    scene.command.send(signal.SIGKILL)
    scene.blocked_by.close()
    return scene.command.wait()


def _locked(scene: Scene) -> Ran:
    with holding_table(scene.database, scene.contended) as holder:
        scene.go_on()
        with scene.database.connect() as looking:
            until(lambda: not scene.command.runs or waiting(looking) - {holder})
    return scene.command.wait()


def _full(scene: Scene) -> Ran:
    assert scene.disk is not None
    scene.disk.fill()
    try:
        scene.go_on()
        return scene.command.wait()
    finally:
        scene.disk.free()


_INJECTIONS: dict[Fault, Callable[[Scene], Ran]] = {
    Fault.KILLED: _killed,
    Fault.ASKED_TO_END: _asked_to_end,
    Fault.TERMINATED: _terminated,
    Fault.STOPPED: _stopped,
    Fault.CUT: _cut,
    Fault.STALLED: _stalled,
    Fault.LEFT_BEHIND: _left_behind,
    Fault.LOCKED: _locked,
    Fault.FULL: _full,
    Fault.NO_ROOM: _full,
}


@contextmanager
def holding_table(
    database: Database, table: str, *, mode: str = "ACCESS EXCLUSIVE"
) -> Iterator[int]:
    """Have another session lock *table*, as soon as it is let; give its backend's process.

    It waits for its lock if it has to, and lets go of it when the block ends.
    """
    statement = sql.SQL("LOCK TABLE {} IN {} MODE").format(sql.Identifier(table), sql.SQL(mode))
    holder = database.connect(autocommit=False)
    pid = holder.info.backend_pid

    def lock() -> None:
        with contextlib.suppress(psycopg.OperationalError):  # not needed any more
            holder.execute(statement)

    locking = threading.Thread(target=lock)
    locking.start()
    try:
        with database.connect() as looking:
            until(lambda: not locking.is_alive() or pid in waiting(looking))
        yield pid
    finally:
        with contextlib.suppress(psycopg.OperationalError):  # the server may have gone
            holder.cancel_safe()
        locking.join(_SOON_S)
        holder.close()


def waiting(looking: psycopg.Connection) -> set[int]:
    """Return which of the database's sessions wait for a lock."""
    found = looking.execute(
        "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE NOT granted AND datname = current_database()"
    )
    return {pid for (pid,) in found}


def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + _SOON_S
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(_LOOK_AGAIN_S)
