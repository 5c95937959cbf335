"""Parquet, Arrow's IPC files and streams, and Feather, with vectors in a column.

Also what is laid out in such files: datasets that HuggingFace's ``save_to_disk`` writes (a
folder of Arrow streams), partitions in Hive's manner (``lang=en/part-0.parquet``).

Which file is what is told by its first bytes: parquet-format's README; Arrow's
"Serialization and Interprocess Communication (IPC)" and ``feather.fbs``.
"""

from collections.abc import Iterator
from enum import StrEnum
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from harca.errors import EmptyStore, LfsPointer, MissingLibrary, SourceError, UsageError, counted
from harca.model import Item, Reason, Rejection
from harca.readers.base import Defaults, StoreReader
from harca.readers.files import head, is_lfs_pointer, origin_of, read_file, size_of, walk

FORMAT = "parquet"

_SUFFIXES = (".parquet", ".parq", ".pq", ".arrow", ".arrows", ".feather", ".ftr", ".ipc")
_MAYBE = ("", ".gzip", ".gz", ".snappy", ".zstd")  # behind one of these, or no suffix at all
_LAKES = {"_delta_log": "Delta Lake", ".hoodie": "Hudi"}
_CONTINUES = b"\xff\xff\xff\xff"  # what a message in an Arrow stream begins with


class Kind(StrEnum):
    """What a file is; the value is how the format is called."""

    PARQUET = "parquet"
    ARROW_FILE = "arrow"
    ARROW_STREAM = "arrow stream"
    FEATHER = "feather"  # of version 1; version 2 is an Arrow file


def kind_of(path: Path) -> Kind | None:
    """Return what the file at *path* is, by its first bytes; None if it is none of these.

    Raises:
        LfsPointer: Git LFS left a pointer in place of the file.
    """
    start = head(path, 12)
    for magic, kind in (
        (b"PAR1", Kind.PARQUET), (b"PARE", Kind.PARQUET), (b"ARROW1", Kind.ARROW_FILE),
        (b"FEA1", Kind.FEATHER),
    ):  # fmt: skip
        if start.startswith(magic):
            return kind
    # A stream has no magic number: a length, then a table of FlatBuffers of that length.
    length = int.from_bytes(start[4:8], "little")
    table = int.from_bytes(start[8:12], "little")
    if start.startswith(_CONTINUES) and 0 < table < length <= path.stat().st_size:
        return Kind.ARROW_STREAM
    return None


def open_path(path: Path, defaults: Defaults) -> "ColumnarReader | None":
    """Return a reader if *path* is such a file with a column of vectors, or a folder of them.

    Raises:
        EmptyStore: There are such files, but none of them has vectors.
        MissingLibrary: pyarrow is not installed.
        SourceError: It is such a file, and cannot be opened.
        UsageError: The operator names a column that is not there.
    """
    if path.is_dir():
        files = list(_below(path))
    else:
        kind = kind_of(path)
        files = [] if kind is None else [(path, kind)]
    if not any(kind for _, kind in files):
        return None
    reader = ColumnarReader(path, files, defaults)
    reader.find_vectors()
    return reader


def _below(root: Path) -> Iterator[tuple[Path, Kind | None]]:
    """Yield the files below a folder that are of a kind, or called so; None for the latter."""
    for folder, names in walk(root):
        for name in names:
            path, suffix = folder / name, Path(name).suffix.lower()
            if name.startswith(".") or suffix not in _SUFFIXES + _MAYBE:
                continue
            try:
                kind = kind_of(path)
            except (LfsPointer, OSError):
                kind = None
            if kind is not None:
                _refuse_lake(folder, root)
            if kind is not None or suffix in _SUFFIXES:
                yield path, kind


def _refuse_lake(folder: Path, root: Path) -> None:
    """Refuse the files of a table that says elsewhere which of them still count.

    Raises:
        SourceError: *folder* is part of such a table.
    """
    for place in (folder, *folder.parents):
        names = [name for sign, name in _LAKES.items() if (place / sign).is_dir()]
        if any((place / "metadata").glob("*.metadata.json")):
            names.append("Iceberg")
        if names:
            raise SourceError(
                f'"{place}" is a {names[0]} table, whose log says which of its files still count',
                hint="Write the table's present rows to Parquet with the library that keeps it, "
                "and give that file.",
            )
        if place == root:
            return


