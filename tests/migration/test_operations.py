"""harca's operations on Alembic's `op`, in environments that know nothing of harca."""

from pathlib import Path

import alembic.command
import psycopg
import pytest
from alembic.config import Config
from alembic.util import CommandError

from harca.model import Space
from harca.operations import CreateVectorIndex, DropVectorIndex, LoadStore, UnloadStore
from harca.postgres import indexes, space_index, space_settings
from harca.postgres.search import search
from harca.postgres.space_settings import Effort, SpaceSettings

# The operations are DDL of pgvector, which servers differ in by its version alone.
pytestmark = pytest.mark.one_server


LABELS = [
    "plain",
    "it's 100%",
    'say "hi"',
    "a:b :c ::d",
    "back\\slash",
    "tab\tand\nline",
    "全角（）",
]


@pytest.fixture
def foreign(tmp_path, database):
    """Return what runs a revision's body up, down, or as SQL, in a project without harca."""
    home = tmp_path / "project"
    versions = home / "versions"
    versions.mkdir(parents=True)
    (home / "env.py").write_text(
        "from alembic import context\n"
        "connection = context.config.attributes.get('connection')\n"
        "if context.is_offline_mode():\n"
        "    context.configure(dialect_name='postgresql', version_table='foreign_version')\n"
        "    with context.begin_transaction():\n"
        "        context.run_migrations()\n"
        "else:\n"
        "    context.configure(connection=connection, version_table='foreign_version')\n"
        "    with context.begin_transaction():\n"
        "        context.run_migrations()\n"
    )
    config = Config()
    config.set_main_option("script_location", str(home))
    config.set_main_option("path_separator", "os")

    class Project:
        def write(self, up: str, down: str = "pass") -> None:
            (versions / "r.py").write_text(
                "from alembic import op\nrevision = 'r'\ndown_revision = None\n"
                f"def upgrade():\n    {up}\ndef downgrade():\n    {down}\n"
            )

        def run(self, command: str, revision: str) -> None:
            with database.engine().connect() as connection:
                config.attributes["connection"] = connection
                getattr(alembic.command, command)(config, revision)

        def script(self, capsys: pytest.CaptureFixture[str]) -> str:
            capsys.readouterr()
            alembic.command.upgrade(config, "head", sql=True)
            return capsys.readouterr().out

    return Project()


def fill(conn, model: str, rows: int = 40, dims: int = 4) -> None:
    conn.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
        "SELECT n::text, (SELECT array_agg(sin(n * i)) FROM generate_series(1, %s) i)"
        "::real[]::vector, '{}', %s FROM generate_series(1, %s) n",
        [dims, model, rows],
    )


def definition(conn, model: str, dims: int = 4) -> str | None:
    found = conn.execute(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = indexrelid "
        "WHERE indisvalid AND relname = %s",
        [space_index.index_name(Space(model, dims, 0))],
    ).fetchone()
    return found[0] if found else None


def answered_by(conn, model: str, dims: int = 4) -> str:
    import numpy as np

    space = next(one for one in space_index.spaces(conn) if one.model_id == model)
    found = search(conn, np.ones(dims, dtype=np.float32), space, k=5)
    assert len(found.hits) == 5
    return found.answered_by


@pytest.mark.parametrize("model", LABELS)
@pytest.mark.parametrize("method", ["hnsw", "ivfflat"])
def test_search_uses_the_index_until_it_is_dropped(method, model, foreign, conn):
    fill(conn, model)
    foreign.write(
        f"op.create_vector_index({model!r}, 4, method={method!r})",
        f"op.drop_vector_index({model!r}, 4)",
    )

    foreign.run("upgrade", "head")
    with_index = answered_by(conn, model)
    made = definition(conn, model)
    foreign.run("downgrade", "base")

    assert with_index == space_index.index_name(Space(model, 4, 0))
    assert made is not None
    assert f"USING {method}" in made
    assert answered_by(conn, model) == "exact"


def test_the_index_is_as_harca_builds_its_own(foreign, conn):
    fill(conn, "m", rows=1000)
    indexes.build(conn)
    own = definition(conn, "m")
    indexes.drop(conn, space_index.index_name(Space("m", 4, 0)))
    foreign.write("op.create_vector_index('m', 4)")

    foreign.run("upgrade", "head")

    assert definition(conn, "m") == own is not None


def test_an_ivfflat_index_finds_all_that_an_exact_search_finds(foreign, conn):
    import numpy as np

    fill(conn, "m", rows=2000, dims=8)
    space = Space("m", 8, 2000)
    query = np.ones(8, dtype=np.float32)
    exact = search(conn, query, space, k=10)
    foreign.write("op.create_vector_index('m', 8, method='ivfflat', lists=4)")

    foreign.run("upgrade", "head")
    found = search(conn, query, space, k=10)

    assert found.answered_by != "exact"
    same = {hit.id for hit in exact.hits} & {hit.id for hit in found.hits}
    assert len(same) >= 8


