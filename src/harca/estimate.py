"""About what a store will take in PostgreSQL: rows, bytes, time. Pure.

Sizes follow the layout of a page (PostgreSQL manual, "Database Page Layout"; pgvector
src/hnsw.h), times were measured; benchmarks/estimate.py compares both with what a load
really takes (docs/benchmarks.md).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_PAGE = 8_192
_USABLE = 8_160
_INLINE = 8_000  # STORAGE MAIN keeps a row in one page where it can
_CHUNK, _CHUNK_ROW = 1_996, 2_040  # of a TOAST table
_ROW = 28 + 88  # header and line pointer; numbers and dates, and what labels take at least
_HNSW_M = 16
_EXACT_BELOW = 1_000
_MOST_INDEXED_DIMS, _MOST_HALFVEC_DIMS = 2_000, 4_000  # beyond them, the signs are indexed


@dataclass(slots=True)
class Volume:
    """What a space holds, in sum: numbers of records and of bytes."""

    records: int = 0
    texts: int = 0
    metadata: int = 0
    keys: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """About what a store will take: bytes, and seconds on two cores."""

    rows: int
    table_bytes: int
    index_bytes: int
    load_s: float
    index_s: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as ``--json`` shows them."""
        return {
            "rows": self.rows,
            "table_bytes": self.table_bytes,
            "index_bytes": self.index_bytes,
            "load_s": round(self.load_s, 1),
            "index_s": round(self.index_s, 1),
        }


def estimate(spaces: Iterable[tuple[int, Volume]], *, name_bytes: int = 60) -> Estimate:
    """Return about what these spaces take, each given as its dimensions and its volume.

    Args:
        spaces: The spaces.
        name_bytes: Length of the store's name, which stands in each row and in its key's index.
    """
    rows, table, index, load_s, index_s = 0, 0.0, 0.0, 0.0, 0.0
    for dims, volume in spaces:
        count = volume.records
        if not count:
            continue
        key = volume.keys / count + name_bytes
        rest = _ROW + key + (volume.texts + volume.metadata) / count
        rows += count
        table += count * (in_page(rest + 4 * dims + 8))
        index += count * 22 / 0.9  # the primary key
        index += count * (key + 28) / 0.66  # store and key, in no order
        index += count * 8 + volume.metadata * 0.8  # source, and the GIN index
        index += count * _vector_index(dims, count)
        load_s += count * (110e-6 + 0.13e-6 * dims) + (volume.texts + volume.metadata) * 10e-9
        index_s += count * _seconds_to_index(dims, count)
    return Estimate(rows, round(table), round(index), load_s, index_s)


def in_page(row: float) -> float:
    """Return the bytes of its pages that a row takes, what is kept apart included."""
    if row <= _INLINE:
        return _PAGE / max(1, int(_USABLE / row))
    apart = -(-row // _CHUNK) * _CHUNK_ROW
    return apart * 1.03 + 200


def _vector_index(dims: int, count: int) -> float:
    width = _indexed_width(dims, count)
    if width is None:
        return 0.0
    element = 80 + width + 8 + 2 * _HNSW_M * 6  # with its neighbours on the lowest layer
    return _PAGE / max(1, int(_USABLE / element))


def _indexed_width(dims: int, count: int) -> int | None:
    if count < _EXACT_BELOW:
        return None
    if dims > _MOST_HALFVEC_DIMS:
        return dims // 8
    return 4 * dims if dims <= _MOST_INDEXED_DIMS else 2 * dims


def _seconds_to_index(dims: int, count: int) -> float:
    if _indexed_width(dims, count) is None:
        return 0.0
    return 0.35e-3 + 0.7e-6 * dims
