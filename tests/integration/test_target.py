"""What one run writes: rows, and a ledger that says the same, batch by batch."""

from datetime import UTC, datetime

import numpy as np
import psycopg
import pytest

from harca.batching import Batch
from harca.conflicts import Fate
from harca.errors import RunError
from harca.fingerprint import digest
from harca.ledger import Plan
from harca.model import Reason, Record, Rejection, Tally
from harca.postgres.target import PostgresTarget, begin_run, storable
from harca.row_line import record_line

DATE = datetime(2025, 3, 16, 3, 8, 2, 864000, tzinfo=UTC)

# All that a load can write into a row, but for the time, which is the run's.
CONTENTS = (
    "content, embedding::text, metadata, model_id, created_at, source, store, store_key, run_id"
)


def record(key, *, content="text", numbers=(1.0, 2.0), created_at=DATE, **fields):
    given = {"metadata": {"n": "1"}, "model_id": "m", "source": "s", "origin": f"{key}.json"}
    return Record(
        key, content, np.array(numbers, dtype=np.float32), created_at=created_at,
        **{**given, **fields},
    )  # fmt: skip


def begin(conn, store="store", *, revision=None, volatile=(), **more):
    run = begin_run(conn, store, store_format="jsonl", revision=revision, options={"a": 1}, **more)
    return PostgresTarget(conn, run, volatile=volatile)


def commit(target, *records, number=1, plan=None, rejections=()):
    plan = plan or Plan(inserts={one.key: one for one in records})
    plan.tally = Tally(read=7, loaded=1, unchanged=2, superseded=3, rejected=1)
    batch = Batch(number, list(records), list(rejections), ("first.json", "last.json"))
    return target.commit(batch, plan)


def one(conn, statement, *values):
    return conn.execute(statement, values).fetchone()


def all_of(conn, statement, *values):
    return conn.execute(statement, values).fetchall()


def row_of(conn, key):
    return one(conn, f"SELECT {CONTENTS} FROM vector_embeddings WHERE store_key = %s", key)


def finished(target, **notes):
    target.finish(notes)
    target.conn.execute(
        "UPDATE load_runs SET status = 'verified' WHERE run_id = %s", [target.run.run_id]
    )


def test_a_row_has_every_field_of_its_record_and_where_it_is_from(conn):
    target = begin(conn)
    undated = record("undated", created_at=None, source="other")

    assert not target.has_rows()
    assert commit(target, record("a"), undated) == []

    assert target.has_rows()
    assert not begin(conn, "another").has_rows()
    run = target.run
    assert row_of(conn, "a") == (
        "text", "[1,2]", {"n": 1}, "m", DATE, "s", "store", "a", run.run_id,
    )  # fmt: skip
    assert row_of(conn, "undated")[4:6] == (run.started_at, "other")
    updated = all_of(conn, "SELECT DISTINCT updated_at FROM vector_embeddings")
    assert updated == [(run.started_at,)]


def test_the_ledger_notes_a_batch_with_its_rows(conn):
    target = begin(conn)

    commit(target, record("a"), number=4)

    assert one(
        conn,
        "SELECT run_id, attempt, number, read, loaded, unchanged, superseded, rejected, "
        "first_origin, last_origin FROM load_batches",
    ) == (target.run.run_id, 1, 4, 7, 1, 2, 3, 1, "first.json", "last.json")


def test_what_is_rejected_is_kept_whole_with_what_text_cannot_hold_escaped(conn):
    target = begin(conn)
    bad = Rejection("bad.json", Reason.UNPARSABLE, "a\0b\ud800", b"\x00payload")

    commit(target, record("a"), rejections=[bad, Rejection("gone", Reason.VANISHED, "x")])

    found = all_of(
        conn,
        "SELECT run_id, attempt, origin, reason, detail, payload FROM rejections "
        "ORDER BY rejection_id",
    )
    run_id = target.run.run_id
    assert found == [
        (run_id, 1, "bad.json", "unparsable", "a\\0b\\ud800", b"\x00payload"),
        (run_id, 1, "gone", "vanished", "x", None),
    ]


