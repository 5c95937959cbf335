"""HARCA's old tables come over, go on working, and go back, in every shape."""

import json
import threading
import time

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg.conninfo import make_conninfo

from harca import consolidate, migrations
from harca.postgres.connect import database as resolve_database
from tests import legacy
from tests.conftest import SHARED
from tests.legacy import (
    CODE_VECTORS,
    EMBEDDINGS,
    everything,
    insert_code,
    insert_embedding,
    killed_at,
    mirrored,
    schema_dump,
    unit,
)

BEFORE = "d2f84b6a17e5"
REAL_ROWS = SHARED / "harca" / "other" / "temp" / "data_20250318_130857.json"


SHAPES = [
    *[(name, script, None) for name, script in EMBEDDINGS.items()],
    *[(name, None, script) for name, script in CODE_VECTORS.items()],
    ("both", EMBEDDINGS["jsonb and vector"], CODE_VECTORS["imported"]),
]


@pytest.mark.parametrize("schema", ["public", "harca"])
@pytest.mark.parametrize(
    ("embeddings", "code_vectors"),
    [shape[1:] for shape in SHAPES],
    ids=[shape[0] for shape in SHAPES],
)
def test_every_shape_comes_over_works_and_goes_back(
    schema, embeddings, code_vectors, app, alembic, empty_database
):
    options = {"PGOPTIONS": f"-c search_path={schema},public"}
    legacy.create(app, *[one for one in (embeddings, code_vectors) if one], schema=schema)
    tables = []
    if embeddings:
        tables.append(("embeddings", insert_embedding))
    if code_vectors:
        tables.append(("code_vectors", insert_code))
    first = {}
    for name, insert in tables:
        first[name] = [insert(app, f"text {n}", unit(n), n=n) for n in range(5)]
        insert(app, "text 4", unit(4), n=4)  # alike but for the id: a row of its own
    alembic("upgrade", BEFORE, **options)
    dump = schema_dump(empty_database)
    rows = {name: everything(app, name) for name, _ in tables}

    alembic("upgrade", "head", **options)

    for name, insert in tables:
        assert everything(app, name) == rows[name]
        assert len(mirrored(app, f"{schema}.{name}")) == 6
        kind = app.execute(
            "SELECT relkind::text FROM pg_class WHERE oid = to_regclass(%s)", [f"{schema}.{name}"]
        )
        assert kind.fetchone() == ("v",)
        assert app.execute(
            "SELECT count(*) FROM information_schema.tables WHERE table_name = %s "
            "AND table_schema = %s",
            [name, schema],
        ).fetchone() == (1,)
        new = insert(app, "written through the view", unit(7))
        app.execute(f"UPDATE {name} SET content = 'changed' WHERE id = %s", [first[name][0]])
        app.execute(f"DELETE FROM {name} WHERE id = %s", [first[name][1]])
        now = mirrored(app, f"{schema}.{name}")
        assert now[str(new)] == "written through the view"
        assert now[str(first[name][0])] == "changed"
        assert str(first[name][1]) not in now
        assert app.execute(f"SELECT count(*) FROM {name}").fetchone() == (6,)
        rows[name] = everything(app, name)

    alembic("downgrade", BEFORE, **options)

    assert schema_dump(empty_database) == dump
    assert {name: everything(app, name) for name, _ in tables} == rows
    assert app.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (0,)


def test_the_applications_search_answers_as_before(app, alembic):
    legacy.create(app, EMBEDDINGS["jsonb and vector"])
    for n in range(20):
        insert_embedding(app, f"text {n}", unit(n))
    statement = (
        "SELECT id, content, metadata, 1 - (embedding_vector <=> %s::vector) AS similarity "
        "FROM embeddings ORDER BY similarity DESC LIMIT 5"
    )
    before = app.execute(statement, [json.dumps(unit(3))]).fetchall()

    alembic("upgrade", "head")

    assert app.execute(statement, [json.dumps(unit(3))]).fetchall() == before


