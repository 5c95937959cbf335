"""Stores that are packed or lie elsewhere, brought into a local folder first.

Readers know files and folders. An archive is unpacked, and a URL fetched, into a temporary
folder that is gone afterwards. Both are strangers' data: nothing is written outside that
folder, and no more than the disk has room for.
"""

import bz2
import gzip
import importlib
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import dropwhile
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from harca.errors import LfsPointer, MissingLibrary, SourceError, StoreNotFound
from harca.readers.files import head, open_binary, printable
from harca.redact import without_login

_URL = re.compile(r"[a-z][a-z0-9+.\-]+://", re.I)
_URL_IN_TEXT = re.compile(r"[a-z][a-z0-9+.\-]+://[^\s'\"<>)]+", re.I)
_LIBRARIES = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "http": ("aiohttp", "remote"),
    "https": ("aiohttp", "remote"),
}

_CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_ZSTD_STEP = 2 << 10  # which can become 64 MB: a block of 128 KB takes 4 bytes at least
_MOST_LAYERS = 3  # items.jsonl.gz in a .tar.gz in a .zip
_SMALL_BYTES = 1 << 30
_MOST_RATIO = 200  # of texts and vectors, 20 would be much; zeros give 1,000 and more
_ROOM_LEFT_BYTES = 64 << 20
_ENTRIES_LEFT = 10_000
_ENTRY_BYTES = 4 << 10  # a block of the usual file systems
_NO_PART_OF_IT = frozenset({"__MACOSX", ".DS_Store"})

_STREAMS = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\xfd7zXZ\0": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
}
_ARCHIVES = (".tar", ".zip", ".tgz", *_STREAMS.values())
_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
# Members by which a ZIP file is told to be a document, a program or a model.
_DOCUMENTS = ("[Content_Types].xml", "mimetype", "META-INF/MANIFEST.MF", "AndroidManifest.xml")
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError,
    RuntimeError, NotImplementedError, ValueError,
)  # fmt: skip


def is_url(path: str) -> bool:
    """Say whether *path* is a URL and no path of the file system."""
    return _URL.match(path) is not None


def shown(path: str) -> str:
    """Return *path* for messages: of a URL, without user, password and query."""
    if not is_url(path):
        return printable(path)
    return without_login(path)


def _is_of_a_file(path: str) -> bool:
    return path[:7].lower() == "file://"


def _path(path: str) -> Path:
    """Return the path that is given, as such or in a URL of a file."""
    return Path(url2pathname(urlsplit(path).path) if _is_of_a_file(path) else path)


@contextmanager
def staged(path: str) -> Iterator[Path]:
    """Give a store as a local file or folder; what was made for that is removed afterwards.

    A plain path is given as it is. Archives (tar, also compressed, and ZIP) give the folder
    that they hold, or the file if they hold but one; compressed files give what is in them.
    What a file is, is told by its content: a ``.docx`` or an ``.npz`` is no archive here.

    Args:
        path: A path, or a URL that fsspec can read: ``s3://``, ``gs://``, ``https://``, ...

    Raises:
        StoreNotFound: There is nothing at the URL.
        SourceError: It cannot be fetched or unpacked, or should not be.
        MissingLibrary: fsspec, its adapter, or zstandard is not installed.
        LfsPointer: Git LFS left a pointer in place of the file.
    """
    with ExitStack() as stack:
        local = Path(path)
        if is_url(path):
            local = _fetched(path, stack)
        packed = 0
        for _ in range(_MOST_LAYERS):
            kind = _packed_as(local)
            if kind is None:
                break
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="harca-")))
            # Of the outermost: else each layer could be as many times as large as the one before.
            packed = packed or local.stat().st_size
            local = _unpacked(local, kind, folder, packed)
        try:
            yield local
        except SourceError as exc:
            # Nobody knows the temporary folder.
            exc.args = (str(exc).replace(str(local), shown(path)),)
            raise


def address(path: str) -> str:
    """Return where a store is, for the ledger and as its name: absolute, and nothing secret.

    One store has one name, or it would be loaded twice: of a file, a URL is as good as its path.
    """
    if is_url(path) and not _is_of_a_file(path):
        return shown(path)
    return printable(str(_path(path).resolve()))


