"""The header of NumPy's ``.npy``, read before anything is allocated.

Format: NumPy, ``numpy/lib/_format_impl.py`` and NEP 1; versions 1.0, 2.0 and 3.0.
"""

import ast
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x93NUMPY"

_MOST_HEADER_BYTES = 64 << 10  # a structured type of hundreds of fields has some kilobytes


@dataclass(frozen=True, slots=True)
class Header:
    """What an array is.

    Attributes:
        by_columns: Stored in Fortran's order.
        offset: Where its data begin.
    """

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def bytes(self) -> int:
        """The size of its data."""
        return prod(self.shape) * self.dtype.itemsize


def read_header(file: BinaryIO) -> Header:
    """Read the header that *file* begins with.

    Raises:
        ValueError: It is none.
    """
    start = file.read(8)
    if not start.startswith(MAGIC) or len(start) < 8:
        raise ValueError("no .npy header")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if not 1 <= start[6] <= 3 or length > _MOST_HEADER_BYTES:
        raise ValueError(f"a .npy header of version {start[6]}.{start[7]} and {length} bytes")
    text = file.read(length)
    if len(text) < length:
        raise ValueError("the .npy header ends early")
    try:
        found = ast.literal_eval(text.decode("utf-8" if start[6] == 3 else "latin1").strip())
        shape, by_columns = found["shape"], found["fortran_order"]
        dtype = np.lib.format.descr_to_dtype(found["descr"])
    except Exception as exc:
        # Python's parser and NumPy's types stumble over wrong bytes in many ways.
        raise ValueError(f"a .npy header that says nothing: {type(exc).__name__}") from exc
    if not (
        isinstance(shape, tuple)
        and all(type(one) is int and one >= 0 for one in shape)
        and isinstance(by_columns, bool)
    ):
        raise ValueError(f"a .npy header with the shape {str(shape)[:100]}")
    return Header(shape, by_columns, dtype, 8 + width + length)


def array_in(data: bytes, header: Header) -> NDArray[Any]:
    """Return the array in a whole ``.npy`` that is in memory already.

    Raises:
        ValueError: It holds objects, or less than its header says.
    """
    if header.dtype.hasobject:
        raise ValueError("an array of objects, which is a pickle")
    if len(data) - header.offset != header.bytes:
        raise ValueError(f"{len(data) - header.offset} bytes of data, expected {header.bytes}")
    flat = np.frombuffer(data, header.dtype, offset=header.offset) if header.bytes else np.empty(0)
    return flat.reshape(header.shape, order="F" if header.by_columns else "C")
