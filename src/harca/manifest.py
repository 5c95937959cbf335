"""Which files a store has, how large they are and when they were written: cheap to compare."""

import os
from array import array
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep, time_ns

import numpy as np
from numpy.typing import NDArray

from harca.errors import counted
from harca.readers.files import SKIPPED_FOLDERS

# What SQLite keeps beside its file until it has a place there.
_BESIDE = ("", "-wal", "-journal")
_SHARED_MEMORY = "-shm"  # readers write to it too

# Systems note the time of a write in steps of up to 10 ms: of two writes in one step, the
# second cannot be told by its time.
_STEP_S = 0.02


@dataclass(frozen=True, slots=True)
class Changes:
    """How many files were written, or are new, and how many are gone."""

    written: int
    gone: int

    def __bool__(self) -> bool:
        return bool(self.written or self.gone)

    def __str__(self) -> str:
        gone = f", {self.gone:,} gone" if self.gone else ""
        return f"{counted(self.written, 'file')} written meanwhile{gone}"


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """The files at a path, as they were at one moment.

    Holds 16 bytes a file: 64-bit hashes of the paths, and of paths with sizes and times.
    """

    root: Path
    _paths: NDArray[np.int64]
    _states: NDArray[np.int64]

    @classmethod
    def of(cls, root: Path) -> "Manifest":
        """List what is at *root*, so that everything written from now on can be told."""
        paths, states, latest = _listed(root)
        if latest > time_ns() - _STEP_S * 1e9:
            sleep(_STEP_S)
            paths, states, _ = _listed(root)
        return cls(root, paths, states)

    def changes(self, *, ignored: Collection[str] = ()) -> Changes:
        """Return what has changed since.

        Args:
            ignored: Names of files that may be written to without a record in them.
        """
        paths, states, _ = _listed(self.root, ignored)
        return Changes(
            len(np.setdiff1d(states, self._states)), len(np.setdiff1d(self._paths, paths))
        )


def _listed(
    root: Path, ignored: Collection[str] = ()
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return the hashes of paths, those of states, and when the latest file was written."""
    paths, states, latest = array("q"), array("q"), 0
    for found in _files(root):
        path, _, written = found
        paths.append(hash(path))
        if path.rpartition(os.sep)[2] not in ignored:
            states.append(hash(found))
        latest = max(latest, written)
    return np.array(paths, dtype=np.int64), np.array(states, dtype=np.int64), latest


def _files(root: Path) -> Iterator[tuple[str, int, int]]:
    """Yield path, size and time of the last write of each file.

    What cannot be seen is passed over: reading the store says what is wrong with it.
    """
    if root.is_dir():
        paths = _paths_below(str(root))
    else:
        paths = iter([f"{root}{suffix}" for suffix in _BESIDE])
    for path in paths:
        with suppress(OSError):
            status = os.stat(path)  # noqa: PTH116  # a str
            yield path, status.st_size, status.st_mtime_ns


def _paths_below(root: str) -> Iterator[str]:
    pending, visited = [root], set()
    while pending:
        folder = pending.pop()
        with suppress(OSError):
            status = os.stat(folder)  # noqa: PTH116  # a str
            identity = status.st_dev, status.st_ino
            if identity in visited:
                continue
            visited.add(identity)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _is_dir(entry):
                        if entry.name not in SKIPPED_FOLDERS:
                            pending.append(entry.path)
                    elif not entry.name.endswith(_SHARED_MEMORY):
                        yield entry.path


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself
