"""Which embedder a space is searched by: the one named, the one kept, or one guessed. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from harca.embedders.base import AS_IT_IS, Embedder
from harca.errors import EmbedderError, NotInstalled, UsageError
from harca.model import Space

GIVEN, KEPT, GUESSED = "given", "kept", "guessed"

# By the word before the colon: the module that has it, its library, and the extra that brings it.
_PROVIDERS = {
    "openai": ("harca.embedders.openai", "openai", "openai"),
    "local": ("harca.embedders.local", "sentence_transformers", "local"),
}

# OpenAI's models -> dimensions, and whether they can be asked for fewer.
# https://platform.openai.com/docs/guides/embeddings
_OPENAI = {
    "text-embedding-3-small": (1536, True),
    "text-embedding-3-large": (3072, True),
    "text-embedding-ada-002": (1536, False),
}
# Names that sentence-transformers finds without an organisation before them.
_BARE = re.compile(
    r"(?:all|multi-qa|paraphrase|msmarco|distiluse|nli|stsb|gtr|sentence-t5)-[\w.\-]+|LaBSE"
)
# Organisations on the Hugging Face Hub whose models embed texts and stand for themselves.
_HUB = re.compile(
    r"(?:sentence-transformers|BAAI|intfloat|thenlper|Alibaba-NLP|mixedbread-ai|nomic-ai|jinaai|"
    r"Snowflake|ibm-granite|Qwen|WhereIsAI|avsolatorio|cl-nagoya|pkshatech|pfnet|hkunlp)/[\w.\-]+"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """An embedder's name, and where it is from: ``given``, ``kept`` or ``guessed``."""

    name: str
    origin: str


def choose(name: str | None, space: Space, kept: str | None) -> Choice | None:
    """Return the embedder for *space*: *name*, else *kept*, else a guess from the label."""
    if name is not None:
        return Choice(name, GIVEN)
    if kept is not None:
        return Choice(kept, KEPT)
    guessed = guess(space)
    return Choice(guessed, GUESSED) if guessed else None


def guess(space: Space) -> str | None:
    """Return the embedder that the label of *space* suggests, if it can have its dimensions."""
    label = space.model_id
    model = label.removeprefix("openai/")
    if model in _OPENAI:
        return f"openai:{model}" if _makes(model, space.dims) else None
    # What transformers.js takes is the same model, converted.
    model = label.removeprefix("Xenova/")
    return f"local:{model}" if _BARE.fullmatch(model) or _HUB.fullmatch(model) else None


def _makes(model: str, dims: int) -> bool:
    most, can_be_fewer = _OPENAI[model]
    return dims == most or (can_be_fewer and dims < most)


def fewer_dims(model: str, dims: int | None) -> int | None:
    """Return the dimensions to ask an OpenAI model for; None: those that it makes unasked."""
    most, can_be_fewer = _OPENAI.get(model, (0, False))
    return dims if dims is not None and can_be_fewer and dims < most else None


def parts(name: str) -> tuple[str, str]:
    """Return provider and model of an embedder's name.

    Raises:
        UsageError: It is none.
    """
    provider, colon, model = name.partition(":")
    if provider not in _PROVIDERS or not colon or not model.strip():
        raise UsageError(
            f'"{name}" names no embedder, expected openai:MODEL or local:MODEL',
            hint="For example openai:text-embedding-3-small, or local:all-MiniLM-L6-v2 for a "
            "model on this machine (its folder does too).",
        )
    return provider, model


def open_embedder(name: str, *, dims: int | None = None) -> Embedder:
    """Return the embedder that is called *name*, ready to embed for a space of *dims*.

    Raises:
        EmbedderNotHere: It cannot be had here; the hint says what it lacks.
        UsageError: It is no embedder's name.
        EmbedderError: It is broken.
    """
    provider, model = parts(name)
    module, library, extra = _PROVIDERS[provider]
    try:
        opening = cast("Callable[..., Embedder]", import_module(module).open_model)
    except ModuleNotFoundError as exc:
        if exc.name != library:
            raise _broken(name, exc) from exc
        raise NotInstalled(name, library=library.replace("_", "-"), extra=extra) from exc
    except ImportError as exc:
        raise _broken(name, exc) from exc
    return opening(model, dims=dims)


def _broken(name: str, exc: ImportError) -> EmbedderError:
    return EmbedderError(
        f'"{name}" cannot be used: {exc}',
        hint=f"Install its library again. {AS_IT_IS}",
    )