def test_a_message_that_text_can_hold_stays_as_it_is():
    assert storable("ä\n\U0001f600") == "ä\n\U0001f600"
    assert storable("\0 and \udcff") == "\\0 and \\udcff"


def test_a_record_that_lost_is_kept_whole(conn):
    target = begin(conn)
    lost = record("a", content="lost", numbers=(3.0, 4.0), created_at=None, source="z")
    plan = Plan(losers=[(Fate.CONFLICT, lost), (Fate.DUPLICATE, record("b"))])

    commit(target, plan=plan)

    found = all_of(
        conn,
        "SELECT run_id, attempt, kind, origin, store, store_key, content, embedding::text, "
        "metadata, model_id, created_at, source, row_id FROM superseded ORDER BY superseded_id",
    )
    run_id = target.run.run_id
    assert found == [
        (run_id, 1, "conflict", "a.json", "store", "a", "lost", "[3,4]", {"n": 1}, "m", None,
         "z", None),
        (run_id, 1, "duplicate", "b.json", "store", "b", "text", "[1,2]", {"n": 1}, "m", DATE,
         "s", None),
    ]  # fmt: skip


def test_a_row_that_is_replaced_keeps_its_id_and_leaves_what_it_held(conn):
    first = begin(conn)
    commit(first, record("a", content="old", numbers=(3.0, 4.0)), record("b"))
    finished(first)
    [(row_id, updated_at)] = all_of(
        conn, "SELECT id, updated_at FROM vector_embeddings WHERE store_key = 'a'"
    )
    second = begin(conn)
    new = record("a", content="new", metadata={"n": "2"}, model_id="m2", source="s2")

    done = commit(second, plan=Plan(replaces={"a": new}, overwritten=["a"]))

    assert done == []
    assert row_of(conn, "a") == (
        "new", "[1,2]", {"n": 2}, "m2", DATE, "s2", "store", "a", second.run.run_id,
    )  # fmt: skip
    assert one(conn, "SELECT id FROM vector_embeddings WHERE store_key = 'a'") == (row_id,)
    assert row_of(conn, "b")[-1] == first.run.run_id
    assert all_of(
        conn,
        "SELECT run_id, attempt, kind, store, store_key, content, embedding::text, row_id, "
        "row_run_id, row_updated_at FROM superseded",
    ) == [
        (second.run.run_id, 1, "overwritten", "store", "a", "old", "[3,4]", row_id,
         first.run.run_id, updated_at),
    ]  # fmt: skip


def test_a_row_that_stood_for_a_record_of_the_same_pass_is_kept_as_a_conflict(conn):
    target = begin(conn)
    commit(target, record("a", content="first"), record("b", content="stays"))

    commit(target, plan=Plan(replaces={"a": record("a")}, outdone=["a"]), number=2)

    assert all_of(conn, "SELECT kind, content, row_run_id, created_at FROM superseded") == [
        ("conflict", "first", None, DATE)
    ]
    assert row_of(conn, "a")[0] == "text"
    assert row_of(conn, "b")[0] == "stays"


def test_what_was_changed_since_the_batch_was_planned_is_kept(conn):
    target = begin(conn)
    commit(target, record("a"), record("b"))
    conn.execute("UPDATE vector_embeddings SET content = 'theirs' WHERE store_key = 'a'")
    new = {key: record(key, content="new") for key in ("a", "b")}

    commit(target, plan=Plan(replaces=new), number=2)

    assert all_of(conn, "SELECT kind, store_key, content FROM superseded") == [
        ("overwritten", "a", "theirs")
    ]
    assert all_of(conn, "SELECT DISTINCT content, updated_at FROM vector_embeddings") == [
        ("new", target.run.started_at)
    ]


