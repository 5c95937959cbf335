"""Schema revisions: one head, head equals models, up and down with rows in them."""

import re

import psycopg
import pytest
from alembic.script import ScriptDirectory

from harca import migrations
from harca.postgres.connect import Database

REVISIONS = [
    revision.revision
    for revision in ScriptDirectory.from_config(
        migrations.config(migrations.SCHEMA)
    ).walk_revisions()
][::-1]

PLAIN = (
    "SELECT id, content, embedding::text, metadata, model_id, created_at, updated_at, source "
    "FROM vector_embeddings ORDER BY id"
)
WHOLE = "SELECT v::text FROM vector_embeddings v ORDER BY id"


@pytest.fixture
def alembic(empty_database, run_alembic):
    """Run alembic on the test's database, and expect it to succeed."""

    def run(*arguments: str):
        done = run_alembic(*arguments, database=empty_database)
        assert done.code == 0, done.err
        return done

    return run


def query(database: Database, statement: str) -> list[tuple[object, ...]]:
    with database.connect() as conn:
        return conn.execute(statement).fetchall()


def insert(database: Database, content: str, dims: int, model: str = "m") -> None:
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
            "VALUES (%s, (SELECT array_agg(random()) FROM generate_series(1, %s))::real[]::vector, "
            "'{\"a\": 1}', %s)",
            [content, dims, model],
        )


def test_each_environment_has_one_head():
    for environment in (migrations.SCHEMA, migrations.DATA):
        script = ScriptDirectory.from_config(migrations.config(environment))
        assert len(script.get_heads()) == 1


def test_head_equals_the_models(alembic):
    alembic("upgrade", "head")

    alembic("check")  # whose exit code tells


def test_the_first_revision_is_the_plan_to_the_letter(alembic, empty_database):
    alembic("upgrade", REVISIONS[0])

    columns = query(
        empty_database,
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, "
        "pg_get_expr(adbin, adrelid) FROM pg_attribute LEFT JOIN pg_attrdef "
        "ON adrelid = attrelid AND adnum = attnum "
        "WHERE attrelid = 'vector_embeddings'::regclass AND attnum > 0 ORDER BY attnum",
    )
    indexes = query(
        empty_database,
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'vector_embeddings' ORDER BY indexname",
    )

    assert columns == [
        ("id", "integer", True, "nextval('vector_embeddings_id_seq'::regclass)"),
        ("content", "text", True, None),
        ("embedding", "vector(1536)", True, None),
        ("metadata", "jsonb", True, None),
        ("model_id", "character varying(50)", True, None),
        ("created_at", "timestamp with time zone", False, "CURRENT_TIMESTAMP"),
        ("updated_at", "timestamp with time zone", False, "CURRENT_TIMESTAMP"),
        ("source", "character varying(50)", False, "'unknown'::character varying"),
    ]
    table = "public.vector_embeddings USING"
    assert [definition for (definition,) in indexes] == [
        f"CREATE INDEX vector_embeddings_embedding_idx ON {table} ivfflat "
        "(embedding vector_cosine_ops) WITH (lists='100')",
        f"CREATE INDEX vector_embeddings_metadata_idx ON {table} gin (metadata)",
        f"CREATE UNIQUE INDEX vector_embeddings_pkey ON {table} btree (id)",
        f"CREATE INDEX vector_embeddings_source_idx ON {table} btree (source)",
    ]


def test_the_plans_three_indexes_are_there_at_head(alembic, empty_database):
    alembic("upgrade", "head")

    names = query(
        empty_database, "SELECT indexname FROM pg_indexes WHERE tablename = 'vector_embeddings'"
    )

    assert {
        ("vector_embeddings_embedding_idx",),
        ("vector_embeddings_metadata_idx",),
        ("vector_embeddings_source_idx",),
    } <= set(names)


@pytest.mark.parametrize("at", range(len(REVISIONS)), ids=REVISIONS)
def test_a_revision_goes_up_down_and_up_with_rows_in_it(at, alembic, empty_database):
    alembic("upgrade", REVISIONS[at])
    for number in range(3):
        insert(empty_database, f"row {number}", 1536)
    if at >= 1:
        insert(empty_database, "a row of three dimensions", 3)
    if at >= 2:
        insert(empty_database, "a row with a long label", 7, model="m" * 51)
    before = query(empty_database, WHOLE)

    alembic("downgrade", "-1")
    alembic("upgrade", "+1")

    assert query(empty_database, WHOLE) == before


def test_all_the_way_down_and_up_loses_nothing(alembic, empty_database, run_harca, tmp_path):
    from tests.stores import write_store

    store = write_store(tmp_path / "store", 20)
    assert run_harca("migrate", store, database=empty_database).code == 0
    insert(empty_database, "a row of the application's", 1536)
    insert(empty_database, "another one", 5)
    before = query(empty_database, WHOLE)
    ledger = query(empty_database, "SELECT r::text FROM load_runs r")

    alembic("downgrade", "base")
    gone = query(empty_database, "SELECT to_regclass('vector_embeddings')")
    alembic("upgrade", "head")

    assert gone == [(None,)]
    assert query(empty_database, WHOLE) == before
    assert query(empty_database, "SELECT r::text FROM load_runs r") == ledger
    assert query(empty_database, "SELECT to_regnamespace('harca_aside')") == [(None,)]
    assert run_harca("verify", store, database=empty_database).code == 0
    insert(empty_database, "ids go on", 5)
    ids = query(empty_database, "SELECT count(*), count(DISTINCT id) FROM vector_embeddings")
    assert ids == [(23, 23)]


