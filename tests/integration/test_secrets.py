"""A password, or a token in a store's address, is shown and kept nowhere.

Every command is run with a canary for a password, whether it succeeds or fails, and the
canary is looked for in all that the command prints, writes, notes and hands to other
programs. Commands are found in the command line itself, so a new one is among them.
"""

import functools
import http.server
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from harca import cli
from tests.commands import ARGUMENTS, arguments_of, of_a_database
from tests.own_server import SUPERUSER, own_server
from tests.stores import record, write_record
from tests.test_docs import COMMANDS

pytestmark = pytest.mark.one_server

CANARY = "c4nary"
# Each part that a wrong reading of it could take for a host or a database is a canary too.
PASSWORD = "c4nary/C4nary@c4nary:c4nary?c4nary#c4nary%c4nary 'c4nary\\c4nary"
# Letters can be escaped as well.
FOUND = re.compile(r"c4nary|" + "".join(f"(?:{char}|%{ord(char):x})" for char in CANARY), re.I)


@pytest.fixture(scope="module")
def secret_server():
    with own_server(PASSWORD) as server:
        yield server


@pytest.fixture
def secret_database(secret_server):
    """A database of the test's own, as parts of a conninfo."""
    name = "harca secret"
    with psycopg.connect(secret_server.conninfo(), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    parts = {"host": "127.0.0.1", "port": str(secret_server.port), "user": SUPERUSER}
    yield {**parts, "password": PASSWORD, "dbname": name}
    with psycopg.connect(secret_server.conninfo(), autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def url(parts: dict[str, str], *, password: str | None = None) -> str:
    secret = quote(parts["password"], safe="") if password is None else password
    address = f"{parts['host']}:{parts['port']}/{quote(parts['dbname'])}"
    return f"postgresql://{parts['user']}:{secret}@{address}"


@dataclass
class Ran:
    """What there is to see of a command."""

    code: object
    out: str
    err: str
    started: list[str] = field(default_factory=list)

    def assert_no_canary(self) -> None:
        assert_no_canary(self.out, self.err, *self.started)


def assert_no_canary(*texts: str) -> None:
    for text in texts:
        found = FOUND.search(text)
        assert not found, text[max(found.start() - 200, 0) : found.end() + 200]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd, project):
    """Run harca or alembic in this process; what the programs that it starts print counts too."""

    def run(program: str, *arguments: str | Path, **env: str) -> Ran:
        started: list[str] = []
        start = subprocess.Popen.__init__

        def noted(self: Any, args: Any, *more: Any, **options: Any) -> None:
            started.append(str(args))
            start(self, args, *more, **options)

        capfd.readouterr()
        root = logging.getLogger()
        levels = {name: logging.getLogger(name).level for name in ("", "alembic", "harca")}
        with monkeypatch.context() as patch:
            patch.setattr(subprocess.Popen, "__init__", noted)
            patch.setattr(sys, "argv", [program, *map(str, arguments)])
            patch.setattr(root, "handlers", [])
            patch.chdir(project if program == "alembic" else tmp_path)
            for name, value in env.items():
                patch.setenv(name, value)
            code: object = 0
            try:
                if program == "harca":
                    cli.main()
                else:
                    from alembic.config import CommandLine

                    CommandLine(prog="alembic").main(argv=list(map(str, arguments)))
            except SystemExit as ended:
                code = ended.code
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        logging.getLogger("sqlalchemy.engine").setLevel(logging.NOTSET)
        out, err = capfd.readouterr()
        return Ran(code or 0, out, err, started)

    return run


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    for number in range(3):
        write_record(folder, record(f"t{number}", [1.0, number]))
    write_record(folder, record("bad", [None]))
    (tmp_path / "query.json").write_text("[1, 2]")
    return folder


ALEMBIC = (["upgrade", "head"], ["current"], ["-n", "data", "current"], ["check"], ["history"])


def dumped(conninfo: str) -> str:
    """Return every row of every table of a database, catalogs not included."""
    rows: list[str] = []
    with psycopg.connect(conninfo) as conn:
        tables = conn.execute("SELECT schemaname, relname FROM pg_stat_user_tables").fetchall()
        assert ("public", "load_runs") in tables
        for schema, name in tables:
            statement = sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(schema, name))
            rows += [text for (text,) in conn.execute(statement)]
    return "\n".join(rows)


def files_below(folder: Path) -> list[str]:
    return [
        f"{path} {path.read_bytes().decode('utf-8', 'replace') if path.is_file() else ''}"
        for path in folder.rglob("*")
    ]


