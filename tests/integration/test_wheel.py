"""The wheel does in an empty folder what the checkout does."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.stores import write_store

pytestmark = pytest.mark.one_server


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it; its dependencies are this environment's."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--quiet",
         "--no-index", "--disable-pip-version-check", str(wheel)],
        check=True,
    )  # fmt: skip
    paths = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    # A path in a .pth file is searched last, and its own .pth files are not read: the
    # checkout, which is installed by one, stays out.
    (Path(paths.stdout.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return home / "bin"


def test_the_wheel_carries_both_environments_and_all_sql(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())

    for folder, inside in (("alembic", "_migrations/alembic"),
                           ("data_migrations", "_migrations/data_migrations"),
                           ("src/harca", "")):  # fmt: skip
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".sql", ".mako", ".ini"}:
                relative = path.relative_to(ROOT / folder).as_posix()
                assert "/".join(filter(None, ("harca", inside, relative))) in names
    assert "harca/_migrations/alembic.ini" in names
    assert not [name for name in names if name.startswith(("tests", "alembic", "examples"))]


def test_the_installed_command_does_the_same_in_an_empty_folder(
    installed, tmp_path, empty_database, run_harca, run_alembic
):
    store = write_store(tmp_path / "store", 12)
    folder = tmp_path / "empty"
    folder.mkdir()
    environment = {**os.environ, "HARCA_DATABASE_URL": empty_database.conninfo}
    contents = (
        "SELECT store_key, content, embedding::text, metadata, store, source "
        "FROM vector_embeddings ORDER BY store_key"
    )

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(installed / "python"), "-m", program, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("harca", "db", "config").strip()
    run("alembic", "-c", where, "upgrade", "head")
    run("alembic", "-c", where, "-n", "data", "-x", f"store={store}", "upgrade", "head")
    with empty_database.connect() as conn:
        by_revision = conn.execute(contents).fetchall()
    run("alembic", "-c", where, "-n", "data", "downgrade", "base")
    run("harca", "migrate", str(store))
    run("harca", "verify", str(store))
    with empty_database.connect() as conn:
        by_wheel = conn.execute(contents).fetchall()
    run("harca", "rollback", "last")
    run_harca("migrate", store, database=empty_database)
    with empty_database.connect() as conn:
        by_checkout = conn.execute(contents).fetchall()

    assert Path(where).is_relative_to(installed.parent)
    assert len(by_wheel) == 12
    assert by_wheel == by_revision == by_checkout
    assert list(folder.iterdir()) == []


def test_the_wheel_s_configuration_is_the_checkout_s_but_for_the_operator_s_revisions(wheel):
    text = zipfile.ZipFile(wheel).read("harca/_migrations/alembic.ini").decode()
    indexes = """\
# Revisions of `harca index advise` are in the current folder. (The wheel's alembic.ini, from
# packaging/, is that of the checkout but for such folders.)
path_separator = newline
version_locations =
    %(here)s/alembic/versions
    schema_migrations/versions
"""
    planned = """\
# Planned revisions are in the current folder.
path_separator = newline
version_locations =
    %(here)s/data_migrations/versions
    data_migrations/versions
"""

    assert indexes in text
    assert planned in text
    assert text.replace(indexes, "").replace(planned, "") == (ROOT / "alembic.ini").read_text(
        "utf-8"
    )


def test_alembic_finds_the_operations_of_an_installed_harca(installed, tmp_path):
    done = subprocess.run(
        [str(installed / "python"), "-c",
         "import alembic, sys; from alembic import op; print(op.load_store.__name__, "
         "op.create_vector_index.__name__, 'harca.migrations' in sys.modules)"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.stdout, done.stderr) == ("load_store create_vector_index False\n", "")


def test_an_installed_harca_plans_in_the_current_folder(installed, tmp_path, empty_database):
    store = write_store(tmp_path / "store", 12)
    folder = tmp_path / "project"
    folder.mkdir()

    def run(program: str, *arguments: str, code: int = 0, cwd: Path = folder) -> str:
        done = subprocess.run(
            [str(installed / "python"), "-m", program, *arguments],
            cwd=cwd,
            env={**os.environ, "HARCA_DATABASE_URL": empty_database.conninfo},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def status() -> dict[str, Any]:
        return json.loads(run("harca", "status", "--json"))  # type: ignore[no-any-return]

    alembic = ("alembic", "-c", run("harca", "db", "config").strip())
    run(*alembic, "upgrade", "head")
    planned = json.loads(run("harca", "plan", str(store), "-m", "load it", "--json"))
    pending = status()
    loaded = json.loads(run("harca", "load", "--json"))
    run("harca", "verify", str(store))
    stamped = status()
    elsewhere = run("harca", "load", code=1, cwd=tmp_path)
    run(*alembic, "-n", "data", "downgrade", "-1")
    down = status()
    run(*alembic, "-n", "data", "upgrade", "head")
    up = status()

    assert Path(planned["file"]).parent == folder / "data_migrations" / "versions"
    assert planned["is_read"] is True
    assert pending["data"] is None
    assert pending["data_head"] == planned["revision"] == stamped["data"] == up["data"]
    assert loaded["revisions"][1]["run"]["loaded"] == 12
    assert f"the database is at data revision {planned['revision']}, of which" in elsewhere
    assert down["data"] == planned["down_revision"]
    assert (down["rows"], up["rows"]) == (0, 12)


def test_an_installed_harca_writes_revisions_of_indexes_in_the_current_folder(installed, tmp_path):
    write = (
        "from harca import migrations, revision_file; "
        "parts = dict.fromkeys(('about', 'phase', 'locks', 'reverse'), ''); "
        "place = revision_file.NextRevision(migrations.SCHEMA); "
        "done = place.write('index it', {**parts, 'upgrades': 'pass', 'downgrades': 'pass'}); "
        "print(done.path, done.revision == migrations.head(), done.is_read)"
    )

    done = subprocess.run(
        [str(installed / "python"), "-c", write],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip

    [file] = (tmp_path / "schema_migrations" / "versions").glob("*_index_it.py")
    assert done.stdout == f"{file} True True\n"


def test_the_embedded_server_serves_when_no_database_is_named(tmp_path, run_harca):
    store = write_store(tmp_path / "store", 5)

    migrated = run_harca("migrate", store, "--json")
    status = run_harca("status", "--json")
    rolled_back = run_harca("rollback", "last")

    assert migrated.code == 0, migrated.err
    assert migrated.json["loaded"] == 5
    assert status.json["origin"] == "the embedded server"
    assert status.json["server"].startswith("18")
    assert rolled_back.code == 0
    assert not (tmp_path / "harca-home" / "postgres" / "postmaster.pid").exists()
