"""Files as they are met: unreadable, half written, Git LFS pointers, links to themselves."""

import errno
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from harca.errors import LfsPointer
from harca.model import Reason, Rejection

MAX_FILE_BYTES = 1 << 30  # what PostgreSQL takes as one value
SKIPPED_FOLDERS = frozenset({".git", ".harca", "node_modules"})

# Before what is being written is read again: the writer may need a moment, and may begin
# again just then.
_REREAD_PAUSES_S = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
_LFS_POINTER = b"version https://git-lfs"

_LONG_INTEGER = re.compile(rb"(?<![\d.])\d{19}")
# With every digit a 0, plain search says sooner than the pattern that there is none: in 1 us
# instead of 12 for a record without its vector, which itself parses in 1.
_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19


# ext4 empties a file first, and notes the time when that is done: an empty file with an old
# date can be one that is being written.
_EMPTY_REREADS = 4
_END_BYTES = 64  # with room for what a text editor leaves at an end


def printable(name: str) -> str:
    """Return a file name that PostgreSQL and a terminal can take, whatever its bytes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace").replace("\0", "\\0")


@dataclass(slots=True)
class FoundFile:
    """A file that was read, or why it could not be."""

    origin: str
    data: bytes = b""
    rejection: Rejection | None = None


def read_file(path: str, origin: str) -> FoundFile:
    """Read a whole file. Failures are values: one bad file must not stop a load.

    By file descriptor: a store is thousands of small files, and what `pathlib` and `io`
    do for each costs as much as the reading.
    """
    try:
        # Not blocking: opening a named pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return _unread(origin, Reason.UNREADABLE, "not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                return _unread(origin, Reason.TOO_LARGE, f"{status.st_size} bytes")
            return FoundFile(origin, _read_all(descriptor, status.st_size))
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        if Path(path).is_symlink():
            return _unread(origin, Reason.UNREADABLE, "a link to nothing")
        return _unread(origin, Reason.VANISHED, "was there when the folder was listed")
    except OSError as exc:
        reason = Reason.SYMLINK_LOOP if exc.errno == errno.ELOOP else Reason.UNREADABLE
        return _unread(origin, reason, exc.strerror or str(exc))


def _read_all(descriptor: int, size: int) -> bytes:
    # One byte more than expected, to see the end without another call.
    data = os.read(descriptor, size + 1)
    if len(data) == size:
        return data
    parts = [data]  # it is growing, or came in pieces
    while part := os.read(descriptor, 1 << 20):
        parts.append(part)
        if sum(map(len, parts)) > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, "the file grows while it is read")
    return b"".join(parts)


def _unread(origin: str, reason: Reason, detail: str) -> FoundFile:
    return FoundFile(origin, rejection=Rejection(origin, reason, detail))


def read_json(path: str, origin: str, parse: Callable[[bytes], Any]) -> tuple[FoundFile, Any]:
    """Read and parse a file; a file that is being rewritten is given time to be finished.

    HARCA writes in place, so that a reader can meet half a file. An old file that is cut
    short stays so: no use waiting.
    """
    for attempt in count():
        found = read_file(path, origin)
        if found.rejection is not None:
            return found, None
        try:
            return found, parse(found.data)
        except (ValueError, RecursionError) as exc:
            if found.data.startswith(_LFS_POINTER):
                found.rejection = Rejection(
                    origin,
                    Reason.LFS_POINTER,
                    "a Git LFS pointer, not the file (run `git lfs pull`)",
                    found.data,
                )
                return found, None
            found.rejection = Rejection(origin, Reason.UNPARSABLE, short(exc), found.data)
            if not given_time(path, attempt, is_empty=not found.data):
                return found, None
    raise AssertionError("unreachable")


def given_time(path: str, attempt: int, *, is_empty: bool = False) -> bool:
    """Pause if the file at *path* may just be about to be finished; return whether it may.

    Args:
        attempt: How often it was given time before.
        is_empty: There was nothing in it, as there is while a file is rewritten in place.
    """
    if attempt == len(_REREAD_PAUSES_S):
        return False
    if not (is_empty and attempt < _EMPTY_REREADS) and not _being_written(path):
        return False
    time.sleep(_REREAD_PAUSES_S[attempt])
    return True


def until_it_ends(path: str, ends: bytes) -> None:
    """Give a file that is being rewritten time until it ends with one of the bytes *ends*.

    For files that are read piece by piece, which cannot be begun again.
    """
    for attempt in count():
        end = _end(path).rstrip()
        if (end and end[-1] in ends) or not given_time(path, attempt, is_empty=not end):
            return


def _end(path: str) -> bytes:
    """Return the last bytes of a file; nothing if it cannot be read, which reading it will say."""
    try:
        with open_binary(Path(path)) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END_BYTES))
            return file.read()
    except OSError:
        return b""


def exact_json(data: bytes) -> Any:
    """Parse JSON without changing a value.

    orjson makes floats of integers over 64 bits, and refuses what JavaScript or Python
    can write: NaN, half a surrogate pair, a byte order mark. The standard parser takes
    them; what is wrong with them is told later.
    """
    if _LONG_NUMBER not in data.translate(_AS_ZEROS) or not _LONG_INTEGER.search(data):
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass
    return json.loads(data.decode("utf-8-sig"))


def _being_written(path: str) -> bool:
    """Say whether a file was written to in the last second."""
    try:
        return time.time() - os.stat(path).st_mtime < 1.0  # noqa: PTH116  # a str already
    except OSError:
        return False


def short(exc: BaseException) -> str:
    """Return what a parser said, in a line."""
    if isinstance(exc, RecursionError):
        return "nested too deeply"
    return (str(exc).splitlines() or [type(exc).__name__])[0][:200]


def as_payload(value: Any, whole: bytes) -> bytes:
    """Return an entry of a larger file as JSON bytes, for a rejection.

    An entry that is nested too deeply to be written again gives the *whole* file.
    """
    try:
        # The standard encoder: orjson would write NaN as null.
        # What is no JSON at all is told as text.
        return json.dumps(value, separators=(",", ":"), default=str).encode()
    except RecursionError:
        return whole


def head(path: Path, size: int = 16) -> bytes:
    """Return the first *size* bytes of a file; nothing if it cannot be read or is no file.

    Raises:
        LfsPointer: Git LFS left a pointer in place of the file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        start = os.read(descriptor, max(size, len(_LFS_POINTER)))
    finally:
        os.close(descriptor)
    if start.startswith(_LFS_POINTER):
        raise LfsPointer(printable(str(path)))
    return start[:size]


