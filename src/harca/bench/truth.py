"""What an exact search finds, and how much of it somebody has found."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_CHUNK_ROWS = 20_000
# Cosines of float32 vectors differ by about this much with the order of summation.
_ROUNDING = 1e-6


class Truth:
    """The exact answers to some queries.

    Args:
        matrix: The rows, of unit length, float32, shape ``(rows, dims)``; can be mapped.
        queries: Likewise, shape ``(queries, dims)``.
    """

    def __init__(self, matrix: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> None:
        self.matrix, self.queries = matrix, queries
        self.k = min(k, len(matrix))
        best = np.full((len(queries), self.k), -np.inf, np.float32)
        for first in range(0, len(matrix), _CHUNK_ROWS):
            cosines = queries @ matrix[first : first + _CHUNK_ROWS].T
            best = np.partition(np.hstack([best, cosines]), -self.k, axis=1)[:, -self.k :]
        self._least = best.min(axis=1) - _ROUNDING

    def recall(self, query: int, found: Iterable[int | None]) -> float:
        """Return the share of the *k* nearest rows that is among those *found*.

        A row as near as the last of the nearest is as good as that one: which of several equals
        somebody returns is no matter of recall. A row counts once; None is a row that is not
        there.
        """
        rows = sorted({row for row in found if row is not None})
        cosines = self.matrix[rows] @ self.queries[query]
        return min(int((cosines >= self._least[query]).sum()), self.k) / self.k


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return *vectors* with length 1; one without direction stays zero."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return scaled


def between_neighbours(
    matrix: NDArray[np.float32], count: int, *, seed: int = 1
) -> NDArray[np.float32]:
    """Return queries that are none of the rows, but lie where the rows lie.

    Each is halfway between a random row and one of those nearest to it: a row itself would find
    itself, which is too easy, and a random point is near to nothing, which no index is for.
    """
    dice = np.random.default_rng(seed)
    rows = dice.choice(len(matrix), size=count, replace=count > len(matrix))
    start = np.asarray(matrix[np.sort(rows)])
    near = min(10, len(matrix) - 1)
    if near < 1:
        return start
    nearest: NDArray[np.float32] = np.full((count, near + 1), -np.inf, np.float32)
    where = np.zeros((count, near + 1), np.int64)
    for first in range(0, len(matrix), _CHUNK_ROWS):
        cosines = start @ matrix[first : first + _CHUNK_ROWS].T
        all_cosines = np.hstack([nearest, cosines])
        all_rows = np.hstack(
            [where, np.broadcast_to(np.arange(cosines.shape[1]) + first, cosines.shape)]
        )
        best = np.argpartition(all_cosines, -near - 1, axis=1)[:, -near - 1 :]
        nearest = np.take_along_axis(all_cosines, best, axis=1)
        where = np.take_along_axis(all_rows, best, axis=1)
    by_nearness = np.take_along_axis(where, np.argsort(-nearest, axis=1), axis=1)
    chosen = by_nearness[np.arange(count), dice.integers(1, near + 1, size=count)]
    middle = unit(start + matrix[chosen])
    # Opposite vectors have no middle.
    return np.where(np.linalg.norm(middle, axis=1, keepdims=True) > 0, middle, start)
