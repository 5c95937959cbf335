"""Embedding by OpenAI's API, or by any server that speaks it: OPENAI_BASE_URL names that.

The key, OPENAI_API_KEY, is in no error: what a server says is quoted without it, and what it
says of a key that it refuses, which can have parts of it, is not quoted at all.
"""

import os
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import openai
from numpy.typing import NDArray

from harca.embedders.base import AS_IT_IS
from harca.embedders.choice import fewer_dims
from harca.errors import EmbedderError, EmbedderNotHere
from harca.redact import redacted, without_login

_TIMEOUT_S = 30.0  # the library's own is ten minutes; somebody waits for the answer
_AT_ONCE = 64  # texts in a request; OpenAI takes 300,000 tokens in all
_SHOWN = 200

_HINTS = {
    401: "Is OPENAI_API_KEY the key of the server that OPENAI_BASE_URL names (OpenAI's own, if it "
    "is not set)?",
    404: "Is it the name of a model there, and is OPENAI_BASE_URL right, with its /v1?",
    429: "It was tried three times. Wait, or look at the account's limits.",
}
_OTHERWISE = f"Run the same command again later. {AS_IT_IS}"


def open_model(model: str, *, dims: int | None) -> "OpenAIEmbedder":
    """Return the embedder for *model*; nothing is sent yet."""
    return OpenAIEmbedder(model, dims=dims)


class OpenAIEmbedder:
    """A model behind OpenAI's API. Safe to use by several threads."""

    def __init__(self, model: str, *, dims: int | None = None) -> None:
        self.name = f"openai:{model}"
        self._model = model
        self._key = _key(self.name)
        dimensions = fewer_dims(model, dims)
        self._more: dict[str, Any] = {} if dimensions is None else {"dimensions": dimensions}
        # Lost connections, 408, 409, 429 and 5xx are tried twice more, by the library.
        self._client = openai.OpenAI(api_key=self._key, timeout=_TIMEOUT_S)
        weakref.finalize(self, self._client.close)  # its connections end with the embedder
        self._address = without_login(str(self._client.base_url)).rstrip("/")

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of *texts*, shape ``(n, dims)``.

        Raises:
            EmbedderError: The server cannot be reached, refuses, or answers with something else.
        """
        found: list[list[float]] = []
        for start in range(0, len(texts), _AT_ONCE):
            found += self._request(list(texts[start : start + _AT_ONCE]))
        try:
            with np.errstate(over="ignore"):  # what is infinite is refused by `base`
                return np.array(found, dtype=np.float32)
        except (TypeError, ValueError):
            raise self._no_embeddings() from None

    def _request(self, texts: list[str]) -> list[list[float]]:
        try:
            answer = self._client.embeddings.create(model=self._model, input=texts, **self._more)
            # Not in the order of the texts, by the letter of the API.
            found = sorted(answer.data, key=lambda item: item.index)
            return [item.embedding for item in found]
        except openai.APIStatusError as exc:
            # Not "from exc", here and below: its message could have the key in it.
            raise self._refusal(exc) from None
        except openai.APIConnectionError as exc:
            why = f" ({self._without_key(str(exc.__cause__))})" if exc.__cause__ else ""
            raise EmbedderError(
                f'"{self.name}" cannot be reached at {self._address}: '
                f"{str(exc).rstrip('.').lower()}{why}",
                hint=f"Is OPENAI_BASE_URL right, and does a proxy stand between? {AS_IT_IS}",
            ) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError):
            # The library takes what came for what should have come, and fails on it somewhere.
            raise self._no_embeddings() from None

    def _refusal(self, exc: openai.APIStatusError) -> EmbedderError:
        said = exc.body.get("message") if isinstance(exc.body, dict) else None
        quoted = ""
        if isinstance(said, str) and exc.status_code != 401:
            quoted = f": {self._without_key(said)}"
        return EmbedderError(
            f'"{self.name}": {self._address} answered with status {exc.status_code}{quoted}',
            hint=_HINTS.get(exc.status_code, _OTHERWISE),
        )

    def _no_embeddings(self) -> EmbedderError:
        return EmbedderError(
            f'"{self.name}": {self._address} answered with something else than embeddings',
            hint="Does OPENAI_BASE_URL name a server that speaks OpenAI's API, with its /v1?",
        )

    def _without_key(self, text: str) -> str:
        line = " ".join(text.replace(self._key, "***").split())
        return redacted(line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…")


def _key(name: str) -> str:
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and os.environ.get("OPENAI_BASE_URL"):
        return "none"  # servers of one's own often want none, but the library does
    if not key:
        raise EmbedderNotHere(
            f'"{name}" needs the key of the API, and OPENAI_API_KEY is not set',
            hint="Set it in the environment, or OPENAI_BASE_URL for a server that needs none. "
            + AS_IT_IS,
        )
    if not (key.isascii() and key.isprintable()):
        # It could not be sent, and the error would quote it.
        raise EmbedderNotHere(
            "OPENAI_API_KEY has characters that no key has", hint="Was it copied in whole?"
        )
    return key
