"""CSV and TSV files with a vector in one column, or its components in many.

The vector stands as text, as ``DataFrame.to_csv`` writes a list or a NumPy array (OpenAI's
cookbook does so), or as PostgreSQL prints one. Read after RFC 4180, with the separator told
from the header.
"""

import csv
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from harca.errors import counted
from harca.model import Item, Reason, Rejection
from harca.readers.base import Defaults, StoreReader
from harca.readers.fields import SAMPLE, FieldMap
from harca.readers.files import (
    as_payload,
    files_at,
    is_lfs_pointer,
    open_binary,
    origin_of,
    read_file,
    size_of,
)
from harca.readers.values import is_vector

FORMAT = "csv"

_SUFFIXES = (".csv", ".tsv", ".tab")
_SEPARATORS = ",;\t|"
_LONGEST_FIELD = 64 << 20
_FEWEST_COMPONENTS = 8
_MOST_LOOKED_AT = 20_000
_COMPONENT = re.compile(r"(?P<name>(?:[^\W\d].*?)?)(?P<number>\d+)")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is written.

    Attributes:
        has_header: False if the first line is a record already.
        components: The columns that are a vector's components, in order.
    """

    encoding: str
    separator: str
    names: list[str]
    has_header: bool
    components: list[int]
    fields: FieldMap

    def row(self, values: list[str]) -> dict[str, Any]:
        """Return a line's fields by name."""
        row: dict[str, Any] = dict(zip(self.names, values, strict=True))
        if self.components:
            numbers = [values[at] for at in self.components]
            for at in self.components:
                del row[self.names[at]]
            row["embedding"] = f"[{','.join(numbers)}]"
        return row


def open_path(path: Path, defaults: Defaults) -> "CsvReader | None":
    """Return a reader if *path* is a CSV file with vectors, or a folder of such files."""
    files = files_at(path, _SUFFIXES)
    found = {file: _layout(file, defaults) for file in files}
    return CsvReader(path, found, defaults) if any(found.values()) else None


def _layout(file: Path, defaults: Defaults) -> Layout | None:
    """Return how *file* is written; None if it is no table with vectors."""
    try:
        with open_binary(file) as stream:
            start = stream.read(1 << 20)
    except OSError:
        return None
    if b"\0" in start and not start.startswith(_UTF16):
        return None  # a binary file
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        return None  # JSON, which has commas too
    encoding = "utf-16" if start.startswith(_UTF16) else "utf-8-sig"
    for separator in _SEPARATORS:
        try:
            with _opened(file, encoding) as text:
                lines = _first_lines(_good(_reader(text, separator)))
        except (UnicodeError, OSError):
            continue
        lines = [line for line in lines if line]
        if not lines or len(lines[0]) < 2:
            continue
        layout = _told(lines, encoding, separator, defaults)
        if layout is not None:
            return layout
    return None


def _first_lines(lines: Iterator[list[str]]) -> list[list[str]]:
    """Return the first lines, and some later ones with vectors if the first have none."""
    first = list(islice(lines, SAMPLE + 1))
    if not any(any(map(is_vector, line)) for line in first):
        later = islice(lines, _MOST_LOOKED_AT)
        first += islice((line for line in later if any(map(is_vector, line))), SAMPLE)
    return first


def _good(lines: Any) -> Iterator[list[str]]:
    while True:
        try:
            yield next(lines)
        except StopIteration:
            return
        except csv.Error:
            continue  # reading the store says so


def _told(
    lines: list[list[str]], encoding: str, separator: str, defaults: Defaults
) -> Layout | None:
    first = lines[0]
    has_header = not any(map(is_vector, first)) and len(set(first)) == len(first)
    if sum(map(_is_number, first)) >= _FEWEST_COMPONENTS and not _are_in_order(first):
        has_header = False  # numbers for names would be "0", "1", ...
    names = first if has_header else _names(first)
    rows = [line for line in lines[has_header:] if len(line) == len(names)]
    if not rows:
        return None
    plain = [dict(zip(names, row, strict=True)) for row in rows]
    fields = FieldMap(plain, defaults)
    components: list[int] = []
    if not fields.has_vector:
        whole = [row for row in rows if all(cell.strip() for cell in row)] or rows
        components = _components(names, whole[0])
        if not components:
            return None
        layout = Layout(encoding, separator, names, has_header, components, fields)
        fields = FieldMap([layout.row(row) for row in rows], defaults)
    return Layout(encoding, separator, names, has_header, components, fields)


def _are_in_order(cells: list[str]) -> bool:
    numbers = [int(cell) for cell in cells if cell.strip().isdecimal()]
    following = range(numbers[0], numbers[0] + len(numbers)) if numbers else ()
    return len(numbers) >= _FEWEST_COMPONENTS and numbers == list(following)


def _names(first: list[str]) -> list[str]:
    vectors = [at for at, value in enumerate(first) if is_vector(value)]
    names = [f"column_{number}" for number in range(1, len(first) + 1)]
    if vectors:
        names[vectors[0]] = "embedding"
    return names


