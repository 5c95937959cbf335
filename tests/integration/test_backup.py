"""Backups: made before anything is changed, whole or not at all, and restored with proof."""

import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from harca import backup_folder, migrations
from harca.backup import Backup, back_up
from harca.errors import BackupUnusable, NoRoom, TargetError
from harca.model import Space
from harca.postgres import indexes, owned, programs, space_index
from harca.postgres.connect import Database
from harca.postgres.connect import database as resolve_database
from harca.postgres.dump import Method
from harca.postgres.lock import lock_store
from harca.restore import restore
from tests.stores import record, write_record, write_store


@pytest.fixture(params=list(Method))
def method(request, conn) -> Method:
    """Each way of writing; pg_dump where there is one for the server."""
    version = conn.info.server_version // 10_000
    if request.param is Method.PG_DUMP and programs.find("pg_dump", at_least=version) is None:
        pytest.skip(f"there is no pg_dump {version} here")
    return Method(request.param)


@pytest.fixture
def store(tmp_path) -> Path:
    return write_store(tmp_path / "store", 20)


@pytest.fixture
def loaded(store, database, run_harca) -> int:
    """A store that was loaded, with a conflict and a rejection in it; the run."""
    write_record(store / "a", record("twice", [1.0, 0.0, 0.5]))
    write_record(store / "b", record("twice", [0.0, 1.0, 0.5]))
    write_record(store, record("bad", [None]))
    done = run_harca("migrate", store, "--max-rejects", "1", "--json", database=database)
    assert done.code == 0, done.err
    return int(done.json["run_id"])


def fingerprints(database: Database) -> dict[str, str]:
    """Return the fingerprint of every row of every table."""
    with database.connect() as conn, conn.transaction():
        owned.settle(conn)
        tables = [*owned.find_own(conn), *owned.find_old(conn)]
        return {table.label: str(owned.fingerprint(conn, table)) for table in tables}


def made_in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


# -- migrate ---------------------------------------------------------------------------


def test_a_first_load_makes_no_backup_and_a_later_one_does(
    tmp_path, store, empty_database, run_harca
):
    first = run_harca("migrate", store, "--json", database=empty_database)
    assert not (tmp_path / "harca-home" / "backups").exists()
    before = fingerprints(empty_database)

    second = run_harca("migrate", store, "--json", database=empty_database)

    assert (first.code, second.code) == (0, 0), second.err
    assert first.json["backup"] is None
    (folder,) = made_in(tmp_path / "harca-home" / "backups")
    assert second.json["backup"] == str(folder)
    saved = backup_folder.read(folder)
    assert {table.label: table.fingerprint for table in saved.tables} == {
        name: found for name, found in before.items() if name in {t.label for t in saved.tables}
    }
    assert saved.revision == migrations.head()
    assert saved.store is not None
    assert saved.store["path"] == str(store)


@pytest.mark.one_server
def test_no_backup_is_made_where_none_is_wanted(tmp_path, loaded, store, database, run_harca):
    done = run_harca(
        "migrate", store, "--no-backup", "--max-rejects", "1", "--json", database=database
    )

    assert done.code == 0, done.err
    assert done.json["backup"] is None
    assert not (tmp_path / "harca-home" / "backups").exists()


@pytest.mark.one_server
def test_a_resumed_run_makes_no_other_backup(tmp_path, loaded, store, conn, database, run_harca):
    conn.execute("UPDATE load_runs SET status = 'loading'")  # as an interruption leaves it

    done = run_harca("migrate", store, "--max-rejects", "1", "--json", database=database)

    assert done.json["resumed"] is True
    assert done.json["backup"] is None


@pytest.mark.one_server
def test_a_backup_that_does_not_fit_leaves_the_database_as_it_was(
    tmp_path, loaded, store, conn, database
):
    conn.execute("DROP INDEX vector_embeddings_source_idx")  # seen by nobody but a schema upgrade
    before = fingerprints(database)
    write_record(store, record("new", [9.0, 9.0]))

    done = limited(["migrate", str(store), "--backup-dir", str(tmp_path / "small")], database)

    assert done.returncode == 4, done.stderr
    assert 'error: no room for a backup in "' in done.stderr
    assert "bytes are free" in done.stderr
    assert made_in(tmp_path / "small") == []
    assert fingerprints(database) == before


