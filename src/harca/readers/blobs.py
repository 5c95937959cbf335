"""Vectors in BLOBs: told from what the first ones hold, as nothing says what they are.

Bytes read as numbers of another kind have exponents all over the range, while the components
of an embedding are of one order of magnitude. So the kind is taken in which they differ least.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from harca.readers.files import exact_json
from harca.readers.npy import array_in, read_header
from harca.readers.pickles import plain, unpickle
from harca.readers.values import is_vector

NPY, PICKLE, JSON = "npy", "pickle", "json"

# Little-endian float32 first: what struct, NumPy, sqlite-vec and JavaScript write. Java's
# ByteBuffer is big-endian unless it is told otherwise.
_NUMBERS = ("<f4", "<f8", "<f2", ">f4", ">f8")
_NAMED = (
    (re.compile(r"(?:float|f|fp|real)_?64|double", re.I), ("<f8", ">f8")),
    (re.compile(r"(?:float|f|fp|real)_?16|half", re.I), ("<f2",)),
    (re.compile(r"(?:float|f|fp|real)_?32", re.I), ("<f4", ">f4")),
)
_VECTOR_NAME = re.compile(r"embed|vec(?:tor)?s?(?![a-z])|^emb|_emb$|features?$", re.I)
_FEW = 64  # numbers that are too few to judge by
_MOST_SPREAD = 8.0  # a normal distribution has 1.6, random bytes as float32 have 70
_LEAST_DIMS_UNNAMED = 8
_SAME_LENGTH = 0.9
# Of the middle component, by the width of a number.
_LARGEST = 1e6
_SMALLEST = {2: 1e-4, 4: 1e-9, 8: 1e-9}
_LEAST_FILLED = 0.05


def sounds_like_vectors(name: str) -> bool:
    """Say whether a column is called so that its BLOBs should be vectors."""
    return _VECTOR_NAME.search(name) is not None


def kind_of(
    samples: Sequence[bytes], *, name: str = "", declared: str = "", named: bool = False
) -> str | None:
    """Return what the BLOBs of one column are, for `vector_from`; None if they are no vectors.

    Args:
        samples: Some of them, at least one.
        name: The column's name.
        declared: Its declared type, such as ``F32_BLOB(384)``.
        named: The operator says that they are vectors.
    """
    samples = [sample for sample in samples if sample]
    for kind, start in ((NPY, b"\x93NUMPY"), (JSON, b"["), (PICKLE, b"\x80")):
        if samples and all(sample.startswith(start) for sample in samples):
            found = [vector_from(sample, kind) for sample in samples]
            if all(is_vector(one) and len(one) > 1 for one in found):
                return kind
    named = named or sounds_like_vectors(name) or sounds_like_vectors(declared)
    if not samples or not (named or _of_one_length(samples)):
        return None
    for pattern, kinds in _NAMED:
        if pattern.search(declared) or pattern.search(name):
            fitting = [kind for kind in kinds if _spread(samples, kind) is not None]
            return fitting[0] if fitting else None
    spreads = {kind: spread for kind in _NUMBERS if (spread := _spread(samples, kind)) is not None}
    if not spreads:
        return None
    if not named and not any(map(any, samples)):
        return None
    if named and sum(map(len, samples)) // 4 < _FEW and "<f4" in spreads:
        return "<f4"
    best = min(spreads, key=lambda kind: spreads[kind])
    if "<f4" in spreads and spreads["<f4"] < min(_MOST_SPREAD, 2 * spreads[best]):
        best = "<f4"
    return best if spreads[best] < _MOST_SPREAD else None


def _of_one_length(samples: Sequence[bytes]) -> bool:
    lengths = [len(sample) for sample in samples]
    usual = max(set(lengths), key=lengths.count)
    return (
        usual >= 4 * _LEAST_DIMS_UNNAMED
        and sum(map(len, samples)) // 4 >= _FEW
        and lengths.count(usual) >= _SAME_LENGTH * len(lengths)
    )


def _spread(samples: Sequence[bytes], kind: str) -> float | None:
    """Return how far the components' magnitudes differ, in powers of two; None if never so."""
    width = np.dtype(kind).itemsize
    whole = [sample for sample in samples if len(sample) % width == 0]
    if len(whole) < _SAME_LENGTH * len(samples):
        return None
    with np.errstate(invalid="ignore"):  # NaNs that signal, among bytes that are no numbers
        numbers = np.frombuffer(b"".join(whole), kind).astype(np.float64)
    if np.isfinite(numbers).mean() < 0.99:
        return None
    sizes = np.abs(numbers[np.isfinite(numbers) & (numbers != 0)])
    if not len(sizes):
        return 0.0
    if (
        len(numbers) >= _FEW
        and (
            not _SMALLEST[width] < np.median(sizes) < _LARGEST
            or len(sizes) < _LEAST_FILLED * len(numbers)
            or not np.count_nonzero(numbers[0::2])  # halves of wider numbers
            or not np.count_nonzero(numbers[1::2])
        )
    ):
        return None
    return float(np.log2(sizes).std())


def vector_from(value: bytes, kind: str) -> Any:
    """Return the vector in a BLOB as an array or a list, or *value* if there is none."""
    try:
        if kind == NPY:
            return array_in(value, read_header(io.BytesIO(value))).reshape(-1)
        if kind == JSON:
            return exact_json(value)
        if kind == PICKLE:
            found = unpickle(value, ())
            return found.reshape(-1) if isinstance(found, np.ndarray) else plain(found)
        return np.frombuffer(value, kind).astype(np.dtype(kind).newbyteorder("="))
    except (ValueError, RecursionError):
        return value
