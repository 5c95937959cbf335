"""Chroma's stores since 0.4: ``chroma.sqlite3``, and a folder with an HNSW index a collection.

What Chroma is told goes to a log (table ``embeddings_queue``). From there it is applied to the
tables with texts and metadata, and to the index, each at its own pace: the index is saved every
1,000 operations or so, and since 1.0 the tables may lag behind too. How far each has come
stands in ``max_seq_id``. Since 0.5.6 the log is cut behind what both have. So a collection is
its tables and the log's operations that these do not have yet; a vector is in the log, or else
in the index.

Established from stores of 0.4, 0.5, 0.6 and 1.x, from ``chromadb/migrations``,
``chromadb/segment/impl`` and ``rust/segment/src/local_hnsw.rs`` of chroma-core/chroma.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harca.errors import LfsPointer, UsageError, counted
from harca.model import Item, Reason, Rejection, Warn
from harca.normalize import BadValue
from harca.readers import chroma_log, chroma_tables
from harca.readers.base import Defaults, StoreReader
from harca.readers.chroma_tables import Collection, Row
from harca.readers.fields import free_name
from harca.readers.files import as_payload, head, origin_of, read_file
from harca.readers.hnsw_file import HnswFile
from harca.readers.pickles import Kept, unpickle
from harca.readers.sqlite_file import connect, is_sqlite, refusal
from harca.readers.values import plain_json

FORMAT = "chroma"

_DATABASE = "chroma.sqlite3"
_DOCUMENT = "chroma:document"
_LABELS = "index_metadata.pickle"
_LABELS_CLASS = ("chromadb.segment.impl.vector.local_persistent_hnsw", "PersistentData")

# float32, computed in float32: the rounding errors of thousands of components, with room.
_SAME_DIRECTION = 1e-5
_LENGTH_1 = 1e-3

# No model makes others. Where the length was never written, it is what was in memory before.
_SHORTEST, _LONGEST = 1e-6, 1e6

_ALL = (1 << 63) - 1  # with an index that cannot be read, the log is all there is


def open_path(path: Path, defaults: Defaults) -> "ChromaReader | None":
    """Return a reader if *path* is a folder with Chroma's database, or that file.

    Raises:
        LfsPointer: Git LFS left a pointer in place of the database.
        SourceError: The database is damaged.
    """
    file = path / _DATABASE if path.is_dir() else path
    if not is_sqlite(file):
        return None
    with closing(connect(file)) as db:
        try:
            ours = chroma_tables.table_names(db) >= chroma_tables.REQUIRED
        except sqlite3.DatabaseError as exc:
            raise refusal(file, exc) from exc
    return ChromaReader(path, file, defaults) if ours else None


class ChromaReader(StoreReader):
    """Reads one collection after the other; memory is its ids and a batch of records."""

    format = FORMAT

    def __init__(self, path: Path, file: Path, defaults: Defaults) -> None:
        super().__init__(path, defaults)
        self._file = file
        self._origin = origin_of(file, path)

    def size_hint(self) -> int | None:
        """Return how many records the tables have, unless the log has more."""
        with closing(connect(self._file)) as db:
            try:
                chosen = self._chosen(db)
                if any(one.pending for one in chosen):
                    return None
                return sum(chroma_tables.count(db, one.tables) for one in chosen)
            except chroma_tables.DAMAGE:
                return None  # reading says what is wrong

    def read(self) -> Iterator[Item | Rejection]:
        """Yield the records of each collection, in the order of their names."""
        notes = self.notes
        notes.files, notes.bytes = 1, self._file.stat().st_size
        with closing(connect(self._file)) as db:
            try:
                chosen = self._chosen(db)
                notes.why = f"{counted(len(chosen), 'collection')} in Chroma's tables"
                metrics = {one.metric for one in chosen}
                notes.metric = metrics.pop() if len(metrics) == 1 else None
                if left := chroma_tables.without_collection(db):
                    what = f"{counted(left, 'record')} of collections that were deleted"
                    notes.left_out.append((self._origin, what))
                for collection in chosen:
                    with closing(_Index.open(self._file.parent, collection)) as index:
                        notes.files += index.file is not None
                        notes.bytes += index.bytes
                        yield from self._records(db, collection, index, _prefix(collection, chosen))
            except chroma_tables.DAMAGE as exc:
                yield Rejection(self._origin, Reason.UNPARSABLE, f"the database is damaged: {exc}")

    def _chosen(self, db: sqlite3.Connection) -> list[Collection]:
        """Return the collections with records, or the one that the operator names."""
        found = chroma_tables.collections(db)
        wanted = self.defaults.fields.records
        if wanted is None:
            return [one for one in found if one.pending or chroma_tables.count(db, one.tables)]
        named = [one for one in found if f"/{one.path}".endswith(f"/{wanted}")]
        if len(named) == 1:
            return named
        listed = ", ".join(f'"{one.path if named else one.name}"' for one in named or found)
        raise UsageError(
            f'{len(named) or "no"} collections "{wanted}"; found {listed or "none at all"}',
            hint="Names are case-sensitive; where several databases have one of that name, put "
            "the database's before it: default_database/documents.",
        )

    def _records(
        self, db: sqlite3.Connection, collection: Collection, index: "_Index", prefix: str
    ) -> Iterator[Item | Rejection]:
        log = chroma_log.replay(db, collection, saved=index.saved, indexed=index.labels)
        batches = chroma_log.brought_up_to_date(
            db, chroma_tables.batches(db, collection.tables), log.pending
        )
        scaled_count = 0
        for batch in batches:
            seqs = [seq for key, _ in batch for seq in (log.newer.get(key), log.older.get(key))]
            logged = chroma_log.vectors(db, [seq for seq in seqs if seq is not None])
            for key, row in batch:
                at = f"{self._origin}#{_shown(f'{prefix}{key}')}"
                if isinstance(row, ValueError):
                    yield Rejection(at, Reason.UNPARSABLE, str(row))
                    continue
                try:
                    vector, scaled = _vector(row, collection, index, log, logged)
                except BadValue as bad:
                    yield Rejection(at, bad.reason, bad.detail, _payload(row, None))
                    continue
                scaled_count += scaled
                yield self._item(row, vector, collection, prefix, at)
        if scaled_count:
            what = (
                f'{counted(scaled_count, "vector")} of collection "{collection.name}" scaled to '
                "length 1 for cosine distance; the length is not in the store"
            )
            self.notes.warnings.append((self._origin, Warn.NORMALIZED, what))

    def _item(
        self, row: Row, vector: NDArray[Any], collection: Collection, prefix: str, at: str
    ) -> Item:
        metadata = plain_json(row.metadata)
        text = metadata.pop(_DOCUMENT, None)
        if prefix:
            metadata[free_name(metadata, "collection")] = collection.name
        model = collection.model
        if model is None or (collection.assumed and self.defaults.model_id != Defaults().model_id):
            model = self.defaults.model_id
        return Item(
            key=prefix + row.key if isinstance(row.key, str) else row.key,
            content="" if text is None else text,
            vector=vector,
            metadata=metadata,
            model_id=model,
            created_at=row.created,
            source=self.source,
            origin=at,
            payload=partial(_payload, row, vector),
            warnings=(Warn.NO_TEXT,) if text is None else (),
        )


@dataclass(frozen=True, slots=True)
class _Index:
    """A collection's HNSW index, as far as it can be read.

    Attributes:
        labels: Its ids, and the labels of their vectors.
        saved: The last operation that it has.
        problem: Why an id can be without a vector.
        pointer: What Git LFS left in place of a file.
    """

    problem: str
    saved: int = 0
    file: HnswFile | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    pointer: LfsPointer | None = None

    @classmethod
    def open(cls, store: Path, collection: Collection) -> "_Index":
        """Open the index of a collection; one that cannot be read has no vectors."""
        name = collection.index
        if not isinstance(name, str) or Path(name).name != name:
            return cls("the collection has no index")
        folder = store / name
        if not (folder / _LABELS).exists() and not collection.saved:
            return cls("the index was never saved")
        try:
            head(folder / _LABELS)  # raises if it is a Git LFS pointer
            found = read_file(str(folder / _LABELS), _LABELS)
            if found.rejection is not None:
                return cls(f"{_LABELS} cannot be read: {found.rejection.detail}", _ALL)
            maps = unpickle(found.data, {_LABELS_CLASS})
            maps = maps.state if isinstance(maps, Kept) else maps
            labels = maps.get("id_to_label") if isinstance(maps, dict) else None
            if not isinstance(labels, dict):
                return cls(f"{_LABELS} has no map of ids", _ALL)
            file = HnswFile.open_folder(folder)
        except LfsPointer as exc:
            return cls(str(exc), _ALL, pointer=exc)
        except (OSError, ValueError) as exc:
            return cls(f"the index cannot be read: {exc}", _ALL)
        problem = "the index does not have it"
        if file.whole < file.count:
            problem = f"the index ends after element {file.whole} of {file.count}"
        saved = collection.saved
        if saved is None:  # before 0.5.6 it stands beside the labels
            saved = chroma_tables.seq_id(maps.get("max_seq_id"))
        return cls(problem, saved, file, labels)

    @property
    def bytes(self) -> int:
        """Size of the file with the vectors."""
        return 0 if self.file is None else self.file.bytes

    def vector(self, key: str) -> NDArray[np.float32] | None:
        """Return an id's vector, float32, shape ``(dims,)``; None if there is none.

        Raises:
            BadValue: It cannot be read.
        """
        label = self.labels.get(key)
        if self.file is None or not isinstance(label, int):
            return None
        try:
            return self.file.vector(label)
        except OSError as exc:
            raise BadValue(Reason.UNREADABLE, f"the index: {exc.strerror or exc}") from exc

    def length(self, key: str) -> np.float32 | None:
        """Return the length that an id's vector had; None if that cannot be known."""
        label = self.labels.get(key)
        found = self.file.length(label) if self.file is not None and label is not None else None
        return found if found is not None and _SHORTEST <= found <= _LONGEST else None

    def close(self) -> None:
        """Close the file with the vectors."""
        if self.file is not None:
            self.file.close()


