"""What moves through harca: items as found, records ready to be stored, rejections.

reader -> Item -> Record | Rejection -> Batch -> rows and ledger
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Reason(StrEnum):
    """Why a record was not loaded; the codes are part of the command line's contract."""

    UNREADABLE = "unreadable"
    VANISHED = "vanished"
    SYMLINK_LOOP = "symlink-loop"
    UNPARSABLE = "unparsable"
    LFS_POINTER = "lfs-pointer"
    NO_TEXT = "no-text"
    NO_MODEL = "model-not-text"
    NO_VECTOR = "no-vector"
    NOT_A_VECTOR = "not-a-vector"
    EMPTY_VECTOR = "empty-vector"
    NON_FINITE = "non-finite"
    TOO_MANY_DIMS = "too-many-dims"
    NUL_IN_TEXT = "nul-in-text"
    LONE_SURROGATE = "lone-surrogate"
    METADATA_NOT_OBJECT = "metadata-not-object"
    BAD_METADATA = "bad-metadata"
    TOO_LARGE = "too-large"
    DUPLICATE_KEY = "duplicate-key"
    JSONB_DIFFERS = "jsonb-differs"
    REFUSED = "refused-by-server"


class Warn(StrEnum):
    """What is odd about a record that is loaded all the same, or about the store."""

    ZERO_VECTOR = "zero-vector"
    NAME_MISMATCH = "name-mismatch"
    BAD_DATE = "bad-date"
    NO_TEXT = "missing-text"
    SYMLINK_LOOP = "symlink-loop"
    NORMALIZED = "normalized-vectors"


class OnConflict(StrEnum):
    """Which of two different contents of one key stays in the table.

    ``NEWEST`` and ``OLDEST`` go by the creation date. ``KEEP`` leaves a row alone
    that an earlier run put there; between records of one store it decides as
    ``NEWEST``. ``ERROR`` stops, and takes the run back.
    """

    NEWEST = "newest"
    OLDEST = "oldest"
    KEEP = "keep"
    ERROR = "error"


class Expired(StrEnum):
    """What is done with records whose ``expiresAt`` has passed."""

    KEEP = "keep"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One entry of a store, as found: nothing is checked yet.

    Attributes:
        payload: Gives the entry's bytes as they stand in the store, for a rejection.
        expires_at: When the store says that the entry expires.
    """

    key: Any
    content: Any
    vector: Any
    metadata: Any
    model_id: Any
    created_at: Any
    source: str
    origin: str
    payload: Callable[[], bytes]
    expires_at: Any = None
    warnings: tuple[Warn, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no single truth value
class Record:
    """One embedding, ready to be stored.

    Attributes:
        key: Unique within its store; the store's own identity for the record.
        embedding: float32, shape ``(dims,)``, every component finite.
        metadata: The parts of a JSON object, in `harca.canonical`'s form.
        created_at: With time zone, or None where the store has no date.
        origin: Where it was read, for messages: ``"cache/ab12.json"``.
    """

    key: str
    content: str
    embedding: NDArray[np.float32]
    metadata: Mapping[str, str]
    model_id: str
    created_at: datetime | None
    source: str
    origin: str
    warnings: tuple[Warn, ...] = ()

    @property
    def space(self) -> tuple[str, int]:
        """The pair within which embeddings can be compared."""
        return self.model_id, len(self.embedding)


@dataclass(frozen=True, slots=True)
class Rejection:
    """One entry that is not loaded, with its reason and everything needed to load it later."""

    origin: str
    reason: Reason
    detail: str
    payload: bytes | None = None

    def __str__(self) -> str:
        return f"{self.origin}: {self.reason}: {self.detail}"


@dataclass(slots=True)
class StoreNotes:
    """What a reader met besides records; filled while it reads.

    Attributes:
        why: What the format was told by.
        metric: ``cosine``, ``l2`` or ``inner_product``, if the store says.
        fields: Which field is read as what, where that is a choice.
        files: Files looked into.
        bytes: Their size.
        without_vectors: Documents that have text but no vector, and their index files.
        left_out: Files that hold no records, with why.
        warnings: What is odd about the store, with where.
    """

    why: str = ""
    metric: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    files: int = 0
    bytes: int = 0
    without_vectors: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, Warn, str]] = field(default_factory=list)

    def add(self, other: "StoreNotes", *, below: str) -> None:
        """Add the notes of a store in the folder *below*."""
        self.files += other.files
        self.bytes += other.bytes
        self.metric = self.metric or other.metric
        self.fields |= other.fields
        self.without_vectors += [f"{below}/{name}" for name in other.without_vectors]
        self.left_out += [(f"{below}/{name}", why) for name, why in other.left_out]
        self.warnings += [
            (f"{below}/{where}", warn, detail) for where, warn, detail in other.warnings
        ]


class Reader(Protocol):
    """A store in one format, seen as a stream of items.

    Attributes:
        format: The format's name, as ``inspect`` shows it.
        volatile: Metadata keys that the application rewrites whenever it reads a
            record. A difference in nothing else is no change of content.
        guesses_ids: The key is a field that was taken for one: two records with one key
            and different contents need not be one record.
        bookkeeping: Names of files that the application writes to and that hold no record.
        notes: What the latest (or running) pass met besides items.
    """

    format: str
    volatile: frozenset[str]
    guesses_ids: bool
    bookkeeping: frozenset[str]
    notes: StoreNotes

    def items(self) -> Iterator[Item | Rejection]:
        """Yield every entry once, in the same order on every call."""
        ...

    def size_hint(self) -> int | None:
        """Return about how many entries there are, for progress; None if unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Space:
    """Embeddings that can be compared: one model label, one number of dimensions."""

    model_id: str
    dims: int
    records: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as ``--json`` shows them."""
        return {"model_id": self.model_id, "dims": self.dims, "records": self.records}


@dataclass(slots=True)
class Tally:
    """How many records ended in which bucket: ``read`` is the sum of the others."""

    read: int = 0
    loaded: int = 0
    unchanged: int = 0
    superseded: int = 0
    rejected: int = 0

    def __iadd__(self, other: "Tally") -> "Tally":
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return {name: getattr(self, name) for name in self.__slots__}
