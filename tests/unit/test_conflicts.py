"""What becomes of a key that is there twice: whatever the order, the batches, the interruptions."""

import random
from collections import Counter
from datetime import datetime
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harca.conflicts import Fate, Known, SeenKeys, decide
from harca.errors import ConflictFound
from harca.fingerprint import digest
from harca.load import Intake, load
from harca.model import Item, OnConflict, Record, Tally
from harca.normalize import normalize
from harca.options import LoadOptions
from harca.postgres.rows import StoreRows
from harca.postgres.target import PostgresTarget, begin_run
from tests.unit.list_reader import ListReader
from tests.unit.memory_target import STARTED, MemoryTable

NEWEST, OLDEST, KEEP, ERROR = OnConflict
DECIDING = [NEWEST, OLDEST, KEEP]
VOLATILE = frozenset({"accessCount"})

JANUARY, JUNE, JULY = (f"2025-{month}-01T00:00:00+00:00" for month in ("01", "06", "07"))

_settings = settings(max_examples=60, deadline=None)


def item(key="k", vector=1.0, date=None, *, reads=1):
    """Return an entry; its contents are told apart by *vector*."""
    return Item(
        key=key,
        content="text",
        vector=[vector, 1.0],
        metadata={"accessCount": reads},
        model_id="model",
        created_at=date,
        source="test",
        origin=f"{key}/{vector}/{date}",
        payload=lambda: b"",
    )


def accepted(one) -> Record:
    made = normalize(one)
    assert isinstance(made, Record)
    return made


def record(*args, **fields) -> Record:
    return accepted(item(*args, **fields))


def run(table, items, policy=NEWEST, *, rows=1000):
    """Load *items* as a run does; return its tally."""
    target = table.begin(volatile=VOLATILE)
    intake = Intake(ListReader(items, volatile=VOLATILE), LoadOptions(), now=STARTED)
    load(intake, target, LoadOptions(on_conflict=policy, batch_rows=rows))
    return target.finish()


def outcome(items, policy, *, rows=1000, before=()):
    """Return all that a run must leave alike whatever its order."""
    table = MemoryTable()
    if before:
        run(table, list(before))
    try:
        tally = run(table, items, policy, rows=rows)
    except ConflictFound:
        return "ConflictFound"
    return table.contents(), tally, table.held()


# Few keys, contents and dates, so that they meet: 1 to 4 records a key, some alike.
dates = st.sampled_from([None, JANUARY, JUNE, JULY])
entries = st.builds(item, vector=st.sampled_from([1.0, 2.0, 3.0, 4.0]), date=dates)


@st.composite
def stores(draw, *, keys=("a", "b")):
    return [
        item(key, one.vector[0], one.created_at)
        for key in keys
        for one in draw(st.lists(entries, min_size=1, max_size=4))
    ]


@st.composite
def shuffled(draw, store=stores()):  # noqa: B008  # a strategy is a value
    """Return a store's entries in two orders."""
    items = draw(store)
    return items, draw(st.permutations(items))


# --- decide() ---------------------------------------------------------------------------

LOW, MIDDLE, HIGH = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32


@pytest.mark.parametrize(
    ("policy", "ours", "theirs", "expected"),
    [
        (NEWEST, JUNE, JANUARY, Fate.REPLACE),
        (NEWEST, JANUARY, JUNE, Fate.CONFLICT),
        (NEWEST, JUNE, None, Fate.REPLACE),
        (NEWEST, None, JUNE, Fate.CONFLICT),
        (OLDEST, JUNE, JANUARY, Fate.CONFLICT),
        (OLDEST, JANUARY, JUNE, Fate.REPLACE),
        (KEEP, JUNE, JANUARY, Fate.REPLACE),
        (KEEP, JANUARY, JUNE, Fate.CONFLICT),
    ],
    ids=lambda value: str(value or "undated")[:7],
)
@pytest.mark.parametrize("first", [LOW, HIGH], ids=["lower digest", "higher digest"])
def test_records_of_one_store_are_decided_by_date(policy, ours, theirs, expected, first):
    second = HIGH if first == LOW else LOW
    known = Known(first, when(theirs), "there", loaded_by_run=True, settled=True)

    assert decide(record(date=ours), second, known, policy) is expected


