"""Planned data revisions: written for review, applied if the store is as it was planned."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harca import migrations
from harca.apply import FIRST
from harca.migrations import DATA
from harca.postgres.connect import Database
from tests.conftest import ROOT
from tests.stores import record, write_record, write_store

pytestmark = pytest.mark.one_server

HOSTILE = '"""; raise SystemExit(3)\n\\" ${x} %(here)s \x1b é「（』'


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store", 12)


@pytest.fixture
def plan(project, run_harca):
    """Plan a store; return what ``--json`` says. No database answers."""
    nowhere = Database("host=127.0.0.1 port=1", "test")

    def go(store: Path, *options: str, message: str = "load it"):
        done = run_harca("plan", store, "-m", message, "--json", *options, database=nowhere)
        assert done.code == 0, done.err
        return done.json

    return go


@pytest.fixture
def load(project, run_harca, database):
    """Run harca load on the test's database, whose schema is at head."""

    def go(*options, **env):
        return run_harca("load", *options, database=database, **env)

    return go


@pytest.fixture
def alembic(project, run_alembic, database):
    """Run alembic on the data revisions of the test's checkout."""

    def go(*arguments):
        return run_alembic(
            "-c", str(project / "alembic.ini"), "-n", "data", *arguments, database=database
        )

    return go


def contents(conn):
    return conn.execute(
        "SELECT store, store_key, content, embedding::text, metadata, model_id, source "
        "FROM vector_embeddings ORDER BY store, store_key"
    ).fetchall()


def untouched(conn, database):
    """Say whether nothing was loaded, noted or stamped."""
    rows = conn.execute(
        "SELECT (SELECT count(*) FROM vector_embeddings) + (SELECT count(*) FROM load_runs)"
    ).fetchone()
    return rows == (0,) and migrations.current(database, DATA) is None


def test_a_planned_store_is_loaded_as_migrate_loads_it(
    store, plan, load, conn, database, run_harca
):
    planned = plan(store)
    loaded = load("--json")
    verified = run_harca("verify", store, database=database)
    by_plan = contents(conn)
    stamped = migrations.current(database, DATA)

    assert loaded.code == 0, loaded.err
    assert verified.code == 0, verified.out
    passed_over, step = loaded.json["revisions"]
    assert (passed_over["revision"], passed_over["passed_over"], passed_over["run"]) == (
        FIRST, True, None,
    )  # fmt: skip
    assert step["revision"] == planned["revision"] == loaded.json["after"] == stamped
    assert (step["run"]["loaded"], step["run"]["verified"]) == (12, True)
    assert len(by_plan) == 12
    conn.execute("TRUNCATE vector_embeddings")
    run_harca("migrate", store, database=database)
    assert contents(conn) == by_plan


def test_what_was_planned_is_in_the_file(store, plan, project):
    write_record(store / "cache", record("bad", [None]))

    planned = plan(store, "--name", "production", "--max-rejects", "1", "--batch-rows", "5")

    file = Path(planned["file"])
    values = {
        statement.targets[0].id: ast.literal_eval(statement.value)  # type: ignore[attr-defined]
        for statement in ast.parse(file.read_text("utf-8")).body
        if isinstance(statement, ast.Assign)
    }
    assert file.parent == project / "data_migrations" / "versions"
    assert file.name.endswith(f"_{planned['revision']}_load_it.py")
    assert values["down_revision"] == FIRST == planned["down_revision"]
    assert values["store"] == str(store)
    assert values["options"] == {"name": "production", "max_rejects": 1, "batch_rows": 5}
    assert values["pins"] == {
        "format": "harca",
        "records": 12,
        "rejected": {"non-finite": 1},
        "spaces": {"test-model": {8: 12}},
        "fingerprint": planned["fingerprint"],
    }


def test_a_plan_needs_no_database_and_says_what_it_found(store, project, run_harca):
    """Without a database it runs as a process of its own: in this checkout, so elsewhere."""
    done = run_harca(
        "plan", store, "-m", "load it", "--to", project / "elsewhere",
        HARCA_DATABASE_URL="postgresql://127.0.0.1:1/nowhere",
    )  # fmt: skip

    assert done.code == 0, done.err
    assert "format harca" in done.out
    assert "harca load does not look there" in done.out
    assert len(list((project / "elsewhere").glob("*_load_it.py"))) == 1


