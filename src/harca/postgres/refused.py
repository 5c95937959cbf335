"""Records that the server refuses: told from trouble with everything, and found one by one.

An operator's constraint, trigger or index can refuse what validation has nothing against.
Nothing is spent on that until a batch fails.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg

from harca.ledger import Refusal
from harca.model import Reason, Record, Rejection
from harca.row_line import record_line, record_of

# Data, integrity, what functions of other languages raise, a view's WITH CHECK OPTION,
# PL/pgSQL's RAISE and its like (manual, "PostgreSQL Error Codes"). Of a disk that is full, a
# right that is missing, a connection or a column that is gone, no record is to blame.
_CLASSES = ("22", "23", "38", "44", "P0")
_CODES = (
    "54000",  # too large for an index or for jsonb
    "54001",  # nested too deeply
)

_AT_ONCE = 500

_T = TypeVar("_T")


class LeftOut(psycopg.DataError):
    """The server took rows without an error, and fewer than it was given: a trigger does that."""


def is_about_a_record(exc: psycopg.Error) -> bool:
    """Say whether other records can be brought in all the same."""
    code = exc.sqlstate
    if code is None:
        return isinstance(exc, LeftOut)
    return code.startswith(_CLASSES) or code in _CODES or _is_of_a_trigger(code)


def _is_of_a_trigger(code: str) -> bool:
    """Say whether PostgreSQL has no such code: then a RAISE has made it up."""
    try:
        pg.lookup(code)
    except KeyError:
        return True
    return False


def written(
    conn: psycopg.Connection[Any], items: list[_T], write: Callable[[list[_T]], None]
) -> Iterator[tuple[_T, psycopg.Error]]:
    """Write those of *items* that the server takes; yield the others with its errors.

    Takes a transaction, in which each attempt is one of its own.

    Raises:
        psycopg.Error: Not about a record.
    """
    if not items:
        return
    try:
        with conn.transaction():
            write(items)
    except psycopg.Error as exc:
        if not is_about_a_record(exc):
            raise
        if len(items) == 1:
            yield items[0], exc
            return
    else:
        return
    middle = len(items) // 2
    yield from written(conn, items[:middle], write)
    yield from written(conn, items[middle:], write)


def refusal(record: Record, exc: psycopg.Error) -> Refusal:
    """Return what is noted of a record that was refused."""
    said = exc.diag.message_primary or str(exc)
    detail = f"{exc.sqlstate}: {said}" if exc.sqlstate else said
    return Refusal(record, Rejection(record.origin, Reason.REFUSED, detail, record_line(record)))


def noted(
    conn: psycopg.Connection[Any],
    run_id: int,
    *,
    before_attempt: int | None = None,
) -> Iterator[tuple[int, Record]]:
    """Yield the records that a run was refused, with the numbers of their rejections.

    Reads some at a time, in a transaction; between two of them the connection can be used.

    Args:
        before_attempt: Those of the attempts before this one; of the latest if None.
    """
    with conn.transaction(), conn.cursor("harca_refused") as cursor:
        cursor.itersize = _AT_ONCE
        cursor.execute(
            "SELECT e.rejection_id, e.origin, e.payload FROM rejections e "
            "JOIN load_runs r USING (run_id) WHERE e.run_id = %(run_id)s "
            "AND e.reason = %(reason)s AND CASE WHEN %(before)s::integer IS NULL "
            "THEN e.attempt = r.attempt ELSE e.attempt < %(before)s END ORDER BY e.rejection_id",
            {"run_id": run_id, "reason": Reason.REFUSED, "before": before_attempt},
        )
        for number, origin, payload in cursor:
            try:
                yield number, record_of(payload, origin=origin)
            except ValueError:
                # Somebody has changed it: then the record is missing, and is reported as that.
                continue