def _vector(
    row: Row,
    collection: Collection,
    index: _Index,
    log: chroma_log.Log,
    logged: Mapping[int, NDArray[Any] | ValueError],
) -> tuple[NDArray[Any], bool]:
    """Return a record's vector, and whether only its direction is known.

    Raises:
        BadValue: It has none.
        LfsPointer: Git LFS left a pointer in place of the index.
    """
    if row.key in log.newer:
        newer = log.newer[row.key]
        if newer is None:
            raise BadValue(Reason.NO_VECTOR, "it was deleted, and came back without a vector")
        return _taken(logged, newer), False
    older = log.older.get(row.key)
    stored = index.vector(row.key)
    if stored is None:
        # An operation behind the record's last one was ignored by Chroma: an id added again.
        if older is not None and (row.last is None or older <= row.last):
            return _taken(logged, older), False
        if index.pointer is not None:
            raise index.pointer
        raise BadValue(Reason.NO_VECTOR, f"the log has no vector; {index.problem}")
    if collection.metric != "cosine":
        return stored, False
    length = float(np.linalg.norm(stored))
    if abs(length - 1) > _LENGTH_1:
        return stored, False  # all zero
    # The log has it to the last bit; scaled back it can be off by the last one.
    original = logged.get(older) if older is not None else None
    if isinstance(original, np.ndarray) and _same_direction(original, stored):
        return original, False
    had = index.length(row.key)
    return (stored, True) if had is None else (stored * had, False)