class ColumnarReader(StoreReader):
    """Reads one file after the other, row group by row group; memory is a few thousand rows.

    Of an Arrow file it is a record batch, which its writer has made as large as it likes.
    """

    def __init__(
        self, path: Path, files: list[tuple[Path, Kind | None]], defaults: Defaults
    ) -> None:
        super().__init__(path, defaults)
        self.guesses_ids = defaults.fields.id is None
        self._files = files
        kinds = {_called(file, kind) for file, kind in files if kind is not None}
        self.format = kinds.pop() if len(kinds) == 1 else FORMAT

    @cached_property
    def _layouts(self) -> Any:
        return arrow_files(self.format).Layouts(self.path, self.defaults)

    def find_vectors(self) -> None:
        """Make sure that one of the files has vectors.

        Raises:
            EmptyStore, MissingLibrary, SourceError, UsageError: As `open_path`.
        """
        arrow, layouts = arrow_files(self.format), self._layouts
        wrong: list[str] = []
        refused: UsageError | None = None
        for file, kind in self._files:
            if kind is None:
                continue
            origin = origin_of(file, self.path)
            try:
                layout = layouts.of(file, kind)
            except arrow.Unopened as exc:
                if file == self.path:
                    raise SourceError(
                        f'"{file}" is a {kind} file that cannot be read: {exc}',
                        hint="Was it copied as a whole? Restore it, or write it again.",
                    ) from exc
                wrong.append(f"{origin}, which cannot be read: {exc}")
            except UsageError as exc:
                refused = refused or exc
            else:
                if layout.fields.has_vector:
                    return
                listed = ", ".join(layout.columns[:8]) or "none"
                wrong.append(f"{origin} without a column of vectors; its columns: {listed}")
        if refused is not None:
            raise refused
        more = f" and {counted(len(wrong) - 1, 'other file')}" if len(wrong) > 1 else ""
        raise EmptyStore(str(self.path), found=wrong[0] + more)

    def size_hint(self) -> int | None:
        """Return the number of rows, if every file says so at its end."""
        if any(kind is not Kind.PARQUET for _, kind in self._files):
            return None
        arrow, layouts, total = arrow_files(self.format), self._layouts, 0
        for file, kind in self._files:
            try:
                if kind is not None and layouts.of(file, kind).fields.has_vector:
                    total += arrow.number_of_rows(file)
            except arrow.Unopened:
                continue
        return total

    def read(self) -> Iterator[Item | Rejection]:
        """Yield the rows of each file that has vectors."""
        arrow, layouts = arrow_files(self.format), self._layouts
        for file, kind in self._files:
            origin = origin_of(file, self.path)
            if kind is None:
                yield _of_no_kind(file, origin)
                continue
            try:
                layout = layouts.of(file, kind)
            except arrow.Unopened as exc:
                yield arrow.damaged(file, origin, str(exc))
                continue
            if not layout.fields.has_vector:
                self.notes.left_out.append((origin, "no column with vectors"))
                continue
            if not self.notes.files:
                self.notes.why = f"{kind} with vectors in a column"
                self.notes.fields = layout.fields.shown
            self.notes.files += 1
            self.notes.bytes += size_of(file)
            for name in layout.fields.unread:
                self.notes.left_out.append((origin, f'column "{name}", another vector'))
            for at, row in arrow.rows_of(file, kind, layout, origin, root=self.path):
                if isinstance(row, Rejection):
                    yield row
                else:
                    yield layout.item(row, position=at, origin=at, source=self.source)


def _of_no_kind(file: Path, origin: str) -> Rejection:
    found = read_file(str(file), origin)
    if found.rejection is not None:
        return found.rejection
    if is_lfs_pointer(file):
        why = "a Git LFS pointer, not the file (run `git lfs pull`)"
        return Rejection(origin, Reason.LFS_POINTER, why, found.data)
    return Rejection(
        origin, Reason.UNPARSABLE, "neither Parquet nor Arrow, or nothing at all", found.data
    )


def _called(file: Path, kind: Kind) -> str:
    """Return what a file's format is called."""
    if kind is Kind.ARROW_FILE and file.suffix.lower() in (".feather", ".ftr"):
        return Kind.FEATHER
    return "arrow" if kind is Kind.ARROW_STREAM else kind


def arrow_files(store_format: str) -> Any:
    """Return `harca.readers.arrow_files`, which needs pyarrow.

    Raises:
        MissingLibrary: It is not installed.
    """
    try:
        return import_module("harca.readers.arrow_files")
    except ModuleNotFoundError as exc:
        raise MissingLibrary(store_format, library="pyarrow", extra="parquet") from exc