def test_a_row_that_is_gone_leaves_the_batch_out_and_is_named(conn):
    target = begin(conn)
    commit(target, record("b"))
    replaces = {"a": record("a"), "b": record("b", content="new")}

    refused = commit(target, record("c"), plan=Plan(replaces=replaces), number=2)

    assert [(one.record.key, one.rejection.reason) for one in refused] == [("a", Reason.REFUSED)]
    assert "UPDATE took 0 of 1 rows" in refused[0].rejection.detail
    assert all_of(conn, "SELECT content FROM vector_embeddings") == [("text",)]
    assert all_of(conn, "SELECT number FROM load_batches") == [(1,)]


def test_records_that_a_rule_refuses_are_told_and_nothing_is_brought_in(conn):
    for table in ("vector_embeddings", "superseded"):
        conn.execute(f"ALTER TABLE {table} ADD CHECK (content <> 'bad')")
    target = begin(conn)
    records = [record("a"), record("b", content="bad"), record("c", content="bad")]
    # It has lost against a record that is not in: so it has not lost, and is not asked about.
    lost = [(Fate.CONFLICT, record("b", content="bad"))]
    plan = Plan(inserts={one.key: one for one in records}, losers=lost)

    refused = commit(target, plan=plan, rejections=[Rejection("x", Reason.VANISHED, "x")])

    assert [one.record.key for one in refused] == ["b", "c"]
    for table in ("vector_embeddings", "superseded", "rejections", "load_batches"):
        assert one(conn, f"SELECT count(*) FROM {table}") == (0,)


def test_a_deferred_constraint_names_its_record_too(conn):
    conn.execute("ALTER TABLE vector_embeddings ADD UNIQUE (content) DEFERRABLE INITIALLY DEFERRED")
    target = begin(conn)
    commit(target, record("a"))

    refused = commit(target, record("b", content="other"), record("c"), number=2)

    assert [one.record.key for one in refused] == ["c"]


def test_what_is_found_piecemeal_to_be_fine_is_brought_in_whole(conn):
    # The whole batch is refused, as two rows at once; one after the other they are not.
    conn.execute(
        "CREATE FUNCTION few() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF (SELECT count(*) FROM n) > 1 THEN RAISE 'too many'; END IF; RETURN NULL; END $$; "
        "CREATE TRIGGER few AFTER INSERT ON vector_embeddings REFERENCING NEW TABLE AS n "
        "FOR EACH STATEMENT EXECUTE FUNCTION few()"
    )
    target = begin(conn)
    lost = [(Fate.CONFLICT, record("d"))]
    plan = Plan(inserts={key: record(key) for key in ("a", "b")}, losers=lost)

    refused = commit(target, plan=plan, rejections=[Rejection("x", Reason.VANISHED, "x")])

    assert refused == []
    for table, count in (
        ("vector_embeddings", 2), ("superseded", 1), ("rejections", 1), ("load_batches", 1),
    ):  # fmt: skip
        assert one(conn, f"SELECT count(*) FROM {table}") == (count,)


@pytest.mark.parametrize("table", ["vector_embeddings", "superseded"])
def test_rows_that_a_trigger_leaves_out_without_an_error_are_refused(table, conn):
    conn.execute(
        "CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.content = 'bad' THEN RETURN NULL; END IF; RETURN NEW; END $$; "
        f"CREATE TRIGGER leave_out BEFORE INSERT ON {table} FOR EACH ROW "
        "EXECUTE FUNCTION leave_out()"
    )
    target = begin(conn)
    bad, good = record("bad", content="bad"), record("good")
    plan = (
        Plan(inserts={"bad": bad, "good": good})
        if table == "vector_embeddings"
        else Plan(losers=[(Fate.CONFLICT, bad), (Fate.CONFLICT, good)])
    )

    refused = commit(target, plan=plan)

    assert [one.record.key for one in refused] == ["bad"]
    assert f"COPY took 0 of 1 rows for {table}" in refused[0].rejection.detail
    assert one(conn, f"SELECT count(*) FROM {table}") == (0,)


