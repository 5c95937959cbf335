"""Embeddings that are made up, but lie as those of texts do."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harca.model import Item, Rejection, StoreNotes

MODEL = "synthetic"

_SEED = 20_261_123
_CLUSTERS = 64
_CHUNK_ROWS = 2_000
# Embeddings of texts vary in some tens of directions, not in all that they have: points
# that fill every direction have no near neighbours, and no index finds those.
_LATENT_DIMS = 32
_SPREAD = 0.8


class Embeddings:
    """Clustered unit vectors; the same seed gives the same ones.

    Args:
        queries: Others of the same clusters, none of which is among the rows.
    """

    def __init__(self, dims: int, *, seed: int = _SEED, queries: bool = False) -> None:
        self.dims = dims
        shape = np.random.default_rng(seed)
        self._centres = _unit(shape.normal(size=(_CLUSTERS, dims)))
        self._basis = shape.normal(size=(_LATENT_DIMS, dims)) / math.sqrt(dims * _LATENT_DIMS)
        self._noise = np.random.default_rng(seed + (2 if queries else 1))

    def draw(self, rows: int) -> NDArray[np.float64]:
        """Return the next *rows* vectors, shape ``(rows, dims)``."""
        clusters = self._noise.integers(_CLUSTERS, size=rows)
        latent = self._noise.normal(size=(rows, _LATENT_DIMS))
        return _unit(self._centres[clusters] + _SPREAD * latent @ self._basis)

    def write(self, rows: int, path: Path) -> NDArray[np.float32]:
        """Write the next *rows* vectors to a ``.npy`` file and return them, mapped.

        Memory is some thousand rows: those of the file are the system's to keep or not.
        """
        mapped: NDArray[np.float32] = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.float32, shape=(rows, self.dims)
        )
        for first in range(0, rows, _CHUNK_ROWS):
            some = min(_CHUNK_ROWS, rows - first)
            mapped[first : first + some] = self.draw(some)
        return mapped


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float64] = vectors / lengths
    return unit


@dataclass(slots=True)
class VectorsReader:
    """Records for the rows of a matrix, numbered from *first* on."""

    vectors: NDArray[Any]
    first: int
    format: str = "synthetic"
    volatile: frozenset[str] = frozenset()
    guesses_ids = False
    bookkeeping: frozenset[str] = frozenset()
    notes: StoreNotes = field(default_factory=StoreNotes)

    def items(self) -> Iterator[Item | Rejection]:
        """Yield one item a row."""
        for number, vector in enumerate(self.vectors, self.first):
            yield Item(
                key=str(number),
                content=f"record {number}: stands in for a paragraph of a document. " * 3,
                vector=vector,
                metadata=self.metadata(number),
                model_id=MODEL,
                created_at=None,
                source=self.source(number),
                origin=f"row {number}",
                payload=bytes,
            )

    def metadata(self, number: int) -> dict[str, Any]:
        """Return what is known of a record beside its text."""
        return {"directory": "cache/embeddings", "number": number}

    def source(self, number: int) -> str:
        """Return where a record comes from."""
        return "synthetic"

    def size_hint(self) -> int:
        """Return the number of rows."""
        return len(self.vectors)
