"""What filters find, on a server: compared with the language said again in Python."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from harca.errors import UsageError
from harca.postgres.filters import compile_filter

MISSING = object()


def holds(document: Any, where: Mapping[str, Any]) -> bool:
    """Say whether *where* holds for *document*, by the words of docs/search.md."""
    for key, value in where.items():
        if key == "$and":
            held = all(holds(document, part) for part in value)
        elif key == "$or":
            held = any(holds(document, part) for part in value)
        elif key == "$not":
            held = not holds(document, value)
        else:
            held = fulfils(step(document, key), value)
        if not held:
            return False
    return True


def fulfils(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict) and wanted:
        if all(key[0] == "$" != key[1:2] for key in wanted):
            return all(compare(found, operator, value) for operator, value in wanted.items())
        return all(fulfils(step(found, key), value) for key, value in wanted.items())
    return contains(found, unescaped(wanted))


def step(found: Any, key: str) -> Any:
    return found.get(literal(key), MISSING) if isinstance(found, dict) else MISSING


def literal(key: str) -> str:
    return key[1:] if key.startswith("$$") else key


def unescaped(value: Any) -> Any:
    if isinstance(value, list):
        return [unescaped(inner) for inner in value]
    if isinstance(value, dict):
        return {literal(key): unescaped(inner) for key, inner in value.items()}
    return value


def compare(found: Any, operator: str, value: Any) -> bool:
    match operator:
        case "$eq":
            return same(found, value)
        case "$ne":
            return not same(found, value)
        case "$in":
            return any(same(found, one) for one in value)
        case "$nin":
            return not any(same(found, one) for one in value)
        case "$exists":
            return (found is not MISSING) is value
        case "$contains":
            return contains(found, [value])
    if kind(found) != kind(value):
        return False
    left: Any = found.encode() if isinstance(found, str) else number(found)
    right: Any = value.encode() if isinstance(value, str) else number(value)
    return bool(
        (operator in ("$gte", "$lte") and left == right)
        or (operator in ("$gt", "$gte") and left > right)
        or (operator in ("$lt", "$lte") and left < right)
    )


def contains(found: Any, wanted: Any) -> bool:
    if kind(found) != kind(wanted):
        return False
    if isinstance(wanted, dict):
        return all(key in found and contains(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return all(any(contains(one, value) for one in found) for value in wanted)
    return same(found, wanted)


def same(found: Any, value: Any) -> bool:
    if kind(found) != kind(value):
        return False
    if isinstance(value, dict):
        return found.keys() == value.keys() and all(same(found[key], value[key]) for key in value)
    if isinstance(value, list):
        return len(found) == len(value) and all(map(same, found, value))
    return number(found) == number(value) if kind(value) == "number" else bool(found == value)


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return {int: "number", float: "number", str: "string"}.get(type(value), type(value).__name__)


def number(value: Any) -> Decimal:
    return Decimal(repr(value))  # as it is written in JSON, and read by the server


# Few of each, so that filters find something; and what has a meaning elsewhere: to SQL, to paths
# of jsonb, to psycopg, to collations, to the language itself.
KEYS = ("a", "b", "a.b", "0", "'%s", "$in", '"\\\n')
TEXTS = (
    "",
    "a",
    "B",
    "1",
    "e",
    "\u00e9",
    "\U0001f600",
    "\uffee",
    "2024-01-31",
    "%(f0)s",
    '"\\\x07',
)
SCALARS = (None, True, False, 0, 1, -1, 2.5, 1.0, 0.1, 1e300, 2**70, *TEXTS)
OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$contains")


class Dice(Random):
    """Documents, and filters that are about what is in them."""

    def value(self, depth: int = 2) -> Any:
        shape = self.random() if depth else 1
        if shape < 0.3:
            return self.document(depth - 1)
        if shape < 0.5:
            return [self.value(depth - 1) for _ in range(self.randrange(3))]
        return self.choice(SCALARS)

    def document(self, depth: int = 2) -> dict[str, Any]:
        return {key: self.value(depth) for key in self.sample(KEYS, self.randrange(5))}

    def filter(self, documents: list[Any], depth: int = 2) -> dict[str, Any]:
        where: dict[str, Any] = {}
        for _ in range(self.choice((1, 1, 2))):
            kind = self.random() if depth else 1
            if kind < 0.15:
                where["$not"] = self.filter(documents, depth - 1)
            elif kind < 0.4:
                parts = [self.filter(documents, depth - 1) for _ in range(self.randint(1, 3))]
                where[self.choice(("$and", "$or"))] = parts
            else:
                where |= self.member(documents)
        return where

    def member(self, documents: list[Any]) -> dict[str, Any]:
        """Return a condition about a place that is in one of the documents, as a rule."""
        path: list[str] = []
        there = self.choice(documents)
        while isinstance(there, dict) and there and (not path or self.random() < 0.7):
            path.append(self.choice(list(there)))
            there = there[path[-1]]
        if not path or self.random() < 0.1:
            path.append(self.choice(KEYS))
        member = self.comparisons(there) if self.random() < 0.7 else self.plain(there)
        for key in reversed(path):
            member = {escaped(key): member}
            if self.random() < 0.1:
                member |= {escaped(self.choice(KEYS)): self.choice(SCALARS)}
        return member

    def near(self, there: Any) -> Any:
        return there if self.random() < 0.6 else self.value(1)

    def comparisons(self, there: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for operator in self.sample(OPERATORS, self.choice((1, 1, 2))):
            value = self.near(there)
            if operator in ("$in", "$nin"):
                value = [self.near(there) for _ in range(self.randrange(4))]
            elif operator == "$exists":
                value = self.random() < 0.5
            elif operator == "$contains":
                value = self.choice(there) if isinstance(there, list) and there else value
                value = None if isinstance(value, list) else value
            elif operator not in ("$eq", "$ne") and kind(value) not in ("number", "string"):
                value = self.choice([one for one in SCALARS if kind(one) in ("number", "string")])
            found[operator] = value
        return found

    def plain(self, there: Any) -> Any:
        """Return something that the value contains, as a rule; keys with a dollar escaped."""
        value = self.near(there)
        if isinstance(value, list):
            return [self.plain(one) for one in value if self.random() < 0.7]
        if isinstance(value, dict):
            return {
                escaped(key): self.plain(one) for key, one in value.items() if self.random() < 0.7
            }
        return value


def escaped(key: str) -> str:
    return f"${key}" if key.startswith("$") else key


def test_the_server_finds_what_the_language_says(conn):
    dice = Dice(6)
    documents = [dice.document() for _ in range(60)]
    conn.execute("CREATE TEMP TABLE documents (id integer, metadata jsonb)")
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO documents VALUES (%s, %s)",
            [(number, Jsonb(document)) for number, document in enumerate(documents)],
        )
    selective = 0

    for _ in range(500):
        where = dice.filter(documents)
        compiled = compile_filter(where)
        assert compiled is not None
        found = conn.execute(
            sql.SQL("SELECT id FROM documents WHERE {}").format(compiled.clause), compiled.values
        ).fetchall()

        expected = {n for n, document in enumerate(documents) if holds(document, where)}
        wrong = {number for (number,) in found} ^ expected
        assert not wrong, (where, documents[wrong.pop()])
        selective += 0 < len(expected) < len(documents)

    assert selective > 150  # the others find nothing, or everything


@pytest.mark.parametrize(
    "where",
    [
        {"language": "en"},
        {"author": {"name": {"$eq": "Ada"}}},
        {"language": {"$in": ["en", "ja"]}},
        {"tags": {"$contains": "a"}},
        {"author": {"name": {"$exists": True}}},
        {"$or": [{"language": "en"}, {"tags": {"$eq": ["a"]}}], "year": {"$gte": 2020}},
    ],
    ids=["contained", "eq", "in", "contains", "exists", "or"],
)
def test_the_index_on_the_metadata_can_answer(where, conn):
    conn.execute("SET enable_seqscan = off")
    chosen = compile_filter(where)
    assert chosen is not None

    plan = conn.execute(
        sql.SQL("EXPLAIN SELECT FROM vector_embeddings WHERE {}").format(chosen.clause),
        chosen.values,
    ).fetchall()

    assert "vector_embeddings_metadata_idx" in str(plan)


def test_the_planner_knows_how_many_rows_are_between_two_numbers(conn):
    conn.execute(
        "CREATE TEMP TABLE documents AS SELECT jsonb_build_object('year', 2000 + n % 20) metadata "
        "FROM generate_series(1, 2000) n"
    )
    conn.execute("ANALYZE documents")
    chosen = compile_filter({"year": {"$gte": 2015}})
    assert chosen is not None

    plan = conn.execute(
        sql.SQL("EXPLAIN (FORMAT JSON) SELECT FROM documents WHERE {}").format(chosen.clause),
        chosen.values,
    ).fetchone()

    assert 300 < plan[0][0]["Plan"]["Plan Rows"] < 700  # of 500


def test_source_and_times_narrow_too_the_end_excluded(conn):
    first = datetime(2026, 1, 31, tzinfo=UTC)
    conn.execute("CREATE TEMP TABLE rows (id integer, source text, created_at timestamptz)")
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO rows VALUES (%s, %s, %s)",
            [
                (1, "a", first),
                (2, "a", first + timedelta(hours=23)),
                (3, "b", first + timedelta(days=1)),
                (4, "a", None),
            ],
        )

    def found(**options: Any) -> list[int]:
        chosen = compile_filter(None, **options)
        assert chosen is not None
        statement = sql.SQL("SELECT id FROM rows WHERE {} ORDER BY id").format(chosen.clause)
        return [id_ for (id_,) in conn.execute(statement, chosen.values)]

    assert found(since=first) == [1, 2, 3]
    assert found(until=first + timedelta(days=1)) == [1, 2]
    assert found(since=datetime(2026, 1, 31, 9, tzinfo=timezone(timedelta(hours=9)))) == [1, 2, 3]
    assert found(source="a", since=first + timedelta(hours=1)) == [2]
    assert compile_filter({}, source=None) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"since": datetime(2026, 1, 31)}, "2026-01-31T00:00:00 has no time zone"),  # noqa: DTZ001
        ({"until": "2026-01-31"}, "a time is a str, expected a datetime with a time zone"),
        (
            {"since": datetime(2026, 2, 1, tzinfo=UTC), "until": datetime(2026, 1, 1, tzinfo=UTC)},
            "nothing is since 2026-02-01T00:00:00+00:00 and before 2026-01-01T00:00:00+00:00",
        ),
        (
            {"source": "a\0"},
            "the source has 'a\\x00', with a character that PostgreSQL cannot store",
        ),
    ],
    ids=["naive", "text", "backwards", "nul"],
)
def test_what_narrows_nothing_as_it_is_meant_is_refused(options, message):
    with pytest.raises(UsageError) as refused:
        compile_filter(None, **options)

    assert str(refused.value) == message
    assert refused.value.hint