def test_ids_go_on_when_no_row_fits_the_plans_table(alembic, empty_database, run_harca, tmp_path):
    from tests.stores import record, write_record, write_store

    store = write_store(tmp_path / "store", 20)
    assert run_harca("migrate", store, database=empty_database).code == 0
    alembic("downgrade", "base")
    alembic("upgrade", REVISIONS[0])
    insert(empty_database, "a row of the application's, meanwhile", 1536)
    alembic("upgrade", "head")
    write_record(store / "cache", record("new", [1.0, 2.0]))

    done = run_harca("migrate", store, "--json", database=empty_database)

    assert (done.code, done.json["loaded"]) == (0, 1), done.err


def test_a_run_of_an_applied_data_revision_is_taken_back_by_it_alone(
    alembic, empty_database, run_harca, run_alembic, tmp_path
):
    from tests.stores import write_store

    store = write_store(tmp_path / "store", 3)
    alembic("upgrade", "head")
    alembic("-n", "data", "-x", f"store={store}", "upgrade", "head")

    refused = run_harca("rollback", "last", database=empty_database)
    alembic("downgrade", "base")
    too_early = run_alembic("-n", "data", "downgrade", "base", database=empty_database)
    alembic("upgrade", "head")
    alembic("-n", "data", "downgrade", "base")

    assert refused.code == 4
    assert "which is applied" in refused.err
    assert "alembic -n data downgrade" in refused.err
    assert too_early.code != 0
    assert "the schema is at revision none" in too_early.err
    assert query(empty_database, "SELECT count(*) FROM vector_embeddings") == [(0,)]


def test_rows_written_and_deleted_while_downgraded_stay_so(alembic, empty_database):
    alembic("upgrade", "head")
    with empty_database.connect() as conn:
        conn.execute(
            "INSERT INTO vector_embeddings (content, embedding, metadata, model_id, store, "
            "store_key) SELECT 'row ' || n, array_fill(0.1, ARRAY[1536])::real[]::vector, '{}', "
            "'m', 's', n::text FROM generate_series(1, 3) n"
        )

    alembic("downgrade", REVISIONS[0])
    with empty_database.connect() as conn:
        conn.execute("DELETE FROM vector_embeddings WHERE content = 'row 2'")
    insert(empty_database, "new", 1536)
    alembic("upgrade", "head")

    found = query(
        empty_database, "SELECT content, store, store_key FROM vector_embeddings ORDER BY id"
    )
    assert found == [("row 1", "s", "1"), ("row 3", "s", "3"), ("new", None, None)]


def test_an_empty_schema_leaves_nothing_behind(alembic, empty_database):
    alembic("upgrade", "head")
    alembic("downgrade", "base")

    tables = query(
        empty_database,
        "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE relkind IN ('r', 'S', 'v') AND nspname NOT IN ('pg_catalog', 'information_schema', "
        "'pg_toast')",
    )
    functions = query(empty_database, "SELECT to_regproc('vector_embeddings_touch')")

    assert tables == [("alembic_version",)]
    assert functions == [(None,)]


def test_the_offline_script_has_the_same_tables(alembic, empty_database, run_alembic):
    script = run_alembic("upgrade", "head", "--sql")
    assert script.code == 0, script.err
    with empty_database.connect() as conn:
        conn.execute(script.out)

    assert "VECTOR(1536)" in script.out
    alembic("check")  # whose exit code tells


def test_a_change_moves_updated_at_unless_it_sets_it(alembic, empty_database):
    alembic("upgrade", "head")
    insert(empty_database, "row", 3)
    with empty_database.connect() as conn:
        conn.execute("UPDATE vector_embeddings SET updated_at = '2001-01-01Z'")
        given = conn.execute("SELECT updated_at < '2002-01-01Z' FROM vector_embeddings").fetchone()
        conn.execute("UPDATE vector_embeddings SET content = 'changed'")
        moved = conn.execute("SELECT updated_at > '2002-01-01Z' FROM vector_embeddings").fetchone()

    assert (given, moved) == ((True,), (True,))


def test_a_locked_table_makes_an_upgrade_give_up_soon(alembic, empty_database, run_alembic):
    alembic("upgrade", REVISIONS[0])
    with empty_database.connect(autocommit=False) as conn:
        conn.execute("LOCK TABLE vector_embeddings IN ACCESS SHARE MODE")

        done = run_alembic("upgrade", "head", database=empty_database)

    assert done.code != 0
    assert "lock" in done.err
    assert migrations.current(empty_database) == REVISIONS[0]


