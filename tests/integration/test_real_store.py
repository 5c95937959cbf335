"""HARCA's real file store, end to end through the command line."""

import psycopg
import pytest

from harca.postgres.connect import Database

pytestmark = pytest.mark.one_server

SPACES = {3: 5, 384: 1106, 768: 1000, 1000: 1, 1536: 784}


def rows(database: Database) -> list[tuple[object, ...]]:
    with database.connect() as conn:
        return conn.execute("SELECT v::text FROM vector_embeddings v ORDER BY id").fetchall()


def per_dims(database: Database) -> dict[int, int]:
    with database.connect() as conn:
        found = conn.execute("SELECT dims, count(*) FROM vector_embeddings GROUP BY dims")
        return dict(found.fetchall())


def test_every_record_is_loaded_and_proved_and_taken_back(file_store, empty_database, run_harca):
    first = run_harca("migrate", file_store, "--json", database=empty_database)

    assert first.code == 0, first.err
    assert {name: first.json[name] for name in ("read", "loaded", "unchanged")} == {
        "read": 2896,
        "loaded": 2896,
        "unchanged": 0,
    }
    assert (first.json["superseded"], first.json["rejected"]) == (0, 0)
    assert first.json["documents_without_vectors"] == 21
    assert first.json["verified"] is True
    assert per_dims(empty_database) == SPACES

    second = run_harca("migrate", file_store, "--json", database=empty_database)

    assert second.code == 0, second.err
    assert (second.json["loaded"], second.json["unchanged"]) == (0, 2896)

    verified = run_harca("verify", file_store, "--json", database=empty_database)

    assert verified.code == 0, verified.err
    assert verified.json["ok"] is True

    taken_back = run_harca("rollback", str(first.json["run_id"]), database=empty_database)

    assert taken_back.code == 0, taken_back.err
    assert rows(empty_database) == []


def test_rollback_leaves_the_rows_that_were_there_before(file_store, database, run_harca):
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
            "SELECT 'own row ' || n, '[1,2,3]', '{}', 'ours' FROM generate_series(1, 7) n"
        )
    before = rows(database)

    loaded = run_harca("migrate", file_store, "--json", database=database)
    run_harca("rollback", "last", database=database)

    assert loaded.json["loaded"] == 2896
    assert rows(database) == before


def test_inspect_counts_without_a_database(file_store, run_harca):
    found = run_harca(
        "inspect", file_store, "--json", HARCA_DATABASE_URL="postgresql://127.0.0.1:1/none"
    )

    assert found.code == 0, found.err
    assert found.json["format"] == "harca"
    assert (found.json["records"], found.json["rejected"], found.json["conflicts"]) == (2896, 0, 0)
    assert found.json["documents_without_vectors"] == 21
    per_dims: dict[int, int] = {}
    for space in found.json["spaces"]:
        per_dims[space["dims"]] = per_dims.get(space["dims"], 0) + space["records"]
    assert per_dims == SPACES


def test_the_data_revision_loads_the_same_rows_and_takes_them_back(
    file_store, empty_database, run_alembic, run_harca
):
    def ok(*arguments: str) -> None:
        done = run_alembic(*arguments, database=empty_database)
        assert done.code == 0, done.err

    contents = (
        "SELECT store_key, content, embedding::text, metadata, model_id, created_at, source "
        "FROM vector_embeddings ORDER BY store_key"
    )
    ok("upgrade", "head")
    with empty_database.connect() as conn:
        conn.execute(
            "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
            "VALUES ('own row', '[1,2,3]', '{}', 'ours')"
        )
        own = conn.execute("SELECT * FROM vector_embeddings").fetchall()

    ok("-n", "data", "-x", f"store={file_store}", "upgrade", "head")
    with empty_database.connect() as conn:
        by_revision = conn.execute(contents).fetchall()
    for _ in range(3):
        ok("downgrade", "-1")
    ok("upgrade", "head")
    with empty_database.connect() as conn:
        after_downgrades = conn.execute(contents).fetchall()
    ok("-n", "data", "downgrade", "base")
    with empty_database.connect() as conn:
        left = conn.execute("SELECT * FROM vector_embeddings").fetchall()
    migrated = run_harca("migrate", file_store, database=empty_database)
    with empty_database.connect() as conn:
        by_migrate = conn.execute(contents).fetchall()

    assert len(by_revision) == 2897
    assert after_downgrades == by_revision
    assert left == own
    assert migrated.code == 0, migrated.err
    assert by_migrate == by_revision


@pytest.mark.parametrize(
    ("path", "records"),
    [("other/temp/data_20250318_130857.json", 5), ("other/modules", 7), ("other", 12)],
    ids=["exported table", "document module", "everything else"],
)
def test_the_other_stores_of_harca(path, records, file_store, database, run_harca):
    from tests.conftest import SHARED

    done = run_harca("migrate", SHARED / "harca" / path, "--json", database=database)

    assert done.code == 0, done.err
    assert (done.json["loaded"], done.json["rejected"]) == (records, 0)


def test_search_answers_from_the_index_of_a_large_space(file_store, database, run_harca):
    run_harca("migrate", file_store, database=database)

    large = run_harca(
        "search", "--json", "--model", "test-model", "--like", _key(database, 384), "-k", "5",
        database=database,
    )  # fmt: skip
    small = run_harca(
        "search", "--json", "--like", _key(database, 1536), "-k", "5", database=database
    )

    assert large.json["answered_by"].startswith("vector_embeddings_ann_")
    assert small.json["answered_by"] == "exact"
    for found in (large, small):
        similarities = [hit["similarity"] for hit in found.json["results"]]
        assert len(similarities) == 5
        assert similarities[0] == pytest.approx(1.0, abs=1e-6)
        assert similarities == sorted(similarities, reverse=True)


def _key(database: Database, dims: int) -> str:
    with database.connect() as conn:
        conn.row_factory = psycopg.rows.scalar_row
        key = conn.execute(
            "SELECT store_key FROM vector_embeddings WHERE dims = %s ORDER BY id LIMIT 1", [dims]
        ).fetchone()
    assert key is not None
    return str(key)
