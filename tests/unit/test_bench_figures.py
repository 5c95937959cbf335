"""Turns, and what is told of them."""

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from harca.bench import figures, measuring
from harca.bench.scale import growth, why
from harca.bench.worker import Turn, Worker


def turn(*took_ms: float, cpu_s: float = 0.0, server_s: float | None = None) -> Turn:
    return Turn(list(took_ms), sum(took_ms) / 1_000, cpu_s, server_s, 1.0, None)


@dataclass
class Answering:
    """Stands for a process that answers; it says which queries it was asked."""

    seconds: float
    asked: list[list[float]] = field(default_factory=list)

    def ask(self, queries: Any, k: int, *, budget_s: float) -> Turn:
        answered = []
        for query in queries:
            answered.append(float(query[0]))
            if len(answered) * self.seconds >= budget_s:
                break
        self.asked.append(answered)
        return Turn(
            [1_000 * self.seconds] * len(answered), len(answered) * self.seconds, 0.0, None, None,
            None, [[int(number)] for number in answered],
        )  # fmt: skip


def test_a_slow_contestant_answers_the_first_queries_of_each_round_and_no_others(monkeypatch):
    monkeypatch.setattr(measuring, "_REST_S", 0)
    monkeypatch.setattr(measuring, "_BLOCK", 2)
    queries = np.arange(6, dtype=np.float32).reshape(6, 1)
    workers = {"quick": Answering(0.0), "files": Answering(1.0)}

    turns = measuring.take_turns(
        cast("dict[str, Worker]", workers), queries, 1, rounds=2, turn_s=3.0
    )

    assert [one.found for one in turns["quick"]] == [[[0], [1], [2], [3], [4], [5]]] * 2
    assert [one.found for one in turns["files"]] == [[[0], [1], [2]]] * 2
    assert workers["files"].asked[0] == [0, 1]  # cold by intention: it is not warmed up
    assert workers["quick"].asked[0] == [0, 1, 2, 3, 4, 5]


def test_the_p50_is_the_median_of_the_rounds_and_a_disturbed_one_does_not_decide():
    found = figures.of_turns([turn(1, 2, 3), turn(70, 80, 90), turn(2, 3, 4)], [1.0, 0.5])

    assert found["rounds_p50_ms"] == [2, 80, 3]
    assert found["p50_ms"] == 3
    assert found["answered"] == 9
    assert found["recall"] == 0.75


@pytest.mark.parametrize(
    ("server", "expected"), [((0.5, 0.7), 400), ((0.5, None), None)], ids=["here", "elsewhere"]
)
def test_cpu_is_that_of_a_search(server, expected):
    turns = [turn(1, 1, cpu_s=0.1, server_s=server[0]), turn(1, cpu_s=0.2, server_s=server[1])]

    found = figures.of_turns(turns, [1.0])

    assert found["client_cpu_ms"] == 100
    assert found["server_cpu_ms"] == expected


def test_clients_at_the_same_time_are_added_up():
    found = figures.at_once([turn(100, 100), turn(50, 50, 50, 50)])

    assert found["clients"] == 2
    assert found["qps"] == 30
    assert found["client_mb"] == 2
    assert found["server_mb"] is None


def test_growth_compares_the_sizes_within_each_round():
    assert growth([turn(1), turn(10)], [turn(2), turn(11)]) == [2, 1.1]


def size(rows: int, effort: int | None, pages: float, recall: float) -> dict[str, Any]:
    index = None if effort is None else {"effort": {"ef_search": effort}}
    return {"rows": rows, "index": index, "pages": pages, "recall": recall}


def test_why_says_what_differs():
    assert why([size(1_000, 20, 100, 0.99), size(10_000, 40, 150, 0.97)], 0.98) == [
        "To hold a recall of 0.98, the effort went from ef_search 20 to ef_search 40.",
        "A search looks at 150 pages instead of 100, 1.50 times as many.",
        "At 10,000 rows the recall is 0.97, below the goal.",
    ]
    assert why([size(100, None, 5, 1), size(1_000, None, 50, 1)], 0.98)[0] == (
        "100 and 1,000 rows are searched exactly: every row is looked at, so that time grows "
        "with their number."
    )
