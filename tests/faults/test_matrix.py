"""Whatever happens wherever: the same command again ends well, and nothing is lost or twice.

Each cell is a fault at a point of a command, on a real server. Afterwards the command is
run again, the store is verified, and the database compared with one where nothing happened.
"""

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from harca import backup_folder, migrations
from harca.postgres.connect import Database
from harca.postgres.connect import database as resolve_database
from tests.conftest import PREFIX, Ran, in_database, recreate
from tests.faults import operations
from tests.faults.forked import Command, ForkServer
from tests.faults.injections import Fault, Scene, holding_table, inflict, until, waiting
from tests.faults.operations import (
    BACKED_UP,
    BACKUP,
    KEPT,
    OPERATIONS,
    RECORDS,
    SAVED,
    STORE,
    Operation,
    Point,
)
from tests.faults.proxy import Proxy
from tests.faults.servers import OwnServer, SmallDisk, own_server, small_disk

pytestmark = pytest.mark.one_server

_numbers = itertools.count(1)
_TURNS, _TURNS_OF_OTHERS = {Fault.KILLED: 2}, 8
_WAITS_S = 0.3

# A run that was over before its end was told is followed by a second one: it makes no
# difference but in ids and in the ledger.
_ROWS = """
    SELECT store, store_key, content, md5(embedding::text), metadata::text, model_id,
        created_at, source
    FROM vector_embeddings ORDER BY store, store_key
"""
_EXACT_ROWS = "SELECT md5(v::text) FROM vector_embeddings v ORDER BY id"
_EXACT_LEDGER = """
    SELECT run_id, store, status, read, loaded, unchanged, superseded, rejected, fingerprint,
        (SELECT count(*) FROM superseded s WHERE s.run_id = r.run_id),
        (SELECT count(*) FROM rejections s WHERE s.run_id = r.run_id)
    FROM load_runs r ORDER BY run_id
"""
_UNSOUND = {
    "a key that is there twice": (
        "SELECT store, store_key FROM vector_embeddings GROUP BY 1, 2 HAVING count(*) > 1"
    ),
    "an invalid index": "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid",
    "a run whose counts do not add up": """
        SELECT run_id FROM load_runs r WHERE status <> 'rolled back' AND (
            status <> 'verified'
            OR read <> loaded + unchanged + superseded + rejected
            OR ((read, loaded, unchanged, superseded, rejected) = (
                SELECT sum(read), sum(loaded), sum(unchanged), sum(superseded), sum(rejected)
                FROM load_batches b WHERE b.run_id = r.run_id
            )) IS NOT TRUE
        )
    """,
    "a row of a run that is not there": """
        SELECT store_key FROM vector_embeddings v LEFT JOIN load_runs r USING (run_id)
        WHERE r.status IS DISTINCT FROM 'verified'
    """,
}