@pytest.mark.parametrize("policy", DECIDING)
@pytest.mark.parametrize("date", [None, JUNE], ids=["undated", "same date"])
def test_records_of_one_store_are_decided_by_digest_where_dates_are_alike(policy, date):
    lower = Known(LOW, when(date), "there", loaded_by_run=True, settled=True)
    higher = Known(HIGH, when(date), "there", loaded_by_run=True, settled=True)

    assert decide(record(date=date), HIGH, lower, policy) is Fate.REPLACE
    assert decide(record(date=date), LOW, higher, policy) is Fate.CONFLICT


@pytest.mark.parametrize(
    ("policy", "ours", "theirs", "expected"),
    [
        (NEWEST, JUNE, JANUARY, Fate.REPLACE),
        (NEWEST, JANUARY, JUNE, Fate.CONFLICT),
        (NEWEST, JUNE, JUNE, Fate.REPLACE),
        (NEWEST, None, None, Fate.REPLACE),
        (OLDEST, JUNE, JANUARY, Fate.CONFLICT),
        (OLDEST, JANUARY, JUNE, Fate.REPLACE),
        (OLDEST, JUNE, JUNE, Fate.CONFLICT),
        (OLDEST, None, None, Fate.CONFLICT),
        (KEEP, JUNE, JANUARY, Fate.CONFLICT),
        (KEEP, JANUARY, JUNE, Fate.CONFLICT),
        (KEEP, None, None, Fate.CONFLICT),
    ],
    ids=lambda value: str(value or "undated")[:7],
)
def test_a_row_of_an_earlier_run_is_met_by_date_and_else_the_store_wins(
    policy, ours, theirs, expected
):
    known = Known(HIGH, when(theirs), "the table", loaded_by_run=False, settled=False)

    assert decide(record(date=ours), LOW, known, policy) is expected


@pytest.mark.parametrize("policy", list(OnConflict))
@pytest.mark.parametrize(
    ("loaded_by_run", "settled", "expected"),
    [
        (False, False, Fate.UNCHANGED),
        (True, False, Fate.RESUMED),
        (True, True, Fate.DUPLICATE),
        (False, True, Fate.DUPLICATE),
    ],
    ids=["row of an earlier run", "row of this run", "read twice", "unchanged, read twice"],
)
def test_equal_contents_are_never_a_conflict(policy, loaded_by_run, settled, expected):
    known = Known(LOW, None, "there", loaded_by_run=loaded_by_run, settled=settled)

    assert decide(record(date=JUNE), LOW, known, policy) is expected


def test_a_key_that_is_new_is_inserted():
    assert decide(record(), LOW, None, ERROR) is Fate.INSERT


@pytest.mark.parametrize("settled", [True, False], ids=["in the store", "in the table"])
def test_error_names_both_places(settled):
    known = Known(LOW, None, "a/1.json", loaded_by_run=settled, settled=settled)

    with pytest.raises(ConflictFound) as caught:
        decide(record("key 1"), HIGH, known, ERROR)

    assert str(caught.value) == (
        'key "key 1" has different contents in a/1.json and key 1/1.0/None'
    )
    assert caught.value.hint == (
        "Nothing of this run stays in the table. Choose with --on-conflict newest, "
        "oldest or keep; `harca inspect STORE` lists all conflicts."
    )


def test_what_lost_before_loses_again_while_its_winner_is_there():
    known = Known(
        LOW, None, "the table", loaded_by_run=False, settled=False, losers=frozenset({HIGH})
    )

    assert decide(record(), HIGH, known, NEWEST) is Fate.CONFLICT


@pytest.mark.parametrize("ours", [LOW, HIGH], ids=["lower", "higher"])
def test_what_was_rewritten_after_an_interruption_wins_over_what_is_in_of_it(ours):
    left = Known(MIDDLE, None, "the table", loaded_by_run=True, settled=False)

    assert decide(record(), ours, left, NEWEST) is Fate.REPLACE


def when(date):
    return None if date is None else datetime.fromisoformat(date)


# --- the whole load ---------------------------------------------------------------------


@pytest.mark.parametrize("policy", list(OnConflict))
@given(orders=shuffled(), rows=st.integers(1, 5))
@_settings
def test_outcome_is_independent_of_order_and_batches(policy, orders, rows):
    one, other = orders

    assert outcome(one, policy) == outcome(other, policy, rows=rows)


