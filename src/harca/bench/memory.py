"""The file store's vectors in memory, searched exactly by NumPy."""

import contextlib
import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harca.bench.contestant import Key
from harca.bench.process import Backend
from harca.errors import counted

# As NumPy's own wheels have them, and other builds.
_NAMES = ("scipy_openblas_{}64_", "openblas_{}64_", "openblas_{}")
_TRIED = 9
_WORTH = 0.9


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
        threads = self._choose_threads()
        self.notes = [
            f"NumPy {np.__version__}, BLAS kernel {blas_kernel()}"
            + (f", {counted(threads, 'thread')}, which is quickest here" if threads else "")
        ]

    def _choose_threads(self) -> int | None:
        """Have OpenBLAS use one thread or all, whichever is quicker for this matrix."""
        ask, tell = _openblas("get_num_threads"), _openblas("set_num_threads")
        if ask is None or tell is None:
            return None
        most, query = int(ask()), np.array(self._matrix[0])
        took = {}
        for threads in {most, 1}:
            tell(threads)
            products = []
            for _ in range(_TRIED):
                started = perf_counter()
                _ = self._matrix @ query
                products.append(perf_counter() - started)
            took[threads] = median(products)
        # Threads wait for one another: they have to be worth it beyond what chance can do.
        best = most if took[most] < _WORTH * took[1] else 1
        tell(best)
        return best

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
    ask = _openblas("get_corename")
    if ask is None:
        return "not known"
    ask.restype = ctypes.c_char_p
    return str(ask().decode())


def _openblas(name: str) -> Any:
    """Return a function of the OpenBLAS that NumPy has loaded; None: it has another one."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            path = line.split()[-1]
            if "openblas" not in Path(path).name:
                continue
            library = ctypes.CDLL(path)
            for form in _NAMES:
                if hasattr(library, form.format(name)):
                    return getattr(library, form.format(name))
    return None
