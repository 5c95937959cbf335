"""Contestants take turns; or several clients of one search at the same time."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from time import sleep

import numpy as np
from numpy.typing import NDArray

from harca.bench.contestant import Contestant
from harca.bench.memory import InMemory
from harca.bench.worker import Turn, Worker

Say = Callable[[str], None]

# A contestant that is slow does not make all wait: a turn ends after this, answered or not.
TURN_S = 10.0
_WARM_UP = 10
# OpenBLAS's threads look for more work for some 25 ms after a product, and the one whose turn
# comes next shall have the cores for itself.
_REST_S = 0.05


def take_turns(
    workers: Mapping[str, Worker],
    queries: NDArray[np.float32],
    k: int,
    *,
    rounds: int,
    say: Say = lambda message: None,
    turn_s: float = TURN_S,
) -> dict[str, list[Turn]]:
    """Have all answer *queries* one after the other, *rounds* times, in changing order."""
    names = list(workers)
    for name in names:
        if name != "files":  # cold by intention
            workers[name].ask(queries[:_WARM_UP], k, budget_s=turn_s)
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        first = number % len(names)
        for name in names[first:] + names[:first]:
            sleep(_REST_S)
            turns[name].append(workers[name].ask(queries, k, budget_s=turn_s))
    return turns


def all_at_once(
    contestant: Contestant,
    clients: int,
    queries: NDArray[np.float32],
    k: int,
    *,
    seconds: float,
) -> list[Turn]:
    """Have *clients* processes search for *seconds*, each as fast as it gets answers."""
    if isinstance(contestant, InMemory) and clients > 1:
        contestant = replace(contestant, shared=True)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(contestant, threads=max(1, cores() // clients)))
            for _ in range(clients)
        ]
        for worker in workers:
            worker.ask(queries[:1], k, budget_s=TURN_S)
        for number, worker in enumerate(workers):
            worker.begin(_beginning_at(queries, number, clients), k, seconds=seconds)
        return [worker.ended() for worker in workers]


def _beginning_at(queries: NDArray[np.float32], number: int, clients: int) -> NDArray[np.float32]:
    # Not all of them ask the same at the same time.
    return np.roll(queries, -(number * len(queries) // clients), axis=0)


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def flat(turns: Sequence[Turn]) -> list[float]:
    """Return the milliseconds of all searches."""
    return [one for turn in turns for one in turn.took_ms]
