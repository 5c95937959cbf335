"""The language in which a search says what metadata it wants; docs/search.md describes it.

    {"language": "en", "year": {"$gte": 2020, "$lt": 2024}, "$not": {"tags": ["draft"]}}

Plain members are contained in the metadata; an object whose keys begin with ``$`` compares what
is at that place. Every condition holds or does not hold: one about a place that is not there
does not, and its opposite does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harca.errors import UsageError

COMPARISONS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$contains")
ORDERINGS = ("$gt", "$gte", "$lt", "$lte")
COMBINATIONS = ("$and", "$or", "$not")
# The server takes 65,535 parameters, a condition can have several, and planning takes time.
MAX_CONDITIONS = 1_000
_MAX_DEPTH = 64
_MAX_BITS = 14_000  # about 4,300 digits, more than which Python does not print
_EXAMPLE = 'For example: {"language": "en", "year": {"$gte": 2020}}.'


@dataclass(frozen=True, slots=True)
class Contains:
    """The metadata contain this object, as ``@>`` sees it."""

    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Compares:
    """What is at *path*, a way through objects, stands in a relation to *value*."""

    path: tuple[str, ...]
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class Every:
    """All of these hold; never empty."""

    parts: list["Condition"]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one of these holds; never empty."""

    parts: list["Condition"]


@dataclass(frozen=True, slots=True)
class Opposite:
    """This does not hold."""

    part: "Condition"


Condition = Contains | Compares | Every | Either | Opposite


def read_condition(where: Any) -> Condition | None:
    """Return what a JSON object asks for; None if it is empty and so asks for nothing.

    Raises:
        UsageError: It is not of the language.
    """
    if not isinstance(where, Mapping):
        raise _bad(f"the filter is {_kind(where)}, expected an object", _EXAMPLE)
    if not where:
        return None
    condition = _every(where, depth=0)
    if (count := sum(1 for _ in _leaves(condition))) > MAX_CONDITIONS:
        raise _bad(
            f"the filter has {count:,} conditions, at most {MAX_CONDITIONS:,} are taken",
            'Values of one key go into one list: {"year": {"$in": [2020, 2021]}}.',
        )
    return condition


def _leaves(condition: Condition) -> Iterator[Condition]:
    match condition:
        case Every(parts) | Either(parts):
            for part in parts:
                yield from _leaves(part)
        case Opposite(part):
            yield from _leaves(part)
        case _:
            yield condition


def _every(where: Mapping[Any, Any], *, depth: int) -> Condition:
    """Return the condition that all members together make."""
    _check_depth(depth)
    plain: dict[str, Any] = {}
    parts: list[Condition] = []
    for key, value in where.items():
        if not _is_operator(key):
            kept = _member(key, value, (), parts, depth=depth)
            if kept is not _ELSEWHERE:
                plain[_name(key)] = kept
        elif key in COMBINATIONS:
            parts.append(_combination(key, value, depth=depth))
        elif key in COMPARISONS:
            raise _bad(
                f"{key} stands beside no key, expected a key whose value it compares",
                'For example: {"year": {"$gte": 2020}}.',
            )
        else:
            raise _unknown(key, ())
    if plain:
        parts.insert(0, Contains(plain))
    return parts[0] if len(parts) == 1 else Every(parts)


# Of a member that has no plain part.
_ELSEWHERE = object()


def _member(
    key: Any, value: Any, above: tuple[str, ...], parts: list[Condition], *, depth: int
) -> Any:
    """Return what is plain in a member, and add its comparisons to *parts*."""
    path = (*above, _name(key))
    if not isinstance(value, Mapping) or not value:
        return _plain(value, path, depth=depth)
    _check_depth(depth + 1)
    operators = [inner for inner in value if _is_operator(inner)]
    if not operators:
        members = {
            _name(inner): kept
            for inner, deeper in value.items()
            if (kept := _member(inner, deeper, path, parts, depth=depth + 1)) is not _ELSEWHERE
        }
        # An object of comparisons only need not be there: that is for them to say.
        return members or _ELSEWHERE
    if len(operators) < len(value):
        other = next(inner for inner in value if not _is_operator(inner))
        raise _bad(
            f'"{_shown(path)}" has the operator {operators[0]} and the key "{other}", '
            "expected one or the other",
            "A key of the metadata that begins with $ is written with $$.",
        )
    parts.extend(
        Compares(path, operator, _operand(operator, compared, path, depth=depth + 1))
        for operator, compared in value.items()
    )
    return _ELSEWHERE


def _combination(operator: str, value: Any, *, depth: int) -> Condition:
    example = (
        'For example: {"$not": {"language": "en"}}.'
        if operator == "$not"
        else f'For example: {{"{operator}": [{{"language": "en"}}, {{"year": {{"$gte": 2020}}}}]}}.'
    )
    wanted = "an object" if operator == "$not" else "a list of objects"
    given = [value] if operator == "$not" else value
    if not isinstance(given, list | tuple) or not given:
        found = "an empty list" if isinstance(given, list | tuple) else _kind(given)
        raise _bad(f"{operator} has {found}, expected {wanted}", example)
    for part in given:
        if not isinstance(part, Mapping):
            among = "" if operator == "$not" else " in its list"
            raise _bad(f"{operator} has {_kind(part)}{among}, expected {wanted}", example)
        if not part:
            # It would hold for everything, and so would the list.
            raise _bad(f"{operator} has an empty object, expected a condition", example)
    parts = [_every(part, depth=depth + 1) for part in given]
    if operator == "$not":
        return Opposite(parts[0])
    if len(parts) == 1:
        return parts[0]
    return Every(parts) if operator == "$and" else Either(parts)


