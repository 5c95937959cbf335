"""The comparison of a store with its rows, where the rows are in memory: what is no success."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from harca.batching import Batch
from harca.errors import NothingToVerify
from harca.fingerprint import Fingerprint, digest
from harca.model import Item, Reason, Record, Rejection, Tally
from harca.normalize import normalize
from harca.verify import (
    LISTED,
    Check,
    Difference,
    Mismatch,
    Reading,
    Seen,
    Verification,
    verify,
    verify_reading,
)


def record(key="k", vector=1.0, **metadata) -> Record:
    made = normalize(
        Item(
            key=key,
            content="text",
            vector=[vector, 1.0],
            metadata=metadata,
            model_id="model",
            created_at=None,
            source="test",
            origin=f"at {key}",
            payload=lambda: b"",
        )
    )
    assert isinstance(made, Record)
    return made


BAD = Rejection("bad", Reason.UNPARSABLE, "odd", b"")


def printed(records: list[Record], *, without: Collection[str] = ()) -> Fingerprint:
    made = Fingerprint()
    for one in records:
        made.add(digest(one, without=without))
    return made


@dataclass
class MemoryRows:
    """Rows in a list, and a ledger that is right unless a test says otherwise."""

    held: list[Record]
    rejected: int = 0
    kept: list[Record] = field(default_factory=list)
    store: str = "store"
    noted_tally: Tally | None = None
    recounted: Tally | None = None
    seal: list[Any] = field(default_factory=list)
    before: Seen | None = None
    labels: Fingerprint = field(default_factory=Fingerprint)
    outlived: Fingerprint = field(default_factory=Fingerprint)
    told: list[Difference] = field(default_factory=list)
    wanted: Any = None

    def ledger(self) -> tuple[Tally, Tally]:
        loaded, rejected = len(self.held), self.rejected + len(self.kept)
        right = Tally(read=loaded + rejected, loaded=loaded, rejected=rejected)
        return self.noted_tally or right, self.recounted or self.noted_tally or right

    def spaces(self) -> dict[tuple[str, int], int]:
        return dict(Counter(one.space for one in self.held))

    def seals(self) -> Iterator[Any]:
        yield from self.seal

    def refused(self) -> Iterator[Record]:
        yield from self.kept

    def seen(self, *, without: Collection[str] = ()) -> Seen:
        return Seen(printed(self.held, without=without), self.labels, self.outlived)

    def noted(self) -> Seen | None:
        return self.before

    def differences(self, expected, buckets, labels) -> Iterator[Difference]:
        self.wanted = (list(expected), buckets, labels)
        yield from self.told


def failed(outcome: Verification) -> list[str]:
    assert outcome.ok is not any(not check.ok for check in outcome.checks)
    return [check.name for check in outcome.checks if not check.ok]


def compared(entries: Sequence[Record | Rejection], rows: MemoryRows, **options) -> Verification:
    return verify(lambda: entries, rows, **options)


def test_equal_sides_are_equal_in_every_check():
    store = [record("a"), record("b", 2.0)]

    outcome = compared(store, MemoryRows(store))

    assert outcome.ok
    assert [check.name for check in outcome.checks] == [
        "ledger", "accounting", "rejections", "records", "space model/2",
        "rows kept from earlier runs", "labels", "fingerprint",
    ]  # fmt: skip
    assert (outcome.store, outcome.mismatches, outcome.mismatch_count) == ("store", [], 0)
    assert (outcome.touched, outcome.rejected, outcome.summary) == (0, 0, "")
    assert outcome.fingerprint == str(printed(store))
    assert outcome.seen == MemoryRows(store).seen()


def test_nothing_compared_is_no_success():
    assert not Verification("store").ok
    with pytest.raises(NothingToVerify, match='"store" has no record that could be in the table'):
        compared([], MemoryRows([]))
    with pytest.raises(NothingToVerify):
        verify_reading(Reading(), MemoryRows([]))


def test_a_store_of_rejections_alone_is_counted_and_no_success():
    outcome = compared([BAD], MemoryRows([], rejected=1))

    assert failed(outcome) == ["records that are not rejected"]
    assert outcome.rejected == 1


@pytest.mark.parametrize(
    ("noted", "recounted", "names"),
    [
        (Tally(read=2, loaded=2), Tally(read=2, loaded=1, unchanged=1), ["ledger"]),
        (Tally(read=3, loaded=2), None, ["accounting"]),
        (Tally(read=1, loaded=2), None, ["accounting"]),
        (Tally(read=6, loaded=1, unchanged=2, superseded=3), None, []),
        (Tally(read=3, loaded=2, rejected=1), None, ["rejections"]),
    ],
)
def test_a_ledger_that_does_not_add_up_is_found(noted, recounted, names):
    store = [record("a"), record("b")]

    outcome = compared(store, MemoryRows(store, noted_tally=noted, recounted=recounted))

    assert failed(outcome) == names


def test_rejections_and_refusals_are_accounted_for():
    first, second = record("a"), record("b")
    store: list[Record | Rejection] = [first, second, BAD, BAD]

    right = compared(store, MemoryRows([first], rejected=2, kept=[second]))
    lost = compared(store, MemoryRows([first], rejected=2))

    assert failed(right) == []
    assert right.rejected == 3
    assert failed(lost) == ["records", "space model/2", "fingerprint"]


def test_a_store_all_of_which_was_refused_is_no_success():
    store = [record("a"), record("b")]

    outcome = compared(store, MemoryRows([], kept=store))

    assert failed(outcome) == ["records that are not rejected"]
    [check] = [check for check in outcome.checks if not check.ok]
    assert (check.expected, check.found) == ("1 or more", 0)


def test_each_run_s_seal_is_a_check_of_its_own():
    store = [record("a")]
    rows = MemoryRows(store, seal=[(1, {"x": "1"}, {"x": "1"}), (7, {"x": "1"}, {"x": "2"})])

    outcome = compared(store, rows)

    assert failed(outcome) == ["ledger of run 7"]
    assert "ledger of run 1" in [check.name for check in outcome.checks]


def test_spaces_on_either_side_alone_are_named():
    here, there = record("a"), record("a", model="x")
    there = Record(**{**{name: getattr(there, name) for name in there.__slots__}, "model_id": "z"})

    outcome = compared([here], MemoryRows([there]))

    checks = {check.name: (check.expected, check.found) for check in outcome.checks}
    assert checks["space model/2"] == (1, 0)
    assert checks["space z/2"] == (0, 1)
    assert checks["records"] == (1, 1)


def test_what_was_noted_of_the_rows_must_still_hold():
    store = [record("a")]
    other = printed([record("other")])
    rows = MemoryRows(store)

    rows.before = Seen(printed(store), Fingerprint(), other)
    outlived = compared(store, rows)
    rows.before = Seen(printed(store), other, Fingerprint())
    labels = compared(store, rows)

    assert failed(outlived) == ["rows kept from earlier runs"]
    assert failed(labels) == ["labels"]
    assert rows.wanted is not None
    assert [one.key for one, _ in rows.wanted[0]] == ["a"]  # whatever its bucket
    assert rows.wanted[1] == []
    assert rows.wanted[2] == other.differing(Fingerprint())


def test_only_records_of_parts_that_differ_are_read_again():
    store = [record(str(number)) for number in range(40)]
    changed = [record("0", 9.0), *store[1:]]
    rows = MemoryRows(changed)

    outcome = compared([*store, BAD], rows)

    expected, buckets, labels = rows.wanted
    assert buckets == sorted({digest(store[0])[0], digest(changed[0])[0]})
    assert labels == []
    assert [(one.key, hashed) for one, hashed in expected] == [
        (one.key, digest(one)) for one in store if digest(one)[0] in buckets
    ]
    assert len(expected) < 40
    assert failed(outcome) == ["rejections", "fingerprint"]  # though nothing was named
    assert outcome.checks[-1].expected == str(printed(store))
    assert outcome.checks[-1].found == str(printed(changed))


def difference(**fields: Any) -> Difference:
    return Difference(
        **{"store_key": "k", "origin": "o", "is_missing": False, "is_extra": False, **fields}
    )


def touched(**fields: Any) -> Difference:
    bucket = digest(record("a", reads=2))[0]
    return difference(
        **{
            "fields": ("metadata",), "metadata": ({"reads": 3}, {"reads": 2}),
            "metadata_keys": ("reads",), "bucket": bucket, **fields,
        }
    )  # fmt: skip


EXCUSED = {
    "moved on": touched(),
    "a later date": touched(metadata=({"reads": "2026"}, {"reads": "2025"})),
}
NOT_EXCUSED = {
    "moved back": touched(metadata=({"reads": 1}, {"reads": 2})),
    "the same": touched(metadata=({"reads": 2}, {"reads": 2})),
    "of another type": touched(metadata=({"reads": 3.0}, {"reads": 2})),
    "a list": touched(metadata=({"reads": [3]}, {"reads": [2]})),
    "gone": touched(metadata=({}, {"reads": 2})),
    "another key": touched(metadata_keys=("reads", "title")),
    "no key": touched(metadata_keys=()),
    "the text too": touched(fields=("content", "metadata")),
    "the text": touched(fields=("content",)),
    "a row changed since": touched(bucket=None),
}


@pytest.mark.parametrize("told", EXCUSED.values(), ids=EXCUSED)
def test_bookkeeping_that_moved_on_is_no_difference(told):
    rows = MemoryRows([record("a", reads=2)], told=[told, told])

    outcome = compared([record("a", reads=3)], rows, volatile=frozenset({"reads"}))

    assert failed(outcome) == []
    assert (outcome.touched, outcome.mismatch_count, outcome.mismatches) == (2, 0, [])


@pytest.mark.parametrize("told", NOT_EXCUSED.values(), ids=NOT_EXCUSED)
def test_anything_else_is_a_difference(told):
    rows = MemoryRows([record("a", reads=2)], told=[EXCUSED["moved on"], told])

    outcome = compared([record("a", reads=3)], rows, volatile=frozenset({"reads"}))

    assert failed(outcome) == ["fingerprint"]
    assert (outcome.touched, outcome.mismatch_count, len(outcome.mismatches)) == (1, 1, 1)
    assert outcome.summary == "1 record"


def test_rows_that_were_changed_are_not_excused_as_read():
    rows = MemoryRows([record("a", reads=2)], told=[touched()])
    rows.before = Seen(printed([record("a", reads=1)]), Fingerprint(), Fingerprint())

    outcome = compared([record("a", reads=3)], rows, volatile=frozenset({"reads"}))

    assert failed(outcome) == ["fingerprint"]


def test_all_differences_are_counted_and_the_first_listed():
    rows = MemoryRows([record("a")], told=[difference(fields=("content",))] * (LISTED + 3))

    outcome = compared([record("b")], rows)

    assert (len(outcome.mismatches), outcome.mismatch_count) == (LISTED, LISTED + 3)
    assert outcome.summary == f"{LISTED + 3} records"


WORDS = {
    "missing": (
        difference(is_missing=True, origin="a.json"),
        Mismatch("k", "missing", "in the store at a.json"),
    ),
    "extra": (
        difference(is_extra=True, origin="row 7"),
        Mismatch("k", "extra", "row 7, not in the store"),
    ),
    "fields": (
        difference(fields=("content", "embedding")),
        Mismatch("k", "content, embedding", "in the store at o"),
    ),
    "metadata": (
        difference(fields=("content", "metadata"), metadata_keys=("a", "é", " ", "\n")),
        Mismatch(
            "k", "content, metadata", "in the store at o; metadata keys: a, é, ' ', '\\n'"
        ),
    ),
    "no object": (
        difference(fields=("metadata",)),
        Mismatch("k", "metadata", "in the store at o; the metadata are no object"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("told", "expected"), WORDS.values(), ids=WORDS)
def test_a_difference_is_told_by_its_kind_and_place(told, expected):
    outcome = compared([record("b")], MemoryRows([record("a")], told=[told]))

    assert outcome.mismatches == [expected]
    assert outcome.as_dict()["mismatches"] == [
        {
            "store_key": expected.store_key,
            "difference": expected.difference,
            "detail": expected.detail,
        }
    ]


def test_the_outcome_has_every_field_in_json():
    outcome = Verification(
        "s",
        [Check("a", 1, 2), Check("b", 1, 1)],
        mismatches=[Mismatch("k", "missing")],
        touched=3,
        rejected=4,
        fingerprint="f",
    )

    assert outcome.as_dict() == {
        "ok": False,
        "store": "s",
        "checks": [
            {"name": "a", "ok": False, "expected": 1, "found": 2},
            {"name": "b", "ok": True, "expected": 1, "found": 1},
        ],
        "mismatches": [{"store_key": "k", "difference": "missing", "detail": ""}],
        "mismatch_count": 0,
        "touched": 3,
        "rejected": 4,
        "fingerprint": "f",
    }
    assert outcome.summary == "a: expected 1, found 2"


def test_progress_is_told_each_thousand_and_at_the_end():
    store: list[Record | Rejection] = [record(str(number)) for number in range(1001)]
    told: list[int] = []

    compared([*store, BAD, *[BAD] * 998], MemoryRows([]), progress=told.append)

    compared(store[:999], MemoryRows([]), progress=told.append)

    assert told == [1000, 2000, 2000, 999]


def test_a_reading_is_compared_as_the_store_was():
    reading = Reading(frozenset({"reads"}))
    for one in (record("a", reads=1), BAD):
        reading.add(one)

    right = verify_reading(reading, MemoryRows([record("a", reads=5)], rejected=1))
    wrong = verify_reading(reading, MemoryRows([record("a", 2.0)], rejected=1))

    assert failed(right) == []
    assert right.checks[-1].name == "fingerprint of what was read"
    assert failed(wrong) == ["fingerprint of what was read"]
    assert wrong.mismatch_count == 0


def test_a_refused_record_is_compared_without_what_was_left_out_of_the_reading():
    reading = Reading(frozenset({"reads"}))
    for one in (record("a"), record("b", reads=1)):
        reading.add(one)

    outcome = verify_reading(reading, MemoryRows([record("a")], kept=[record("b", reads=2)]))

    assert failed(outcome) == []


def test_a_batch_is_read_as_its_entries_are():
    reading, batchwise = Reading(), Reading()
    for one in (record("a"), record("b"), BAD):
        reading.add(one)

    batchwise.add_all(Batch(1, [record("a")], [BAD]))
    batchwise.add_all(Batch(2, [record("b")], []))

    assert batchwise == reading
    assert (batchwise.records.count, batchwise.rejected) == (2, 1)
