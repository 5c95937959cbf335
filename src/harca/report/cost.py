"""What the vectors take, and cost, before and after: a model that is stated in full.

Room on disk is counted: the store's files as its run found them, the tables as they are.
Memory is computed: what has to be in memory for searches to be fast. Money is made of
nothing but prices that were given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harca.postgres.overview import RunLine, TableSize

_COMPONENT_BYTES = 4  # float32
_GB = 1_000_000_000
_OLD_TABLES = ("embeddings", "code_vectors")


@dataclass(frozen=True, slots=True)
class Prices:
    """What a gigabyte (10^9 bytes) costs a month; None: not said."""

    disk: float | None = None
    memory: float | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """What one way of keeping the vectors takes.

    Attributes:
        name: ``before``, ``after``; ``meanwhile``: the files are still there too.
        disk_bytes: None if it is not known of any store.
        unknown_stores: Stores of which it is not known how large their files were.
        memory_bytes: Without which searches are slow.
        month: Cost of both a month, of what there is a price for; None: of neither.
    """

    name: str
    disk_bytes: int | None
    memory_bytes: int
    unknown_stores: int = 0
    disk_month: float | None = None
    memory_month: float | None = None

    @property
    def month(self) -> float | None:
        """What it costs a month, as far as prices were given."""
        parts = [cost for cost in (self.disk_month, self.memory_month) if cost is not None]
        return sum(parts) if parts else None


def rooms(
    spaces: Sequence[dict[str, Any]],
    latest: Sequence[RunLine],
    tables: Sequence[TableSize],
    prices: Prices,
) -> list[Room]:
    """Return what is taken before, after, and while both are kept; nothing without rows."""
    rows = sum(space["records"] for space in spaces)
    if not rows or not tables:
        return []
    known = [run.bytes for run in latest if run.bytes is not None]
    files = sum(known) if known else None
    matrix = sum(space["records"] * space["dims"] * _COMPONENT_BYTES for space in spaces)
    on_disk = sum(table.total_bytes for table in tables if table.name not in _OLD_TABLES)
    indexes = {index.name: index.bytes for table in tables for index in table.indexes}
    searched = sum(
        indexes.get(
            str(space["index"]).split(" ")[0], space["records"] * space["dims"] * _COMPONENT_BYTES
        )
        for space in spaces
    )
    unknown = len(latest) - len(known)
    found = [
        ("before", files, matrix, unknown),
        ("after", on_disk, searched, 0),
        ("meanwhile", None if files is None else files + on_disk, matrix + searched, unknown),
    ]
    return [
        Room(
            name,
            disk,
            memory,
            missing,
            None if prices.disk is None or disk is None else disk / _GB * prices.disk,
            None if prices.memory is None else memory / _GB * prices.memory,
        )
        for name, disk, memory, missing in found
    ]
