"""Which index a space deserves, and which spaces get theirs.

Below `EXACT_BELOW` rows a space is searched exactly: that finds everything, costs a few
milliseconds and no upkeep. Above, it gets the best index that the server's pgvector has for so
many dimensions, unless the space's settings say otherwise. Each constant has its measurement
in docs/tuning.md.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from harca.model import Space
from harca.postgres.space_index import (
    METHODS,
    MOST_DIMS,
    Capabilities,
    SpaceIndex,
    index_name,
    ivfflat_lists,
    ivfflat_probes,
)
from harca.postgres.space_settings import EXACT, SpaceSettings

# Measured by benchmarks/exact_or_index.py.
EXACT_BELOW = 1_000
# Every partial index of the table is read and compared when a statement on it is planned, also
# one about another space. Measured by benchmarks/partial_indexes.py.
MOST_INDEXES = 64
# What has an index already keeps it unless another space has half as many rows again: else
# two of about the same size would take it from each other at every load.
_AHEAD = 1.5


@dataclass(frozen=True, slots=True)
class Choice:
    """The index that a space is to have; None: it is searched exactly.

    Attributes:
        why: It has that index, or none.
        is_said: The space's settings say so, or a revision.
        is_kept: A revision has made it, which drops it too.
    """

    space: Space
    index: SpaceIndex | None
    why: str
    is_said: bool = False
    is_kept: bool = False

    def exact(self, why: str) -> "Choice":
        """Return the choice of no index."""
        return replace(self, index=None, why=why)


def index_for(space: Space, can: Capabilities, settings: SpaceSettings | None = None) -> Choice:
    """Return the index that *space* deserves on such a server; its settings win."""
    settings = settings or SpaceSettings()
    choice = Choice(space, None, "", is_said=settings.method is not None)
    if settings.method == EXACT:
        return choice.exact("its settings say so")
    if settings.method is None and space.records < EXACT_BELOW:
        return choice.exact(f"fewer than {EXACT_BELOW:,} rows")
    method = settings.method or ("hnsw" if can.hnsw else "ivfflat")
    lists = ivfflat_lists(space.records)
    if settings.method is None and method == "ivfflat" and ivfflat_probes(lists) == lists:
        return choice.exact(
            f"pgvector {can.shown} has no HNSW, and of so few rows ivfflat would look through all"
        )
    kind = settings.type or _type(space, can)
    if refused := cannot(space.dims, can, method, kind):
        return choice.exact(refused)
    known = METHODS[method]
    parameters = {name: value for name, value in settings.parameters.items() if name in known}
    index = SpaceIndex(index_name(space), space, method, kind, parameters)
    why = f"{space.records:,} rows"
    if choice.is_said:
        why = "its settings say so"
    elif kind == "bit":
        why += f", over {MOST_DIMS['halfvec']:,} dimensions: their signs are indexed"
    return replace(choice, index=index, why=why)


def cannot(dims: int, can: Capabilities, method: str, kind: str) -> str | None:
    """Return why there can be no index by *method* on embeddings cast to *kind*, if so."""
    if not can.make(method, kind):
        since = "0.5" if method == "hnsw" and not can.hnsw else "0.7"
        return f"pgvector {can.shown} has no {method} index on {kind}, {since} has"
    if dims > MOST_DIMS[kind]:
        more = "" if can.halfvec else "; pgvector 0.7 can index more in other forms"
        return f"an index on {kind} takes {MOST_DIMS[kind]:,} dimensions{more}"
    return None


def _type(space: Space, can: Capabilities) -> str:
    kinds = MOST_DIMS if can.halfvec else {"vector": MOST_DIMS["vector"]}
    fitting = (kind for kind, most in kinds.items() if space.dims <= most)
    return next(fitting, [*kinds][-1])


def within_cap(choices: list[Choice], there: Collection[str], *, kept: int) -> list[Choice]:
    """Return the choices with no more than `MOST_INDEXES`; the others are searched exactly.

    First come spaces whose settings ask for an index, then those with the most rows.

    Args:
        there: Names of indexes that can be used.
        kept: Further indexes: of revisions for spaces without rows, and the plan's.
    """
    room = max(0, MOST_INDEXES - kept)

    def rank(choice: Choice) -> tuple[bool, bool, float, str, int]:
        space = choice.space
        ahead = _AHEAD if index_name(space) in there else 1
        first = (not choice.is_kept, not choice.is_said)
        return (*first, -ahead * space.records, space.model_id, space.dims)

    asking = sorted((one for one in choices if one.index is not None), key=rank)
    left_out = {(one.space.model_id, one.space.dims) for one in asking[room:]}
    why = f"the table has {MOST_INDEXES} partial indexes, of spaces with more rows"
    return [
        one.exact(why) if (one.space.model_id, one.space.dims) in left_out else one
        for one in choices
    ]