def limited(arguments: list[str], database: Database) -> subprocess.CompletedProcess[str]:
    """Run harca where no file can become larger than 4 KB, as under a quota."""
    return subprocess.run(
        [sys.executable, "-m", "harca", *arguments],
        env={**os.environ, "HARCA_DATABASE_URL": database.conninfo},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        capture_output=True,
        text=True,
        check=False,
    )


# -- backup ----------------------------------------------------------------------------


@pytest.mark.one_server
def test_a_backup_is_for_its_owner_only_whatever_the_umask(tmp_path, loaded, database, method):
    before = os.umask(0o000)
    try:
        made = back_up(database, tmp_path / "new" / "backups", method=method)
    finally:
        os.umask(before)

    files = list(made.folder.iterdir())
    assert made.contents.method == method
    assert len(files) > 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    folders = (made.folder, made.folder.parent, tmp_path / "new")
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


def test_a_store_that_is_not_there_is_not_backed_up(loaded, database, tmp_path, run_harca):
    done = run_harca("backup", "nowhere", "--backup-dir", tmp_path / "made", database=database)

    assert done.code == 1
    assert 'no store at "nowhere"' in done.err
    assert not (tmp_path / "made").exists()


def test_a_folder_that_is_no_backup_is_not_called_damaged(tmp_path, database, run_harca):
    done = run_harca("restore", tmp_path, database=database)

    assert done.code == 1
    assert "backup.json: No such file" in done.err
    assert "Give the folder of a backup" in done.err


@pytest.mark.one_server
def test_the_store_s_files_are_listed_as_sha256sum_checks_them(
    tmp_path, loaded, store, database, run_harca
):
    (store / "line\nbreak \\ é.txt").write_bytes(b"odd")
    done = run_harca("backup", store, "--json", database=database)

    listed = Path(done.json["folder"]) / "store.sha256"
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", str(listed)],
        cwd=store, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.code == 0, done.err
    assert checked.returncode == 0, checked.stderr
    assert done.json["store_files"] == len([path for path in store.rglob("*") if path.is_file()])


@pytest.mark.one_server
def test_nothing_to_back_up_is_an_error(tmp_path, database, run_harca):
    done = run_harca("backup", "--backup-dir", tmp_path / "backups", database=database)

    assert done.code == 1
    assert "there is nothing to back up" in done.err
    assert not (tmp_path / "backups").exists()


@pytest.mark.one_server
def test_too_little_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    free = backup_folder.free_bytes(tmp_path)

    with pytest.raises(NoRoom, match=r"bytes are free, the backup needs up to") as refused:
        backup_folder.require_room(tmp_path / "not" / "there", 2 * free + (1 << 40))

    assert refused.value.needed == 2 * free + (1 << 40)
    assert made_in(tmp_path) == []


@pytest.mark.one_server
def test_a_full_device_is_told_and_leaves_nothing(tmp_path):
    def fill() -> None:
        with (
            backup_folder.new_folder(tmp_path, "backup") as folder,
            folder.create("begun"),
            Path("/dev/full").open("wb") as full,
        ):
            full.write(b"x")

    with pytest.raises(NoRoom):
        fill()

    assert made_in(tmp_path) == []


