"""HARCA's file store: one JSON file per (model, text), and the JSON files beside it.

Any number of folders, found by their files and not by configuration. What a file is,
is told by its contents:

* a record: ``text``, ``modelName``, ``embedding``, dates; its name is the SHA-256 of
  ``modelName + ":" + text``. The vector is a list, or zlib + base64 under one of two
  markers (``compressed``: the code that wrote most data; ``_compressed``: HEAD).
* a list of ``{id, embedding, content, metadata}``: the document module's store.
* ``{"code_vectors": [...]}``: rows of a table exported as JSON, vectors in text form.
* documents without vectors and their index files; ``stats.json``: no records.

Established from HARCA's source at commit 2106575 and its committed data.
"""

import hashlib
import json
import os
import re
import zlib
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
import orjson
import simdjson
from numpy.typing import NDArray

from harca.errors import EmptyStore, LfsPointer, counted
from harca.model import Item, Reason, Rejection, StoreNotes, Warn
from harca.readers.base import Defaults
from harca.readers.fields import free_name
from harca.readers.files import (
    SKIPPED_FOLDERS,
    FoundFile,
    as_payload,
    exact_json,
    head,
    printable,
    read_json,
)

FORMAT = "harca"

_RECORD_NAME = re.compile(r"[0-9a-f]{64}\.json")
_NOT_RECORDS = {"stats.json"}
_TABLES = ("code_vectors", "embeddings", "vector_embeddings")
_OWN_FIELDS = {"text", "modelName", "embedding"}
_ENTRY_FIELDS = {"id", "content", "embedding", "metadata", "created_at"}
# 16,000 components of at most 25 characters, with room: more is no vector.
_MAX_INFLATED_BYTES = 4 * 1024 * 1024

_STRANGE_ENTRIES = 100  # without one that is HARCA's: the store is somebody else's
_DOCUMENTS = "vector-store.json"
# 16,000 components of 25 characters take less; an export begins with its table's name.
_LARGER_THAN_A_RECORD, _LOOKED_AT_BYTES = 1 << 20, 1 << 16

_VECTOR_FIELD = re.compile(rb'"embedding":\s*\[')


def open_path(path: Path, defaults: Defaults) -> "HarcaReader | None":
    """Return a reader if *path* is a HARCA store, or a file of one.

    Raises:
        EmptyStore: It is one, but nothing in it has a vector.
    """
    reader = HarcaReader(path, defaults)
    reader.only_looking = True
    seen_any, strange = False, 0
    for found in reader.items():
        if reader.recognised:
            reader.only_looking = False
            return reader
        if isinstance(found, Item):
            strange += 1  # other programs write files of texts and embeddings too
            if strange == _STRANGE_ENTRIES:
                return None
        seen_any = seen_any or bool(_RECORD_NAME.fullmatch(found.origin.rpartition("/")[2]))
    notes = reader.notes
    reader.only_looking = False
    if seen_any:
        return reader  # broken records only: a load that rejects them all says so
    if notes.without_vectors or any(why == _STATS for _, why in notes.left_out):
        raise EmptyStore(str(path), found=_summary(notes))
    return None


_STATS = "counters of the cache, no records"
_NO_RECORD = "JSON, but no record"
_CACHE = "cached vectors without their texts"


def _summary(notes: StoreNotes) -> str:
    parts = []
    if notes.without_vectors:
        parts.append(counted(len(notes.without_vectors), "document") + " without vectors")
    if notes.left_out:
        parts.append(counted(len(notes.left_out), "file") + " without records")
    return " and ".join(parts)


