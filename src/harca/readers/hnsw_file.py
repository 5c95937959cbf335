"""HNSW indexes as hnswlib saves them: vectors by label.

Two forms. ``saveIndex`` writes one file: a header, then for each element its links on the
lowest level, its vector and its label, then the links above. Chroma's hnswlib writes the header
(with a version before it) and the elements to files of their own in a folder, with room for
more elements than there are. For cosine distance both scale vectors to length 1; Chroma's keeps
the lengths they had in ``length.bin``, which otherwise holds nothing of meaning.

Established from ``hnswlib/hnswalg.h`` of nmslib/hnswlib (``saveIndex``, ``markDeletedInternal``)
and of chroma-core/hnswlib (``length_memory_``), and ``rust/segment/src/local_hnsw/persistence.rs``
of chroma-core/chroma.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from harca.readers.files import head, open_binary

# offsetLevel0, max_elements, cur_element_count, size_data_per_element, label_offset, offsetData,
# maxlevel, enterpoint_node, maxM, maxM0, M, mult, ef_construction
_HEADER = struct.Struct("<6QiI3QdQ")
_VERSION = struct.Struct("<i")
_VERSION_BYTES = _VERSION.pack(1)

_DELETED = 1  # DELETE_MARK, in the third byte of an element's links
_CHUNK_BYTES = 1 << 18
_MOST_DIMS = 1 << 20


class NotHnsw(ValueError):
    """The header is none of hnswlib's, or contradicts itself."""


class HnswFile:
    """An index whose vectors are read one by one; memory is 20 bytes an element.

    The file is read, not mapped: a mapped file that another process cuts short takes this
    process with it.

    Attributes:
        count: How many elements the header tells of, deleted ones too.
        whole: How many of them are in the file to their end.
        dims: Components of each vector.
        bytes: Size of the files.
    """

    def __init__(self, header: bytes, elements: BinaryIO, *, start: int) -> None:
        """Take the index apart.

        Args:
            header: The header, without a version.
            elements: The file with the elements; `close` closes it.
            start: Where in it the first one begins.

        Raises:
            NotHnsw: The header is none.
        """
        self._elements, self._start = elements, start
        if len(header) < _HEADER.size:
            raise NotHnsw(f"a header of {len(header)} bytes, expected {_HEADER.size}")
        offset, room, count, size, label, vector, _, _, _, links, *_ = _HEADER.unpack_from(header)
        # A link is 4 bytes, and so is their number before them. All of this holds for every
        # index of float32 vectors, and is needed: sizes are computed from it.
        if (
            offset != 0
            or count > room
            or size != label + 8
            or vector != 4 * links + 4
            or not 4 <= label - vector <= 4 * _MOST_DIMS
            or (label - vector) % 4
        ):
            raise NotHnsw("the header contradicts itself")
        self.count: int = count
        self.dims: int = (label - vector) // 4
        self.bytes = os.fstat(elements.fileno()).st_size
        self.whole: int = min(count, max(self.bytes - start, 0) // size)
        self._size: int = size
        self._label: int = label
        self._vector: int = vector
        self._labels, self._places = self._table()
        self._lengths: NDArray[np.float32] = np.empty(0, np.float32)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an index in one file.

        Raises:
            NotHnsw: It is none.
            LfsPointer: Git LFS left a pointer in place of the file.
            OSError: It cannot be read.
        """
        return cls._opened(path, head(path, _HEADER.size), start=_HEADER.size)

    @classmethod
    def open_folder(cls, folder: Path) -> Self:
        """Open an index that Chroma keeps in a *folder*; raises what `open` does."""
        header = head(folder / "header.bin", _VERSION.size + _HEADER.size)
        if not header.startswith(_VERSION_BYTES):
            raise NotHnsw("no header.bin of version 1")
        head(folder / "data_level0.bin")  # raises if it is a Git LFS pointer
        index = cls._opened(folder / "data_level0.bin", header[_VERSION.size :], start=0)
        try:
            with open_binary(folder / "length.bin") as file:
                data = file.read(4 * index.whole)
        except OSError:
            return index
        index._lengths = np.frombuffer(data[: len(data) // 4 * 4], "<f4")
        return index

    @classmethod
    def _opened(cls, path: Path, header: bytes, *, start: int) -> Self:
        elements = open_binary(path)
        try:
            return cls(header, elements, start=start)
        except BaseException:
            elements.close()
            raise

    def __len__(self) -> int:
        """Return how many vectors can be read."""
        return len(self._labels)

    def close(self) -> None:
        """Close the file."""
        self._elements.close()

    def _table(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the labels of all elements that are not deleted, sorted, and their places."""
        labels = np.empty(self.whole, np.uint64)
        alive = np.empty(self.whole, np.bool_)
        each = max(_CHUNK_BYTES // self._size, 1)
        for first in range(0, self.whole, each):
            number = min(each, self.whole - first)
            rows = np.frombuffer(self._read(first, 0, number * self._size), np.uint8)
            rows = rows.reshape(number, self._size)
            label = rows[:, self._label : self._label + 8]
            labels[first : first + number] = np.ascontiguousarray(label).view("<u8")[:, 0]
            alive[first : first + number] = (rows[:, 2] & _DELETED) == 0
        places = np.flatnonzero(alive)
        order = np.argsort(labels[places], kind="stable")
        return labels[places][order], places[order]

    def _read(self, place: int, offset: int, size: int) -> bytes:
        at = self._start + place * self._size + offset
        data = os.pread(self._elements.fileno(), size, at)
        if len(data) < size:
            raise OSError("the file became shorter while it was read")
        return data

    def labels(self) -> Iterator[int]:
        """Yield the labels of the elements that are not deleted, ascending."""
        yield from map(int, self._labels)

    def vector(self, label: int) -> NDArray[np.float32] | None:
        """Return the vector under *label*, float32, shape ``(dims,)``; None if there is none.

        Raises:
            OSError: It cannot be read.
        """
        place = self._place(label)
        if place is None:
            return None
        return np.frombuffer(self._read(place, self._vector, 4 * self.dims), "<f4")

    def length(self, label: int) -> np.float32 | None:
        """Return the length that the vector under *label* had; None if the index has none.

        Only an index for cosine distance has lengths: any other has whatever was in memory.
        """
        place = self._place(label)
        return None if place is None or place >= len(self._lengths) else self._lengths[place]

    def _place(self, label: int) -> int | None:
        if not 0 <= label < 1 << 64:
            return None
        at = int(np.searchsorted(self._labels, np.uint64(label)))
        if at == len(self._labels) or int(self._labels[at]) != label:
            return None
        return int(self._places[at])
