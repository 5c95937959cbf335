"""Planted differences are found and named; nothing to compare is no success."""

import json

import pytest
from psycopg.conninfo import make_conninfo

from harca.postgres.connect import database as resolve_database
from tests.stores import record, write_record, write_store

DAMAGE = {
    "row deleted": (
        "DELETE FROM vector_embeddings WHERE content = 'テキスト 3'",
        {"missing"},
    ),
    "row doubled": (
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id, store, store_key, "
        "run_id) SELECT content, embedding, metadata, model_id, store, store_key || 'x', run_id "
        "FROM vector_embeddings WHERE content = 'テキスト 3'",
        {"extra"},
    ),
    "vectors swapped": (
        "UPDATE vector_embeddings v SET embedding = o.embedding FROM vector_embeddings o "
        "WHERE (v.content, o.content) IN (('テキスト 3', 'テキスト 4'), "
        "('テキスト 4', 'テキスト 3'))",
        {"embedding"},
    ),
    "last bit of a component": (
        "UPDATE vector_embeddings SET embedding = ((embedding::real[])[1:7] || "
        "((embedding::real[])[8] * 1.0000001)::real)::vector WHERE content = 'テキスト 3'",
        {"embedding"},
    ),
    "character in a text": (
        "UPDATE vector_embeddings SET content = 'テキスト 3.' WHERE content = 'テキスト 3'",
        {"content"},
    ),
    "number retyped as text": (
        'UPDATE vector_embeddings SET metadata = metadata || \'{"accessCount": "1"}\' '
        "WHERE content = 'テキスト 3'",
        {"metadata"},
    ),
    "integer retyped as decimal": (
        "UPDATE vector_embeddings SET metadata = metadata || '{\"accessCount\": 1.0}' "
        "WHERE content = 'テキスト 3'",
        {"metadata"},
    ),
    "date shifted": (
        "UPDATE vector_embeddings SET created_at = created_at + interval '1 microsecond' "
        "WHERE content = 'テキスト 3'",
        {"created_at"},
    ),
    "label changed": (
        "UPDATE vector_embeddings SET model_id = 'test-model ' WHERE content = 'テキスト 3'",
        {"model_id"},
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_named(name, tmp_path, database, conn, run_harca):
    statement, differences = DAMAGE[name]
    store = write_store(tmp_path / "store", 12)
    assert run_harca("migrate", store, database=database).code == 0
    conn.execute(statement)

    found = run_harca("verify", store, "--json", database=database)
    everything = run_harca("verify", "--json", database=database)

    assert found.code == 3, found.out
    assert found.json["ok"] is False
    assert {one["difference"] for one in found.json["mismatches"]} == differences
    assert found.json["mismatch_count"] == (2 if name == "vectors swapped" else 1)
    assert everything.code == 3


def test_the_outcome_is_noted_with_the_run_and_when(tmp_path, database, conn, run_harca):
    store = write_store(tmp_path / "store", 12)
    run_harca("migrate", store, "--no-backup", database=database)
    first = conn.execute("SELECT notes -> 'verified' FROM load_runs").fetchone()[0]
    conn.execute("UPDATE vector_embeddings SET content = 'x' WHERE content = 'テキスト 3'")

    run_harca("verify", store, database=database)
    second, seen = conn.execute(
        "SELECT notes -> 'verified', notes ? 'seen' AND notes ? 'seals' FROM load_runs"
    ).fetchone()

    assert first["failed"] == first["mismatches"] == 0
    assert first["checks"] >= 9
    assert [one["name"] for one in second["failures"]] == ["fingerprint"]
    assert (second["failed"], second["mismatches"]) == (1, 1)
    assert second["at"] > first["at"]
    assert seen


def test_a_store_that_has_more_than_the_table_differs(tmp_path, database, run_harca):
    store = write_store(tmp_path / "store", 5)
    run_harca("migrate", store, database=database)
    write_record(store / "cache", record("new", [1.0, 2.0]))

    found = run_harca("verify", store, database=database)

    assert found.code == 3
    assert "DIFFERENT" in found.out
    assert "missing" in found.out


def test_records_that_were_read_since_are_no_difference(tmp_path, database, run_harca):
    """HARCA rewrites a record's bookkeeping whenever it reads it."""
    store = write_store(tmp_path / "store", 5)
    run_harca("migrate", store, database=database)
    path = next((store / "cache" / "embeddings").glob("[0-9a-f]*.json"))
    value = json.loads(path.read_text())
    value |= {"lastAccessed": "2026-01-01T00:00:00.000Z", "accessCount": 2}
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2))

    found = run_harca("verify", store, "--json", database=database)
    again = run_harca("migrate", store, "--json", database=database)

    assert found.code == 0, found.out
    assert found.json["touched"] == 1
    assert (again.json["loaded"], again.json["unchanged"]) == (0, 5)
    assert again.code == 0