@pytest.mark.parametrize("policy", DECIDING)
@given(store=stores(), rows=st.integers(1, 5))
@_settings
def test_every_record_read_is_in_the_table_or_superseded(policy, store, rows):
    table = MemoryTable()

    tally = run(table, store, policy, rows=rows)

    assert tally == Tally(read=len(store), loaded=2, superseded=len(store) - 2)
    assert table.held() == Counter(digest(accepted(one)) for one in store)


@pytest.mark.parametrize("policy", DECIDING)
@given(store=stores())
@_settings
def test_the_winner_is_the_first_or_last_by_date(policy, store):
    table = MemoryTable()

    run(table, store, policy)

    for key, row in table.rows.items():
        dated = [one.created_at for one in store if one.key == key and one.created_at]
        if policy is OLDEST:
            allowed = {min(dated), None} if dated else {None}
        else:
            allowed = {max(dated)} if dated else {None}
        kept = row.record.created_at
        assert (kept.isoformat() if kept else None) in allowed


@pytest.mark.parametrize("policy", DECIDING)
@given(store=stores(), rows=st.integers(1, 5))
@_settings
def test_a_second_run_loads_nothing_and_changes_nothing(policy, store, rows):
    table = MemoryTable()
    first = run(table, store, policy, rows=rows)
    before, held = dict(table.rows), table.held()

    second = run(table, store, policy, rows=rows)

    assert second == Tally(
        read=len(store), loaded=0, unchanged=first.loaded, superseded=first.superseded
    )
    assert table.rows == before
    assert table.held() == held


@pytest.mark.parametrize("policy", DECIDING)
@given(before=stores(), store=stores(), rows=st.integers(1, 4), fail_at=st.integers(1, 6))
@_settings
def test_an_interrupted_run_ends_as_an_uninterrupted_one(policy, before, store, rows, fail_at):
    straight, broken = MemoryTable(), MemoryTable()
    for table in (straight, broken):
        run(table, before)
    broken.fail_at_batch = fail_at
    try:
        run(broken, store, policy, rows=rows)
    except ConnectionError:
        broken.fail_at_batch = None
        tally = run(broken, store, policy, rows=rows)
    else:  # it had fewer batches
        return

    assert tally == run(straight, store, policy, rows=rows)
    assert broken.contents() == straight.contents()
    assert broken.held() == straight.held()
    assert {row.run_id for row in broken.rows.values()} <= {1, 2}


@pytest.mark.parametrize("policy", DECIDING)
@given(before=stores(), orders=shuffled(), rows=st.integers(1, 4))
@_settings
def test_outcome_against_earlier_rows_is_independent_of_order(policy, before, orders, rows):
    one, other = orders

    straight = outcome(one, policy, before=before)

    assert outcome(other, policy, rows=rows, before=before) == straight


@pytest.mark.parametrize(
    ("policy", "before", "one", "other"),
    [
        # Fresh and tied, then what the row holds: one order says unchanged, the other loaded.
        (NEWEST, (2.0, JUNE), (2.0, JUNE), (1.0, JUNE)),
        (NEWEST, (1.0, JUNE), (1.0, JUNE), (2.0, JUNE)),
        # Older than the row, and undated.
        (NEWEST, (1.0, JUNE), (2.0, JANUARY), (3.0, None)),
        (OLDEST, (1.0, JUNE), (2.0, JANUARY), (3.0, None)),
        (OLDEST, (1.0, JUNE), (1.0, JUNE), (2.0, JUNE)),
        (OLDEST, (2.0, JUNE), (2.0, JUNE), (1.0, JUNE)),
        (OLDEST, (1.0, JUNE), (1.0, JUNE), (2.0, None)),
        (KEEP, (1.0, JANUARY), (1.0, JANUARY), (2.0, JUNE)),
    ],
)
def test_two_records_and_an_earlier_row_have_one_outcome(policy, before, one, other):
    earlier, first, second = [item("k", *given) for given in (before, one, other)]

    assert outcome([first, second], policy, before=[earlier]) == outcome(
        [second, first], policy, before=[earlier]
    )


