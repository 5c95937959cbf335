"""The spaces' indexes: built, repaired, replaced while searches go on, listed, taken back."""

import threading
import time
from dataclasses import replace

import psycopg
import pytest

from harca import indexing
from harca.errors import Refused, TargetError, UsageError
from harca.indexing import Wish
from harca.model import Space
from harca.postgres import build_progress, index_choice, indexes, space_settings
from harca.postgres.build_progress import BuildProgress
from harca.postgres.index_choice import EXACT_BELOW
from harca.postgres.index_memory import given_memory, needed_bytes
from harca.postgres.plan_index import PLAN_INDEX
from harca.postgres.search import search
from harca.postgres.space_index import (
    SpaceIndex,
    beside,
    creating,
    index_name,
    outlived,
    valid_index,
)
from harca.postgres.space_settings import Effort, SpaceSettings, settings_of
from harca.watcher import Unwatched
from tests.clustered import fill, queries, recall

# What differs between the servers is their pgvector, and the tests can be given that.
pytestmark = pytest.mark.one_server

# What is there whatever the spaces: the schema makes it.
PLAN = {PLAN_INDEX}


def names(conn) -> set[str]:
    return set(indexes.existing(conn)) - PLAN


def found_index(conn, space: Space) -> SpaceIndex:
    index = valid_index(conn, space)
    assert index is not None
    return index


def oid(conn, name: str) -> int:
    row = conn.execute("SELECT %s::regclass::oid", [name]).fetchone()
    return int(row[0])


def leave_invalid(conn, name: str) -> None:
    """Leave what an interrupted build leaves."""
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON vector_embeddings (model_id)")


@pytest.mark.parametrize(
    ("wish", "made"),
    [
        (Wish(), ("hnsw", "vector", {})),
        (Wish("hnsw", "halfvec", {"m": 24}), ("hnsw", "halfvec", {"m": 24})),
        (Wish("hnsw", "bit", effort={"candidates": 200}), ("hnsw", "bit", {})),
        (Wish("ivfflat"), ("ivfflat", "vector", {"lists": 2})),
        (Wish(parameters={"lists": 9}), ("ivfflat", "vector", {"lists": 9})),
    ],
    ids=["own", "halfvec", "bit", "ivfflat", "lists"],
)
def test_each_kind_is_built_and_finds_what_an_exact_search_finds(wish, made, database, conn):
    space = fill(conn, 2_000, 64)

    done = indexing.build(database, wish, model_id="m")

    index = found_index(conn, space)
    assert done.built == [index.name]
    assert (index.method, index.type, index.parameters) == made
    answers = [search(conn, query, space, k=10) for query in queries(64)]
    assert {answer.answered_by for answer in answers} == {index.name}
    found = iter([{hit.id for hit in answer.hits} for answer in answers])
    assert recall(conn, space, queries(64), lambda query: next(found)) >= 0.98
    assert indexing.build(database, Wish()).built == []  # it is as it should be


def test_invalid_leftovers_are_dropped_and_built_again(conn):
    space = fill(conn, EXACT_BELOW, 4)
    name = index_name(space)
    left = [name, f"{name}_ccnew", beside(name), f"{PLAN_INDEX}_ccnew"]
    for one in left:
        leave_invalid(conn, one)
    assert not any(indexes.existing(conn)[one] for one in left)

    built = indexes.build(conn)

    assert built == [name]
    assert indexes.existing(conn) == {name: True, PLAN_INDEX: True}


class Holding:
    """Somebody who is writing to the table: a concurrent build waits for the end of it."""

    def __init__(self, database) -> None:
        self.conn = database.connect(autocommit=False)
        self.conn.execute("LOCK TABLE vector_embeddings IN ROW EXCLUSIVE MODE")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.conn.close()


def until(condition, *, within_s: float = 30) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def waits(conn) -> bool:
    return bool(
        conn.execute(
            "SELECT FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for writers%%'"
        ).rowcount
    )