def archives_in(folder: Path) -> list[str]:
    """Return the names of the archives in *folder*, which readers pass by.

    They are not unpacked: which of them is meant, the operator has to say.
    """
    if not folder.is_dir():
        return []
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.name.lower().endswith(_ARCHIVES) and entry.is_file():
            with suppress(LfsPointer, SourceError):
                if _packed_as(entry) is not None:
                    found.append(printable(entry.name))
    return found


class _Budget:
    """Counts what is written, and stops when it is too much."""

    def __init__(self, what: str, folder: Path, packed: int | None = None) -> None:
        self._what, self._packed = what, packed
        disk = os.statvfs(folder)
        self._room = disk.f_bavail * disk.f_frsize - _ROOM_LEFT_BYTES
        self._entries = disk.f_favail if disk.f_files else None  # some file systems do not say
        self._most = None if packed is None else max(_SMALL_BYTES, _MOST_RATIO * packed)
        self._spent = 0

    def spend_entry(self) -> None:
        """Count a file or a folder, which takes a place on the disk even if it is empty."""
        self._room -= _ENTRY_BYTES
        if self._entries is not None:
            self._entries -= 1
            if self._entries < _ENTRIES_LEFT:
                raise SourceError(
                    f'"{self._what}" does not fit on the disk: it has no place for as many files',
                    hint="Let TMPDIR name a folder on another disk.",
                )
        self.spend(0)

    def spend(self, size: int) -> None:
        self._spent += size
        if self._most is not None and self._spent > self._most:
            raise SourceError(
                f'"{self._what}" has {self._packed} bytes and gives more than {self._most}, '
                f"expected no more than {_MOST_RATIO} times as many",
                hint="It may be made to fill the disk. If it is meant so, unpack it first and "
                "give the folder.",
            )
        if self._spent > self._room:
            raise SourceError(
                f'"{self._what}" does not fit on the disk: {self._room} bytes are free for it',
                hint="Let TMPDIR name a folder on a larger disk.",
            )


# Archives


def _packed_as(file: Path) -> str | None:
    """Return how a file is packed: ``.tar``, ``.zip``, ``.gz`` and so on; None if it is not."""
    start = head(file, _BLOCK)
    for magic, kind in _STREAMS.items():
        if start.startswith(magic):
            return kind
    if start.startswith((_ZIP, _EMPTY_ZIP)):
        return ".zip" if _is_archive(file) else None
    return ".tar" if _is_tar(start) else None


