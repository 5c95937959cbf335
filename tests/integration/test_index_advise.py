"""harca index advise: measured on the space's own rows, recommended, written as a revision."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg
import pytest

from harca import migrations
from harca.advice import advise
from harca.advise import Candidate, choose
from harca.errors import Refused, TargetError, UsageError
from harca.model import Space
from harca.postgres import legacy, lock, measurements, space_index, space_settings, trial
from harca.postgres.search import search
from harca.watcher import Unwatched

EXACT = Candidate("exact")
HNSW = Candidate("hnsw", "vector", {"m": 16}, ({"ef_search": 40}, {"ef_search": 200}))


def ivfflat(lists, *probes):
    efforts = tuple({"probes": number} for number in probes)
    return Candidate("ivfflat", "vector", {"lists": lists}, efforts)


def fill(conn, rows=600, dims=16, model="m", *, copies=1):
    """Put clustered embeddings into a space, each *copies* times; return them."""
    dice = np.random.default_rng(dims)
    centres = dice.normal(size=(rows // 20 + 1, dims))
    vectors = centres[np.arange(rows) % len(centres)] + 0.5 * dice.normal(size=(rows, dims))
    vectors = np.repeat(vectors[: rows // copies], copies, axis=0).astype(np.float32)
    with (
        conn.cursor() as cursor,
        cursor.copy(
            "COPY vector_embeddings (content, embedding, metadata, model_id) FROM STDIN"
        ) as copy,
    ):
        for number, vector in enumerate(vectors):
            copy.write_row((f"row {number}", str(vector.tolist()), "{}", model))
    return vectors


def measured(database, conn, *candidates, k=10, queries=20, max_rows=10_000, watcher=None):
    [space] = space_index.spaces(conn)
    return trial.measure(
        database,
        space,
        [EXACT, *candidates],
        k=k,
        queries=queries,
        max_rows=max_rows,
        watcher=watcher,
    )


def left_behind(conn):
    return conn.execute("SELECT to_regnamespace('harca_advice') IS NOT NULL").fetchone() == (True,)


class Hooked(Unwatched):
    """Does something when a stage begins; remembers the stages."""

    def __init__(self, name="", act=lambda: None):
        self.name, self.act, self.stages = name, act, []

    def stage(self, name, total=None):
        self.stages.append(name)
        if self.name and name.startswith(self.name):
            self.act()


def test_each_way_has_its_recall_against_the_exact_search(database, conn, monkeypatch):
    # Among so few rows, and on a busy machine, the first effort can take longer than that.
    monkeypatch.setattr(trial, "_SLOWER", float("inf"))
    fill(conn)
    least = Candidate("hnsw", "bit", {"m": 16}, ({"candidates": 10},))

    found = measured(database, conn, ivfflat(8, 1, 8), HNSW, least)

    by_name = {str(point): point for point in found.points}
    assert by_name["exact"].recall == 1
    assert by_name["ivfflat vector lists 8 at probes 1"].recall < 1
    assert by_name["ivfflat vector lists 8 at probes 8"].recall == 1
    assert by_name["hnsw vector m 16 at ef_search 40"].recall > 0.95
    # Ten taken by their signs are not all of the ten nearest.
    assert by_name["hnsw bit m 16 at candidates 10"].recall < 0.9
    assert all(0 < point.p50_ms <= point.p95_ms for point in found.points)
    assert all((point.size_bytes > 0) == (not point.is_exact) for point in found.points)
    assert (found.sampled_rows, found.queries) == (600, 20)


def test_half_precision_is_measured_with_the_query_in_full(database, conn):
    """Distances to a query that was rounded would not be those of the truth."""
    fill(conn)

    found = measured(database, conn, Candidate("hnsw", "halfvec", {"m": 16}, ({"ef_search": 100},)))

    assert found.points[1].recall > 0.99


def test_the_planner_takes_the_index_that_is_measured_and_no_other(database, conn):
    """Of two that differ in m alone, it would take either."""
    fill(conn)
    plans = []

    class Explaining(trial._Trial):
        def _ask(self, way, query):
            found = super()._ask(way, query)
            values = {"query": query, "k": 10, "candidates": way.candidates}
            plan = self._conn.execute(b"EXPLAIN " + self._statement(way), values).fetchall()
            plans.append((str(way.candidate), str(plan)))
            return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "_Trial", Explaining)
        patch.setattr(trial, "REPETITIONS", 1)
        measured(
            database,
            conn,
            *(Candidate("hnsw", kind, {"m": m}) for kind in ("vector", "bit") for m in (8, 16)),
            queries=1,
        )

    wanted = {
        "exact": "Seq Scan on tried",
        "hnsw vector m 8": "Index Scan using i1 on tried",
        "hnsw vector m 16": "Index Scan using i2 on tried",
        "hnsw bit m 8": "Index Scan using i3 on tried",
        "hnsw bit m 16": "Index Scan using i4 on tried",
    }
    assert {name for name, _ in plans} == wanted.keys()
    for name, plan in plans:
        assert wanted[name] in plan, (name, plan)


def test_ties_do_not_count_against_an_index(database, conn):
    """Of thirty equal rows, any ten are the ten nearest."""
    fill(conn, copies=30)

    found = measured(database, conn, ivfflat(4, 4))

    assert found.points[1].recall == 1


@pytest.mark.one_server
def test_the_table_is_only_read_and_nothing_is_left_behind(database, conn):
    fill(conn, 200)
    count = "SELECT count(*), sum(hashtext(v::text)) FROM vector_embeddings v"
    before = conn.execute(count).fetchone()
    relations = "SELECT count(*) FROM pg_class"
    had = conn.execute(relations).fetchone()
    seen = []
    watcher = Hooked("build", lambda: seen.append(left_behind(conn)))

    measured(database, conn, HNSW, watcher=watcher)

    assert seen == [True]
    assert not left_behind(conn)
    assert conn.execute(count).fetchone() == before
    assert conn.execute(relations).fetchone() == had
    assert watcher.stages[1] == (
        "copy 200 rows; copy and indexes take about 1 MB of the server's disk until the end"
    )


def test_a_large_space_is_measured_on_a_sample_the_same_on_every_run(database, conn):
    fill(conn)
    chosen = "SELECT array_agg(id ORDER BY id) FROM harca_advice.tried"
    taken = []
    watcher = Hooked("build", lambda: taken.append(conn.execute(chosen).fetchone()))

    first, _ = (measured(database, conn, HNSW, max_rows=100, watcher=watcher) for _ in range(2))

    assert (first.sampled_rows, first.queries) == (100, 20)
    assert len(taken[0][0]) == 80
    assert taken[0] == taken[1]


@pytest.mark.one_server
def test_what_the_rows_do_not_allow_is_left_out_with_the_reason(database, conn):
    fill(conn, 100, 4)
    conn.execute("UPDATE vector_embeddings SET embedding = '[70000,1,1,1]' WHERE content = 'row 1'")

    found = measured(database, conn, Candidate("hnsw", "halfvec", {"m": 16}), HNSW)

    assert [str(point) for point in found.points] == ["exact", "hnsw vector m 16 at ef_search 40"]
    assert found.left_out == [
        'hnsw halfvec m 16: "70000" is out of range for type halfvec'
    ]  # fmt: skip


@pytest.mark.one_server
def test_half_precision_is_left_out_where_the_old_application_writes(database, conn):
    """Its writes would fail that have a component beyond 65,504."""
    fill(conn, 60, 4)
    conn.execute(
        "WITH run AS (INSERT INTO load_runs (store, format, status) VALUES ('t', %s, 'verified') "
        "RETURNING run_id) UPDATE vector_embeddings SET run_id = run.run_id FROM run",
        [legacy.FORMAT],
    )

    found = advise(database, k=2, queries=2)

    assert "halfvec" not in {point.type for point in found.measured.points}
    assert (
        "hnsw halfvec: half precision could refuse what the old application writes"
        in found.measured.left_out
    )


@pytest.mark.one_server
@pytest.mark.parametrize("stage", ["choose", "build", "time"])
def test_an_interruption_leaves_nothing_behind(stage, database, conn):
    fill(conn, 100)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(database, conn, HNSW, watcher=Hooked(stage, interrupt))

    assert not left_behind(conn)


@pytest.mark.one_server
def test_a_full_disk_is_an_error_that_says_what_helps(database, conn):
    fill(conn, 100)

    def no_room():
        raise psycopg.errors.DiskFull("could not extend file")

    with pytest.raises(TargetError) as refused:
        measured(database, conn, HNSW, watcher=Hooked("build", no_room))

    assert str(refused.value) == (
        "PostgreSQL: the server ran out of disk space while indexes were tried"
    )
    assert refused.value.hint == (
        "What was tried is dropped. Make room, or measure fewer rows with --max-rows."
    )
    assert not left_behind(conn)


@pytest.mark.one_server
def test_a_schema_that_is_somebody_else_s_is_left_alone(database, conn):
    fill(conn, 100)
    conn.execute("CREATE SCHEMA harca_advice CREATE TABLE theirs ()")

    with pytest.raises(Refused) as refused:
        measured(database, conn, HNSW)

    assert str(refused.value) == 'there is a schema "harca_advice" that is none of harca\'s making'
    assert left_behind(conn)


@pytest.mark.one_server
def test_two_do_not_measure_at_once(database, conn):
    fill(conn, 100)
    told = []

    class Waiting(Unwatched):
        def trouble(self, message):
            told.append(message)
            other.close()

    with database.connect() as other:
        lock.take(other, lock.ADVICE_LOCK)
        measured(database, conn, HNSW, watcher=Waiting())

    assert len(told) == 1
    assert told[0].startswith("waiting for another harca to be done: server process ")


@pytest.mark.one_server
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_one_that_is_ended_while_it_builds_is_cleaned_up_after(by, database, conn):
    fill(conn, 3000, 64)
    command = [sys.executable, "-m", "harca", "index", "advise"]
    environment = {**os.environ, "HARCA_DATABASE_URL": database.conninfo}
    building = (
        "SELECT count(*) FROM pg_stat_progress_create_index WHERE datname = current_database()"
    )
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as running:
        while conn.execute(building).fetchone() == (0,) and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(by)
        _, said = running.communicate(timeout=60)

    assert running.returncode == (-by if by == signal.SIGKILL else 130), said
    assert b"Traceback" not in said
    assert left_behind(conn) == (by == signal.SIGKILL)
    if by == signal.SIGKILL:
        conn.execute("DELETE FROM vector_embeddings WHERE id > 100")
        measured(database, conn)
        assert not left_behind(conn)


@pytest.fixture
def by_index(monkeypatch):
    """Have an index recommended, also for rows so few that an exact search can be as fast."""

    def go(points, goal, **options):
        assert points[0].is_exact
        return choose([replace(points[0], p50_ms=1e6), *points[1:]], goal, **options)

    monkeypatch.setattr("harca.advise.choose", go)


@pytest.fixture
def schema(project, run_alembic, database):
    """Run alembic on the schema revisions of the test's checkout."""
    return lambda *arguments: run_alembic(
        "-c", str(project / "alembic.ini"), *arguments, database=database
    )