def test_dates_metadata_and_label_come_over(app, alembic):
    legacy.create(app, EMBEDDINGS["jsonb and vector"])
    key = insert_embedding(app, "text", unit(1), language="ja")
    app.execute(
        "INSERT INTO embeddings (content, embedding) VALUES ('n', %s)", [json.dumps(unit(2))]
    )
    created, updated = app.execute(
        "UPDATE embeddings SET created_at = '2025-03-18 12:00:00.123456+09' WHERE id = %s "
        "RETURNING created_at, updated_at",
        [key],
    ).fetchone()

    alembic("upgrade", "head", HARCA_LEGACY_MODEL="ada")

    found = app.execute(
        "SELECT store_key, model_id, metadata, created_at, updated_at, source, "
        "embedding::real[] = %s::real[] FROM vector_embeddings ORDER BY content",
        [unit(2)],
    ).fetchall()
    assert found[0][1:3] == ("ada", {})
    assert found[0][-1] is True
    assert found[1] == (
        str(key),
        "ada",
        {"language": "ja"},
        created,
        updated,
        "public.embeddings",
        False,
    )


def test_rows_that_cannot_come_are_kept_whole_and_go_back(app, alembic, empty_database, run_harca):
    legacy.create(app, EMBEDDINGS["jsonb and vector"])
    good = insert_embedding(app, "good", unit(1))
    app.execute("ALTER TABLE embeddings DISABLE TRIGGER USER")
    for content, written in (
        ("no vector", None),
        ("json null", "null"),
        ("compressed", '{"data": "x", "_compressed": 1}'),
        ("empty", "[]"),
        ("null inside", "[1, null]"),
        ("texts", '["a"]'),
        ("huge", "[1e999]"),
        ("too many", json.dumps([0.5] * 16_001)),
    ):
        app.execute(
            "INSERT INTO embeddings (content, embedding) VALUES (%s, %s)", [content, written]
        )
    app.execute(
        "INSERT INTO embeddings (content, embedding, metadata) VALUES ('list', %s, '[1]')",
        [json.dumps(unit(2))],
    )
    app.execute("ALTER TABLE embeddings ENABLE TRIGGER USER")
    rows = everything(app, "embeddings")

    done = alembic("upgrade", "head")

    assert mirrored(app, "public.embeddings") == {str(good): "good"}
    rejected = app.execute(
        "SELECT convert_from(payload, 'UTF8')::jsonb ->> 'content', reason FROM rejections"
    ).fetchall()
    assert dict(rejected) == {
        "no vector": "no-vector",
        "json null": "no-vector",
        "compressed": "not-a-vector",
        "empty": "empty-vector",
        "null inside": "not-a-vector",
        "texts": "not-a-vector",
        "huge": "not-a-vector",
        "too many": "too-many-dims",
        "list": "metadata-not-object",
    }
    assert "3 not-a-vector" in done.replace("4 not-a-vector", "3 not-a-vector")
    run = app.execute("SELECT read, loaded, unchanged, rejected, status FROM load_runs").fetchone()
    assert run == (10, 1, 0, 9, "verified")
    assert run_harca("verify", database=empty_database).code == 0
    # One of them gets its vector later.
    app.execute(
        "UPDATE embeddings SET embedding = %s WHERE content = 'no vector'", [json.dumps(unit(4))]
    )
    assert len(mirrored(app, "public.embeddings")) == 2
    app.execute(
        "UPDATE embeddings SET embedding = NULL, embedding_vector = NULL WHERE content = 'good'"
    )
    assert list(mirrored(app, "public.embeddings").values()) == ["no vector"]
    assert app.execute("SELECT count(*) FROM embeddings").fetchone() == (10,)
    alembic("downgrade", BEFORE)
    assert len(everything(app, "embeddings")) == len(rows)


