"""A text to search by, embedded by the embedder of the space that it is to be searched in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from harca.embedders.base import AS_IT_IS, Embedder, embedded_queries
from harca.embedders.choice import GUESSED, KEPT, Choice, choose, open_embedder
from harca.errors import OtherDims, UsageError
from harca.model import Space
from harca.postgres.search import find_space
from harca.postgres.space_index import spaces
from harca.space_embedder import kept_embedder


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no single truth value
class TextQuery:
    """A text as a query.

    Attributes:
        embedding: float32, shape ``(space.dims,)``.
        embedded_by: The embedder's name.
    """

    embedding: NDArray[np.float32]
    space: Space
    embedded_by: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to embed texts for a space.

    Attributes:
        spaces: The space; several, where the embedding's dimensions will tell which.
        embedder: It, or its name.
        remark: What to tell before it gets a text: that it was guessed.
    """

    spaces: list[Space]
    embedder: Embedder | str
    remark: str | None = None

    @property
    def dims(self) -> int | None:
        """The dimensions that the embedding must have, if they are known."""
        return self.spaces[0].dims if len(self.spaces) == 1 else None

    def embed(self, texts: Sequence[str], embedder: Embedder) -> tuple[NDArray[np.float32], Space]:
        """Return embeddings, shape ``(n, space.dims)``, and the space that they are for.

        Args:
            embedder: The one that was wanted, opened.

        Raises:
            UsageError: A text is empty, or the embeddings fit none of the spaces.
            EmbedderError: It failed.
        """
        for text in texts:
            check_text(text)
        embeddings = embedded_queries(embedder, texts, dims=self.dims)
        found = embeddings.shape[1]
        for space in self.spaces:
            if space.dims == found:
                return embeddings, space
        raise OtherDims(embedder.name, found=found, expected=self.spaces[0].dims)


def check_text(text: str) -> None:
    """Refuse a text that has nothing to embed.

    Raises:
        UsageError: It is empty.
    """
    if not text.strip():
        raise UsageError("the text to search by is empty", hint="Give one with words in it.")


def embed_text(
    conn: psycopg.Connection[Any],
    text: str,
    *,
    model_id: str | None,
    embedder: Embedder | str | None = None,
    tell: Callable[[str], None] = lambda _message: None,
) -> TextQuery:
    """Embed *text* for the space that *model_id* names, or the only one.

    Args:
        embedder: One, or the name of one; None takes the space's.
        tell: Is told of an embedder that was guessed, before it gets the text.

    Raises:
        UsageError: There is no such space, no embedder for it, or it cannot be had here.
        EmbedderError: It failed.
    """
    check_text(text)
    wanted = find_embedder(conn, model_id=model_id, embedder=embedder)
    if wanted.remark:
        tell(wanted.remark)
    found = wanted.embedder
    if isinstance(found, str):
        found = open_embedder(found, dims=wanted.dims)
    embeddings, space = wanted.embed([text], found)
    return TextQuery(embeddings[0], space, found.name)


def find_embedder(
    conn: psycopg.Connection[Any], *, model_id: str | None, embedder: Embedder | str | None
) -> Wanted:
    """Return what is to embed texts for the space that *model_id* names, or the only one.

    Raises:
        UsageError: There is no such space, or no embedder for it.
    """
    fitting = _spaces_of_one_label(conn, model_id)
    if embedder is not None:
        return Wanted(fitting, embedder)
    space, choice = _known(conn, fitting)
    remark = None
    if choice.origin == GUESSED:
        remark = (
            f'the text goes to {choice.name}, guessed from the label "{space.model_id}"; to '
            f"settle it: harca embedder {choice.name}"
        )
    return Wanted([space], choice.name, remark)


def _spaces_of_one_label(conn: psycopg.Connection[Any], model_id: str | None) -> list[Space]:
    fitting = [space for space in spaces(conn) if model_id in (None, space.model_id)]
    if len({space.model_id for space in fitting}) != 1:
        find_space(conn, model_id=model_id, dims=None)  # raises, and says which there are
    return fitting


def _known(conn: psycopg.Connection[Any], fitting: list[Space]) -> tuple[Space, Choice]:
    """Return the space whose embedder is known, and that embedder."""
    choices = [(space, choose(None, space, kept_embedder(conn, space))) for space in fitting]
    known = [(space, choice) for space, choice in choices if choice is not None]
    kept = [(space, choice) for space, choice in known if choice.origin == KEPT]
    for found in (kept, known):
        if len(found) == 1:
            return found[0]
    shown = ", ".join(f"{space.model_id}/{space.dims}" for space in fitting)
    if known:
        raise UsageError(
            f"several spaces fit, and each has an embedder: {shown}",
            hint="Name the one to use by --embedder: its dimensions tell the space.",
        )
    raise NoEmbedder(shown)


class NoEmbedder(UsageError):
    """Nobody has said what embeds texts for the space, and its label suggests nothing."""

    def __init__(self, space: str) -> None:
        super().__init__(
            f'no embedder is known for "{space}"',
            hint="Name the model that made the stored embeddings: --embedder openai:MODEL or "
            f"local:MODEL; `harca embedder NAME` keeps it. {AS_IT_IS}",
        )
        self.space = space