def recall_of(conn, space, queries, *, k=10):
    """Return the share of the true neighbours that a search finds now, and by what."""
    found = [search(conn, query, space, k=k) for query in queries]
    name = found[0].answered_by
    true = []
    with conn.transaction(force_rollback=True):
        conn.execute(f"DROP INDEX {name}")
        true = [search(conn, query, space, k=k) for query in queries]
    assert {one.answered_by for one in true} == {"exact"}
    share = [
        len({hit.id for hit in one.hits} & {hit.id for hit in other.hits}) / k
        for one, other in zip(found, true, strict=True)
    ]
    return sum(share) / len(share), name


def test_the_recommended_index_is_written_built_and_as_good_as_measured(
    database, conn, project, schema, by_index
):
    vectors = fill(conn, 400, 16, "it's 100% (全角)")
    before = migrations.current(database)

    found = advise(
        database, recall=0.95, queries=20, write=True, message='index "the texts" at 95 %'
    )
    script = schema("upgrade", f"{before}:head", "--sql")
    up = schema("upgrade", "head")
    [space] = space_index.spaces(conn)
    index = space_index.valid_index(conn, space)
    settings = space_settings.settings_of(conn, space)
    recall, answered_by = recall_of(conn, space, vectors[::10])
    down = schema("downgrade", "-1")

    assert found.choice.reached
    point = found.recommended
    assert point.recall >= 0.95
    assert found.revision is not None
    assert found.revision.path.parent == project / "alembic" / "versions"
    text = found.revision.path.read_text("utf-8")
    assert text.startswith('"""index \\"the texts\\" at 95 %\n\nMeasured by harca index advise on ')
    assert (up.code, down.code) == (0, 0), up.err + down.err
    assert index is not None
    assert (index.method, index.type, index.parameters) == (
        point.method, point.type, point.parameters,
    )  # fmt: skip
    assert (settings.method, settings.type) == (point.method, point.type)
    assert settings.effort.as_dict() == {**point.effort, "k": 10}
    assert settings.measured["recall"] == found.as_dict()["recommended"]["recall"]
    assert answered_by == index.name
    assert recall >= 0.95 - 0.02  # an index built anew is another one
    assert script.code == 0, script.err
    assert f'CREATE INDEX CONCURRENTLY "{index.name}" ON vector_embeddings' in script.out
    assert "INSERT INTO space_settings" in script.out
    assert migrations.current(database) == before
    assert space_index.valid_index(conn, space) is None
    assert space_settings.settings_of(conn, space).method is None


