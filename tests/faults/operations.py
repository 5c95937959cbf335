"""What is faulted: commands, the points in them, and what they must have come to in the end."""

from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.faults.proxy import Hold, How, Proxy
from tests.stores import record, write_record

STORE = "production"
OLD, NEW = "2025-01-01T00:00:00.000Z", "2025-06-01T00:00:00.000Z"
RECORDS = 60
SAVED, KEPT = "saved", "kept"  # folders that backups are made in
BACKED_UP = "the backup in kept"  # stands for its folder, whose name has the time in it
_WIDE = 1536  # has an index however few rows there are

_INI = str(ROOT / "alembic.ini")
_LOAD = ("--name", STORE, "--batch-rows", "20", "--max-rejects", "1")
_DATA = ("alembic", "-c", _INI, "-n", "data")
_SCHEMA = ("alembic", "-c", _INI)


def write_stores(folder: Path) -> None:
    """Write a store as it was, `before`, and as it has become, `after`.

    Each has a record that is rejected, and one that is there twice.
    """
    for name, number in (("before", RECORDS), ("after", RECORDS + 12)):
        store = folder / name
        for n in range(number):
            moved = name == "after" and n % 4 == 0
            dims = _WIDE if n % 6 == 0 else 8
            vector = [((n * 31 + part * 17 + 7 * moved) % 101) / 101 for part in range(dims)]
            text, date = f"text number {n:04}.", NEW if moved else OLD
            write_record(store / "a", record(text, vector, createdAt=date))
        write_record(store / "b", record("text number 0001.", [1.0] * 8, createdAt=OLD))
        write_record(store / "b", record("not a number", [None]))


@dataclass(frozen=True)
class Point:
    """A point in a command, told by what it sends.

    Attributes:
        since: What the same connection has to have sent before; counting starts there.
        blocked: The statement is let go, and then waits for a lock that a test holds.
        crucial: Nothing may be left untried here.
    """

    name: str
    sent: bytes
    how: How = How.BEFORE
    nth: int = 1
    since: bytes = b""
    blocked: bool = False
    crucial: bool = False

    def __str__(self) -> str:
        return self.name

    def hold(self, network: Proxy) -> Hold:
        """Have *network* hold the connection there."""
        return network.hold_at(self.sent, how=self.how, nth=self.nth, since=self.since)


@dataclass(frozen=True)
class Operation:
    """A command.

    Attributes:
        before: What has to be done before it.
        then: What is done after it, so that the rows can be compared with the store.
        verified: Which store the rows must be equal to in the end; empty: there is none.
        exact: Ids, dates and runs must be those of a command that nothing happened to.
        contended: A table that others lock.
    """

    name: str
    before: tuple[tuple[str, ...], ...]
    command: tuple[str, ...]
    points: tuple[Point, ...]
    then: tuple[tuple[str, ...], ...] = ()
    verified: str = ""
    exact: bool = True
    contended: str = "vector_embeddings"

    def point(self, name: str) -> Point:
        """Return the point of that name."""
        return next(point for point in self.points if point.name == name)


_COPY = b'COPY "vector_embeddings"'
_COPIED = b"c\0\0\0\x04"  # CopyDone
_LEDGER = b"INSERT INTO load_batches"
_FINISH = b"UPDATE superseded SET kind"
_OUTCOME = b"UPDATE load_runs SET status = $1"
_BUILD = b"CREATE INDEX CONCURRENTLY"

MIGRATE = Operation(
    "migrate",
    before=(),
    command=("harca", "migrate", "before", *_LOAD),
    points=(
        Point("before the run", b"INSERT INTO load_runs"),
        Point("in the run's commit", b"COMMIT", How.AFTER, since=b"INSERT INTO load_runs"),
        Point("at index drop", b"DROP INDEX CONCURRENTLY"),
        Point("before COPY", _COPY, nth=2),
        Point("in COPY", b"text number 003", How.WITHIN, crucial=True),
        Point("after COPY", _COPIED, How.AFTER, nth=2),
        Point("before the ledger row", _LEDGER, nth=2),
        Point("after the ledger row", _LEDGER, How.AFTER, nth=2),
        Point("before commit", b"COMMIT", nth=2, since=_LEDGER, crucial=True),
        Point("in commit", b"COMMIT", How.AFTER, nth=2, since=_LEDGER, crucial=True),
        Point("after commit", b"BEGIN", nth=2, since=_LEDGER),
        Point("at finish", _FINISH),
        Point("in finish's commit", b"COMMIT", How.AFTER, since=_FINISH, crucial=True),
        Point("at index build", _BUILD),
        Point("in index build", _BUILD, blocked=True, crucial=True),
        Point("after index build", _BUILD, How.AFTER),
        Point("at verify", b"WITH entries AS", nth=2),
        Point("before the outcome", _OUTCOME),
        Point("after the outcome", _OUTCOME, How.AFTER),
    ),
    verified="before",
    exact=False,
)

RELOAD = Operation(
    "reload",
    before=(MIGRATE.command,),
    command=("harca", "migrate", "after", *_LOAD),
    points=(
        Point("before rows are kept", b"INSERT INTO superseded"),
        Point("before rows are replaced", b"UPDATE vector_embeddings v"),
        Point("after rows are replaced", b"UPDATE vector_embeddings v", How.AFTER, nth=2),
        Point("before commit", b"COMMIT", since=_LEDGER),
        Point("in commit", b"COMMIT", How.AFTER, since=_LEDGER, crucial=True),
    ),
    verified="after",
    exact=False,
)

_TAKE_BACK = b"FOR UPDATE"

