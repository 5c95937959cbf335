"""Which field of a record is its id, its text, its vector: for formats where that is open.

JSON, CSV, Parquet and SQLite say nothing about meaning, so it is told by names that programs
use and by what the first records hold. `inspect` shows what was found; the operator's own
names come first.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from harca.errors import UsageError
from harca.model import Item, Warn
from harca.readers.base import Defaults, FieldNames
from harca.readers.files import as_payload
from harca.readers.values import (
    is_long_vector,
    is_object,
    is_text,
    is_time,
    is_vector,
    key_of,
    object_from_text,
    plain_json,
    time_of,
    vector_from_text,
)

SAMPLE = 50
"""How many records are looked at before the first one is read."""

POSITION = "-"
"""An id field of this name: records are known by where they stand."""

# In the order of preference; compared in lower case, without "_", "-" and blanks.
_VECTORS = (
    "embedding", "vector", "values", "embeddings", "vectors", "emb", "vec", "contentvector",
    "textvector", "embeddingvector", "textembedding", "contentembedding", "documentembedding",
    "denseembedding", "densevector", "dense", "adaembedding", "adav2", "adasearch",
    "openaiembedding", "sentenceembedding", "features", "feature",
)  # fmt: skip
_IDS = (
    "id", "_id", "uuid", "ids", "chunkid", "vectorid", "embeddingid", "recordid", "nodeid",
    "pointid", "rowid", "pk", "key",
)  # fmt: skip
_TEXTS = (
    "combined", "text", "content", "pagecontent", "chunk", "chunktext", "document", "documents",
    "body", "passage", "sentence", "paragraph", "chunkcontent", "textchunk", "textcontent",
    "rawtext", "input", "texts", "contents", "chunks", "string", "question", "title",
    "description", "summary", "abstract", "name", "query", "prompt", "word", "token",
)  # fmt: skip
_METADATA = (
    "metadata", "meta", "metadatas", "cmetadata", "payload", "properties", "attributes",
    "metadatajson", "extrainfo",
)  # fmt: skip
MODEL_NAMES = ("model", "modelid", "modelname", "embeddingmodel", "embeddingmodelname")
_NO_TEXTS = (
    *MODEL_NAMES, *_METADATA, *_IDS, "object", "type", "kind", "source", "url", "path", "file",
    "filename", "language", "lang", "status", "category", "hash", "index",
)  # fmt: skip
_CREATED = ("createdat", "created", "creationdate", "createdon", "timestamp", "insertedat")

# A name that leads to the text and is not it.
_REFERENCE = re.compile(r"(?:id|key|hash|path|file|filename|source|ur[il])$", re.I)

# As `harca export` calls them: the table's own columns, by which they are told.
EXPORTED = frozenset(
    {"store_key", "content", "embedding", "metadata", "model_id", "created_at", "source"}
)
_STORE = "store"  # beside them, if the rows are of several


def plain_name(name: str) -> str:
    return re.sub(r"(?<=.)[_\-\s]", "", name.lower())


class FieldMap:
    """Takes records apart: built from the first ones, used for all of them.

    Attributes:
        shown: Which field is read as what, for `inspect`.
        unread: Fields with further vectors, which are not kept.
    """

    def __init__(
        self,
        sample: Sequence[Mapping[str, Any]],
        defaults: Defaults,
        *,
        missing_is_nan: bool = False,
    ) -> None:
        """Decide from the *sample*.

        Args:
            sample: The first records, about `SAMPLE` of them.
            defaults: The operator's names, and what is taken where there is no field.
            missing_is_nan: NaN among the metadata means "no value", as pandas has it.

        Raises:
            UsageError: The operator names a field that no record of the sample has.
        """
        self._defaults, self._missing_is_nan = defaults, missing_is_nan
        given = defaults.fields
        seen = _Seen(sample)
        self.metadata = seen.given("metadata", given.metadata) or seen.first(_METADATA, is_object)
        self.vector = seen.given("vector", given.vector) or seen.vector()
        taken = {self.metadata, self.vector}
        self.id = seen.given("id", given.id) or seen.id(_IDS, without=taken)
        self.text = seen.given("text", given.text) or seen.text(_TEXTS, without=taken | {self.id})
        self.model = seen.given("model", given.model) or seen.first(MODEL_NAMES, is_text)
        self.created = seen.given("created", given.created) or seen.first(_CREATED, is_time)
        self._is_export = (
            set(seen.names) - {_STORE} == EXPORTED and replace(given, records=None) == FieldNames()
        )
        if self._is_export:
            self.id, self.text, self.vector = "store_key", "content", "embedding"
            self.metadata, self.model, self.created = "metadata", "model_id", "created_at"
        self.unread = [
            name
            for name in seen.names
            if name not in (self.vector, self.id, self.text, self.metadata)
            and seen.all_are(name, is_vector)
            and (plain_name(name) in _VECTORS or re.search("embed|vector", name.lower()))
        ]

    @property
    def has_vector(self) -> bool:
        """True if a field with vectors was found."""
        return self.vector is not None

    @property
    def shown(self) -> dict[str, str]:
        """Which field is read as what."""
        found = {
            "store_key": self.id or "position",
            "content": self.text,
            "embedding": self.vector,
            "metadata": self.metadata,
            "model_id": self.model,
            "created_at": self.created,
        }
        return {column: name for column, name in found.items() if name is not None}

    def item(
        self,
        row: Mapping[str, Any],
        *,
        position: str,
        origin: str,
        source: str,
        payload: Callable[[], bytes] | None = None,
        model: str | None = None,
    ) -> Item:
        """Return the item that *row* is.

        Args:
            row: The record's fields.
            position: Its key, if it has no id.
            origin: Where it was read.
            source: Its source label.
            payload: Its bytes, for a rejection; by default the row as JSON.
            model: The label that the store as a whole gives.
        """
        if self._is_export:
            return exported_item(row, self._defaults, origin=origin, source=source, payload=payload)
        rest = dict(row)
        vector = _take(rest, self.vector)
        if isinstance(vector, str):
            vector = vector_from_text(vector)
        key = None if self.id == POSITION else _take(rest, self.id)
        content = _take(rest, self.text)
        warnings: tuple[Warn, ...] = ()
        if content is None:
            content, warnings = "", (Warn.NO_TEXT,)
        label = _take(rest, self.model)
        created = field_of(rest, self.created)
        for name in self.unread:
            rest.pop(name, None)
        return Item(
            key=key_of(key, position),
            content=content,
            vector=vector,
            metadata=self._metadata(rest),
            model_id=self._defaults.model_id if label is None and model is None else label or model,
            created_at=time_of(created),
            source=source,
            origin=origin,
            payload=payload or partial(as_payload, plain_json(row), b""),
            warnings=warnings,
        )

    def _metadata(self, rest: dict[str, Any]) -> Any:
        own = None
        if self.metadata is not None:
            own = _take(rest, self.metadata)
            if isinstance(own, str | bytes):
                own = object_from_text(own)
            if own is not None and not isinstance(own, Mapping):
                if self._defaults.fields.metadata is not None:
                    return own  # the operator said that these are the metadata
                rest[self.metadata], own = own, None
        merged = dict(own or {})
        clash = merged.keys() & rest.keys()
        if clash:
            merged[free_name(merged, "fields")] = rest
        else:
            merged |= rest
        return plain_json(merged, missing_is_nan=self._missing_is_nan)


def exported_item(
    row: Mapping[str, Any],
    defaults: Defaults,
    *,
    origin: str,
    source: str,
    payload: Callable[[], bytes] | None,
) -> Item:
    """Return a row that `harca export` has written, as it was in the table.

    Args:
        row: The fields in `EXPORTED`; metadata as an object or as JSON; ``store`` before the
            key, if the rows are of several.
    """
    metadata, store, key = map(row.get, ("metadata", _STORE, "store_key"))
    return Item(
        key=f"{store}/{key}" if store else key,
        content=row.get("content"),
        vector=row.get("embedding"),
        metadata=object_from_text(metadata) if isinstance(metadata, str) else metadata,
        model_id=row.get("model_id"),
        created_at=row.get("created_at"),
        source=defaults.source or row.get("source") or source,
        origin=origin,
        payload=payload or partial(as_payload, plain_json(row), b""),
    )


class _Seen:
    """The fields of the first records."""

    def __init__(self, sample: Sequence[Mapping[str, Any]]) -> None:
        self._sample = sample
        self.names = list(dict.fromkeys(name for row in sample for name in row))

    def given(self, column: str, name: str | None) -> str | None:
        """Return the operator's *name* if it can be found."""
        if name is None or (column == "id" and name == POSITION):
            return name
        if any(field_of(row, name) is not None for row in self._sample):
            return name
        listed = ", ".join(f'"{one}"' for one in self.names[:12]) or "none"
        raise UsageError(
            f'no field "{name}" in the first records, to be read as {column}; found {listed}',
            hint="Names are case-sensitive; a dot leads into an object: metadata.text.",
        )

    def _candidates(self, wanted: Iterable[str], names: Iterable[str]) -> list[str]:
        plain: dict[str, str] = {}
        for name in names:
            plain.setdefault(plain_name(name.rpartition(".")[2]), name)
        return [plain[name] for name in wanted if name in plain]

    def any_is(self, name: str, test: Callable[[Any], bool]) -> bool:
        """Say whether a record's field *name* passes *test*."""
        return any(test(field_of(row, name)) for row in self._sample)

    def all_are(self, name: str, test: Callable[[Any], bool]) -> bool:
        """Say whether the field *name* passes *test* wherever it is."""
        values = [value for row in self._sample if (value := field_of(row, name)) is not None]
        return bool(values) and all(map(test, values))

    def _nested(self) -> list[str]:
        """Return the names within objects, one level down."""
        found: dict[str, None] = {}
        for row in self._sample:
            for name, value in row.items():
                if isinstance(value, Mapping):
                    found.update(dict.fromkeys(f"{name}.{inner}" for inner in value))
        return list(found)

    def first(self, wanted: Iterable[str], test: Callable[[Any], bool]) -> str | None:
        """Return the first of the fields *wanted* that passes *test* somewhere."""
        return next(
            (name for name in self._candidates(wanted, self.names) if self.any_is(name, test)), None
        )

    def vector(self) -> str | None:
        """Return the field with the vectors: a known name first, then whatever looks like it."""
        nested = self._nested()
        for names in (self.names, nested):
            for name in self._candidates(_VECTORS, names):
                if self.any_is(name, is_vector):
                    return name
        for names in (self.names, nested):
            for name in names:
                if self.any_is(name, is_long_vector):
                    return name
        return None

    def id(self, wanted: Iterable[str], *, without: set[str | None]) -> str | None:
        """Return a field of that kind which tells the first records apart."""
        for name in self._candidates(wanted, self.names):
            values = [row.get(name) for row in self._sample if row.get(name) is not None]
            keys = [key_of(value, "") for value in values]
            are_keys = bool(keys) and all(isinstance(key, str) and key for key in keys)
            if name not in without and are_keys and len(set(keys)) == len(keys):
                return name
        return None

    def text(self, wanted: Sequence[str], *, without: set[str | None]) -> str | None:
        """Return the field with the texts: a known name, in an object too, or the only one."""
        for names in (self.names, self._nested()):
            for name in self._candidates(wanted, names):
                if name not in without and self.any_is(name, is_text):
                    return name
        texts = [
            name
            for name in self.names
            if name not in without
            and self.any_is(name, is_text)
            and plain_name(name) not in (*_NO_TEXTS, *_CREATED)
            and not _REFERENCE.search(name)
        ]
        return texts[0] if len(texts) == 1 else None


def field_of(row: Mapping[str, Any], name: str | None) -> Any:
    """Return a record's field; a dot in its *name* may lead into an object."""
    if name is None:
        return None
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    value = row.get(outer) if dot else None
    return field_of(value, inner) if isinstance(value, Mapping) else None


def _take(row: dict[str, Any], name: str | None) -> Any:
    """Remove a field and return it; of an object within the record, a copy is changed."""
    if name is None:
        return None
    if name in row:
        return row.pop(name)
    outer, dot, inner = name.partition(".")
    value = row.get(outer) if dot else None
    if not isinstance(value, Mapping):
        return None
    row[outer] = dict(value)
    return _take(row[outer], inner)


def free_name(fields: Mapping[str, Any], name: str) -> str:
    """Return *name*, unless the record has a field of its own called so."""
    while name in fields:
        name = f"store_{name}"
    return name
