"""What a review found that could lose a row of HARCA's old tables, or fail its application."""

import json
import threading
import time

import psycopg
from psycopg.conninfo import make_conninfo

from harca import consolidate
from harca.postgres.connect import database as resolve_database
from tests import legacy
from tests.legacy import (
    CODE_VECTORS,
    EMBEDDINGS,
    insert_code,
    insert_embedding,
    killed_at,
    mirrored,
    schema_dump,
    unit,
)

BEFORE = "d2f84b6a17e5"
STORE = "public.code_vectors"

TWICE = (
    "INSERT INTO code_vectors (id, content, embedding) "
    "SELECT id, 'two', embedding FROM code_vectors"
)
MANY = (
    "INSERT INTO code_vectors (content, embedding) SELECT n::text, "
    "(SELECT array_agg(random()) FROM generate_series(1, %s + 0 * n))::real[]::vector "
    "FROM generate_series(1, 1100) n"
)


def test_a_trigger_of_the_application_that_writes_again_is_followed(app, alembic):
    legacy.create(app, CODE_VECTORS["setup script"])
    app.execute("""
        CREATE FUNCTION index_it() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE code_vectors SET content = NEW.content || ' (indexed)' WHERE id = NEW.id;
            RETURN NULL;
        END $$;
        CREATE TRIGGER after_write AFTER INSERT ON code_vectors
            FOR EACH ROW EXECUTE FUNCTION index_it();
    """)
    alembic("upgrade", "head")

    key = insert_code(app, "text", unit(1))

    assert mirrored(app, STORE) == {str(key): "text (indexed)"}


def test_two_who_delete_one_of_two_rows_each_leave_nothing(app, alembic, empty_database):
    legacy.create(app, CODE_VECTORS["imported"])
    insert_code(app, "one", unit(1))
    app.execute(TWICE)
    alembic("upgrade", "head")
    with (
        psycopg.connect(empty_database.conninfo) as first,
        psycopg.connect(empty_database.conninfo) as second,
    ):
        first.execute("DELETE FROM code_vectors WHERE content = 'one'")
        waiting = threading.Thread(
            target=second.execute, args=("DELETE FROM code_vectors WHERE content = 'two'",)
        )
        waiting.start()
        time.sleep(0.3)
        first.commit()
        waiting.join()

    assert app.execute("SELECT count(*) FROM code_vectors").fetchone() == (0,)
    assert mirrored(app, STORE) == {}


def test_a_change_in_the_new_table_is_one_of_one_row(app, alembic):
    legacy.create(app, CODE_VECTORS["imported"])
    insert_code(app, "one", unit(1))
    app.execute(TWICE)
    alembic("upgrade", "head")

    app.execute("DELETE FROM vector_embeddings")

    assert app.execute("SELECT content FROM code_vectors").fetchall() == [("one",)]
    assert list(mirrored(app, STORE).values()) == ["one"]


def test_a_resumed_consolidation_keeps_its_label(app, alembic, empty_database, monkeypatch):
    legacy.create(app, CODE_VECTORS["setup script"])
    insert_code(app, "text", unit(1))
    alembic("upgrade", BEFORE)
    with monkeypatch.context() as patch:
        patch.setenv("HARCA_LEGACY_MODEL", "ada")
        killed_at(empty_database, "legacy_rows.repair")

    said = alembic("upgrade", "head")

    assert "goes on with the label ada" in said
    assert app.execute("SELECT model_id FROM vector_embeddings").fetchall() == [("ada",)]


def test_an_interrupted_downgrade_is_made_good_by_the_next_upgrade(
    app, alembic, empty_database, run_harca
):
    legacy.create(app, CODE_VECTORS["setup script"])
    insert_code(app, "text", unit(1))
    alembic("upgrade", "head")
    killed_at(empty_database, "legacy_swap._delete_rows", command="consolidate.restore")
    insert_code(app, "meanwhile", unit(2))

    alembic("upgrade", "head")

    assert sorted(mirrored(app, STORE).values()) == ["meanwhile", "text"]
    assert run_harca("verify", database=empty_database).code == 0
    insert_code(app, "through the view", unit(3))
    assert len(mirrored(app, STORE)) == 3


