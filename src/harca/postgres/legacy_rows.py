"""Rows of an old table: bring them over, compare them, mend what differs."""

from collections.abc import Callable
from functools import partial
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from harca.postgres.consolidation import Consolidation
from harca.postgres.digest import composed
from harca.postgres.giving_way import give_way_early, until_free

BATCH_ROWS = 500

_FIRST_BLOCKS = 8
_MOST_BLOCKS = 64  # 4,000 rows at the very most, where all before were deleted

Progress = Callable[[int], None]


def copy(step: Consolidation, progress: Progress) -> None:
    """Bring the rows over that were there before `mirror`, a batch per transaction.

    Goes by the table's pages, so that it can go on after an interruption; a batch that
    meets a lock gives way at once and is tried again.
    """
    place = step.conn.execute(
        "SELECT (pg_relation_size(%(table)s::regclass) "
        "/ current_setting('block_size')::int)::int, "
        "pg_relation_filenode(%(table)s::regclass)::bigint",
        {"table": step.table.identifier.as_string(step.conn)},
    ).fetchone()
    assert place is not None
    last, filenode = place
    noted = step.details()
    # A table that was rewritten meanwhile has its rows on other pages.
    first = noted.get("next_block", 0) if noted.get("filenode") == filenode else 0
    if not first:
        _forget_batches(step)
    blocks, done = _FIRST_BLOCKS, 0
    while first < last:
        end = min(first + blocks, last)
        read = until_free(partial(_batch, step, first, end, filenode))
        done += read
        progress(done)
        fitting = blocks * BATCH_ROWS // max(read, 1)
        blocks = max(1, min(fitting, 2 * blocks, _MOST_BLOCKS))
        first = end


def _batch(step: Consolidation, first: int, end: int, filenode: int) -> int:
    which = sql.SQL("t.ctid >= {}::tid AND t.ctid < {}::tid").format(
        sql.Literal(f"({first},0)"), sql.Literal(f"({end},0)")
    )
    with step.conn.transaction():
        give_way_early(step.conn)
        counts = _bring(step, which)
        step.note(next_block=end, filenode=filenode)
        if counts["read"]:
            step.conn.execute(
                "INSERT INTO load_batches (run_id, attempt, number, read, loaded, "
                "unchanged, superseded, rejected, first_origin, last_origin) VALUES "
                "(%(run_id)s, %(attempt)s, %(number)s, %(read)s, %(loaded)s, "
                "%(unchanged)s, 0, %(rejected)s, %(first)s, %(last)s)",
                {
                    **counts,
                    "unchanged": counts["read"] - counts["loaded"] - counts["rejected"],
                    "run_id": step.run_id,
                    "attempt": step.attempt,
                    "number": first,
                    "first": f"{step.store}, page {first}",
                    "last": f"{step.store}, page {end - 1}",
                },
            )
    read: int = counts["read"]
    return read


def _bring(step: Consolidation, which: sql.Composable) -> dict[str, Any]:
    repeated: sql.Composable = sql.SQL("NULL")
    if not step.table.has_key:
        repeated = sql.SQL(
            "CASE WHEN EXISTS (SELECT FROM {} o WHERE o.id = t.id AND o.ctid > t.ctid) "
            "THEN 'duplicate-key' END"
        ).format(step.table.identifier)
    parts = step.table.reading("t")
    statement = composed(
        "legacy_copy",
        table=step.table.identifier,
        which=which,
        repeated=repeated,
        run_id=sql.Literal(step.run_id),
        attempt=sql.Literal(step.attempt),
        store=sql.Literal(step.store),
        model_id=sql.Literal(step.model_id),
        **parts,
    )
    with step.conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
    assert row is not None
    return row


def _forget_batches(step: Consolidation) -> None:
    with step.conn.transaction():
        for table in ("load_batches", "rejections"):
            step.conn.execute(f"DELETE FROM {table} WHERE run_id = %s", [step.run_id])


def differences(step: Consolidation) -> list[tuple[str, str]]:
    """Return key and difference of each row that is not the same on both sides."""
    parts = step.table.reading("t")
    statement = composed(
        "legacy_differences",
        table=step.table.identifier,
        store=sql.Literal(step.store),
        **{name: part for name, part in parts.items() if name not in ("differs", "updated_at")},
    )
    return step.conn.execute(statement).fetchall()


def repair(step: Consolidation) -> list[tuple[str, str]]:
    """Mend what differs, from the old table; return what differs still.

    A transaction with an old snapshot can delete a row whose copy it does not see.
    """
    found = differences(step)
    for start in range(0, len(found), BATCH_ROWS):
        keys = [key for key, _ in found[start : start + BATCH_ROWS]]
        until_free(partial(_mend, step, keys))
    return differences(step) if found else found


def _mend(step: Consolidation, keys: list[str]) -> None:
    with step.conn.transaction():
        give_way_early(step.conn)
        # Not seen by the trigger that brings changes back: it would delete the old row.
        step.conn.execute("SELECT set_config('harca.consolidating', 'on', true)")
        step.conn.execute(
            "DELETE FROM vector_embeddings WHERE store = %s AND store_key = ANY (%s)",
            [step.store, keys],
        )
        _bring(step, sql.SQL("t.id = ANY ({}::uuid[])").format(sql.Literal(keys)))


def counts(step: Consolidation) -> dict[str, int]:
    """Return the number of rows of the old table, and of the new one's for it."""
    row = step.conn.execute(
        sql.SQL(
            "SELECT (SELECT count(*) FROM {}), "
            "(SELECT count(*) FROM vector_embeddings WHERE store = {})"
        ).format(step.table.identifier, sql.Literal(step.store))
    ).fetchone()
    assert row is not None
    return {"old": row[0], "new": row[1]}
