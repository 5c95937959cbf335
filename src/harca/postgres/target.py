"""The table and its ledger: one run's transactions."""

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from harca.batching import Batch
from harca.conflicts import Fate, Known
from harca.errors import RunError
from harca.fingerprint import digest
from harca.ledger import Plan, Refusal, Run
from harca.model import Record, Rejection, Tally
from harca.postgres import frames, indexes, refused, seals
from harca.postgres.digest import composed, dated, dated_strictly, query, row_digest
from harca.postgres.lock import cut
from harca.postgres.refused import LeftOut

_COLUMNS = (
    "content", "embedding", "metadata", "model_id", "created_at", "updated_at", "source",
    "store", "store_key", "run_id",
)  # fmt: skip

_TABLE = "vector_embeddings"
_STAGE = "harca_stage"
_AT_ONCE = 500


class PostgresTarget:
    """Writes one run; the connection is its own and in autocommit mode."""

    def __init__(
        self, conn: psycopg.Connection[Any], run: Run, *, volatile: Iterable[str] = ()
    ) -> None:
        self.conn, self.run = conn, run
        self._volatile = sorted(volatile)

    def has_rows(self) -> bool:
        """Say whether the store has any row in the table."""
        found = self.conn.execute(
            "SELECT FROM vector_embeddings WHERE store = %s LIMIT 1", [self.run.store]
        )
        return found.rowcount > 0

    def known(self, keys: list[str], *, settled: set[str]) -> dict[str, Known]:
        """Return what the table holds under *keys*."""
        statement = composed(
            "known",
            digest=row_digest("v", created_at=dated_strictly("v", "r")),
            created_at=dated("v", "r"),
            loser_digest=row_digest("s", created_at=dated("s", "o")),
        )
        with self.conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute(
                statement,
                {
                    "store": self.run.store,
                    "run_id": self.run.run_id,
                    "keys": keys,
                    "volatile": self._volatile,
                },
            )
            return {
                row["store_key"]: Known(
                    digest=row["digest"],
                    created_at=row["created_at"],
                    origin=f"the table (run {row['run_id']})",
                    loaded_by_run=row["run_id"] == self.run.run_id,
                    edited=row["edited"],
                    settled=row["store_key"] in settled,
                    losers=frozenset(row["losers"]),
                )
                for row in cursor
            }

    def commit(self, batch: Batch, plan: Plan) -> list[Refusal]:
        """Bring a batch in: rows, superseded, rejections and ledger in one transaction.

        Either all of it is committed or nothing, so that the ledger is never ahead of the
        rows nor behind them.

        Returns:
            Records that the server refuses: then nothing was committed.
        """
        try:
            self._commit(batch, plan)
        except pg.NumericValueOutOfRange:
            indexes.drop_halfvec(self.conn)
        except psycopg.Error as exc:
            if not refused.is_about_a_record(exc):
                raise
        else:
            return []
        return self._commit_piecemeal(batch, plan)

    def _commit(self, batch: Batch, plan: Plan) -> None:
        with self.conn.transaction():
            self._refuse_if_taken_over()
            self._replace(plan, plan.replaces.values())
            self._copy(_TABLE, plan.inserts.values())
            self._copy_losers(plan.losers)
            self._insert_rejections(batch.rejections)
            self._note(batch, plan.tally)

    def _commit_piecemeal(self, batch: Batch, plan: Plan) -> list[Refusal]:
        """Do the same, record by record where need be, to find those that are refused."""
        found: list[Refusal] = []
        with self.conn.transaction() as transaction:
            self._refuse_if_taken_over()
            # What is deferred would be refused at the end, without saying which record it is.
            self.conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
            for records, write in (
                (list(plan.replaces.values()), partial(self._replace, plan)),
                (list(plan.inserts.values()), partial(self._copy, _TABLE)),
            ):
                for record, exc in refused.written(self.conn, records, write):
                    found.append(refused.refusal(record, exc))
            # Whatever lost against one of those has not lost, and is not asked about here.
            losers = [] if found else plan.losers
            for (_, record), exc in refused.written(self.conn, losers, self._copy_losers):
                found.append(refused.refusal(record, exc))
            if found:
                raise psycopg.Rollback(transaction)
            self._insert_rejections(batch.rejections)
            self._note(batch, plan.tally)
        return found

    def _replace(self, plan: Plan, records: Collection[Record]) -> None:
        """Give rows new contents, and keep those that they had."""
        if not records:
            return
        keys = {record.key for record in records}
        overwritten = keys.intersection(plan.overwritten) | self._hold_edited(keys)
        self._keep_rows(sorted(overwritten), kind="overwritten")
        self._keep_rows([key for key in plan.outdone if key in keys], kind=Fate.CONFLICT)
        self._stage()
        self._copy(_STAGE, records)
        # The trigger takes a date that stays the same for one that was not given.
        self.conn.execute(
            "UPDATE vector_embeddings v SET updated_at = '-infinity' FROM harca_stage n "
            "WHERE v.store = n.store AND v.store_key = n.store_key "
            "AND v.updated_at = n.updated_at"
        )
        replaced = self.conn.execute(query("replace_rows")).rowcount
        if replaced != len(records):
            raise LeftOut(
                f"UPDATE took {replaced} of {len(records)} rows: a trigger or rule left them "
                "out, or they are gone"
            )

    def _hold_edited(self, keys: Collection[str]) -> set[str]:
        """Let nobody change the rows any more; return those that are not as this run left them.

        What was changed since the batch was planned is not in the plan.
        """
        held = self.conn.execute(
            "SELECT store_key, run_id = %(run_id)s AND updated_at = %(started_at)s "
            "FROM vector_embeddings WHERE store = %(store)s AND store_key = ANY (%(keys)s) "
            "ORDER BY id FOR UPDATE",
            {
                "run_id": self.run.run_id,
                "started_at": self.run.started_at,
                "store": self.run.store,
                "keys": list(keys),
            },
        )
        return {key for key, is_as_left in held if not is_as_left}

    def _refuse_if_taken_over(self) -> None:
        """Hold the run in place: without its lock, which a server may end, another can act.

        It rolls the run back, finishes it, or takes it up as its next attempt.
        """
        found = self.conn.execute(
            "SELECT status, attempt FROM load_runs WHERE run_id = %s FOR SHARE", [self.run.run_id]
        ).fetchone()
        if found != ("loading", self.run.attempt):
            raise RunError(
                f"run {self.run.run_id} was rolled back, finished or taken up by another process "
                "meanwhile",
                hint="See `harca status`. To load the store, run the same command again.",
            )

    def _stage(self) -> None:
        # Each time: what made it may have been rolled back, or have filled it.
        self.conn.execute(
            f"CREATE TEMP TABLE IF NOT EXISTS {_STAGE} ON COMMIT DELETE ROWS AS "
            f"SELECT {', '.join(_COLUMNS)} FROM {_TABLE} WITH NO DATA"
        )
        self.conn.execute(f"DELETE FROM {_STAGE}")

    def _row(self, record: Record) -> bytes:
        started = frames.timestamptz(self.run.started_at)
        return frames.row(
            frames.text(record.content),
            frames.vector(record),
            frames.jsonb(record),
            frames.text(record.model_id),
            frames.timestamptz(record.created_at) or started,
            started,
            frames.text(record.source),
            frames.text(self.run.store),
            frames.text(record.key),
            frames.int8(self.run.run_id),
        )

    def _copy(self, table: str, records: Iterable[Record]) -> None:
        self._copy_rows(table, _COLUMNS, [self._row(record) for record in records])

    def _copy_rows(self, table: str, columns: Iterable[str], rows: list[bytes]) -> None:
        if not rows:
            return
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with self.conn.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for piece in frames.stream(rows):
                    copy.write(piece)
            if cursor.rowcount != len(rows):
                raise LeftOut(
                    f"COPY took {cursor.rowcount} of {len(rows)} rows for {table}: a trigger "
                    "left them out"
                )

    def _keep_rows(self, keys: list[str], *, kind: str) -> None:
        if not keys:
            return
        kept = self.conn.execute(
            composed("keep_rows", created_at=dated("v", "r")),
            {
                "run_id": self.run.run_id,
                "attempt": self.run.attempt,
                "kind": str(kind),
                "store": self.run.store,
                "keys": keys,
            },
        ).rowcount
        if kept != len(keys):
            raise LeftOut(
                f"INSERT took {kept} of {len(keys)} rows for superseded: a trigger or rule left "
                "them out, or they are gone"
            )

    def _copy_losers(self, losers: list[tuple[Fate, Record]]) -> None:
        columns = (
            "run_id", "attempt", "kind", "origin", "store", "store_key", "content",
            "embedding", "metadata", "model_id", "created_at", "source",
        )  # fmt: skip
        rows = [
            frames.row(
                frames.int8(self.run.run_id),
                frames.int4(self.run.attempt),
                frames.text(kind),
                frames.text(record.origin),
                frames.text(self.run.store),
                frames.text(record.key),
                frames.text(record.content),
                frames.vector(record),
                frames.jsonb(record),
                frames.text(record.model_id),
                frames.timestamptz(record.created_at),
                frames.text(record.source),
            )
            for kind, record in losers
        ]
        self._copy_rows("superseded", columns, rows)

    def _insert_rejections(self, rejections: list[Rejection]) -> None:
        if rejections:
            with self.conn.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO rejections (run_id, attempt, origin, reason, detail, payload) "
                    "VALUES (%s, %s, %s, %s, %s, %s)",
                    [
                        (
                            self.run.run_id,
                            self.run.attempt,
                            one.origin,
                            one.reason,
                            storable(one.detail),
                            one.payload,
                        )
                        for one in rejections
                    ],
                )

    def _note(self, batch: Batch, tally: Tally) -> None:
        first, last = batch.origins
        self.conn.execute(
            "INSERT INTO load_batches (run_id, attempt, number, read, loaded, unchanged, "
            "superseded, rejected, first_origin, last_origin) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                self.run.run_id,
                self.run.attempt,
                batch.number,
                tally.read,
                tally.loaded,
                tally.unchanged,
                tally.superseded,
                tally.rejected,
                first,
                last,
            ],
        )

    def finish(self, notes: Mapping[str, Any], *, outlived: Iterable[str] = ()) -> None:
        """Sum the run up; drop what attempts that were interrupted had noted.

        Args:
            notes: What is worth noting beside the counts.
            outlived: Keys whose row is of an earlier run and stays, instead of a record
                of this one.
        """
        with self.conn.transaction():
            values = {
                "run_id": self.run.run_id,
                "attempt": self.run.attempt,
                "notes": Jsonb(dict(notes)),
            }
            self._refuse_if_taken_over()
            for name in ("batches", "rejections", "superseded"):
                self.conn.execute(query(f"forget_{name}"), values)
            self._forget_refusals()
            self.conn.execute(
                "UPDATE superseded SET kind = 'outlived' WHERE run_id = %(run_id)s "
                "AND attempt = %(attempt)s AND kind = 'conflict' "
                "AND store_key = ANY (%(outlived)s)",
                {**values, "outlived": sorted(outlived)},
            )
            self.conn.execute(query("finish_run"), values)
            seals.note(self.conn, self.run.run_id)

    def give_up(self) -> None:
        """End what another thread is committing, whatever it waits for."""
        cut(self.conn)

    def _forget_refusals(self) -> None:
        """Drop what an interrupted attempt noted as refused and the last one has brought in."""
        refusals = refused.noted(self.conn, self.run.run_id, before_attempt=self.run.attempt)
        while some := list(islice(refusals, _AT_ONCE)):
            known = self.known([record.key for _, record in some], settled=set())
            is_in = [
                number
                for number, record in some
                if (row := known.get(record.key)) is not None
                and digest(record, without=self._volatile) in (row.digest, *row.losers)
            ]
            self.conn.execute("DELETE FROM rejections WHERE rejection_id = ANY (%s)", [is_in])