def test_the_password_is_in_no_file_no_message_and_no_argument(tmp_path, loaded, conn, database):
    role, canary = f"canary_{os.getpid()}", "c4n@ry/p4ss w%rd"
    real = programs.find("pg_dump", at_least=conn.info.server_version // 10_000)
    script = f"printf '%s\\n' \"$@\" >> {tmp_path}/arguments\nexec "
    listening = write_program(
        tmp_path / "bin" / "pg_dump", script + (f'{real.path} "$@"' if real else "false")
    )
    conn.execute(psycopg.sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(
        psycopg.sql.Identifier(role), psycopg.sql.Literal(canary)))  # fmt: skip
    try:
        conninfo = psycopg.conninfo.make_conninfo(database.conninfo, user=role, password=canary)
        done = subprocess.run(
            [sys.executable, "-m", "harca", "backup", "-v", "--backup-dir", tmp_path / "backups"],
            env={
                **os.environ,
                "HARCA_DATABASE_URL": conninfo,
                "PATH": f"{listening.parent}:{os.environ['PATH']}",
            },
            capture_output=True, check=False,
        )  # fmt: skip
    finally:
        conn.execute(psycopg.sql.SQL("DROP ROLE {}").format(psycopg.sql.Identifier(role)))

    assert done.returncode == 0, done.stderr.decode()
    (folder,) = made_in(tmp_path / "backups")
    contents = backup_folder.read(folder)
    if real:
        assert contents.method == "pg_dump", contents.note  # it got the password
        assert b"--format=custom" in (tmp_path / "arguments").read_bytes()
    written = [*folder.iterdir(), tmp_path / "arguments"]
    for said in (done.stdout, done.stderr, *(path.read_bytes() for path in written)):
        assert b"c4n" not in said


def write_program(path: Path, script: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.one_server
def test_a_pg_dump_that_is_too_old_is_passed_over(tmp_path, monkeypatch):
    old = write_program(tmp_path / "bin" / "pg_dump", "echo 'pg_dump (PostgreSQL) 9.6.24'")
    monkeypatch.setenv("PATH", str(old.parent))

    assert programs.find("pg_dump", at_least=9) == programs.Program(str(old), 9)
    found = programs.find("pg_dump", at_least=16)
    assert found is None or found.path != str(old)
    assert programs.find("pg_dump", at_least=999) is None


@pytest.mark.one_server
def test_where_pg_dump_fails_the_tables_are_copied(tmp_path, loaded, database, monkeypatch):
    broken = "[ \"$1\" = --version ] && echo 'x (PostgreSQL) 99.1' && exit\n"
    for name in ("pg_dump", "pg_restore"):
        write_program(tmp_path / "bin" / name, f"{broken}echo '{name}: error: no luck' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    made = back_up(database, tmp_path / "backups")

    assert (made.contents.method, made.contents.note) == ("copy", "pg_dump: no luck")
    assert not (made.folder / "tables.dump").exists()
    assert restore(database, made.folder).replaced.unchanged
    with pytest.raises(TargetError, match="cannot be made by pg_dump: pg_dump: no luck"):
        back_up(database, tmp_path / "backups", method=Method.PG_DUMP)
    assert made_in(tmp_path / "backups") == [made.folder]


@pytest.mark.one_server
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_a_migration_that_is_ended_while_it_backs_up_has_changed_nothing(
    by, tmp_path, loaded, store, conn, database
):
    before = fingerprints(database)
    write_record(store, record("new", [9.0] * 8))
    for name in ("pg_dump", "pg_restore"):  # begins, and does not come to its end
        script = f"echo begun > {tmp_path}/begun; echo 'PGDMP'; exec sleep 100"
        write_program(
            tmp_path / "bin" / name,
            f"[ \"$1\" = --version ] && echo 'x (PostgreSQL) 99.1' && exit\n{script}",
        )
    with subprocess.Popen(
        [sys.executable, "-m", "harca", "migrate", str(store), "--backup-dir", tmp_path / "made"],
        env={
            **os.environ,
            "HARCA_DATABASE_URL": database.conninfo,
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        },
        stderr=subprocess.PIPE,
    ) as running:
        while not (tmp_path / "begun").exists() and running.poll() is None:
            time.sleep(0.05)
        children = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(by)
        _, said = running.communicate(timeout=60)
    for child in children:  # as one that outlives its parent would be, once it is done
        with suppress(psutil.NoSuchProcess):
            child.kill()

    assert running.returncode == (-by if by == signal.SIGKILL else 130), said
    assert b"Traceback" not in said
    left = made_in(tmp_path / "made")
    assert len(left) == (by == signal.SIGKILL)
    for path in left:
        assert path.name.startswith(".partial-")
        with pytest.raises(BackupUnusable, match=r"backup\.json: No such file"):
            backup_folder.read(path)
    wait_for_others(conn)
    assert fingerprints(database) == before
    made = back_up(database, tmp_path / "made")
    assert made_in(tmp_path / "made") == [made.folder]


@pytest.mark.one_server
def test_a_backup_that_another_process_has_just_finished_is_in_nobody_s_way(tmp_path):
    gone = tmp_path / ".partial-of-another"
    gone.symlink_to("finished")  # listed, and not to be found: as if it had been renamed between

    with backup_folder.new_folder(tmp_path, "made") as folder:
        pass

    assert folder.path.is_dir()


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path, loaded, store, database, run_harca):
    (tmp_path / "file").write_text("in the way")
    before = fingerprints(database)

    done = run_harca("migrate", store, "--backup-dir", tmp_path / "file", database=database)

    assert done.code == 1
    assert "a backup cannot be written to" in done.err
    assert "--backup-dir" in done.err
    assert fingerprints(database) == before


@pytest.mark.one_server
def test_a_migration_that_finds_no_room_has_changed_nothing(
    tmp_path, loaded, store, database, run_harca, monkeypatch
):
    monkeypatch.setattr(backup_folder, "free_bytes", lambda folder: 1_000)
    before = fingerprints(database)

    done = run_harca("migrate", store, "--backup-dir", tmp_path / "made", database=database)

    assert done.code == 4
    assert "1,000 bytes are free, the backup needs up to" in done.err
    assert not (tmp_path / "made").exists()
    assert fingerprints(database) == before


# -- restore ---------------------------------------------------------------------------


def test_a_migration_is_undone_by_a_restore(tmp_path, loaded, store, conn, database, run_harca):
    before = fingerprints(database)
    write_record(store, record("new", [9.0] * 8))
    write_record(store, record("テキスト 1", [0.25] * 8, createdAt="2026-01-01T00:00:00.000Z"))
    migrated = run_harca("migrate", store, "--max-rejects", "1", "--json", database=database)
    assert fingerprints(database) != before
    changed = fingerprints(database)

    refused = run_harca("restore", migrated.json["backup"], database=database)
    assert fingerprints(database) == changed
    done = run_harca("restore", migrated.json["backup"], "--replace", "--json", database=database)

    assert refused.code == 4
    assert "came or changed after the backup: " in refused.err
    assert "--replace" in refused.err
    assert done.code == 0, done.err
    assert done.json["verified"] is True
    assert done.json["lost"] > 0
    assert fingerprints(database) == before
    again = run_harca("migrate", store, "--max-rejects", "1", "--json", database=database)
    assert again.json["run_id"] > migrated.json["run_id"]  # which is never handed out again


def test_each_way_of_writing_is_restored(tmp_path, loaded, conn, database, method):
    conn.execute(
        "UPDATE vector_embeddings SET content = E'tab\\there \\\\. \\n\\\\.\\n end', "
        "source = NULL WHERE id = 1"
    )
    before = fingerprints(database)
    made = back_up(database, tmp_path, method=method)
    conn.execute("DELETE FROM vector_embeddings WHERE id <= 5")
    conn.execute("DELETE FROM rejections")

    done = restore(database, made.folder)

    assert fingerprints(database) == before
    assert not done.replaced.unchanged
    assert done.replaced.lost == {}  # rows that are only missing are put back without --replace
    assert restore(database, made.folder).replaced.unchanged


def test_into_an_empty_database(tmp_path, loaded, database, empty_database, method, run_harca):
    made = back_up(database, tmp_path / "backups", method=method)

    done = run_harca("restore", made.folder, database=empty_database)

    assert done.code == 0, done.err
    assert "proved: " in done.out
    assert fingerprints(empty_database) == fingerprints(database)
    assert migrations.current(empty_database) == migrations.head()
    verified = run_harca("verify", database=empty_database)
    assert verified.code == 0, verified.out + verified.err
    with empty_database.connect() as conn:
        is_new = conn.execute(
            "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) VALUES "
            "('new', '[1]', '{}', 'm') RETURNING id > (SELECT max(id) FROM vector_embeddings)"
        )
        assert is_new.fetchone() == (True,)


def test_indexes_are_valid_afterwards(tmp_path, database, conn, run_harca):
    store = write_store(tmp_path / "store", 1_100, dims=4)
    assert run_harca("migrate", store, database=database).code == 0
    made = back_up(database, tmp_path / "backups")
    conn.execute("DELETE FROM vector_embeddings WHERE id % 2 = 0")

    done = restore(database, made.folder)

    indexes = conn.execute(
        "SELECT c.relname, indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid "
        "WHERE indrelid = 'vector_embeddings'::regclass"
    ).fetchall()
    assert all(valid for _, valid in indexes)
    assert [name for name, _ in indexes if "_ann_" in name] == done.indexes_built


@pytest.mark.one_server
def test_an_index_that_a_revision_made_is_made_again(tmp_path, loaded, conn, database):
    space = Space("test-model", 8, 20)
    wanted = space_index.SpaceIndex(
        space_index.index_name(space), space, "hnsw", "vector", {"m": 5}
    )
    indexes.create(conn, wanted)
    made = back_up(database, tmp_path / "backups")
    conn.execute("DELETE FROM vector_embeddings WHERE id <= 5")

    restore(database, made.folder)

    found = space_index.valid_index(conn, space)
    assert found is not None
    assert found.parameters == {"m": 5}
    indexes.build(conn)
    assert space_index.valid_index(conn, space) == found  # it is marked as the revision's still


ANY_DIMENSION = "8b52e7a4c913"


@pytest.mark.one_server
def test_rows_of_an_older_schema_come_into_a_newer_one(tmp_path, empty_database, run_harca):
    migrations.move(empty_database, ANY_DIMENSION)
    with empty_database.connect() as conn:
        conn.execute(
            "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
            "VALUES ('text', '[1, 2, 3]', '{}', 'test-model')"
        )
    made = back_up(empty_database, tmp_path / "backups")
    store = write_store(tmp_path / "store", 3)
    assert run_harca("migrate", store, "--no-backup", database=empty_database).code == 0

    done = run_harca("restore", made.folder, "--replace", database=empty_database)

    assert done.code == 0, done.err
    assert f"the backup was made at {ANY_DIMENSION}" in done.out
    with empty_database.connect() as conn:
        rows = conn.execute("SELECT content, store, run_id FROM vector_embeddings").fetchall()
        assert rows == [("text", None, None)]
        assert conn.execute("SELECT FROM load_runs").rowcount == 0


@pytest.mark.one_server
def test_an_older_schema_is_made_in_an_empty_database(
    tmp_path, database, empty_database, run_harca
):
    migrations.move(database, ANY_DIMENSION)
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
            "VALUES ('text', '[1, 2, 3]', '{}', 'test-model')"
        )
        conn.execute("CREATE TABLE alembic_version_data (version_num varchar(32) PRIMARY KEY)")
        conn.execute("INSERT INTO alembic_version_data VALUES ('a stamp')")
    made = back_up(database, tmp_path / "backups")

    restore(empty_database, made.folder)

    assert migrations.current(empty_database) == ANY_DIMENSION
    assert migrations.current(empty_database, migrations.DATA) == "a stamp"
    assert fingerprints(empty_database) == fingerprints(database)


@pytest.fixture
def made(tmp_path, loaded, database) -> Backup:
    return back_up(database, tmp_path / "backups")


@pytest.mark.one_server
def test_a_damaged_backup_is_refused_before_anything_is_changed(
    tmp_path, made, conn, database, run_harca
):
    conn.execute("DELETE FROM vector_embeddings WHERE id = 1")
    before = fingerprints(database)
    tables = made.contents.tables[0].file
    changes = {
        tables: [lambda data: data[:-10], lambda data: flipped(data), lambda data: None],
        "backup.json": [
            lambda data: data.replace(b'"rows": 2', b'"rows": 3', 1),
            lambda data: data.replace(b'"format": 1', b'"format": 9'),
            lambda data: data[:-10],
            lambda data: b"[]",
            lambda data: None,
        ],
    }
    for name, change in [(name, change) for name, some in changes.items() for change in some]:
        copy = shutil.copytree(made.folder, tmp_path / "copy", dirs_exist_ok=True)
        data = change((copy / name).read_bytes())
        (copy / name).unlink()
        if data is not None:
            (copy / name).write_bytes(data)

        done = run_harca("restore", copy, "--replace", database=database)

        assert done.code == 1
        assert f"cannot be used: {name}: " in done.err
    assert fingerprints(database) == before


def flipped(data: bytes) -> bytes:
    """Return *data* with one bit in the middle the other way round."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.one_server
def test_rows_that_are_not_those_of_the_backup_are_rolled_back(made, conn, database, run_harca):
    conn.execute("DELETE FROM vector_embeddings WHERE id = 1")
    before = fingerprints(database)
    forge(made.folder, "vector_embeddings", fingerprint="1:0000000000000000")

    done = run_harca("restore", made.folder, database=database)

    assert done.code == 3
    assert "has the fingerprint" in done.err
    assert "Nothing was changed" in done.err
    assert fingerprints(database) == before


def forge(folder: Path, table: str, **fields: str) -> None:
    """Rewrite what ``backup.json`` says about a table, with a digest that fits."""
    path = folder / "backup.json"
    raw = json.loads(path.read_text("utf-8"))
    next(one for one in raw["tables"] if one["name"] == table).update(fields)
    raw["sha256"] = backup_folder._digest(raw)
    path.write_text(json.dumps(raw), "utf-8")


@pytest.mark.one_server
def test_a_killed_restore_changes_nothing_and_can_be_run_again(made, conn, database):
    expected = fingerprints(database)
    conn.execute("DELETE FROM vector_embeddings WHERE id <= 10")
    before = fingerprints(database)
    program = (
        "import os, pathlib\n"
        "from harca.postgres.connect import database\n"
        "from harca.postgres.undump import Undump\n"
        "from harca.restore import restore\n"
        "Undump._prove = lambda *_: os.kill(os.getpid(), 9)\n"
        f"restore(database(), pathlib.Path({str(made.folder)!r}))\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HARCA_DATABASE_URL": database.conninfo},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    wait_for_others(conn)
    assert fingerprints(database) == before

    restore(database, made.folder)

    assert fingerprints(database) == expected


def wait_for_others(conn: psycopg.Connection) -> None:
    """Wait until the server has noticed that a client has gone."""
    for _ in range(600):
        others = conn.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        if not others.rowcount:
            return
        time.sleep(0.1)
    raise AssertionError("a session is left")


@pytest.mark.one_server
def test_a_store_that_is_being_loaded_is_not_restored(made, database, run_harca):
    (name,) = made.contents.stores
    with database.connect() as locker:
        lock_store(locker, name)
        done = run_harca("restore", made.folder, "--replace", database=database)

    assert done.code == 4
    assert "another process is working on store" in done.err


@pytest.mark.one_server
def test_values_in_a_column_that_came_after_the_backup_are_no_less_than_rows(
    made, conn, database, run_harca
):
    conn.execute("ALTER TABLE vector_embeddings ADD COLUMN note text DEFAULT 'mine'")
    conn.execute("ALTER TABLE vector_embeddings ALTER COLUMN note DROP DEFAULT")
    conn.execute("DELETE FROM rejections")

    refused = run_harca("restore", made.folder, database=database)
    notes = conn.execute("SELECT DISTINCT note FROM vector_embeddings").fetchall()
    done = run_harca("restore", made.folder, "--replace", "--json", database=database)

    assert refused.code == 4
    assert "21 rows came or changed after the backup: 21 in public.vector_embeddings" in refused.err
    assert notes == [("mine",)]
    assert (done.code, done.json["lost"]) == (0, 21)


def test_somebody_s_foreign_key_is_refused(made, conn, database, run_harca):
    conn.execute("CREATE TABLE theirs (id int REFERENCES vector_embeddings)")
    conn.execute("DELETE FROM vector_embeddings WHERE id = 1")

    done = run_harca("restore", made.folder, database=database)

    assert done.code == 4
    assert "the foreign key theirs_id_fkey of theirs refers to rows" in done.err


@pytest.mark.one_server
def test_a_database_that_is_not_there_is_told(made, tmp_path, run_harca):
    nowhere = resolve_database("postgresql://nobody@127.0.0.1:1/none?connect_timeout=2")

    done = run_harca("restore", made.folder, database=nowhere)

    assert done.code == 1
    assert "cannot connect" in done.err