def test_searches_have_an_index_all_the_time_that_it_is_replaced(database, conn):
    space = fill(conn, EXACT_BELOW, 16)
    indexes.build(conn)
    name = index_name(space)
    before = oid(conn, name)
    query = queries(16, 1)[0]
    space_settings.keep(conn, space, method="hnsw", type="halfvec")
    seen: set[tuple[str, str]] = set()
    is_over = threading.Event()

    def ask():
        with database.connect() as other:
            while not is_over.is_set():
                index = valid_index(other, space)
                seen.add((index.type, "found") if index is not None else ("", "missing"))
                time.sleep(0.001)

    def build():
        with database.connect() as other:
            indexes.build(other)

    asking, building = threading.Thread(target=ask), threading.Thread(target=build)
    with Holding(database):
        building.start()
        until(lambda: waits(conn))
        asking.start()
        during = search(conn, query, space).answered_by
        until(lambda: seen)
    building.join()
    until(lambda: ("halfvec", "found") in seen)
    is_over.set()
    asking.join()

    assert during == name
    assert seen == {("vector", "found"), ("halfvec", "found")}
    assert oid(conn, name) != before
    assert names(conn) == {name}


def test_a_replacement_that_was_finished_takes_its_place_after_an_interruption(conn):
    space = fill(conn, EXACT_BELOW, 4)
    indexes.build(conn)
    name = index_name(space)
    space_settings.keep(conn, space, method="hnsw", type="halfvec")
    conn.execute(creating(SpaceIndex(beside(name), space, "hnsw", "halfvec")))
    finished = oid(conn, beside(name))

    built = indexes.build(conn)

    assert built == [name]
    assert oid(conn, name) == finished
    assert names(conn) == {name}


def test_one_that_was_replaced_before_an_interruption_is_dropped(conn):
    space = fill(conn, EXACT_BELOW, 4)
    indexes.build(conn)
    conn.execute(creating(SpaceIndex(outlived(index_name(space)), space, "hnsw", "vector")))

    indexes.build(conn)

    assert names(conn) == {index_name(space)}


def test_the_largest_spaces_get_the_indexes_and_the_others_say_why_not(database, conn, monkeypatch):
    monkeypatch.setattr(index_choice, "MOST_INDEXES", 3)  # the plan's is one of them
    spaces = [fill(conn, EXACT_BELOW + more, 4, model=f"m{more}") for more in (0, 2, 1)]

    listed = indexing.build(database, Wish()).listed

    assert names(conn) == {index_name(spaces[1]), index_name(spaces[2])}
    assert (listed.indexes, listed.most_indexes) == (3, 3)
    left_out = next(one for one in listed.spaces if one["model_id"] == "m0")
    assert left_out["index"] == "exact"
    assert left_out["why"] == "the table has 3 partial indexes, of spaces with more rows"


def test_ivfflat_is_built_again_when_its_rows_have_outgrown_its_lists(conn):
    space = fill(conn, 2_000, 4)
    space_settings.keep(conn, space, method="ivfflat")

    built = []
    for more in (0, 1_000, 1_000):
        if more:
            fill(conn, more, 4, seed=more)
        built.append((indexes.build(conn), found_index(conn, space).parameters["lists"]))

    name = index_name(space)
    assert built == [([name], 2), ([], 2), ([name], 4)]


def test_the_plan_s_index_is_there_while_it_is_built_again(database, conn):
    fill(conn, 20, 1536)
    indexes.build(conn)
    before = oid(conn, PLAN_INDEX)
    fill(conn, 20, 1536, seed=8)

    def build():
        with database.connect() as other:
            indexes.build(other)

    building = threading.Thread(target=build)
    with Holding(database):
        building.start()
        until(lambda: waits(conn))
        during = oid(conn, PLAN_INDEX)
    building.join()

    assert during == before != oid(conn, PLAN_INDEX)
    assert indexes.existing(conn) == {PLAN_INDEX: True}


def test_a_watcher_is_told_how_far_a_build_is(database, conn, monkeypatch):
    monkeypatch.setattr(build_progress, "_EVERY_S", 0.01)
    fill(conn, EXACT_BELOW, 4)
    told = []

    class Watching(Unwatched):
        def stage(self, name, total=None):
            told.append(name)

        def phase(self, name, done, total):
            told.append((name, done, total))

    def build():
        with database.connect() as other:
            watching = Watching()
            indexes.build(other, progress=watching.stage, shown=BuildProgress(database, watching))

    building = threading.Thread(target=build)
    with Holding(database) as holding:
        pid = holding.conn.info.backend_pid
        building.start()
        until(lambda: (f"waiting for writers before build, server process {pid}", 0, 1) in told)
    building.join()

    assert told[0] == "hnsw index for m/4, 1,000 rows"


