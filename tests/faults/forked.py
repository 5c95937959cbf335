"""Harca's command line in processes of its own, without the second that starting one takes.

One process imports all of harca and is then forked for each command: what is killed, cut
off or starved is a real process with the real command line, and a test can have many.
"""

import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import alembic.config
import typer
from typer.core import TyperGroup

from harca import cli, readers, retry
from harca.cli import app
from tests.conftest import ROOT, Ran

_WAIT_S = 60
_LONGEST_TASK = 65_536
# Nobody else is at these servers who would have to be let through.
_PATIENCE = retry.Patience(total_s=30, first_pause_s=0.05, longest_pause_s=0.5)

# What the commands import when they run.
_PRELOADED = (
    "harca.cli.database", "harca.cli.look", "harca.cli.move",
    "harca.cli.plans", "harca.cli.search", "harca.migrate", "harca.rollback", "rich.progress",
    "sqlalchemy.dialects.postgresql.psycopg",
)  # fmt: skip


@dataclass
class Command:
    """A command that was started."""

    server: "ForkServer"
    pid: int
    lifeline: int
    out: Path
    err: Path

    @property
    def runs(self) -> bool:
        """False once the process has ended."""
        return not self.ended_within(0)

    def send(self, what: signal.Signals) -> None:
        """Send the process a signal."""
        os.kill(self.pid, what)

    def wait(self, timeout_s: float = _WAIT_S) -> Ran:
        """Wait until it has ended; return how. A code below 0 is the signal that ended it."""
        if not self.ended_within(timeout_s):
            self.send(signal.SIGKILL)
            code = self.server._code(self)
            raise AssertionError(f"still running after {timeout_s} s ({code}): {self._said()}")
        ran = Ran(self.server._code(self), self.out.read_text(), self.err.read_text())
        assert "Traceback" not in ran.err, ran.err
        return ran

    def ended_within(self, timeout_s: float) -> bool:
        """Wait as long, unless it ends before; return whether it has ended."""
        return bool(select.select([self.lifeline], [], [], timeout_s)[0])

    def _said(self) -> str:
        return self.out.read_text() + self.err.read_text()


class ForkServer:
    """The process that is forked; it ends with the ``with`` block."""

    def __enter__(self) -> "ForkServer":
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.forked", str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                # A fork takes one thread along; the others' locks would stay locked.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        self._started = 0
        return self

    def __exit__(self, *failed: object) -> None:
        self._control.close()
        self._process.wait(_WAIT_S)

    def start(
        self, *arguments: str | Path, folder: Path, env: Mapping[str, str], program: str = "harca"
    ) -> Command:
        """Start ``harca`` or ``alembic`` in *folder*, with *env* beside what is set here."""
        self._started += 1
        out, err = (folder / f"{self._started}.{name}" for name in ("out", "err"))
        for path in (out, err):
            path.touch()  # it may be killed before it has opened them
        lifeline, theirs = os.pipe()
        try:
            pid = self._ask(
                {
                    "argv": [program, *map(str, arguments)],
                    "env": {**os.environ, **env},
                    "folder": str(folder),
                    "out": str(out),
                    "err": str(err),
                },
                theirs,
            )
        finally:
            os.close(theirs)
        return Command(self, pid, lifeline, out, err)

    def _code(self, command: Command) -> int:
        os.close(command.lifeline)
        return self._ask({"wait": command.pid})

    def _ask(self, task: dict[str, Any], *fds: int) -> int:
        socket.send_fds(self._control, [json.dumps(task).encode()], fds)
        answer = self._control.recv(_LONGEST_TASK)
        assert answer, "the process that is forked for each command has ended"
        return int(answer)


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each task until nobody asks any more; return the task in the fork."""
    while True:
        data, fds, _, _ = socket.recv_fds(control, _LONGEST_TASK, 1)
        if not data:
            return None
        task: dict[str, Any] = json.loads(data)
        if "wait" in task:
            _, status = os.waitpid(task["wait"], 0)
            control.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            control.close()
            return task
        for fd in fds:
            os.close(fd)
        control.send(str(pid).encode())


def _run(task: dict[str, Any]) -> None:
    """Become the command."""
    for name, fd in (("out", 1), ("err", 2)):
        with Path(task[name]).open("wb") as file:
            os.dup2(file.fileno(), fd)
    os.chdir(task["folder"])
    os.environ.clear()
    os.environ.update(task["env"])
    sys.argv = task["argv"]
    retry.PATIENCE = _PATIENCE
    code = _ended(alembic.config.main if sys.argv[0] == "alembic" else cli.main)
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            thread.join()
    sys.stdout.flush()
    sys.stderr.flush()
    # Python's own way takes a third of a second: it gives back all that was preloaded.
    os._exit(code & 255)


def _ended(main: Callable[[], object]) -> int:
    """Return what *main* would have the process return."""
    try:
        main()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            sys.stderr.write(f"{ended.code}\n")
            return 1
        return ended.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _preload() -> None:
    """Import what commands import, and what parsing their arguments does."""
    for module in pkgutil.iter_modules(readers.__path__, "harca.readers."):
        importlib.import_module(module.name)
    for name in _PRELOADED:
        importlib.import_module(name)
    harca = typer.main.get_command(app.app)
    assert isinstance(harca, TyperGroup)
    harca.commands["migrate"].make_context("migrate", ["store"]).close()


if __name__ == "__main__":
    _preload()
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        given = _serve(asked)
    if given is not None:
        _run(given)
