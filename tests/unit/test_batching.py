"""Batches hold everything once, and are bounded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harca.batching import batched
from harca.model import Reason, Record, Rejection


def record(origin, *, dims=1, content="", metadata=None):
    vector = np.ones(dims, dtype=np.float32)
    return Record(origin, content, vector, metadata or {}, "m", None, "s", origin)


def rejection(origin, payload=b""):
    return Rejection(origin, Reason.UNPARSABLE, "", payload)


def shape(batches):
    return [(len(batch.records), len(batch.rejections)) for batch in batches]


@pytest.mark.parametrize(
    ("entries", "rows", "sizes"),
    [(0, 3, []), (1, 3, [1]), (3, 3, [3]), (4, 3, [3, 1]), (6, 3, [3, 3]), (3, 1, [1, 1, 1])],
    ids=["none", "one", "full", "one over", "two full", "one each"],
)
def test_a_batch_has_at_most_so_many_rows(entries, rows, sizes):
    batches = list(batched((record(str(number)) for number in range(entries)), rows=rows))

    assert [batch.read for batch in batches] == sizes
    assert [batch.number for batch in batches] == list(range(1, len(sizes) + 1))


def test_rejections_count_as_rows():
    entries = [record("1"), rejection("2"), rejection("3"), record("4"), record("5")]

    assert shape(batched(entries, rows=2)) == [(1, 1), (1, 1), (1, 0)]


@pytest.mark.parametrize(
    ("entries", "sizes"),
    [
        ([record("a", dims=100)] * 4, [2, 2]),
        ([record("a", content="x" * 500)] * 4, [2, 2]),
        ([rejection("a", b"x" * 500)] * 4, [2, 2]),
        ([record("a", metadata={"note": "x" * 500})] * 4, [2, 2]),
        ([record("a", content="x" * 5000)] * 2, [1, 1]),
        ([rejection("a", None)] * 4, [4]),
    ],
    ids=[
        "vectors",
        "texts",
        "payloads",
        "metadata",
        "one record too large",
        "no payload",
    ],
)
def test_a_batch_has_about_so_many_bytes(entries, sizes):
    assert [batch.read for batch in batched(entries, max_bytes=800)] == sizes


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 7), st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_every_entry_is_in_one_batch_in_order(kinds, rows, max_bytes):
    entries = [
        record(str(number)) if good else rejection(str(number), b"1234")
        for number, good in enumerate(kinds)
    ]

    batches = list(batched(entries, rows=rows, max_bytes=max_bytes))

    records = [one for batch in batches for one in batch.records]
    rejections = [one for batch in batches for one in batch.rejections]
    assert records == [one for one in entries if isinstance(one, Record)]
    assert rejections == [one for one in entries if isinstance(one, Rejection)]
    assert all(1 <= batch.read <= rows for batch in batches)


def test_batches_are_made_while_the_store_is_read():
    taken = []

    def entries():
        for number in range(5):
            taken.append(number)
            yield record(str(number))

    first = next(batched(entries(), rows=2))

    assert first.read == 2
    assert taken == [0, 1]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([record("a")], ("a", "a")),
        ([record("a"), record("b")], ("a", "b")),
        ([rejection("x"), rejection("y")], ("x", "y")),
        ([record("a"), rejection("z")], ("a", "z")),
    ],
    ids=["one", "two", "only rejections", "both"],
)
def test_a_batch_names_where_it_begins_and_ends(entries, expected):
    (batch,) = batched(entries)

    assert batch.origins == expected


def test_a_batch_that_begins_with_a_rejection_names_it():
    (batch,) = batched([rejection("a"), record("b"), record("c")])

    assert batch.origins == ("a", "c")
