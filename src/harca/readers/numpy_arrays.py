"""Arrays in NumPy's files, read block by block and never as a whole.

Formats: `harca.readers.npy`; ``.npz`` is a ZIP file of ``.npy``.
"""

import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from harca.errors import SourceError
from harca.readers.files import head, open_binary, printable
from harca.readers.npy import MAGIC, Header, read_header

BLOCK_BYTES = 1 << 20
_MOST_RATIO = 200  # of what deflate makes of texts and numbers; zeros give 1,000
_SMALL_BYTES = 1 << 30
_ZIP = b"PK\x03\x04"
DAMAGE = (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True)
class Array:
    """An array in a file.

    Attributes:
        member: Its name in the ``.npz``; None in a ``.npy``.
    """

    file: Path
    member: str | None
    header: Header

    @property
    def name(self) -> str:
        """What it is called to people."""
        return printable(self.file.name if self.member is None else self.member)

    @property
    def stem(self) -> str:
        """Its name without an ending."""
        return self.file.stem if self.member is None else self.member.removesuffix(".npy")

    @property
    def shape(self) -> str:
        """Type and shape, for people."""
        return f"{self.header.dtype} of shape {self.header.shape}"

    @property
    def is_numbers(self) -> bool:
        """True if it is of numbers that a vector can have."""
        return self.header.dtype.kind in "fiu" and self.header.dtype.itemsize <= 16

    @property
    def rows(self) -> int:
        """How many vectors it has, if it is of vectors."""
        return self.header.shape[0] if len(self.header.shape) == 2 else 1

    @property
    def dims(self) -> int:
        """How many numbers a vector of it has."""
        return self.header.shape[-1]


def arrays_in_folder(folder: Path) -> list[Array]:
    """Return the arrays in the files of a folder, in the natural order of their names."""
    files = [one for one in folder.iterdir() if one.suffix.lower() in (".npy", ".npz")]
    found = []
    for file in sorted(files, key=lambda one: _natural(one.name)):
        found += arrays_in(file) or []
    return found


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def arrays_in(file: Path) -> list[Array] | None:
    """Return the arrays in a file; None if it is neither ``.npy`` nor ``.npz``.

    Raises:
        LfsPointer: Git LFS left a pointer in its place.
        SourceError: It is damaged.
    """
    start = head(file, len(MAGIC))
    if start.startswith(MAGIC):
        try:
            with open_binary(file) as stream:
                header = read_header(stream)
        except ValueError as exc:
            raise damaged(file, exc) from exc
        return [Array(file, None, header)]
    if not start.startswith(_ZIP):
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if not members or not all(one.filename.endswith(".npy") for one in members):
                return None
            found = []
            for member in members:
                _refuse_bomb(file, member)
                with archive.open(member) as inside:
                    header = read_header(cast(BinaryIO, inside))
                if header.offset + header.bytes != member.file_size and not header.dtype.hasobject:
                    raise ValueError(
                        f"{member.filename} has {member.file_size} bytes, expected "
                        f"{header.offset + header.bytes}"
                    )
                found.append(Array(file, member.filename, header))
            return found
    except DAMAGE as exc:
        if file.suffix.lower() != ".npz":
            return None
        raise damaged(file, exc) from exc


def _refuse_bomb(file: Path, member: zipfile.ZipInfo) -> None:
    if member.file_size > _SMALL_BYTES and member.file_size > _MOST_RATIO * member.compress_size:
        raise SourceError(
            f'"{printable(str(file))}" has {member.file_size} bytes of {member.filename} packed in '
            f"{member.compress_size}, expected no more than {_MOST_RATIO} times as many",
            hint="If it is meant so, unpack it first.",
        )


def damaged(file: Path, found: Exception) -> SourceError:
    """Say that *file* is damaged."""
    return SourceError(
        f'"{printable(str(file))}" cannot be read as {file.suffix.lower() or ".npy"}: {found}',
        hint="Copy it again, or restore it from a backup.",
    )


@contextmanager
def opened(array: Array) -> Iterator[BinaryIO]:
    """Open what the array is in; its header comes first."""
    if array.member is None:
        with open_binary(array.file) as file:
            yield file
        return
    with zipfile.ZipFile(array.file) as archive, archive.open(array.member) as inside:
        yield cast(BinaryIO, inside)


def rows_of(array: Array) -> Iterator[NDArray[Any]]:
    """Yield the rows as floats.

    Raises:
        ValueError: The file ends early. Other errors of `DAMAGE` likewise.
    """
    header, shape = array.header, (array.rows, array.dims)
    width = header.dtype.itemsize * array.dims
    wide = np.float32 if header.dtype.itemsize <= 4 and header.dtype.kind == "f" else np.float64
    with opened(array) as file:
        if header.by_columns and len(header.shape) == 2:
            blocks = _by_columns(array, file)
        else:
            blocks = _by_rows(file, header.offset, array.rows, width)
        for block in blocks:
            part = np.frombuffer(block, header.dtype).reshape(-1, shape[1])
            for row in part:
                yield row.astype(wide)  # a copy, which does not keep the block


def _by_rows(file: BinaryIO, offset: int, rows: int, width: int) -> Iterator[bytes]:
    file.read(offset)
    left, per_block = rows, max(1, BLOCK_BYTES // width)
    while left:
        wanted = min(left, per_block) * width
        block = _read_up_to(file, wanted)
        whole = len(block) // width
        if whole:
            yield block[: whole * width]
        left -= whole
        if len(block) < wanted:
            raise ValueError(f"the file ends {left} rows early")


def _read_up_to(file: BinaryIO, size: int) -> bytes:
    """Read *size* bytes, or to the end; allocates no more than there is."""
    parts = []
    while size and (part := file.read(min(size, BLOCK_BYTES))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _by_columns(array: Array, file: BinaryIO) -> Iterator[bytes]:
    """Yield blocks of rows of an array that is stored by columns."""
    header, step = array.header, array.header.dtype.itemsize
    with ExitStack() as stack:
        if array.member is not None:
            # The first row is complete only at the end of the stream.
            unpacked = stack.enter_context(TemporaryFile(prefix="harca-"))
            shutil.copyfileobj(file, unpacked)
            unpacked.flush()
            file = unpacked
        descriptor = file.fileno()
        if os.fstat(descriptor).st_size < header.offset + header.bytes:
            raise ValueError("the file ends early, and it is stored by columns: no row is whole")
        per_block = max(1, BLOCK_BYTES * 8 // (step * array.dims))
        for first in range(0, array.rows, per_block):
            rows = min(per_block, array.rows - first)
            places = (column * array.rows + first for column in range(array.dims))
            columns = [
                os.pread(descriptor, rows * step, header.offset + at * step) for at in places
            ]
            part = np.frombuffer(b"".join(columns), header.dtype).reshape(array.dims, rows)
            yield part.T.tobytes()
