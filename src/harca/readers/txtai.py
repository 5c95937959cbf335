"""txtai's embeddings indexes, as ``Embeddings.save`` writes them into a folder.

``config.json`` (before 6.0: ``config``, a pickle) says how the index was made, ``embeddings``
has the vectors by number, and ``documents`` (SQLite) the texts by the same number. Without
content there is a list of ids instead: in the config, or since 7.2 in ``ids``. An index can
have further ones for the same documents, in ``indexes/NAME``.

Established from a store of 7.4 and the source of txtai 1.5 to 9.14: ``embeddings/base.py``,
``embeddings/index/``, ``ann/``, ``database/`` and ``serialize/``.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harca.errors import EmptyStore, SourceError
from harca.model import Item, Reason, Rejection, Warn
from harca.readers import msgpack
from harca.readers.base import Defaults, StoreReader
from harca.readers.faiss_file import is_faiss, open_index
from harca.readers.fields import free_name
from harca.readers.files import as_payload, exact_json, head, printable, read_file, size_of
from harca.readers.npy import read_header
from harca.readers.pickles import NotAllowed, unpickle
from harca.readers.sqlite_file import connect, is_sqlite, refusal
from harca.readers.values import key_of, plain_json

FORMAT = "txtai"

_CONFIGS = ("config.json", "config")
_VECTORS, _DOCUMENTS, _IDS, _INDEXES = "embeddings", "documents", "ids", "indexes"
_SETTINGS = frozenset(("backend", "build", "content", "dimensions", "ids", "offset", "update"))
_ROWS = 256

_SECTION = (
    "SELECT s.id, s.text, s.tags, s.entry, d.data FROM sections s "
    "LEFT JOIN documents d ON d.id = s.id WHERE s.indexid = ?"
)


def open_path(path: Path, defaults: Defaults) -> "TxtaiReader | None":
    """Return a reader if *path* is a folder that txtai has written, or a file of one.

    Raises:
        EmptyStore: It is txtai's, but was made for search by words alone.
        LfsPointer: Git LFS left a pointer in place of a file that is needed.
    """
    if path.is_file() and path.name in (*_CONFIGS, _VECTORS, _DOCUMENTS, _IDS):
        path = path.parent
    if not path.is_dir():
        return None
    names = {one.name for one in path.iterdir()}
    if names.isdisjoint(_CONFIGS) or names.isdisjoint((_VECTORS, _DOCUMENTS, _IDS, _INDEXES)):
        return None
    config = _config(path)
    if config is None:
        return None
    for name in (_VECTORS, _DOCUMENTS, _IDS):
        head(path / name)  # raises if it is a Git LFS pointer
    indexes = {
        prefix: folder for prefix, folder in _folders(path, names) if (folder / _VECTORS).is_file()
    }
    if not indexes:
        raise EmptyStore(str(path), found="an index of txtai for search by words alone")
    return TxtaiReader(path, config, indexes, defaults)


def _folders(path: Path, names: set[str]) -> Iterator[tuple[str, Path]]:
    """Yield the folders that can have vectors, with what is put before their keys."""
    yield "", path
    if _INDEXES in names and (path / _INDEXES).is_dir():
        for folder in sorted(one for one in (path / _INDEXES).iterdir() if one.is_dir()):
            yield f"{printable(folder.name)}/", folder


def _config(folder: Path) -> dict[str, Any] | None:
    """Return the settings of an index; None if there are none of txtai's.

    Raises:
        SourceError: They are a pickle that wants to run something.
    """
    file = next((folder / name for name in _CONFIGS if (folder / name).is_file()), None)
    if file is None:
        return None
    head(file)  # raises if it is a Git LFS pointer
    data = read_file(str(file), file.name).data
    try:
        config = exact_json(data) if data[:1] == b"{" else _unpickled(file, data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(config, dict) or _SETTINGS.isdisjoint(config):
        return None
    return config


def _unpickled(file: Path, data: bytes) -> Any:
    try:
        return unpickle(data, ())
    except NotAllowed as exc:
        raise SourceError(
            f'"{printable(str(file))}" is not loaded: {exc}',
            hint="Nothing was run. Load the index with a current txtai and save it again: it "
            "writes no pickles.",
        ) from exc


class _Numbered(Protocol):
    """Vectors by number, of whatever backend."""

    total: int
    metric: str | None
    damage: str | None

    def vectors(self) -> Iterator[tuple[int, NDArray[np.float32]]]: ...


@dataclass(slots=True)
class _Rows:
    """The rows of an array, numbered from 0."""

    array: NDArray[Any]
    metric: str | None = "inner_product"
    damage: str | None = None
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = len(self.array)

    def vectors(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield each row with its number."""
        for first in range(0, self.total, _ROWS):
            # Copied out of the file, which is mapped.
            rows = np.array(self.array[first : first + _ROWS], np.float32)
            yield from enumerate(rows, first)


