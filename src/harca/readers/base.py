"""The registry of store formats, and what every reader is built on."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from harca.errors import (
    EmptyStore,
    SeveralFormats,
    SourceError,
    StoreNotFound,
    UnknownFormat,
    UsageError,
)
from harca.model import Item, Reader, Rejection, StoreNotes
from harca.readers.files import SKIPPED_FOLDERS, is_lfs_pointer, origin_of, printable, walk
from harca.readers.staging import archives_in

# One module a format. A module has FORMAT and open_path(). The first ones are asked about the
# path and each folder below it, as these stores have a folder of their own.
FOLDER_FORMATS = (
    "harca.readers.llamaindex",
    "harca.readers.vectra",
    "harca.readers.lance",
    "harca.readers.txtai",
    "harca.readers.langchain_faiss",
    "harca.readers.chroma",
    "harca.readers.chroma_parquet",
    "harca.readers.langchain_js",
    "harca.readers.vdf",
)
# These are asked about the path alone and look below it themselves; the first that knows
# what is there has it.
TREE_FORMATS = ("harca.readers.harca", "harca.readers.langchain_cache")
# Likewise, but files of any meaning: if two find vectors, the operator has to say which.
FILE_FORMATS = (
    "harca.readers.json_files",
    "harca.readers.csv_files",
    "harca.readers.columnar",
    "harca.readers.sqlite",
    "harca.readers.numpy_files",
)
# Formats whose stores have no folders within, and how the names of their files end: whatever
# else is in their folder or below it is not theirs.
_WITHOUT_FOLDERS = {
    "llamaindex": ("store.json",),
    "langchain-faiss": (".faiss", ".pkl"),
}
_MOST_LOOSE_FILES = 10_000
MODULES = FOLDER_FORMATS + TREE_FORMATS + FILE_FORMATS


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Which field of a record is read as what, where the operator says so.

    A name may lead into an object: ``metadata.text``.

    Attributes:
        records: Where the records are: a path of keys in JSON, a table in SQLite, a
            collection in Chroma, a table in LanceDB, an array in ``.npz``.
    """

    id: str | None = None
    text: str | None = None
    vector: str | None = None
    metadata: str | None = None
    model: str | None = None
    created: str | None = None
    records: str | None = None


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the operator says where a store says nothing, or too much.

    Attributes:
        model_id: Label for records without one.
        source: Source label for all records, instead of the reader's own.
        format: The only format to be considered.
    """

    model_id: str = "unknown"
    source: str | None = None
    format: str | None = None
    fields: FieldNames = FieldNames()


class StoreReader(ABC):
    """What readers have in common; one of them says in `read` what its store holds.

    Attributes:
        format: The format's name; also the source label of its records.
    """

    format: str
    volatile: frozenset[str] = frozenset()
    guesses_ids = False
    bookkeeping: frozenset[str] = frozenset()

    def __init__(self, path: Path, defaults: Defaults) -> None:
        self.path, self.defaults = path, defaults
        self.notes = StoreNotes()

    @property
    def source(self) -> str:
        """The label that the records get."""
        return self.defaults.source or self.format

    def size_hint(self) -> int | None:
        """Return about how many entries there are; None if only reading tells."""
        return None

    def items(self) -> Iterator[Item | Rejection]:
        """Yield every entry once, in the same order on every call."""
        self.notes = StoreNotes()
        yield from self.read()

    @abstractmethod
    def read(self) -> Iterator[Item | Rejection]:
        """Yield every entry, and fill in the notes."""


class Several:
    """Several stores of one format below one folder, read one after the other.

    The folder of each stands before its keys: ids are unique within a store only.
    """

    def __init__(self, readers: dict[str, Reader]) -> None:
        self._readers = readers
        first = next(iter(readers.values()))
        self.format, self.volatile = first.format, first.volatile
        self.bookkeeping = first.bookkeeping
        self.guesses_ids = any(reader.guesses_ids for reader in readers.values())
        self.notes = StoreNotes()

    def size_hint(self) -> int | None:
        """Return the sum of the stores' hints, or None if one has none."""
        hints = [reader.size_hint() for reader in self._readers.values()]
        return None if None in hints else sum(hint or 0 for hint in hints)

    def items(self) -> Iterator[Item | Rejection]:
        """Yield the entries of each store."""
        self.notes = StoreNotes(why=f"{len(self._readers)} stores")
        for folder, reader in self._readers.items():
            below = "" if folder == "." else f"{folder}/"
            for found in reader.items():
                if isinstance(found, Rejection):
                    yield replace(found, origin=below + found.origin)
                else:
                    key = below + found.key if isinstance(found.key, str) else found.key
                    yield replace(found, key=key, origin=below + found.origin)
            self.notes.add(reader.notes, below=folder)


