"""FAISS index files, read without FAISS: the vectors and their ids, one block after the other.

An index file is a tree: a four-letter code for the class, a header, the fields of the class,
and within them further indexes. Read are the classes that keep vectors as they were added
(flat ones, maps of ids, HNSW graphs and inverted lists over flat ones), and those that keep
them as 16-bit floats. The others keep approximations only, and are refused by name.

Facts: ``faiss/impl/index_read.cpp`` and ``index_write.cpp`` of github.com/facebookresearch/faiss
(a vector is its length as uint64, then its elements; everything is little-endian), and files
written by 1.7.0 to 1.15.1.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from harca.errors import SourceError
from harca.readers.files import head, open_binary, printable

_CHUNK_BYTES = 1 << 18
_DEEPEST = 8  # an ID map over a transform over HNSW over a flat index is 4
_MOST_DIMS = 1 << 20

_METRICS = {0: "inner_product", 1: "l2"}

_EXACT = {
    "IxF2": "IndexFlatL2",
    "IxFI": "IndexFlatIP",
    "IxFl": "IndexFlat",
    "IxMp": "IndexIDMap",
    "IxM2": "IndexIDMap2",
    "IxPT": "IndexPreTransform",
    "IHNf": "IndexHNSWFlat",
    "IHNs": "IndexHNSWSQ",
    "IwFl": "IndexIVFFlat",
    "IxSQ": "IndexScalarQuantizer",
}
_LOSSY = {
    "IxPQ": "IndexPQ",
    "IxPo": "IndexPQ",
    "IxPq": "IndexPQ",
    "IvPQ": "IndexIVFPQ",
    "IwPQ": "IndexIVFPQ",
    "IvQR": "IndexIVFPQR",
    "IwQR": "IndexIVFPQR",
    "IPfs": "IndexPQFastScan",
    "IwPf": "IndexIVFPQFastScan",
    "IvSQ": "IndexIVFScalarQuantizer",
    "IwSQ": "IndexIVFScalarQuantizer",
    "IwSq": "IndexIVFScalarQuantizer",
    "IHNp": "IndexHNSWPQ",
    "IHN2": "IndexHNSW2Level",
    "INSp": "IndexNSGPQ",
    "INSs": "IndexNSGSQ",
    "IxHE": "IndexLSH",
    "IxHe": "IndexLSH",
    "IxRQ": "IndexResidualQuantizer",
    "IxRq": "IndexResidualQuantizer",
    "IxLS": "IndexLocalSearchQuantizer",
    "IxPR": "IndexProductResidualQuantizer",
    "IxPL": "IndexProductLocalSearchQuantizer",
    "ImRQ": "ResidualCoarseQuantizer",
    "ILfs": "IndexLocalSearchQuantizerFastScan",
    "IRfs": "IndexResidualQuantizerFastScan",
    "IPRf": "IndexProductResidualQuantizerFastScan",
    "IPLf": "IndexProductLocalSearchQuantizerFastScan",
    "IVLf": "IndexIVFLocalSearchQuantizerFastScan",
    "IVRf": "IndexIVFResidualQuantizerFastScan",
    "NPLf": "IndexIVFProductLocalSearchQuantizerFastScan",
    "NPRf": "IndexIVFProductResidualQuantizerFastScan",
    "IwLS": "IndexIVFLocalSearchQuantizer",
    "IwRQ": "IndexIVFResidualQuantizer",
    "IwPL": "IndexIVFProductLocalSearchQuantizer",
    "IwPR": "IndexIVFProductResidualQuantizer",
    "IwSh": "IndexIVFSpectralHash",
    "Ix2L": "Index2Layer",
    "IxLa": "IndexLattice",
    "Ixrq": "IndexRaBitQ",
    "Iwrq": "IndexIVFRaBitQ",
    "IRMf": "IndexRowwiseMinMax",
    "IRMh": "IndexRowwiseMinMaxFP16",
    "IBxF": "IndexBinaryFlat",
    "IBwF": "IndexBinaryIVF",
    "IBFf": "IndexBinaryFromFloat",
    "IBHf": "IndexBinaryHNSW",
    "IBMp": "IndexBinaryIDMap",
    "IBM2": "IndexBinaryIDMap2",
    "IBHh": "IndexBinaryHash",
    "IBHm": "IndexBinaryMultiHash",
}
_NOT_READ = {
    "IvFl": "IndexIVFFlat of before 2018",
    "IvFL": "IndexIVFFlat of before 2018",
    "IwFd": "IndexIVFFlatDedup",
    "IwIQ": "IndexIVFIndependentQuantizer",
    "Imiq": "MultiIndexQuantizer",
    "IxRF": "IndexRefine",
    "IHNc": "IndexHNSWCagra",
    "INSf": "IndexNSGFlat",
    "INNf": "IndexNNDescentFlat",
}
_KNOWN = {code.encode(): name for code, name in (_EXACT | _LOSSY | _NOT_READ).items()}

# ScalarQuantizer::QuantizerType: the two that round to a float of 16 bits, and what is left of
# a vector's component there.
_FLOATS_16 = {4: np.dtype("<f2"), 7: np.dtype("<u2")}
_BFLOAT16 = 7


def is_faiss(path: Path) -> bool:
    """Say whether the file at *path* begins as an index of FAISS does.

    Raises:
        LfsPointer: Git LFS left a pointer in place of the file.
    """
    start = head(path, 33)
    # The first four bytes alone can be a text's; then come dimensions, as a small number.
    return start[:4] in _KNOWN and len(start) == 33 and 0 < _int32(start[4:8]) <= _MOST_DIMS


def _int32(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


@dataclass(frozen=True, slots=True)
class _Block:
    """Vectors that stand together in the file.

    Attributes:
        at: Where the first one begins.
        ids_at: Where their ids begin; None if they are numbered from 0.
    """

    at: int
    count: int
    ids_at: int | None


@dataclass(slots=True)
class FaissIndex:
    """What an index file holds.

    Attributes:
        kind: The class of the index, as FAISS calls it.
        dims: Components of a vector.
        total: Vectors that the file says it has.
        metric: ``l2`` or ``inner_product``; None for the rarer ones.
        damage: Why vectors are missing at the end, if they are.
    """

    path: Path
    kind: str
    dims: int
    total: int
    metric: str | None
    damage: str | None = None
    _stored: np.dtype[Any] = field(default_factory=lambda: np.dtype("<f4"))
    _blocks: list[_Block] = field(default_factory=list)
    _maps: list[tuple[int, int]] = field(default_factory=list)

    def vectors(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield each vector with its id, in the order of the file.

        Memory is one chunk, and the ids if the index maps them. An id that the map does
        not have is given as -1.

        Raises:
            OSError: The file cannot be read any more.
        """
        size = self.dims * self._stored.itemsize
        with open_binary(self.path) as file:
            maps = [_read_array(file, at, count, "<i8") for at, count in self._maps]
            rows = max(1, _CHUNK_BYTES // size)
            for block in self._blocks:
                for first in range(0, block.count, rows):
                    count = min(rows, block.count - first)
                    ids = np.arange(first, first + count, dtype=np.int64)
                    if block.ids_at is not None:
                        ids = _read_array(file, block.ids_at + 8 * first, count, "<i8")
                    for table in maps:
                        ids = _looked_up(table, ids)
                    stored = _read_array(
                        file, block.at + first * size, count * self.dims, self._stored
                    )
                    vectors = _as_float32(stored).reshape(count, self.dims)
                    yield from zip(ids.tolist(), vectors, strict=True)


def _read_array(file: BinaryIO, at: int, count: int, dtype: Any) -> NDArray[Any]:
    """Read *count* numbers; how many there are was compared with the file's size before."""
    kind = np.dtype(dtype)
    file.seek(at)
    data = file.read(count * kind.itemsize)
    if len(data) != count * kind.itemsize:
        raise OSError(0, "the file became shorter while it was read")
    return np.frombuffer(data, kind)


def _looked_up(table: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    inside = (ids >= 0) & (ids < len(table))
    found = np.full(len(ids), -1, np.int64)
    found[inside] = table[ids[inside]]
    return found


def _as_float32(stored: NDArray[Any]) -> NDArray[np.float32]:
    if stored.dtype == _FLOATS_16[_BFLOAT16]:
        # A bfloat16 is the upper half of a float32.
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False)


def open_index(path: Path) -> FaissIndex:
    """Read what an index file says about itself; no vectors yet.

    A file that was cut short within its vectors is an index with `FaissIndex.damage`.

    Raises:
        LfsPointer: Git LFS left a pointer in place of the file.
        SourceError: It is no index, is damaged before its vectors, or is of a class that does
            not keep vectors as they were added.
        OSError: It cannot be read.
    """
    head(path)  # tells a Git LFS pointer
    with open_binary(path) as file:
        return _Parser(path, file).index()


class _Parser:
    """Walks through the fields of an index file; each size is compared with what is left."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._size = os.fstat(file.fileno()).st_size
        self._at = 0

    def index(self) -> FaissIndex:
        """Parse the whole file."""
        found = self._index(0)
        if found.damage is None and self._at < self._size:
            found.damage = f"{self._size - self._at} bytes follow the end of the index"
        return found

    def _damaged(self, what: str) -> SourceError:
        return SourceError(
            f'"{printable(str(self._path))}" is damaged as a FAISS index: {what}',
            hint="Copy the file again, or build the index anew from its texts.",
        )

    def _take(self, pattern: str) -> Any:
        """Return the next fields; one alone as such."""
        layout = struct.Struct("<" + pattern)
        self._file.seek(self._at)
        data = self._file.read(layout.size)
        if len(data) < layout.size:
            raise self._damaged(f"it ends at byte {self._size}, within a header")
        self._at += layout.size
        fields = layout.unpack(data)
        return fields[0] if len(fields) == 1 else fields

    def _skip(self, count: int, size: int, what: str) -> int:
        """Pass over *count* elements of *size* bytes; return where they begin."""
        begin = self._at
        if count > (self._size - begin) // size:
            raise self._damaged(
                f"{count} {what} at byte {begin}, {self._size - begin} bytes are left"
            )
        self._at = begin + count * size
        return begin

    def _vector(self, size: int, what: str) -> tuple[int, int]:
        """Pass over a vector of elements of *size* bytes; return where and how many."""
        count = self._take("Q")
        return self._skip(count, size, what), count

    def _index(self, depth: int) -> FaissIndex:
        if depth > _DEEPEST:
            raise self._damaged("indexes within indexes without end")
        code = self._take("4s")
        kind = _KNOWN.get(code)
        if kind is None:
            raise SourceError(
                f'"{printable(str(self._path))}" is no FAISS index that is known: its class is '
                f'"{code.decode("ascii", "backslashreplace")}"',
                hint="Write it as an IndexFlat with `faiss.write_index`.",
            )
        name = code.decode()
        if name not in _EXACT:
            raise self._refused(kind, approximates=name in _LOSSY)
        dims, total, _, _, _, metric = self._take("iqqq?i")
        if metric > 1:
            self._take("f")
        if not 0 < dims <= _MOST_DIMS or total < 0:
            raise self._damaged(f"{total} vectors of {dims} dimensions")
        found = FaissIndex(self._path, kind, dims, total, _METRICS.get(metric))
        if name in ("IxF2", "IxFI", "IxFl"):
            self._flat(found, found.dims * 4)
        elif name == "IxSQ":
            self._scalar(found)
        elif name == "IwFl":
            self._inverted(found, depth)
        else:
            if name in ("IHNf", "IHNs"):
                self._graph()
            elif name == "IxPT":
                self._transforms(found)
            self._adopt(found, self._index(depth + 1))
            if name in ("IxMp", "IxM2"):
                self._map(found)
        return found

    def _refused(self, kind: str, *, approximates: bool) -> SourceError:
        why = (
            "keeps approximations of its vectors, which cannot be moved exactly"
            if approximates
            else "is not read"
        )
        return SourceError(
            f'"{printable(str(self._path))}" is a FAISS {kind}, which {why}',
            hint="Move the texts from where they are kept and embed them again, or build an "
            "IndexFlat from the original vectors.",
        )

    def _adopt(self, outer: FaissIndex, inner: FaissIndex) -> None:
        """Take the vectors of the index within."""
        if (inner.dims, inner.total) != (outer.dims, outer.total):
            raise self._damaged(
                f"{outer.total} vectors of {outer.dims} dimensions around {inner.total} of "
                f"{inner.dims}"
            )
        outer.damage, outer._stored = inner.damage, inner._stored
        outer._blocks, outer._maps = inner._blocks, inner._maps
        if inner.kind == "IndexScalarQuantizer" or outer.kind.startswith("IndexIDMap"):
            outer.kind = f"{outer.kind} of {inner.kind}"

    def _flat(self, found: FaissIndex, size: int) -> None:
        """Parse a flat index's vectors, each of *size* bytes."""
        elements = self._take("Q")
        # Flat ones count in units of 4 bytes, the others in bytes.
        length = elements * 4 if found.kind.startswith("IndexFlat") else elements
        if length != found.total * size:
            raise self._damaged(f"{found.total} vectors of {size} bytes, and {length} bytes of it")
        whole = min(found.total, (self._size - self._at) // size)
        found._blocks = [_Block(self._at, whole, None)]
        if whole < found.total:
            found.damage = self._ends(whole, found.total)
        self._at = min(self._at + length, self._size)

    def _ends(self, whole: int, total: int) -> str:
        return f"the file ends at byte {self._size}, after {whole} of {total} vectors"

    def _scalar(self, found: FaissIndex) -> None:
        quantizer, _, _, dims, size = self._take("iifQQ")
        self._vector(4, "trained values")
        if quantizer not in _FLOATS_16:
            raise self._refused(found.kind, approximates=True)
        if (dims, size) != (found.dims, found.dims * 2):
            raise self._damaged(f"vectors of {found.dims} dimensions in {size} bytes")
        found._stored = _FLOATS_16[quantizer]
        self._flat(found, size)

    def _graph(self) -> None:
        for size, what in (
            (8, "probabilities"), (4, "neighbour counts"), (4, "levels"), (8, "offsets"),
            (4, "neighbours"),
        ):  # fmt: skip
            self._vector(size, what)
        self._take("iiiii")

    def _transforms(self, found: FaissIndex) -> None:
        count = self._take("i")
        for _ in range(count):
            code = self._take("4s").decode("ascii", "backslashreplace")
            if code == "VNrm":
                self._take("f")
            elif code == "RmDT":
                at, length = self._vector(4, "dimensions")
                if length != found.dims or not np.array_equal(
                    _read_array(self._file, at, length, "<i4"), np.arange(length)
                ):
                    raise self._transformed(code)
            else:
                raise self._transformed(code)
            if self._take("ii?")[:2] != (found.dims, found.dims):
                raise self._transformed(code)

    def _transformed(self, code: str) -> SourceError:
        return SourceError(
            f'"{printable(str(self._path))}" is a FAISS IndexPreTransform, which keeps its '
            f'vectors changed by a transform "{code}"',
            hint="Move the texts from where they are kept and embed them again, or build an "
            "IndexFlat from the original vectors.",
        )

    def _map(self, found: FaissIndex) -> None:
        if found.damage is not None:
            # Where the vectors end early, the ids behind them are lost.
            raise self._damaged(found.damage)
        at, count = self._vector(8, "ids")
        if count != found.total:
            raise self._damaged(f"{count} ids for {found.total} vectors")
        found._maps = [*found._maps, (at, count)]

    def _inverted(self, found: FaissIndex, depth: int) -> None:
        lists, _ = self._take("QQ")
        self._index(depth + 1)  # the centroids
        kind = self._take("B")
        self._vector(8, "places")
        if kind == 2:  # a hash table, as pairs
            self._vector(16, "places")
        code = self._take("4s")
        if code != b"ilar":
            raise SourceError(
                f'"{printable(str(self._path))}" is a FAISS IndexIVFFlat without its lists, '
                f'which are kept elsewhere ("{code.decode("ascii", "backslashreplace")}")',
                hint="Load it with FAISS, and write it with lists in memory.",
            )
        stored, size = self._take("QQ")
        if (stored, size) != (lists, found.dims * 4):
            raise self._damaged(f"{stored} lists of vectors of {size} bytes")
        counts = self._list_sizes(lists)
        if sum(counts) > found.total:
            raise self._damaged(f"{sum(counts)} vectors in the lists, {found.total} in all")
        if sum(counts) < found.total:
            # Of a vector that is nearest to no centroid, as with NaN in it, FAISS keeps the
            # count alone.
            found.damage = f"{found.total - sum(counts)} of {found.total} vectors are in no list"
        read = 0
        for count in counts:
            if count * (size + 8) > self._size - self._at:
                found.damage = self._ends(read, found.total)
                self._at = self._size
                return
            at = self._skip(count, size, "vectors")
            found._blocks.append(_Block(at, count, self._skip(count, 8, "ids")))
            read += count

    def _list_sizes(self, lists: int) -> list[int]:
        """Return how many vectors each list has that has any, in their order in the file."""
        code = self._take("4s")
        at, length = self._vector(8, "list sizes")
        sizes: list[int] = _read_array(self._file, at, length, "<u8").tolist()
        if code == b"full" and length == lists:
            return [count for count in sizes if count]
        if code == b"sprs" and length % 2 == 0:
            by_list = dict(zip(sizes[::2], sizes[1::2], strict=True))
            if all(number < lists for number in by_list):
                return [by_list[number] for number in sorted(by_list) if by_list[number]]
        raise self._damaged(f"{length} list sizes for {lists} lists")