def test_data_revisions_refuse_an_older_schema(alembic, empty_database, run_alembic, tmp_path):
    from tests.stores import write_store

    store = write_store(tmp_path / "store", 3)
    alembic("upgrade", REVISIONS[2])

    done = run_alembic(
        "-n", "data", "-x", f"store={store}", "upgrade", "head", database=empty_database
    )

    assert done.code != 0
    assert f"the schema is at revision {REVISIONS[2]}, this needs {REVISIONS[4]}" in done.err
    assert "alembic upgrade head" in done.err
    assert migrations.current(empty_database, migrations.DATA) is None


def test_data_revisions_refuse_to_run_without_a_store(alembic, empty_database, run_alembic):
    alembic("upgrade", "head")

    done = run_alembic("-n", "data", "upgrade", "head", database=empty_database)

    assert done.code != 0
    assert "no store is named: nothing was loaded, nothing is stamped" in done.err
    assert migrations.current(empty_database, migrations.DATA) is None


def test_data_revisions_have_no_offline_script(run_alembic):
    done = run_alembic("-n", "data", "upgrade", "head", "--sql")

    assert done.code != 0
    assert "data revisions cannot be written as SQL" in done.out


def test_a_data_revision_is_not_stamped_over_rejected_records(
    alembic, empty_database, run_alembic, tmp_path
):
    from tests.stores import record, write_record, write_store

    store = write_store(tmp_path / "store", 5)
    write_record(store / "cache", record("bad", [1.0, None]))
    load = ("-n", "data", "-x", f"store={store}")
    alembic("upgrade", "head")

    refused = run_alembic(*load, "upgrade", "head", database=empty_database)
    stamped = migrations.current(empty_database, migrations.DATA)
    accepted = run_alembic(*load, "-x", "max_rejects=1", "upgrade", "head", database=empty_database)

    assert refused.code != 0
    assert "1 record rejected: 1 non-finite" in refused.err
    assert stamped is None
    assert accepted.code == 0, accepted.err
    assert migrations.current(empty_database, migrations.DATA) is not None
    assert query(empty_database, "SELECT count(*) FROM load_runs") == [(1,)]
    assert query(empty_database, "SELECT count(*) FROM rejections") == [(1,)]


def test_the_password_is_in_no_message(run_alembic):
    done = run_alembic(
        "upgrade",
        "head",
        HARCA_DATABASE_URL="postgresql://harca:canary-8f3a@127.0.0.1:1/nowhere",
    )

    assert done.code != 0
    assert "cannot connect to postgresql://harca@127.0.0.1:1/nowhere" in done.err
    assert not re.search("canary", done.out + done.err)


@pytest.mark.parametrize("name", ["HARCA_DATABASE_URL", "SUPABASE_CONNECTION_STRING"])
def test_alembic_finds_the_database_as_harca_does(name, empty_database, run_alembic, run_harca):
    upgraded = run_alembic("upgrade", "head", **{name: empty_database.conninfo})
    status = run_harca("status", "--json", **{name: empty_database.conninfo})

    assert upgraded.code == 0, upgraded.err
    assert status.json["schema"] == REVISIONS[-1]
    assert status.json["origin"] == name


def test_tables_stand_where_the_search_path_begins(server, empty_database, run_alembic):
    """HARCA's own database has tables, and the extension, in a schema named like the role."""
    with empty_database.connect() as conn:
        conn.execute("CREATE SCHEMA harca")
        conn.execute("CREATE EXTENSION vector SCHEMA harca")
        name = conn.info.dbname
        conn.execute(
            psycopg.sql.SQL("ALTER DATABASE {} SET search_path = harca, public").format(
                psycopg.sql.Identifier(name)
            )
        )

    up = run_alembic("upgrade", "head", database=empty_database)
    down = run_alembic("downgrade", "base", database=empty_database)
    again = run_alembic("upgrade", "head", database=empty_database)

    assert (up.code, down.code, again.code) == (0, 0, 0), up.err + down.err + again.err
    assert query(empty_database, "SELECT to_regclass('harca.vector_embeddings') IS NULL") == [
        (False,)
    ]


@pytest.mark.parametrize("dims", [1536, 1990, 16_000])
def test_embeddings_of_any_size_can_be_stored_in_line(dims, alembic, empty_database):
    alembic("upgrade", "head")

    insert(empty_database, "row", dims)

    assert query(empty_database, "SELECT dims FROM vector_embeddings") == [(dims,)]


def test_texts_stay_beside_an_embedding_that_fills_a_page(alembic, empty_database):
    alembic("upgrade", "head")
    insert(empty_database, "row", 1536)
    out_of_line = (
        "SELECT pg_relation_size(reltoastrelid) FROM pg_class "
        "WHERE oid = 'vector_embeddings'::regclass"
    )

    at_head = query(empty_database, out_of_line)
    alembic("downgrade", "b3f19a6e27d0")
    insert(empty_database, "other", 1536)
    before = query(empty_database, out_of_line)

    assert at_head == [(0,)]
    assert before > [(0,)]
