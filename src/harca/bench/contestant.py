"""Who takes part in a measurement."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harca.bench.process import Backend

Key = int | str
"""How a contestant names a row: by its id in the table, or by its key in the store."""


class Session(Protocol):
    """A contestant that is ready to search, in its own process.

    Attributes:
        notes: What a reader of its figures has to know.
        backends: The server's processes that work for it.
    """

    notes: list[str]
    backends: Sequence[Backend]

    def before(self) -> None:
        """Bring about what each search is to find; it is not timed."""
        ...

    def search(self, embedding: NDArray[np.float32], k: int) -> Sequence[Key]:
        """Return the *k* rows nearest to *embedding*; this is what is timed."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class Contestant(Protocol):
    """What is sent to the process in which it is to run: it must be picklable.

    Attributes:
        name: Short, and part of the JSON that is printed.
        title: What it is, for people.
    """

    @property
    def name(self) -> str: ...  # see the class

    @property
    def title(self) -> str: ...

    def start(self) -> Session:
        """Return it ready to search."""
        ...