class HarcaReader:
    """Reads a folder tree, or one file, in the order of its folders' and files' names."""

    format = FORMAT
    # Rewritten by HARCA on every read of a record.
    volatile = frozenset({"lastAccessed", "accessCount"})
    guesses_ids = False
    bookkeeping = frozenset(_NOT_RECORDS)

    def __init__(self, path: Path, defaults: Defaults | None = None) -> None:
        self.path = path
        self.defaults = defaults or Defaults()
        self.notes = StoreNotes()
        self.recognised = False  # an entry was met that only HARCA writes
        self.only_looking = False  # large files that cannot be HARCA's are passed by
        self._parser = simdjson.Parser()
        # Stands for the vector while the rest is parsed; nothing in a store is equal to it.
        self._token = token_hex(16)
        self._placeholder = f'"{self._token}"'.encode()

    def size_hint(self) -> int | None:
        """Return the number of files that may be records."""
        if self.path.is_file():
            return None
        return sum(
            1
            for _, names in self._folders(StoreNotes())
            if not isinstance(names, Rejection)
            for name in names
            if name not in _NOT_RECORDS
        )

    def items(self) -> Iterator[Item | Rejection]:
        """Yield what the store holds; memory is the names of one folder and one file."""
        self.notes = StoreNotes(why="files of text, modelName and embedding")
        if self.path.is_file():
            yield from self._read(str(self.path), self.path.name, self.path.name, folder=".")
            return
        for folder, names in self._folders(self.notes):
            if isinstance(names, Rejection):
                yield names
                continue
            shown = printable(folder)
            prefix, before = str(self.path / folder), "" if folder == "." else f"{shown}/"
            for name in names:
                origin = before + (name if name.isascii() else printable(name))
                yield from self._read(f"{prefix}/{name}", name, origin, folder=shown)

    def _folders(self, notes: StoreNotes) -> Iterator[tuple[str, list[str] | Rejection]]:
        """Yield each folder below the store with the names of its JSON files, sorted."""
        pending = ["."]
        visited: dict[tuple[int, int], str] = {}
        while pending:
            folder = pending.pop()
            shown = printable(folder)
            try:
                status = (self.path / folder).stat()
                identity = status.st_dev, status.st_ino
                if identity in visited:
                    detail = f'leads back to "{printable(visited[identity])}"'
                    notes.warnings.append((shown, Warn.SYMLINK_LOOP, detail))
                    continue
                visited[identity] = folder
                names, inner = [], []
                with os.scandir(self.path / folder) as entries:
                    for entry in entries:
                        if _is_dir(entry):
                            if entry.name not in SKIPPED_FOLDERS:
                                inner.append(os.path.normpath(f"{folder}/{entry.name}"))
                        elif entry.name.endswith(".json"):
                            names.append(entry.name)
            except FileNotFoundError:
                detail = "the folder was there when its parent was listed"
                yield folder, Rejection(shown, Reason.VANISHED, detail)
                continue
            except OSError as exc:
                yield folder, Rejection(shown, Reason.UNREADABLE, exc.strerror or str(exc))
                continue
            pending.extend(sorted(inner, reverse=True))
            yield folder, sorted(names)

    def _read(
        self, path: str, name: str, origin: str, *, folder: str
    ) -> Iterator[Item | Rejection]:
        if name in _NOT_RECORDS:
            self.notes.left_out.append((origin, _STATS))
            return
        if self.only_looking and _is_large_and_not_ours(Path(path)):
            return
        found, parsed = read_json(path, origin, self._parse)
        self.notes.files += 1
        self.notes.bytes += len(found.data)
        if found.rejection is not None:
            yield found.rejection
            return
        value, vector = parsed
        if isinstance(value, list):
            yield from self._documents(value, found)
        elif not isinstance(value, dict):
            yield from self._no_record(found, "JSON, but neither an object nor a list")
        elif "embedding" in value or {"text", "modelName"} <= value.keys():
            yield self._record(value, vector, found, name, folder)
        elif tables := [name for name in _TABLES if _holds_vectors(value.get(name))]:
            for table in tables:
                yield from self._table(table, value[table], found)
        elif _is_document(value):
            self.notes.without_vectors.append(origin)
        elif value and all(_is_cached_vector(entry) for entry in value.values()):
            self.notes.left_out.append((origin, _CACHE))
        else:
            yield from self._no_record(found, "an object without text, modelName and embedding")

    def _no_record(self, found: FoundFile, what: str) -> Iterator[Rejection]:
        """A file named as a record must be one; any other file is somebody else's."""
        if _RECORD_NAME.fullmatch(found.origin.rpartition("/")[2]):
            yield Rejection(found.origin, Reason.NO_VECTOR, what, found.data)
        else:
            self.notes.left_out.append((found.origin, _NO_RECORD))

    def _parse(self, data: bytes) -> tuple[Any, NDArray[np.float64] | None]:
        """Return the JSON value, and a record's vector if it could be read the fast way.

        The numbers of a plain record never become Python objects: a 1536-d record takes
        about 60 us instead of 160. Whatever is unusual takes the slow way, which can say
        what is wrong with it.
        """
        start = _VECTOR_FIELD.search(data)
        if start and (end := data.find(b"]", start.end())) > 0:
            opening = start.end() - 1
            try:
                # simdjson's buffers flatten nested lists, but this one ends at the first
                # bracket that closes, so that a nested list does not parse.
                numbers: Any = self._parser.parse(data[opening : end + 1])
                vector = np.frombuffer(numbers.as_buffer(of_type="d"), dtype=np.float64)
                del numbers
                rest = exact_json(data[:opening] + self._placeholder + data[end + 1 :])
            except (ValueError, TypeError, RuntimeError):
                pass
            else:
                # Otherwise the field was somewhere inside, or there twice.
                if isinstance(rest, dict) and rest.get("embedding") == self._token:
                    return rest, vector
        return exact_json(data), None

    def _record(
        self,
        value: dict[str, Any],
        vector: NDArray[np.float64] | None,
        found: FoundFile,
        name: str,
        folder: str,
    ) -> Item | Rejection:
        text, model = value.get("text"), value.get("modelName")
        stem = name.removesuffix(".json")
        if model is None and isinstance(text, str) and stem == _md5(text):
            # An older layout: <model>/<md5 of the text>.json
            model = folder.rpartition("/")[2] if folder != "." else self.path.resolve().name
        key: str | None = None
        warnings: tuple[Warn, ...] = ()
        if isinstance(text, str):
            model = self.defaults.model_id if model is None else model
            key = record_key(str(model), text)
            if stem != key and stem != _md5(text):
                warnings = (Warn.NAME_MISMATCH,)
        self.recognised |= isinstance(text, str) and (not warnings or "modelName" in value)
        raw: Any = value.get("embedding") if vector is None else vector
        metadata = {field: entry for field, entry in value.items() if field not in _OWN_FIELDS}
        if isinstance(raw, dict) and (marker := _compression(raw)):
            try:
                raw = inflate(raw.get("data"))
            except (ValueError, zlib.error, TypeError, RecursionError) as exc:
                detail = f"the compressed vector cannot be unpacked: {exc}"
                return Rejection(found.origin, Reason.UNPARSABLE, detail, found.data)
            metadata[free_name(metadata, "compressed")] = marker
        metadata[free_name(metadata, "directory")] = folder
        nested = metadata.pop("metadata", None)
        if isinstance(nested, dict):
            if nested.keys() & metadata.keys():
                metadata["metadata"] = nested  # in whole, beside what is ours
            else:
                metadata |= nested
        elif nested is not None:
            metadata = nested  # not an object: normalize says so
        return Item(
            key=key,
            content=text,
            vector=raw,
            metadata=metadata,
            model_id=model,
            created_at=value.get("createdAt"),
            expires_at=value.get("expiresAt"),
            source=self.defaults.source or "harca-files",
            origin=found.origin,
            payload=lambda: found.data,
            warnings=warnings,
        )

    def _documents(self, entries: list[Any], found: FoundFile) -> Iterator[Item | Rejection]:
        """The document module's ``vector-store.json``."""
        if not _holds_vectors(entries):
            yield from self._no_record(found, "a list without embeddings")
            return
        self.recognised |= found.origin.rpartition("/")[2] == _DOCUMENTS
        for number, entry in enumerate(entries):
            metadata = entry.get("metadata") if isinstance(entry, dict) else None
            created = metadata.get("created") if isinstance(metadata, dict) else None
            origin = f"{found.origin}[{number}]"
            yield self._entry(entry, found, origin, source="harca-documents", created_at=created)

    def _table(self, table: str, rows: list[Any], found: FoundFile) -> Iterator[Item | Rejection]:
        """Rows of a table, exported as JSON; vectors in pgvector's text form."""
        self.recognised = True
        for number, entry in enumerate(rows):
            created = entry.get("created_at") if isinstance(entry, dict) else None
            origin = f"{found.origin}#{table}[{number}]"
            yield self._entry(entry, found, origin, source=table, created_at=created)

    def _entry(
        self, entry: Any, found: FoundFile, origin: str, *, source: str, created_at: Any
    ) -> Item | Rejection:
        if not isinstance(entry, dict):
            payload = as_payload(entry, found.data)
            return Rejection(origin, Reason.NO_VECTOR, "not an object", payload)
        metadata = entry.get("metadata")
        rest = {name: value for name, value in entry.items() if name not in _ENTRY_FIELDS}
        if rest and isinstance(metadata, dict | None):
            own = metadata or {}
            metadata = {**own, "fields": rest} if own.keys() & rest.keys() else {**own, **rest}
        return Item(
            key=entry.get("id"),
            content=entry.get("content"),
            vector=_from_text(entry.get("embedding")),
            metadata=metadata,
            model_id=self.defaults.model_id,
            created_at=created_at,
            source=self.defaults.source or source,
            origin=origin,
            payload=lambda: as_payload(entry, found.data),
        )