def test_a_jsonb_that_says_otherwise_is_kept(app, alembic):
    legacy.create(app, EMBEDDINGS["jsonb and vector"])
    insert_embedding(app, "text", unit(1))
    app.execute("ALTER TABLE embeddings DISABLE TRIGGER USER")
    app.execute("UPDATE embeddings SET embedding = '[1, 2, 3]'")

    done = alembic("upgrade", "head")

    assert "1 jsonb-differs" in done
    assert app.execute("SELECT vector_dims(embedding) FROM vector_embeddings").fetchone() == (1536,)
    kept = app.execute(
        "SELECT reason, convert_from(payload, 'UTF8')::jsonb FROM rejections"
    ).fetchone()
    assert kept[0] == "jsonb-differs"
    assert kept[1]["embedding"] == [1, 2, 3]


def test_an_id_that_is_there_twice_comes_over_once(app, alembic, empty_database, run_harca):
    legacy.create(app, CODE_VECTORS["imported"])
    key = insert_code(app, "older", unit(1))
    app.execute(
        "INSERT INTO code_vectors (id, content, embedding) "
        "SELECT id, 'newer', embedding FROM code_vectors"
    )
    rows = everything(app, "code_vectors")

    alembic("upgrade", "head")

    assert mirrored(app, "public.code_vectors") == {str(key): "newer"}
    assert app.execute("SELECT reason FROM rejections").fetchall() == [("duplicate-key",)]
    assert run_harca("verify", database=empty_database).code == 0
    app.execute("DELETE FROM code_vectors WHERE content = 'newer'")
    assert mirrored(app, "public.code_vectors") == {str(key): "older"}
    app.execute(
        "INSERT INTO code_vectors (id, content, embedding) "
        "SELECT id, 'newer', embedding FROM code_vectors"
    )
    alembic("downgrade", BEFORE)
    assert len(everything(app, "code_vectors")) == len(rows)


def test_the_five_real_rows_come_over_and_go_back(
    app, alembic, empty_database, run_harca, tmp_path
):
    if not REAL_ROWS.exists():
        pytest.skip("the export of HARCA's real rows is not here")
    rows = json.loads(REAL_ROWS.read_text())["code_vectors"]
    legacy.create(app, CODE_VECTORS["imported"])
    for row in rows:
        app.execute(
            "INSERT INTO code_vectors VALUES (%s, %s, %s, %s, %s)",
            [
                row["id"],
                row["content"],
                row["embedding"],
                json.dumps(row["metadata"]),
                row["created_at"],
            ],
        )
    before = everything(app, "code_vectors")

    alembic("upgrade", "head")

    found = app.execute(
        "SELECT store_key, content, embedding, metadata, created_at FROM vector_embeddings"
    ).fetchall()
    assert {str(row[0]) for row in found} == {row["id"] for row in rows}
    for row in rows:
        same = app.execute(
            "SELECT vector_send(embedding) = vector_send(%s::vector) FROM vector_embeddings "
            "WHERE store_key = %s",
            [row["embedding"], row["id"]],
        )
        assert same.fetchone() == (True,)
    nearest = app.execute(
        "SELECT id, similarity FROM match_documents(%s::vector, 0.9, 5)", [rows[4]["embedding"]]
    ).fetchall()
    assert {str(row[0]) for row in nearest} == {rows[3]["id"], rows[4]["id"]}
    (tmp_path / "query.json").write_text(rows[4]["embedding"])
    hits = run_harca(
        "search", "--vector", tmp_path / "query.json", "-k", "2", "--json", database=empty_database
    )
    assert {hit["store_key"] for hit in hits.json["results"]} == {rows[3]["id"], rows[4]["id"]}
    alembic("downgrade", BEFORE)
    assert everything(app, "code_vectors") == before