ROLLBACK = Operation(
    "rollback",
    before=(MIGRATE.command, RELOAD.command),
    command=("harca", "rollback", "2"),
    points=(
        Point("before rows are locked", _TAKE_BACK),
        Point("before rows are restored", b"UPDATE vector_embeddings v"),
        Point("before rows are deleted", b"DELETE FROM vector_embeddings"),
        Point("after rows are deleted", b"DELETE FROM vector_embeddings", How.AFTER),
        Point("before commit", b"COMMIT", since=_TAKE_BACK),
        Point("in commit", b"COMMIT", How.AFTER, since=_TAKE_BACK, crucial=True),
        Point("at index drop", b"DROP INDEX CONCURRENTLY"),
        Point("at index build", _BUILD),
        Point("in index build", _BUILD, blocked=True, crucial=True),
    ),
    verified="before",
)

UNLOAD = Operation(
    "data downgrade",
    before=((*_DATA, "-x", "store=before", "-x", f"name={STORE}", "-x", "max_rejects=1",
             "upgrade", "head"),),
    command=(*_DATA, "downgrade", "base"),
    points=(
        Point("before rows are deleted", b"DELETE FROM vector_embeddings"),
        Point("in commit", b"COMMIT", How.AFTER, since=_TAKE_BACK),
        Point("at ANALYZE", b"ANALYZE vector_embeddings"),
        Point("before the stamp goes", b"DELETE FROM alembic_version_data"),
        Point("before the stamp's commit", b"COMMIT", since=b"DELETE FROM alembic_version_data"),
        Point(
            "in the stamp's commit",
            b"COMMIT",
            How.AFTER,
            since=b"DELETE FROM alembic_version_data", crucial=True),
    ),
)  # fmt: skip

LOAD = Operation(
    "data upgrade",
    before=(),
    command=UNLOAD.before[0],
    points=(
        Point("in commit", b"COMMIT", How.AFTER, nth=1, since=_LEDGER),
        Point("before the stamp", b"INSERT INTO alembic_version_data"),
        Point("before the stamp's commit", b"COMMIT", since=b"INSERT INTO alembic_version_data"),
        Point(
            "in the stamp's commit",
            b"COMMIT",
            How.AFTER,
            since=b"INSERT INTO alembic_version_data",
        ),
    ),
    verified="before",
    exact=False,
)

DOWN = Operation(
    "schema downgrade",
    before=(MIGRATE.command,),
    command=(*_SCHEMA, "downgrade", "base"),
    points=(
        Point("before the ledger goes", b"(SELECT FROM load_runs)"),
        Point("before provenance goes", b"vector_embeddings_provenance"),
        Point("before dims go", b"vector_embeddings_other_dims"),
        Point("before commit", b"COMMIT", since=b"vector_embeddings_other_dims"),
        Point(
            "in commit", b"COMMIT", How.AFTER, since=b"vector_embeddings_other_dims", crucial=True
        ),
    ),
    then=((*_SCHEMA, "upgrade", "head"),),
    verified="before",
)

UP = Operation(
    "schema upgrade",
    before=(MIGRATE.command, (*_SCHEMA, "downgrade", "base")),
    command=(*_SCHEMA, "upgrade", "head"),
    points=(
        Point("before dims come", b"vector_embeddings_other_dims"),
        Point("before commit", b"COMMIT", since=b"vector_embeddings_other_dims"),
        Point(
            "in commit", b"COMMIT", How.AFTER, since=b"vector_embeddings_other_dims", crucial=True
        ),
        Point("before provenance comes", b"vector_embeddings_provenance"),
        Point("before the ledger comes", b"ALTER TABLE harca_aside.load_runs"),
    ),
    verified="before",
)

_SNAPSHOT = b"pg_export_snapshot"
_TABLE = b"TO stdout"  # pg_dump's word; harca's own is in capitals
_DIGESTS = b"digests\nGROUP BY bucket"

BACKUP = Operation(
    "backup",
    before=(MIGRATE.command,),
    command=("harca", "backup", "--backup-dir", SAVED),
    points=(
        Point("before the snapshot", _SNAPSHOT),
        Point("in the snapshot", _SNAPSHOT, How.AFTER),
        Point("before a table", _TABLE),
        Point("in a table", _TABLE, How.AFTER, nth=3),
        Point("in a later table", _TABLE, How.AFTER, nth=5),
        Point("before a fingerprint", _DIGESTS),
        Point("after a fingerprint", _DIGESTS, How.AFTER, nth=4),
        Point("before the stores", b"SELECT DISTINCT store FROM load_runs"),
        Point("before the snapshot ends", b"COMMIT", since=_SNAPSHOT),
        Point("after the snapshot", b"COMMIT", How.AFTER, since=_SNAPSHOT, crucial=True),
    ),
    verified="before",
)

RESTORE = Operation(
    "restore",
    before=(MIGRATE.command, ("harca", "backup", "--backup-dir", KEPT), RELOAD.command),
    command=("harca", "restore", BACKED_UP, "--replace"),
    points=(
        Point("before the lock", b"LOCK TABLE"),
        Point("before rows go", b"TRUNCATE"),
        Point("in COPY", b"text number 003", How.WITHIN, since=b"TRUNCATE"),
        Point("before commit", b"COMMIT", since=b"TRUNCATE"),
        Point("in commit", b"COMMIT", How.AFTER, since=b"TRUNCATE", crucial=True),
        Point("at ANALYZE", b"ANALYZE vector_embeddings", since=b"TRUNCATE"),
    ),
    verified="before",
)

OPERATIONS = (MIGRATE, RELOAD, ROLLBACK, LOAD, UNLOAD, DOWN, UP, BACKUP, RESTORE)