def _is_large_and_not_ours(path: Path) -> bool:
    """Say whether a file is larger than a record, and neither of the two larger files."""
    try:
        if path.stat().st_size < _LARGER_THAN_A_RECORD or path.name == _DOCUMENTS:
            return False
        start = head(path, _LOOKED_AT_BYTES)
    except (OSError, LfsPointer):
        return False
    return not any(f'"{name}"'.encode() in start for name in (*_TABLES, "modelName"))


def record_key(model: str, text: str) -> str:
    """Return the identity of a record, which is also its file's name.

    Half a surrogate pair is hashed as Node does it, as U+FFFD.
    """
    joined = f"{model}:{text}"
    try:
        raw = joined.encode()
    except UnicodeEncodeError:
        raw = joined.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    return hashlib.sha256(raw).hexdigest()


def inflate(data: Any) -> list[Any]:
    """Return the vector of a compressed record: base64, then zlib, then JSON."""
    if not isinstance(data, str):
        raise TypeError("no data")
    try:
        packed = b64decode(data, validate=True)
    except Base64Error as exc:
        raise ValueError(str(exc)) from exc
    stream = zlib.decompressobj()
    raw = stream.decompress(packed, _MAX_INFLATED_BYTES)
    if not stream.eof:
        raise ValueError("it is cut short, or larger than a vector can be")
    try:
        numbers = orjson.loads(raw)
    except orjson.JSONDecodeError:
        numbers = json.loads(raw)
    if not isinstance(numbers, list):
        raise TypeError("not a list")
    return numbers


def _compression(embedding: dict[str, Any]) -> str | None:
    return next(
        (marker for marker in ("compressed", "_compressed") if embedding.get(marker) is True), None
    )


def _from_text(embedding: Any) -> Any:
    """Return a vector that stands in quotes, as pgvector prints it, as a list."""
    if isinstance(embedding, str) and embedding.startswith("["):
        try:
            return json.loads(embedding)
        except (ValueError, RecursionError):
            return embedding  # normalize says what it is
    return embedding


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself; reading it will say so


def _holds_vectors(entries: Any) -> bool:
    return isinstance(entries, list) and any(
        isinstance(entry, dict) and "embedding" in entry for entry in entries
    )


def _is_document(value: dict[str, Any]) -> bool:
    whole = isinstance(value.get("content"), str) and "title" in value
    index = isinstance(value.get("sections") or value.get("entries"), list)
    return whole or index


def _is_cached_vector(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("data"), list) and "expiry" in entry


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()
