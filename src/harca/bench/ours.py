"""Harca's own search, as an application calls it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harca.bench.contestant import Key
from harca.bench.process import Backend
from harca.model import Space
from harca.postgres.by_hand import backends_called, calling_itself
from harca.postgres.connect import Database
from harca.store import VectorStore


@dataclass(frozen=True, slots=True)
class Harca:
    """`VectorStore.search` with one connection, by whatever index the space has.

    Attributes:
        where, source: What a row must fulfil, as `VectorStore.search` takes it.
    """

    database: Database
    space: Space
    where: dict[str, Any] | None = None
    source: str | None = None
    name: str = "harca"
    title: str = "harca, as an application calls it"

    def start(self) -> "_Harca":
        """Connect."""
        return _Harca(self)


class _Harca:
    def __init__(self, contestant: Harca) -> None:
        application = f"harca bench {os.getpid()}"
        self._contestant = contestant
        self._store = VectorStore(calling_itself(contestant.database, application), connections=1)
        self.search(np.ones(contestant.space.dims, np.float32), 1)  # it connects when it is asked
        self.backends: Sequence[Backend] = backends_called(contestant.database, application)
        self.notes: list[str] = []

    def before(self) -> None:
        """The connection is open."""

    def search(self, embedding: NDArray[np.float32], k: int) -> list[Key]:
        """Return the ids of the hits."""
        asked = self._contestant
        found = self._store.search(
            embedding, model_id=asked.space.model_id, k=k, where=asked.where, source=asked.source
        )
        return [hit.id for hit in found.hits]

    def close(self) -> None:
        """Disconnect."""
        self._store.close()
