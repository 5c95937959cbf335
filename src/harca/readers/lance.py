"""LanceDB: a table is a folder, ``NAME.lance``, of which the newest version is read.

Established from tables of lancedb 0.4 to 0.30 and Lance's "Table Format". The model's name
stands in the schema where lancedb's ``EmbeddingFunctionRegistry`` has made the vectors.
"""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harca.errors import EmptyStore, MissingLibrary, SourceError
from harca.model import Item, Reason, Rejection
from harca.readers.apart import (
    Failed,
    Fragment,
    Table,
    child,
    metric_of,
    open_table,
    take_rows,
)
from harca.readers.base import Defaults, FieldNames, StoreReader
from harca.readers.files import head, open_binary, short

FORMAT = "lancedb"

_SUFFIX = ".lance"
_MAGIC = b"LANC"  # at the end of every file of Lance's
_METRICS = {"l2": "l2", "cosine": "cosine", "dot": "inner_product"}


def open_path(path: Path, defaults: Defaults) -> "LanceReader | None":
    """Return a reader if *path* is a table's folder.

    Raises:
        EmptyStore: It has no vectors, or another table was asked for.
        LfsPointer: Git LFS left a pointer in place of one of its files.
        MissingLibrary: pylance is not installed.
        SourceError: It cannot be opened.
        UsageError: The operator names a column that is not there.
    """
    manifests = sorted((path / "_versions").glob("*.manifest")) if path.is_dir() else []
    if not any(map(_is_lance, manifests)) and not (manifests and path.suffix == _SUFFIX):
        return None
    name, wanted = path.name.removesuffix(_SUFFIX), defaults.fields.records
    if wanted is not None and wanted.removesuffix(_SUFFIX) != name:
        raise EmptyStore(str(path), found=f'table "{name}", where "{wanted}" was asked for')
    if find_spec("lance") is None:
        raise MissingLibrary(FORMAT, library="pylance", extra="lance")
    reader = LanceReader(path, defaults)
    if not reader.layout.fields.has_vector:
        listed = ", ".join(reader.layout.columns[:8]) or "none"
        raise EmptyStore(
            str(path), found=f"a table without a column of vectors; its columns: {listed}"
        )
    return reader


def _is_lance(manifest: Path) -> bool:
    head(manifest)  # raises if it is a Git LFS pointer
    try:
        with open_binary(manifest) as file:
            return file.read()[-len(_MAGIC) :] == _MAGIC
    except OSError:
        return False


class LanceReader(StoreReader):
    """Reads one fragment after the other; memory is a batch."""

    format = FORMAT

    def __init__(self, path: Path, defaults: Defaults) -> None:
        super().__init__(path, defaults)
        self.guesses_ids = defaults.fields.id is None
        import pyarrow as pa  # type: ignore[import-untyped]  # pylance brings it along

        self._where = str(path.absolute())  # the child may be in another folder
        self._table = _opened(path)
        self._schema = pa.ipc.read_schema(pa.py_buffer(self._table.schema))
        self._function = self._embedding_function()
        self.layout = self._told()

    def size_hint(self) -> int | None:
        """Return the number of rows that are not deleted."""
        return sum(part.rows or 0 for part in self._table.fragments)

    def read(self) -> Iterator[Item | Rejection]:
        """Yield the rows of the newest version."""
        from harca.readers.arrow_rows import Unread, numbered

        self.notes.why = f"a table of LanceDB in version {self._table.version}"
        self.notes.fields = self.layout.fields.shown
        self.notes.metric = self._metric()
        for part in self._table.fragments:
            self.notes.files += len(part.files)
            self.notes.bytes += self._size_of(part)
        for name in self.layout.fields.unread:
            self.notes.left_out.append((".", f'column "{name}", another vector'))
        model = self._function.get("model", {}).get("name")
        for place, row in numbered(self._batches(), self.layout):
            if isinstance(row, Unread):
                yield Rejection(place, Reason.UNPARSABLE, row.detail)
            else:
                yield self.layout.item(
                    row, position=place, origin=place, source=self.source, model=model
                )

    def _told(self) -> Any:
        from harca.readers.arrow_rows import layout_of

        hints = FieldNames(
            vector=self._function.get("vector_column"), text=self._function.get("source_column")
        )
        layout = layout_of(self._schema, self._batches(), self.defaults, hints=hints)
        if not layout.sampled and self._table.fragments:
            raise _refused(self.path, "none of its rows")
        return layout

    def _embedding_function(self) -> dict[str, Any]:
        """Return what lancedb notes of the function that made the vectors."""
        noted = (self._schema.metadata or {}).get(b"embedding_functions", b"[]")
        try:
            functions = json.loads(noted)
        except ValueError:
            return {}
        first = functions[0] if isinstance(functions, list) and functions else None
        if not isinstance(first, dict) or not isinstance(first.get("model"), dict):
            return {}
        return first

    def _metric(self) -> str | None:
        try:
            named = child.ask(
                metric_of, self._where, self._table.version, self.layout.fields.vector
            )
        except Failed:
            return None
        return _METRICS.get(named)

    def _batches(self) -> Iterator[Any]:
        """Yield the table's batches; `Unread` where a fragment is damaged."""
        import pyarrow as pa

        from harca.readers.arrow_rows import ERRORS, Unread, rows_at_once

        for part in self._table.fragments:
            if part.rows is None:
                yield Unread("its deleted rows are not known", None)
                continue
            done, size = 0, rows_at_once(self._size_of(part), part.rows)
            try:
                while done < part.rows:
                    where = (self._where, self._table.version, part.number)
                    stream = child.ask(take_rows, *where, done, min(size, part.rows - done))
                    for batch in pa.ipc.open_stream(stream):
                        yield batch
                        done += batch.num_rows
            except (Failed, *ERRORS) as exc:
                yield Unread(short(exc), part.rows - done)

    def _size_of(self, part: Fragment) -> int:
        files = [self.path / "data" / name for name in part.files]
        return sum(file.stat().st_size for file in files if file.exists())


def _opened(path: Path) -> Table:
    """Return what a table holds.

    Raises:
        LfsPointer, SourceError: See `open_path`.
    """
    try:
        table: Table = child.ask(open_table, str(path.absolute()))
    except Failed as exc:
        raise _refused(path, str(exc)) from exc
    for name in (name for part in table.fragments for name in part.files):
        if "\0" in name:
            raise _refused(path, "a data file's name has a NUL character")
        head(path / "data" / name)
    return table


def _refused(path: Path, why: str) -> SourceError:
    return SourceError(
        f'"{path}" is a table of LanceDB that cannot be read: {why}',
        hint="Was it copied as a whole, with data and _versions? Restore it from a backup.",
    )
