"""Loading, batch by batch, into a table in memory: what it tells, refuses and gives up."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from harca.conflicts import Fate
from harca.errors import AmbiguousIds, ConflictFound, SourceError, TooManyRejections
from harca.ledger import Plan, Refusal
from harca.load import Intake, LoadResult, load, notes_of
from harca.model import Expired, Item, OnConflict, Reason, Rejection, Tally, Warn
from harca.options import LoadOptions
from tests.unit.list_reader import ListReader
from tests.unit.memory_target import STARTED, MemoryTable, MemoryTarget

JANUARY, JUNE = "2025-01-01T00:00:00+00:00", "2025-06-01T00:00:00+00:00"


def item(key="k", vector=1.0, date=None, **fields):
    """Return an entry; its contents are told apart by *vector*."""
    return Item(
        key=key,
        content="text",
        vector=[vector, 1.0],
        metadata={"reads": fields.pop("reads", 1)},
        model_id="model",
        created_at=date,
        source="test",
        origin=f"{key}/{vector}",
        payload=lambda: b"",
        **fields,
    )


def rejection(number=1):
    return Rejection(f"bad {number}", Reason.UNPARSABLE, "odd", b"payload")


@dataclass
class RefusingTable(MemoryTable):
    """A table that does not take the records under some keys.

    Attributes:
        refuses: Those keys.
        asked: What was asked for, with what of it was settled.
        given_up: How often the target was told to end what it is doing.
    """

    refuses: frozenset[str] = frozenset()
    asked: list[tuple[list[str], set[str]]] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    given_up: int = 0
    interrupts: bool = False

    def begin(self, *, volatile=()):
        begun = super().begin(volatile=volatile)
        return RefusingTarget(self, begun.run, begun.volatile)


class RefusingTarget(MemoryTarget):
    table: RefusingTable

    def known(self, keys, *, settled):
        self.table.asked.append((keys, settled))
        return super().known(keys, settled=settled)

    def commit(self, batch, plan):
        if self.table.interrupts:
            raise KeyboardInterrupt
        bad = [one for one in batch.records if one.key in self.table.refuses]
        if bad:
            return [Refusal(one, Rejection(one.origin, Reason.TOO_LARGE, "no")) for one in bad]
        self.table.plans.append(plan)
        return super().commit(batch, plan)

    def give_up(self):
        self.table.given_up += 1


def begun(table, entries, *, volatile=(), guesses_ids=False, now=STARTED, **options):
    """Return all that `load` needs."""
    reader = ListReader(entries, volatile=frozenset(volatile), guesses_ids=guesses_ids)
    chosen = LoadOptions(**options)
    return Intake(reader, chosen, now=now), table.begin(volatile=volatile), chosen


def loaded(table, entries, **options):
    """Load *entries* as a whole run; return what it did."""
    intake, target, chosen = begun(table, entries, **options)
    result = load(intake, target, chosen)
    target.finish()
    return result


def test_progress_is_told_after_each_batch_and_before_is_asked_with_each():
    told, batches = [], []
    intake, target, chosen = begun(
        MemoryTable(), [item("a"), item("b"), item("c"), rejection()], batch_rows=2
    )

    result = load(
        intake,
        target,
        chosen,
        progress=lambda tally: told.append((tally.read, tally.loaded, tally.rejected)),
        before=lambda batch: batches.append((batch.number, batch.read)),
    )

    assert batches == [(1, 2), (2, 2)]
    assert told == [(2, 2, 0), (4, 3, 1)]
    assert result.tally == Tally(read=4, loaded=3, rejected=1)
    assert result.rejected == Counter({Reason.UNPARSABLE: 1})
    assert 0 <= result.seconds < 60
    assert (result.outlived, result.kept, result.skipped) == (frozenset(), frozenset(), 0)


@pytest.mark.parametrize(("bad", "allowed"), [(1, 0), (2, 1), (5, 4)])
def test_one_rejection_more_than_allowed_stops_the_load_and_names_the_last(bad, allowed):
    entries = [item("a"), *(rejection(number) for number in range(1, bad + 1)), item("z")]
    table = MemoryTable()
    intake, target, chosen = begun(table, entries, max_rejects=allowed, batch_rows=100)

    with pytest.raises(TooManyRejections) as stopped:
        load(intake, target, chosen)

    assert (stopped.value.count, stopped.value.allowed, stopped.value.run_id) == (bad, allowed, 1)
    assert str(stopped.value).endswith(f"the last one: bad {bad}: {Reason.UNPARSABLE}: odd")
    assert "harca rejections list --run 1" in stopped.value.hint
    assert set(table.rows) == {"a", "z"}


def test_as_many_rejections_as_allowed_stop_nothing():
    entries = [rejection(1), rejection(2), item("a")]

    result = loaded(MemoryTable(), entries, max_rejects=2, batch_rows=1)

    assert result.tally == Tally(read=3, loaded=1, rejected=2)


def test_a_store_that_turned_out_empty_is_no_success():
    intake, target, chosen = begun(MemoryTable(), [])

    with pytest.raises(SourceError) as stopped:
        load(intake, target, chosen)

    assert str(stopped.value) == (
        "the store had records when it was opened, and none when it was read"
    )
    assert stopped.value.hint == (
        "Is another program emptying it? Stop that program, or work on a copy."
    )


def test_expired_records_are_skipped_if_told_so_and_those_that_expire_now_are_not():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    entries = [
        item("past", expires_at=(now - timedelta(seconds=1)).isoformat()),
        item("long past", expires_at=JANUARY),
        item("now", expires_at=now.isoformat()),
        item("never"),
        item("odd", expires_at="soon"),
        rejection(),
    ]
    keeping, skipping, nothing_left = MemoryTable(), MemoryTable(), MemoryTable()

    kept = loaded(keeping, entries)
    skipped = loaded(skipping, entries, expired=Expired.SKIP)
    all_skipped = loaded(nothing_left, entries[:1], expired=Expired.SKIP)

    assert (set(keeping.rows), kept.skipped) == ({"past", "long past", "now", "never", "odd"}, 0)
    assert (set(skipping.rows), skipped.skipped) == ({"now", "never", "odd"}, 2)
    assert (all_skipped.tally, all_skipped.skipped) == (Tally(), 1)


def test_a_second_pass_counts_from_the_beginning():
    entries = [item("a", expires_at=JANUARY), item("b", warnings=(("odd", "here"),))]
    intake, _, _ = begun(MemoryTable(), entries, expired=Expired.SKIP)

    for _ in range(2):
        assert [record.key for record in intake.records()] == ["b"]
        assert intake.skipped == 1
        assert intake.warnings == Counter({("odd", "here"): 1})


def test_what_a_reader_notes_as_odd_is_counted_with_the_records_oddities():
    reader = ListReader([item("a", warnings=("one",)), item("b", warnings=("one",))])
    reader.notes.warnings.append(("a place", Warn.NORMALIZED, "why"))
    intake = Intake(reader, LoadOptions(), now=STARTED)

    result = load(intake, MemoryTable().begin(), LoadOptions())

    assert result.warnings == Counter({"one": 2, Warn.NORMALIZED: 1})


def test_keys_never_met_in_a_first_load_are_not_asked_for():
    table = RefusingTable()

    loaded(table, [item("a"), item("b"), item("a", 2.0, JUNE)], batch_rows=2)
    first = list(table.asked)
    loaded(table, [item("c"), item("a", 2.0, JUNE)], batch_rows=2)

    assert first == [(["a"], {"a"})]
    assert table.asked[1:] == [(["c", "a"], set())]


def test_a_refused_record_is_rejected_and_the_rest_of_its_batch_is_in():
    table = RefusingTable(refuses=frozenset({"bad"}))

    result = loaded(table, [item("a"), item("bad"), item("c")])

    assert set(table.rows) == {"a", "c"}
    assert result.tally == Tally(read=3, loaded=2, rejected=1)
    assert result.rejected == Counter({Reason.TOO_LARGE: 1})
    assert (result.outlived, result.kept) == (frozenset(), frozenset())


def test_a_row_whose_record_was_refused_outlives_it_until_another_stands_behind_it():
    table = RefusingTable()
    loaded(table, [item("bad", 1.0), item("a")])
    table.refuses = frozenset({"bad"})

    refused = loaded(table, [item("bad", 2.0, JUNE), item("a")])
    table.refuses = frozenset()
    again = loaded(table, [item("bad", 2.0, JUNE), item("a")])

    assert (refused.outlived, refused.kept) == ({"bad"}, {"bad"})
    assert refused.tally == Tally(read=2, unchanged=1, rejected=1)
    assert (again.outlived, again.kept) == (frozenset(), frozenset())


@pytest.mark.parametrize("rows", [1, 10], ids=["in two batches", "in one batch"])
def test_a_row_that_wins_over_the_store_outlives_its_record(rows):
    table = RefusingTable()
    loaded(table, [item("a", 1.0), item("b", 1.0)])

    kept = loaded(table, [item("a", 2.0), item("b", 1.0)], on_conflict=OnConflict.KEEP)
    back = loaded(
        table, [item("a", 2.0), item("a", 1.0)], on_conflict=OnConflict.KEEP, batch_rows=rows
    )

    assert (kept.outlived, kept.kept) == ({"a"}, frozenset())
    assert kept.tally == Tally(read=2, unchanged=1, superseded=1)
    assert back.outlived == frozenset()
    assert back.tally == Tally(read=2, unchanged=1, superseded=1)


def test_each_way_to_replace_is_planned_and_counted():
    table = RefusingTable()
    loaded(table, [item("a", 1.0, JANUARY), item("b", 1.0, JANUARY)])

    result = loaded(
        table,
        # Over a row of an earlier run, twice in one batch; then over one of this run, then
        # over what stood for a record of this pass without being loaded by it.
        [
            item("a", 2.0, JUNE), item("a", 3.0, "2025-07-01"), item("b", 1.0, JANUARY),
            item("a", 4.0, "2025-08-01"), item("b", 2.0, JUNE), item("c", 1.0),
        ],
        batch_rows=3,
    )  # fmt: skip

    first, second = table.plans[1:]
    assert (first.overwritten, first.outdone) == (["a"], [])
    assert [(fate, one.origin) for fate, one in first.losers] == [(Fate.CONFLICT, "a/2.0")]
    assert first.tally == Tally(read=3, loaded=1, unchanged=1, superseded=1)
    assert (second.overwritten, second.outdone) == (["b"], ["a", "b"])
    assert second.losers == []
    assert second.tally == Tally(read=3, loaded=2, unchanged=-1, superseded=2)
    assert result.tally == Tally(read=6, loaded=3, superseded=3)
    assert {key: row.record.origin for key, row in table.rows.items()} == {
        "a": "a/4.0", "b": "b/2.0", "c": "c/1.0",
    }  # fmt: skip


def test_a_record_replaced_before_it_is_in_was_never_in():
    table = RefusingTable()

    result = loaded(table, [item("a", 1.0), item("a", 2.0, JUNE), item("a", 2.0, JUNE)])

    [plan] = table.plans
    assert (plan.overwritten, plan.outdone, dict(plan.replaces)) == ([], [], {})
    assert plan.inserts["a"].origin == "a/2.0"
    assert [(fate, one.origin) for fate, one in plan.losers] == [
        (Fate.CONFLICT, "a/1.0"), (Fate.DUPLICATE, "a/2.0"),
    ]  # fmt: skip
    assert result.tally == Tally(read=3, loaded=1, superseded=2)


@pytest.mark.parametrize("rows", [1, 10], ids=["in two batches", "in one batch"])
def test_of_records_met_together_the_later_stays_whichever_comes_first(rows):
    for entries in (
        [item("a", 1.0, JUNE), item("a", 2.0, JANUARY)],
        [item("a", 2.0, JANUARY), item("a", 1.0, JUNE)],
        [item("a", 2.0, JANUARY), item("a", 1.0, JUNE), item("a", 3.0, JANUARY)],
    ):
        table = MemoryTable()

        result = loaded(table, entries, batch_rows=rows)

        assert table.rows["a"].record.origin == "a/1.0"
        assert result.tally == Tally(read=len(entries), loaded=1, superseded=len(entries) - 1)


def test_many_rows_of_one_batch_are_all_counted():
    table = MemoryTable()
    loaded(table, [item(key, 1.0, JANUARY) for key in "abcdef"])
    unchanged = [item(key, 1.0, JANUARY) for key in "abc"]

    result = loaded(table, unchanged + [item(key, 2.0, JUNE) for key in "def"])
    again = loaded(table, [*unchanged, item("a", 2.0, JUNE)])

    assert result.tally == Tally(read=6, loaded=3, unchanged=3)
    assert again.tally == Tally(read=4, loaded=1, unchanged=2, superseded=1)


@pytest.mark.parametrize("rows", [1, 10], ids=["in two batches", "in one batch"])
def test_a_conflict_that_was_decided_stays_so_in_the_next_load(rows):
    table = MemoryTable()
    loaded(table, [item("a", 1.0), item("a", 2.0)])
    won = table.rows["a"].record.origin
    lost = 2.0 if won == "a/1.0" else 1.0

    again = loaded(table, [item("a", 3.0 - lost), item("a", lost)], batch_rows=rows)

    assert again.tally == Tally(read=2, unchanged=1, superseded=1)
    assert table.rows["a"].record.origin == won


@pytest.mark.parametrize(("old", "new"), [(1.0, 2.0), (2.0, 1.0)])
@pytest.mark.parametrize("rows", [1, 10], ids=["in two batches", "in one batch"])
def test_what_a_load_has_replaced_does_not_win_within_it(old, new, rows):
    table = MemoryTable()
    loaded(table, [item("a", old)])

    loaded(table, [item("a", new), item("a", old)], batch_rows=rows)

    assert table.rows["a"].record.origin == f"a/{new}"


def test_what_the_application_rewrites_makes_no_difference():
    table = MemoryTable()
    loaded(table, [item("a", reads=1)], volatile=("reads",))

    same = loaded(table, [item("a", reads=2), item("a", reads=3)], volatile=("reads",))
    new = loaded(table, [item("b", reads=2), item("b", reads=3)], volatile=("reads",))

    assert same.tally == Tally(read=2, unchanged=1, superseded=1)
    assert new.tally == Tally(read=2, loaded=1, superseded=1)
    assert table.superseded[-1].kind == Fate.DUPLICATE


def test_an_interrupted_run_counts_again_what_it_has_loaded():
    table = MemoryTable()
    intake, target, chosen = begun(table, [item("a"), item("b")])
    load(intake, target, chosen)  # and it is never finished

    again = loaded(table, [item("a"), item("b"), item("c")])

    assert again.tally == Tally(read=3, loaded=3)


@pytest.mark.parametrize("rows", [1, 10], ids=["in two batches", "in one batch"])
def test_an_id_that_was_guessed_must_not_repeat(rows):
    entries = [item("a", 1.0, JANUARY), item("b"), item("a", 2.0, JUNE)]
    intake, target, chosen = begun(MemoryTable(), entries, guesses_ids=True, batch_rows=rows)

    with pytest.raises(AmbiguousIds) as stopped:
        load(intake, target, chosen)

    assert stopped.value.key == "a"
    assert stopped.value.second == "a/2.0"
    assert stopped.value.first in ("a/1.0", "the table (run 1)")


def test_a_guessed_id_may_repeat_alike_and_meet_earlier_rows():
    table = MemoryTable()
    loaded(table, [item("a", 1.0, JANUARY)], guesses_ids=True)

    result = loaded(table, [item("a", 2.0, JUNE), item("a", 2.0, JUNE)], guesses_ids=True)

    assert result.tally == Tally(read=2, loaded=1, superseded=1)


def test_a_conflict_stops_the_load_if_told_so():
    with pytest.raises(ConflictFound):
        loaded(MemoryTable(), [item("a"), item("a", 2.0)], on_conflict=OnConflict.ERROR)


def test_an_interruption_ends_what_the_other_thread_is_committing():
    table = RefusingTable(interrupts=True)
    intake, target, chosen = begun(table, [item("a")])

    with pytest.raises(KeyboardInterrupt):
        load(intake, target, chosen)

    assert table.given_up == 1


def test_the_notes_say_all_that_is_no_count():
    reader = ListReader([])
    reader.notes.files, reader.notes.bytes = 3, 4
    reader.notes.without_vectors.append("d")
    reader.notes.left_out += [("f", "why"), ("g", "why")]
    result = LoadResult(
        Tally(),
        1.0,
        frozenset({"b", "a"}),
        5,
        Counter({"odd": 1}),
        Counter({Reason.UNPARSABLE: 2}),
        frozenset({"b", "a"}),
    )

    assert notes_of(result, reader) == {
        "kept_keys": ["a", "b"],
        "skipped": 5,
        "outlived": 2,
        "warnings": {"odd": 1},
        "rejected": {Reason.UNPARSABLE: 2},
        "files": 3,
        "bytes": 4,
        "without_vectors": 1,
        "left_out": 2,
    }
    assert "kept_keys" not in notes_of(LoadResult(Tally(), 1.0), reader)
