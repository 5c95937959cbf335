"""SQLite files of others, read without a trace.

Opening a database the usual way can write beside it: a shared-memory file for its
write-ahead log, or the pages of a transaction that a crash left unfinished. A store is never
written to, so what cannot be read as it lies is read from a copy.

Facts: SQLite's "Database File Format" (header, bytes 18 and 19), "Write-Ahead Logging" and
"URI Filenames"; ``readonly_shm`` is in its ``os_unix.c``.
"""

import os
import shutil
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from harca.errors import SourceError
from harca.readers.files import head, printable

_MAGIC = b"SQLite format 3\0"
_WAL_MODE = b"\2\2"

DAMAGE = (sqlite3.Error, UnicodeError)
"""What reading a damaged database ends in; the latter if a name in it is no UTF-8."""


def is_sqlite(path: Path) -> bool:
    """Say whether the file at *path* begins as a SQLite database does.

    Raises:
        LfsPointer: Git LFS left a pointer in place of the file.
    """
    return head(path, len(_MAGIC)) == _MAGIC


def connect(path: Path) -> sqlite3.Connection:
    """Open the database at *path* for reading; nothing is written beside it.

    Text that is no UTF-8 comes with lone surrogates in it, so that one such record is
    rejected instead of ending the whole query. What is wrong further inside shows when it
    is read: as one of `DAMAGE`, of which `refusal` makes an error of ours.

    Raises:
        LfsPointer: Git LFS left a pointer in place of the file.
        SourceError: It is no SQLite database, or cannot be read.
    """
    # SQLite looks for the log beside the file that a link leads to.
    real = Path(os.path.realpath(path))
    start = head(real, 20)
    if not start.startswith(_MAGIC):
        raise SourceError(
            f'"{printable(str(path))}" is no SQLite database',
            hint="An encrypted database has to be decrypted first.",
        )
    _require_whole_pages(path, real, start)
    log, shared = _beside(real, "-wal"), _beside(real, "-shm")
    try:
        if _size(log):
            if not shared.exists():
                return _open_copy(real)
            try:
                return _open(real, "mode=ro&readonly_shm=1")
            except sqlite3.OperationalError:
                return _open_copy(real)
        if start[18:20] == _WAL_MODE:
            return _open(real, "immutable=1")
        if not _size(_beside(real, "-journal")):
            return _open(real, "mode=ro")
        try:
            return _open(real, "mode=ro")  # a journal of a program that is at work
        except sqlite3.OperationalError:
            return _open_copy(real)  # one that a crash left behind
    except DAMAGE as exc:
        raise refusal(path, exc) from exc


def _require_whole_pages(path: Path, real: Path, start: bytes) -> None:
    """Refuse a file that is cut short within a page: SQLite would read zeros in its place."""
    page = int.from_bytes(start[16:18])
    page = 1 << 16 if page == 1 else page
    beyond = page >= 512 and _size(real) % page
    if beyond and not _size(_beside(real, "-wal")) and not _size(_beside(real, "-journal")):
        raise SourceError(
            f'"{printable(str(path))}" is cut short: {_size(real)} bytes are no whole number of '
            f"pages of {page}",
            hint="Copy it again, or restore it from a backup.",
        )


def refusal(path: Path, found: Exception) -> SourceError:
    """Return the error that says what SQLite found wrong with the database at *path*."""
    return SourceError(
        f'"{printable(str(path))}" cannot be read as a SQLite database: {found}',
        hint="Copy it again, with its -wal file if it has one, or restore it from a backup.",
    )


class _Connection(sqlite3.Connection):
    """A connection that may have a copy of its own, which goes when it is closed."""

    copy: TemporaryDirectory[str] | None = None

    def close(self) -> None:
        """Close it, and remove the copy."""
        super().close()
        if self.copy is not None:
            self.copy.cleanup()


def _open(path: Path, how: str) -> _Connection:
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?{how}",
        uri=True,
        factory=_Connection,
        isolation_level=None,
        check_same_thread=False,  # a reader is begun in one thread and may be closed in another
    )
    try:
        connection.text_factory = _text
        # The schema is a stranger's: no function with effects from a view, and no trust in
        # what a page says about itself.
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _open_copy(path: Path) -> _Connection:
    folder = TemporaryDirectory(prefix="harca-")
    try:
        copy = Path(folder.name) / "copy"
        for suffix in ("", "-wal", "-journal"):
            if suffix == "" or _size(_beside(path, suffix)):
                shutil.copyfile(_beside(path, suffix), _beside(copy, suffix))
        connection = _open(copy, "mode=rw")
    except BaseException:
        folder.cleanup()
        raise
    connection.copy = folder
    return connection


def _text(data: bytes) -> Any:
    return data.decode("utf-8", "surrogateescape")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