@given(before=stores(), store=stores(), rows=st.integers(1, 4))
@_settings
def test_keep_leaves_rows_of_an_earlier_run_alone(before, store, rows):
    table = MemoryTable()
    run(table, before)
    earlier = dict(table.rows)

    run(table, store, KEEP, rows=rows)

    assert table.rows == earlier


@pytest.mark.parametrize("policy", DECIDING)
@given(before=stores(), store=stores(), rows=st.integers(1, 5))
@_settings
def test_a_second_run_over_earlier_rows_loads_nothing(policy, before, store, rows):
    table = MemoryTable()
    run(table, before)
    first = run(table, store, policy, rows=rows)
    earlier, held = dict(table.rows), table.held()

    second = run(table, store, policy, rows=rows)

    assert (second.loaded, second.unchanged) == (0, first.loaded + first.unchanged)
    assert second.superseded == first.superseded
    assert (table.rows, table.held()) == (earlier, held)


@pytest.mark.parametrize("fail_at", [1, 2, 4], ids=["first", "middle", "last"])
def test_an_interrupted_first_run_is_resumed_without_repeating_rows(fail_at):
    table = MemoryTable(fail_at_batch=fail_at)
    store = [item(f"k{number}") for number in range(10)]
    with pytest.raises(ConnectionError):
        run(table, store, rows=3)
    assert len(table.rows) == (fail_at - 1) * 3

    table.fail_at_batch = None
    tally = run(table, store, rows=3)

    assert tally == Tally(read=10, loaded=10)
    assert list(table.rows) == [one.key for one in store]
    assert {row.run_id for row in table.rows.values()} == {1}


def test_the_memory_target_does_what_postgresql_does(conn):
    """The properties above are of `MemoryTarget`; here both take the same runs."""
    dice, names = random.Random(20), count()
    for _ in range(60):
        name, table = f"store {next(names)}", MemoryTable()
        for _ in range(2):
            policy = dice.choice(DECIDING)
            rows = dice.randint(1, 4)
            items = [
                item(
                    dice.choice("ab"), dice.choice([1.0, 2.0, 3.0]), dice.choice([None, JUNE, JUNE])
                )
                for _ in range(dice.randint(1, 7))
            ]
            in_memory = run(table, items, policy, rows=rows)

            noted = begin_run(conn, name, store_format="list", revision=None, options={})
            target = PostgresTarget(conn, noted, volatile=VOLATILE)
            intake = Intake(ListReader(items, volatile=VOLATILE), LoadOptions(), now=STARTED)
            load(intake, target, LoadOptions(on_conflict=policy, batch_rows=rows))
            target.finish({})
            conn.execute("UPDATE load_runs SET status = 'verified'")

            stored = StoreRows(conn, name, noted.run_id)
            assert stored.ledger()[0] == in_memory
            found = conn.execute(
                "SELECT store_key, (embedding::real[])[1] FROM vector_embeddings WHERE store = %s",
                [name],
            )
            assert dict(found) == {key: row.record.embedding[0] for key, row in table.rows.items()}
            fingerprint = stored.fingerprint()
            assert fingerprint.count == table.held().total()
            for hashed in table.held().elements():
                fingerprint.counts[hashed[0]] -= 1
                fingerprint.sums[hashed[0]] -= int.from_bytes(hashed[1:9], "big", signed=True)
            assert not any(fingerprint.counts)
            assert not any(part % 2**64 for part in fingerprint.sums)


# --- SeenKeys ---------------------------------------------------------------------------


@given(st.lists(st.lists(st.text(max_size=3), max_size=30), max_size=12))
@_settings
def test_seen_keys_answers_as_a_set_does(batches):
    plain: set[str] = set()
    seen = SeenKeys()
    for batch in batches:
        assert seen.in_batch(batch) == plain & set(batch)

        seen.add(batch)
        plain |= set(batch)


def test_seen_keys_needs_few_bytes_a_key_and_few_arrays():
    seen = SeenKeys()
    for start in range(0, 100_000, 1000):
        seen.add(f"key {number}" for number in range(start, start + 1000))

    assert len(seen._runs) <= 10
    assert sum(run.nbytes for run in seen._runs) == 800_000
    assert seen.in_batch(["key 0", "key 99999", "key 100000"]) == {"key 0", "key 99999"}