@pytest.mark.parametrize("more", [["-v"], ["-v", "--json"]], ids=" ".join)
def test_no_command_that_succeeds_shows_the_password(
    more, store, secret_database, run, tmp_path, project
):
    env = {"HARCA_DATABASE_URL": url(secret_database)}
    codes = {}
    for path in of_a_database():
        ran = run(*path.split(), *arguments_of(path), *more, **env)

        ran.assert_no_canary()
        codes[path] = ran.code
    for arguments in ALEMBIC:
        run("alembic", *arguments, **env).assert_no_canary()
    kept = sorted((tmp_path / "harca-home" / "backups").iterdir())[-1]
    for given in (url(secret_database), url(secret_database, password=f"wrong-{CANARY}")):
        ran = run("harca", "restore", kept, "--replace", *more, HARCA_DATABASE_URL=given)
        assert ran.code == (0 if given == url(secret_database) else 1), ran
        ran.assert_no_canary()
    refused = {"harca migrate", "harca load"}  # a record was rejected; the table has none to load
    listed = {path: code for path, code in codes.items() if path in ARGUMENTS}
    assert {path for path, code in listed.items() if code} <= refused, codes
    assert_no_canary(dumped(make_conninfo("", **secret_database)), *files_below(tmp_path))


WRONG = f"wrong-{CANARY}"
FAILURES = {
    "no server": lambda parts: url({**parts, "port": "1"}),
    "wrong password": lambda parts: url(parts, password=WRONG),
    "letters escaped": lambda parts: url(parts, password="%63%34nary"),
    "no such database": lambda parts: url({**parts, "dbname": "none"}),
    "not escaped": lambda parts: url(parts, password=PASSWORD),
    "a slash": lambda parts: url(parts, password=f"1/{CANARY}"),
    "an at sign": lambda parts: url(parts, password=f"x@{CANARY}"),
    "bad escape": lambda parts: url(parts, password=f"{CANARY}%zz"),
    "another program's": lambda parts: f"jdbc:postgresql://h/d?user=u&password={CANARY}",
    "key=value, not quoted": lambda parts: f"host=127.0.0.1 password={PASSWORD} user=u",
}


@pytest.mark.parametrize("broken", FAILURES.values(), ids=FAILURES)
def test_no_command_that_fails_shows_the_password(broken, store, secret_database, run, tmp_path):
    given = broken(secret_database)
    for path in of_a_database():
        ran = run(*path.split(), *arguments_of(path), "-v", "--json", HARCA_DATABASE_URL=given)

        ran.assert_no_canary()
    for arguments in ALEMBIC:
        run("alembic", *arguments, HARCA_DATABASE_URL=given).assert_no_canary()
    for step in (
        ("harca", "status", "--database", given),
        ("alembic", "-x", f"database={given}", "current"),
    ):
        refused = run(*step)
        assert refused.code != 0
        refused.assert_no_canary()
    assert_no_canary(*files_below(tmp_path))


def values(path: str) -> list[list[str]]:
    """Return a command's arguments with a URL in each place where one can be by mistake."""
    misplaced = f"postgresql://u:{CANARY}@127.0.0.1:1/d?password={CANARY}"
    usual = arguments_of(path) if path != "harca db psql" else []  # whose -c is for psql to read
    options = [
        parameter
        for parameter in COMMANDS[path].params
        if parameter.param_type_name == "option"
        and not parameter.is_flag
        and parameter.name != "command"  # psql's, which takes any SQL
    ]
    return [
        [*usual, misplaced],
        *([*usual[:at], misplaced, *usual[at + 1 :]] for at in range(len(usual))),
        *([*usual, option.opts[0], misplaced] for option in options),
        [*usual, f"--databse={misplaced}"],
        [*usual, f"password={CANARY}"],
    ]


@pytest.mark.parametrize("path", COMMANDS)
def test_an_address_in_the_wrong_place_is_not_shown(path, store, run, tmp_path):
    for arguments in values(path):
        ran = run(*path.split(), *arguments, HARCA_DATABASE_URL="postgresql://u@127.0.0.1:1/d")

        ran.assert_no_canary()


def service(parts: dict[str, str], folder: Path) -> dict[str, str]:
    lines = ["[canary]", *(f"{name}={value}" for name, value in parts.items())]
    (folder / "services").write_text("\n".join(lines))
    return {"HARCA_DATABASE_URL": "service=canary", "PGSERVICEFILE": str(folder / "services")}


def passfile(parts: dict[str, str], folder: Path) -> dict[str, str]:
    escaped = parts["password"].replace("\\", "\\\\").replace(":", "\\:")
    (folder / "passwords").write_text(f"*:*:*:*:{escaped}\n")
    (folder / "passwords").chmod(0o600)
    others = {name: value for name, value in parts.items() if name != "password"}
    return {
        "HARCA_DATABASE_URL": make_conninfo("", **others),
        "PGPASSFILE": str(folder / "passwords"),
    }