def test_an_upgrade_killed_just_before_its_end_is_finished_by_the_next(
    app, alembic, empty_database, run_harca
):
    legacy.create(app, CODE_VECTORS["setup script"])
    insert_code(app, "text", unit(1))
    alembic("upgrade", BEFORE)
    killed_at(empty_database, "consolidate._finish")

    alembic("upgrade", "head")

    assert app.execute("SELECT status FROM load_runs").fetchall() == [("verified",)]
    assert run_harca("verify", database=empty_database).code == 0


def test_policies_that_hide_rows_from_the_owner_are_refused(app, role, run_alembic, empty_database):
    legacy.create(app, CODE_VECTORS["setup script"])
    app.execute(f"""
        ALTER TABLE code_vectors ENABLE ROW LEVEL SECURITY;
        ALTER TABLE code_vectors FORCE ROW LEVEL SECURITY;
        CREATE POLICY seen ON code_vectors USING (content = 'seen');
        ALTER TABLE code_vectors OWNER TO {role};
    """)
    theirs = resolve_database(make_conninfo(empty_database.conninfo, user=role, password="p"))

    refused = run_alembic("upgrade", "head", database=theirs)

    assert refused.code != 0
    assert "FORCE ROW LEVEL SECURITY" in refused.err


def test_a_key_that_is_checked_late_is_no_key(app, alembic):
    legacy.create(app, CODE_VECTORS["introspected"])
    app.execute("ALTER TABLE code_vectors ADD UNIQUE (id) DEFERRABLE INITIALLY DEFERRED")
    for name in ("a", "b"):
        insert_code(app, name, unit(1))
    alembic("upgrade", "head")

    app.execute(
        "UPDATE code_vectors c SET id = o.id FROM code_vectors o WHERE o.content <> c.content"
    )

    there = app.execute("SELECT id::text, content FROM code_vectors")
    assert mirrored(app, STORE) == dict(there.fetchall())


def test_a_batch_stays_small_behind_many_deleted_rows(app, alembic):
    legacy.create(app, CODE_VECTORS["introspected"].replace("(1536)", ""))
    app.execute(
        "INSERT INTO code_vectors (content, embedding) "
        "SELECT 'text', '[1,2]'::vector FROM generate_series(1, 60000)"
    )
    app.execute("DELETE FROM code_vectors WHERE ctid < '(500,0)'::tid")
    app.execute("VACUUM code_vectors")

    alembic("upgrade", "head")

    (most,) = app.execute("SELECT max(read) FROM load_batches").fetchone()
    assert 0 < most < 10_000


def test_components_beyond_half_precision_do_not_matter(app, alembic):
    legacy.create(app, CODE_VECTORS["imported"])
    app.execute(MANY, [2100])
    alembic("upgrade", "head")

    big = [100_000.0] + [1.0] * 2099
    insert_code(app, "big", big)
    found = app.execute(
        "SELECT content FROM match_documents(%s::vector, 0, 1)", [json.dumps(big)]
    ).fetchall()

    assert found == [("big",)]


def test_a_query_that_is_null_finds_nothing(app, alembic):
    legacy.create(app, EMBEDDINGS["jsonb and vector"])
    insert_embedding(app, "text", unit(1))
    alembic("upgrade", "head")

    assert app.execute("SELECT * FROM search_embeddings(NULL, 3)").fetchall() == []


def test_who_may_read_the_columns_may_search(app, role, alembic, empty_database):
    legacy.create(app, EMBEDDINGS["jsonb and vector"])
    insert_embedding(app, "text", unit(1))
    app.execute(f"GRANT SELECT (id, content, metadata, embedding_vector) ON embeddings TO {role}")
    alembic("upgrade", "head")

    with psycopg.connect(make_conninfo(empty_database.conninfo, user=role, password="p")) as conn:
        found = conn.execute(
            "SELECT content FROM search_embeddings(%s::vector, 1)", [json.dumps(unit(1))]
        )
        assert found.fetchall() == [("text",)]


def test_a_function_whose_body_knows_its_table_goes_back(app, alembic, empty_database):
    script = CODE_VECTORS["setup script"].replace("LANGUAGE sql AS $$", "LANGUAGE sql BEGIN ATOMIC")
    legacy.create(app, script.replace("LIMIT match_count\n$$", "LIMIT match_count;\nEND"))
    insert_code(app, "text", unit(1))
    alembic("upgrade", BEFORE)
    dump = schema_dump(empty_database)

    alembic("upgrade", "head")
    alembic("downgrade", BEFORE)

    assert any("BEGIN ATOMIC" in line for line in dump)
    assert schema_dump(empty_database) == dump