def test_a_writer_loses_nothing_and_meets_no_error(app, alembic, empty_database):
    legacy.create(app, EMBEDDINGS["jsonb and vector"], CODE_VECTORS["imported"])
    app.execute(
        "INSERT INTO embeddings (content, embedding_vector) SELECT 'old ' || n, "
        "array_fill(n::real, ARRAY[1536])::vector FROM generate_series(1, 900) n"
    )
    app.execute(
        "INSERT INTO code_vectors (content, embedding) SELECT 'old ' || n, "
        "ARRAY[random(), random(), random()]::real[]::vector FROM generate_series(1, 3000) n"
    )
    alembic("upgrade", BEFORE)
    expected: dict[str, set[str]] = {"embeddings": set(), "code_vectors": set()}
    errors: list[BaseException] = []
    stop = threading.Event()

    def write(name: str, insert) -> None:
        try:
            with psycopg.connect(empty_database.conninfo, autocommit=True) as conn:
                number = 0
                while not stop.is_set():
                    number += 1
                    kept, gone = (
                        str(insert(conn, f"{what} {number}", unit(number % 50)))
                        for what in ("new", "gone")
                    )
                    conn.execute(f"DELETE FROM {name} WHERE id = %s", [gone])
                    conn.execute(
                        f"UPDATE {name} SET content = content || '!' WHERE content = %s",
                        [f"old {number}"],
                    )
                    conn.execute(f"DELETE FROM {name} WHERE content = %s", [f"old {3001 - number}"])
                    expected[name].add(kept)
        except BaseException as exc:  # shown by the test
            errors.append(exc)

    writers = [
        threading.Thread(target=write, args=("embeddings", insert_embedding)),
        threading.Thread(target=write, args=("code_vectors", insert_code)),
    ]
    for writer in writers:
        writer.start()
    try:
        time.sleep(0.3)
        alembic("upgrade", "head")
        time.sleep(0.3)
        alembic("downgrade", BEFORE)
        time.sleep(0.3)
        alembic("upgrade", "head")
        time.sleep(0.3)
    finally:
        stop.set()
        for writer in writers:
            writer.join()

    assert not errors
    for name, keys in expected.items():
        there = {str(row[0]) for row in app.execute(f"SELECT id FROM {name}")}
        assert len(keys) > 10
        assert keys <= there
        both = app.execute(
            f"SELECT count(*) FROM {name} t JOIN vector_embeddings v ON v.store_key = t.id::text "
            "AND v.content = t.content AND v.store = %s",
            [f"public.{name}"],
        ).fetchone()
        assert both == (len(there),)
        assert len(mirrored(app, f"public.{name}")) == len(there)


@pytest.mark.parametrize(
    "where",
    [
        "legacy_rows.copy",
        "legacy_rows._mend",
        "legacy_rows.repair",
        "legacy_mirror.create_back",
        "legacy_rows.counts",
    ],
)
@pytest.mark.parametrize("after", ["upgrade", "downgrade"])
def test_an_interruption_leaves_the_application_working(where, after, app, alembic, empty_database):
    legacy.create(app, EMBEDDINGS["jsonb and vector"], CODE_VECTORS["imported"])
    for n in range(5):
        insert_embedding(app, f"text {n}", unit(n))
        insert_code(app, f"text {n}", unit(n))
    alembic("upgrade", BEFORE)
    dump = schema_dump(empty_database)
    if where == "legacy_rows._mend":
        with pytest.raises(AssertionError):  # nothing to mend: it is not come to
            killed_at(empty_database, where)
        alembic("downgrade", BEFORE)
    else:
        killed_at(empty_database, where)

    for insert in (insert_embedding, insert_code):
        insert(app, "written after the interruption", unit(9))
    alembic(after, "head" if after == "upgrade" else BEFORE)

    for name in ("embeddings", "code_vectors"):
        assert app.execute(f"SELECT count(*) FROM {name}").fetchone() == (6,)
        assert len(mirrored(app, f"public.{name}")) == (6 if after == "upgrade" else 0)
    alembic("downgrade", BEFORE)
    assert schema_dump(empty_database) == dump


