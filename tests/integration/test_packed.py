"""Packed and remote stores through the command line: as if they lay unpacked on the disk."""

import functools
import http.server
import tarfile
import tempfile
import threading
from pathlib import Path

import pytest

from tests.stores import write_store

pytestmark = pytest.mark.one_server

RECORDS = 2_500  # enough for a process of its own to read them


@pytest.fixture
def packed(tmp_path):
    store = write_store(tmp_path / "made" / "store", RECORDS)
    path = tmp_path / "packed" / "store.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(store, "store")
    return path


@pytest.fixture
def web(packed):
    handler = functools.partial(_Quiet, directory=str(packed.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_an_archive_is_migrated_and_verified(packed, temporary, database, run_harca):
    done = run_harca("migrate", packed, "--json", database=database)
    checked = run_harca("verify", "--json", database=database)
    again = run_harca("migrate", packed, "--json", database=database)

    assert done.code == 0, done.err
    assert (done.json["loaded"], done.json["store"]) == (RECORDS, str(packed))
    assert checked.json["ok"] is True
    assert again.json["unchanged"] == RECORDS
    assert list(temporary.iterdir()) == []


def test_a_store_at_an_address_is_migrated_and_no_secret_kept(web, temporary, database, run_harca):
    url = f"{web}/store.tar.gz?token=canary".replace("://", "://user:canary@")

    done = run_harca("migrate", url, "--json", database=database)
    looked = run_harca("inspect", url, "--json", database=database)

    assert done.code == 0, done.err
    assert done.json["loaded"] == looked.json["records"] == RECORDS
    assert done.json["store"] == looked.json["path"] == f"{web}/store.tar.gz"
    with database.connect() as conn:
        kept = conn.execute("SELECT r::text FROM load_runs r").fetchall()
    assert "canary" not in str((done, looked, kept))
    assert list(temporary.iterdir()) == []


def test_an_error_names_the_archive_and_not_the_temporary_folder(tmp_path, temporary, run_harca):
    path = tmp_path / "notes.tar"
    (tmp_path / "notes.txt").write_text("no vectors")
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "notes.txt", "notes/notes.txt")
        archive.add(tmp_path / "notes.txt", "notes/more.txt")

    refused = run_harca("inspect", path)

    assert refused.code == 1
    assert f'"{path}" is in no known store format' in refused.err
    assert str(temporary) not in refused.err


def test_a_folder_of_archives_is_refused_by_their_names(packed, run_harca):
    refused = run_harca("inspect", packed.parent)

    assert refused.code == 1
    assert "a folder with archives, of which one can be given: store.tar.gz" in refused.err
    assert Path(packed).exists()
