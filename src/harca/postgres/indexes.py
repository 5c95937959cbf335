"""The indexes on embeddings after loading: built, kept fitting, dropped.

Which one a space deserves is told by `index_choice`, how one is built by `index_build`.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from harca.errors import TargetError
from harca.model import Space
from harca.postgres import legacy, plan_index
from harca.postgres.build_progress import BuildProgress
from harca.postgres.index_build import REFUSALS, put, sized
from harca.postgres.index_choice import Choice, cannot, index_for, within_cap
from harca.postgres.index_memory import memory_for, session_settings
from harca.postgres.lock import INDEX_LOCK, alone
from harca.postgres.plan_index import PLAN_DIMS, PLAN_INDEX
from harca.postgres.space_index import (
    PREFIX,
    Made,
    SpaceIndex,
    beside,
    capabilities,
    dropping,
    index_name,
    keeping,
    made_indexes,
    spaces,
)
from harca.postgres.space_settings import all_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

COULD_REFUSE = "half precision could refuse what the old application writes"


@dataclass(frozen=True, slots=True)
class SpaceState:
    """A space, the index that it is to have, and the one that is there.

    Attributes:
        made: What searches use if it is valid.
    """

    choice: Choice
    made: Made | None

    @property
    def why_exact(self) -> str | None:
        """Why searches are exact; None: they are not."""
        if self.made is not None and self.made.valid:
            return None
        if self.made is not None:
            return "its index is INVALID: a build was interrupted"
        return self.choice.why if self.choice.index is None else "its index is not built yet"


def existing(conn: psycopg.Connection[Any]) -> dict[str, bool]:
    """Return the indexes on embeddings by name, with whether each is valid."""
    return {name: made.valid for name, made in _there(conn).items()}


def states(conn: psycopg.Connection[Any]) -> list[SpaceState]:
    """Return every space with the index that it is to have, and the one that is there."""
    there = _there(conn)
    return [
        SpaceState(choice, there.get(index_name(choice.space))) for choice in _choices(conn, there)
    ]


def _there(conn: psycopg.Connection[Any]) -> dict[str, Made]:
    # With what rebuilds have left: `beside`, `outlived`, and _ccnew and _ccold of REINDEX.
    return {**made_indexes(conn, PREFIX), **made_indexes(conn, PLAN_INDEX)}


def _choices(conn: psycopg.Connection[Any], there: dict[str, Made]) -> list[Choice]:
    can, settings = capabilities(conn), all_settings(conn)
    found = []
    for space in spaces(conn):
        made = there.get(index_name(space))
        if made is not None and made.valid and made.is_kept:
            found.append(
                Choice(space, made.of(space), "a revision has made it", True, is_kept=True)
            )
            continue
        choice = index_for(space, can, settings.get((space.model_id, space.dims)))
        if (
            choice.index is not None
            and choice.index.type == "halfvec"
            and is_written_by_others(conn, space)
        ):
            choice = choice.exact(COULD_REFUSE)
        found.append(choice)
    names = {index_name(choice.space) for choice in found}
    kept = sum(
        (made.is_kept and made.name not in names) or made.name == PLAN_INDEX
        for made in there.values()
    )
    return within_cap(found, {name for name, made in there.items() if made.valid}, kept=kept)


def build(
    conn: psycopg.Connection[Any],
    *,
    progress: Callable[[str], object] = lambda message: None,
    shown: BuildProgress | None = None,
    only: Space | None = None,
    refused: Callable[[Space, str], object] = lambda space, why: None,
    patience_s: float | None = None,
) -> list[str]:
    """Make the indexes that the spaces deserve, drop others, refresh statistics.

    Readers and writers go on meanwhile, and searches by an index that is replaced. Returns the
    names of the indexes built. An INVALID index, as an interrupted build leaves it, is dropped
    and built again. One that a revision has made is left alone. Needs a connection in
    autocommit mode.

    Args:
        progress: Is told which index is being built.
        shown: Shows how far it is.
        only: The one space that is adapted; None: all are, and the plan's index.
        refused: Is told of a space whose rows the server cannot index so.
        patience_s: How long it waits for another build, and for older snapshots; None: for
            ever.

    Raises:
        psycopg.errors.LockNotAvailable: Longer than that.
    """
    with _patient(conn, patience_s, waiting=progress):
        built = _build(conn, progress, shown, only, refused)
        # Autovacuum would come to it later; the planner needs it for the first search.
        conn.execute("ANALYZE vector_embeddings")
    return built


def _build(
    conn: psycopg.Connection[Any],
    progress: Callable[[str], object],
    shown: BuildProgress | None,
    only: Space | None,
    refused: Callable[[Space, str], object],
) -> list[str]:
    there = _there(conn)
    wanted = {
        choice.index.name: choice.index
        for choice in _choices(conn, there)
        if choice.index is not None
    }
    prefix = index_name(only) if only is not None else ""
    kept = {name for name, made in there.items() if made.is_kept}
    for name, made in list(there.items()):
        if name.startswith(prefix) and not _has_use(made, wanted):
            conn.execute(dropping(name))
            del there[name]
    built = []
    for name, index in wanted.items():
        made_now = there.get(name)
        fits = made_now is not None and (made_now.is_kept or made_now.is_as(index))
        if fits or not name.startswith(prefix):
            continue
        progress(_told(conn, index))
        try:
            put(conn, index, there, shown=shown)
        except REFUSALS as exc:
            why = str(exc.diag.message_primary)
            progress(f"no index for {index.space.model_id}/{index.space.dims}: {why}")
            refused(index.space, why)
            continue
        if name in kept:
            conn.execute(keeping(name))
        built.append(name)
    if only is None:
        has_better = any(index.space.dims == PLAN_DIMS for index in wanted.values())
        if plan_index.adapt(conn, there, has_better=has_better, progress=progress, shown=shown):
            built.append(PLAN_INDEX)
    return built


def _has_use(made: Made, wanted: dict[str, SpaceIndex]) -> bool:
    """Say whether an index answers searches, or is the finished half of a replacement."""
    if not made.valid:
        return False
    base = made.name.removesuffix(beside(""))
    if base == PLAN_INDEX:
        return True
    if base != made.name:
        return base in wanted and made.is_as(wanted[base])
    return made.is_kept or made.name in wanted


def _told(conn: psycopg.Connection[Any], index: SpaceIndex) -> str:
    space = index.space
    form = "" if index.type == "vector" else f" on {index.type}"
    told = f"{index.method} index{form} for {space.model_id}/{space.dims}, {space.records:,} rows"
    shortage = memory_for(conn, sized(index)).shortage
    return f"{told}; {shortage}" if shortage else told


def is_written_by_others(conn: psycopg.Connection[Any], space: Space) -> bool:
    """Say whether rows of HARCA's old tables are in *space*: they come without being asked.

    An index in half precision refuses components beyond 65,504, and the write with them.
    """
    found = conn.execute(
        "SELECT FROM vector_embeddings v JOIN load_runs r USING (run_id) "
        "WHERE v.model_id = %s AND v.dims = %s AND r.format = %s LIMIT 1",
        [space.model_id, space.dims, legacy.FORMAT],
    )
    return bool(found.rowcount)


def drop_halfvec(conn: psycopg.Connection[Any]) -> None:
    """Drop the indexes in half precision, which cannot take a component beyond 65,504."""
    found = [made.name for made in made_indexes(conn, PREFIX).values() if made.type == "halfvec"]
    with _patient(conn):
        for name in found:
            conn.execute(dropping(name))


def create(conn: psycopg.Connection[Any], index: SpaceIndex) -> None:
    """Make an index as a revision wants it; `build` then leaves it alone.

    A valid one that is made so is kept, another one is replaced. Needs a connection in
    autocommit mode.

    Raises:
        TargetError: The server's pgvector has no such index.
    """
    can, space = capabilities(conn), index.space
    if why := cannot(space.dims, can, index.method, index.type):
        raise TargetError(
            why, hint="Update the extension: HNSW came with 0.5, halfvec and bit with 0.7."
        )
    with _patient(conn):
        row = conn.execute(
            "SELECT count(*) FROM vector_embeddings WHERE model_id = %s AND dims = %s",
            [space.model_id, space.dims],
        ).fetchone()
        assert row is not None
        index = replace(index, space=Space(space.model_id, space.dims, row[0]))
        there = made_indexes(conn, index.name)
        made = there.get(index.name)
        if made is None or not (made.valid and made.is_as(index)):
            put(conn, index, there)
        conn.execute(keeping(index.name))


def set_aside(conn: psycopg.Connection[Any]) -> list[sql.SQL | sql.Composed]:
    """Drop the indexes on embeddings, within a transaction that replaces the rows.

    Filling them row by row is slow. Returns the statements that make those again that a
    revision has made; `build` makes the others.
    """
    remade: list[sql.SQL | sql.Composed] = []
    for name, made in _there(conn).items():
        if made.is_kept:
            row = conn.execute("SELECT pg_get_indexdef(%s::regclass)", [name]).fetchone()
            assert row is not None
            remade += [sql.SQL(row[0]), keeping(name)]
        conn.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    return remade


def drop(conn: psycopg.Connection[Any], name: str) -> None:
    """Drop an index if it is there. Needs a connection in autocommit mode."""
    with _patient(conn):
        conn.execute(dropping(name))


def drop_before_first_load(conn: psycopg.Connection[Any]) -> bool:
    """Drop the plan's index if no row is in it; return whether it was dropped.

    Filling it row by row is slow, and `build` makes it anew after the load.
    """
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM vector_embeddings WHERE dims = %s)", [PLAN_DIMS]
    ).fetchone()
    if row == (True,) or PLAN_INDEX not in existing(conn):
        return False
    drop(conn, PLAN_INDEX)
    return True


@contextmanager
def _patient(
    conn: psycopg.Connection[Any],
    patience_s: float | None = None,
    *,
    waiting: Callable[[str], object] = lambda message: None,
) -> "Iterator[None]":
    """Build and drop indexes as the only one who does, however long it takes.

    Two who build on one table side by side wait for each other: one for the table, holding a
    snapshot, the other for that snapshot.
    """
    with (
        alone(conn, INDEX_LOCK, patience_s=patience_s, waiting=waiting),
        # A concurrent build waits for older snapshots. A timeout would end it and leave an
        # INVALID index; concurrent commands make nobody wait, so they can be patient.
        session_settings(
            conn, lock_timeout=f"{1000 * (patience_s or 0):.0f}ms", statement_timeout="0"
        ),
    ):
        yield