def test_another_role_than_the_owner_is_refused_before_anything(
    app, role, run_alembic, run_harca, empty_database
):
    legacy.create(app, EMBEDDINGS["jsonb and vector"])
    insert_embedding(app, "text", unit(1))
    theirs = resolve_database(make_conninfo(empty_database.conninfo, user=role, password="p"))
    dump = schema_dump(empty_database)

    refused = run_alembic("upgrade", "head", database=theirs)

    assert refused.code != 0
    assert "public.embeddings belongs to" in refused.err
    assert "hint" in refused.err
    assert schema_dump(empty_database) == dump
    assert migrations.current(empty_database) is None
    ignored = run_alembic("-x", "legacy=ignore", "upgrade", "head", database=theirs)
    assert ignored.code == 0, ignored.err
    assert app.execute("SELECT count(*) FROM embeddings").fetchone() == (1,)


def test_an_owner_who_is_no_superuser_can_go_both_ways(app, role, alembic, empty_database):
    legacy.create(app, EMBEDDINGS["jsonb and vector"], CODE_VECTORS["setup script"])
    for statement in (
        "ALTER TABLE embeddings OWNER TO {}",
        "ALTER TABLE code_vectors OWNER TO {}",
        "ALTER FUNCTION search_embeddings OWNER TO {}",
        "ALTER FUNCTION match_documents OWNER TO {}",
    ):
        app.execute(statement.format(role))
    insert_embedding(app, "text", unit(1))
    theirs = resolve_database(make_conninfo(empty_database.conninfo, user=role, password="p"))
    alembic("upgrade", BEFORE, database=theirs)
    dump = schema_dump(empty_database)

    alembic("upgrade", "head", database=theirs)

    with psycopg.connect(theirs.conninfo, autocommit=True) as conn:
        insert_embedding(conn, "theirs", unit(2))
        found = conn.execute(
            "SELECT content FROM search_embeddings(%s::vector, 1)", [json.dumps(unit(2))]
        )
        assert found.fetchall() == [("theirs",)]
    alembic("downgrade", BEFORE, database=theirs)
    assert schema_dump(empty_database) == dump