def test_two_plans_are_two_revisions_in_order(tmp_path, store, plan, load, conn):
    other = write_store(tmp_path / "other", 5, seed=2)
    first = plan(store, message="the first")
    second = plan(other, message="the second")

    listed = load("--dry-run", "--json")
    loaded = load("--json")

    assert second["down_revision"] == first["revision"]
    assert [step["message"] for step in listed.json["revisions"]] == [
        "import the file store", "the first", "the second",
    ]  # fmt: skip
    assert loaded.code == 0, loaded.err
    assert conn.execute("SELECT revision, loaded FROM load_runs ORDER BY run_id").fetchall() == [
        (first["revision"], 12),
        (second["revision"], 5),
    ]


def test_a_dry_run_says_what_would_be_loaded_and_changes_nothing(store, plan, load, conn, database):
    planned = plan(store, "--model", "m")

    as_text = load("--dry-run")
    as_json = load("--dry-run", "--json")

    assert as_text.code == as_json.code == 0, as_text.err
    assert f"{FIRST} import the file store: would be passed over" in as_text.out
    assert "format harca, 12 records, 0 rejected, model m" in as_text.out
    step = as_json.json["revisions"][1]
    assert step["store"] == str(store)
    assert step["options"] == {"model": "m"}
    assert step["pins"]["spaces"] == planned["spaces"]
    assert step["run"] is None
    assert untouched(conn, database)


def test_nothing_pending_is_nothing_to_do(store, plan, load):
    planned = plan(store)
    load()

    again = load()

    assert again.code == 0
    assert f"nothing to load: the data are at {planned['revision']}, the head" in again.out


def _one_more(store: Path) -> None:
    write_record(store / "cache", record("new", [1.0] * 8))


def _one_less(store: Path) -> None:
    next(store.rglob("*.json")).unlink()


def _other_model(store: Path) -> None:
    path = next(path for path in store.rglob("*.json") if path.name != "stats.json")
    value = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**value, "modelName": "other-model"}), "utf-8")


def _other_vector(store: Path) -> None:
    path = next(path for path in store.rglob("*.json") if path.name != "stats.json")
    value = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**value, "embedding": value["embedding"][::-1]}), "utf-8")


def _other_metadata(store: Path) -> None:
    path = next(path for path in store.rglob("*.json") if path.name != "stats.json")
    value = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**value, "added": "later"}), "utf-8")


def _a_bad_record(store: Path) -> None:
    write_record(store / "cache", record("bad", [None] * 8))


def _other_format(store: Path) -> None:
    shutil.rmtree(store)
    write_llamaindex(store, 12)


def _gone(store: Path) -> None:
    shutil.rmtree(store)


def write_llamaindex(folder: Path, records: int) -> Path:
    folder.mkdir(parents=True)
    vectors = {f"n{number}": [float(number), 1.0] for number in range(records)}
    nodes = {key: {"__data__": {"text": f"text {key}"}, "__type__": "1"} for key in vectors}
    (folder / "default__vector_store.json").write_text(json.dumps({"embedding_dict": vectors}))
    (folder / "docstore.json").write_text(json.dumps({"docstore/data": nodes}))
    return folder


DRIFTS = {
    "a record more": (_one_more, "records 12 -> 13, space test-model/8 12 -> 13"),
    "a record less": (_one_less, "records 12 -> 11, space test-model/8 12 -> 11"),
    "another model": (_other_model, "space other-model/8 0 -> 1, space test-model/8 12 -> 11"),
    "another vector": (_other_vector, "contents, with equal counts: fingerprint 12:"),
    "another metadata": (_other_metadata, "contents, with equal counts: fingerprint 12:"),
    "a bad record": (_a_bad_record, "rejected as non-finite 0 -> 1"),
    "another format": (_other_format, "format harca -> llamaindex"),
    "gone": (_gone, 'no store at "'),
}


