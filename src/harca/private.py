"""Files and folders that hold people's texts, for their owner alone, whatever the umask says."""

import os
from pathlib import Path
from typing import BinaryIO

_FOLDER = 0o700
_FILE = 0o600


def make_folder(folder: Path, *, enter: bool = False) -> None:
    """Make *folder* and those around it; one that is there already is left as it is.

    Args:
        enter: Others may pass through it to what they may read in it, and see nothing else.
    """
    try:
        folder.mkdir(_FOLDER, parents=True)
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        folder.chmod(_FOLDER | (0o011 if enter else 0))


def create(path: Path) -> BinaryIO:
    """Open a new file for writing.

    Raises:
        FileExistsError: It is there already.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE)
    os.fchmod(file, _FILE)  # of which the umask may have taken away
    return os.fdopen(file, "wb")


def close_to_others(folder: Path) -> None:
    """Take away the rights of others on all that is in *folder*, which only its owner enters."""
    for path in folder.rglob("*"):
        path.chmod(_FOLDER if path.is_dir() else _FILE)
