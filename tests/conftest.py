"""Servers, databases and stores for the tests.

One session runs on every server that it can have: HARCA_TEST_DATABASE_URL if that is set,
else the images in TEST_PG_IMAGE and TEST_PG16_IMAGE (or pgvector/pgvector:pg17) in Docker
through testcontainers, else the embedded server. The header says which.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from harca import migrations
from harca.apply import FIRST
from harca.postgres.connect import VARIABLES, Database
from harca.postgres.connect import database as resolve_database

# Started in the background, tests have no SIGINT, nor have the processes that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

# Processes that share a server have databases of their own in it.
PREFIX = f"harca_test_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
_TEMPLATE = f"{PREFIX}_template"
_numbers = count(1)


@dataclass(frozen=True)
class ServerChoice:
    """A server that the session can run on, before it is started."""

    kind: str  # "url", "docker" or "embedded"
    name: str


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "version"], capture_output=True, check=False)
    return asked.returncode == 0


def _choices() -> list[ServerChoice]:
    if url := os.environ.get("HARCA_TEST_DATABASE_URL"):
        return [ServerChoice("url", url)]
    if _docker_answers():
        images = [os.environ.get("TEST_PG_IMAGE"), os.environ.get("TEST_PG16_IMAGE")]
        named = [image for image in images if image] or ["pgvector/pgvector:pg17"]
        return [ServerChoice("docker", image) for image in named]
    return [ServerChoice("embedded", "PostgreSQL 18, embedded")]


CHOICES = _choices()


def _shown(choice: ServerChoice) -> str:
    if choice.kind == "url":
        return f"the server in HARCA_TEST_DATABASE_URL ({Database(choice.name, 'test').shown})"
    if choice.kind == "docker":
        return f"{choice.name}, in Docker through testcontainers"
    return "the embedded server (no HARCA_TEST_DATABASE_URL, no Docker engine answers)"


def pytest_report_header() -> list[str]:
    servers = [f"PostgreSQL: {_shown(choice)}" for choice in CHOICES]
    data = f"real stores: {'found' if SHARED.exists() else 'not here, tests of them are skipped'}"
    return [*servers, data]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test may reach the developer's own database, embedded server or account."""
    for name in (*VARIABLES, "HARCA_FILE_STORE", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HARCA_HOME", str(tmp_path / "harca-home"))
    monkeypatch.setenv("NO_COLOR", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of a module that says so on the first server only."""
    for item in items:
        only_one = item.get_closest_marker("one_server") is not None
        callspec = getattr(item, "callspec", None)
        if only_one and callspec is not None and callspec.params.get("server") not in (
            None, CHOICES[0],
        ):  # fmt: skip
            item.add_marker(pytest.mark.skip(reason="about files: run on the first server only"))


@pytest.fixture(scope="session", params=CHOICES, ids=lambda choice: choice.name.split("/")[-1])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """URL of a server, with a template database that has the schema at head."""
    choice: ServerChoice = request.param
    if choice.kind == "url":
        yield from _with_template(choice.name)
    elif choice.kind == "docker":
        from testcontainers.community.postgres import PostgresContainer

        # Tests do not need to survive a power cut; each makes a database, in memory.
        made = (
            PostgresContainer(choice.name, driver=None)
            .with_command("postgres -c fsync=off -c max_connections=60")
            .with_env("PGDATA", "/memory/data")
            .with_tmpfs_mount("/memory")
        )
        with made as container:
            yield from _with_template(container.get_connection_url())
    else:
        home = tmp_path_factory.mktemp("server")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HARCA_HOME", str(home))
            from harca import embedded

            url = embedded.start()
            try:
                yield from _with_template(url)
            finally:
                embedded.stop()


def _with_template(url: str) -> Iterator[str]:
    recreate(url, _TEMPLATE)
    migrations.upgrade(resolve_database(in_database(url, _TEMPLATE)))
    yield url
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {_TEMPLATE} WITH (FORCE)")


def recreate(url: str, name: str, *, template: str | None = None, tablespace: str = "") -> None:
    """Make a database anew on the server at *url*."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
        sql.Identifier(name), sql.Identifier(template or "template0")
    )
    if tablespace:
        statement += sql.SQL(" TABLESPACE {}").format(sql.Identifier(tablespace))
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )
        conn.execute(statement)


def in_database(url: str, name: str) -> str:
    """Return how the database *name* on the server at *url* is reached."""
    parts = psycopg.conninfo.conninfo_to_dict(url)
    return psycopg.conninfo.make_conninfo("", **{**parts, "dbname": name})