@pytest.mark.one_server
def test_the_revision_is_as_ruff_formats_it(database, conn, project, by_index):
    fill(conn, 100, 4, "a-label-of-some-length-in-quotes-'\"-that-is-a-long-one-indeed")

    found = advise(database, recall=0.5, k=3, queries=2, write=True, message="index it")

    assert found.revision is not None
    text = found.revision.path.read_text("utf-8")
    settings = Path(__file__).parents[2] / "pyproject.toml"
    formatted = subprocess.run(
        ["ruff", "format", "--config", settings, "--stdin-filename", "alembic/versions/r.py", "-"],
        input=text, capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    ).stdout  # fmt: skip
    assert formatted == text


@pytest.mark.one_server
def test_harca_s_next_revision_is_joined_with_one_s_own(
    database, conn, project, schema, run_harca, by_index
):
    """As an update of harca brings it, beside a revision that stands at the head."""
    fill(conn, 100, 4)
    head = migrations.head()
    advise(database, recall=0.5, k=3, queries=2, write=True, message="index it")
    schema("upgrade", "head")
    (project / "alembic" / "versions" / "new.py").write_text(
        f"from alembic import op\nrevision = 'abc'\ndown_revision = {head!r}\n"
        "def upgrade():\n    op.execute('CREATE TABLE came_later ()')\n"
        "def downgrade():\n    op.execute('DROP TABLE came_later')\n"
    )

    refused = run_harca("index", "advise", "--write", "-m", "again", database=database)
    joined = schema("merge", "heads", "-m", "join")
    up = schema("upgrade", "head")

    assert refused.code == 4
    assert "the schema revisions have 2 heads, expected one: " in refused.err
    assert 'Join them: `alembic merge heads -m "join"`.' in refused.err
    assert (joined.code, up.code) == (0, 0), joined.err + up.err
    assert migrations.current(database) == migrations.head()
    assert conn.execute("SELECT to_regclass('came_later') IS NOT NULL").fetchone() == (True,)


