"""Texts that a `harca.store.VectorStore` is searched by: embedded, by models that stay open."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import psycopg
from numpy.typing import NDArray

from harca.embedders.base import Embedder
from harca.embedders.choice import open_embedder
from harca.errors import UsageError
from harca.postgres.search import stored_embedding
from harca.text_query import NoEmbedder, Wanted, check_text, find_embedder

_log = logging.getLogger("harca.embedders")

# An embedder that somebody keeps with a space meanwhile counts after so many seconds.
_FRESH_S = 60.0

_Result = TypeVar("_Result")
Connection = psycopg.Connection[Any]
Ask = Callable[[Callable[[Connection], _Result]], _Result]


class Texts:
    """Embeds texts for many threads; a connection is held only to ask which embedder it is."""

    def __init__(self, embedder: Embedder | str | None) -> None:
        self._given = embedder
        self._wanted: dict[str | None, tuple[float, Wanted]] = {}
        self._open: dict[tuple[str, int | None], Embedder] = {}
        self._opening = threading.Lock()  # loading a model takes seconds, and memory

    def embed(
        self, texts: Sequence[str], *, model_id: str | None, ask: "Ask[Any]"
    ) -> tuple[list[NDArray[np.float32]], str]:
        """Return the embeddings of *texts* and the model label of their space.

        Without an embedder, those of rows with just these texts. Where there is one, the table
        is not looked through for them: it has no index on texts.

        Args:
            ask: Calls what it is given with a connection, and returns what that returns.

        Raises:
            UsageError: There is no such space, no embedder for it, or it cannot be had here.
            EmbedderError: It failed.
        """
        for text in texts:
            check_text(text)
        try:
            wanted = self._find(model_id, ask)
        except NoEmbedder as exc:
            return self._stored(texts, model_id, ask, exc)
        embeddings, space = wanted.embed(texts, self._opened(wanted))
        return list(embeddings), space.model_id

    def _find(self, model_id: str | None, ask: "Ask[Wanted]") -> Wanted:
        now = time.monotonic()
        known = self._wanted.get(model_id)
        if known is not None and now - known[0] <= _FRESH_S:
            return known[1]
        wanted = ask(lambda conn: find_embedder(conn, model_id=model_id, embedder=self._given))
        if wanted.remark and (known is None or known[1].remark != wanted.remark):
            _log.warning("%s", wanted.remark)
        self._wanted[model_id] = (now, wanted)
        return wanted

    def _opened(self, wanted: Wanted) -> Embedder:
        if not isinstance(wanted.embedder, str):
            return wanted.embedder
        key = (wanted.embedder, wanted.dims)
        with self._opening:
            if key not in self._open:
                self._open[key] = open_embedder(wanted.embedder, dims=wanted.dims)
            return self._open[key]

    @staticmethod
    def _stored(
        texts: Sequence[str], model_id: str | None, ask: "Ask[Any]", reason: NoEmbedder
    ) -> tuple[list[NDArray[np.float32]], str]:
        def look(conn: Connection) -> list[tuple[NDArray[np.float32], str] | None]:
            return [stored_embedding(conn, "content", text, model_id=model_id) for text in texts]

        found = [row for row in ask(look) if row is not None]
        if len(found) < len(texts):
            missing = "this text is not" if len(texts) == 1 else "not all of these texts are"
            raise UsageError(f"{missing} in the table, and {reason}", hint=reason.hint) from reason
        return [embedding for embedding, _ in found], found[0][1]