def _vectors(folder: Path, config: Mapping[str, Any]) -> _Numbered:
    """Open the vectors of an index.

    Raises:
        SourceError: They are in a form that is not read, or damaged.
    """
    file = folder / _VECTORS
    backend = config.get("backend", "faiss")
    if backend == "faiss" or is_faiss(file):
        return open_index(file)
    if backend not in ("numpy", "torch"):
        raise SourceError(
            f'"{printable(str(file))}" is kept by txtai\'s backend "{backend}", which is not read',
            hint='Have txtai build it again with the backend "faiss" or "numpy".',
        )
    try:
        if head(file, 6) == b"\x93NUMPY":
            with file.open("rb") as opened:
                read_header(opened)  # at wrong bytes in it, NumPy fails in other ways too
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        else:
            array = _unpickled(file, read_file(str(file), file.name).data)
    except (ValueError, EOFError) as exc:
        raise SourceError(
            f'"{printable(str(file))}" is no array of NumPy: {str(exc)[:200]}',
            hint="Copy it again, or have txtai build the index anew.",
        ) from exc
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
        raise SourceError(
            f'"{printable(str(file))}" holds no float vectors but {_kind(array)}',
            hint="Quantised vectors are approximations, which cannot be moved exactly. Have "
            "txtai build the index again without quantize.",
        )
    return _Rows(array)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.ndim} dimensions of {value.dtype}"
    return f"a {type(value).__name__}"


@dataclass(frozen=True, slots=True)
class _Section:
    """What the store says about a vector.

    Attributes:
        key: The id that the application gave.
    """

    key: Any
    content: str | None = None
    metadata: Any = None
    created_at: Any = None
    warnings: tuple[Warn, ...] = ()