def test_a_build_whose_progress_cannot_be_seen_goes_on(database, conn, monkeypatch):
    monkeypatch.setattr(build_progress, "_EVERY_S", 0.0)
    space = fill(conn, EXACT_BELOW, 4)
    elsewhere = replace(database, conninfo="host=/nowhere dbname=none")

    indexes.build(conn, shown=BuildProgress(elsewhere, Unwatched()))

    assert valid_index(conn, space) is not None


@pytest.mark.parametrize(
    ("kind", "share", "is_full"),
    [("vector", 1, False), ("halfvec", 1, False), ("bit", 1, False), ("vector", 3, True)],
)
def test_a_graph_fits_in_the_memory_that_it_is_given_and_not_in_a_third(kind, share, is_full, conn):
    space = fill(conn, 1_500, 128)
    index = SpaceIndex("measured_idx", space, "hnsw", kind)
    told = []
    conn.add_notice_handler(lambda notice: told.append(notice.message_primary))

    with given_memory(conn, needed_bytes(index) // share, workers=0):
        conn.execute(creating(index))

    assert any("no longer fits" in message for message in told) is is_full


def test_ivfflat_is_given_what_the_server_counts(conn):
    space = fill(conn, 10_000, 16)
    index = SpaceIndex("measured_idx", space, "ivfflat", "vector", {"lists": 100})

    with (
        given_memory(conn, 1024 * 1024, workers=0),
        pytest.raises(psycopg.errors.ProgramLimitExceeded, match="memory required is 5 MB"),
    ):
        conn.execute(creating(index))

    # Beside what the sorting of the rows is given.
    assert 4 < needed_bytes(index) / 1024**2 - 64 < 5


def test_a_component_beyond_half_precision_is_said_and_searched_exactly(database, conn):
    space = fill(conn, EXACT_BELOW, 4)
    indexes.build(conn)
    conn.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
        "VALUES ('', '[70000,0,0,0]', '{}', 'm')"
    )

    with pytest.raises(TargetError, match="the server refuses an index for m/4: ") as failed:
        indexing.build(database, Wish(type="halfvec"))
    kept = settings_of(conn, space)
    space_settings.keep(conn, space, type="halfvec")
    (refused,) = indexing.build(database, Wish()).refused

    assert "out of range" in str(failed.value)
    assert kept == SpaceSettings()
    assert refused == {**space.as_dict(), "records": 1001, "why": refused["why"]}
    assert "out of range" in refused["why"]
    assert found_index(conn, space).type == "vector"  # what was there answers still


def test_what_is_said_is_kept_until_it_is_forgotten(database, conn):
    space = fill(conn, 100, 4)
    space_settings.keep(conn, space, embedder="local:x")

    indexing.build(database, Wish("hnsw", parameters={"m": 8}, effort={"ef_search": 70}))
    said = settings_of(conn, space)
    indexes.build(conn)  # as a load does
    still = found_index(conn, space)
    indexing.build(database, Wish(effort={"ef_search": 90}))
    more = settings_of(conn, space)
    indexing.build(database, Wish(forget=True))

    assert (said.method, said.parameters, said.effort) == ("hnsw", {"m": 8}, Effort(ef_search=70))
    assert still.parameters == {"m": 8}
    assert (more.method, more.effort) == ("hnsw", Effort(ef_search=90))
    assert settings_of(conn, space) == SpaceSettings(embedder="local:x")
    assert valid_index(conn, space) is None


def test_another_method_takes_nothing_over_from_the_one_before(database, conn):
    space = fill(conn, 100, 4)
    indexing.build(database, Wish("hnsw", "halfvec", {"m": 8}, {"ef_search": 70}))
    space_settings.keep(conn, space, measured={"recall": 0.99})

    indexing.build(database, Wish(parameters={"lists": 3}))

    assert settings_of(conn, space) == SpaceSettings("ivfflat", None, {"lists": 3})
    assert found_index(conn, space).parameters == {"lists": 3}


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish("ivfflat", parameters={"m": 8}), "an ivfflat index of m/4 has no m"),
        (Wish("hnsw", effort={"probes": 3}), "an hnsw index of m/4 has no probes"),
        (Wish(effort={"ef_search": 3}), "an exact search of m/4 has no ef_search"),
        (
            Wish("hnsw", parameters={"m": 50}),
            "ef_construction is 64, expected twice m at least, which is 100",
        ),
    ],
    ids=["parameter", "effort", "exact", "m"],
)
def test_what_cannot_be_is_refused_and_not_kept(wish, message, database, conn):
    space = fill(conn, 100, 4)

    with pytest.raises(UsageError) as refused:
        indexing.build(database, wish)

    assert str(refused.value) == message
    assert settings_of(conn, space) == SpaceSettings()