def test_bookkeeping_that_went_back_is_a_difference(tmp_path, database, conn, run_harca):
    store = write_store(tmp_path / "store", 5)
    run_harca("migrate", store, database=database)
    conn.execute(
        "UPDATE vector_embeddings SET metadata = metadata || '{\"accessCount\": 7}' "
        "WHERE content = 'テキスト 3'"
    )

    assert run_harca("verify", store, database=database).code == 3


def test_a_lost_loser_is_found(tmp_path, database, conn, run_harca):
    """What lost a conflict is still part of what the store held."""
    store = write_store(tmp_path / "store", 3)
    write_record(store / "a", record("twice", [1.0], createdAt="2025-01-01T00:00:00Z"))
    write_record(store / "b", record("twice", [2.0], createdAt="2025-01-02T00:00:00Z"))
    run_harca("migrate", store, database=database)
    conn.execute("DELETE FROM superseded")

    found = run_harca("verify", store, "--json", database=database)

    assert found.code == 3
    assert {one["difference"] for one in found.json["mismatches"]} == {"missing"}


@pytest.mark.parametrize("arguments", [[], ["STORE"]], ids=["all stores", "one store"])
def test_nothing_loaded_is_nothing_verified(arguments, tmp_path, database, run_harca):
    store = write_store(tmp_path / "store", 3)
    paths = [str(store) for _ in arguments]

    found = run_harca("verify", *paths, database=database)

    assert found.code == 1
    assert "nothing to verify" in found.err


def test_a_store_that_was_taken_back_is_not_said_to_be_new(tmp_path, database, run_harca):
    store = write_store(tmp_path / "store", 3)
    run_harca("migrate", store, database=database)
    run_harca("rollback", "last", database=database)

    found = run_harca("verify", store, database=database)

    assert found.code == 1
    assert f'store "{store}" was taken back, its latest run is 1' in found.err


def test_all_mismatches_are_counted_and_the_first_listed(tmp_path, database, conn, run_harca):
    store = write_store(tmp_path / "store", 300)
    run_harca("migrate", store, database=database)
    conn.execute("UPDATE vector_embeddings SET content = content || '!'")

    found = run_harca("verify", store, "--json", database=database)

    assert found.json["mismatch_count"] == 300
    assert len(found.json["mismatches"]) == 100


def test_a_role_that_only_reads_can_verify(tmp_path, database, conn, run_harca):
    store = write_store(tmp_path / "store", 5)
    run_harca("migrate", store, database=database)
    role = f"reader_of_{conn.info.dbname}"
    conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'reads'")
    conn.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    url = make_conninfo(database.conninfo, user=role, password="reads")
    try:
        found = run_harca("verify", store, "--json", database=resolve_database(url))
    finally:
        conn.execute(f"DROP OWNED BY {role}")
        conn.execute(f"DROP ROLE {role}")

    assert found.code == 0, found.err
    assert found.json["ok"] is True


