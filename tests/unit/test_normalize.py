"""Items become records, or rejections that say what is wrong."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harca.model import Item, Reason, Record, Rejection, Warn
from harca.normalize import MAX_DIMS, normalize, to_datetime, to_vector


def item(**fields):
    given_fields = {
        "key": "k",
        "content": "text",
        "vector": [1.0, 2.0],
        "metadata": {},
        "model_id": "model",
        "created_at": None,
        **fields,
    }
    return Item(source="test", origin="a/b.json", payload=lambda: b"whole", **given_fields)


def accepted(**fields) -> Record:
    made = normalize(item(**fields))
    assert isinstance(made, Record), made
    return made


def deep(levels):
    inner: dict[str, object] = {}
    for _ in range(levels):
        inner = {"a": inner}
    return inner


REFUSED = {
    "no text": ({"content": None}, "no-text", "expected a string as text, found nothing"),
    "text is a number": ({"content": 5}, "no-text", "expected a string as text, found a number"),
    "no key": ({"key": None}, "no-text", "expected a string as key, found nothing"),
    "no model": (
        {"model_id": None}, "model-not-text", "expected a string as model label, found nothing",
    ),
    "model is a boolean": (
        {"model_id": True}, "model-not-text", "expected a string as model label, found a boolean",
    ),
    "no vector": ({"vector": None}, "no-vector", "there is no vector"),
    "vector is text": (
        {"vector": "[1]"}, "not-a-vector", "expected a list of numbers, found a string",
    ),
    "vector is a number": (
        {"vector": 1.5}, "not-a-vector", "expected a list of numbers, found a number",
    ),
    "vector is an object": (
        {"vector": {"text": "x", "vector": [1], "c": 1, "d": 2}},
        "not-a-vector",
        "expected a list of numbers, found an object with text, vector, c",
    ),
    "vector is an empty object": (
        {"vector": {}}, "not-a-vector", "expected a list of numbers, found an empty object",
    ),
    "boolean": (
        {"vector": [1.0, True]}, "not-a-vector", "component 1 is a boolean, expected a number",
    ),
    "only booleans": (
        {"vector": [False, True]}, "not-a-vector", "component 0 is a boolean, expected a number",
    ),
    "number in quotes": (
        {"vector": [1.0, "2.0"]}, "not-a-vector", "component 1 is a string, expected a number",
    ),
    "nested list": (
        {"vector": [[1.0], [2.0]]}, "not-a-vector", "component 0 is a list, expected a number",
    ),
    "object in the list": (
        {"vector": [1, {"a": 1}]},
        "not-a-vector",
        "component 1 is an object with a, expected a number",
    ),
    "empty vector": ({"vector": []}, "empty-vector", "the vector has no components"),
    "null": ({"vector": [1.0, None]}, "non-finite", "component 1 is null"),
    "NaN": ({"vector": [1.0, math.nan]}, "non-finite", "component 1 is nan"),
    "infinity": ({"vector": [-math.inf]}, "non-finite", "component 0 is -inf"),
    "1e39": (
        {"vector": [0.0, 1e39]}, "non-finite", "component 1 is 1e+39, beyond float32 (3.4e+38)",
    ),
    "rounds to infinity": (
        {"vector": [-3.4028235677973366e38]},
        "non-finite",
        "component 0 is -3.4028235677973366e+38, beyond float32 (3.4e+38)",
    ),
    "integer beyond float32": (
        {"vector": [10**39]}, "non-finite", "component 0 is 1e+39, beyond float32 (3.4e+38)",
    ),
    "integer beyond a double": (
        {"vector": [1, 10**400]}, "non-finite", "a component is beyond a double's range",
    ),
    "16,001 dimensions": (
        {"vector": [0.5] * 16_001},
        "too-many-dims",
        "16001 dimensions, pgvector takes at most 16000",
    ),
    "NUL in text": (
        {"content": "ab\0c"}, "nul-in-text", "the text has a NUL character at position 2",
    ),
    "NUL in key": ({"key": "\0"}, "nul-in-text", "the key has a NUL character at position 0"),
    "NUL in model": (
        {"model_id": "m\0"}, "nul-in-text", "the model label has a NUL character at position 1",
    ),
    "NUL in metadata": (
        {"metadata": {"a": ["\0"]}}, "nul-in-text", "the metadata holds a NUL character",
    ),
    "surrogate in text": (
        {"content": "日\ud800"},
        "lone-surrogate",
        "the text has half of a surrogate pair at position 1",
    ),
    "surrogate in metadata": (
        {"metadata": {"\udc00": 1}},
        "lone-surrogate",
        "the metadata holds half of a surrogate pair",
    ),
    "metadata is a list": (
        {"metadata": [1]},
        "metadata-not-object",
        "expected an object as metadata, found a list",
    ),
    "metadata is text": (
        {"metadata": "{}"},
        "metadata-not-object",
        "expected an object as metadata, found a string",
    ),
    "NaN in metadata": (
        {"metadata": {"a": math.nan}}, "bad-metadata", "the metadata holds the number nan",
    ),
    "bytes in metadata": (
        {"metadata": {"a": b""}}, "bad-metadata", "the metadata holds a value of type bytes",
    ),
    "deep metadata": (
        {"metadata": deep(5000)}, "bad-metadata", "the metadata is nested too deeply",
    ),
    "long key": ({"key": "é" * 1001}, "too-large", "key is longer than 2000 bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "reason", "detail"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_stored_is_rejected_with_its_reason(fields, reason, detail):
    made = normalize(item(**fields))

    assert made == Rejection("a/b.json", Reason(reason), detail, b"whole")
    assert str(made) == f"a/b.json: {reason}: {detail}"


def test_every_reason_is_given_by_some_test():
    # What a reader finds before there is an item: see tests/contract.
    by_readers = {"unreadable", "vanished", "symlink-loop", "unparsable", "lfs-pointer"}
    # What rows of the old tables can have: see tests/migration/test_legacy.py.
    of_tables = {"duplicate-key", "jsonb-differs"}
    # What the server finds: see tests/integration/test_refused.py.
    by_server = {"refused-by-server"}
    by_normalize = {reason for _, reason, _ in REFUSED.values()}

    assert by_normalize | by_readers | of_tables | by_server == set(Reason)


FITS = {
    "integers": ([1, 2, -3], [1.0, 2.0, -3.0]),
    "integers and floats": ([1, 2.5], [1.0, 2.5]),
    "an integer over 64 bits": ([2**70], [2.0**70]),
    "a double is rounded": ([0.1], [np.float32(0.1)]),
    "largest float32": ([3.4028234663852886e38], [3.4028234663852886e38]),
    "denormal": ([1e-45], [1.401298464324817e-45]),
    "an array of doubles": (np.array([0.1, 2.0]), [np.float32(0.1), 2.0]),
}


@pytest.mark.parametrize(("value", "expected"), FITS.values(), ids=FITS)
def test_numbers_become_float32(value, expected):
    embedding = to_vector(value)

    assert embedding.dtype == np.float32
    assert embedding.tolist() == expected


@given(st.lists(st.floats(-3e38, 3e38) | st.integers(-(2**53), 2**53), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_every_component_is_the_nearest_float32(value):
    assert to_vector(value).tolist() == [float(np.float32(component)) for component in value]


def test_the_sign_of_zero_is_kept():
    assert np.signbit(to_vector([-0.0, 0.0])).tolist() == [True, False]


def test_as_many_dimensions_as_pgvector_takes_are_accepted():
    assert len(accepted(vector=[0.5] * MAX_DIMS).embedding) == 16_000


@pytest.mark.parametrize(
    "vector", [[0.0, 0.0], [0, -0.0], [1e-46, 0.0]], ids=["zeros", "negative zero", "underflow"]
)
def test_a_zero_vector_is_accepted_with_a_warning(vector):
    assert accepted(vector=vector).warnings == (Warn.ZERO_VECTOR,)


def test_warnings_of_the_reader_are_kept():
    made = normalize(
        Item(
            "k", "t", [0.0], {}, "m", "soon", "s", "o", lambda: b"", warnings=(Warn.NAME_MISMATCH,)
        )
    )

    assert isinstance(made, Record)
    assert made.warnings == (Warn.NAME_MISMATCH, Warn.BAD_DATE, Warn.ZERO_VECTOR)


def test_texts_and_labels_are_kept_verbatim():
    text = " \t\r\n日本語（全角）👩‍👩‍👧‍👦 e\u0301\ufeff\x7f "

    made = accepted(content=text, key=text, model_id=text, metadata={text: text})

    assert (made.content, made.key, made.model_id) == (text, text, text)
    assert list(made.metadata) == [text]


def test_empty_texts_are_texts():
    made = accepted(content="", model_id="", metadata=None)

    assert (made.content, made.model_id, made.metadata) == ("", "", {})
    assert made.space == ("", 2)


def test_a_key_of_2000_bytes_is_accepted():
    assert accepted(key="é" * 1000).key == "é" * 1000


MARCH = datetime(2025, 3, 16, 3, 8, 2, 864_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025-03-16T03:08:02.864Z", MARCH),
        ("2025-03-16T12:08:02.864+09:00", MARCH),
        ("2025-03-16T03:08:02.864", MARCH),
        ("2025-03-16 03:08:02.864000", MARCH),
        ("2025-03-16", datetime(2025, 3, 16, tzinfo=UTC)),
        (MARCH, MARCH),
        (MARCH.replace(tzinfo=None), MARCH),
        ("1969-12-31T23:59:59.999999Z", datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
    ],
    ids=[
        "Z",
        "offset",
        "no offset",
        "blank",
        "date only",
        "a time",
        "a time without zone",
        "before 1970",
    ],
)
def test_dates_are_times_in_utc(value, expected):
    found = to_datetime(value)

    assert found == expected
    assert found is not None
    assert found.tzinfo is not None
    assert accepted(created_at=value).created_at == expected
    assert accepted(created_at=value).warnings == ()


@pytest.mark.parametrize(
    "value",
    ["soon", "", "2025-13-01", "2025-02-30T00:00:00Z", 1742094482864, True, [], {},
     "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"],
    ids=["a word", "empty", "month 13", "30 February", "milliseconds", "boolean", "list",
         "object", "before year 1", "after year 9999"],
)  # fmt: skip
def test_a_date_that_cannot_be_read_is_none_with_a_warning(value):
    made = accepted(created_at=value)

    assert made.created_at is None
    assert made.warnings == (Warn.BAD_DATE,)


def test_no_date_is_no_warning():
    assert accepted(created_at=None).warnings == ()
