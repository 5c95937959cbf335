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

# A contestant that is slow does not make all wait: in a round it has this long, and answers
# the first queries only.
TURN_S = 10.0
_WARM_UP = 10
_BLOCK = 20  # queries of one contestant, before the next has its turn
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
    """Have all answer *queries*, *rounds* times, some queries at a time, in changing order.

    What else the machine does falls on all of them so.
    """
    names = list(workers)
    for name in names:
        if name != "files":  # cold by intention
            workers[name].ask(queries[:_WARM_UP], k, budget_s=turn_s)
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        parts: dict[str, list[Turn]] = {name: [] for name in names}
        for at, first in enumerate(range(0, len(queries), _BLOCK)):
            block = queries[first : first + _BLOCK]
            start = (number + at) % len(names)
            for name in names[start:] + names[:start]:
                left = turn_s - sum(part.seconds for part in parts[name])
                if left > 0:
                    sleep(_REST_S)
                    parts[name].append(workers[name].ask(block, k, budget_s=left))
        for name in names:
            turns[name].append(together(parts[name]))
    return turns


def together(parts: Sequence[Turn]) -> Turn:
    """Return parts of a turn as one."""
    server = [part.server_cpu_s for part in parts]
    return Turn(
        [one for part in parts for one in part.took_ms],
        sum(part.seconds for part in parts),
        sum(part.client_cpu_s for part in parts),
        None if None in server else sum(one for one in server if one is not None),
        parts[-1].client_mb,
        parts[-1].server_mb,
        [found for part in parts for found in part.found],
    )


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
