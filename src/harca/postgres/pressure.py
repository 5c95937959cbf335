"""How busy the server is, and how far its replicas are behind."""

from functools import partial
from typing import Any

import psycopg
from psycopg.rows import scalar_row

from harca.errors import Refused
from harca.pace import Checkpoint, Limit, Pace, Throttle
from harca.postgres import pauses
from harca.postgres.target import PostgresTarget
from harca.watcher import Watcher

# Without these rights the views have rows, but NULL in all that matters: no error says so.
_MAY_SEE = "SELECT pg_has_role('pg_read_all_stats', 'USAGE')"
_REPLICAS = "SELECT count(*) FROM pg_stat_replication"

# A replica that has replayed everything and got nothing new for a while has no lag: NULL.
_LAG = "SELECT coalesce(extract(epoch FROM max(replay_lag)), 0)::float8 FROM pg_stat_replication"

_LOAD = (
    "SELECT count(*)::float8 FROM pg_stat_activity "
    "WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()"
)


def require_measurable(conn: psycopg.Connection[Any], limits: tuple[Limit, ...]) -> None:
    """Refuse limits of which nobody could say whether they are exceeded.

    Raises:
        Refused: The role may not see other sessions, or there is no replica.
    """
    if not limits:
        return
    if not _value(conn, _MAY_SEE):
        role = _value(conn, "SELECT current_user")
        raise Refused(
            f'role "{role}" may not see what other sessions do, so '
            f'"{limits[0].text}" cannot be measured',
            hint=f'Have a superuser run: GRANT pg_monitor TO "{role}". Or leave '
            "--pause-when out and use --max-rows-per-s.",
        )
    lags = [limit for limit in limits if limit.what == "lag"]
    if lags and not _value(conn, _REPLICAS):
        raise Refused(
            f'no replica is connected to the server, so "{lags[0].text}" cannot be measured',
            hint="Is this the primary, and do its replicas run? See pg_stat_replication. Or leave "
            "that --pause-when out.",
        )


def exceeded(conn: psycopg.Connection[Any], limit: Limit) -> str | None:
    """Return what of *limit* is exceeded, in words; None if it is kept.

    A replica that has disconnected since the load began counts as one without lag: a load
    that waited for it could wait for ever.
    """
    found = _value(conn, _LAG if limit.what == "lag" else _LOAD)
    if found <= limit.most:
        return None
    if limit.what == "lag":
        return f"a replica is {found:.1f} s behind ({limit.text})"
    return f"{found:.0f} other sessions are at work ({limit.text})"


def checkpoint(target: PostgresTarget, pace: Pace, watcher: Watcher) -> Checkpoint:
    """Return what a load passes before each batch.

    It asks on the target's own connection, which then has no transaction.
    """

    def paused() -> str | None:
        return pauses.WHY if pauses.is_paused(target.conn, target.run.run_id) else None

    def pressing(limit: Limit) -> str | None:
        return exceeded(target.conn, limit)

    return Checkpoint(
        [paused, *(partial(pressing, limit) for limit in pace.pause_when)],
        Throttle(pace.max_rows_per_s) if pace.max_rows_per_s else None,
        watcher,
    )


def _value(conn: psycopg.Connection[Any], statement: str) -> Any:
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(statement).fetchone()