def _taken(logged: Mapping[int, NDArray[Any] | ValueError], seq: int) -> NDArray[Any]:
    found = logged.get(seq)
    if found is None:
        raise BadValue(Reason.VANISHED, "Chroma cut the log while it was read")
    if isinstance(found, ValueError):
        raise BadValue(Reason.NOT_A_VECTOR, str(found))
    return found


def _same_direction(original: NDArray[Any], scaled: NDArray[np.float32]) -> bool:
    if original.shape != scaled.shape:
        return False
    length = float(np.linalg.norm(original.astype(np.float64)))
    return length > 0 and bool(np.allclose(original / length, scaled, atol=_SAME_DIRECTION))


def _prefix(collection: Collection, among: Sequence[Collection]) -> str:
    """Return what stands before the keys of a collection, so that they stay unique."""
    if len(among) == 1:
        return ""
    several_tenants = len({one.tenant for one in among}) > 1
    several_databases = len({one.database for one in among}) > 1
    return (
        (f"{collection.tenant}/" if several_tenants else "")
        + (f"{collection.database}/" if several_databases else "")
        + f"{collection.name}/"
    )


def _shown(key: str) -> str:
    return key.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def _payload(row: Row, vector: NDArray[Any] | None) -> bytes:
    record = {
        "id": plain_json(row.key),
        "metadata": plain_json(row.metadata),
        "embedding": None if vector is None else vector.tolist(),
    }
    return as_payload(record, b"")
