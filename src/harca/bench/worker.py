"""A process in which one contestant answers queries.

Processes and not threads: threads of one Python program take turns at its lock, so that they
would measure that, and a program's CPU and memory could not be told from another's.
"""

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harca.bench import process
from harca.bench.contestant import Contestant, Key, Session
from harca.errors import HarcaError

# They name another CPU to OpenBLAS than there is, and so a slower kernel: NumPy shall have
# the best one.
_MISLEADING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Turn:
    """What a contestant did with some queries.

    Attributes:
        took_ms: Of each query answered, in their order.
        found: Likewise; empty where nobody wants to know.
        seconds: From the first query to the last.
        client_cpu_s: Of the contestant's process.
        server_cpu_s: Of the backends that work for it; None: the server is elsewhere.
    """

    took_ms: list[float]
    seconds: float
    client_cpu_s: float
    server_cpu_s: float | None
    client_mb: float | None
    server_mb: float | None
    found: list[Sequence[Key]] = field(default_factory=list)


class ContestantFailed(HarcaError):
    """A contestant's process ended, or its library raised something."""


class Worker:
    """The process, seen from the one that measures; a context manager.

    Args:
        threads: How many threads NumPy may use in it.
    """

    def __init__(self, contestant: Contestant, *, threads: int) -> None:
        self.contestant = contestant
        kept = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
        # -P: a file in the current folder must not be taken for a module. A session of its
        # own: Ctrl-C is for the process that measures.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from harca.bench.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**kept, **dict.fromkeys(_THREADS, str(threads))},
        )
        self._send(("start", contestant))
        self._started = False

    @property
    def notes(self) -> list[str]:
        """What the contestant says about itself; waits until it is ready."""
        if not self._started:
            self._notes: list[str] = self._receive()
            self._started = True
        return self._notes

    def ask(self, queries: NDArray[np.float32], k: int, *, budget_s: float) -> Turn:
        """Have each of *queries* answered, in their order, until *budget_s* is over."""
        _ = self.notes
        self._send(("ask", queries, k, budget_s))
        turn: Turn = self._receive()
        return turn

    def begin(self, queries: NDArray[np.float32], k: int, *, seconds: float) -> None:
        """Have *queries* answered over and over, for *seconds*; see `ended`."""
        self._send(("repeat", queries, k, seconds))

    def ended(self) -> Turn:
        """Wait for what `begin` began."""
        turn: Turn = self._receive()
        return turn

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)
        self._process.kill()
        self._process.wait()

    def _send(self, message: tuple[Any, ...]) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()
        except OSError as exc:
            raise self._gone() from exc

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        try:
            done, answer = pickle.load(self._process.stdout)  # noqa: S301  # our own child's
        except (EOFError, OSError, pickle.UnpicklingError) as exc:
            raise self._gone() from exc
        if not done:
            if isinstance(answer, HarcaError):
                raise answer
            raise ContestantFailed(f"{self.contestant.name}: {answer}")
        return answer

    def _gone(self) -> ContestantFailed:
        return ContestantFailed(
            f"the process of {self.contestant.name} ended",
            hint="Was it short of memory? `--clients 1` needs the least.",
        )


def main() -> None:
    """Do what is asked until nobody asks any more: the child's whole life."""
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints is no answer
    session: Session | None = None
    while True:
        try:
            what, *about = pickle.load(questions)  # noqa: S301  # our own parent's
        except EOFError:
            break
        try:
            if what == "start":
                session = about[0].start()
                answer: Any = session.notes
            else:
                assert session is not None
                answer = _answer(session, *about) if what == "ask" else _repeat(session, *about)
            reply = (True, answer)
        except HarcaError as exc:
            reply = (False, exc)
        except Exception as exc:
            lines = str(exc).splitlines() or [""]
            reply = (False, f"{type(exc).__name__}: {lines[0][:200]}")
        try:
            pickle.dump(reply, answers)
            answers.flush()
        except BrokenPipeError:
            break
    if session is not None:
        session.close()
    # The pipe's other end may be gone, which Python would complain about at its end.
    os._exit(0)


def _answer(session: Session, queries: NDArray[np.float32], k: int, budget_s: float) -> Turn:
    took_ms, found = [], []
    before = _usage(session)
    began = monotonic()
    for query in queries:
        session.before()
        started = perf_counter()
        keys = session.search(query, k)
        took_ms.append(1_000 * (perf_counter() - started))
        found.append(keys)
        if monotonic() - began >= budget_s:
            break
    return _turn(session, took_ms, monotonic() - began, before, found)


def _repeat(session: Session, queries: NDArray[np.float32], k: int, seconds: float) -> Turn:
    took_ms: list[float] = []
    before = _usage(session)
    began = monotonic()
    while True:
        for query in queries:
            session.before()
            started = perf_counter()
            session.search(query, k)
            took_ms.append(1_000 * (perf_counter() - started))
            if (spent := monotonic() - began) >= seconds:
                return _turn(session, took_ms, spent, before, [])


def _usage(session: Session) -> tuple[float, float | None]:
    return process.own_cpu_s(), process.cpu_s(session.backends)


def _turn(
    session: Session,
    took_ms: list[float],
    seconds: float,
    before: tuple[float, float | None],
    found: list[Sequence[Key]],
) -> Turn:
    client, server = _usage(session)
    return Turn(
        took_ms,
        seconds,
        client - before[0],
        None if server is None or before[1] is None else server - before[1],
        process.own_memory_mb(),
        process.memory_mb(session.backends),
        found,
    )