def test_harca_leaves_it_alone(foreign, conn):
    fill(conn, "m")
    foreign.write("op.create_vector_index('m', 4)")
    foreign.run("upgrade", "head")

    indexes.build(conn)  # which drops its own from spaces this small

    assert definition(conn, "m") is not None


def test_an_invalid_leftover_is_built_again(foreign, conn):
    fill(conn, "m")
    name = space_index.index_name(Space("m", 4, 0))
    with pytest.raises(psycopg.Error):
        conn.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON vector_embeddings (model_id)")
    left = indexes.existing(conn)[name]
    foreign.write("op.create_vector_index('m', 4)")

    foreign.run("upgrade", "head")

    assert left is False
    assert indexes.existing(conn)[name] is True
    assert answered_by(conn, "m") == name


def test_a_valid_index_is_kept_if_it_is_as_wanted_and_replaced_if_not(foreign, conn):
    fill(conn, "m")
    oids = []
    for call in ("m=8", "m=8", "m=16", "method='ivfflat'", "method='ivfflat'"):
        foreign.write(f"op.create_vector_index('m', 4, {call})")
        foreign.run("upgrade", "head")
        conn.execute("DELETE FROM foreign_version")
        (oid,) = conn.execute(
            "SELECT %s::regclass::oid", [space_index.index_name(Space("m", 4, 0))]
        ).fetchone()
        oids.append(oid)

    assert oids[0] == oids[1] != oids[2] != oids[3] == oids[4]


def test_large_embeddings_are_indexed_in_half_precision(foreign, conn):
    fill(conn, "m", dims=2001)
    foreign.write("op.create_vector_index('m', 2001)")

    foreign.run("upgrade", "head")

    assert "::halfvec(2001)" in (definition(conn, "m", 2001) or "")
    assert answered_by(conn, "m", 2001) != "exact"


ALL = "method='hnsw', type='halfvec', m=8, ef_construction=40, ef_search=80, candidates=30, k=10"


def test_settings_are_kept_with_the_space_and_taken_back(foreign, conn):
    fill(conn, "m")
    space = Space("m", 4, 40)
    space_settings.keep(conn, space, embedder="local:x")
    foreign.write(f"op.create_vector_index('m', 4, {ALL})", "op.drop_vector_index('m', 4)")

    foreign.run("upgrade", "head")
    up = space_settings.settings_of(conn, space)
    made = definition(conn, "m") or ""
    foreign.run("downgrade", "base")
    down = space_settings.settings_of(conn, space)

    assert up == SpaceSettings(
        "hnsw",
        "halfvec",
        {"m": 8, "ef_construction": 40},
        Effort(ef_search=80, candidates=30, k=10),
        "local:x",
    )
    assert "halfvec(4)" in made
    assert down == SpaceSettings(embedder="local:x")
    assert definition(conn, "m") is None


def test_signs_are_indexed_and_the_nearest_compared(foreign, conn):
    fill(conn, "m", rows=300, dims=16)
    foreign.write("op.create_vector_index('m', 16, type='bit', candidates=100)")

    foreign.run("upgrade", "head")

    assert "bit_hamming_ops" in (definition(conn, "m", 16) or "")
    assert answered_by(conn, "m", 16) == space_index.index_name(Space("m", 16, 0))


def test_a_schema_without_settings_gets_the_index_alone(foreign, conn):
    fill(conn, "m")
    conn.execute("DROP TABLE space_settings")
    foreign.write("op.create_vector_index('m', 4)", "op.drop_vector_index('m', 4)")

    foreign.run("upgrade", "head")
    made = definition(conn, "m")
    foreign.run("downgrade", "base")

    assert made is not None
    assert definition(conn, "m") is None


@pytest.mark.parametrize("model", ["it's 100%", "back\\slash"])
def test_the_offline_script_keeps_the_settings_and_takes_them_back(model, foreign, conn, capsys):
    fill(conn, model)
    space = Space(model, 4, 40)
    kept = []
    for call in (
        f"op.create_vector_index({model!r}, 4, {ALL})",
        f"op.drop_vector_index({model!r}, 4)",
    ):
        foreign.write(f"{call}; op.execute('SELECT 1')")
        for statement in foreign.script(capsys).split(";\n"):
            if statement.strip() and "foreign_version" not in statement:
                conn.execute(statement)
        kept.append(space_settings.settings_of(conn, space))

    assert kept[0].effort == Effort(ef_search=80, candidates=30, k=10)
    assert kept[0].parameters == {"m": 8, "ef_construction": 40}
    assert kept[1] == SpaceSettings()


