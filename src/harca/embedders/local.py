"""Embedding on this machine, by sentence-transformers. Nothing is ever downloaded."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers
from numpy.typing import NDArray

from harca.embedders.base import AS_IT_IS
from harca.errors import EmbedderError, EmbedderNotHere

_AT_ONCE = 32
_log = logging.getLogger("harca.embedders")


def open_model(model: str, *, dims: int | None) -> "LocalEmbedder":
    """Return the embedder for *model*, loaded; it has the dimensions that it has."""
    return LocalEmbedder(model)


class LocalEmbedder:
    """A model of sentence-transformers, by its name or its folder. Safe for several threads."""

    def __init__(self, model: str) -> None:
        self.name = f"local:{model}"
        self._model = _load(self.name, model)
        # A fast tokenizer that two threads use fails with "Already borrowed".
        self._one_at_a_time = threading.Lock()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of *texts*, as texts to be found; shape ``(n, dims)``."""
        return self._encode("encode_document", list(texts))

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the embedding of a question, before which some models want a word."""
        embedding: NDArray[np.float32] = self._encode("encode_query", [text])[0]
        return embedding

    def _encode(self, how: str, texts: list[str]) -> NDArray[np.float32]:
        # Both came with version 5; before it, texts and questions were embedded alike.
        encode = getattr(self._model, how, None) or self._model.encode
        with self._one_at_a_time:
            try:
                found = encode(
                    texts,
                    batch_size=_AT_ONCE,
                    show_progress_bar=False,
                    convert_to_numpy=True,
                )
            except Exception as exc:  # whatever PyTorch and the model's own parts raise
                raise EmbedderError(
                    f'"{self.name}" failed: {_first_line(exc)}',
                    hint=f"Is there memory for it? {AS_IT_IS}",
                ) from exc
        return np.asarray(found, dtype=np.float32)


def _load(name: str, model: str) -> Any:
    folder = Path(model).expanduser()
    is_path = folder.is_absolute() or model.startswith(("~", "."))
    if is_path and not folder.is_dir():
        raise EmbedderNotHere(
            f'"{name}": there is no folder "{folder}"',
            hint="Give the folder that sentence-transformers saved the model in, with its "
            "modules.json or config.json.",
        )
    try:
        with _in_silence():
            return sentence_transformers.SentenceTransformer(
                str(folder) if folder.is_dir() else model, local_files_only=True
            )
    except Exception as exc:  # as above
        _log.debug("%s cannot be loaded", name, exc_info=exc)
        if folder.is_dir():
            raise EmbedderError(
                f'"{name}" cannot be loaded: {_first_line(exc)}',
                hint="Give the folder that sentence-transformers saved the model in, with its "
                "modules.json or config.json.",
            ) from exc
        full = model if "/" in model else f"sentence-transformers/{model}"
        raise EmbedderNotHere(
            f'the model "{model}" is not on this machine, and harca downloads none',
            hint=f"Fetch it once with `hf download {full}`, or give the folder that it lies in: "
            f"local:FOLDER. {AS_IT_IS}",
        ) from exc


@contextmanager
def _in_silence() -> Iterator[None]:
    """Have loading show no bars, which are of half a second, and ask nobody anything."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    disable_progress_bars()
    transformers_logging.disable_progress_bar()
    # "local_files_only" is about the model's files: to say who asks for them, even of its own
    # cache, huggingface_hub 2 fetches a list from the hub. Offline it would not, but then no other
    # thread of the application could fetch anything either.
    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before


def _first_line(exc: Exception) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0] if lines else type(exc).__name__
