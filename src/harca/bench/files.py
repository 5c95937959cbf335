"""The file store as it is: every search reads every file."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from harca.bench.contestant import Key
from harca.bench.process import Backend
from harca.errors import UsageError
from harca.load import Intake
from harca.model import Space
from harca.options import LoadOptions
from harca.readers.base import open_store

_JSON_FORMAT = "harca"


@dataclass(frozen=True, slots=True)
class ColdFiles:
    """A store of which nothing is in memory when a search begins.

    Files of one record in JSON, as HARCA's, are read by a plain loop: parsed by orjson, and
    compared with the query by NumPy. Other formats go through harca's reader.

    Attributes:
        files: Those with a record of the space, if they are read by the plain loop.
        keys: Of the records in *files*.
    """

    path: str
    options: LoadOptions
    space: Space
    files: tuple[str, ...]
    keys: tuple[str, ...]
    name: str = "files"
    title: str = "file store, cold files: all are read for each search"

    def start(self) -> "_Files":
        """Find the files."""
        return _Files(self)


def cold_files(
    root: Path, shown: str, options: LoadOptions, space: Space
) -> tuple[ColdFiles, set[str]]:
    """Return the contestant, and the keys of the store's records of *space*.

    Args:
        root: Where the store is.
        shown: What it is called in messages.

    Raises:
        UsageError: The store has no record of the space.
        SourceError: It cannot be read.
    """
    reader = open_store(root, options.defaults)
    intake = Intake(reader, options, now=datetime.now(UTC))
    origins: dict[str, str] = {}
    others: set[str] = set()
    for record in intake.records():
        if record.space == (space.model_id, space.dims):
            origins[record.key] = record.origin
        else:
            others.add(f"{record.model_id}/{len(record.embedding)}")
    if not origins:
        raise UsageError(
            f'"{shown}" has no record of the space {space.model_id}/{space.dims}',
            hint=f"It holds: {', '.join(sorted(others)[:8])}. Name one of these by --model."
            if others
            else "Is it the store that was loaded?",
        )
    folder = root if root.is_dir() else root.parent
    files = [str(folder / origin) for origin in origins.values()]
    plain = reader.format == _JSON_FORMAT and all(_plain(file, space.dims) for file in files)
    return (
        ColdFiles(str(root), options, space, tuple(files) if plain else (), tuple(origins)),
        set(origins),
    )


def _plain(file: str, dims: int) -> bool:
    with suppress(OSError, ValueError, TypeError, KeyError):
        return len(orjson.loads(Path(file).read_bytes())["embedding"]) == dims
    return False


class _Files:
    backends: Sequence[Backend] = ()

    def __init__(self, store: ColdFiles) -> None:
        self._store = store
        self._all = list(store.files) or [str(path) for path in _walk(Path(store.path))]
        self._bytes = sum(Path(file).stat().st_size for file in self._all)
        self.notes = [
            "read by a plain loop with orjson"
            if store.files
            else "read through harca's reader of the format",
            self._how_cold(),
        ]

    def _how_cold(self) -> str:
        self.before()
        before = _read_from_disk()
        for file in self._all:
            Path(file).read_bytes()
        after = _read_from_disk()
        if before is None or after is None:
            return "whether the files left the system's memory before each search is not known"
        share = (after - before) / max(self._bytes, 1)
        if share > 0.5:
            return "the files leave the system's memory before each search"
        return "the files stay in the system's memory, which keeps them here: not cold, but read"

    def before(self) -> None:
        """Have the system forget the files, where it does so when asked."""
        if not hasattr(os, "posix_fadvise"):
            return
        for file in self._all:
            with suppress(OSError):
                descriptor = os.open(file, os.O_RDONLY)
                try:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(descriptor)

    def search(self, embedding: NDArray[np.float32], k: int) -> list[Key]:
        """Return the keys of the nearest records."""
        keys, matrix = self._loop() if self._store.files else self._read()
        lengths = np.linalg.norm(matrix, axis=1)
        cosines = matrix @ embedding / np.where(lengths > 0, lengths, np.inf)
        return [keys[row] for row in np.argsort(-cosines)[:k]]

    def _loop(self) -> tuple[Sequence[str], NDArray[np.float32]]:
        store = self._store
        matrix = np.empty((len(store.files), store.space.dims), np.float32)
        for row, file in enumerate(store.files):
            with open(file, "rb") as opened:  # noqa: PTH123  # this is what is timed
                matrix[row] = orjson.loads(opened.read())["embedding"]
        return store.keys, matrix

    def _read(self) -> tuple[Sequence[str], NDArray[np.float32]]:
        store = self._store
        reader = open_store(Path(store.path), store.options.defaults)
        intake = Intake(reader, store.options, now=datetime.now(UTC))
        wanted = (store.space.model_id, store.space.dims)
        records = [record for record in intake.records() if record.space == wanted]
        return [record.key for record in records], np.stack(
            [record.embedding for record in records]
        )

    def close(self) -> None:
        """Nothing is open."""


def _walk(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for folder, _, names in os.walk(path):
        yield from (Path(folder) / name for name in names)


def _read_from_disk() -> int | None:
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))
    return None
