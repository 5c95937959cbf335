"""Writes SQLite databases with vectors, those of sqlite-vec with the real extension."""

import ctypes
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import sqlite_vec  # type: ignore[import-untyped]


def f32(*numbers: float) -> bytes:
    """Return numbers as little-endian float32."""
    return struct.pack(f"<{len(numbers)}f", *numbers)


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for writing; what was written is committed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        yield connection
        connection.commit()


@contextmanager
def with_vec0(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database with sqlite-vec loaded."""
    with database(path) as connection:
        if hasattr(connection, "enable_load_extension"):
            connection.enable_load_extension(True)
            sqlite_vec.load(connection)
            yield connection
            return
    # A Python that was built without loading of extensions: SQLite itself can still do it.
    import _sqlite3

    library = ctypes.CDLL(_sqlite3.__file__)
    extension = ctypes.CDLL(f"{sqlite_vec.loadable_path()}.so")
    start = ctypes.cast(extension.sqlite3_vec_init, ctypes.c_void_p)
    library.sqlite3_auto_extension(start)
    try:
        with database(path) as connection:
            yield connection
    finally:
        library.sqlite3_cancel_auto_extension(start)


def sqlite_blobs(folder: Path, entries: Sequence[tuple[str, list[float]]]) -> Path:
    """Write a table with the vectors as BLOBs."""
    path = folder / "embeddings.db"
    with database(path) as connection:
        connection.execute(
            "CREATE TABLE embeddings (id INTEGER PRIMARY KEY, source TEXT, content TEXT,"
            " embedding BLOB)"
        )
        connection.executemany(
            "INSERT INTO embeddings (source, content, embedding) VALUES ('a', ?, ?)",
            [(text, f32(*vector)) for text, vector in entries],
        )
    return path


def sqlite_vec_alone(folder: Path, entries: Sequence[tuple[str, list[float]]]) -> Path:
    """Write a virtual table that has the texts in an auxiliary column."""
    path = folder / "vec.db"
    with with_vec0(path) as connection:
        connection.execute(
            f"CREATE VIRTUAL TABLE items USING vec0(embedding float[{len(entries[0][1])}],"
            " +contents text, chunk_size=8)"
        )
        connection.executemany(
            "INSERT INTO items (contents, embedding) VALUES (?, ?)",
            [(text, f32(*vector)) for text, vector in entries],
        )
    return path


def sqlite_vec_joined(folder: Path, entries: Sequence[tuple[str, list[float]]]) -> Path:
    """Write a table with the texts, and a virtual one with the vectors."""
    path = folder / "vec.db"
    with with_vec0(path) as connection:
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, content TEXT)")
        connection.execute(
            f"CREATE VIRTUAL TABLE vec_note USING vec0(v float[{len(entries[0][1])}], chunk_size=8)"
        )
        for number, (text, vector) in enumerate(entries, start=1):
            connection.execute("INSERT INTO notes VALUES (?, ?)", [number, text])
            connection.execute(
                "INSERT INTO vec_note (rowid, v) VALUES (?, ?)", [number, f32(*vector)]
            )
    return path


def sqlite_empty(folder: Path) -> Path:
    """Write a database whose only table has no rows."""
    path = folder / "empty.db"
    with database(path) as connection:
        connection.execute("CREATE TABLE embeddings (id INTEGER PRIMARY KEY, embedding BLOB)")
    return path
