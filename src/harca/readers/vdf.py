"""VDF, the vector dataset format of vector-io: ``VDF_META.json`` and folders of Parquet.

Established from AI-Northstar-Tech/vector-io: its README, ``meta_types.py``,
``vdb_export_cls.py`` and the exporters, of 2023 to 2025. `harca export` writes it too.
"""

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from harca.errors import SourceError, UsageError, counted
from harca.model import Item, Reason, Rejection
from harca.readers.base import Defaults, FieldNames, StoreReader
from harca.readers.columnar import Kind, arrow_files
from harca.readers.fields import exported_item, free_name
from harca.readers.files import exact_json, head, open_binary, origin_of, printable, size_of, walk

FORMAT = "vdf"

META = "VDF_META.json"
HARCA = "harca"
"""By whom a dataset of `harca export` says that it was exported."""

OURS = {"id": "store_key", "text": "content", "vector": "embedding"}
"""What such a dataset's columns are called in the table, where that differs."""

_LARGEST_META_BYTES = 64 << 20
_LOOKED_AT_BYTES = 1 << 16
_NOT_SAID = {"", "NOT_PROVIDED", "PLEASE_FILL_IN"}
_METRICS = {
    "cosine": "cosine", "euclid": "l2", "euclidean": "l2", "l2": "l2", "dot": "inner_product",
    "dotproduct": "inner_product", "ip": "inner_product",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace of an index.

    Attributes:
        index: The index's name, if there are several.
        prefix: What stands before its keys.
        files: Its Parquet files.
        columns: Its vector columns.
        said: What the metadata say about it.
    """

    index: str
    name: str
    prefix: str
    files: tuple[Path, ...]
    columns: tuple[str, ...]
    said: Mapping[str, Any]

    def said_of(self, column: str, what: str) -> str | None:
        """Return what is said about a vector column; None if that is a placeholder."""
        of_columns = self.said.get("model_map")
        of_column = of_columns.get(column) if isinstance(of_columns, dict) else None
        for said in (of_column, self.said):
            value = said.get(what) if isinstance(said, Mapping) else None
            if isinstance(value, str) and value not in _NOT_SAID:
                return value
        return None


def open_path(path: Path, defaults: Defaults) -> "VdfReader | None":
    """Return a reader if *path* is a folder of that format, or its ``VDF_META.json``.

    Raises:
        LfsPointer: Git LFS left a pointer in place of a file.
        MissingLibrary: pyarrow is not installed.
        SourceError: What it lists is not there.
        UsageError: The operator names a column that is not there.
    """
    file = path / META if path.is_dir() else path
    if head(file, 1) not in (b"{", b" ", b"\n", b"\r", b"\t", b"\xef"):
        return None
    if file.name != META and b'"indexes"' not in head(file, _LOOKED_AT_BYTES):
        return None  # a large file of JSON is not to be parsed for this
    said = _meta(file)
    if said is None:
        return None
    arrow_files(FORMAT)
    return VdfReader(path, file.parent, said, defaults)


def _meta(file: Path) -> dict[str, Any] | None:
    """Return what the metadata say; None if these are no metadata."""
    try:
        with open_binary(file) as stream:
            value = exact_json(stream.read(_LARGEST_META_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("indexes"), dict):
        return None
    entries = [entry for found in value["indexes"].values() for entry in _namespaces(found)]
    return value if any("data_path" in entry for entry in entries) else None


def _namespaces(found: Any) -> list[dict[str, Any]]:
    entries = found if isinstance(found, list) else [found]
    return [entry for entry in entries if isinstance(entry, dict)]


def _names_in(said: Any) -> list[str]:
    """Return columns' names: a list, or a text with commas."""
    said = said.split(",") if isinstance(said, str) else said
    return [name for name in said if isinstance(name, str)] if isinstance(said, list) else []


class VdfReader(StoreReader):
    """Reads one namespace after the other, one file after the other; memory is a batch."""

    format = FORMAT

    def __init__(self, path: Path, root: Path, said: dict[str, Any], defaults: Defaults) -> None:
        super().__init__(path, defaults)
        self._root, self._said = root, said
        self._is_ours = said.get("exported_from") == HARCA
        self._namespaces = list(self._listed())
        if not any(space.files for space in self._namespaces):
            listed = ", ".join(str(space.said.get("data_path")) for space in self._namespaces)
            raise SourceError(
                f'"{path}" has no Parquet file where {META} says: {listed[:200]}',
                hint="Was the folder copied as a whole? Files elsewhere are not fetched.",
            )

    def _listed(self) -> Iterator["Namespace"]:
        found = [
            (str(index or entry.get("index_name") or ""), entry)
            for index, entries in self._said["indexes"].items()
            for entry in _namespaces(entries)
        ]
        wanted = self.defaults.fields.records
        names = dict.fromkeys(index for index, _ in found)
        if wanted is not None and wanted not in names:
            raise UsageError(
                f'no index "{wanted}" in {META}; found {", ".join(names)}'[:300],
                hint="Names are case-sensitive.",
            )
        for index, entry in found:
            if wanted not in (None, index):
                continue
            name = str(entry.get("namespace") or "")
            others = {str(one.get("namespace") or "") for _, one in found}
            # The keys of a store are unique, whatever space its rows are in.
            before = [index] if len(names) > 1 and wanted is None and not self._is_ours else []
            before += [name] if len(others) > 1 and name else []
            columns = _names_in(entry.get("vector_columns"))
            if self.defaults.fields.vector is not None:
                columns = [self.defaults.fields.vector]
            yield Namespace(
                index=index if len(names) > 1 else "",
                name=name,
                prefix="".join(f"{part}/" for part in before),
                files=self._files(entry.get("data_path")),
                columns=tuple(columns or ["vector"]),
                said=entry,
            )

    def _files(self, place: Any) -> tuple[Path, ...]:
        """Return the Parquet files of a namespace; *place* may begin with the folder itself."""
        parts = PurePosixPath(str(place).replace("\\", "/")).parts
        if ".." in parts or any(part.startswith("/") or part.endswith(":") for part in parts):
            return ()
        for path in (self._root.joinpath(*parts), self._root.joinpath(*parts[1:])):
            if path.is_file():
                return (path,)
            if path.is_dir():
                below = (folder / name for folder, names in walk(path) for name in names)
                return tuple(file for file in below if file.name.endswith(".parquet"))
        return ()

    def size_hint(self) -> int | None:
        """Return the number of rows, if each is one record."""
        if any(len(space.columns) > 1 for space in self._namespaces):
            return None
        arrow = arrow_files(FORMAT)
        total = 0
        for file in (file for space in self._namespaces for file in space.files):
            try:
                total += arrow.number_of_rows(file)
            except arrow.Unopened:
                continue
        return total

    def read(self) -> Iterator[Item | Rejection]:
        """Yield a record for each vector of a row."""
        spaces = self._namespaces
        self.notes.why = f"{META} with {counted(len(spaces), 'namespace')}"
        metrics = {str(space.said.get("metric")).lower() for space in spaces}
        self.notes.metric = _METRICS.get(metrics.pop()) if len(metrics) == 1 else None
        yield from self._missing()
        for space in spaces:
            yield from self._namespace(space)

    def _missing(self) -> Iterator[Rejection]:
        """Yield what is listed and is not there."""
        for space in self._namespaces:
            if not space.files:
                place = printable(str(space.said.get("data_path")))
                yield Rejection(place, Reason.UNREADABLE, f"no Parquet file, as {META} says")
        listed = self._said.get("file_structure")
        if self.defaults.fields.records is not None:
            return  # those of other indexes are not looked for
        there = {file.parts[-2:] for space in self._namespaces for file in space.files}
        for name in listed if isinstance(listed, list) else []:
            if str(name).endswith(".parquet") and PurePosixPath(str(name)).parts[-2:] not in there:
                detail = f"listed in {META}, and not there"
                yield Rejection(printable(str(name)), Reason.UNREADABLE, detail)

    def _namespace(self, space: "Namespace") -> Iterator[Item | Rejection]:
        arrow = arrow_files(FORMAT)
        hints = FieldNames(
            id=next(iter(_names_in(self._said.get("id_column"))), None),
            text=space.said_of(space.columns[0], "text_column"),
        )
        defaults = replace(self.defaults, fields=replace(self.defaults.fields, vector=None))
        layouts = arrow.Layouts(None, defaults, hints=hints, vectors=space.columns)
        for file in space.files:
            origin = origin_of(file, self._root)
            self.notes.files += 1
            self.notes.bytes += size_of(file)
            try:
                head(file)
                layout = layouts.of(file, Kind.PARQUET)
            except arrow.Unopened as exc:
                yield arrow.damaged(file, origin, str(exc))
                continue
            self.notes.fields = self.notes.fields or layout.fields.shown
            for at, row in arrow.rows_of(file, Kind.PARQUET, layout, origin):
                if isinstance(row, Rejection):
                    yield row
                elif self._is_ours:
                    yield self._exported(space, layout, row, at)
                else:
                    yield from self._records(space, layout, row, at)

    def _records(
        self, space: "Namespace", layout: Any, row: dict[str, Any], at: str
    ) -> Iterator[Item]:
        columns = [name for name in space.columns if name in row] or [layout.fields.vector]
        there = [name for name in columns if row.get(name) is not None]
        for column in there or columns[:1]:
            fields = copy(layout.fields)
            fields.vector = column
            rest = {name: row[name] for name in row if name == column or name not in columns}
            for name, value in (("index", space.index), ("namespace", space.name)):
                if value:
                    rest[free_name(rest, name)] = value
            several = len(columns) > 1
            where = f"{at}.{column}" if several else at
            item = fields.item(
                rest,
                position=at,
                origin=where,
                source=self.source,
                model=space.said_of(column, "model_name"),
                payload=layout.payload_of(rest),
            )
            prefix = space.prefix + (f"{column}/" if several else "")
            yield replace(item, key=f"{prefix}{item.key}") if isinstance(item.key, str) else item

    def _exported(self, space: "Namespace", layout: Any, row: dict[str, Any], at: str) -> Item:
        named = {OURS.get(name, name): value for name, value in row.items()}
        named["model_id"] = space.said.get("model_name")
        item = exported_item(
            named, self.defaults, origin=at, source=self.source, payload=layout.payload_of(row)
        )
        return replace(item, key=f"{space.prefix}{item.key}")
