"""What a store's files are, byte by byte, in the form that ``sha256sum -c`` takes."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from harca.backup_folder import sha256

_UNREADABLE_LISTED = 20


@dataclass(slots=True)
class StoreDigests:
    """How much was digested.

    Attributes:
        unreadable: The first files that could not be read, with why; *failed* counts all.
    """

    path: str
    files: int = 0
    bytes: int = 0
    failed: int = 0
    unreadable: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as ``backup.json`` has them."""
        return {name: getattr(self, name) for name in self.__slots__}


def write(store: Path, file: BinaryIO, *, shown: str) -> StoreDigests:
    """Write a line for every file of *store*; links to folders are not followed.

    A file that cannot be read, as one that its program has just removed, is counted.

    Args:
        shown: What the operator called the store.
    """
    found = StoreDigests(shown)
    base = store if store.is_dir() else store.parent
    for path in _files(store):
        name = os.fsencode(path.relative_to(base))
        try:
            digest, size = sha256(path), path.stat().st_size
        except OSError as exc:
            found.failed += 1
            if len(found.unreadable) < _UNREADABLE_LISTED:
                printable = name.decode("utf-8", "backslashreplace")
                found.unreadable.append(f"{printable}: {exc.strerror}")
            continue
        found.files += 1
        found.bytes += size
        file.write(_line(digest, name))
    return found


def _files(store: Path) -> Iterator[Path]:
    if not store.is_dir():
        yield store
        return
    for folder, folders, names in os.walk(store):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() or not path.exists():  # neither pipes nor devices
                yield path


def _line(digest: str, name: bytes) -> bytes:
    # As GNU coreutils escape what would end the line.
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != name else b""
    return mark + digest.encode() + b"  " + escaped + b"\n"