@pytest.mark.parametrize("kind", DRIFTS)
def test_a_store_that_has_changed_is_refused_and_nothing_is_written(
    kind, store, plan, load, conn, database
):
    change, expected = DRIFTS[kind]
    planned = plan(store)
    change(store)

    refused = load("--json")

    assert refused.code == 4, refused.err
    assert refused.json["error"].startswith(
        f'"{store}" has changed since revision {planned["revision"]} was planned: {expected}'
    )
    assert planned["revision"] in refused.json["hint"] or "--allow-drift" in refused.json["hint"]
    assert untouched(conn, database)


@pytest.mark.parametrize("kind", ["a record more", "another vector"])
def test_alembic_refuses_it_too(kind, store, plan, alembic, conn, database):
    plan(store)
    DRIFTS[kind][0](store)
    alembic("-x", "store=none", "upgrade", FIRST)

    refused = alembic("upgrade", "head")
    allowed = alembic("-x", "allow_drift=yes", "upgrade", "head")

    assert refused.code != 0
    assert "has changed since revision" in refused.err
    assert "-x allow_drift=yes" in refused.err
    assert allowed.code == 0, allowed.err
    assert conn.execute("SELECT count(*) FROM load_runs").fetchone() == (1,)


@pytest.mark.parametrize("kind", sorted(DRIFTS.keys() - {"gone", "a bad record"}))
def test_allowed_drift_is_loaded_and_verified(kind, store, plan, load, database, run_harca):
    plan(store)
    DRIFTS[kind][0](store)

    loaded = load("--allow-drift", "--json")
    verified = run_harca("verify", store, database=database)

    assert loaded.code == 0, loaded.err
    assert loaded.json["revisions"][1]["run"]["verified"] is True
    assert verified.code == 0, verified.out


def test_allow_drift_takes_yes_or_no(store, plan, alembic):
    plan(store)

    done = alembic("-x", "store=none", "-x", "allow_drift=true", "upgrade", "head")

    assert done.code != 0
    assert 'allow_drift is "true", expected yes or no' in done.err


def test_a_later_plan_that_is_refused_stops_the_earlier_ones_too(
    tmp_path, store, plan, load, conn, database
):
    other = write_store(tmp_path / "other", 5, seed=2)
    plan(store)
    plan(other)
    _one_more(other)

    refused = load()

    assert refused.code == 4
    assert untouched(conn, database)


def test_rejected_records_are_refused_before_anything_is_written(store, plan, load, conn, database):
    _a_bad_record(store)
    plan(store)

    refused = load()
    nothing = untouched(conn, database)
    accepted = load("--max-rejects", "1", "--json")

    assert refused.code == 4
    assert "1 record of" in refused.err
    assert "would be rejected: 1 non-finite; 0 allowed" in refused.err
    assert nothing
    assert accepted.code == 0, accepted.err
    assert accepted.json["revisions"][1]["run"]["rejected"] == 1


def test_a_plan_warns_of_rejected_records_or_accepts_them(store, project, run_harca, database):
    _a_bad_record(store)

    warned = run_harca("plan", store, "-m", "x", database=database)
    accepted = run_harca("plan", store, "-m", "x", "--max-rejects", "1", database=database)

    assert "plan it again with --max-rejects 1 to accept them" in warned.out
    assert "--max-rejects" not in accepted.out


def test_a_revision_goes_down_and_up_again_with_rows(store, plan, alembic, load, conn, database):
    conn.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
        "VALUES ('the application''s', '[1,2]', '{}', 'm')"
    )
    planned = plan(store)
    load()
    before = contents(conn)

    down = alembic("downgrade", "-1")
    left = contents(conn)
    up = alembic("upgrade", "head")

    assert (down.code, up.code) == (0, 0), down.err + up.err
    assert [row[2] for row in left] == ["the application's"]
    assert contents(conn) == before
    assert migrations.current(database, DATA) == planned["revision"]


