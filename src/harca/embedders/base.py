"""What embeds texts, and what each of its answers is held to."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harca.errors import EmbedderError, OtherDims, counted

# The end of hints: without an embedder there is this.
AS_IT_IS = "`harca search --vector FILE` takes an embedding as it is."


class Embedder(Protocol):
    """A model that embeds texts; an application can bring one of its own."""

    @property
    def name(self) -> str:
        """What it is called in messages, such as ``openai:text-embedding-3-small``."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of *texts*, in their order: float32, shape ``(n, dims)``."""
        ...


@runtime_checkable
class QueryEmbedder(Embedder, Protocol):
    """A model that embeds a question otherwise than the texts that answer it."""

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the embedding of the question *text*: float32, shape ``(dims,)``."""
        ...


def embedded(
    embedder: Embedder, texts: Sequence[str], *, dims: int | None = None
) -> NDArray[np.float32]:
    """Return the embeddings of *texts* by *embedder*, looked at before anybody uses them.

    Args:
        dims: Of the space that they are for; None takes whatever they have.

    Raises:
        EmbedderError: There is not one finite embedding for each text.
        OtherDims: They do not fit the space.
    """
    return _checked(embedder.name, embedder.embed(texts), count=len(texts), dims=dims)


def embedded_queries(
    embedder: Embedder, texts: Sequence[str], *, dims: int | None = None
) -> NDArray[np.float32]:
    """Return the embeddings of questions, shape ``(n, dims)``; raises as `embedded` does."""
    if not isinstance(embedder, QueryEmbedder):
        return embedded(embedder, texts, dims=dims)
    answer = [embedder.embed_query(text) for text in texts]
    return _checked(embedder.name, answer, count=len(texts), dims=dims)


def _checked(name: str, answer: Any, *, count: int, dims: int | None) -> NDArray[np.float32]:
    try:
        wide = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise EmbedderError(
            f'"{name}" answered with no embeddings: they are not numbers, or not all of one length',
            hint=f"Is it a model that embeds texts? {AS_IT_IS}",
        ) from exc
    if wide.ndim != 2 or not wide.size:
        raise EmbedderError(
            f'"{name}" answered with no embeddings: their shape is {wide.shape}, '
            f"expected ({count}, {dims or 'dims'})",
            hint=f"Is it a model that embeds texts? {AS_IT_IS}",
        )
    if len(wide) != count:
        raise EmbedderError(
            f'"{name}" answered with {counted(len(wide), "embedding")}, expected {count}',
            hint=f"Is it a model that embeds texts? {AS_IT_IS}",
        )
    with np.errstate(over="ignore"):  # to infinity, which is refused
        embeddings = wide.astype(np.float32)
    if not np.isfinite(embeddings).all():
        raise EmbedderError(
            f'"{name}" answered with an embedding that is not finite',
            hint=f"Is it a model that embeds texts? {AS_IT_IS}",
        )
    if dims is not None and embeddings.shape[1] != dims:
        raise OtherDims(name, found=embeddings.shape[1], expected=dims)
    return embeddings
