"""The indexes of a database, for its operator: listed, built, kept in the spaces' settings."""

from dataclasses import dataclass, field, replace
from typing import Any

import psycopg

from harca import migrations
from harca.errors import Refused, TargetError, UsageError
from harca.model import Space
from harca.postgres import full_text, index_choice, indexes, space_settings
from harca.postgres.build_progress import BuildProgress
from harca.postgres.connect import Database, translated
from harca.postgres.index_choice import index_for
from harca.postgres.indexes import SpaceState
from harca.postgres.schema import FULL_TEXT_INDEX
from harca.postgres.search import find_space
from harca.postgres.space_index import METHODS, Capabilities, capabilities
from harca.postgres.space_settings import EXACT, Effort, SpaceSettings
from harca.watcher import Unwatched, Watcher

_EFFORT = {"hnsw": {"ef_search", "candidates"}, "ivfflat": {"probes", "candidates"}, EXACT: set()}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator says of one space's index; None: nothing.

    Attributes:
        forget: What was said before is forgotten.
    """

    method: str | None = None
    type: str | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    effort: dict[str, int] = field(default_factory=dict)
    forget: bool = False

    @property
    def is_empty(self) -> bool:
        """True if nothing is said."""
        return self == Wish()

    @property
    def is_about_index(self) -> bool:
        """True if it can change what the index is made of."""
        return self.forget or bool(self.method or self.type or self.parameters)


@dataclass(frozen=True, slots=True)
class Listed:
    """The spaces with their indexes, and what there is to know about the server's pgvector.

    Attributes:
        full_text: The index for full text, of all spaces; None: there is none.
    """

    spaces: list[dict[str, Any]]
    indexes: int
    most_indexes: int
    warnings: list[str]
    full_text: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the list as ``--json`` shows it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Built:
    """What `build` did, and how the spaces are searched now.

    Attributes:
        refused: Spaces whose rows the server cannot index so, and its words.
    """

    built: list[str]
    refused: list[dict[str, Any]]
    listed: Listed

    def as_dict(self) -> dict[str, Any]:
        """Return the result as ``--json`` shows it."""
        return {"built": self.built, "refused": self.refused, **self.listed.as_dict()}


def listed(target: Database) -> Listed:
    """Return how each space of *target* is searched; changes nothing.

    Raises:
        SchemaNotReady: There are no spaces yet.
    """
    _require_schema(target)
    with translated(), target.connect() as conn:
        return _listed(conn)


def build(
    target: Database,
    wish: Wish,
    *,
    model_id: str | None = None,
    dims: int | None = None,
    watcher: Watcher | None = None,
) -> Built:
    """Build what the spaces deserve, or what *wish* says for one of them, and keep that.

    Args:
        model_id, dims: The one space that is meant; without a wish, all are if both are None.

    Raises:
        UsageError: No space fits, or several do; or the wish is none that a server can fulfil.
        Refused: A revision has made the space's index.
        TargetError: The server refused the index of the space.
    """
    _require_schema(target)
    watching = watcher or Unwatched()
    refused: list[dict[str, Any]] = []
    with translated(), target.connect() as conn:
        only, before = None, SpaceSettings()
        if not wish.is_empty or model_id is not None or dims is not None:
            only = find_space(conn, model_id=model_id, dims=dims)
            before = space_settings.settings_of(conn, only)
            # First: a build that is interrupted goes on with the next load.
            _keep(conn, only, wish)
        watching.stage("index")
        built = indexes.build(
            conn,
            progress=watching.stage,
            shown=BuildProgress(target, watching),
            only=only,
            refused=lambda space, why: refused.append({**space.as_dict(), "why": why}),
        )
        if only is not None and refused:
            if not wish.is_empty:
                space_settings.keep(conn, only, **_fields(before))
            raise TargetError(
                f"the server refuses an index for {only.model_id}/{only.dims}: {refused[0]['why']}",
                hint="Searches there are as they were, and nothing is kept of what was said. Say "
                "another --type, or fewer --lists.",
            )
        return Built(built, refused, _listed(conn))


def build_full_text(target: Database, *, watcher: Watcher | None = None) -> Built:
    """Build the index for full text, which serves all spaces, if it is not there.

    Raises:
        SchemaNotReady: Its functions are not there.
        TargetError: The database cannot have it.
    """
    target.reach()
    watching = watcher or Unwatched()
    with translated(), target.connect() as conn:
        is_new = full_text.build_index(
            conn, progress=watching.stage, shown=BuildProgress(target, watching)
        )
        return Built([FULL_TEXT_INDEX] if is_new else [], [], _listed(conn))


def _require_schema(target: Database) -> None:
    target.reach()
    migrations.require_schema(target, migrations.LOADABLE)


def _listed(conn: psycopg.Connection[Any]) -> Listed:
    settings = space_settings.all_settings(conn)
    found = [
        _space(state, settings.get((state.choice.space.model_id, state.choice.space.dims)))
        for state in indexes.states(conn)
    ]
    return Listed(
        spaces=found,
        indexes=len(indexes.existing(conn)),
        most_indexes=index_choice.MOST_INDEXES,
        warnings=capabilities(conn).warnings,
        full_text=FULL_TEXT_INDEX if full_text.index_there(conn) else None,
    )


def _space(state: SpaceState, settings: SpaceSettings | None) -> dict[str, Any]:
    made, settings = state.made, settings or SpaceSettings()
    by = "harca"
    if made is not None and made.is_kept:
        by = "revision"
    elif settings.method is not None:
        by = "settings"
    return {
        **state.choice.space.as_dict(),
        "index": made.name if made is not None and made.valid else EXACT,
        "method": made.method if made is not None else EXACT,
        "type": made.type if made is not None else None,
        "parameters": {**METHODS.get(made.method, {}), **made.parameters} if made else {},
        "valid": made.valid if made is not None else None,
        "bytes": made.bytes if made is not None else 0,
        "effort": settings.effort.as_dict(),
        "recall": settings.measured.get("recall"),
        "chosen_by": by,
        "why": state.why_exact or state.choice.why,
    }


def _keep(conn: psycopg.Connection[Any], space: Space, wish: Wish) -> None:
    """Keep what is said of the index of *space*, if a server can do it."""
    if wish.is_empty:
        return
    state = next(one for one in indexes.states(conn) if _is_same(one.choice.space, space))
    space = state.choice.space  # with its rows counted
    if wish.is_about_index and state.made is not None and state.made.is_kept:
        raise Refused(
            f"a revision has made the index of {space.model_id}/{space.dims}",
            hint="Nothing was changed. Downgrade that revision first, or write another one.",
        )
    if wish.forget:
        space_settings.forget_index(conn, space)
        if wish == Wish(forget=True):
            return
    before, can = space_settings.settings_of(conn, space), capabilities(conn)
    changes = _changes(before, wish, can)
    said = replace(before, **changes)
    choice = index_for(space, can, said)
    method = said.method or (choice.index.method if choice.index is not None else EXACT)
    if state.made is not None and state.made.is_kept:
        method = state.made.method
    _require_fitting(space, wish, method, said)
    if said.method not in (None, EXACT) and choice.index is None:
        raise UsageError(
            f"no such index can be made: {choice.why}",
            hint="Say another --type or --method, or leave the space as it is.",
        )
    space_settings.keep(conn, space, **changes)


def _changes(before: SpaceSettings, wish: Wish, can: Capabilities) -> dict[str, Any]:
    """Return what of the settings *before* is to be otherwise."""
    if not wish.is_about_index:
        return {"effort": Effort(**{**before.effort.as_dict(), **wish.effort})}
    method = wish.method or _meant(wish) or before.method or ("hnsw" if can.hnsw else "ivfflat")
    # Another method has other parameters; and nothing that was measured is true of it.
    kept = before if method == before.method else SpaceSettings()
    return {
        "method": method,
        "type": wish.type or kept.type,
        "parameters": {**kept.parameters, **wish.parameters},
        "effort": Effort(**{**kept.effort.as_dict(), **wish.effort}),
        "measured": {},
    }


def _meant(wish: Wish) -> str | None:
    """Return the only method that has what is said, if it is said."""
    return next((name for name, known in METHODS.items() if wish.parameters.keys() & known), None)


def _fields(settings: SpaceSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__slots__}


def _require_fitting(space: Space, wish: Wish, method: str, said: SpaceSettings) -> None:
    known = METHODS.get(method, {}).keys() | _EFFORT[method]
    for name in (*wish.parameters, *wish.effort):
        if name not in known:
            what = "an exact search" if method == EXACT else f"an {method} index"
            raise UsageError(
                f"{what} of {space.model_id}/{space.dims} has no {name}",
                hint="Say the method too, with --method hnsw or --method ivfflat.",
            )
    parameters = {**METHODS.get(method, {}), **said.parameters}
    if method == "hnsw" and parameters["ef_construction"] < 2 * parameters["m"]:
        raise UsageError(
            f"ef_construction is {parameters['ef_construction']}, expected twice m at least, "
            f"which is {2 * parameters['m']}",
            hint="Say a larger --ef-construction.",
        )


def _is_same(one: Space, other: Space) -> bool:
    return (one.model_id, one.dims) == (other.model_id, other.dims)
