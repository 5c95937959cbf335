"""Loads that are told from another terminal to wait: noted in the ledger."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row, scalar_row

from harca.errors import Refused
from harca.postgres.digest import query

WHY = "paused; go on with harca resume"

_PAUSED_AT = "SELECT notes ->> 'paused_at' FROM load_runs WHERE run_id = %s"


@dataclass(frozen=True, slots=True)
class Loading:
    """A store with a run that is not finished.

    Attributes:
        is_live: A process holds the store: it is loading, or waits.
    """

    store: str
    paused_at: datetime | None
    is_live: bool


def is_paused(conn: psycopg.Connection[Any], run_id: int) -> bool:
    """Say whether the run is told to wait."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_PAUSED_AT, [run_id]).fetchone() is not None


def pause(conn: psycopg.Connection[Any], names: tuple[str, ...]) -> Loading:
    """Tell the load of a store to wait, before its next batch.

    Args:
        names: What the store may be called; none: the only one that is being loaded.

    Raises:
        Refused: Nobody is loading it, or several stores are loaded and none is named.
    """
    found = [one for one in _loading(conn, names) if one.is_live]
    one = _only(found, names, "being loaded", "`harca status` shows the runs.")
    # Noted once: a second pause does not move the time of the first.
    changed = conn.execute(
        "UPDATE load_runs SET notes = jsonb_build_object('paused_at', clock_timestamp()) || notes "
        "WHERE store = %s AND status = 'loading'",
        [one.store],
    )
    if not changed.rowcount:
        raise Refused(
            f'the load of store "{one.store}" has just ended',
            hint="Nothing is left to pause; `harca status` shows the runs.",
        )
    return one


def resume(conn: psycopg.Connection[Any], names: tuple[str, ...]) -> Loading:
    """Let a load go on.

    Raises:
        Refused: It is not paused, or several are and none is named.
    """
    found = [one for one in _loading(conn, names) if one.paused_at is not None]
    one = _only(found, names, "paused", "`harca status` shows which runs are.")
    conn.execute(
        "UPDATE load_runs SET notes = notes - 'paused_at' WHERE store = %s AND status = 'loading'",
        [one.store],
    )
    return one


def _loading(conn: psycopg.Connection[Any], names: tuple[str, ...]) -> list[Loading]:
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(query("loading"))
        found = [Loading(**row) for row in cursor]
    return [one for one in found if not names or one.store in names]


def _only(found: list[Loading], names: tuple[str, ...], state: str, hint: str) -> Loading:
    if len(found) == 1:
        return found[0]
    if found:
        raise Refused(
            f"{len(found)} stores are {state}: {', '.join(one.store for one in found)}",
            hint="Name one of them.",
        )
    what = f'store "{names[0]}"' if names else "no store"
    raise Refused(f"{what} is {'not ' if names else ''}{state}", hint=hint)