class TxtaiReader(StoreReader):
    """Reads one index after the other; memory is the numbers of the vectors."""

    format = FORMAT

    def __init__(
        self, path: Path, config: dict[str, Any], indexes: dict[str, Path], defaults: Defaults
    ) -> None:
        super().__init__(path, defaults)
        self._config, self._indexes = config, indexes

    def size_hint(self) -> int:
        """Return the number of vectors that the indexes say they have."""
        return sum(
            _vectors(folder, _config(folder) or {}).total for folder in self._indexes.values()
        )

    def read(self) -> Iterator[Item | Rejection]:
        """Yield every vector with its section."""
        build = self._config.get("build")
        version = build.get("txtai") if isinstance(build, dict) else None
        self.notes.why = "a configuration of txtai" + (f" {version}" if version else "")
        for one in sorted(self.path.iterdir()):
            if one.is_file() and one.name in (*_CONFIGS, _DOCUMENTS, _IDS):
                self.notes.files += 1
                self.notes.bytes += size_of(one)
        documents = self.path / _DOCUMENTS
        if documents.is_file():
            if not is_sqlite(documents):
                raise SourceError(
                    f'"{printable(str(documents))}" is no SQLite database, but the texts of '
                    f'txtai\'s database "{self._config.get("content")}"',
                    hint="Only texts in SQLite are read, which is txtai's default.",
                )
            with closing(connect(documents)) as database:
                try:
                    yield from self._with_documents(_Sections(database, self._text_column()))
                except sqlite3.DatabaseError as exc:
                    yield Rejection(_DOCUMENTS, Reason.UNPARSABLE, str(refusal(documents, exc)))
        elif self._config.get("content"):
            raise SourceError(
                f'"{printable(str(self.path))}" has no file "{_DOCUMENTS}" with its texts',
                hint="Copy it from where the index was made. Texts that txtai keeps in a database "
                "server are not read.",
            )
        else:
            ids = _Ids(_ids(self.path, self._config))
            for prefix, folder in self._indexes.items():
                yield from self._index(prefix, folder, ids.get, set())

    def _text_column(self) -> str:
        columns = self._config.get("columns")
        return str(columns.get("text", "text")) if isinstance(columns, dict) else "text"

    def _with_documents(self, sections: "_Sections") -> Iterator[Item | Rejection]:
        seen: set[int] = set()
        damaged = False
        for prefix, folder in self._indexes.items():
            damaged |= yield from self._index(prefix, folder, sections.get, seen)
        if not damaged:
            for number, key, text in sections.all():
                if number not in seen:
                    yield Rejection(
                        f"{_DOCUMENTS}#{number}",
                        Reason.NO_VECTOR,
                        f"no index has a vector {number}",
                        as_payload({"id": key, "text": text}, b""),
                    )
        self.notes.without_vectors += [f"{_DOCUMENTS}#{key}" for key in sections.documents_alone()]
        if objects := sections.objects():
            self.notes.left_out.append((_DOCUMENTS, f"{objects} objects, which are binary"))

    def _index(
        self,
        prefix: str,
        folder: Path,
        get: Callable[[int], _Section | None],
        seen: set[int],
    ) -> Generator[Item | Rejection, None, bool]:
        """Yield the vectors of one index; return whether some could not be read."""
        config = self._config if prefix == "" else _config(folder) or {}
        vectors = _vectors(folder, config)
        origin = f"{_INDEXES}/{prefix}{_VECTORS}" if prefix else _VECTORS
        self.notes.files += 1
        self.notes.bytes += size_of(folder / _VECTORS)
        self.notes.metric = self.notes.metric or vectors.metric
        # A further index counts for itself, and keeps the numbers of the main one as ids.
        numbers = _ids(folder, config) if prefix else None
        model = config.get("path")
        deleted = 0
        try:
            for own, vector in vectors.vectors():
                number = own
                if numbers is not None:
                    place = numbers[own] if 0 <= own < len(numbers) else None
                    number = place if isinstance(place, int) else -1
                seen.add(number)
                section = get(number)
                if section is None and not vector.any():
                    deleted += 1  # an array cannot lose a row: it is filled with zeros
                    continue
                yield self._item(
                    section or _Section(str(number)),
                    prefix,
                    vector,
                    f"{origin}#{own}",
                    model if isinstance(model, str) else self.defaults.model_id,
                )
        except OSError as exc:
            yield Rejection(origin, Reason.UNREADABLE, exc.strerror or str(exc))
            return True
        if deleted:
            self.notes.left_out.append((origin, f"{deleted} vectors of deleted documents"))
        if vectors.damage is not None:
            yield Rejection(origin, Reason.UNPARSABLE, vectors.damage)
            return True
        return False

    def _item(
        self, section: _Section, prefix: str, vector: Any, origin: str, model_id: str
    ) -> Item:
        def payload() -> bytes:
            entry = {"id": section.key, "text": section.content, "metadata": section.metadata}
            return as_payload({**entry, "embedding": vector.tolist()}, b"")

        return Item(
            key=prefix + section.key if isinstance(section.key, str) else section.key,
            content=section.content,
            vector=vector,
            metadata=section.metadata,
            model_id=model_id,
            created_at=section.created_at,
            source=self.source,
            origin=origin,
            payload=payload,
            warnings=section.warnings,
        )


