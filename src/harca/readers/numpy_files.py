"""Vectors in NumPy's files: ``.npy`` and ``.npz``, with their texts in files beside them.

Arrays of objects are pickles and are not read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from harca.errors import EmptyStore, SourceError
from harca.model import Item, Reader, Reason, Rejection
from harca.readers.base import Defaults, Several, StoreReader
from harca.readers.beside import Beside, Column, beside, is_texts, name_of
from harca.readers.blobs import sounds_like_vectors
from harca.readers.fields import MODEL_NAMES, POSITION, SAMPLE, FieldMap, plain_name
from harca.readers.files import as_payload, origin_of, printable, size_of, walk
from harca.readers.npy import array_in
from harca.readers.numpy_arrays import (
    BLOCK_BYTES,
    DAMAGE,
    Array,
    arrays_in,
    arrays_in_folder,
    damaged,
    opened,
    rows_of,
)
from harca.readers.values import plain_json

FORMAT = "numpy"

_MOST_SIDE_BYTES = 1 << 30
_LEAST_DIMS = 2
_VECTOR = "(array)"  # no name that a field beside it has


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The arrays of one folder: those with vectors, and those that say what the rows are."""

    vectors: list[Array]
    others: list[Array]


def open_path(path: Path, defaults: Defaults) -> Reader | None:
    """Return a reader if *path* is an array of vectors, or a folder with some.

    Raises:
        EmptyStore: There are arrays, but none is of vectors.
        SourceError: What is there is no array of vectors, or which one is cannot be told.
    """
    if not path.is_dir():
        arrays = arrays_in(path)
        if arrays is None:
            return None
        chosen = _choose(path, arrays, defaults)
        # What says what the rows are may lie beside a file that is given by itself.
        beside_it = [
            one
            for one in arrays_in_folder(path.parent)
            if one.file != path and one.member is None and len(one.header.shape) < 2
        ]
        chosen = replace(chosen, others=chosen.others + beside_it)
        # What stands beside an archive that was named itself is about other things.
        packed = chosen.vectors[0].member is not None
        return NumpyReader(path, None if packed else path.parent, chosen, defaults)
    found: dict[str, Reader] = {}
    empty: EmptyStore | None = None
    for folder, names in walk(path):
        if not any(name.lower().endswith((".npy", ".npz")) for name in names):
            continue
        arrays = arrays_in_folder(folder)
        if not arrays:
            continue
        try:
            chosen = _choose(folder, arrays, defaults)
        except EmptyStore as exc:
            empty = empty or exc
            continue
        found[origin_of(folder, path)] = NumpyReader(folder, folder, chosen, defaults)
    if not found and empty is not None:
        raise empty
    return Several(found) if len(found) > 1 else next(iter(found.values()), None)


def _choose(where: Path, arrays: list[Array], defaults: Defaults) -> _Chosen:
    """Return the arrays with vectors: those of one width, or the one that the operator names."""
    records = defaults.fields.records
    if records is not None:
        named = [one for one in arrays if records in (one.stem, one.name, one.file.name)]
        if not named:
            raise SourceError(
                f'"{printable(str(where))}" has no array "{records}"; found '
                f"{', '.join(printable(one.stem) for one in arrays)}",
                hint="Name one of these with --records, or leave it out.",
            )
        fitting = [one for one in named if one.is_numbers and len(one.header.shape) in (1, 2)]
        if not fitting:
            raise _not_vectors(where, named[0])
        return _Chosen(fitting, [one for one in arrays if one not in fitting])
    sparse = {one.file for one in arrays if one.stem == "indptr"}
    if sparse and not where.is_dir():
        raise SourceError(
            f'"{printable(str(where))}" is a sparse matrix of SciPy, expected an array of vectors',
            hint="Save it as an array first: np.save(path, scipy.sparse.load_npz(path).toarray()).",
        )
    arrays = [one for one in arrays if one.file not in sparse]
    flat = [
        one
        for one in arrays
        if one.is_numbers and len(one.header.shape) == 2 and one.dims >= _LEAST_DIMS and one.rows
    ] or [
        one
        for one in arrays
        if one.header.dtype.kind == "f" and len(one.header.shape) == 1 and one.dims >= _LEAST_DIMS
    ]
    groups: dict[int, list[Array]] = {}
    for one in flat:
        groups.setdefault(one.dims, []).append(one)
    if len(groups) > 1:
        sounding = {
            dims: group
            for dims, group in groups.items()
            if any(sounds_like_vectors(one.stem) for one in group)
        }
        groups = sounding or groups
    if len(groups) > 1:
        listed = ", ".join(f"{one.name} ({one.dims} dimensions)" for one in flat)
        raise SourceError(
            f'"{printable(str(where))}" has several arrays that can be the vectors: {listed}',
            hint="Name the one to be read with --records NAME.",
        )
    if groups:
        (group,) = groups.values()
        sounding_like = [one for one in group if sounds_like_vectors(one.stem)]
        group = sounding_like or group
        return _Chosen(group, [one for one in arrays if one not in group])
    if len(arrays) == 1 and not where.is_dir() and 0 not in arrays[0].header.shape:
        raise _not_vectors(where, arrays[0])
    listed = ", ".join(f"{one.name} ({one.shape})" for one in arrays[:8])
    raise EmptyStore(str(where), found=f"arrays that are no vectors: {listed}")


