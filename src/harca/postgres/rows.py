"""The rows of one store, for `harca.verify`."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from harca.fingerprint import Fingerprint, digest
from harca.model import Record, Tally
from harca.postgres import frames, refused
from harca.postgres.digest import composed, dated, row_digest
from harca.verify import Difference

_FIELDS = ("model_id", "content", "created_at", "embedding")
_COUNTS = ("read", "loaded", "unchanged", "superseded", "rejected")
_AT_ONCE = 500

_STAGED = (
    "(store_key text, origin text, model_id text, content text, metadata jsonb, "
    "created_at timestamptz, embedding vector, digest bytea) ON COMMIT DROP"
)


@dataclass(slots=True)
class StoreRows:
    """Rows of *store* as its run *run_id*, the latest one, left them."""

    conn: psycopg.Connection[Any]
    store: str
    run_id: int
    _values: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self._values = {"store": self.store, "run_id": self.run_id, "volatile": []}

    def ledger(self) -> tuple[Tally, Tally]:
        """Return the run's counts as summed up at its end, and as its parts give them now."""
        with self.conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute(
                f"SELECT {', '.join(_COUNTS)} FROM load_runs WHERE run_id = %(run_id)s",
                self._values,
            )
            noted = Tally(**(cursor.fetchone() or {}))
            cursor.execute(composed("recount", outlived=composed("outlived")), self._values)
            counted = Tally(**(cursor.fetchone() or {}))
        return noted, counted

    def spaces(self) -> dict[tuple[str, int], int]:
        """Return the number of records per space."""
        statement = composed("spaces", outlived=composed("outlived"))
        found = self.conn.execute(statement, self._values)
        return {(model_id, dims): records for model_id, dims, records in found}

    def row_spaces(self) -> dict[tuple[str, int], int]:
        """Return the number of rows per space, without records that lost."""
        found = self.conn.execute(
            "SELECT model_id, dims, count(*) FROM vector_embeddings WHERE store = %(store)s "
            "GROUP BY model_id, dims ORDER BY model_id, dims",
            self._values,
        )
        return {(model_id, dims): records for model_id, dims, records in found}

    def fingerprint(self, *, without: Collection[str] = ()) -> Fingerprint:
        """Return the fingerprint of the rows; the server reads them, nothing is sent."""
        return self._fingerprint("fingerprint", without)

    def _fingerprint(self, name: str, without: Collection[str] = ()) -> Fingerprint:
        total = Fingerprint()
        parts = _digests()
        del parts["created_at"]
        statement = composed(name, **parts)
        values = {**self._values, "volatile": sorted(without)}
        for bucket, count, part in self.conn.execute(statement, values):
            total.add_part(bucket, count, int(part))
        return total

    def note_outlived(self) -> None:
        """Note the rows of earlier runs that stay, for `outlived` to compare with later."""
        self.conn.execute(
            "UPDATE load_runs SET notes = notes || jsonb_build_object("
            "'outlived_rows', %(fingerprint)s::text) WHERE run_id = %(run_id)s",
            {**self._values, "fingerprint": str(self._fingerprint("outlived_rows"))},
        )

    def refused(self) -> Iterator[Record]:
        """Yield the records that the server refused in the run, as they are kept."""
        return (record for _, record in refused.noted(self.conn, self.run_id))

    def outlived(self) -> tuple[str, str]:
        """Return the fingerprint of those rows as it was noted, and as it is."""
        noted = self.conn.execute(
            "SELECT notes ->> 'outlived_rows' FROM load_runs WHERE run_id = %(run_id)s",
            self._values,
        ).fetchone()
        assert noted is not None
        found = str(self._fingerprint("outlived_rows"))
        return noted[0] or found, found

    def differences(
        self, expected: Iterable[tuple[Record, bytes]], buckets: list[int]
    ) -> Iterator[Difference]:
        """Yield what differs; *expected* is staged in a temporary table first."""
        with self.conn.transaction():
            for name in ("harca_expected", "harca_refused"):
                self.conn.execute(f"CREATE TEMP TABLE {name} {_STAGED}")
            self._copy("harca_expected", expected)
            wanted = set(buckets)
            pairs = ((record, digest(record)) for record in self.refused())
            within = (pair for pair in pairs if pair[1][0] in wanted)
            while some := list(islice(within, _AT_ONCE)):
                self._copy("harca_refused", some)
            statement = composed("mismatches", **_digests())
            with self.conn.cursor("harca_mismatches", row_factory=dict_row) as cursor:
                cursor.execute(statement, {**self._values, "buckets": buckets})
                for row in cursor:
                    yield _difference(row)

    def _copy(self, table: str, pairs: Iterable[tuple[Record, bytes]]) -> None:
        statement = sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(sql.Identifier(table))
        with self.conn.cursor() as cursor, cursor.copy(statement) as copy:
            for piece in frames.stream(_staged_row(*pair) for pair in pairs):
                copy.write(piece)


def _digests() -> dict[str, sql.Composable]:
    return {
        "created_at": dated("v", "r"),
        "row_digest": row_digest("v", created_at=dated("v", "r")),
        "loser_digest": row_digest("s", created_at=sql.Identifier("s", "created_at")),
        "outlived": composed("outlived"),
    }


def _staged_row(record: Record, record_digest: bytes) -> bytes:
    return frames.row(
        frames.text(record.key),
        frames.text(record.origin),
        frames.text(record.model_id),
        frames.text(record.content),
        frames.jsonb(record),
        frames.timestamptz(record.created_at),
        frames.vector(record),
        record_digest,
    )


def _difference(row: dict[str, Any]) -> Difference:
    both = not row["is_missing"] and not row["is_extra"]
    ours, theirs = row["metadata_expected"], row["metadata_found"]
    fields = [name for name in _FIELDS if row[name]] if both else []
    if both and ours != theirs:
        fields.append("metadata")
    if both and not fields:
        fields.append("metadata")  # equal to Python but not to PostgreSQL: 1 and 1.0
    return Difference(
        store_key=row["store_key"],
        origin=row["origin"] or "",
        is_missing=row["is_missing"],
        is_extra=row["is_extra"],
        fields=tuple(fields),
        metadata=(
            ours if isinstance(ours, dict) else {},
            theirs if isinstance(theirs, dict) else {},
        ),
    )