def variable(parts: dict[str, str], folder: Path) -> dict[str, str]:
    others = {name: value for name, value in parts.items() if name != "password"}
    return {"HARCA_DATABASE_URL": make_conninfo("", **others), "PGPASSWORD": parts["password"]}


@pytest.mark.parametrize("kept", [service, passfile, variable])
def test_a_password_that_libpq_finds_itself_is_not_shown(kept, secret_database, run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    env = kept(secret_database, tmp_path / "elsewhere")
    steps = [
        ("alembic", "current"),
        ("harca", "status", "-v", "--json"),
        ("harca", "db", "psql", "-v", "-c", "SELECT current_user"),
        ("harca", "db", "url", "--json"),
    ]
    for step in steps:
        ran = run(*step, **env)

        assert ran.code == 0, ran.err
        ran.assert_no_canary()


def test_it_is_in_no_command_line_of_a_process(store, secret_database, tmp_path):
    """Which everybody on the machine can read."""
    command = [sys.executable, "-m", "harca", "db", "psql", "-c", "SELECT pg_sleep(30)"]
    env = {**os.environ, "HARCA_DATABASE_URL": url(secret_database)}
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as running:
        lines: set[str] = set()
        children: list[psutil.Process] = []
        try:
            # A child is a copy of its parent for a moment, until it becomes psql.
            while not any(map(_is_psql, lines)) and running.poll() is None:
                time.sleep(0.05)
                children = psutil.Process(running.pid).children(recursive=True)
                with suppress(psutil.NoSuchProcess):
                    lines.update(" ".join(child.cmdline()) for child in children)
        finally:
            for child in children:
                child.terminate()
    assert any(map(_is_psql, lines))
    assert_no_canary(*lines)


def _is_psql(line: str) -> bool:
    return "psql" in line and "harca db psql" not in line


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(store):
    """The store's address, with a password and a signature that it takes."""
    handler = functools.partial(_Quiet, directory=str(store.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://me:{CANARY}@127.0.0.1:{server.server_port}/store.jsonl?sig={CANARY}"
        server.shutdown()
        thread.join()


def test_a_store_s_password_and_token_are_kept_nowhere(web, store, run, database, tmp_path):
    values = [{"text": f"t{number}", "embedding": [1.0, number]} for number in range(3)]
    (tmp_path / "store.jsonl").write_text("\n".join(map(json.dumps, values)))
    env = {"HARCA_DATABASE_URL": database.conninfo}
    steps: list[tuple[int, tuple[str | Path, ...]]] = [
        (0, ("harca", "inspect", web)),
        (0, ("harca", "migrate", web)),
        (0, ("harca", "verify", web)),
        (2, ("harca", "plan", web, "-m", "load it")),
        (2, ("harca", "migrate", web, "--name", web)),
        (2, ("harca", "plan", store, "-m", web)),
        (1, ("harca", "inspect", web.replace("store.jsonl", "none"))),
        (0, ("harca", "load", "--dry-run", "--store", f"7d3e={web}")),
        (2, ("harca", "load", "--store", f"none={web}")),
        (0, ("harca", "load", "--store", f"7d3e={web}")),
        (0, ("alembic", "-n", "data", "downgrade", "base")),
        (0, ("alembic", "-n", "data", "-x", f"store={web}", "upgrade", "head")),
        (0, ("harca", "status")),
    ]
    for number, (code, (program, *arguments)) in enumerate(steps):
        more = [["-v", "--json"], ["-v"]][number % 2] if program == "harca" else []
        ran = run(program, *arguments, *more, **env)

        assert ran.code == code, (arguments, ran)
        ran.assert_no_canary()
    (tmp_path / "store.jsonl").write_text(json.dumps(values[0]))
    differs = run("harca", "verify", web, **env)
    assert differs.code == 3
    differs.assert_no_canary()
    assert_no_canary(dumped(database.conninfo), *files_below(tmp_path))


def test_a_planned_store_that_moved_is_named_without_its_token(web, store, run, database):
    run("harca", "plan", store, "-m", "load it", "--max-rejects", "1")
    env = {"HARCA_DATABASE_URL": database.conninfo, "HARCA_FILE_STORE": web}
    pending = json.loads(run("harca", "load", "--dry-run", "--json", **env).out)["revisions"]
    planned = pending[-1]["revision"]

    for more in (["--dry-run"], []):
        ran = run("harca", "load", "--store", f"{planned}={web}", *more, **env)

        ran.assert_no_canary()
    assert ran.code != 0
    assert_no_canary(json.dumps(pending))
