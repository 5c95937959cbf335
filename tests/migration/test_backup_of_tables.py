"""HARCA's old tables in backups: before they are consolidated, after, and elsewhere."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from harca import migrations
from harca.backup import back_up
from harca.postgres.connect import Database
from harca.postgres.connect import database as resolve_database
from harca.postgres.dump import Method
from harca.restore import restore
from tests import legacy
from tests.conftest import _fresh
from tests.legacy import CODE_VECTORS, EMBEDDINGS, everything, insert_code, insert_embedding, unit
from tests.stores import write_store

TABLES = ("embeddings", "code_vectors")


@pytest.fixture
def old(app) -> dict[str, list[tuple[object, ...]]]:
    """Rows of both tables, as the application has left them."""
    legacy.create(app, EMBEDDINGS["jsonb and vector"], CODE_VECTORS["imported"])
    for number in range(4):
        insert_embedding(app, f"text {number}", unit(number), n=number)
        insert_code(app, f"code {number}", unit(number)[:100], n=number)
    # A trigger would make the vector anew of the jsonb.
    app.execute("ALTER TABLE embeddings DISABLE TRIGGER embedding_to_vector")
    app.execute("UPDATE embeddings SET embedding = '[1, 2]' WHERE content = 'text 3'")
    app.execute("ALTER TABLE embeddings ENABLE TRIGGER embedding_to_vector")
    return {name: everything(app, name) for name in TABLES}


@pytest.fixture
def database_elsewhere(server: str) -> Iterator[Database]:
    """An empty database beside the application's."""
    yield from _fresh(server, template=None)


def kinds(conn: psycopg.Connection) -> dict[str, str]:
    found = conn.execute(
        "SELECT c.oid::regclass::text, relkind::text FROM pg_class c "
        "WHERE relname IN ('embeddings', 'code_vectors') AND relkind IN ('r', 'v')"
    )
    return dict(found.fetchall())


def mirrored(conn: psycopg.Connection) -> list[tuple[object, ...]]:
    return conn.execute(
        "SELECT store, store_key, content FROM vector_embeddings ORDER BY store, store_key"
    ).fetchall()


def test_a_first_migration_that_consolidates_is_undone(
    tmp_path, old, app, empty_database, run_harca
):
    store = write_store(tmp_path / "store", 3)
    migrated = run_harca("migrate", store, "--json", database=empty_database)
    assert migrated.code == 0, migrated.err
    assert kinds(app)["embeddings"] == "v"
    insert_embedding(app, "written through the view", unit(7))

    refused = run_harca("restore", migrated.json["backup"], database=empty_database)
    assert kinds(app)["embeddings"] == "v"
    done = run_harca("restore", migrated.json["backup"], "--replace", database=empty_database)

    assert refused.code == 4
    assert "rows in its tables would be replaced" in refused.err
    assert done.code == 0, done.err
    assert kinds(app) == {"embeddings": "r", "code_vectors": "r"}
    assert {name: everything(app, name) for name in TABLES} == old
    assert mirrored(app) == []
    insert_embedding(app, "the trigger is on again", unit(8))
    assert app.execute(
        "SELECT embedding_vector IS NOT NULL FROM embeddings WHERE content LIKE 'the trigger%'"
    ).fetchone() == (True,)


def test_consolidated_tables_are_restored_behind_their_views(
    tmp_path, old, app, alembic, empty_database
):
    alembic("upgrade", "head")
    before = mirrored(app)
    made = back_up(empty_database, tmp_path)
    app.execute("DELETE FROM embeddings WHERE content = 'text 1'")
    app.execute("UPDATE code_vectors SET content = 'changed' WHERE content = 'code 2'")

    restore(empty_database, made.folder, replace=True)

    assert {name: everything(app, name) for name in TABLES} == old
    assert mirrored(app) == before
    insert_embedding(app, "still in step", unit(9))
    assert len(mirrored(app)) == len(before) + 1
    assert migrations.current(empty_database) == migrations.head()


@pytest.mark.parametrize("method", list(Method))
def test_consolidated_tables_come_into_an_empty_database(
    method, tmp_path, old, app, alembic, empty_database, database_elsewhere
):
    alembic("upgrade", "head")
    before = mirrored(app)
    made = back_up(empty_database, tmp_path, method=Method.COPY if method == "copy" else None)

    restore(database_elsewhere, made.folder)

    with psycopg.connect(database_elsewhere.conninfo, autocommit=True) as conn:
        assert kinds(conn) == kinds(app)
        assert {name: everything(conn, name) for name in TABLES} == old
        assert mirrored(conn) == before
        insert_code(conn, "in step here too", unit(9)[:100])
        assert len(mirrored(conn)) == len(before) + 1


def test_tables_that_were_left_alone_are_put_back_in_their_place(
    tmp_path, old, app, alembic, empty_database, run_harca
):
    store = write_store(tmp_path / "store", 3)
    ignoring = {"HARCA_LEGACY": "ignore"}
    first = run_harca("migrate", store, "--json", database=empty_database, **ignoring)
    made = run_harca("backup", "--json", database=empty_database, **ignoring)
    before = mirrored(app)
    migrations.move(empty_database, migrations.BEFORE_TABLES)
    alembic("upgrade", "head")
    assert kinds(app)["embeddings"] == "v"

    done = run_harca("restore", made.json["folder"], "--replace", database=empty_database)

    assert first.code == 0, first.err
    assert first.json["backup"] is None  # they are none of its business
    assert done.code == 0, done.err
    assert kinds(app) == {"embeddings": "r", "code_vectors": "r"}
    assert {name: everything(app, name) for name in TABLES} == old
    assert mirrored(app) == before


def test_tables_of_another_role_are_refused_before_they_are_backed_up(
    tmp_path, old, app, role, empty_database, run_harca
):
    store = write_store(tmp_path / "store", 3)
    as_role = resolve_database(make_conninfo(empty_database.conninfo, user=role, password="p"))

    done = run_harca("migrate", store, database=as_role)

    assert done.code == 4
    assert "public.embeddings belongs to" in done.err
    assert not (tmp_path / "harca-home" / "backups").exists()