def is_lfs_pointer(path: Path) -> bool:
    """Say whether Git LFS left a pointer in place of the file at *path*."""
    try:
        head(path)
    except LfsPointer:
        return True
    return False


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading; never waits, as opening a named pipe would.

    Raises:
        OSError: It cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return os.fdopen(descriptor, "rb")


def size_of(path: Path) -> int:
    """Return a file's size; 0 if it is gone, which reading it will say."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield *root* and each folder below it with the names of its files, both sorted.

    Links to folders are followed once. A file has no folders.

    Raises:
        OSError: A folder cannot be listed: what is in it would be missing without a word.
    """
    if not root.is_dir():
        return
    visited = set()
    for folder, inner, names in os.walk(root, onerror=_raise, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in visited:
            inner.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        inner[:] = sorted(set(inner) - SKIPPED_FOLDERS)
        yield Path(folder), sorted(names)


def files_at(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files below a folder whose names end so, or the one file that is given.

    Raises:
        LfsPointer: Git LFS left a pointer in place of that file.
        OSError: A folder cannot be listed.
    """
    if path.is_dir():
        found = (folder / name for folder, names in walk(path) for name in names)
        return [file for file in found if file.name.lower().endswith(suffixes)]
    return [path] if head(path, 1) else []


def _raise(exc: OSError) -> None:
    raise exc


def origin_of(path: Path, root: Path) -> str:
    """Return where a file lies in the store at *root*, for messages and keys."""
    base = root if root.is_dir() else root.parent
    return printable(os.path.relpath(path, base))