def _fresh(server: str, *, template: str | None) -> Iterator[Database]:
    name = f"{PREFIX}_{next(_numbers)}"
    recreate(server, name, template=template)
    yield resolve_database(in_database(server, name))
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database(server: str) -> Iterator[Database]:
    """A database of the test's own, with the schema at head."""
    yield from _fresh(server, template=_TEMPLATE)


@pytest.fixture(scope="module")
def shared_database(server: str) -> Iterator[Database]:
    """A database that a module's tests only read, with the schema at head."""
    yield from _fresh(server, template=_TEMPLATE)


@pytest.fixture
def empty_database(server: str) -> Iterator[Database]:
    """A database of the test's own, with nothing in it."""
    yield from _fresh(server, template=None)


@pytest.fixture
def conn(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A connection to the test's database, in autocommit mode."""
    with database.connect() as connection:
        yield connection


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of the test's own, in which revisions can be planned."""
    home = tmp_path / "checkout"
    shutil.copytree(ROOT / "alembic", home / "alembic")
    (home / "data_migrations" / "versions").mkdir(parents=True)
    for name in ("alembic.ini", "data_migrations/env.py", "data_migrations/script.py.mako"):
        shutil.copy(ROOT / name, home / name)
    for path in (ROOT / "data_migrations" / "versions").glob(f"*_{FIRST}_*.py"):
        shutil.copy(path, home / "data_migrations" / "versions")
    monkeypatch.setattr(migrations, "ini_path", lambda: home / "alembic.ini")
    return home


@pytest.fixture(scope="session")
def file_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HARCA's real file store, unpacked; read only."""
    packed = SHARED / "harca" / "file-store"
    if not packed.exists():
        pytest.skip(f"HARCA's real file store is not here: {packed.relative_to(ROOT.parent)}")
    folder = tmp_path_factory.mktemp("real") / "file-store"
    shutil.copytree(packed, folder)
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)
    for archive, where in (
        ("test-cache.tar.gz", "."),
        (".cache/embeddings.tar.gz", ".cache"),
        (".cache/benchmark/file.tar.gz", ".cache/benchmark"),
    ):
        with tarfile.open(folder / archive) as packed_folder:
            packed_folder.extractall(folder / where, filter="data")
    return folder


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:  # type: ignore[type-arg]  # whatever the command prints
        return json.loads(self.out)  # type: ignore[no-any-return]


@pytest.fixture
def run_harca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command line in a folder of its own: in this process, which saves a second.

    Without *database* it is a process of its own, which takes its embedded server with it.
    """

    def run(*arguments: str | Path, database: Database | None = None, **env: str) -> Ran:
        if database is None:
            return run_process(*arguments, **env)
        from harca import cli

        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["harca", *map(str, arguments)])
            patch.setenv("HARCA_DATABASE_URL", database.conninfo)
            patch.setattr(logging.getLogger(), "handlers", [])
            patch.chdir(tmp_path)
            for name, value in env.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        logging.getLogger().setLevel(logging.WARNING)
        for name in ("harca", "alembic", "psycopg", "sqlalchemy.engine"):  # what -v changed
            logging.getLogger(name).setLevel(logging.NOTSET)
        code = ended.value.code
        assert isinstance(code, int)
        return Ran(code, *capsys.readouterr())

    def run_process(*arguments: str | Path, **env: str) -> Ran:
        environment = {**os.environ, **env}
        done = subprocess.run(
            [sys.executable, "-m", "harca", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def run_unbacked(run_harca):
    """Run the command line as `run_harca` does; no migration is backed up, which takes a second."""

    def run(command: str, *arguments: str | Path, database: Database) -> Ran:
        more = ["--no-backup"] if command == "migrate" else []
        return run_harca(command, *arguments, *more, database=database)  # type: ignore[no-any-return]

    return run


@pytest.fixture
def run_alembic(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run alembic in the checkout as a user does, in this process, which saves a second."""
    from alembic.config import CommandLine

    def run(*arguments: str, database: Database | None = None, **env: str) -> Ran:
        root = logging.getLogger()
        before = (root.level, root.handlers[:])
        capsys.readouterr()
        code: object = 0
        with monkeypatch.context() as patch:
            patch.chdir(ROOT)
            if database is not None:
                patch.setenv("HARCA_DATABASE_URL", database.conninfo)
            for name, value in env.items():
                patch.setenv(name, value)
            try:
                CommandLine(prog="alembic").main(argv=list(arguments))
            except SystemExit as ended:
                code = ended.code
            finally:
                root.level, root.handlers[:] = before
                for name in ("alembic", "harca"):  # what alembic.ini has set
                    logging.getLogger(name).setLevel(logging.NOTSET)
        assert code is None or isinstance(code, int)
        return Ran((code or 0) & 255, *capsys.readouterr())

    return run