def storable(message: str) -> str:
    """Return *message* without what PostgreSQL cannot store as text."""
    return message.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def begin_run(
    conn: psycopg.Connection[Any],
    store: str,
    *,
    store_format: str,
    revision: str | None,
    options: Mapping[str, Any],
    again: int | None = None,
) -> Run:
    """Return a new run, or the store's latest if that was interrupted, verifying included.

    A data revision's run is taken up again until it is rolled back: it is the same
    revision that loads.

    Args:
        again: The run of the same command's last attempt, which may have lost nothing but
            the news that it is done.
    """
    done = (
        "status = 'rolled back'" if revision is not None else "status IN ('verified', 'different')"
    )
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            f"UPDATE load_runs SET attempt = attempt + 1, status = 'loading', "
            f"options = %(options)s, finished_at = NULL, fingerprint = NULL, "
            # Whoever starts it wants it to run; what is tried again stays paused.
            f"notes = CASE WHEN %(again)s::bigint IS NULL THEN notes - 'paused_at' ELSE notes END "
            f"WHERE (NOT {done} OR run_id = %(again)s) "
            f"AND run_id = (SELECT max(run_id) FROM load_runs "
            f"WHERE store = %(store)s AND revision IS NOT DISTINCT FROM %(revision)s "
            f"AND status <> 'rolled back') "
            f"RETURNING run_id, attempt, started_at",
            {
                "options": Jsonb(dict(options)),
                "store": store,
                "revision": revision,
                "again": again,
            },
        )
        row = cursor.fetchone()
        resumed = row is not None
        if row is None:
            cursor.execute(
                "INSERT INTO load_runs (store, format, revision, status, options) "
                "VALUES (%s, %s, %s, 'loading', %s) RETURNING run_id, attempt, started_at",
                [store, store_format, revision, Jsonb(dict(options))],
            )
            row = cursor.fetchone()
        assert row is not None
    return Run(row["run_id"], store, row["attempt"], row["started_at"], resumed)