def test_what_the_session_had_set_is_set_again(foreign, conn):
    foreign.write(
        "op.execute(\"SET lock_timeout = '7s'\"); op.create_vector_index('m', 4); "
        "op.execute(\"CREATE TABLE noted AS SELECT current_setting('lock_timeout') AS lock\")"
    )

    foreign.run("upgrade", "head")

    assert conn.execute("SELECT lock FROM noted").fetchall() == [("7s",)]


@pytest.mark.parametrize("model", LABELS)
def test_the_offline_script_makes_the_same_index(model, foreign, conn, capsys):
    fill(conn, model)
    foreign.write(f"op.create_vector_index({model!r}, 4); op.execute('SELECT 1')")
    script = foreign.script(capsys)

    # As psql runs it: each statement by itself.
    for statement in script.split(";\n"):
        if statement.strip():
            conn.execute(statement)

    assert answered_by(conn, model) == space_index.index_name(Space(model, 4, 0))


def test_the_offline_script_drops_it(foreign, capsys):
    foreign.write("op.drop_vector_index('m', 4)")

    script = foreign.script(capsys)

    assert (
        f'DROP INDEX CONCURRENTLY IF EXISTS "{space_index.index_name(Space("m", 4, 0))}"' in script
    )
    assert script.index("COMMIT;") < script.index("DROP INDEX") < script.rindex("BEGIN;")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("op.create_vector_index('m', 4, method='flat')", 'method is "flat", expected hnsw or ivf'),
        ("op.create_vector_index('m', 4, lists=3)", 'an hnsw index has no parameter "lists"'),
        ("op.create_vector_index('m', 16001)", "an index takes 16,000 dimensions, not 16,001"),
        (
            "op.create_vector_index('m', 4001, type='halfvec')",
            "an index on halfvec takes 4,000 dimensions, not 4,001",
        ),
        ("op.create_vector_index('m', 4, type='x')", 'type is "x", expected vector or halfvec or'),
        ("op.load_store('s', revision='r')", "load_store runs in harca's data environment only"),
        ("op.unload_store(revision='r')", "unload_store runs in harca's data environment only"),
        ("op.create_vector_index('m', 4, m=1000)", 'value 1000 out of bounds for option "m"'),
    ],
    ids=[
        "method",
        "parameter",
        "dimensions",
        "of a type",
        "type",
        "load",
        "unload",
        "the server's",
    ],
)
def test_what_cannot_be_done_is_said(call, message, foreign):
    foreign.write(call)

    with pytest.raises(CommandError, match=message):
        foreign.run("upgrade", "head")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("op.load_store('s', revision='r')", "load_store cannot be written as SQL"),
        ("op.unload_store(revision='r')", "unload_store cannot be written as SQL"),
        ("op.create_vector_index('m', 4, method='ivfflat')", "lists must be given"),
    ],
    ids=["load", "unload", "lists"],
)
def test_what_cannot_be_written_as_sql_is_said(call, message, foreign, capsys):
    foreign.write(call)

    with pytest.raises(CommandError, match=message):
        foreign.script(capsys)


def test_another_driver_is_refused(foreign, conn, monkeypatch):
    foreign.write("op.create_vector_index('m', 4)")
    monkeypatch.setattr(psycopg, "Connection", type("Other", (), {}))

    with pytest.raises(CommandError, match="the driver is psycopg, expected psycopg"):
        foreign.run("upgrade", "head")


def test_each_operation_has_its_inverse():
    load = LoadStore("/s", "r", "x", {"records": 1}, {"name": "n"})
    create = CreateVectorIndex("m", 4, "ivfflat", "halfvec", lists=3, probes=2, m=None)

    assert isinstance(load.reverse(), UnloadStore)
    assert load.reverse().reverse() is load
    dropped = create.reverse()
    assert isinstance(dropped, DropVectorIndex)
    again = dropped.reverse()
    assert isinstance(again, CreateVectorIndex)
    assert vars(again) == vars(create)
    with pytest.raises(ValueError, match="which store revision r loads is not known"):
        UnloadStore("r").reverse()


def test_a_file_of_the_checkout_s_own_environment_can_use_them(
    project, run_alembic, database, conn
):
    versions = Path(project) / "alembic" / "versions"
    (versions / "x.py").write_text(
        "from alembic import op\nrevision = 'x'\ndown_revision = 'e81d5c3a97f4'\n"
        "def upgrade():\n    op.create_vector_index('m', 4)\n"
        "def downgrade():\n    op.drop_vector_index('m', 4)\n"
    )
    fill(conn, "m")
    ini = str(project / "alembic.ini")

    up = run_alembic("-c", ini, "upgrade", "head", database=database)
    with_index = answered_by(conn, "m")
    down = run_alembic("-c", ini, "downgrade", "-1", database=database)

    assert (up.code, down.code) == (0, 0), up.err + down.err
    assert with_index != "exact"
    assert answered_by(conn, "m") == "exact"
