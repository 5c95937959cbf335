"""Put the page where it is wanted: whole or not at all, and never over something else."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from harca.errors import HarcaError, Refused, UsageError
from harca.options import check_folder
from harca.report.page import GENERATOR

_LOOKED_AT = 4_096
_MARK = f'<meta name="generator" content="{GENERATOR}">'
_READABLE = 0o666  # as the umask leaves it: a report is made to be shown


def check(path: Path, *, force: bool = False) -> None:
    """Refuse a place where the page cannot, or should not, be written; before work is done.

    Raises:
        UsageError: There is no such folder, or it is one.
        Refused: A file is there that is no report of harca, and *force* is not given.
    """
    check_folder(path)
    if path.is_dir():
        raise UsageError(
            f'"{path}" is a folder', hint="Give the name of a file, such as harca-report.html."
        )
    if not path.parent.is_dir():
        raise UsageError(f'no folder "{path.parent}"', hint="Make it first, or name another file.")
    if path.exists() and not force and not _is_report(path):
        raise Refused(
            f'"{path}" is there already, and is no report of harca',
            hint="Nothing was changed. Name another file with --output, or give --force.",
        )


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with suppress(OSError), path.open("rb") as file:
        return _MARK.encode() in file.read(_LOOKED_AT)
    return False


def write(path: Path, text: str) -> int:
    """Write *text*, in place of what is there, if anything; return its bytes.

    Raises:
        HarcaError: It cannot be written; what was there is as it was.
    """
    content = text.encode("utf-8")
    place = path.resolve()  # a link stays one
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), _allowed(place))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(place)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise HarcaError(
            f'cannot write to "{path}": {exc.strerror or exc}',
            hint="What was there is as it was. Is there room, and may this user write there?",
        ) from exc
    return len(content)


def _allowed(place: Path) -> int:
    """Return the rights that the file is to have: those it had, else those of any new file."""
    if place.exists():
        return place.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return _READABLE & ~mask
