"""What the database holds: schema, spaces, indexes, runs, rejections."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from psycopg.rows import dict_row

from harca import migrations
from harca.postgres import indexes
from harca.postgres.connect import Database, translated
from harca.postgres.digest import query


@dataclass(slots=True)
class Status:
    """State of a database; without a schema, only the first fields are filled."""

    database: str
    origin: str
    server: str
    pgvector: str | None
    schema: str | None
    schema_head: str | None
    data: str | None
    data_head: str | None
    rows: int = 0
    foreign_rows: int = 0
    spaces: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    has_ledger: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the status as ``--json`` shows it."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "has_ledger"}


def status(target: Database) -> Status:
    """Return what *target* holds; changes nothing."""
    with translated(), target.connect() as conn:
        version = conn.execute("SHOW server_version").fetchone()
        extension = conn.execute(
            "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        ).fetchone()
        found = Status(
            database=target.shown,
            origin=target.origin,
            server=version[0] if version else "",
            pgvector=extension[0] if extension else None,
            schema=migrations.current(target),
            schema_head=migrations.head(),
            data=migrations.current(target, migrations.DATA),
            data_head=", ".join(migrations.heads(migrations.DATA)) or None,
        )
        if not migrations.is_applied(target, migrations.LEDGER):
            return found
        found.has_ledger = True
        for state in indexes.states(conn):
            index, made = "exact", state.made
            if made is not None:
                index = made.name if made.valid else f"{made.name} (INVALID)"
            found.spaces.append(
                {**state.choice.space.as_dict(), "index": index, "why_exact": state.why_exact}
            )
        found.rows = sum(space["records"] for space in found.spaces)
        row = conn.execute("SELECT count(*) FROM vector_embeddings WHERE store IS NULL").fetchone()
        found.foreign_rows = row[0] if row else 0
        with conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute(query("runs"))
            found.runs = cursor.fetchall()
    return found


def rejections(
    target: Database,
    *,
    run_id: int | None = None,
    reason: str | None = None,
    payloads: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield rejected records, the oldest first; their bytes only if *payloads*."""
    with (
        translated(),
        target.connect(autocommit=False) as conn,
        conn.cursor("harca_rejections", row_factory=dict_row) as cursor,
    ):
        cursor.execute(
            "SELECT rejection_id, run_id, origin, reason, detail, rejected_at, "
            "octet_length(payload) AS payload_bytes, "
            "CASE WHEN %(payloads)s THEN payload END AS payload "
            "FROM rejections WHERE (%(run_id)s::bigint IS NULL OR run_id = %(run_id)s) "
            "AND (%(reason)s::text IS NULL OR reason = %(reason)s) ORDER BY rejection_id",
            {"run_id": run_id, "reason": reason, "payloads": payloads},
        )
        for row in cursor:
            if not payloads:
                del row["payload"]
            yield row
