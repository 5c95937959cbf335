"""Where the records of a JSON file are, told by its first part.

Programs write vectors as a list of records, as an object of them by id, below some key, one
a line, or as lists that belong together by position. Nothing but the values says which.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from harca.errors import UsageError
from harca.readers.base import Defaults
from harca.readers.fields import MODEL_NAMES, SAMPLE, FieldMap, field_of, plain_name
from harca.readers.files import exact_json, open_binary
from harca.readers.json_stream import Damaged, Scanner
from harca.readers.values import is_vector

# The first part that is looked at, and how much more if no vector is in it.
_PARTS = (1 << 20, 32 << 20, 256 << 20)
_LOOKED_INTO = 1 << 20
_DEEPEST_KEY = 4
_LINE_SUFFIXES = {".jsonl", ".ndjson", ".jsonlines"}
_MARK = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[{}\[\],]', re.DOTALL)


class Layout(Enum):
    """How the records stand in a file."""

    ELEMENTS = "elements"  # of a list or an object: each is a record
    VECTORS = "vectors"  # of a list or an object: each is a vector
    COLUMNS = "columns"  # lists that belong together by position
    LINES = "lines"  # a record a line
    SINGLE = "single"  # the file is one record


@dataclass(frozen=True, slots=True)
class Shape:
    """Where and what the records are.

    Attributes:
        path: The keys that lead to them.
        fields: Which of their fields is what.
        flavour: The program that writes files like this, if it can be told.
        model: The label that stands beside the records.
    """

    layout: Layout
    fields: FieldMap
    path: tuple[str, ...] = ()
    flavour: str | None = None
    model: str | None = None


def shapes_of(path: Path, defaults: Defaults) -> list[Shape]:
    """Return how the records of the file at *path* stand in it; nothing if there are none.

    Raises:
        UsageError: The operator names a place or a field that is not there.
        OSError: The file cannot be read.
    """
    with open_binary(path) as file:
        start = b""
        for size in _PARTS:
            start += file.read(size - len(start))
            first = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
            if first not in (b"{", b"["):
                return []
            whole = len(start) < size
            found = _shapes(start, path.suffix, defaults, whole=whole)
            if whole:
                return found
            if found and found[0].path and defaults.fields.records is None:
                return _completed(path, found, defaults)
            if found:
                return found
    return []


def _completed(path: Path, shapes: list[Shape], defaults: Defaults) -> list[Shape]:
    """Look at the rest of a large file: for more records, and the name of their model."""
    further: list[Shape] = []
    known = {shape.path for shape in shapes}
    labels: dict[str, Any] = {}

    def look(scanner: Scanner, above: tuple[str, ...]) -> None:
        for name in scanner.members():
            here = (*above, name)
            if scanner.peek() not in (b"{", b"["):
                labels[name] = scanner.parsed()
            elif here in known:
                for _ in scanner.elements():
                    pass
            elif scanner.peek() == b"{" and any(one[: len(here)] == here for one in known):
                look(scanner, here)
            else:
                value = beginning(scanner.value()[:_LOOKED_INTO])
                labels[name] = value
                further.extend(Places(defaults).search(value, here))

    try:
        with open_binary(path) as file:
            look(Scanner(file), ())
    except Damaged:
        pass  # reading it will say where
    model = _model_beside(labels, "")
    return [replace(shape, model=shape.model or model) for shape in shapes + further]


def _shapes(start: bytes, suffix: str, defaults: Defaults, *, whole: bool) -> list[Shape]:
    rows = _lines(start, whole=whole)
    if rows and (len(rows) > 1 or suffix in _LINE_SUFFIXES):
        fields = FieldMap(rows, defaults)
        return [Shape(Layout.LINES, fields)] if fields.has_vector else []
    value = beginning(start)
    places = Places(defaults)
    if defaults.fields.records is not None:
        return places.named(value, defaults.fields.records, whole=whole)
    return places.search(value)


def _lines(start: bytes, *, whole: bool) -> list[dict[str, Any]]:
    """Return the first lines that are objects; none if the file is not written in lines."""
    lines = start.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not whole:
        lines.pop()  # cut somewhere
    rows: list[dict[str, Any]] = []
    bad = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            row = exact_json(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            # The first ones; further on, those that show what the first lack.
            if len(rows) < SAMPLE or any(map(is_vector, row.values())):
                rows.append(row)
        else:
            bad += 1
            if bad > len(rows) + 3:
                return []
        if len(rows) >= SAMPLE and any(map(is_vector, rows[-1].values())):
            break
    return rows


def beginning(data: bytes) -> Any:
    """Return what *data* begins with, as if the file ended after the last whole member.

    None if not even that is JSON.
    """
    try:
        return exact_json(data)
    except (ValueError, RecursionError):
        pass
    stack: list[int] = []
    cut, closing = 0, b""
    for mark in _MARK.finditer(data):
        byte = data[mark.start()]
        if byte == 0x22:
            if not mark.group(1):
                break
        elif byte in b"{[":
            stack.append(byte)
            if len(stack) > _DEEPEST_KEY + 100:
                break
        elif byte == 0x2C:  # a comma; those within vectors are not worth noting
            if len(stack) <= _DEEPEST_KEY:
                cut, closing = mark.start(), bytes(stack)
        elif stack:
            stack.pop()
    end = closing[::-1].translate(bytes.maketrans(b"{[", b"}]"))
    try:
        return exact_json(data[:cut] + end)
    except (ValueError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Places:
    """Looks for records in a value that may lack its end."""

    defaults: Defaults

    def named(self, value: Any, place: str, *, whole: bool) -> list[Shape]:
        """Return the shape of what is under *place*, keys joined by dots."""
        path = tuple(place.split("."))
        model = None
        for name in path:
            if not isinstance(value, Mapping) or name not in value:
                if not whole:
                    return []
                listed = ", ".join(map(str, value)) if isinstance(value, Mapping) else "no object"
                raise UsageError(
                    f'no key "{name}" on the way to "{place}"; found {listed[:200]}',
                    hint="Give the keys that lead to the records, joined by dots.",
                )
            model = _model_beside(value, name) or model
            value = value[name]
        found = self._here(value, path, model)
        if found is None and whole:
            raise UsageError(
                f'no records with vectors under "{place}"',
                hint="`harca inspect` without --records shows what is found.",
            )
        return [] if found is None else [found]

    def search(
        self, value: Any, path: tuple[str, ...] = (), model: str | None = None
    ) -> list[Shape]:
        """Return the shapes of the records in *value*, or deeper."""
        found = self._here(value, path, model)
        if found is not None:
            return [found]
        shapes = []
        if isinstance(value, Mapping) and len(path) < _DEEPEST_KEY:
            for name, inner in value.items():
                if isinstance(inner, Mapping | list):
                    label = _model_beside(value, name) or model
                    shapes += self.search(inner, (*path, name), label)
        return shapes

    def _here(self, value: Any, path: tuple[str, ...], model: str | None) -> Shape | None:
        if isinstance(value, list):
            return self._elements(value[:SAMPLE], path, model)
        if not isinstance(value, Mapping) or not value:
            return None
        if _is_record(value, named=self.defaults.fields.vector):
            fields = FieldMap([value], self.defaults)
            return None if path else Shape(Layout.SINGLE, fields)
        entries = list(value.values())[:SAMPLE]
        if all(map(is_vector, entries)):
            keys = [str(key) for key in list(value)[:SAMPLE]]
            return _vectors(path, model, keys_are_texts=not all(map(_LIKE_AN_ID.fullmatch, keys)))
        columns = columns_of(value)
        if columns is not None:
            fields = FieldMap(list(rows_of(columns))[:SAMPLE], self.defaults)
            if fields.has_vector:
                return Shape(Layout.COLUMNS, fields, path, model=model)
        return self._elements(entries, path, model, by_key=True)

    def _elements(
        self, entries: list[Any], path: tuple[str, ...], model: str | None, *, by_key: bool = False
    ) -> Shape | None:
        rows = [entry for entry in entries if isinstance(entry, Mapping)]
        if not rows and not by_key:
            ours = entries and all(isinstance(one, list) and is_vector(one) for one in entries)
            return _vectors(path, model, keys_are_texts=False) if ours else None
        named = self.defaults.fields.vector
        if not any(_is_record(row, nested=not by_key, named=named) for row in rows):
            return None
        fields = FieldMap(rows, self.defaults)
        if not fields.has_vector:
            return None
        flavour = _flavour(rows[0]) if by_key and not path else None
        return Shape(Layout.ELEMENTS, fields, path, flavour, model)


# As in "12", "chunk-12", "a/b.txt#3" and in UUIDs and hashes: no blanks, and a digit.
_LIKE_AN_ID = re.compile(r"[\w.:/#-]*\d[\w.:/#-]*")


def _vectors(path: tuple[str, ...], model: str | None, *, keys_are_texts: bool) -> Shape:
    row = {"text": "t", "embedding": [0.5]} if keys_are_texts else {"embedding": [0.5]}
    return Shape(Layout.VECTORS, FieldMap([row], Defaults()), path, model=model)


def _is_record(value: Mapping[str, Any], *, nested: bool = False, named: str | None = None) -> bool:
    """Say whether an object has a vector, and is no list of vectors by name.

    *nested*: the vector may be in an object within, as in Elasticsearch's hits. *named*: the
    operator says which field it is.
    """
    if named is not None and field_of(value, named) is not None:
        return True
    vector = FieldMap([value], Defaults()).vector
    if vector is None or (not nested and vector not in value):
        return False
    return len(value) == 1 or any(not is_vector(one) for one in value.values())


def columns_of(value: Mapping[str, Any]) -> dict[str, list[Any]] | None:
    """Return lists that belong together by position, one of them with vectors.

    pandas writes each column as an object by row number.
    """
    if all(isinstance(one, Mapping) for one in value.values()):
        names = {tuple(one) for one in value.values()}
        if len(names) != 1 or not all(name.isdecimal() for name in next(iter(names))):
            return None
        value = {name: list(one.values()) for name, one in value.items()}
    lists = {name: one for name, one in value.items() if isinstance(one, list) and one}
    for one in lists.values():
        if isinstance(one[0], list | str) and is_vector(one[0]) and not is_vector(one):
            return lists
    return None


def rows_of(columns: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in zip(*columns.values(), strict=False):
        yield dict(zip(columns, values, strict=True))


def _flavour(row: Mapping[str, Any]) -> str | None:
    """Return the program that writes records by id, with these fields."""
    if {"id", "vector", "text", "metadata"} == row.keys():
        return "langchain-inmemory"  # InMemoryVectorStore.dump
    if {"id", "embedding", "metadata"} <= row.keys() <= _SPRING_FIELDS:
        return "spring-ai"  # SimpleVectorStore.save
    return None


_SPRING_FIELDS = {"id", "embedding", "metadata", "text", "content", "media", "score"}


def _model_beside(value: Mapping[str, Any], records: str) -> str | None:
    """Return the model that an object names beside the records, directly or one level down."""
    levels = [value, *(one for name, one in value.items() if name != records)]
    for level in levels:
        if isinstance(level, Mapping):
            for name, one in level.items():
                if plain_name(name) in MODEL_NAMES and isinstance(one, str) and one:
                    return one
    return None
