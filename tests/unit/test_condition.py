"""The language of filters: what is understood, what is refused, and how."""

import pytest

from harca.condition import (
    MAX_CONDITIONS,
    Compares,
    Contains,
    Either,
    Every,
    Opposite,
    read_condition,
)
from harca.errors import UsageError


def test_plain_members_are_one_object_to_be_contained():
    where = {"language": "en", "author": {"name": "Ada"}, "tags": ["a", "b"], "old": None}

    assert read_condition(where) == Contains(where)


def test_an_empty_object_asks_for_nothing():
    assert read_condition({}) is None


def test_an_object_of_operators_compares_what_is_at_its_place():
    where = {"language": "en", "author": {"name": "Ada", "born": {"$gte": 1800, "$lt": 1900}}}

    assert read_condition(where) == Every(
        [
            Contains({"language": "en", "author": {"name": "Ada"}}),
            Compares(("author", "born"), "$gte", 1800),
            Compares(("author", "born"), "$lt", 1900),
        ]
    )


def test_a_place_that_is_only_compared_need_not_be_there():
    assert read_condition({"author": {"born": {"$exists": False}}}) == Compares(
        ("author", "born"), "$exists", False
    )


def test_combinations_hold_conditions_of_the_same_language():
    where = {"$or": [{"a": 1}, {"$not": {"b": {"$in": [2, 3]}}}], "$and": [{"c": 4}]}

    assert read_condition(where) == Every(
        [
            Either([Contains({"a": 1}), Opposite(Compares(("b",), "$in", [2, 3]))]),
            Contains({"c": 4}),
        ]
    )


def test_a_key_with_a_dot_is_a_key():
    assert read_condition({"a.b": {"$gt": 1}}) == Compares(("a.b",), "$gt", 1)


def test_a_key_that_begins_with_a_dollar_is_written_with_two():
    assert read_condition({"$$a": {"$$b": 1, "c": [{"$$d": 2}]}}) == Contains(
        {"$a": {"$b": 1, "c": [{"$d": 2}]}}
    )
    assert read_condition({"$$and": {"$eq": {"$in": 1}}}) == Compares(("$and",), "$eq", {"$in": 1})


KNOWN = "expected one of $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $contains"


REFUSED: list[tuple[object, str]] = [
    ([1], "the filter is a list, expected an object"),
    ("en", 'the filter is the string "en", expected an object'),
    ({1: 2}, "the filter has the number 1 as a key, expected a string"),
    ({"a": {"$regex": "x"}}, f'unknown operator "$regex" at "a", {KNOWN}'),
    ({"a": {"b": {"$": 1}}}, f'unknown operator "$" at "a.b", {KNOWN}'),
    ({"$nor": []}, 'unknown operator "$nor", expected one of $and, $or, $not'),
    (
        {"$gte": 3},
        "$gte stands beside no key, expected a key whose value it compares",
    ),
    (
        {"a": {"$gt": 1, "b": 1}},
        '"a" has the operator $gt and the key "b", expected one or the other',
    ),
    (
        {"a": {"$not": {"$gt": 1}}},
        '$not is below the key "a", expected at the top or in another combination',
    ),
    (
        {"a": [{"b": {"$gt": 1}}]},
        '$gt is in a list at "a", where nothing can be compared',
    ),
    ({"$and": []}, "$and has an empty list, expected a list of objects"),
    ({"$or": {"a": 1}}, "$or has an object, expected a list of objects"),
    ({"$or": ["a"]}, '$or has the string "a" in its list, expected a list of objects'),
    ({"$or": [{"a": 1}, {}]}, "$or has an empty object, expected a condition"),
    ({"$not": [{"a": 1}]}, "$not has a list, expected an object"),
    ({"$not": {}}, "$not has an empty object, expected a condition"),
    ({"a": {"$gte": None}}, '$gte at "a" has null, expected a number or a string'),
    ({"a": {"$lt": True}}, '$lt at "a" has true, expected a number or a string'),
    ({"a": {"$in": "en"}}, '$in at "a" has the string "en", expected a list of values'),
    ({"a": {"$nin": {}}}, '$nin at "a" has an object, expected a list of values'),
    ({"a": {"$exists": 1}}, '$exists at "a" has the number 1, expected true or false'),
    (
        {"a": {"$contains": ["x"]}},
        '$contains at "a" has a list, expected one value that the list there has',
    ),
    (
        {"a": float("nan")},
        '"a" is compared with the number nan, expected a value of JSON',
    ),
    (
        {"a": {"$gt": float("inf")}},
        '"a" is compared with the number inf, expected a value of JSON',
    ),
    (
        {"a": [10**5000]},
        '"a" is compared with an integer of more than 4,300 digits, expected a value of JSON',
    ),
    ({"a": {1}}, '"a" is compared with a set, expected a value of JSON'),
    (
        {"a": "x\0"},
        "the filter has 'x\\x00', with a character that PostgreSQL cannot store",
    ),
    (
        {"\ud800": {"$gt": 1}},
        "the filter has '\\ud800', with a character that PostgreSQL cannot store",
    ),
]


@pytest.mark.parametrize(("where", "message"), REFUSED, ids=[text[:60] for _, text in REFUSED])
def test_what_is_not_of_the_language_is_refused_with_an_example(where, message):
    with pytest.raises(UsageError) as refused:
        read_condition(where)

    assert str(refused.value) == message
    assert refused.value.hint


@pytest.mark.parametrize("wrap", [lambda w: {"a": w}, lambda w: {"a": [w]}, lambda w: {"$not": w},
                                  lambda w: {"a": {"$eq": [w]}}],
                         ids=["object", "list", "combination", "value"])  # fmt: skip
def test_a_filter_nested_without_end_is_refused(wrap):
    where: object = {"a": 1}
    for _ in range(20_000):
        where = wrap(where)

    with pytest.raises(UsageError, match="nested more than 64 levels deep"):
        read_condition(where)


def test_more_conditions_than_a_server_should_plan_are_refused():
    parts = [{"a": {"$gt": number}} for number in range(MAX_CONDITIONS + 1)]

    with pytest.raises(UsageError, match="has 1,001 conditions, at most 1,000 are taken"):
        read_condition({"$or": parts})