def test_a_downgrade_refuses_rows_that_were_changed(store, plan, alembic, load, conn):
    plan(store)
    load()
    conn.execute("UPDATE vector_embeddings SET content = 'edited' WHERE id = 1")

    refused = alembic("downgrade", "-1")
    kept = alembic("-x", "changed=keep", "downgrade", "-1")

    assert refused.code != 0
    assert "1 row of run 1 changed since loading" in refused.err
    assert kept.code == 0, kept.err
    assert [row[2] for row in contents(conn)] == ["edited"]


def test_alembic_applies_a_plan_as_it_stands(store, plan, alembic, conn, database):
    planned = plan(store)

    done = alembic("-x", "store=none", "upgrade", "head")

    assert done.code == 0, done.err
    assert f"{FIRST}: passed over, no store is named for it; nothing was loaded" in done.err
    assert len(contents(conn)) == 12
    assert migrations.current(database, DATA) == planned["revision"]


def test_the_store_option_is_the_first_revision_s_alone(tmp_path, store, plan, alembic, conn):
    first = write_store(tmp_path / "first", 3, seed=2)
    plan(store)

    done = alembic("-x", f"store={first}", "upgrade", "head")

    assert done.code == 0, done.err
    assert conn.execute("SELECT store, loaded FROM load_runs ORDER BY run_id").fetchall() == [
        (str(first), 3), (str(store), 12),
    ]  # fmt: skip


def test_plain_alembic_refuses_and_names_both_ways(store, plan, alembic, conn, database):
    plan(store)

    done = alembic("upgrade", "head")

    assert done.code != 0
    assert "no store is named: nothing was loaded, nothing is stamped" in done.err
    assert "-x store=PATH upgrade head" in done.err
    assert "-x store=none upgrade head" in done.err
    assert untouched(conn, database)


@pytest.mark.parametrize("how", ["variable", "option"])
def test_a_first_revision_whose_store_is_named_is_not_passed_over(
    how, tmp_path, store, plan, load, conn
):
    first = write_store(tmp_path / "first", 3, seed=2)
    plan(store)

    done = (
        load("--json", HARCA_FILE_STORE=str(first))
        if how == "variable"
        else load("--json", "--store", f"{FIRST}={first}")
    )

    assert done.code == 0, done.err
    assert [step["run"]["loaded"] for step in done.json["revisions"]] == [3, 12]
    assert [step["store"] for step in done.json["revisions"]] == [str(first), str(store)]


def test_a_revision_that_was_passed_over_goes_down_and_loads_later(
    tmp_path, load, alembic, conn, database
):
    first = write_store(tmp_path / "first", 3, seed=2)
    passed_over = load()
    stamped = migrations.current(database, DATA)

    down = alembic("downgrade", "base")
    up = alembic("-x", f"store={first}", "upgrade", "head")

    assert passed_over.code == 0, passed_over.err
    assert f"{FIRST} import the file store: passed over, nothing was loaded" in passed_over.out
    assert stamped == FIRST
    assert (down.code, up.code) == (0, 0), down.err + up.err
    assert len(contents(conn)) == 3


def test_a_revision_with_rows_of_an_attempt_is_not_passed_over(
    tmp_path, load, alembic, conn, database, run_harca
):
    first = write_store(tmp_path / "first", 3, seed=2)
    _a_bad_record(first)
    alembic("-x", f"store={first}", "upgrade", "head")  # rows are in, and it is not stamped

    refused = load()
    stamped = migrations.current(database, DATA)
    run_harca("rollback", "1", database=database)
    passed_over = load()

    assert refused.code == 4
    assert f"revision {FIRST} cannot be passed over: its run 1 has rows" in refused.err
    assert stamped is None
    assert passed_over.code == 0, passed_over.err


def test_a_moved_store_is_loaded_from_where_it_is(tmp_path, store, plan, load, alembic, conn):
    planned = plan(store)
    moved = store.rename(tmp_path / "moved")

    lost = load()
    found = load("--store", f"{planned['revision'][:6]}={moved}")
    alembic("downgrade", "-1")
    by_alembic = alembic("-x", f"store.{planned['revision']}={moved}", "upgrade", "head")

    assert lost.code == 4
    assert f"--store {planned['revision']}=PATH" in lost.err
    assert found.code == by_alembic.code == 0, found.err + by_alembic.err
    assert conn.execute("SELECT DISTINCT store FROM load_runs").fetchall() == [(str(moved),)]


