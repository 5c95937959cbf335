"""What filters find, on a server: compared with the language said again in Python."""

from collections.abc import Mapping
from decimal import Decimal
from random import Random
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

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

    for _ in range(1_000):
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

    assert selective > 300  # the others find nothing, or everything
