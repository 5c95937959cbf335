"""JSON files of anybody: lists, objects by id, records below a key, one a line.

Also what is JSON of these shapes: Spring AI's ``SimpleVectorStore.save``, LangChain's
``InMemoryVectorStore.dump``, Haystack's ``InMemoryDocumentStore.save_to_disk``, Chroma's
``collection.get()``, an answer of OpenAI's embeddings API.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from harca.errors import SourceError, UsageError, counted
from harca.model import Item, Reason, Rejection
from harca.readers.base import Defaults, StoreReader
from harca.readers.files import (
    MAX_FILE_BYTES,
    as_payload,
    exact_json,
    files_at,
    given_time,
    open_binary,
    origin_of,
    read_json,
    short,
    size_of,
    until_it_ends,
)
from harca.readers.json_sample import (
    Layout,
    Shape,
    columns_of,
    rows_of,
    shapes_of,
)
from harca.readers.json_stream import Damaged, Element, damage, elements_at

FORMAT = "json"

_LONGEST_NAME = 500  # characters, which are 2,000 bytes at most

_SUFFIXES = (".json", ".jsonl", ".ndjson", ".jsonlines")


def open_path(path: Path, defaults: Defaults) -> "JsonReader | None":
    """Return a reader if *path* is a JSON file with vectors, or a folder of such files."""
    files = files_at(path, _SUFFIXES)
    found: dict[Path, list[Shape]] = {}
    refused: UsageError | None = None
    for file in files:
        try:
            found[file] = shapes_of(file, defaults)
        except OSError:
            found[file] = []
        except UsageError as exc:
            refused = refused or exc
            found[file] = []
    if any(found.values()):
        return JsonReader(path, found, defaults)
    if refused is not None:
        raise refused
    return None


class JsonReader(StoreReader):
    """Reads one file after the other; memory is one record.

    Of lists that belong together by position, and of a file that is one record, it is the file.
    """

    def __init__(self, path: Path, files: dict[Path, list[Shape]], defaults: Defaults) -> None:
        super().__init__(path, defaults)
        self._files = files
        self.guesses_ids = defaults.fields.id is None
        shapes = [shape for found in files.values() for shape in found]
        flavours = {shape.flavour for shape in shapes}
        lines = all(shape.layout is Layout.LINES for shape in shapes)
        named = flavours.pop() if len(flavours) == 1 else None
        self.format = named or ("jsonl" if lines else FORMAT)

    def read(self) -> Iterator[Item | Rejection]:
        """Yield the records of each file."""
        with_records = [shapes for shapes in self._files.values() if shapes]
        first = with_records[0][0]
        place = f" under {'.'.join(first.path)}" if first.path else ""
        self.notes.why = f"{counted(len(with_records), 'JSON file')} with vectors{place}"
        self.notes.fields = first.fields.shown
        for file, shapes in self._files.items():
            origin = origin_of(file, self.path)
            if not shapes:
                found, _ = read_json(str(file), origin, _checked(file))
                if found.rejection is not None:
                    yield found.rejection  # it may have been a record
                else:
                    self.notes.left_out.append((origin, "JSON, but no record"))
                continue
            self.notes.files += 1
            self.notes.bytes += size_of(file)
            for shape in shapes:
                for name in shape.fields.unread:
                    self.notes.left_out.append((origin, f'field "{name}", another vector'))
                try:
                    yield from self._read(file, origin, shape)
                except Damaged as exc:
                    yield damage(file, origin, exc)
                except OSError as exc:
                    yield Rejection(origin, Reason.UNREADABLE, exc.strerror or str(exc))

    def _read(self, file: Path, origin: str, shape: Shape) -> Iterator[Item | Rejection]:
        if shape.layout is Layout.LINES:
            yield from self._lines(file, origin, shape)
        elif shape.layout is Layout.SINGLE:
            found, value = read_json(str(file), origin, exact_json)
            if found.rejection is None and isinstance(value, dict):
                yield self._item(value, origin, shape, partial(bytes, found.data))
            else:
                yield found.rejection or _not_json(origin)
        elif shape.layout is Layout.COLUMNS:
            yield from self._columns(file, origin, shape)
        else:
            yield from self._elements(file, origin, shape)

    def _item(self, row: Mapping[str, Any], origin: str, shape: Shape, payload: Any) -> Item:
        return shape.fields.item(
            row,
            position=origin,
            origin=origin,
            source=self.source,
            payload=payload,
            model=shape.model,
        )

    def _lines(self, file: Path, origin: str, shape: Shape) -> Iterator[Item | Rejection]:
        with open_binary(file) as stream:
            number, taken = 0, 0
            # No further than to where it ends now: one that grows fast would have no end.
            size = os.fstat(stream.fileno()).st_size
            while taken < size and (line := stream.readline(MAX_FILE_BYTES)):
                number += 1
                at = f"{origin}:{number}"
                taken += len(line)
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if not line.strip():
                    continue
                line, row, wrong = _finished(line, stream, file)
                if wrong is not None:
                    yield Rejection(at, Reason.UNPARSABLE, short(wrong), line)
                elif isinstance(row, dict):
                    yield self._item(row, at, shape, partial(bytes, line))
                else:
                    yield Rejection(at, Reason.NO_VECTOR, "not an object", line)

    def _elements(self, file: Path, origin: str, shape: Shape) -> Iterator[Item | Rejection]:
        place = ".".join(shape.path)

        until_it_ends(str(file), b"]}")
        with open_binary(file) as stream:
            for element in elements_at(stream, shape.path):
                at = _origin_of_element(origin, place, element.key)
                try:
                    value = element.value()
                except (ValueError, RecursionError) as exc:
                    yield Rejection(at, Reason.UNPARSABLE, short(exc), element.data)
                    continue
                yield from self._element(element, value, at, shape)

    def _element(
        self, element: Element, value: Any, at: str, shape: Shape
    ) -> Iterator[Item | Rejection]:
        by_name = isinstance(element.key, str)
        if shape.layout is Layout.VECTORS:
            value = {"text": element.key, "embedding": value} if by_name else {"embedding": value}
            if by_name and shape.fields.text is None:
                del value["text"]
        if isinstance(value, dict):
            yield shape.fields.item(
                value,
                position=_name_as_key(str(element.key)) if by_name else at,
                origin=at,
                source=self.source,
                payload=partial(bytes, element.data),
                model=shape.model,
            )
        elif by_name and not isinstance(value, list):
            self.notes.left_out.append((at, "a single value beside the records"))
        else:
            yield Rejection(at, Reason.NO_VECTOR, "not an object", element.data)

    def _columns(self, file: Path, origin: str, shape: Shape) -> Iterator[Item | Rejection]:
        found, value = read_json(str(file), origin, exact_json)
        if found.rejection is not None:
            yield found.rejection
            return
        for name in shape.path:
            value = value.get(name) if isinstance(value, dict) else None
        lists = columns_of(value) if isinstance(value, dict) else None
        vectors = (lists or {}).get(shape.fields.vector or "")
        if lists is None or vectors is None:
            yield Rejection(origin, Reason.NO_VECTOR, "no list of vectors any more", found.data)
            return
        together = {name: one for name, one in lists.items() if len(one) == len(vectors)}
        for name in lists.keys() - together.keys():
            if name in (shape.fields.text, shape.fields.id, shape.fields.metadata):
                raise SourceError(
                    f'"{origin}" has {len(vectors)} vectors, but {len(lists[name])} entries in '
                    f'"{name}", which belong to them by position',
                    hint="Which text belongs to which vector cannot be told. Write the file again.",
                )
            self.notes.left_out.append((origin, f'list "{name}", of another length'))
        place = ".".join(shape.path)
        for number, row in enumerate(rows_of(together)):
            at = _origin_of_element(origin, place, number)
            yield self._item(row, at, shape, partial(as_payload, row, b""))


def _finished(
    line: bytes, stream: BinaryIO, file: Path
) -> tuple[bytes, Any, ValueError | RecursionError | None]:
    """Return a line, parsed, or what is wrong with it.

    The last line of a file that is being appended to is given time to be finished.
    """
    for attempt in count():
        try:
            return line, exact_json(line), None
        except (ValueError, RecursionError) as exc:
            if line.endswith(b"\n") or not given_time(str(file), attempt):
                return line, None, exc
        line += stream.readline(MAX_FILE_BYTES)
    raise AssertionError("unreachable")


def _name_as_key(name: str) -> str:
    """Return a name as a key: of a whole text, which an index cannot hold, its hash."""
    if len(name) <= _LONGEST_NAME:
        return name
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _origin_of_element(origin: str, place: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{origin}#{place}[{key}]" if place else f"{origin}[{key}]"
    return f"{origin}#{place}.{key}" if place else f"{origin}#{key}"


def _checked(file: Path) -> Callable[[bytes], Any]:
    """Return what checks that a file is JSON; of one line by line, each line."""
    return _each_line if file.suffix.lower() != ".json" else exact_json


def _each_line(data: bytes) -> None:
    for line in data.splitlines():
        if line.strip():
            exact_json(line)


def _not_json(origin: str) -> Rejection:
    return Rejection(origin, Reason.UNPARSABLE, "no JSON any more, or nothing at all", b"")