@pytest.mark.parametrize("given", ["/somewhere", "nonsense=/somewhere", "=x", "{revision}="])
def test_a_place_of_no_revision_is_a_usage_error(given, store, plan, load, conn, database):
    planned = plan(store)

    done = load("--store", given.format(**planned))

    assert done.code == 2
    assert "expected REVISION=PATH with a pending revision" in done.err
    assert untouched(conn, database)


def test_alembic_refuses_a_place_of_no_revision(store, plan, alembic, conn, database):
    plan(store)

    done = alembic("-x", "store=none", "-x", "store.nonsense=/somewhere", "upgrade", "head")

    assert done.code != 0
    assert "Can't locate revision identified by 'nonsense'" in done.err + done.out
    assert untouched(conn, database)


def test_an_interrupted_load_goes_on(store, plan, load, conn):
    plan(store, "--batch-rows", "5")
    conn.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF (SELECT count(*) FROM vector_embeddings) > 6 "
        # With an error that no record is to blame for, or the record would be rejected.
        "THEN RAISE 'full' USING ERRCODE = '53100'; END IF; "
        "RETURN NULL; END $$; "
        "CREATE TRIGGER fail AFTER INSERT ON vector_embeddings EXECUTE FUNCTION fail()"
    )
    failed = load()
    half = conn.execute("SELECT count(*) FROM vector_embeddings").fetchone()
    conn.execute("DROP TRIGGER fail ON vector_embeddings")

    done = load("--json")

    assert failed.code == 1
    assert half == (5,)
    assert done.code == 0, done.err
    assert conn.execute("SELECT run_id, loaded FROM load_runs").fetchall() == [(1, 12)]


def test_a_llamaindex_store_is_planned_and_loaded(tmp_path, plan, load, conn):
    store = write_llamaindex(tmp_path / "storage", 7)

    planned = plan(store, "--model", "text-embedding-3-small")
    loaded = load()

    assert planned["format"] == "llamaindex"
    assert loaded.code == 0, loaded.err
    assert {(row[5], row[6]) for row in contents(conn)} == {
        ("text-embedding-3-small", "llamaindex")
    }


def test_odd_fields_are_planned_as_migrate_takes_them(tmp_path, plan, load, conn):
    store = tmp_path / "odd.json"
    rows = [{"k": f"k{n}", "t": f"text {n}", "v": [float(n)] + [0.5] * 15} for n in range(5)]
    store.write_text(json.dumps({"rows": rows}))
    mapping = tmp_path / "odd.toml"
    mapping.write_text('records = "rows"\nid_field = "k"\ntext_field = "t"\n')
    options = ("--mapping", str(mapping), "--vector-field", "v")

    planned = plan(store, *options)
    mapping.unlink()  # what it says is in the revision
    loaded = load()
    by_plan = contents(conn)

    assert planned["options"] == {
        "records": "rows", "id_field": "k", "text_field": "t", "vector_field": "v",
    }  # fmt: skip
    assert loaded.code == 0, loaded.err
    assert [row[1] for row in by_plan] == ["k0", "k1", "k2", "k3", "k4"]
    assert [row[2] for row in by_plan] == [f"text {n}" for n in range(5)]


def test_hostile_names_stay_texts(tmp_path, plan, load, conn, project):
    folder = tmp_path / HOSTILE.replace("/", "")
    store = write_store(folder, 3)
    write_record(store / "cache", record("t", [1.0] * 8, model=HOSTILE))

    planned = plan(store, "--name", HOSTILE, "--source", HOSTILE, message=HOSTILE)
    loaded = load("--json")

    file = Path(planned["file"])
    assert loaded.code == 0, loaded.err
    step = loaded.json["revisions"][1]
    assert step["store"] == str(store)
    assert step["message"] == " ".join(HOSTILE.split())
    assert {row[0] for row in contents(conn)} == {HOSTILE}
    assert {row[5] for row in contents(conn)} == {"test-model", HOSTILE}
    assert file.parent == project / "data_migrations" / "versions"