def open_store(path: str | Path, defaults: Defaults | None = None) -> Reader:
    """Return the reader for the store at *path*.

    Raises:
        StoreNotFound: There is nothing at *path*.
        SourceError: The system does not let it be read.
        UnknownFormat: No reader knows what is there.
        SeveralFormats: Stores of several formats are there.
        EmptyStore: The format is known, but it holds no vector.
    """
    path = Path(path)
    try:
        return _open(path, defaults or Defaults())
    except FileNotFoundError as exc:
        raise StoreNotFound(printable(str(path))) from exc
    except OSError as exc:
        raise SourceError(
            f'"{printable(str(exc.filename or path))}" cannot be read: {exc.strerror or exc}',
            hint="Can this user list the folder and read its files?",
        ) from exc


def _open(path: Path, defaults: Defaults) -> Reader:
    path.stat()  # says what is wrong with the path, where exists() only says no
    found: dict[str, Reader] = {}
    empty: list[EmptyStore] = []

    def ask(module: Any, where: Path) -> Reader | None:
        if defaults.format not in (None, module.FORMAT):
            return None
        try:
            reader: Reader | None = module.open_path(where, defaults)
        except EmptyStore as exc:
            empty.append(exc)  # another format may have vectors here
            return None
        except UsageError:
            if not found and not empty:
                raise
            return None  # the operator's names are meant for the store that was met before
        if reader is not None and next(iter(reader.items()), None) is None:
            empty.append(EmptyStore(str(where), found=f"a {module.FORMAT} store without a vector"))
            return None
        return reader

    found = _in_folders(path, ask)
    if found:
        claimed = {where: _WITHOUT_FOLDERS.get(reader.format) for where, reader in found.items()}
        found |= _loose_files(path, claimed, ask)
    else:
        for module in _modules(TREE_FORMATS):
            reader = ask(module, path)
            if reader is not None:
                return reader
        found = {
            module.FORMAT: reader
            for module in _modules(FILE_FORMATS)
            if (reader := ask(module, path)) is not None
        }
    formats = {reader.format for reader in found.values()}
    if len(formats) > 1:
        raise SeveralFormats(
            str(path), found=[f"{reader.format} in {where}" for where, reader in found.items()]
        )
    if len(found) > 1:
        return Several(found)
    if found:
        return next(iter(found.values()))
    if empty:
        raise empty[0]
    if path.is_dir() and not any(path.iterdir()):
        raise EmptyStore(str(path), found="an empty folder")
    raise UnknownFormat(
        str(path), found=_describe(path), known=defaults.format or ", ".join(known_formats())
    )


def _modules(names: tuple[str, ...]) -> list[Any]:
    return [import_module(name) for name in names]


def known_formats() -> list[str]:
    """Return the names of the formats that are read, sorted."""
    return sorted(module.FORMAT for module in _modules(MODULES))


def _in_folders(path: Path, ask: Any) -> dict[str, Reader]:
    """Return the stores that have a folder of their own, by where they are below *path*."""
    modules = _modules(FOLDER_FORMATS)

    def first(where: Path) -> Reader | None:
        readers = (ask(module, where) for module in modules)
        return next((reader for reader in readers if reader is not None), None)

    if not path.is_dir():
        reader = first(path)
        return {} if reader is None else {".": reader}
    found = {}
    for folder, inner, _ in os.walk(path):
        reader = first(Path(folder))
        if reader is not None:
            found[origin_of(Path(folder), path)] = reader
            if reader.format not in _WITHOUT_FOLDERS:
                inner.clear()  # what lies below belongs to it
        inner[:] = sorted(set(inner) - SKIPPED_FOLDERS)
    return found


def _is_within(where: str, folder: str) -> bool:
    return folder in (".", where) or where.startswith(f"{folder}/")


def _loose_files(
    path: Path, claimed: dict[str, tuple[str, ...] | None], ask: Any
) -> dict[str, Reader]:
    """Return a file with vectors beside the stores that have folders of their own, if any.

    It would be left behind without a word.
    """
    asked = 0
    for folder, names in walk(path):
        where = origin_of(folder, path)
        if any(_is_within(where, one) for one, own in claimed.items() if own is None):
            continue
        own = claimed.get(where) or ()
        for name in names:
            if name.endswith(own):
                continue
            for module in _modules(FILE_FORMATS):
                reader = ask(module, folder / name)
                if reader is not None:
                    return {origin_of(folder / name, path): reader}
            asked += 1
            if asked == _MOST_LOOSE_FILES:
                return {}
    return {}


def _describe(path: Path) -> str:
    if path.is_file():
        if is_lfs_pointer(path):
            return "a Git LFS pointer instead of the file itself (run `git lfs pull`)"
        return f"a file of {path.stat().st_size} bytes"
    if not path.is_dir():
        return "neither a file nor a folder"
    entries = sorted(path.iterdir())
    pointers = [entry for entry in entries[:1000] if is_lfs_pointer(entry)]
    if pointers:
        return (
            f"a folder with {printable(pointers[0].name)}, which is a Git LFS pointer instead of "
            "the file itself (run `git lfs pull`)"
        )
    if archives := archives_in(path):
        return f"a folder with archives, of which one can be given: {', '.join(archives[:5])}"
    shown = ", ".join(printable(entry.name) for entry in entries[:5])
    return f"a folder with {shown}" + (f" and {len(entries) - 5} more" if len(entries) > 5 else "")
