"""Both halves of the fingerprint, Python's and SQL's, say the same of the same records."""

import dataclasses
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from harca.fingerprint import BUCKETS, Fingerprint, digest, fingerprint, vector_bytes
from harca.load import Intake, load
from harca.model import Item, Record
from harca.normalize import normalize
from harca.options import LoadOptions
from harca.postgres.digest import dated, row_digest
from harca.postgres.rows import StoreRows
from harca.postgres.target import PostgresTarget, begin_run
from tests.unit.list_reader import ListReader

NOW = datetime(2026, 1, 1, tzinfo=UTC)
_stores = count(1)


def item(key="k", **fields):
    given_fields = {
        "content": "text",
        "vector": [1.0, 2.0],
        "metadata": {"a": 1},
        "model_id": "model",
        "created_at": "2025-03-16T03:08:02.864Z",
        **fields,
    }
    return Item(key=key, source="test", origin=key, payload=lambda: b"", **given_fields)


def record(key="k", **fields) -> Record:
    (made,) = accepted([item(key, **fields)])
    return made


def accepted(items) -> list[Record]:
    made = [normalize(one) for one in items]
    assert all(isinstance(one, Record) for one in made), made
    return made  # type: ignore[return-value]  # all() narrows nothing


def loaded(conn, items, volatile=()):
    """Load *items* as a store of their own, as `migrate` does; return its rows."""
    store = f"store {next(_stores)}"
    run = begin_run(conn, store, store_format="list", revision=None, options={})
    target = PostgresTarget(conn, run, volatile=volatile)
    intake = Intake(ListReader(items), LoadOptions(), now=NOW)
    load(intake, target, LoadOptions())
    target.finish({})
    return StoreRows(conn, store, run.run_id)


def digests_by_key(conn, store, volatile=()):
    statement = sql.SQL(
        "SELECT v.store_key, {digest} FROM vector_embeddings v JOIN load_runs r USING (run_id) "
        "WHERE v.store = %(store)s"
    ).format(digest=row_digest("v", created_at=dated("v", "r")))
    found = conn.execute(statement, {"store": store, "volatile": list(volatile)})
    return dict(found.fetchall())


EDGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "unicode": {"content": "日本語（全角）👩‍👩‍👧‍👦 e\u0301", "model_id": "モデル"},
    "empty text": {"content": ""},
    "empty metadata": {"metadata": {}},
    "no metadata": {"metadata": None},
    "undated": {"created_at": None},
    "unreadable date": {"created_at": "soon"},
    "microseconds": {"created_at": "2025-03-16T03:08:02.123457+09:00"},
    "before 1970": {"created_at": "1969-12-31T23:59:59.999999Z"},
    "at 1970": {"created_at": "1970-01-01T00:00:00Z"},
    "before 2000": {"created_at": "1999-12-31T23:59:59.999999Z"},
    "first date": {"created_at": "0001-01-01T00:00:00.000001Z"},
    "last date": {"created_at": "9999-12-31T23:59:59.999999Z"},
    "denormal": {"vector": [1e-45, -1e-45, 1.1754942e-38]},
    "negative zero": {"vector": [-0.0, 1.0]},
    "zero vector": {"vector": [0.0, 0.0, 0.0]},
    "largest": {"vector": [3.4028234663852886e38, -3.4028234663852886e38]},
    "not exact in float32": {"vector": [0.1, 1 / 3]},
    "one dimension": {"vector": [1.0]},
    "16,000 dimensions": {"vector": [0.5] * 16_000},
    "metadata to be escaped": {"metadata": {'"\\\n\x01': ["\u2028", {"é": -0.0, "zz": 1e-7}]}},
    "metadata numbers": {"metadata": {"a": 5e-324, "b": 10**40, "c": 1.50, "d": 1e22}},
    "NUL look-alike": {"content": "\u2400 \\u0000"},
}


def test_the_digest_in_sql_equals_the_digest_in_python(conn):
    items = [item(name, **fields) for name, fields in EDGES.items()]

    rows = loaded(conn, items)

    expected = {one.key: digest(one) for one in accepted(items)}
    assert digests_by_key(conn, rows.store) == expected
    assert rows.fingerprint() == fingerprint(accepted(items))
    assert str(rows.fingerprint()) == str(fingerprint(accepted(items)))


def test_keys_left_out_are_left_out_on_both_sides(conn):
    items = [item("k", metadata={"read": 5, "kept": 1, "at": "x"}), item("none", metadata={})]

    rows = loaded(conn, items)

    volatile = ["at", "read"]
    assert digests_by_key(conn, rows.store, volatile) == {
        one.key: digest(one, without=volatile) for one in accepted(items)
    }
    assert digest(record(metadata={"read": 5, "kept": 1}), without=["read"]) == digest(
        record(metadata={"kept": 1})
    )


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
some_items = st.builds(
    item,
    texts,
    content=texts,
    model_id=texts,
    vector=st.lists(floats32, min_size=1, max_size=5),
    metadata=st.dictionaries(texts, texts | floats32 | st.integers() | st.booleans(), max_size=3),
    created_at=st.none() | st.datetimes().map(datetime.isoformat),
)


# Each example is a store of its own in the one database.
@given(items=st.lists(some_items, min_size=1, max_size=30))
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_rows_and_losers_together_have_the_stores_fingerprint(conn, items):
    rows = loaded(conn, items)

    assert rows.fingerprint() == fingerprint(accepted(items))