@pytest.mark.one_server
def test_the_result_is_shown_and_kept(database, conn, run_harca):
    fill(conn, 300, 8, "a model")

    done = run_harca(
        "index", "advise", "--latency-ms", "0.0001", "-k", "5", "--queries", "3", "--max-rows",
        "200", "--json", database=database,
    )  # fmt: skip
    shown = run_harca("index", "advise", "-k", "5", "--queries", "3", database=database)

    result = done.json
    kept, _ = measurements.kept(conn, "index advise")
    added = {name: result.pop(name) for name in ("command", "revision", "file")}
    assert kept.result == result
    assert (result["rows"], result["sampled_rows"], result["queries"], result["k"]) == (
        300, 200, 3, 5,
    )  # fmt: skip
    assert result["curve"][0]["method"] == "exact"
    assert result["recommended"] in result["curve"]
    assert result["reached"] is False
    assert result["reason"].startswith("Nothing is within 0.00 ms: the fastest is ")
    assert added["revision"] is None
    assert added["command"].startswith("harca index build --model 'a model' --dims 8 --")
    assert done.code == 0
    assert shown.code == 0, shown.err
    assert "a model/8: measured on 300 rows, 3 of them as queries, k = 5" in shown.out
    [marked] = [line for line in shown.out.splitlines() if line.startswith("  *  ")]
    assert marked
    assert "\n* recommended: " in shown.out
    assert "left out: ivfflat vector: it has but one list" in shown.out