def _operand(operator: str, value: Any, path: tuple[str, ...], *, depth: int) -> Any:
    """Return a comparison's value, if it is one that the operator takes."""
    at = f'{operator} at "{_shown(path)}" has'
    if operator in ORDERINGS:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise _bad(
                f"{at} {_kind(value)}, expected a number or a string",
                f'For example: {{"year": {{"{operator}": 2020}}}} or '
                f'{{"date": {{"{operator}": "2020-01-31"}}}}.',
            )
    elif operator in ("$in", "$nin"):
        if not isinstance(value, list | tuple):
            raise _bad(
                f"{at} {_kind(value)}, expected a list of values",
                f'For example: {{"language": {{"{operator}": ["en", "ja"]}}}}.',
            )
    elif operator == "$exists":
        if not isinstance(value, bool):
            raise _bad(
                f"{at} {_kind(value)}, expected true or false",
                'For example: {"language": {"$exists": false}}.',
            )
    elif operator == "$contains":
        if isinstance(value, list | tuple):
            raise _bad(
                f"{at} a list, expected one value that the list there has",
                'All of several: {"tags": ["a", "b"]}; any of them: {"$or": '
                '[{"tags": ["a"]}, {"tags": ["b"]}]}.',
            )
    elif operator in COMBINATIONS:
        raise _bad(
            f'{operator} is below the key "{_shown(path)}", expected at the top or in '
            "another combination",
            'For example: {"$or": [{"year": {"$lt": 1990}}, {"year": {"$gt": 2020}}]}.',
        )
    elif operator not in COMPARISONS:
        raise _unknown(operator, path)
    return _verbatim(value, path, depth=depth)


def _plain(value: Any, path: tuple[str, ...], *, depth: int) -> Any:
    """Return a value to be contained, with ``$$`` unescaped; in a list nothing can be compared."""
    _check_depth(depth)
    if isinstance(value, Mapping):
        for key in value:
            if _is_operator(key):
                raise _bad(
                    f'{key} is in a list at "{_shown(path)}", where nothing can be compared',
                    'What a list contains is written plainly: {"authors": [{"name": "Ada"}]}. A '
                    "key of the metadata that begins with $ is written with $$.",
                )
        return {_name(key): _plain(inner, path, depth=depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, path, depth=depth + 1) for inner in value]
    return _scalar(value, path)


def _verbatim(value: Any, path: tuple[str, ...], *, depth: int) -> Any:
    """Return a comparison's value as it is: in it, ``$`` means nothing."""
    _check_depth(depth)
    if isinstance(value, Mapping):
        return {_text(key): _verbatim(inner, path, depth=depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_verbatim(inner, path, depth=depth + 1) for inner in value]
    return _scalar(value, path)


def _scalar(value: Any, path: tuple[str, ...]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) and value.bit_length() <= _MAX_BITS:
        return value
    # NaN and infinity are in no JSON, and so in no metadata.
    if isinstance(value, float) and value - value == 0:
        return value
    raise _bad(
        f'"{_shown(path)}" is compared with {_kind(value)}, expected a value of JSON',
        "Take a string, a finite number, true, false, null, a list or an object; a date as a "
        'string, as in the metadata: "2020-01-31".',
    )


def _name(key: Any) -> str:
    name = _text(key)
    return name[1:] if name.startswith("$$") else name


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _bad(f"the filter has {_kind(value)} as a key, expected a string", _EXAMPLE)
    return storable(value, "filter")


def storable(text: str, of: str) -> str:
    """Return *text*, which PostgreSQL can store.

    Raises:
        UsageError: It cannot, and so no row can have it.
    """
    if not isinstance(text, str):
        raise _bad(
            f"the {of} is {type(text).__name__}, expected a string", "Give it as it is stored."
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        fits = False
    else:
        fits = "\0" not in text
    if not fits:
        raise _bad(
            f"the {of} has {text!r}, with a character that PostgreSQL cannot store",
            "No row has it: take it out.",
        )
    return text


def _is_operator(key: Any) -> bool:
    return isinstance(key, str) and key.startswith("$") and not key.startswith("$$")


def _check_depth(depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise _bad(f"the filter is nested more than {_MAX_DEPTH} levels deep", _EXAMPLE)


def _unknown(operator: str, path: Sequence[str]) -> UsageError:
    at = f' at "{_shown(path)}"' if path else ""
    return _bad(
        f'unknown operator "{operator}"{at}, expected one of '
        + ", ".join(COMPARISONS if path else COMBINATIONS),
        f"{_EXAMPLE} A key of the metadata that begins with $ is written with $$.",
    )


def _bad(message: str, hint: str) -> UsageError:
    return UsageError(message, hint=hint)


def _shown(path: Sequence[str]) -> str:
    return ".".join(path)


def _kind(value: Any) -> str:
    """Return what a value is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() if value.bit_length() > _MAX_BITS:
            return "an integer of more than 4,300 digits"
        case float() if value - value != 0:
            return f"the number {value}"
        case int() | float():
            return f"the number {value}"
        case str():
            return f'the string "{value}"' if len(value) <= 40 else "a string"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
    return f"a {type(value).__name__}"