def test_a_type_with_fewer_dimensions_than_the_space_is_refused(database, conn):
    fill(conn, 3, 2001)

    with pytest.raises(UsageError, match="no such index can be made: an index on vector takes 2,0"):
        indexing.build(database, Wish(type="vector"))


def test_the_index_of_a_revision_is_not_changed_by_a_command(database, conn):
    space = fill(conn, 100, 4)
    indexes.create(conn, SpaceIndex(index_name(space), space, "hnsw", "vector", {"m": 5}))

    with pytest.raises(Refused, match="a revision has made the index of m/4"):
        indexing.build(database, Wish("ivfflat"))
    indexing.build(database, Wish(effort={"ef_search": 80}))

    (listed,) = indexing.listed(database).spaces
    assert listed["chosen_by"] == "revision"
    assert (listed["parameters"]["m"], listed["effort"]) == (5, {"ef_search": 80})


def test_the_index_of_a_revision_stays_its_own_when_it_has_to_be_repaired(conn):
    space = fill(conn, 100, 4)
    index = SpaceIndex(index_name(space), space, "hnsw", "vector")
    leave_invalid(conn, index.name)
    conn.execute(
        f"COMMENT ON INDEX {index.name} IS 'harca: made by a revision, which drops it too'"
    )
    space_settings.keep(conn, space, method="hnsw")

    indexes.build(conn)
    (state,) = indexes.states(conn)

    assert state.made is not None
    assert state.made.valid
    assert state.made.is_kept


def test_one_space_is_built_without_touching_the_others(database, conn):
    fill(conn, EXACT_BELOW, 4, model="a")
    b = fill(conn, EXACT_BELOW, 4, model="b")

    built = indexing.build(database, Wish(), model_id="b").built

    assert built == [index_name(b)]
    assert names(conn) == {index_name(b)}


def test_the_commands_show_what_is_there_and_why(run_harca, database, conn):
    fill(conn, EXACT_BELOW, 4, model="large")
    fill(conn, 5, 4, model="small")

    before = run_harca("index", "list", database=database)
    built = run_harca("index", "build", "-q", database=database)
    after = run_harca("index", "list", "--json", database=database)
    status = run_harca("status", database=database)

    assert "its index is not built yet" in before.out
    assert (built.code, built.out, built.err) == (0, "", "")
    large, small = after.json["spaces"]
    assert (large["method"], large["why"], large["valid"]) == ("hnsw", "1,000 rows", True)
    assert large["bytes"] > 0
    assert (small["index"], small["why"]) == ("exact", "fewer than 1,000 rows")
    assert "exact: fewer than 1,000 rows" in status.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "none"), 'no space fits "none/any dimension"'),
        (("--method", "flat"), '--method is "flat", expected hnsw or ivfflat'),
        (("--type", "int8"), '--type is "int8", expected vector or halfvec or bit'),
        (("--exact", "--m", "8"), "--exact is no index, so nothing else is said of it"),
        (("--m", "8"), '2 spaces fit "any model/any dimension"'),
    ],
    ids=["model", "method", "type", "exact", "several"],
)
def test_a_command_that_cannot_be_followed_says_so(arguments, message, run_harca, database, conn):
    fill(conn, 5, 4, model="a")
    fill(conn, 5, 4, model="b")

    done = run_harca("index", "build", *arguments, database=database)

    assert done.code == 2
    assert done.err.startswith(f"error: {message}\nhint:  ")


def test_a_database_without_the_schema_is_refused(run_harca, empty_database):
    done = run_harca("index", "list", database=empty_database)

    assert done.code == 1
    assert done.err.startswith("error: the schema is at revision none, this needs ")