@pytest.mark.parametrize("path", ["plain", HOSTILE.replace("/", ""), "a b " * 30, "x" * 120])
def test_the_file_is_as_the_checkout_wants_it(path, tmp_path, plan, project):
    shutil.copy(ROOT / "pyproject.toml", project)
    store = write_store(tmp_path / path, 3)
    plan(store, "--name", path, message=path)

    for command in (("format", "--check"), ("check",)):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "data_migrations"],
            cwd=project, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


def test_a_revision_by_hand_is_a_revision_too(store, alembic, project, conn):
    alembic("-x", "store=none", "upgrade", "head")
    alembic("revision", "-m", "by hand")
    (file,) = (project / "data_migrations" / "versions").glob("*_by_hand.py")
    file.write_text(file.read_text().replace("/path/to/the/store", str(store)))

    done = alembic("upgrade", "head")

    assert done.code == 0, done.err
    assert len(contents(conn)) == 12


@pytest.mark.parametrize("message", ["", " \n\t"])
def test_a_plan_needs_a_message(message, store, project, run_harca, database):
    done = run_harca("plan", store, "-m", message, database=database)

    assert done.code == 2
    assert "the message is empty" in done.err


def test_a_store_without_a_record_to_load_is_not_planned(tmp_path, project, run_harca, database):
    store = tmp_path / "store"
    write_record(store, record("bad", [None]))

    done = run_harca("plan", store, "-m", "x", database=database)

    assert done.code == 1
    assert "holds no vectors: found 1 record that would be rejected" in done.err
    assert len(list((project / "data_migrations" / "versions").glob("*.py"))) == 1


def test_two_heads_are_named_and_nothing_is_written(
    store, plan, load, project, run_harca, database
):
    first = plan(store, message="one")
    file = Path(first["file"])
    file.with_name("copy.py").write_text(
        file.read_text().replace(first["revision"], "aaaaaaaaaaaa")
    )

    planning = run_harca("plan", store, "-m", "another", database=database)
    loading = load()
    status = run_harca("status", "--json", database=database)

    for done in (planning, loading):
        assert done.code == 4
        assert "the data revisions have 2 heads, expected one: " in done.err
        assert first["revision"] in done.err
    assert status.json["data_head"] == ", ".join(sorted([first["revision"], "aaaaaaaaaaaa"]))


def test_a_database_at_a_revision_of_elsewhere_is_explained(store, plan, load, database, run_harca):
    planned = plan(store)
    load()
    Path(planned["file"]).unlink()

    loading = load()
    rolling_back = run_harca("rollback", "last", database=database)
    status = run_harca("status", "--json", database=database)

    for done in (loading, rolling_back):
        assert done.code == 1
        assert f"the database is at data revision {planned['revision']}, of which" in done.err
    assert status.json["data"] == planned["revision"]
    assert status.json["data_head"] == FIRST


def test_an_older_schema_is_refused_and_nothing_is_stamped(store, plan, empty_database, run_harca):
    plan(store)

    done = run_harca("load", database=empty_database)

    assert done.code == 1
    assert "the schema is at revision none, this needs a91c6e08b7d2" in done.err
    assert migrations.current(empty_database, DATA) is None


def test_an_unwritable_folder_is_an_error(store, project, run_harca, database):
    (project / "file").write_text("")

    done = run_harca("plan", store, "-m", "x", "--to", project / "file" / "in", database=database)

    assert done.code == 1
    assert "cannot write to" in done.err


def test_a_folder_of_choice_continues_the_chain_in_it(store, plan, project):
    folder = project / "elsewhere"
    first = plan(store, "--to", str(folder))
    second = plan(store, "--to", str(folder))
    usual = plan(store, "--to", str(project / "data_migrations" / "versions"))

    assert (first["is_read"], first["down_revision"]) == (False, FIRST)
    assert (second["is_read"], second["down_revision"]) == (False, first["revision"])
    assert (usual["is_read"], usual["down_revision"]) == (True, FIRST)
