"""What holds people's texts or leads to them is for its owner alone, whatever the umask."""

import json
import os
import stat
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.stores import record, write_record

pytestmark = pytest.mark.one_server


@pytest.fixture(params=[0o000, 0o077], ids=["umask 000", "umask 077"])
def _umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): mode(path) for path in [folder, *folder.rglob("*")]}


def assert_private(folder: Path) -> None:
    assert mode(folder) == 0o700
    for path in folder.rglob("*"):
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path


@pytest.fixture
def migrated(tmp_path, database, run_harca):
    store = tmp_path / "store"
    write_record(store, record("good", [1.0, 2.0]))
    write_record(store, record("bad", [None]))
    assert run_harca("migrate", store, database=database).code == 3
    return store


@pytest.mark.usefixtures("_umask", "migrated")
@pytest.mark.parametrize("form", ["vdf", "jsonl", "parquet"])
def test_exported_rows_are_the_owner_s_alone(form, tmp_path, database, run_harca):
    folder = tmp_path / "new" / "exported"

    assert run_harca("export", folder, "--format", form, database=database).code == 0

    assert_private(folder)
    assert any(path.is_file() for path in folder.rglob("*"))


@pytest.mark.usefixtures("_umask", "migrated")
def test_exported_rejections_are_the_owner_s_alone(tmp_path, database, run_harca):
    folder = tmp_path / "rejected"

    done = run_harca("rejections", "export", folder, "--json", database=database)

    assert done.json["payloads"] == 1
    assert_private(folder)


@pytest.mark.usefixtures("migrated")
def test_a_folder_that_is_there_stays_as_its_owner_has_made_it(tmp_path, database, run_harca):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o755)

    assert run_harca("export", folder, "--format", "jsonl", database=database).code == 0

    assert modes(folder) == {".": 0o755, "rows.jsonl": 0o600}


@pytest.mark.parametrize("_umask", [0o000], indirect=True)
@pytest.mark.usefixtures("_umask")
@pytest.mark.parametrize("depth", [1, 40], ids=["short path", "path too long for a socket"])
def test_the_embedded_server_is_the_owner_s_alone(depth, tmp_path, run_harca):
    around = tmp_path / "closed"
    around.mkdir(mode=0o700)
    around.chmod(0o700)
    home = around / "a".ljust(depth, "a") / "harca"
    socket = home
    passed = 0o011 if os.getuid() == 0 else 0  # by the user as whom it runs then

    started = run_harca("db", "start", "--json", HARCA_HOME=str(home))
    try:
        assert started.code == 0, started.err
        socket = Path(str(conninfo_to_dict(started.json["url"])["host"])) / ".s.PGSQL.5432"

        assert mode(around) == 0o700 | passed
        assert mode(home) == 0o700 | passed
        assert mode(home / "postgres") == 0o700
        assert mode(socket) == 0o600
        assert mode(socket.parent) == 0o700
    finally:
        assert run_harca("db", "stop", HARCA_HOME=str(home)).code == 0
    assert list(socket.parent.glob(".s.*")) == []
    if home not in socket.parents:
        socket.parent.rmdir()
    else:
        assert depth == 1


def test_a_planned_revision_is_for_others_to_review(project, tmp_path, run_harca, database):
    """It holds counts and labels, and neither texts nor secrets."""
    write_record(tmp_path / "store", record("a secret text", [1.0]))

    done = run_harca("plan", "store", "-m", "load it", "--json", database=database)

    assert "a secret text" not in Path(json.loads(done.out)["file"]).read_text("utf-8")