def test_an_old_transaction_elsewhere_does_not_stop_it(app, alembic, empty_database, monkeypatch):
    monkeypatch.setattr(consolidate, "_INDEX_PATIENCE_S", 0.3)
    legacy.create(app, CODE_VECTORS["setup script"])
    app.execute(MANY, [1536])
    alembic("upgrade", BEFORE)
    with psycopg.connect(empty_database.conninfo) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM load_runs")

        said = alembic("upgrade", "head")

    assert "indexes are not built" in said
    assert len(mirrored(app, STORE)) == 1100


def test_a_statement_timeout_of_the_database_does_not_matter(app, alembic):
    legacy.create(app, CODE_VECTORS["setup script"])
    app.execute(
        "INSERT INTO code_vectors (content, embedding) SELECT n::text, "
        "array_fill(n::real, ARRAY[1536])::vector FROM generate_series(1, 9) n"
    )
    alembic("upgrade", BEFORE)
    app.execute(
        "CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(1.1); RETURN NULL; END'"
    )
    app.execute(
        "CREATE TRIGGER take_long AFTER INSERT ON vector_embeddings EXECUTE FUNCTION take_long()"
    )
    app.execute(f"ALTER DATABASE {app.info.dbname} SET statement_timeout = '1s'")

    alembic("upgrade", "head")

    assert len(mirrored(app, STORE)) == 9


def test_names_with_percent_signs_and_quotes_are_only_names(app, alembic):
    schema = """We%s'ird "x"""
    quoted = '"' + schema.replace('"', '""') + '"'
    app.execute("CREATE EXTENSION vector")
    app.execute(f"CREATE SCHEMA {quoted}")
    app.execute(f"SET search_path = {quoted}, public")
    app.execute(CODE_VECTORS["imported"])
    insert_code(app, "text", unit(1))
    app.execute(f"ALTER DATABASE {app.info.dbname} SET search_path = public, {quoted}")

    alembic("upgrade", "head")

    assert list(mirrored(app, f"{schema}.code_vectors").values()) == ["text"]
    insert_code(app, "new", unit(2))
    assert len(mirrored(app, f"{schema}.code_vectors")) == 2
    found = app.execute(
        "SELECT content FROM match_documents(%s::vector, 0.5, 1)", [json.dumps(unit(2))]
    )
    assert found.fetchall() == [("new",)]
    alembic("downgrade", BEFORE)
    assert app.execute("SELECT count(*) FROM code_vectors").fetchone() == (2,)


def test_a_table_rewritten_before_resuming_is_copied_anew(app, alembic, empty_database):
    legacy.create(app, CODE_VECTORS["setup script"])
    app.execute(MANY, [1536])
    app.execute("DELETE FROM code_vectors WHERE content::int % 3 = 0")
    alembic("upgrade", BEFORE)
    killed_at(empty_database, "legacy_rows.repair")
    app.execute("VACUUM FULL code_vectors")

    alembic("upgrade", "head")

    (there,) = app.execute("SELECT count(*) FROM code_vectors").fetchone()
    assert len(mirrored(app, STORE)) == there
    run = app.execute("SELECT read, loaded + unchanged + rejected, status FROM load_runs")
    assert run.fetchone() == (there, there, "verified")


def test_copy_and_truncate_between_copy_and_swap_are_followed(app, alembic, empty_database):
    legacy.create(app, CODE_VECTORS["setup script"])
    insert_code(app, "old", unit(1))
    alembic("upgrade", BEFORE)
    killed_at(empty_database, "legacy_rows.repair")

    app.execute("TRUNCATE code_vectors")
    assert mirrored(app, STORE) == {}
    with app.cursor().copy("COPY code_vectors (content, embedding) FROM STDIN") as copy:
        for name in ("a", "b"):
            copy.write_row((name, json.dumps(unit(2))))
    assert sorted(mirrored(app, STORE).values()) == ["a", "b"]

    alembic("upgrade", "head")
    assert sorted(mirrored(app, STORE).values()) == ["a", "b"]


def test_tables_that_were_ignored_come_over_later(app, alembic):
    legacy.create(app, CODE_VECTORS["imported"])
    insert_code(app, "text", unit(1))
    alembic("upgrade", "head", HARCA_LEGACY="ignore")
    assert mirrored(app, STORE) == {}

    alembic("downgrade", "e4c7a90b53d8")
    alembic("upgrade", "head")

    assert list(mirrored(app, STORE).values()) == ["text"]