def test_a_row_that_could_not_be_kept_is_not_replaced(conn):
    first = begin(conn)
    commit(first, record("a", content="old"))
    finished(first)
    conn.execute("CREATE RULE leave_out AS ON INSERT TO superseded DO INSTEAD NOTHING")
    second = begin(conn)

    refused = commit(second, plan=Plan(replaces={"a": record("a")}, overwritten=["a"]))

    assert "INSERT took 0 of 1 rows for superseded" in refused[0].rejection.detail
    assert row_of(conn, "a")[0] == "old"


def test_trouble_with_everything_is_no_record_s_fault(conn):
    target = begin(conn)
    conn.execute("DROP TABLE load_batches")

    with pytest.raises(psycopg.errors.UndefinedTable):
        commit(target, record("a"))

    assert not target.has_rows()


TAKEN_OVER = {
    "rolled back": "UPDATE load_runs SET status = 'rolled back'",
    "finished": "UPDATE load_runs SET status = 'loaded'",
    "taken up": "UPDATE load_runs SET attempt = attempt + 1",
    "gone": "DELETE FROM load_runs",
}


@pytest.mark.parametrize("how", TAKEN_OVER)
@pytest.mark.parametrize(
    "does",
    [lambda target: commit(target, record("a")), lambda target: target.finish({})],
    ids=["commit", "finish"],
)
def test_a_run_that_another_has_taken_over_writes_no_more(how, does, conn):
    target = begin(conn)
    conn.execute(TAKEN_OVER[how])

    with pytest.raises(RunError) as stopped:
        does(target)

    assert str(stopped.value) == (
        f"run {target.run.run_id} was rolled back, finished or taken up by another process "
        "meanwhile"
    )
    assert stopped.value.hint == (
        "See `harca status`. To load the store, run the same command again."
    )
    assert not target.has_rows()
    assert one(conn, "SELECT count(*) FROM load_batches") == (0,)


def test_a_finished_run_is_summed_up_and_noted(conn):
    target = begin(conn)
    for number in (1, 2):
        commit(target, record(f"r{number}"), number=number)

    target.finish({"skipped": 3})

    assert one(
        conn,
        "SELECT status, read, loaded, unchanged, superseded, rejected, notes->'skipped', "
        "finished_at > started_at FROM load_runs",
    ) == ("loaded", 14, 2, 4, 6, 2, 3, True)
    assert one(conn, "SELECT notes ? 'seals' FROM load_runs") == (True,)


def test_conflicts_with_rows_of_earlier_runs_are_outlived(conn):
    target = begin(conn)
    losers = [(Fate.CONFLICT, record(key)) for key in ("a", "b")]
    commit(target, plan=Plan(losers=[*losers, (Fate.DUPLICATE, record("a"))]))

    target.finish({}, outlived={"a"})

    found = all_of(conn, "SELECT store_key, kind FROM superseded ORDER BY superseded_id")
    assert found == [("a", "outlived"), ("b", "conflict"), ("a", "duplicate")]


def test_an_interrupted_run_is_taken_up_and_what_it_noted_is_dropped(conn):
    first = begin(conn)
    rejected = Rejection("x", Reason.VANISHED, "x", b"p")
    commit(first, record("a"), rejections=[rejected, Rejection("only", Reason.VANISHED, "x")])
    second = begin(conn)

    assert (second.run.run_id, second.run.attempt) == (first.run.run_id, 2)
    assert second.run.started_at == first.run.started_at
    assert (first.run.resumed, second.run.resumed) == (False, True)
    known = second.known(["a", "b"], settled={"b"})
    assert set(known) == {"a"}
    assert known["a"].is_this_runs
    assert not known["a"].settled
    commit(second, rejections=[rejected])
    second.finish({})

    assert all_of(conn, "SELECT attempt, number FROM load_batches") == [(2, 1)]
    found = all_of(conn, "SELECT attempt, origin FROM rejections ORDER BY 1, 2")
    assert found == [(1, "only"), (2, "x")]


