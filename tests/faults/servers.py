"""A server of the tests' own: one that can be stopped at once, and whose disk can be full."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from harca import embedded

_SETTINGS = """
listen_addresses = ''
fsync = off
max_connections = 40
shared_buffers = '16MB'
autovacuum = off
"""
_PAGE = 4096


class OwnServer:
    """PostgreSQL with data in *folder*/postgres, reached by a socket in *sockets*."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        self.data, self.sockets = folder / "postgres", sockets
        self.url = make_conninfo("", host=str(sockets), user="postgres", dbname="postgres")

    @property
    def owner(self) -> os.stat_result:
        """Whose the data are, and so the server: never root."""
        return self.data.stat()

    def start(self) -> None:
        """Start it, and wait until it takes connections; it recovers first, if it crashed."""
        options = f"-k '{self.sockets}'"
        self._pg_ctl("-w", "-o", options, "-l", str(self.data / "log"), "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; ``immediate`` is a crash: nothing is written, no session is told."""
        self._pg_ctl("-w", "-m", mode, "stop")

    def _pg_ctl(self, *arguments: str) -> None:
        as_owner = {"user": self.owner.st_uid, "group": self.owner.st_gid}
        subprocess.run(
            [embedded.binary("pg_ctl"), "-D", self.data, *arguments],
            cwd="/",
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            timeout=60,
            **(as_owner if os.geteuid() == 0 else {}),  # type: ignore[call-overload]
        )


@contextmanager
def own_server(folder: Path) -> Iterator[OwnServer]:
    """Give a server of its own, with pgvector; its data stay in *folder*."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARCA_HOME", str(folder))
        embedded.start()  # which knows how to make one, as root too
        embedded.stop()
    with tempfile.TemporaryDirectory() as sockets:  # whose paths have to be short
        server = OwnServer(folder, Path(sockets))
        os.chown(sockets, server.owner.st_uid, server.owner.st_gid)
        with (server.data / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


class SmallDisk:
    """A disk that can be full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no page free."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (256 * _PAGE, _PAGE):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError:
                    continue

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(owner: os.stat_result, folder: Path, *, megabytes: int) -> Iterator[SmallDisk]:
    """Give a disk in memory, mounted at *folder*; skip where that is not allowed."""
    folder.mkdir(exist_ok=True)
    options = f"size={megabytes}m,mode=700,uid={owner.st_uid},gid={owner.st_gid}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