def _not_vectors(where: Path, array: Array) -> SourceError:
    if array.header.dtype.hasobject:
        return SourceError(
            f'"{printable(str(where))}" holds an array of objects, which is a pickle and not read',
            hint="Save the vectors as numbers: np.save(path, np.stack(array).astype(np.float32)).",
        )
    return SourceError(
        f'"{printable(str(where))}" holds {array.shape}, expected numbers of shape '
        "(records, dimensions)",
        hint="Give the array whose rows are the vectors.",
    )


class NumpyReader(StoreReader):
    """Reads arrays row by row; memory is a block, and what stands beside them."""

    format = FORMAT

    def __init__(
        self, path: Path, folder: Path | None, chosen: _Chosen, defaults: Defaults
    ) -> None:
        super().__init__(path, defaults)
        self._folder, self._chosen = folder, chosen

    def size_hint(self) -> int:
        """Return the number of rows that the headers tell."""
        return sum(one.rows for one in self._chosen.vectors)

    def read(self) -> Iterator[Item | Rejection]:
        """Yield every row with what stands beside it."""
        vectors = self._chosen.vectors
        first = vectors[0]
        self.notes.why = f"{first.name} is {first.shape}" + (
            f", and {len(vectors) - 1} more" if len(vectors) > 1 else ""
        )
        for file in dict.fromkeys(one.file for one in vectors):
            self.notes.files += 1
            self.notes.bytes += size_of(file)
        for array, found, start in self._with_beside():
            yield from self._array(array, found, start)

    def _with_beside(self) -> Iterator[tuple[Array, Beside, int]]:
        """Yield each array with what belongs to its rows, and where in that they begin."""
        vectors = self._chosen.vectors
        if len(vectors) > 1:
            own = [beside(self._folder, one.file.stem, one.rows, [], own=True) for one in vectors]
            if any(found.columns for found in own):
                for array, found in zip(vectors, own, strict=True):
                    self._note(found)
                    yield array, found, 0
                return
        columns = [column for one in self._chosen.others if (column := self._column(one))]
        rows = [one.rows for one in vectors]
        total = sum(rows)
        # Several vectors of the same records, instead of parts that follow each other.
        same = len(set(rows)) == 1 and any(len(column.values) == rows[0] for column in columns)
        total = rows[0] if same else total
        found = beside(self._folder, vectors[0].file.stem, total, columns)
        self._refuse_pickled_texts(found, total)
        parts = {re.sub(r"\d+", "", one.stem) for one in vectors}
        if found.columns and not same and len(parts) > 1:
            listed = ", ".join(printable(one.name) for one in vectors[:8])
            raise SourceError(
                f'"{printable(str(self.path))}" has several arrays ({listed}) and one list of '
                f"{total} entries for all of them",
                hint="Which text belongs to which row cannot be told. Call the arrays part-1, "
                "part-2 and so on in the order of the list, or name one with --records.",
            )
        self._note(found)
        start = 0
        for array in vectors:
            yield array, found, start
            start += 0 if same else array.rows

    def _note(self, found: Beside) -> None:
        self.notes.files += found.files
        self.notes.bytes += found.bytes
        self.notes.left_out += found.left_out

    def _refuse_pickled_texts(self, found: Beside, rows: int) -> None:
        """Refuse to load vectors without the texts that stand beside them."""
        if found.has_text:
            return
        for one in self._chosen.others:
            if one.header.dtype.hasobject and one.header.shape == (rows,) and is_texts(one.stem):
                raise SourceError(
                    f'"{printable(str(one.file))}" has the texts as an array of objects'
                    + (f" ({one.stem})" if one.member else "")
                    + ", which is a pickle and not read",
                    hint="Save them as text: np.save(path, array.astype(str)). A pickle from "
                    "strangers can run programs when NumPy loads it.",
                )

    def _column(self, array: Array) -> Column | None:
        """Return an array that has a value for each row; None if it is something else."""
        header = array.header
        if header.dtype.hasobject:
            self.notes.left_out.append((array.name, "an array of objects, which is a pickle"))
            return None
        if (
            len(header.shape) != 1
            or header.dtype.kind not in "USiufb"
            or header.bytes > _MOST_SIDE_BYTES
        ):
            self.notes.left_out.append((array.name, array.shape))
            return None
        try:
            with opened(array) as file:
                values = array_in(file.read(header.offset + header.bytes), header).tolist()
        except DAMAGE as exc:
            raise damaged(array.file, exc) from exc
        if header.dtype.kind == "S":
            values = [one.decode("utf-8", "surrogateescape") for one in values]
        return Column(array.name, name_of(array.stem), values)

    def _model(self) -> str | None:
        """Return the model that an array without dimensions names."""
        for one in self._chosen.others:
            header = one.header
            named = header.shape == () and header.dtype.kind == "U"
            if named and header.bytes <= BLOCK_BYTES and plain_name(one.stem) in MODEL_NAMES:
                with opened(one) as file:
                    return str(array_in(file.read(header.offset + header.bytes), header)[()])
        return None

    def _array(self, array: Array, found: Beside, start: int) -> Iterator[Item | Rejection]:
        origin = origin_of(array.file, self.path)
        several = len(self._chosen.vectors) > 1
        where = f"{origin}/{array.stem}" if several and array.member is not None else origin
        fields = self._fields(array, found, start)
        rows, model = rows_of(array), found.model or self._model()
        for at in count():
            try:
                vector = next(rows, None)
            except DAMAGE as exc:
                yield Rejection(where, Reason.UNPARSABLE, f"behind row {at} of {array.rows}: {exc}")
                return
            if vector is None:
                return
            row = {_VECTOR: vector, **found.row(start + at)}
            position = f"{where}#{at}"
            item = fields.item(
                row,
                position=position,
                origin=position,
                source=self.source,
                payload=partial(_payload, row),
                model=model,
            )
            if several and item.key != position:
                item = replace(item, key=f"{where}#{item.key}")
            yield item

    def _fields(self, array: Array, found: Beside, start: int) -> FieldMap:
        names = replace(self.defaults.fields, vector=_VECTOR, records=None)
        sample = [
            {_VECTOR: np.zeros(1), **found.row(start + at)} for at in range(min(array.rows, SAMPLE))
        ]
        fields = FieldMap(sample, replace(self.defaults, fields=names))
        if names.id is None and fields.id is not None and not found.tells_apart(fields.id):
            names = replace(names, id=POSITION)
            fields = FieldMap(sample, replace(self.defaults, fields=names))
        self.notes.fields = fields.shown | {"embedding": printable(array.stem)}
        if fields.id == POSITION:
            self.notes.fields["store_key"] = "position"
        return fields


def _payload(row: dict[str, Any]) -> bytes:
    named = {"embedding" if name == _VECTOR else name: value for name, value in row.items()}
    return as_payload(plain_json(named), b"")