def test_a_row_without_a_key_is_named_all_the_same(tmp_path, database, conn, run_harca):
    store = write_store(tmp_path / "store", 3)
    run_harca("migrate", store, database=database)
    conn.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id, store) "
        "SELECT 'x', '[1,2]', '{}', 'm', store FROM vector_embeddings LIMIT 1"
    )

    found = run_harca("verify", store, database=database)

    assert found.code == 3, found.err
    assert "extra" in found.out


def twice_loaded(folder, database, run_harca):
    """Return a store whose second run has overwritten every row of the first."""
    for date in ("2025-01-01T00:00:00Z", "2025-01-02T00:00:00Z"):
        for text in "abc":
            write_record(folder, record(text, [1.0, 2.0], createdAt=date))
        assert run_harca("migrate", folder, database=database).code == 0
    return folder


def test_taking_an_earlier_run_back_changes_what_later_ones_note(tmp_path, database, run_harca):
    store = twice_loaded(tmp_path / "store", database, run_harca)

    assert run_harca("rollback", "1", database=database).code == 0

    found = run_harca("verify", store, database=database)
    assert found.code == 0, found.out


def test_taking_an_earlier_run_back_covers_no_damage_up(tmp_path, database, conn, run_harca):
    store = twice_loaded(tmp_path / "store", database, run_harca)
    conn.execute("DELETE FROM superseded WHERE run_id = 2 AND superseded_id % 2 = 0")

    assert run_harca("rollback", "1", database=database).code == 0

    found = run_harca("verify", store, database=database)
    assert found.code == 3
    assert "ledger of run 2" in found.out


def test_a_store_loaded_under_two_sources_has_both(tmp_path, database, conn, run_harca):
    store = write_store(tmp_path / "store", 5)
    run_harca("migrate", store, "--source", "first", database=database)
    write_record(store / "cache", record("new", [1.0, 2.0]))
    assert run_harca("migrate", store, "--source", "second", database=database).code == 0
    assert run_harca("verify", store, database=database).code == 0

    conn.execute("UPDATE vector_embeddings SET source = 'first' WHERE source = 'second'")

    found = run_harca("verify", store, "--json", database=database)
    assert [one["difference"] for one in found.json["mismatches"]] == ["source"]


def test_a_row_given_to_another_run_in_every_trace_is_found(tmp_path, database, conn, run_harca):
    store = write_store(tmp_path / "store", 5)
    run_harca("migrate", store, database=database)
    write_record(store / "cache", record("new", [1.0, 2.0]))
    run_harca("migrate", store, database=database)
    swapped = (
        "UPDATE vector_embeddings v SET run_id = r.run_id, updated_at = r.started_at "
        "FROM load_runs r WHERE r.run_id = 3 - v.run_id AND content IN ('new', 'テキスト 3')"
    )
    assert conn.execute(swapped).rowcount == 2

    found = run_harca("verify", store, "--json", database=database)

    assert found.code == 3
    assert [one["name"] for one in found.json["checks"] if not one["ok"]] == ["labels"]


def test_several_stores_are_compared_in_one_go(tmp_path, database, conn, run_harca):
    for name in ("one", "two"):
        store = write_store(tmp_path / name, 3, seed=len(name))
        run_harca("migrate", store, "--name", name, database=database)
    conn.execute("DELETE FROM vector_embeddings WHERE store = 'two' AND content = 'テキスト 1'")

    found = run_harca("verify", "--json", database=database)

    assert found.code == 3
    assert [one["store"] for one in found.json["stores"]] == ["one", "two"]
    assert [one["ok"] for one in found.json["stores"]] == [True, False]
    assert found.json["mismatch_count"] == 1
    assert [(one["store"], one["difference"]) for one in found.json["mismatches"]] == [
        ("two", "missing")
    ]
    assert {one["store"] for one in found.json["checks"] if not one["ok"]} == {"two"}