class _Sections:
    """The texts in the database, by number.

    Every method raises `sqlite3.DatabaseError` where the database is damaged.
    """

    def __init__(self, database: sqlite3.Connection, text_column: str) -> None:
        self._database, self._text_column = database, text_column
        self._repeated = {
            key
            for (key,) in database.execute(
                "SELECT id FROM sections GROUP BY id HAVING count(*) > 1"
            )
        }

    def get(self, number: int) -> _Section | None:
        """Return the section of a vector; None if there is none."""
        row = self._database.execute(_SECTION, (number,)).fetchone()
        if row is None:
            return None
        key, text, tags, entry, data = row
        metadata = self._metadata(data, text)
        if tags is not None and isinstance(metadata, dict) and metadata.get("tags") != tags:
            metadata[free_name(metadata, "tags")] = plain_json(tags)
        return _Section(
            key=_key(key, number, repeated=key in self._repeated),
            content="" if text is None else text,
            metadata=metadata,
            created_at=entry,
            warnings=(Warn.NO_TEXT,) if text is None else (),
        )

    def _metadata(self, data: Any, text: Any) -> Any:
        """Return the fields of a document, but for the one that is the text."""
        if data is None:
            return {}
        try:
            raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
            fields = exact_json(raw)
        except (TypeError, ValueError, RecursionError):
            return {"data": plain_json(data)}
        if isinstance(fields, dict) and fields.get(self._text_column) == text:
            fields.pop(self._text_column, None)
        return fields

    def all(self) -> Iterator[tuple[int, Any, Any]]:
        """Yield number, id and text of every section."""
        yield from self._database.execute("SELECT indexid, id, text FROM sections ORDER BY indexid")

    def documents_alone(self) -> list[Any]:
        """Return the ids of documents without a text, which have no vector."""
        alone = "SELECT id FROM documents WHERE id NOT IN (SELECT id FROM sections) ORDER BY id"
        return [key for (key,) in self._database.execute(alone)]

    def objects(self) -> int:
        """Return how many binary objects there are."""
        count: int = self._database.execute("SELECT count(*) FROM objects").fetchone()[0]
        return count


class _Ids:
    """The ids of an index without content, by number."""

    def __init__(self, ids: Sequence[Any] | None) -> None:
        self._ids = ids
        counts = Counter(map(repr, ids or ()))
        self._repeated = {one for one, count in counts.items() if count > 1}

    def get(self, number: int) -> _Section | None:
        """Return what is known of a vector; None if its document was deleted."""
        if self._ids is None:
            key = None  # none were kept: the number has to do
        elif 0 <= number < len(self._ids):
            key = self._ids[number]
            if key is None:
                return None
        else:
            return None
        repeated = repr(key) in self._repeated
        return _Section(_key(key, number, repeated=repeated), content="", warnings=(Warn.NO_TEXT,))


def _key(key: Any, number: int, *, repeated: bool) -> Any:
    """Return the key of a record; an id can have several texts, each with a vector."""
    found = key_of(key, str(number))
    return f"{found}#{number}" if repeated and isinstance(found, str) else found


def _ids(folder: Path, config: Mapping[str, Any]) -> Sequence[Any] | None:
    """Return the ids of an index by number; None if it keeps none.

    Raises:
        SourceError: They cannot be read.
    """
    if isinstance(config.get("ids"), list):
        return list(config["ids"])
    file = folder / _IDS
    if not file.is_file():
        return None
    head(file)  # raises if it is a Git LFS pointer
    data = read_file(str(file), _IDS).data
    try:
        # A pickle begins with 0x80, which as MessagePack is an empty object.
        ids = _unpickled(file, data) if data[:1] == b"\x80" else msgpack.unpack(data)
        if not isinstance(ids, list):
            raise ValueError(f"a {type(ids).__name__}")
    except ValueError as exc:
        raise SourceError(
            f'"{printable(str(file))}" is no list of ids: {exc}',
            hint="Copy it again from where the index was made.",
        ) from exc
    return ids
