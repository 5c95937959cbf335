"""What `harca report` shows of a database: counted and summed by the server, listed up to a limit.

However many rows, batches and rejections there are, what comes back fits on a page.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row

from harca.postgres import owned
from harca.postgres.digest import query
from harca.postgres.space_index import PREFIX

TABLE = "vector_embeddings"


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that have a value in common; None: rows without one."""

    name: str | None
    rows: int


@dataclass(frozen=True, slots=True)
class Groups:
    """The largest groups, and how many there are."""

    largest: list[Group]
    count: int


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run as the ledger has it.

    Attributes:
        seconds: Of loading; None while it loads, or if an interruption is in between.
        verified: What `harca verify` noted last: ``at``, ``checks``, ``failed``,
            ``failures``, ``mismatches``, ``touched``; None: nothing.
        bytes: Of the store's files; None if it was not told.
        max_rejects: Rejections that were accepted.
    """

    run_id: int
    store: str
    format: str
    revision: str | None
    status: str
    attempt: int
    read: int
    loaded: int
    unchanged: int
    superseded: int
    rejected: int
    started_at: datetime
    finished_at: datetime | None
    rolled_back_at: datetime | None
    fingerprint: str | None
    seconds: float | None
    verified: dict[str, Any] | None
    files: int | None
    bytes: int | None
    max_rejects: int

    @property
    def rows_per_s(self) -> float | None:
        """How fast its records were read and loaded."""
        return self.read / self.seconds if self.seconds and self.read else None


@dataclass(frozen=True, slots=True)
class Step:
    """Batches that were committed up to *until_s* seconds after their run began."""

    until_s: float
    read: int


@dataclass(frozen=True, slots=True)
class Example:
    """A rejected record, its texts cut to a length.

    Attributes:
        size: Bytes of the whole record as it is kept; None if nothing of it is.
        start: The first of them.
    """

    run_id: int
    origin: str
    detail: str
    size: int | None
    start: bytes | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The records that were rejected for one reason."""

    reason: str
    records: int
    examples: list[Example]


@dataclass(frozen=True, slots=True)
class IndexSize:
    """An index on disk.

    Attributes:
        is_on_embeddings: Searches by distance use it.
        scans: Since the server's statistics were reset; None if it does not say.
    """

    name: str
    method: str
    bytes: int
    is_valid: bool
    is_on_embeddings: bool
    definition: str
    scans: int | None


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table on disk.

    Attributes:
        bytes: Of its rows, without what lies in TOAST.
        dead_rows: Which VACUUM has not cleared away yet, as the statistics say.
    """

    schema: str
    name: str
    bytes: int
    toast_bytes: int
    live_rows: int
    dead_rows: int
    indexes: list[IndexSize]

    @property
    def index_bytes(self) -> int:
        """All its indexes."""
        return sum(index.bytes for index in self.indexes)

    @property
    def total_bytes(self) -> int:
        """Everything."""
        return self.bytes + self.toast_bytes + self.index_bytes


def begin(conn: psycopg.Connection[Any]) -> None:
    """See the database as it is now, and change nothing, until the transaction ends."""
    conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")


def sources(conn: psycopg.Connection[Any], *, limit: int) -> Groups:
    """Return the rows by the column ``source``."""
    return _groups(conn, "source", limit)


def stores(conn: psycopg.Connection[Any], *, limit: int) -> Groups:
    """Return the rows by store; None: not loaded by harca."""
    return _groups(conn, "store", limit)


def _groups(conn: psycopg.Connection[Any], column: str, limit: int) -> Groups:
    statement = sql.SQL(
        "SELECT {0}, count(*), count(*) OVER () FROM vector_embeddings "
        "GROUP BY {0} ORDER BY 2 DESC, 1 LIMIT %s"
    ).format(sql.Identifier(column))
    found = conn.execute(statement, [limit]).fetchall()
    return Groups([Group(name, rows) for name, rows, _ in found], found[0][2] if found else 0)


def run_count(conn: psycopg.Connection[Any]) -> int:
    """Return how many runs there were."""
    row = conn.execute("SELECT count(*) FROM load_runs").fetchone()
    return int(row[0]) if row else 0


def runs(conn: psycopg.Connection[Any], *, limit: int, latest: bool = False) -> list[RunLine]:
    """Return the newest runs, the newest first; *latest*: one per store, none taken back."""
    with conn.cursor(row_factory=class_row(RunLine)) as cursor:
        cursor.execute(query("report_runs"), {"limit": limit, "latest": latest})
        return cursor.fetchall()


def pace(conn: psycopg.Connection[Any], run_ids: list[int], *, steps: int) -> dict[int, list[Step]]:
    """Return how runs got on, in up to *steps* steps each."""
    found: dict[int, list[Step]] = {}
    for run_id, until_s, read in conn.execute(
        query("report_pace"), {"runs": run_ids, "steps": steps}
    ):
        found.setdefault(run_id, []).append(Step(until_s, read))
    return found


def rejected(
    conn: psycopg.Connection[Any], *, examples: int, most: int, texts: bool
) -> list[Rejected]:
    """Return rejections by reason, the most frequent first, with a few *examples* of each.

    Args:
        most: Characters of a text, bytes of a record.
        texts: Whether the records' bytes are wanted.
    """
    found: dict[str, Rejected] = {}
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            query("report_rejected"), {"examples": examples, "most": most, "texts": texts}
        )
        for row in cursor:
            reason = row.pop("reason")
            entry = found.setdefault(reason, Rejected(reason, row["records"], []))
            del row["records"]
            entry.examples.append(Example(**row))
    return list(found.values())


def sizes(conn: psycopg.Connection[Any]) -> list[TableSize]:
    """Return what the tables that harca can change take, that of the rows first."""
    tables = [
        table.identifier.as_string(conn) for table in (*owned.find_own(conn), *owned.find_old(conn))
    ]
    found: dict[tuple[str, str], TableSize] = {}
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(query("report_sizes"), {"tables": tables})
        for row in cursor:
            key = (row["schema"], row["table_name"])
            if row["index_name"] is None:
                found[key] = TableSize(
                    *key, row["bytes"], row["toast_bytes"], row["live_rows"] or 0,
                    row["dead_rows"] or 0, [],
                )  # fmt: skip
            else:
                found[key].indexes.append(_index(row))
    return list(found.values())


def _index(row: dict[str, Any]) -> IndexSize:
    return IndexSize(
        name=row["index_name"],
        method="primary key" if row["is_primary"] else row["method"],
        bytes=row["bytes"],
        is_valid=row["is_valid"],
        is_on_embeddings=row["table_name"] == TABLE
        and (row["index_name"].startswith(PREFIX) or row["method"] in ("hnsw", "ivfflat")),
        definition=row["definition"],
        scans=row["scans"],
    )


def setting(conn: psycopg.Connection[Any], name: str) -> str:
    """Return a server's setting as it is shown."""
    row = conn.execute("SELECT current_setting(%s)", [name]).fetchone()
    return str(row[0]) if row else ""
