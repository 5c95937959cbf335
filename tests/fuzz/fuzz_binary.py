"""Coverage-guided fuzzing of the parsers of binary files, with atheris; run by hand.

    pip install atheris
    python tests/fuzz/fuzz_binary.py TARGET [CORPUS] -max_total_time=300 -rss_limit_mb=1024

TARGET is one of the functions below, without its "fuzz_". An input may give records, `SourceError`
or `ValueError`; anything else stops the fuzzer, and so do more than the memory allowed and more
than a few seconds for one input. The tests in tests/contract/test_fuzz.py need no atheris and
cover every format.
"""

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["harca"]):
    from harca.errors import SourceError
    from harca.readers import msgpack
    from harca.readers.base import Defaults
    from harca.readers.faiss_file import open_index
    from harca.readers.hnsw_file import HnswFile
    from harca.readers.json_files import open_path as open_json
    from harca.readers.langchain_faiss import _CLASSES
    from harca.readers.numpy_files import open_path as open_numpy
    from harca.readers.pickles import plain, unpickle
    from harca.readers.sqlite import open_path as open_sqlite

_MOST = 20_000
_FOLDER = tempfile.TemporaryDirectory()
_FILE = Path(_FOLDER.name, "file")


def _file(data: bytes) -> Path:
    _FILE.write_bytes(data)
    return _FILE


def fuzz_faiss(data: bytes) -> None:
    """An index file of FAISS."""
    for _ in islice(open_index(_file(data)).vectors(), _MOST):
        pass


def fuzz_hnsw(data: bytes) -> None:
    """A single file of hnswlib."""
    index = HnswFile.open(_file(data))
    try:
        for label in islice(index.labels(), _MOST):
            index.vector(label)
    finally:
        index.close()


def fuzz_pickle(data: bytes) -> None:
    """A pickle of LangChain's document store."""
    plain(unpickle(data, _CLASSES))


def fuzz_msgpack(data: bytes) -> None:
    """A list of ids of txtai."""
    msgpack.unpack(data)


def fuzz_numpy(data: bytes) -> None:
    """A ``.npy`` or ``.npz``."""
    _read(open_numpy, b"\x93NUMPY" + data if data[:1] != b"P" else data)


def fuzz_sqlite(data: bytes) -> None:
    """A database of SQLite."""
    _read(open_sqlite, b"SQLite format 3\0" + data)


def fuzz_json(data: bytes) -> None:
    """JSON of any layout."""
    _read(open_json, data)


def _read(open_path: Callable[..., object], data: bytes) -> None:
    reader = open_path(_file(data), Defaults())
    if reader is not None:
        for _ in islice(reader.items(), _MOST):  # type: ignore[attr-defined]  # it is a Reader
            pass


def main() -> None:
    """Fuzz the target that is named."""
    name = sys.argv.pop(1)
    target: Callable[[bytes], None] = globals()[f"fuzz_{name}"]

    def one(data: bytes) -> None:
        with suppress(SourceError, ValueError):
            target(data)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
