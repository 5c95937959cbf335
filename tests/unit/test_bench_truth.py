"""What counts as found, and what is asked for."""

import numpy as np
import pytest

from harca.bench import truth
from harca.bench.truth import Truth, between_neighbours, unit


def points(*rows: list[float]) -> np.ndarray:
    return unit(np.array(rows, np.float32))


EAST, NORTH = [1.0, 0.0], [0.0, 1.0]


def test_of_several_that_are_equally_near_any_will_do():
    exact = Truth(points(NORTH, EAST, EAST, EAST), points([1, 0.1]), k=2)

    assert [exact.recall(0, found) for found in ([1, 2], [2, 3], [3, 1])] == [1, 1, 1]


def test_a_row_that_is_farther_than_the_last_of_the_nearest_does_not_count():
    exact = Truth(points(NORTH, EAST, EAST), points([1, 0.1]), k=2)

    assert exact.recall(0, [0, 1]) == 0.5


def test_a_row_counts_once_and_one_that_is_not_there_does_not():
    exact = Truth(points(EAST, EAST, NORTH), points(EAST), k=2)

    assert exact.recall(0, [0, 0]) == 0.5
    assert exact.recall(0, [None, 0]) == 0.5
    assert exact.recall(0, []) == 0


def test_more_equals_than_asked_for_are_no_more_than_all():
    exact = Truth(points(EAST, EAST, EAST), points(EAST), k=2)

    assert exact.recall(0, [0, 1, 2]) == 1


def test_fewer_rows_than_asked_for_can_all_be_found():
    exact = Truth(points(EAST, NORTH), points(EAST), k=10)

    assert exact.recall(0, [0, 1]) == 1
    assert exact.recall(0, [0]) == 0.5


def test_the_rows_in_parts_give_the_same_as_in_one(monkeypatch):
    dice = np.random.default_rng(3)
    matrix = unit(dice.normal(size=(50, 4)).astype(np.float32))
    queries = unit(dice.normal(size=(6, 4)).astype(np.float32))
    monkeypatch.setattr(truth, "_CHUNK_ROWS", 7)

    exact = Truth(matrix, queries, k=5)

    for number, query in enumerate(queries):
        ordered = np.argsort(-(matrix @ query)).tolist()
        assert exact.recall(number, ordered[:5]) == 1
        assert exact.recall(number, ordered[5:]) == 0


@pytest.mark.parametrize("count", [3, 40], ids=["few", "more than rows"])
def test_queries_lie_between_rows_and_are_none(count, monkeypatch):
    monkeypatch.setattr(truth, "_CHUNK_ROWS", 6)
    matrix = unit(np.random.default_rng(4).normal(size=(20, 8)).astype(np.float32))

    queries = between_neighbours(matrix, count)

    assert queries.shape == (count, 8)
    assert np.allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    nearest = np.sort(queries @ matrix.T, axis=1)[:, ::-1]
    assert (nearest[:, 0] < 0.9999).all()
    for query in queries:  # halfway: some two rows are equally near, and their middle is there
        cosines = matrix @ query
        assert any(
            np.allclose(unit(matrix[one] + matrix[other]), query, atol=1e-5)
            for one in np.argsort(-cosines)[:10]
            for other in np.argsort(-cosines)
        )


@pytest.mark.parametrize("rows", [[EAST], [EAST, EAST], [EAST, [-1.0, 0.0]]])
def test_there_are_queries_where_hardly_any_rows_are(rows):
    queries = between_neighbours(points(*rows), 3)

    assert np.allclose(np.linalg.norm(queries, axis=1), 1)


def test_a_vector_without_direction_stays_so():
    assert unit(np.array([[0, 0], [3e30, 4e30]], np.float32)).tolist() == pytest.approx(
        np.array([[0, 0], [0.6, 0.8]])
    )
