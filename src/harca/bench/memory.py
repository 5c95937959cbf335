"""The file store's vectors in memory, searched exactly by NumPy."""

import contextlib
import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harca.bench.contestant import Key
from harca.bench.process import Backend

_CORE_NAMES = (
    "scipy_openblas_get_corename64_", "openblas_get_corename64_", "openblas_get_corename",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class InMemory:
    """A float32 matrix of unit vectors: a product with the query, then the best of it.

    Attributes:
        matrix: A ``.npy`` file of the rows.
        ids: Likewise, of their ids.
        shared: One copy for all processes, mapped; else a copy of its own, as fast as can be.
    """

    matrix: Path
    ids: Path
    shared: bool = False
    name: str = "numpy"
    title: str = "file store in memory: exact, NumPy float32"

    def start(self) -> "_Matrix":
        """Read the matrix."""
        return _Matrix(
            np.load(self.matrix, mmap_mode="r" if self.shared else None), np.load(self.ids)
        )


class _Matrix:
    backends: Sequence[Backend] = ()

    def __init__(self, matrix: NDArray[np.float32], ids: NDArray[np.int64]) -> None:
        self._matrix, self._ids = matrix, ids
        self.notes = [f"NumPy {np.__version__}, BLAS kernel {blas_kernel()}"]

    def before(self) -> None:
        """Everything is there."""

    def search(self, embedding: NDArray[np.float32], k: int) -> list[Key]:
        """Return the ids of the nearest rows."""
        cosines = self._matrix @ embedding
        last = len(cosines) - min(k, len(cosines))
        best = np.argpartition(cosines, last)[last:] if last else np.arange(len(cosines))
        found: list[Key] = self._ids[best[np.argsort(-cosines[best])]].tolist()
        return found

    def close(self) -> None:
        """Nothing is open."""


def blas_kernel() -> str:
    """Return the name of the processor for which OpenBLAS works here, if it is OpenBLAS."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            path = line.split()[-1]
            if "openblas" not in Path(path).name:
                continue
            library = ctypes.CDLL(path)
            for name in _CORE_NAMES:
                if hasattr(library, name):
                    ask = getattr(library, name)
                    ask.restype = ctypes.c_char_p
                    return str(ask().decode())
    return "not known"
