"""The embedder that is kept with a space, and the look at its embeddings before it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from harca.embedders.choice import Choice, choose, open_embedder, parts
from harca.embedders.parity import Parity, parity
from harca.errors import EmbedderError, EmbedderNotHere, OtherEmbeddings, UsageError
from harca.model import Space
from harca.options import check_label
from harca.postgres import space_settings
from harca.postgres.owned import is_there
from harca.postgres.space_index import spaces
from harca.postgres.stored_texts import stored_texts

TEXTS = 5


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept, and how it compared; *unchecked* says why it could not be compared."""

    space: Space
    name: str
    parity: Parity | None
    unchecked: str | None = None


def kept_embedder(conn: psycopg.Connection[Any], space: Space) -> str | None:
    """Return the name of the embedder that is kept with *space*, if one is."""
    # An older schema, which is searched all the same, has no settings.
    if not is_there(conn, "space_settings"):
        return None
    return space_settings.settings_of(conn, space).embedder


def embedders(
    conn: psycopg.Connection[Any], *, model_id: str | None, dims: int | None
) -> list[tuple[Space, Choice | None]]:
    """Return the spaces that fit with their embedders: kept, guessed, or None."""
    return [
        (space, choose(None, space, kept_embedder(conn, space)))
        for space in spaces(conn)
        if model_id in (None, space.model_id) and dims in (None, space.dims)
    ]


def keep(
    conn: psycopg.Connection[Any], space: Space, name: str, *, texts: int = TEXTS, force: bool
) -> Kept:
    """Keep the embedder *name* with *space*, once it has made the embeddings that are stored.

    Args:
        texts: How many stored texts it has to embed; what they cost is the API's to say.
        force: Keep it whatever comes of that, unless its dimensions are others.

    Raises:
        OtherEmbeddings: It makes others; nothing was kept.
        UsageError: It names none, cannot be had here, or makes other dimensions.
        EmbedderError: It failed.
    """
    name = _found_anywhere(name)
    check_label("the embedder's name", name)
    try:
        found = _compared(conn, space, name, texts=texts)
        unchecked = None
    except (EmbedderError, EmbedderNotHere, _NoTexts) as exc:
        if not force:
            raise
        found, unchecked = None, str(exc)
    if found is not None and not found.ok and not force:
        raise OtherEmbeddings(
            name,
            space=f"{space.model_id}/{space.dims}",
            agreeing=found.agreeing,
            texts=found.texts,
            lowest=found.lowest,
        )
    space_settings.keep(conn, space, embedder=name)
    return Kept(space, name, found, unchecked)


def forget(conn: psycopg.Connection[Any], space: Space) -> None:
    """Keep no embedder with *space* any more."""
    space_settings.keep(conn, space, embedder=None)


class _NoTexts(UsageError):
    pass


def _compared(conn: psycopg.Connection[Any], space: Space, name: str, *, texts: int) -> Parity:
    contents, stored = stored_texts(conn, space, most=texts)
    if not contents:
        raise _NoTexts(
            f'"{space.model_id}/{space.dims}" has no texts to compare the embedder by',
            hint="Is it the right space? --force keeps it all the same.",
        )
    embedder = open_embedder(name, dims=space.dims)
    return parity(embedder, contents, stored, dims=space.dims)


def _found_anywhere(name: str) -> str:
    """Return the name with a folder in full: it is read again from other folders than this one."""
    provider, model = parts(name)
    folder = Path(model).expanduser()
    return f"{provider}:{folder.resolve()}" if provider == "local" and folder.is_dir() else name
