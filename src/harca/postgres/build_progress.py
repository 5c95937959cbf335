"""How far an index build is: read on a second connection, while the first one is busy."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row

from harca.errors import HarcaError
from harca.postgres.connect import Database
from harca.watcher import Watcher

_log = logging.getLogger("harca.index")

# A build that is shorter needs no progress, nor a second connection.
_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Phase:
    """A row of ``pg_stat_progress_create_index``."""

    phase: str
    blocks_done: int
    blocks_total: int
    tuples_done: int
    tuples_total: int
    lockers_done: int
    lockers_total: int
    waits_for: int | None

    def counts(self, rows: int) -> tuple[int, int | None]:
        """Return what is done of how much; *rows* is what the index is going to hold.

        Rows where they are counted, else the table's blocks, else sessions that are waited for.
        """
        if self.tuples_done:
            # pgvector says how many rows are in, not how many there are.
            return self.tuples_done, max(self.tuples_total or rows, self.tuples_done)
        if self.blocks_total:
            return self.blocks_done, self.blocks_total
        return self.lockers_done, self.lockers_total or None

    @property
    def name(self) -> str:
        """The phase in the server's words, and for whom it waits."""
        name = self.phase.removeprefix("building index: ")
        return f"{name}, server process {self.waits_for}" if self.waits_for else name


class BuildProgress:
    """Shows the builds of one connection to a watcher."""

    def __init__(
        self, database: Database, watcher: Watcher, *, table: str = "vector_embeddings"
    ) -> None:
        self._database, self._watcher, self._table = database, watcher, table

    @contextmanager
    def during(self, rows: int) -> Iterator[None]:
        """Show how far the build of an index on *rows* rows is, while the body runs."""
        ended = threading.Event()
        thread = threading.Thread(
            target=self._look, args=(rows, ended), name="harca-index", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(_EVERY_S)

    def _look(self, rows: int, ended: threading.Event) -> None:
        if ended.wait(_EVERY_S):
            return
        try:
            with self._database.connect() as conn:
                while not ended.is_set():
                    found = _phase(conn, self._table)
                    if found is not None and not ended.is_set():
                        self._watcher.phase(found.name, *found.counts(rows))
                    ended.wait(_EVERY_S)
        except (psycopg.Error, HarcaError) as exc:
            # The build goes on, unseen: it may have the last connection that the server gives.
            _log.info("the progress of the build cannot be seen: %s", exc)


def _phase(conn: psycopg.Connection[Any], table: str) -> Phase | None:
    with conn.cursor(row_factory=class_row(Phase)) as cursor:
        # By table, as harca's builds are one at a time: behind a pooler, the process that
        # builds is not the one that the connection knows.
        cursor.execute(
            "SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total, lockers_done, "
            "lockers_total, nullif(current_locker_pid, 0) AS waits_for "
            "FROM pg_stat_progress_create_index "
            "WHERE relid = to_regclass(%s) AND datname = current_database() "
            "LIMIT 1",
            [table],
        )
        return cursor.fetchone()
