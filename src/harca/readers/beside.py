"""Files beside an array of vectors that say what its rows are: texts, ids, metadata.

They belong to the rows by position alone, so a file counts only if it has exactly as many
entries as there are rows. Attaching texts to the wrong vectors would be worse than none.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harca.errors import LfsPointer, SourceError
from harca.readers.blobs import sounds_like_vectors
from harca.readers.fields import MODEL_NAMES, plain_name
from harca.readers.files import exact_json, head, printable, read_file
from harca.readers.values import key_of

_SUFFIXES = (".json", ".jsonl", ".ndjson", ".txt", ".csv", ".tsv")
# What such a file is called, and what its entries are called as a field; the first are texts.
_TEXTS = {
    "texts": "text", "text": "text", "chunks": "chunk", "chunk": "chunk", "documents": "document",
    "docs": "document", "corpus": "text", "sentences": "sentence", "passages": "passage",
    "paragraphs": "paragraph", "contents": "content", "content": "content", "lines": "text",
    "strings": "string", "questions": "question", "titles": "title", "words": "word",
    "vocab": "word", "tokens": "token",
}  # fmt: skip
_OTHERS = {
    "ids": "id", "id": "id", "keys": "id", "uuids": "uuid", "metadata": "metadata",
    "metadatas": "metadata", "meta": "metadata", "payloads": "payload", "records": "record",
    "items": "item", "labels": "label", "names": "name", "urls": "url", "sources": "source",
    "files": "file", "filenames": "filename", "paths": "path", "index": "item", "mapping": "item",
}  # fmt: skip
_NEVER = re.compile(r"(?:requirements|readme|licen[sc]e|package|package-lock|tsconfig)\b", re.I)
_LONGEST_FIELD = 64 << 20
_NUMBER = re.compile(r"[_\-. ]?\d+$")
_PARTS = re.compile(r"[^\W\d_]+")


@dataclass(slots=True, eq=False)
class Column:
    """One value for each row, or an object of several.

    Attributes:
        where: The file, or the array in it.
        name: What the value is called as a field.
        is_named: What it is called says what it is.
    """

    where: str
    name: str
    values: Sequence[Any]
    is_named: bool = False


@dataclass(slots=True)
class Beside:
    """What belongs to the rows of one array, or of several that follow each other.

    Attributes:
        model: The model that a file names.
        files: How many files were taken, and `bytes`, their size.
    """

    columns: list[Column] = field(default_factory=list)
    model: str | None = None
    files: int = 0
    bytes: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def row(self, at: int) -> dict[str, Any]:
        """Return the fields of the row *at*."""
        row: dict[str, Any] = {}
        for column in self.columns:
            value = column.values[at]
            if isinstance(value, Mapping) and not row.keys() & value.keys():
                row |= value
            else:
                name = column.name if column.name not in row else column.where
                row[name] = value
        return row

    def tells_apart(self, name: str) -> bool:
        """Say whether a field is there in every row, and never the same twice."""
        rows = max(len(column.values) for column in self.columns)
        values = [self.row(at).get(name) for at in range(rows)]
        keys = {key_of(value, "") for value in values if isinstance(value, str | int | float)}
        return len(keys) == rows and "" not in keys

    @property
    def has_text(self) -> bool:
        """Say whether a column was found that is called like texts, or has objects."""
        return any(
            column.name in _TEXTS.values() or any(isinstance(one, Mapping) for one in column.values)
            for column in self.columns
        )


def name_of(stem: str) -> str:
    """Return what the entries of a file, or an array, called *stem* are called as a field."""
    for part in reversed(_PARTS.findall(stem.lower())):
        if part in _TEXTS or part in _OTHERS:
            return _TEXTS.get(part) or _OTHERS[part]
    return stem


def _is_named(stem: str) -> bool:
    return any(part in _TEXTS or part in _OTHERS for part in _PARTS.findall(stem.lower()))


def is_texts(stem: str) -> bool:
    """Say whether a file or an array is called as those with texts are."""
    return any(part in _TEXTS for part in _PARTS.findall(stem.lower()))


def beside(
    folder: Path | None, stem: str, rows: int, more: Sequence[Column], *, own: bool = False
) -> Beside:
    """Return what in *folder* belongs to the *rows* of the array that is called *stem*.

    Args:
        folder: Where the array lies; None if only *more* can belong to it.
        stem: Its file's name without the suffix.
        rows: How many rows it has.
        more: Columns that were found in arrays; those of another length are left out.
        own: Only files that share the array's number or name are looked at, as there are
            several arrays.

    Raises:
        SourceError: The only texts have another number of entries.
        LfsPointer: Git LFS left a pointer in place of one that is called like texts.
    """
    found = Beside()
    unequal: list[tuple[str, int]] = []
    unnamed: list[tuple[Column, int]] = []
    for column in more:
        if len(column.values) == rows:
            found.columns.append(column)
        else:
            _unequal(found, unequal, column.where, column.name, len(column.values), rows)
    for file in [] if folder is None else sorted(folder.iterdir()):
        if file.suffix.lower() not in _SUFFIXES or _NEVER.match(file.name):
            continue
        if own and not _belongs(file.stem, stem):
            continue
        columns, model, size = _read(file)
        found.model = found.model or model
        named = _is_named(file.stem) or _belongs(file.stem, stem)
        for column in columns:
            if len(column.values) != rows:
                if named:
                    _unequal(found, unequal, column.where, file.stem, len(column.values), rows)
            elif named or column.is_named:
                found.columns.append(column)
            else:
                unnamed.append((column, size))
        if any(column in found.columns for column in columns):
            found.files += 1
            found.bytes += size
    if not found.has_text and len(unnamed) == 1:
        (column, size) = unnamed[0]
        found.columns.append(column)
        found.files += 1
        found.bytes += size
    else:
        found.left_out += [
            (column.where, "as many entries as there are vectors, but nothing says what they are")
            for column, _ in unnamed
        ]
    if unequal and not found.has_text:
        name, count = unequal[0]
        where = name if folder is None else str(folder / name)
        raise SourceError(
            f'"{printable(where)}" has {count} entries, but there are {rows} vectors',
            hint="Which text belongs to which vector cannot be told. Restore the two files that "
            "were written together, or move the one with the texts away to load the vectors alone.",
        )
    return found


def _unequal(
    found: Beside, unequal: list[tuple[str, int]], where: str, stem: str, count: int, rows: int
) -> None:
    found.left_out.append((where, f"{count} entries, but there are {rows} vectors"))
    if is_texts(stem) or stem in _TEXTS.values():
        unequal.append((where, count))


def _belongs(stem: str, to: str) -> bool:
    """Say whether two files share a name or, if they are numbered, the number."""
    one, other = _NUMBER.search(stem), _NUMBER.search(to)
    if (one and re.sub(r"\D", "", one[0])) != (other and re.sub(r"\D", "", other[0])):
        return False
    if one is not None:
        return True
    words, others = set(_PARTS.findall(stem.lower())), set(_PARTS.findall(to.lower()))
    known = {*_TEXTS, *_OTHERS}
    own = {word for word in words - known if not sounds_like_vectors(word)}
    theirs = {word for word in others - known if not sounds_like_vectors(word)}
    return own == theirs if own or theirs else bool(words & others)


def _read(file: Path) -> tuple[list[Column], str | None, int]:
    """Return a file's columns, the model that it names, and its size."""
    name, stem = printable(file.name), name_of(printable(file.stem))
    try:
        head(file)
    except LfsPointer:
        if is_texts(file.stem):
            raise
        return [], None, 0
    read = read_file(str(file), name)
    if read.rejection is not None:
        if is_texts(file.stem):
            raise SourceError(
                f'"{printable(str(file))}" cannot be read: {read.rejection.detail}',
                hint="It seems to have the texts. Can this user read it?",
            )
        return [], None, 0
    try:
        kind = file.suffix.lower()
        if kind == ".json":
            columns, model = _from_json(exact_json(read.data), name, stem)
            return columns, model, len(read.data)
        if kind in (".jsonl", ".ndjson"):
            lines = [line for line in read.data.split(b"\n") if line.strip()]
            return [Column(name, stem, [exact_json(line) for line in lines])], None, len(read.data)
        text = read.data.decode("utf-8-sig")
        if kind == ".txt":
            return [Column(name, stem, _lines(text))], None, len(read.data)
        return [_from_csv(text, name, stem, kind)], None, len(read.data)
    except (ValueError, RecursionError, csv.Error) as exc:
        if is_texts(file.stem):
            raise SourceError(
                f'"{printable(str(file))}" cannot be read: {str(exc)[:100]}',
                hint="It seems to have the texts. Restore it, or move it away to load the "
                "vectors alone.",
            ) from exc
        return [], None, 0


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _from_csv(text: str, where: str, name: str, kind: str) -> Column:
    csv.field_size_limit(_LONGEST_FIELD)
    rows = list(csv.reader(io.StringIO(text), delimiter="\t" if kind == ".tsv" else ","))
    rows = [row for row in rows if row]
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError("lines of different numbers of fields")
    names = rows[0]
    return Column(where, name, [dict(zip(names, row, strict=True)) for row in rows[1:]])


def _from_json(value: Any, where: str, name: str) -> tuple[list[Column], str | None]:
    if isinstance(value, list):
        return [Column(where, name, value)], None
    if not isinstance(value, dict):
        return [], None
    models = [one for key, one in value.items() if plain_name(key) in MODEL_NAMES]
    model = next((one for one in models if isinstance(one, str)), None)
    lists = {key: one for key, one in value.items() if isinstance(one, list) and one}
    if lists:
        return [
            Column(f"{where}/{printable(key)}", name_of(key), one, _is_named(key))
            for key, one in lists.items()
        ], model
    values = list(value.values())
    if values and all(isinstance(one, str | dict) for one in values):
        return list(_from_object(value, where, name)), model
    return [], model


def _from_object(value: dict[str, Any], where: str, name: str) -> Iterator[Column]:
    """Yield the columns of ``{"0": ..., "1": ...}``, or of ``{"id": ...}`` in its order."""
    if all(key.isdecimal() for key in value):
        numbers = sorted(map(int, value))
        if numbers == list(range(len(numbers))):
            yield Column(where, name, [value[key] for key in sorted(value, key=int)])
            return
    yield Column(where, name, list(value.values()))
    yield Column(where, "id", list(value))