def test_the_vector_is_hashed_as_the_server_sends_it(conn):
    embedding = np.array([-0.0, 1e-45, 0.1, -3.4028235e38], dtype=np.float32)

    sent = conn.execute("SELECT vector_send(%s::real[]::vector)", [embedding.tolist()]).fetchone()

    assert sent == (vector_bytes(embedding),)


def test_order_does_not_matter_and_duplicates_count():
    one, two = record("1"), record("2")

    assert fingerprint([one, two]) == fingerprint([two, one])
    assert fingerprint([one, one, two]) != fingerprint([two])
    assert fingerprint([one, one]) != fingerprint([])
    assert fingerprint([one, one, two]) != fingerprint([one, two, two])
    assert fingerprint([one, one, two]).count == 3


CHANGES = {
    "key": {"key": "K"},
    "content": {"content": "text "},
    "model": {"model_id": "Model"},
    "metadata value": {"metadata": {"a": "2"}},
    "metadata key": {"metadata": {"b": "1"}},
    "metadata 1.0": {"metadata": {"a": "1.0"}},
    "no metadata": {"metadata": {}},
    "one microsecond": {"created_at": datetime(2025, 1, 1, 0, 0, 0, 1, tzinfo=UTC)},
    "no date": {"created_at": None},
    "one bit of the vector": {
        "embedding": np.nextafter(np.array([1, 2], np.float32), np.float32(9))
    },
    "sign of zero": {"embedding": np.array([1.0, -0.0], np.float32)},
    "one component more": {"embedding": np.array([1, 2, 0], np.float32)},
    "order of components": {"embedding": np.array([2, 1], np.float32)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_any_changed_field_changes_the_fingerprint(change):
    before = record(created_at="2025-01-01T00:00:00Z")
    if "sign" in str(change):
        before = dataclasses.replace(before, embedding=np.array([1.0, 0.0], np.float32))

    after = dataclasses.replace(before, **change)

    assert fingerprint([before]) != fingerprint([after])
    assert str(fingerprint([before])) != str(fingerprint([after]))


@pytest.mark.parametrize("field", ["source", "origin"])
def test_where_a_record_came_from_is_no_content(field):
    change: Any = {field: "elsewhere"}

    assert digest(record()) == digest(dataclasses.replace(record(), **change))


def test_text_does_not_move_from_one_field_into_the_next():
    assert digest(record("ab", model_id="c")) != digest(record("a", model_id="bc"))
    assert digest(record("a", content="bc")) != digest(record("ab", content="c"))


def test_a_date_is_not_taken_for_a_part_of_the_vector():
    """Six dimensions and no date send the bytes of a date and four dimensions."""
    half = np.full(6, 0.5, np.float32)
    micros = int.from_bytes(vector_bytes(half)[:8], "big")
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    four = np.array([1, 2, 3, 4], np.float32)
    as_float = np.frombuffer(vector_bytes(four)[:4], ">f4").astype(np.float32)
    six = np.concatenate([half[:1], as_float, four])

    dated = dataclasses.replace(record(), created_at=moment, embedding=four)
    undated = dataclasses.replace(record(), created_at=None, embedding=six)

    assert digest(dated) != digest(undated)


def test_a_time_zone_is_no_difference():
    tokyo = record(created_at="2025-03-16T12:08:02.864+09:00")

    assert digest(tokyo) == digest(record(created_at="2025-03-16T03:08:02.864Z"))


def test_differing_names_the_buckets_of_what_differs():
    records = [record(str(number)) for number in range(1000)]
    changed = dataclasses.replace(records[7], content="changed")
    whole = fingerprint(records)

    missing = whole.differing(fingerprint(records[1:]))
    replaced = whole.differing(fingerprint([*records[:7], changed, *records[8:]]))

    assert missing == [digest(records[0])[0]]
    assert replaced == sorted({digest(records[7])[0], digest(changed)[0]})
    assert whole.differing(whole) == []
    assert whole.differing(Fingerprint()) == sorted({digest(one)[0] for one in records})


def test_parts_from_the_server_add_up_to_the_same_sum():
    records = [record(str(number)) for number in range(600)]
    whole, parts = fingerprint(records), Fingerprint()

    for half in (records[:300], records[300:]):
        part = fingerprint(half)
        for bucket in range(BUCKETS):
            parts.add_part(bucket, part.counts[bucket], part.sums[bucket] + 2**64)

    assert parts == whole
    assert str(parts) == str(whole)


def test_a_fingerprint_is_shown_as_count_and_hash():
    records = [record(str(number)) for number in range(3)]

    count_shown, _, hash_shown = str(fingerprint(records)).partition(":")

    assert count_shown == "3"
    assert len(bytes.fromhex(hash_shown)) == 8
    assert str(fingerprint(reversed(records))) == f"3:{hash_shown}"


@pytest.mark.parametrize("offset", [-1, 0, 1], ids=["just before", "at", "just after"])
def test_micros_are_exact_around_both_epochs(conn, offset):
    items = [
        item(f"{year}", created_at=(start + timedelta(microseconds=offset)).isoformat())
        for year in (1970, 2000, 2262)
        for start in [datetime(year, 1, 1, tzinfo=UTC)]
    ]

    rows = loaded(conn, items)

    assert digests_by_key(conn, rows.store) == {one.key: digest(one) for one in accepted(items)}
