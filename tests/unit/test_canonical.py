"""`jsonb_text` prints what the server prints, byte for byte."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harca.canonical import NotStorable, jsonb_text, object_parts, object_text

SQL = (
    "SELECT value::jsonb::text FROM unnest(%s::text[]) WITH ORDINALITY AS given (value, at) "
    "ORDER BY at"
)

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
numbers = (
    st.integers()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-1e-300, 1e-300)
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=6),
    max_leaves=12,
)


def printed_by_server(conn, given_values):
    # Python's own encoder on this side: what is tested has no part in it.
    encoded = [json.dumps(value, ensure_ascii=False) for value in given_values]
    return [text for (text,) in conn.execute(SQL, [encoded])]


# One query takes a batch of values; the database stays as it is, so examples can share it.
@given(batch=st.lists(values, min_size=1, max_size=60))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_json_value_is_printed_as_the_server_does(conn, batch):
    assert [jsonb_text(value) for value in batch] == printed_by_server(conn, batch)


NAMED = {
    "negative zero": -0.0,
    "zero": 0.0,
    "one": 1.0,
    "smallest denormal": 5e-324,
    "largest denormal": 2.225073858507201e-308,
    "largest double": 1.7976931348623157e308,
    "exponent, fractional digits": 1.5e-7,
    "exponent, one digit": 1e-5,
    "sixteen digits": 1e16,
    "seventeen digits": 0.1 + 0.2,
    "integer over 64 bits": 2**64,
    "negative integer over 64 bits": -(2**64),
    "integer of 4,000 digits": 10**4000 - 1,
    "every control character": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "escapes": '"\\/\b\f\n\r\t',
    "line separators": "\u2028\u2029\ufeff",
    "emoji": "👩‍👩‍👧‍👦🇯🇵",
    "not normalised": "e\u0301 é",
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "empty text": "",
    "empty object": {},
    "empty list": [],
    "empty key": {"": 1, "a": 2},
    "keys by length in bytes": {"bb": 1, "a": 2, "é": 3, "ccc": 4, "日": 5, "zz": 6},
    "keys with control characters": {"\n": 1, "\x01": 2, '"': 3},
    "nested": {"b": [{"z": [], "a": {}}, [[1.50]]], "a": None},
    "deeply nested": json.loads("[" * 200 + "]" * 200),
}


@pytest.mark.parametrize("value", NAMED.values(), ids=NAMED)
def test_what_is_easily_printed_otherwise(conn, value):
    assert [jsonb_text(value)] == printed_by_server(conn, [value])


@given(value=st.dictionaries(texts, values, max_size=8), left_out=st.sets(texts, max_size=3))
@settings(max_examples=100, deadline=None)
def test_an_object_without_keys_is_the_object_that_never_had_them(value, left_out):
    left_out |= set(list(value)[:1])

    printed = object_text(object_parts(value), without=left_out)

    assert printed == jsonb_text({key: one for key, one in value.items() if key not in left_out})


WRAPPED = {
    "bare": lambda value: value,
    "in a list": lambda value: [1, value],
    "in an object": lambda value: {"a": {"b": value}},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize(
    ("value", "what"),
    [
        (math.nan, "the number nan"),
        (math.inf, "the number inf"),
        (-math.inf, "the number -inf"),
        ("a\0b", "a NUL character"),
        ("a\ud800b", "half of a surrogate pair"),
        ("\udfff", "half of a surrogate pair"),
        ({1: "a"}, "a key of type int"),
        ({None: "a"}, "a key of type NoneType"),
        ({"a\0": 1}, "a NUL character"),
        ({"\ud800": 1}, "half of a surrogate pair"),
        (b"bytes", "a value of type bytes"),
        ({1, 2}, "a value of type set"),
    ],
    ids=[
        "nan", "inf", "-inf", "NUL", "high surrogate", "low surrogate", "number as key",
        "null as key", "NUL in key", "surrogate in key", "bytes", "set",
    ],
)  # fmt: skip
def test_what_jsonb_cannot_hold_is_refused(value, what, wrap):
    with pytest.raises(NotStorable) as caught:
        jsonb_text(wrap(value))

    assert caught.value.what == what


@pytest.mark.parametrize("value", ["\0", "\ud800"], ids=["NUL", "surrogate"])
def test_the_server_refuses_the_same(conn, value):
    import psycopg

    with pytest.raises(psycopg.errors.DataError):
        conn.execute("SELECT %s::jsonb", [json.dumps(value)])
