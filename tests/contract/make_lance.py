"""LanceDB's tables of any entries."""

from collections.abc import Sequence
from pathlib import Path

import lance

from tests.contract import make_columnar
from tests.stores import Entry


def table(folder: Path, entries: Sequence[Entry]) -> Path:
    """Write a database of one table, in two fragments."""
    path = folder / "database" / "docs.lance"
    path.parent.mkdir()
    half = max(len(entries) // 2, 1)
    lance.write_dataset(make_columnar.table(entries), str(path), max_rows_per_file=half)
    return path.parent


def without_vectors(folder: Path) -> Path:
    path = folder / "docs.lance"
    lance.write_dataset(make_columnar.table([]).select(["id", "text"]), str(path))
    return path
