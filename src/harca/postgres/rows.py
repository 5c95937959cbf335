"""The rows of one store, for `harca.verify`."""

from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from harca.fingerprint import BUCKETS, Fingerprint, digest
from harca.model import Record, Tally
from harca.postgres import frames, refused, seals
from harca.postgres.digest import composed, dated_strictly, row_digest, summed
from harca.verify import Difference, Seen, Verification

_FIELDS = ("model_id", "content", "created_at", "embedding", "metadata", "source", "run_id")
_SEEN = ("rows", "labels", "outlived")
_COUNTS = ("read", "loaded", "unchanged", "superseded", "rejected")
_AT_ONCE = 500

_STAGED = (
    "(store_key text, origin text, model_id text, content text, metadata jsonb, "
    "created_at timestamptz, embedding vector, source text, digest bytea) ON COMMIT DROP"
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

    def seals(self) -> Iterator[tuple[int, seals.Seals | None, seals.Seals]]:
        """Yield number, noted seals and seals as they are of each of the store's runs."""
        return seals.compared(self.conn, self.store)

    def seen(self, *, without: Collection[str] = ()) -> Seen:
        """Return the rows' fingerprints; the server reads them, nothing is sent."""
        rows, labels = self._fingerprints(without)
        return Seen(rows, labels, summed(self.conn, _filled("outlived_rows"), self._values))

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of all records."""
        return self._fingerprints()[0]

    def _fingerprints(self, without: Collection[str] = ()) -> tuple[Fingerprint, Fingerprint]:
        contents, labels = Fingerprint(), Fingerprint()
        values = {**self._values, "volatile": sorted(without)}
        for bucket, count, part, is_label in self.conn.execute(_filled("fingerprint"), values):
            (labels if is_label else contents).add_part(bucket, count, int(part))
        return contents, labels

    def refused(self) -> Iterator[Record]:
        """Yield the records that the server refused in the run, as they are kept."""
        return (record for _, record in refused.noted(self.conn, self.run_id))

    def noted(self) -> Seen | None:
        """Return the fingerprints as `note_outcome` noted them; None if it has not yet."""
        found = self.conn.execute(
            "SELECT status, notes -> 'seen' FROM load_runs WHERE run_id = %(run_id)s",
            self._values,
        ).fetchone()
        assert found is not None
        status, noted = found
        if status == "loaded" and noted is None:
            return None
        return Seen(*(_unpacked(noted, name) for name in _SEEN))

    def note_outcome(self, verification: Verification) -> None:
        """Note how the run compared, and when, if the role may; the first time, what was seen too.

        Not if it has been rolled back meanwhile, or taken up again.
        """
        allowed = self.conn.execute(
            "SELECT has_table_privilege('load_runs', 'UPDATE') "
            "AND NOT current_setting('transaction_read_only')::boolean"
        ).fetchone()
        if allowed != (True,):
            return  # a role that only reads can verify too
        seen = verification.seen
        self.conn.execute(
            "UPDATE load_runs SET status = %(status)s, fingerprint = %(fingerprint)s, notes = "
            "CASE WHEN status = 'loaded' THEN %(seen)s || notes ELSE notes END || "
            "jsonb_build_object('verified', "
            "%(verified)s || jsonb_build_object('at', clock_timestamp())) "
            "WHERE run_id = %(run_id)s AND status NOT IN ('rolled back', 'loading')",
            {
                **self._values,
                "status": "verified" if verification.ok else "different",
                "fingerprint": verification.fingerprint,
                "verified": Jsonb(verification.noted()),
                "seen": Jsonb(
                    {"seen": {name: getattr(seen, name).packed() for name in _SEEN}} if seen else {}
                ),
            },
        )

    def differences(
        self, expected: Iterable[tuple[Record, bytes]], buckets: list[int], labels: list[int]
    ) -> Iterator[Difference]:
        """Yield what differs; *expected* is staged in a temporary table first."""
        whole = set(buckets)
        # Only with all rows can their labels be compared.
        within = range(BUCKETS) if labels else buckets
        with self.conn.transaction():
            for name in ("harca_expected", "harca_refused"):
                self.conn.execute(f"CREATE TEMP TABLE {name} {_STAGED}")
            self._copy("harca_expected", expected, whole)
            pairs = ((record, digest(record)) for record in self.refused())
            wanted = (pair for pair in pairs if pair[1][0] in within)
            while some := list(islice(wanted, _AT_ONCE)):
                self._copy("harca_refused", some, whole)
            values = {"buckets": list(within), "labels": labels}
            statement = _filled("mismatches")
            with self.conn.cursor("harca_mismatches", row_factory=dict_row) as cursor:
                cursor.execute(statement, {**self._values, **values})
                for row in cursor:
                    yield _difference(row)

    def _copy(
        self, table: str, pairs: Iterable[tuple[Record, bytes]], whole: Container[int]
    ) -> None:
        """Stage records; of what is equal anyway, in other buckets than *whole*, no contents."""
        statement = sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(sql.Identifier(table))
        with self.conn.cursor() as cursor, cursor.copy(statement) as copy:
            for piece in frames.stream(
                _staged_row(record, hashed, whole=hashed[0] in whole) for record, hashed in pairs
            ):
                copy.write(piece)


def _unpacked(noted: Any, name: str) -> Fingerprint:
    try:
        return Fingerprint.unpacked(noted[name])
    except (TypeError, KeyError, ValueError):
        return Fingerprint()  # somebody has changed the notes: nothing is as noted


def _filled(name: str) -> sql.Composed:
    """Return ``sql/NAME.sql``, which needs some of these."""
    dated = dated_strictly("v", "r")
    return composed(
        name,
        created_at=dated,
        row_digest=row_digest("v", created_at=dated),
        label_hash=composed("label_hash", row=sql.Identifier("v")),
        loser_digest=row_digest("s", created_at=sql.Identifier("s", "created_at")),
        outlived=composed("outlived"),
    )


def _staged_row(record: Record, record_digest: bytes, *, whole: bool) -> bytes:
    return frames.row(
        frames.text(record.key),
        frames.text(record.origin),
        frames.text(record.model_id) if whole else None,
        frames.text(record.content) if whole else None,
        frames.jsonb(record) if whole else None,
        frames.timestamptz(record.created_at) if whole else None,
        frames.vector(record) if whole else None,
        frames.text(record.source),
        record_digest,
    )


def _difference(row: dict[str, Any]) -> Difference:
    both = not row["is_missing"] and not row["is_extra"]
    ours, theirs = row["metadata_expected"], row["metadata_found"]
    return Difference(
        store_key=row["store_key"],
        origin=row["origin"],
        is_missing=row["is_missing"],
        is_extra=row["is_extra"],
        fields=tuple(name for name in _FIELDS if row[name]) if both else (),
        metadata=(
            ours if isinstance(ours, dict) else {},
            theirs if isinstance(theirs, dict) else {},
        ),
        metadata_keys=tuple(row["metadata_keys"] or ()),
        bucket=row["bucket"],
    )