def _components(names: list[str], row: list[str]) -> list[int]:
    """Return the columns that are called ``x0, x1, ...`` and hold numbers."""
    groups: dict[str, list[tuple[int, int]]] = {}
    for at, (name, value) in enumerate(zip(names, row, strict=True)):
        match = _COMPONENT.fullmatch(name.strip())
        if match and _is_number(value):
            groups.setdefault(match["name"], []).append((int(match["number"]), at))
    largest = sorted(sorted(groups.values(), key=len)[-1] if groups else [])
    numbers = [number for number, _ in largest]
    in_order = bool(numbers) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return [at for _, at in largest] if in_order and len(largest) >= _FEWEST_COMPONENTS else []


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _unreadable(file: Path, origin: str) -> Rejection | None:
    """Say why a file may have vectors all the same; None if it was read and has none."""
    found = read_file(str(file), origin)
    if found.rejection is not None:
        return found.rejection
    if b"\0" in found.data and not found.data.startswith(_UTF16):
        return Rejection(origin, Reason.UNPARSABLE, "it has a NUL character", found.data)
    return None


def _opened(file: Path, encoding: str) -> TextIO:
    # A byte that is no UTF-8 becomes half a surrogate pair, with which the record is rejected.
    return file.open(encoding=encoding, errors="surrogateescape", newline="")


def _reader(text: Iterable[str], separator: str) -> Any:  # the csv module does not name its type
    csv.field_size_limit(_LONGEST_FIELD)
    return csv.reader(text, delimiter=separator, strict=True)


class CsvReader(StoreReader):
    """Reads one file after the other; memory is one line."""

    format = FORMAT

    def __init__(self, path: Path, files: dict[Path, Layout | None], defaults: Defaults) -> None:
        super().__init__(path, defaults)
        self.guesses_ids = defaults.fields.id is None
        self._files = files

    def read(self) -> Iterator[Item | Rejection]:
        """Yield the records of each file; a record is known by its number, from 1."""
        layouts = [layout for layout in self._files.values() if layout is not None]
        self.notes.why = f"{counted(len(layouts), 'table')} with a column of vectors"
        self.notes.fields = layouts[0].fields.shown
        if layouts[0].components:
            self.notes.why = f"a vector's components in {len(layouts[0].components)} columns"
        for file, layout in self._files.items():
            origin = origin_of(file, self.path)
            if layout is None and (rejection := _unreadable(file, origin)) is not None:
                yield rejection
                continue
            if layout is None:
                if is_lfs_pointer(file):
                    detail = "a Git LFS pointer, not the file (run `git lfs pull`)"
                    yield Rejection(origin, Reason.LFS_POINTER, detail, file.read_bytes())
                else:
                    self.notes.left_out.append((origin, "a table without vectors"))
                continue
            self.notes.files += 1
            for name in layout.fields.unread:
                self.notes.left_out.append((origin, f'column "{name}", another vector'))
            try:
                self.notes.bytes += size_of(file)
                yield from self._read(file, origin, layout)
            except (OSError, UnicodeError) as exc:
                yield Rejection(origin, Reason.UNREADABLE, str(exc)[:200])

    def _read(self, file: Path, origin: str, layout: Layout) -> Iterator[Item | Rejection]:
        with _opened(file, layout.encoding) as text:
            lines = _Lines(text, layout.separator)
            number = -1 if layout.has_header else 0
            for values in lines:
                if not values:
                    continue  # an empty line
                number += 1
                at = f"{origin}#{number}"
                if isinstance(values, Damage):
                    yield Rejection(at, Reason.UNPARSABLE, values.detail, values.line)
                    continue
                if number == 0:
                    continue  # the header
                payload = partial(as_payload, values, b"")
                if len(values) != len(layout.names):
                    detail = f"{len(values)} fields, expected {len(layout.names)}"
                    yield Rejection(at, Reason.UNPARSABLE, detail, payload())
                    continue
                yield layout.fields.item(
                    layout.row(values),
                    position=at,
                    origin=at,
                    source=self.source,
                    payload=payload,
                )


@dataclass(frozen=True, slots=True)
class Damage:
    """A line that is no CSV."""

    detail: str
    line: bytes


class _Lines:
    """The records of a table; of one that is damaged, its first line is given up, no more.

    An open quote swallows what follows until another one: the lines behind the first are
    read again.
    """

    def __init__(self, text: TextIO, separator: str) -> None:
        self._text, self._separator = text, separator
        # No further than to about where it ends now: one that grows fast would have no end.
        self._left = os.fstat(text.fileno()).st_size
        self._again: deque[str] = deque()
        self._taken: list[str] = []

    def _physical(self) -> Iterator[str]:
        while True:
            line = self._again.popleft() if self._again else self._next()
            if not line:
                return
            self._taken.append(line)
            yield line

    def _next(self) -> str:
        line = self._text.readline() if self._left > 0 else ""
        self._left -= len(line)  # characters, of which there are no more than bytes
        return line

    def __iter__(self) -> Iterator[list[str] | Damage]:
        while True:
            records = _reader(self._physical(), self._separator)
            try:
                for values in records:
                    self._taken.clear()
                    yield values
                return
            except csv.Error as exc:
                first, *rest = self._taken or [""]
                self._taken.clear()
                self._again.extendleft(reversed(rest))
                yield Damage(str(exc), first.encode("utf-8", "surrogateescape"))