@pytest.mark.one_server
def test_nothing_is_written_where_nothing_is_as_fast_as_asked(database, conn, project, run_harca):
    fill(conn, 100, 4)

    done = run_harca(
        "index", "advise", "--latency-ms", "0.0001", "--queries", "2", "--write", "-m", "index it",
        database=database,
    )  # fmt: skip

    assert done.code == 4
    assert "no revision was written: nothing is as fast as was asked" in done.out
    assert not list((project / "alembic" / "versions").glob("*_index_it.py"))


def refusal(database, **options):
    with pytest.raises(UsageError) as refused:
        advise(database, **options)
    return str(refused.value), refused.value.hint


@pytest.mark.one_server
def test_an_empty_table_is_refused(database):
    assert refusal(database) == (
        'no space fits "any model/any dimension"',
        "The table is empty: `harca migrate STORE`.",
    )


@pytest.mark.one_server
def test_two_spaces_that_fit_are_refused(database, conn):
    fill(conn, 20, 4, "m")
    fill(conn, 20, 3, "m")

    assert refusal(database, model_id="m") == (
        '2 spaces fit "m/any dimension"',
        "Name one by --model: m/3, m/4.",
    )
    assert advise(database, dims=3, k=2, queries=2).measured.space == Space("m", 3, 20)


@pytest.mark.one_server
def test_a_k_that_the_space_has_no_rows_for_is_refused(database, conn):
    fill(conn, 20, 4)

    assert refusal(database, k=17) == (
        "k is 17, and 20 rows are measured, 4 of them as queries",
        "Ask for fewer results with -k; a space this small is searched exactly.",
    )
    assert not left_behind(conn)


@pytest.mark.one_server
def test_a_space_of_zero_vectors_is_refused(database, conn):
    conn.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
        "SELECT '', '[0,0]', '{}', 'm' FROM generate_series(1, 30)"
    )

    assert refusal(database) == (
        'space "m" has zero vectors only, which nothing is near to',
        "Were its texts empty? There is nothing to search in it.",
    )
    assert not left_behind(conn)


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recall": 0.0}, "recall is 0, expected more than 0 and at most 1"),
        ({"recall": 1.01}, "recall is 1.01, expected more than 0 and at most 1"),
        ({"recall": float("nan")}, "recall is nan, expected more than 0 and at most 1"),
        ({"latency_ms": 0.0}, "the latency is 0 ms, expected more than 0"),
        ({"recall": 0.9, "latency_ms": 2.0}, "--recall and --latency-ms were both given"),
        ({"k": 0}, "k is 0, expected 1 to 1000"),
        ({"k": 1001}, "k is 1001, expected 1 to 1000"),
        ({"queries": 0}, "there are 0 queries, expected 1 to 10,000"),
        ({"max_rows": 0}, "at most 0 rows are measured, expected 1 at least"),
        ({"write": True, "message": " "}, "the message is empty"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_value_that_cannot_be_used_is_refused(options, message, database):
    assert refusal(database, **options)[0] == message


@pytest.mark.one_server
def test_a_message_without_a_revision_is_refused(database, run_harca):
    done = run_harca("index", "advise", "-m", "index it", database=database)

    assert done.code == 2
    assert done.err == (
        "error: -m is about the revision, and none is written\n"
        "hint:  Have it written with --write.\n"
    )
