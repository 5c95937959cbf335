"""A backup on disk: written in full or not at all, for its owner's eyes only, checked by digest.

backup.json       what was backed up, when and how, with size and SHA-256 of every other file
tables.dump       the tables as pg_dump writes them, or, without it,
NN-TABLE.copy     a table as COPY (FORMAT BINARY) writes it
store.sha256      the store's files with their digests, as ``sha256sum -c`` takes them
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from harca.errors import BackupUnusable, HarcaError, NoRoom

FORMAT = 1
CONTENTS = "backup.json"

_PARTIAL = ".partial-"
# EFBIG is what a limit on the size of a file says.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class SavedTable:
    """A table in a backup.

    Attributes:
        origin: Schema in which the application knows an old table of HARCA's, which may be
            kept in another one; None for a table of harca's own.
        columns: Those that are stored; generated ones are not.
        sequences: The last value handed out, by the column that takes it as a default.
        definition: Statements that make an old table anew; the first one makes the table.
    """

    schema: str
    name: str
    origin: str | None
    columns: list[str]
    rows: int
    fingerprint: str
    file: str
    sequences: dict[str, int] = field(default_factory=dict)
    definition: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The table, for people."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Contents:
    """What ``backup.json`` says.

    Attributes:
        database: Without a password.
        revision: Of the schema; None where it was not harca's yet.
        method: ``pg_dump`` or ``copy``.
        note: Why it is ``copy``.
        stores: Names of the stores in the tables.
        store: Path, number of files and bytes of the store that was to be loaded, and the
            files that could not be read.
    """

    made_at: str
    harca: str
    database: str
    server_version: str
    revision: str | None
    method: str
    program_version: str | None
    note: str
    tables: list[SavedTable]
    stores: list[str]
    store: dict[str, Any] | None
    format: int = FORMAT

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables)


class NewFolder:
    """A backup that is being written; *path* is its last place once it is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Give a new file, which only its owner can read; it is on disk afterwards."""
        descriptor = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # whatever the umask is
            yield file
            file.flush()
            os.fsync(descriptor)

    def seal(self, contents: Contents) -> None:
        """Write ``backup.json``, with the digests of the files that are there."""
        raw = asdict(contents)
        raw["files"] = [
            {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in sorted(self.path.iterdir())
        ]
        raw["sha256"] = _digest(raw)
        with self.create(CONTENTS) as file:
            file.write(json.dumps(raw, indent=2, ensure_ascii=False).encode() + b"\n")


@contextmanager
def new_folder(parent: Path, name: str) -> Iterator[NewFolder]:
    """Give a folder that gets its *name* in *parent* only when all of it is on disk.

    After an error nothing of it stays. What a killed process left there is removed.

    Raises:
        NoRoom: The disk is full, or a quota is used up.
        HarcaError: It cannot be written to.
    """
    with _in_our_words(parent):
        _make_private(parent)
        with _begun(parent, f"{_PARTIAL}{name}-{os.getpid()}") as partial:
            folder = NewFolder(partial)
            yield folder
            _sync(partial)
            folder.path = partial.rename(_free(parent / name))
            _sync(parent)


@contextmanager
def _begun(parent: Path, name: str) -> Iterator[Path]:
    """Give a folder that is locked as long as this process lives, and removed afterwards.

    The lock tells a backup that is being written from what a killed process has left.
    """
    partial = parent / name
    with _locked(parent):  # nobody takes a folder for dead that is not locked yet
        for path in parent.glob(f"{_PARTIAL}*"):
            # One that is just now finished, or given up, is gone before it can be looked at.
            with suppress(BlockingIOError, FileNotFoundError), _locked(path, wait=False):
                shutil.rmtree(path, ignore_errors=True)
        partial.mkdir(mode=0o700)
        partial.chmod(0o700)
        held = os.open(partial, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield partial
    finally:
        os.close(held)
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(held)


def _free(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _make_private(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        path.chmod(0o700)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _in_our_words(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in _NO_ROOM:
            raise NoRoom(str(folder), free=free_bytes(folder)) from exc
        raise HarcaError(
            f'a backup cannot be written to "{folder}": {exc.strerror or exc}',
            hint="Nothing was changed. Give another folder with --backup-dir.",
        ) from exc


def require_room(folder: Path, needed: int) -> None:
    """Refuse if the disk that *folder* is on, or will be, has not *needed* bytes.

    Raises:
        NoRoom: With the figures.
    """
    free = free_bytes(folder)
    if free < needed:
        raise NoRoom(str(folder), free=free, needed=needed)


def free_bytes(folder: Path) -> int:
    """Return how much room there is where *folder* is, or will be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(folder: Path) -> Contents:
    """Return what a backup holds, once every file of it is what it was when it was written.

    Raises:
        BackupUnusable: One is not, or there is no backup.
    """
    raw = _contents(folder)
    for file in raw["files"]:
        path = folder / Path(file["name"]).name
        try:
            size, found = path.stat().st_size, sha256(path)
        except OSError as exc:
            raise BackupUnusable(str(folder), path.name, exc.strerror or str(exc)) from exc
        if size != file["bytes"]:
            raise BackupUnusable(
                str(folder), path.name, f"has {size:,} bytes, expected {file['bytes']:,}"
            )
        if found != file["sha256"]:
            raise BackupUnusable(
                str(folder), path.name, f"has SHA-256 {found}, expected {file['sha256']}"
            )
    del raw["files"], raw["sha256"]
    raw["tables"] = [SavedTable(**table) for table in raw["tables"]]
    return Contents(**raw)


def _contents(folder: Path) -> dict[str, Any]:
    try:
        raw = json.loads((folder / CONTENTS).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as exc:
        missing = BackupUnusable(str(folder), CONTENTS, exc.strerror or str(exc))
        missing.hint = (
            "Nothing was changed. Give the folder of a backup, as `harca migrate` and "
            "`harca backup` have named it; docs/backup.md says where they are."
        )
        raise missing from exc
    except OSError as exc:
        raise BackupUnusable(str(folder), CONTENTS, exc.strerror or str(exc)) from exc
    except ValueError as exc:
        raise BackupUnusable(str(folder), CONTENTS, f"is damaged: {exc}") from exc
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else None
        raise BackupUnusable(
            str(folder), CONTENTS, f"has format version {found}, expected {FORMAT}"
        )
    if raw.get("sha256") != _digest(raw):
        raise BackupUnusable(str(folder), CONTENTS, "is not as it was written: its digest differs")
    return raw


def _digest(raw: dict[str, Any]) -> str:
    rest = {name: value for name, value in raw.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def name_of(made_at: datetime, database: str) -> str:
    """Return the name of a backup's folder."""
    plain = "".join(char if char.isalnum() or char in "-_." else "_" for char in database)
    return f"{made_at:%Y%m%dT%H%M%SZ}-{plain[:60]}"