OBSTACLES = {
    "rules": (
        "CREATE RULE r AS ON INSERT TO code_vectors WHERE NEW.content = 'x' DO INSTEAD NOTHING",
        "it has rules",
    ),
    "inheritance": ("CREATE TABLE child () INHERITS (code_vectors)", "inherits"),
    "publication": ("CREATE PUBLICATION p FOR TABLE code_vectors", "publication p"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_a_view_could_not_stand_for_is_refused(name, app, run_alembic, empty_database):
    statement, message = OBSTACLES[name]
    legacy.create(app, CODE_VECTORS["setup script"])
    insert_code(app, "text", unit(1))
    app.execute(statement)
    dump = schema_dump(empty_database)

    refused = run_alembic("upgrade", "head", database=empty_database)

    assert refused.code != 0
    assert message in refused.err
    assert schema_dump(empty_database) == dump


def test_tables_of_other_shapes_are_left_alone(app, alembic, empty_database):
    app.execute("CREATE TABLE embeddings (id bigint PRIMARY KEY, document text, embedding real[])")
    app.execute("CREATE VIEW code_vectors AS SELECT gen_random_uuid() AS id, 'x'::text AS content")
    dump = schema_dump(empty_database)

    done = alembic("upgrade", "head")

    assert "public.embeddings is left alone" in done
    assert "public.code_vectors is left alone" in done
    alembic("downgrade", "base")
    left = [line for line in schema_dump(empty_database) if "EXTENSION" not in line]
    assert left == dump


def test_what_depends_on_the_tables_goes_on(app, role, alembic, empty_database):
    legacy.create(app, EMBEDDINGS["jsonb and vector"], CODE_VECTORS["setup script"])
    key = insert_embedding(app, "text", unit(1))
    app.execute(f"""
        CREATE VIEW recent AS SELECT id, content FROM embeddings ORDER BY created_at DESC;
        CREATE TABLE notes (embedding_id uuid REFERENCES embeddings ON DELETE CASCADE);
        GRANT SELECT, INSERT ON embeddings TO {role} WITH GRANT OPTION;
        GRANT UPDATE (content) ON embeddings TO PUBLIC;
        REVOKE ALL ON code_vectors FROM PUBLIC;
        ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
    """)
    app.execute("INSERT INTO notes VALUES (%s)", [key])
    alembic("upgrade", BEFORE)
    dump = schema_dump(empty_database)

    done = alembic("upgrade", "head")

    assert "view recent" in done
    assert "foreign key notes_embedding_id_fkey of notes" in done
    assert app.execute("SELECT content FROM recent").fetchall() == [("text",)]
    with psycopg.connect(
        make_conninfo(empty_database.conninfo, user=role, password="p"), autocommit=True
    ) as conn:
        new = insert_embedding(conn, "granted", unit(2))
        conn.execute("UPDATE embeddings SET content = 'granted too' WHERE id = %s", [new])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("DELETE FROM embeddings")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT * FROM code_vectors")
        found = conn.execute(
            "SELECT content FROM search_embeddings(%s::vector, 1)", [json.dumps(unit(2))]
        )
        assert found.fetchall() == [("granted too",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT * FROM match_documents(%s::vector, 0, 1)", [json.dumps(unit(2))])
    app.execute("DELETE FROM embeddings WHERE id = %s", [key])
    assert app.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        app.execute("INSERT INTO notes VALUES (gen_random_uuid())")
    alembic("downgrade", BEFORE)
    assert schema_dump(empty_database) == dump


def test_policies_hold_through_the_view(app, role, alembic, empty_database):
    legacy.create(app, CODE_VECTORS["setup script"])
    for n in range(3):
        insert_code(app, f"text {n}", unit(n), n=n)
    app.execute(f"""
        ALTER TABLE code_vectors ENABLE ROW LEVEL SECURITY;
        CREATE POLICY one ON code_vectors USING (metadata @> '{{"n": 1}}');
        GRANT SELECT ON code_vectors TO {role};
    """)

    alembic("upgrade", "head")

    with psycopg.connect(make_conninfo(empty_database.conninfo, user=role, password="p")) as conn:
        assert conn.execute("SELECT content FROM code_vectors").fetchall() == [("text 1",)]
        found = conn.execute(
            "SELECT content FROM match_documents(%s::vector, -1, 9)", [json.dumps(unit(0))]
        )
        assert found.fetchall() == [("text 1",)]


def test_the_extension_may_be_where_the_role_does_not_look(app, alembic, empty_database):
    legacy.create(app, EMBEDDINGS["jsonb and vector"], CODE_VECTORS["imported"], schema="harca")
    insert_embedding(app, "text", unit(1))
    insert_code(app, "text", unit(1))

    alembic("upgrade", "head")  # the role's search path has neither the tables nor the type

    assert len(mirrored_in(app, "public", "harca.embeddings")) == 1
    insert_embedding(app, "new", unit(2))
    assert len(mirrored_in(app, "public", "harca.embeddings")) == 2
    found = app.execute(
        "SELECT content FROM search_embeddings(%s::vector, 1)", [json.dumps(unit(2))]
    )
    assert found.fetchall() == [("new",)]
    alembic("downgrade", "base")
    assert app.execute("SELECT count(*) FROM embeddings").fetchone() == (2,)


def mirrored_in(conn, schema: str, store: str):
    return conn.execute(
        f"SELECT store_key FROM {schema}.vector_embeddings WHERE store = %s", [store]
    ).fetchall()


def test_one_name_in_two_schemas_is_two_stores(app, alembic):
    legacy.create(app, CODE_VECTORS["setup script"], schema="public")
    insert_code(app, "public", unit(1))
    legacy.create(app, CODE_VECTORS["imported"], schema="harca")
    insert_code(app, "harca", unit(1))

    alembic("upgrade", "head")

    assert list(mirrored(app, "public.code_vectors").values()) == ["public"]
    assert list(mirrored(app, "harca.code_vectors").values()) == ["harca"]
    assert app.execute(
        "SELECT to_regclass('legacy.code_vectors') IS NOT NULL, "
        "to_regclass('legacy_public.code_vectors') IS NOT NULL"
    ).fetchone() == (True, True)
    alembic("downgrade", BEFORE)
    assert app.execute("SELECT content FROM public.code_vectors").fetchall() == [("public",)]
    assert app.execute("SELECT content FROM harca.code_vectors").fetchall() == [("harca",)]


def test_changes_in_the_new_table_go_back_into_the_old(app, alembic):
    legacy.create(app, EMBEDDINGS["jsonb and vector"], CODE_VECTORS["imported"])
    keys = [insert_embedding(app, f"text {n}", unit(n)) for n in range(3)]
    insert_code(app, "text", unit(1))
    alembic("upgrade", "head")
    before = everything(app, "embeddings")

    app.execute("UPDATE vector_embeddings SET model_id = 'ada'")
    assert everything(app, "embeddings") == before
    app.execute(
        "UPDATE vector_embeddings SET content = 'new', metadata = '{\"a\": 1}', embedding = %s "
        "WHERE store_key = %s",
        [json.dumps(unit(9)), str(keys[0])],
    )
    app.execute("DELETE FROM vector_embeddings WHERE store_key = %s", [str(keys[1])])

    changed = app.execute(
        "SELECT content, metadata, embedding::text::vector = %s::vector, "
        "embedding_vector = %s::vector "
        "FROM embeddings WHERE id = %s",
        [json.dumps(unit(9)), json.dumps(unit(9)), keys[0]],
    ).fetchone()
    assert changed == ("new", {"a": 1}, True, True)
    assert app.execute("SELECT count(*) FROM embeddings").fetchone() == (2,)
    assert len(mirrored(app, "public.embeddings")) == 2


def test_the_search_functions_are_right_and_use_the_index(app, alembic):
    legacy.create(app, EMBEDDINGS["jsonb and vector"], CODE_VECTORS["imported"])
    app.execute("SELECT setseed(0.5)")
    for table, column in (("embeddings", "embedding_vector"), ("code_vectors", "embedding")):
        app.execute(
            f"INSERT INTO {table} (content, {column}, metadata) SELECT 'text ' || n, "
            "(SELECT array_agg(random() - 0.5) "
            "FROM generate_series(1, 1536 + n * 0))::real[]::vector, "
            "jsonb_build_object('n', n, 'few', n % 400) FROM generate_series(1, 1200) n"
        )
    app.execute("INSERT INTO embeddings (content) VALUES ('no vector')")
    app.execute(
        "INSERT INTO embeddings (content, embedding_vector) "
        "VALUES ('zero', array_fill(0::real, ARRAY[1536])::vector)"
    )
    query = app.execute(
        "SELECT embedding_vector::text FROM embeddings WHERE content = 'text 7'"
    ).fetchone()[0]
    exact = (
        "SELECT content, 1 - ({0} <=> %s::vector) FROM {1} WHERE {0} <> array_fill(0::real, "
        "ARRAY[1536])::vector {2} ORDER BY {0} <=> %s::vector LIMIT 5"
    )

    alembic("upgrade", "head")

    def scans() -> int:
        app.execute("SELECT pg_stat_force_next_flush()")
        (found,) = app.execute(
            "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname LIKE "
            "'vector_embeddings_ann_%'"
        ).fetchone()
        return int(found)

    before = scans()
    found = app.execute(
        "SELECT content, similarity FROM search_embeddings(%s::vector, 5)", [query]
    ).fetchall()
    assert scans() > before
    truth = app.execute(
        exact.format("embedding_vector", "embeddings", ""), [query, query]
    ).fetchall()
    assert found[0][0] == "text 7"
    assert len({row[0] for row in found} & {row[0] for row in truth}) >= 4
    assert found == sorted(found, key=lambda row: -row[1])

    filtered = app.execute(
        "SELECT content FROM search_embeddings(%s::vector, 5, '{\"few\": 3}')", [query]
    ).fetchall()
    assert {row[0] for row in filtered} == {"text 3", "text 403", "text 803"}
    everything_found = app.execute(
        "SELECT content FROM search_embeddings(%s::vector, 5000)", [query]
    ).fetchall()
    assert len(everything_found) == 1201
    assert everything_found[-1] == ("zero",)
    default = app.execute("SELECT count(*) FROM search_embeddings(%s::vector)", [query]).fetchone()
    assert default == (10,)

    matched = app.execute(
        "SELECT content, similarity FROM match_documents(%s::vector, 0.05, 5)", [query]
    ).fetchall()
    assert all(similarity > 0.05 for _, similarity in matched)
    truth = app.execute(exact.format("embedding", "code_vectors", ""), [query, query]).fetchall()
    assert len({row[0] for row in matched} & {row[0] for row in truth}) >= len(matched) - 1


def test_verify_and_rollback_know_the_tables(app, alembic, empty_database, run_harca):
    legacy.create(app, CODE_VECTORS["imported"])
    key = insert_code(app, "text", unit(1))
    alembic("upgrade", "head")

    refused = run_harca("rollback", "last", database=empty_database)
    good = run_harca("verify", database=empty_database)
    app.execute("ALTER TABLE legacy.code_vectors DISABLE TRIGGER ALL")
    app.execute("UPDATE code_vectors SET content = 'unseen'")
    bad = run_harca("verify", "--json", database=empty_database)

    assert refused.code == 4
    assert f"`alembic downgrade {migrations.BEFORE_TABLES}`" in refused.err
    script = ScriptDirectory.from_config(migrations.config(migrations.SCHEMA))
    assert script.get_revision(consolidate.REVISION).down_revision == migrations.BEFORE_TABLES
    assert good.code == 0, good.out
    assert bad.code == 3
    assert bad.json["mismatches"][0]["store_key"] == str(key)
    assert bad.json["mismatches"][0]["difference"] == "content"


def test_migrate_brings_the_tables_over_too(app, tmp_path, empty_database, run_harca):
    from tests.stores import write_store

    legacy.create(app, CODE_VECTORS["imported"])
    insert_code(app, "text", unit(1))

    done = run_harca("migrate", write_store(tmp_path / "store", 5), database=empty_database)

    assert done.code == 0, done.err
    assert "public.code_vectors: 1 row of 1" in done.err
    assert app.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (6,)


def test_offline_the_statements_are_printed(run_alembic, empty_database):
    done = run_alembic("upgrade", "head", "--sql", database=empty_database)

    assert done.code == 0
    assert "CREATE FUNCTION vector_of_json" in done.out


def test_a_view_that_something_was_built_on_is_refused_on_the_way_back(
    app, alembic, run_alembic, empty_database
):
    legacy.create(app, CODE_VECTORS["imported"])
    insert_code(app, "text", unit(1))
    alembic("upgrade", "head")
    app.execute("CREATE VIEW report AS SELECT content FROM code_vectors")

    refused = run_alembic("downgrade", BEFORE, database=empty_database)

    assert refused.code != 0
    assert "other objects depend on it" in refused.err
    assert app.execute("SELECT content FROM report").fetchall() == [("text",)]
    insert_code(app, "goes on", unit(2))
    assert len(mirrored(app, "public.code_vectors")) == 2