def test_what_was_refused_and_is_in_now_is_no_rejection_any_more(conn):
    first = begin(conn)
    kept = [
        Rejection(f"{key}.json", Reason.REFUSED, "x", record_line(record(key, content="late")))
        for key in ("in", "out", "changed")
    ]
    commit(first, rejections=kept)
    second = begin(conn)
    commit(second, record("in", content="late"), record("changed", content="another"))

    second.finish({})

    found = all_of(conn, "SELECT origin FROM rejections ORDER BY origin")
    assert found == [("changed.json",), ("out.json",)]


def test_what_is_known_of_a_row_is_what_it_holds(conn):
    first = begin(conn)
    commit(first, record("a"), record("b", created_at=None), record("v", metadata={"x": "9"}))
    finished(first)
    conn.execute("UPDATE vector_embeddings SET content = 'theirs' WHERE store_key = 'b'")
    second = begin(conn, volatile=["x"])

    known = second.known(["a", "b", "v", "none"], settled={"a"})

    assert set(known) == {"a", "b", "v"}
    a, b = known["a"], known["b"]
    assert (a.digest, a.created_at) == (digest(record("a")), DATE)
    assert a.origin == f"the table (run {first.run.run_id})"
    assert (a.loaded_by_run, a.edited, a.settled, a.losers) == (False, False, True, frozenset())
    assert (b.edited, b.settled, b.created_at) == (True, False, None)
    assert known["v"].digest == digest(record("v", metadata={"x": "9"}), without=["x"])
    assert known["v"].digest == digest(record("v", metadata={}), without=["x"])


def test_what_has_lost_before_is_known(conn):
    lost = record("a", content="lost")
    first = begin(conn)
    commit(first, plan=Plan(inserts={"a": record("a")}, losers=[(Fate.CONFLICT, lost)]))

    assert first.known(["a"], settled=set())["a"].losers == {digest(lost)}
    assert first.known(["a"], settled=set())["a"].loaded_by_run


def test_a_new_run_notes_what_it_is(conn):
    target = begin(conn, revision=None)

    found = one(conn, "SELECT store, format, revision, status, options, attempt FROM load_runs")

    assert found == ("store", "jsonl", None, "loading", {"a": 1}, 1)
    assert not target.run.resumed
    assert target.run.store == "store"


@pytest.mark.parametrize(
    ("status", "revision", "again", "is_resumed"),
    [
        ("loading", None, False, True),
        ("loaded", None, False, True),
        ("verified", None, False, False),
        ("different", None, False, False),
        ("verified", None, True, True),
        ("rolled back", None, False, False),
        ("rolled back", None, True, False),
        ("verified", "abc", False, True),
        ("loading", "abc", False, True),
        ("rolled back", "abc", False, False),
    ],
)
def test_which_runs_are_taken_up_again(status, revision, again, is_resumed, conn):
    first = begin(conn, revision=revision).run
    conn.execute(
        "UPDATE load_runs SET status = %s, finished_at = now(), fingerprint = 'f', "
        """notes = '{"paused_at": 1, "kept": 2}'""",
        [status],
    )

    run = begin_run(
        conn, "store", store_format="csv", revision=revision, options={"b": 2},
        again=first.run_id if again else None,
    )  # fmt: skip

    assert run.resumed == is_resumed
    assert (run.run_id == first.run_id) == is_resumed
    if is_resumed:
        notes = {"paused_at": 1, "kept": 2} if again else {"kept": 2}
        assert one(
            conn, "SELECT status, attempt, options, finished_at, fingerprint, notes FROM load_runs"
        ) == ("loading", 2, {"b": 2}, None, None, notes)
        assert run.attempt == 2


def test_a_run_of_another_store_or_revision_is_another(conn):
    runs = {
        begin(conn, store, revision=revision).run.run_id
        for store in ("store", "other")
        for revision in (None, "abc", "def")
    }

    assert len(runs) == 6


def test_only_the_latest_run_of_a_store_is_taken_up(conn):
    first = begin(conn)
    finished(first)
    second = begin(conn)
    conn.execute("UPDATE load_runs SET status = 'loading' WHERE run_id = %s", [first.run.run_id])
    finished(second)

    assert begin(conn).run.run_id > second.run.run_id