def _is_tar(start: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(start[:_BLOCK], tarfile.ENCODING, "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


def _is_archive(file: Path) -> bool:
    """Say whether a ZIP file is an archive, and no document, program, model or ``.npz``."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except _DAMAGE as exc:
        if file.suffix.lower() != ".zip":
            return False
        raise _damaged(file, exc) from exc
    if any(name in _DOCUMENTS for name in names) or any(
        name.endswith("/data.pkl") and f"{name.removesuffix('data.pkl')}version" in names
        for name in names  # PyTorch
    ):
        return False
    return not names or not all(name.endswith(".npy") for name in names)


def _unpacked(file: Path, kind: str, folder: Path, packed: int) -> Path:
    """Unpack *file* into the empty *folder*, and return the store in it.

    Args:
        packed: The size of what came packed, maybe around *file*.
    """
    budget = _Budget(printable(str(file)), folder, packed)
    try:
        if kind == ".zip":
            _unzip(file, folder, budget)
        else:
            with open_binary(file) as source:
                stream = _Ahead(source if kind == ".tar" else _decompressing(source, kind), budget)
                if _is_tar(stream.start):
                    _untar(file, stream, folder, budget)
                else:
                    name = file.name.removesuffix(kind) if file.suffix == kind else file.name
                    with (folder / name).open("xb") as target:
                        while part := stream.read(_CHUNK):
                            target.write(part)
    except SourceError:
        raise
    except _DAMAGE as exc:
        raise _damaged(file, exc) from exc
    except Exception as exc:
        if type(exc).__name__ != "ZstdError":  # its module may be missing
            raise
        raise _damaged(file, exc) from exc
    return _top(folder)


def _top(folder: Path) -> Path:
    entries = [
        entry
        for entry in folder.iterdir()
        if entry.name not in _NO_PART_OF_IT and not entry.name.startswith("._")
    ]
    if len(entries) != 1 or entries[0].is_symlink():
        return folder
    return entries[0]


def _damaged(file: Path, found: Exception) -> SourceError:
    detail = str(found).splitlines()[0][:200] if str(found) else type(found).__name__
    return SourceError(
        f'"{printable(str(file))}" cannot be unpacked: {detail}',
        hint="It is cut short or damaged. Copy it again, or unpack by hand what is whole in it.",
    )


class _Ahead:
    """A stream whose first block is known, its length counted, and its end remembered."""

    def __init__(self, stream: Any, budget: _Budget) -> None:
        self._stream, self._budget = stream, budget
        self.start = b""
        while len(self.start) < _BLOCK and (part := stream.read(_BLOCK - len(self.start))):
            self.start += part
        self._left = self.start
        self.end = b""

    def read(self, size: int) -> bytes:
        """Return up to *size* bytes."""
        if self._left:
            part, self._left = self._left[:size], self._left[size:]
        else:
            part = bytes(self._stream.read(size))
        self._budget.spend(len(part))
        self.end = (self.end + part)[-2 * _BLOCK :]
        return part


def _decompressing(file: BinaryIO, kind: str) -> Any:
    if kind == ".gz":
        return gzip.GzipFile(fileobj=file)
    if kind == ".bz2":
        return bz2.BZ2File(file)
    if kind == ".xz":
        return lzma.LZMAFile(file)
    return _Zstd(file)


class _Zstd:
    """Reads what zstd has compressed; unlike zstandard's own reader, notices a missing end."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            self._zstd = importlib.import_module("zstandard")
        except ImportError as exc:
            raise MissingLibrary("zstd-compressed", library="zstandard", extra="zstd") from exc
        self._file = file
        self._frame: Any = None  # None between frames
        self._packed = b""
        self._data = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return up to *size* bytes."""
        while not self._data:
            packed = self._packed or self._file.read(_ZSTD_STEP)
            if not packed:
                if self._frame is not None:
                    raise EOFError("the compressed data end early")
                return b""
            if self._frame is None:
                self._frame = self._zstd.ZstdDecompressor().decompressobj()
            self._data, self._packed = memoryview(self._frame.decompress(packed)), b""
            if self._frame.eof:
                self._packed, self._frame = self._frame.unused_data, None
        part, self._data = self._data[:size], self._data[size:]
        return bytes(part)


def _untar(file: Path, stream: _Ahead, folder: Path, budget: _Budget) -> None:
    # As a stream, so that it can be compressed in any way, and its whole length is read.
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            if member.name.startswith("/") or PureWindowsPath(member.name).drive:
                raise _unsafe(file, member.name, "an absolute path")
            if why := _way_out(member, folder):
                raise _unsafe(file, member.name, why)
            budget.spend_entry()
            try:
                archive.extract(member, folder, filter="data")
            except tarfile.FilterError as exc:
                raise _unsafe(file, member.name, _why(exc)) from exc
    while stream.read(_CHUNK):
        pass
    if any(stream.end) or len(stream.end) < 2 * _BLOCK:
        raise ValueError("the archive ends early")  # two blocks of zeros stand at the end


def _way_out(member: tarfile.TarInfo, folder: Path) -> str | None:
    """Return how a member could be used to get out of *folder*, now or by a later one.

    Python's own filter follows links to see where they lead, and could be led astray by long
    paths (CVE-2025-4517, in 3.11 before 3.11.13). So nothing is written through a link here, and
    a link leads up first and then down: then it ends where its text says.
    """
    if _has_link(folder, PurePosixPath(member.name)):
        return "a path through a link"
    target = PurePosixPath(member.linkname)
    if member.islnk() and (".." in target.parts or _has_link(folder, target)):
        return "a link that leads out" if ".." in target.parts else "a hard link to a link"
    if member.issym():
        down = list(dropwhile(lambda part: part == "..", target.parts))
        if ".." in down:
            return "a link that leads up again"
    return None


def _has_link(folder: Path, path: PurePosixPath) -> bool:
    """Say whether any part of a path in *folder* is a link, its end included."""
    return any((folder / part).is_symlink() for part in [path, *path.parents])


def _why(found: tarfile.FilterError) -> str:
    return {
        tarfile.OutsideDestinationError: "a path that leads out",
        tarfile.AbsoluteLinkError: "a link to an absolute path",
        tarfile.LinkOutsideDestinationError: "a link that leads out",
        tarfile.SpecialFileError: "a device or a pipe",
    }.get(type(found), "not allowed")


def _unsafe(file: Path, member: str, why: str) -> SourceError:
    return SourceError(
        f'"{printable(str(file))}" has a member "{printable(member)[:200]}", which is {why}',
        hint="Nothing is unpacked outside a folder of its own. Is this archive from a source that "
        "you trust?",
    )


def _unzip(file: Path, folder: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            windows = PureWindowsPath(member.filename)
            mode = member.external_attr >> 16
            if path.is_absolute() or windows.drive or windows.root:
                raise _unsafe(file, member.filename, "an absolute path")
            if ".." in path.parts or ".." in windows.parts:
                raise _unsafe(file, member.filename, "a path that leads out")
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _unsafe(file, member.filename, "a link, a device or a pipe")
            if member.flag_bits & 1:
                raise SourceError(
                    f'"{printable(str(file))}" is encrypted',
                    hint="Unpack it with its password first, and give the folder.",
                )
            budget.spend(_BLOCK)
            budget.spend_entry()
            target = folder / path
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as unpacked:
                while part := source.read(_CHUNK):
                    budget.spend(len(part))
                    unpacked.write(part)


# Remote stores


def _fetched(url: str, stack: ExitStack) -> Path:
    """Return what is at *url* as a local file or folder."""
    protocol = url.partition("://")[0].lower()
    if _is_of_a_file(url):
        return _path(url)
    name, extra = _LIBRARIES.get(protocol, (f"fsspec's adapter for {protocol}://", "remote"))
    try:
        fsspec = importlib.import_module("fsspec")
    except ImportError as exc:
        raise MissingLibrary(f"{protocol}://", library="fsspec", extra=extra) from exc
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="harca-")))
    try:
        system, path = fsspec.core.url_to_fs(url)
        return _copied(fsspec, system, path, folder, shown(url))
    except SourceError:
        raise
    except ImportError as exc:
        raise MissingLibrary(f"{protocol}://", library=name, extra=extra) from exc
    except FileNotFoundError as exc:
        raise StoreNotFound(shown(url)) from exc
    except Exception as exc:
        # What an adapter raises is its own affair; it can have the URL with its password in it.
        said = _URL_IN_TEXT.sub(lambda found: shown(found[0]), str(exc)).splitlines()
        raise SourceError(
            f'"{shown(url)}" cannot be fetched: {type(exc).__name__}'
            + (f": {said[0][:200]}" if said else ""),
            hint="Is the address right, and do the credentials in the environment allow it?",
        ) from exc


def _copied(fsspec: Any, system: Any, path: str, folder: Path, what: str) -> Path:
    budget = _Budget(what, folder)

    class Counting(fsspec.callbacks.Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            budget.spend(inc)

    name = PurePosixPath(urlsplit(path).path).name
    top = folder / ("store" if name in ("", "..") else printable(name))
    # A web server has no folders, but pages with links.
    is_web = path.startswith(("http://", "https://"))
    is_folder = urlsplit(path).path.endswith("/") if is_web else system.isdir(path)
    if not is_folder:
        system.get_file(path, str(top), callback=Counting())
        return top
    root = path.rstrip("/") + "/"
    top.mkdir()
    for found in sorted(system.find(path)):
        inner = PurePosixPath(urlsplit(found.removeprefix(root)).path if is_web else
                              found.removeprefix(root))  # fmt: skip
        if inner.is_absolute() or ".." in inner.parts or not inner.parts:
            raise SourceError(
                f'"{what}" lists "{printable(shown(found))}", which is not below it',
                hint="Fetch the store by hand, and give the folder.",
            )
        target = top / inner
        target.parent.mkdir(parents=True, exist_ok=True)
        budget.spend_entry()
        system.get_file(found, str(target), callback=Counting())
    if not any(top.iterdir()):
        raise FileNotFoundError(what)
    return top