@dataclass
class Grounds:
    """A server with databases in which each operation is about to begin, and their ends."""

    url: str
    commands: ForkServer
    stores: Path
    folder: Path
    tablespace: str = ""
    crashes: bool = False
    templates: dict[str, str] = field(default_factory=dict)
    ends: dict[str, Any] = field(default_factory=dict)

    def run(self, command: tuple[str, ...], database: Database) -> Ran:
        """Run a command to its end."""
        return self.start(command, database).wait()

    def start(self, command: tuple[str, ...], database: Database) -> Command:
        """Start a command."""
        env = {"HARCA_DATABASE_URL": database.conninfo}
        program, *arguments = command
        if BACKED_UP in arguments:
            (folder,) = (self.folder / KEPT).iterdir()
            arguments[arguments.index(BACKED_UP)] = str(folder)
        return self.commands.start(*arguments, program=program, folder=self.folder, env=env)

    @contextmanager
    def database(self, template: str) -> Iterator[Database]:
        """Give a database that is as *template*."""
        name = self._make(template)
        try:
            yield resolve_database(in_database(self.url, name))
        finally:
            self._drop(name)

    def prepared(self, operation: Operation) -> str:
        """Return the database in which *operation* is about to begin; note how it ends."""
        if operation.name not in self.templates:
            name = self._make(self.templates[""])
            self.templates[operation.name] = name
            database = resolve_database(in_database(self.url, name))
            for command in operation.before:
                done = self.run(command, database)
                assert done.code == 0, done.err
            with self.database(name) as undisturbed:
                self.finish(operation, undisturbed)
                self.ends[operation.name] = end_of(operation, undisturbed)
        return self.templates[operation.name]

    def finish(self, operation: Operation, database: Database) -> None:
        """Run *operation*, and what comes after it: all of it ends well."""
        for command in (operation.command, *operation.then):
            done = self.run(command, database)
            assert done.code == 0, done.err
        if operation.verified:
            done = self.run(("harca", "verify", operation.verified, "--name", STORE), database)
            assert done.code == 0, done.out + done.err

    def begin(self) -> None:
        """Make the database that all others are made from, and a folder to work in."""
        for store in self.stores.iterdir():
            (self.folder / store.name).symlink_to(store)
        self.templates[""] = self._make("template0")
        migrations.upgrade(resolve_database(in_database(self.url, self.templates[""])))

    def end(self) -> None:
        """Drop all databases."""
        for name in self.templates.values():
            self._drop(name)

    def _make(self, template: str) -> str:
        name = f"{PREFIX}_fault_{next(_numbers)}"
        recreate(self.url, name, template=template, tablespace=self.tablespace)
        if self.crashes:
            # A sequence in a database that was copied is logged from the next checkpoint on:
            # a crash before would have it give out the same numbers again.
            with psycopg.connect(self.url, autocommit=True) as conn:
                conn.execute("CHECKPOINT")
        return name

    def _drop(self, name: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def end_of(operation: Operation, database: Database) -> Any:
    """Return what the database holds."""
    with database.connect() as conn:
        statements = (_EXACT_ROWS, _EXACT_LEDGER) if operation.exact else (_ROWS,)
        return [conn.execute(statement).fetchall() for statement in statements]


@pytest.fixture(scope="module")
def commands() -> Iterator[ForkServer]:
    """What runs the commands."""
    with ForkServer() as server:
        yield server


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stores."""
    folder = tmp_path_factory.mktemp("stores")
    operations.write_stores(folder)
    return folder


@pytest.fixture(scope="module")
def grounds(
    server: str, commands: ForkServer, stores: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Grounds]:
    """The tests' server."""
    folder = tmp_path_factory.mktemp("grounds")
    yield from _grounds(Grounds(server, commands, stores, folder))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """A server that can be stopped."""
    with own_server(tmp_path_factory.mktemp("own")) as server:
        yield server


@pytest.fixture(scope="module")
def own_grounds(
    own: OwnServer, commands: ForkServer, stores: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Grounds]:
    """The server that can be stopped."""
    folder = tmp_path_factory.mktemp("grounds")
    yield from _grounds(Grounds(own.url, commands, stores, folder, crashes=True))


@pytest.fixture(scope="module")
def disk(own: OwnServer) -> Iterator[SmallDisk]:
    """A disk of that server's that can be full."""
    with small_disk(own.owner, own.data.parent / "small", megabytes=96) as disk:
        yield disk


@pytest.fixture(scope="module")
def small_grounds(
    own: OwnServer,
    disk: SmallDisk,
    commands: ForkServer,
    stores: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Grounds]:
    """The server with that disk, on which all databases are."""
    folder = tmp_path_factory.mktemp("grounds")
    place = sql.Literal(str(disk.folder))
    with psycopg.connect(own.url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(place))
    yield from _grounds(Grounds(own.url, commands, stores, folder, tablespace="small"))
    # By a new connection: meanwhile the server may have been stopped for other tests.
    with psycopg.connect(own.url, autocommit=True) as conn:
        conn.execute("DROP TABLESPACE small")


def _grounds(made: Grounds) -> Iterator[Grounds]:
    made.begin()
    yield made
    made.end()


def _cells(*faults: Fault) -> list[Any]:
    """Return the cells of some faults.

    A crucial point meets each fault, and so does every point with HARCA_ALL_FAULTS set; the
    other points take turns, with being killed more often than with the others.
    """
    everything = "HARCA_ALL_FAULTS" in os.environ
    cells = []
    for operation in OPERATIONS:
        for place, point in enumerate(operation.points):
            for fault in faults:
                turns = _TURNS.get(fault, _TURNS_OF_OTHERS)
                turn = (place + list(Fault).index(fault)) % turns == 0
                if everything or point.crucial or turn:
                    name = f"{operation.name}-{point}-{fault}"
                    cells.append(pytest.param(operation, point, fault, id=name))
    return cells


ON_ANY = _cells(
    Fault.KILLED, Fault.ASKED_TO_END, Fault.TERMINATED, Fault.CUT, Fault.STALLED,
    Fault.LEFT_BEHIND, Fault.LOCKED,
)  # fmt: skip


@pytest.mark.parametrize(("operation", "point", "fault"), ON_ANY)
def test_a_command_survives(
    operation: Operation, point: Point, fault: Fault, grounds: Grounds
) -> None:
    with grounds.database(grounds.prepared(operation)) as database:
        _suffer(operation, point, fault, grounds, database)


@pytest.mark.parametrize(("operation", "point", "fault"), _cells(Fault.STOPPED))
def test_a_command_survives_a_crash_of_the_server(
    operation: Operation, point: Point, fault: Fault, own_grounds: Grounds, own: OwnServer
) -> None:
    with own_grounds.database(own_grounds.prepared(operation)) as database:
        _suffer(operation, point, fault, own_grounds, database, server=own)


@pytest.mark.parametrize(("operation", "point", "fault"), _cells(Fault.FULL))
def test_a_command_survives_a_full_disk_of_the_server(
    operation: Operation, point: Point, fault: Fault, small_grounds: Grounds, disk: SmallDisk
) -> None:
    with small_grounds.database(small_grounds.prepared(operation)) as database:
        _suffer(operation, point, fault, small_grounds, database, disk=disk)


@pytest.fixture
def room(grounds: Grounds) -> Iterator[SmallDisk]:
    """The disk that backups are made on."""
    with small_disk(grounds.folder.stat(), grounds.folder / SAVED, megabytes=16) as disk:
        yield disk


@pytest.mark.parametrize("point", BACKUP.points, ids=str)
def test_a_backup_survives_that_there_is_no_room_for_it(
    point: Point, grounds: Grounds, room: SmallDisk
) -> None:
    with grounds.database(grounds.prepared(BACKUP)) as database:
        _empty(room.folder)
        _suffer(BACKUP, point, Fault.NO_ROOM, grounds, database, disk=room)


def _suffer(
    operation: Operation,
    point: Point,
    fault: Fault,
    grounds: Grounds,
    database: Database,
    **at_hand: Any,
) -> None:
    with Proxy(database.conninfo) as network, ExitStack() as blocked_by:
        held = point.hold(network)
        command = grounds.start(operation.command, network.through(database))
        assert held.wait(), f"the point was not reached: {command.wait().err}"
        at_hand["blocked_by"] = blocked_by
        scene = Scene(command, held, network, database, operation.contended, **at_hand)
        if point.blocked:
            _block(scene)
        ended = inflict(fault, scene)
        assert_told(fault, ended, operation)
        if fault is Fault.LEFT_BEHIND:
            again = grounds.start(operation.command, database)
            again.ended_within(_WAITS_S)  # or waits, until the session that is left is gone
            network.cut()
            assert again.wait().code in (0, 4)
    grounds.finish(operation, database)
    assert end_of(operation, database) == grounds.ends[operation.name]
    with database.connect() as conn:
        for what, statement in _UNSOUND.items():
            assert conn.execute(statement).fetchall() == [], what
    if operation is BACKUP:
        assert_whole_backups(grounds.folder / SAVED)
        _empty(grounds.folder / SAVED)


def assert_whole_backups(folder: Path) -> None:
    """Assert that there are only such, and nothing of one that was interrupted."""
    found = [backup_folder.read(path) for path in folder.iterdir()]
    assert found
    for contents in found:
        rows = {table.name: table.rows for table in contents.tables}
        assert rows["vector_embeddings"] == RECORDS


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path)


def _block(scene: Scene) -> None:
    """Let the command go on into a lock, which is held until the fault has happened."""
    mode = "ROW EXCLUSIVE"
    blocking = holding_table(scene.database, scene.contended, mode=mode)
    holder = scene.blocked_by.enter_context(blocking)
    scene.held.release()
    with scene.database.connect() as looking:
        until(lambda: waiting(looking) - {holder})


def assert_told(fault: Fault, ended: Ran, operation: Operation) -> None:
    """Assert that the command's end is one that an operator can understand."""
    if fault in (Fault.KILLED, Fault.LEFT_BEHIND):
        assert ended.code == -9
    elif fault is Fault.STALLED:
        assert ended.code == 0, ended.err
    elif fault is Fault.ASKED_TO_END:
        by_signal = -15 if operation.command[0] == "alembic" else 143
        assert ended.code in (0, by_signal), ended.err
    elif fault is Fault.NO_ROOM:
        assert ended.code == 0 or (ended.code == 4 and "no room for a backup" in ended.err)
    elif ended.code:
        assert "un the same command again" in ended.err
