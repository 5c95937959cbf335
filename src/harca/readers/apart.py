"""Libraries that a damaged file can crash, in a process of their own.

Lance's Rust code ends its process where a header asks for more memory than there is, and
writes to stderr where it panics; pyarrow trusts the offsets in Feather files of version 1.
So a child process reads for us, a piece at a time: nothing is lost with it but the piece.
"""

import atexit
import contextlib
import pickle
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_PATIENCE_S = 600.0


class Failed(Exception):
    """Why the child could not do what it was asked for."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of Lance's, as `open_table` found it.

    Attributes:
        schema: Its columns, as Arrow's IPC message.
        fragments: The parts that its rows are in.
    """

    version: int
    schema: bytes
    fragments: list["Fragment"]


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a table.

    Attributes:
        rows: How many are not deleted; None if that cannot be told.
        files: Its data files' names.
    """

    number: int
    rows: int | None
    files: list[str]


class Child:
    """The process, started when it is first needed, and again when it has ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = threading.Lock()

    def ask(self, question: Callable[..., Any], *about: Any) -> Any:
        """Return what *question*, a function of this module, returns in the child.

        Raises:
            Failed: It raised, or the child ended or said nothing for ten minutes.
        """
        with self._asked:
            process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                pickle.dump((question.__name__, about), process.stdin)
                process.stdin.flush()
                if not select.select([process.stdout], [], [], _PATIENCE_S)[0]:
                    process.kill()
                done, answer = pickle.load(process.stdout)  # noqa: S301  # our own child's
            except (EOFError, OSError, pickle.UnpicklingError):
                self._end(process)
                raise Failed("the library that reads it crashed on it") from None
            except BaseException:
                self._end(process)  # its answer would be taken for that to the next question
                raise
        if not done:
            raise Failed(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._end(self._process)

    def _start(self) -> "subprocess.Popen[bytes]":
        # As in `harca.ahead`: not forked, -P for the current folder, and Ctrl-C is ours.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from harca.readers.apart import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self._process

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        process.kill()
        process.wait()
        self._process = None


child = Child()
atexit.register(child.close)


def main() -> None:
    """Answer questions until there are no more: the child's whole life."""
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints is no answer
    known = {one.__name__: one for one in (open_table, take_rows, metric_of, feather_1)}
    while True:
        try:
            name, about = pickle.load(questions)  # noqa: S301  # our own parent's
        except EOFError:
            return
        try:
            answer = (True, known[name](*about))
        except BaseException as exc:  # a panic of Rust code is no `Exception`
            answer = (False, (str(exc).splitlines() or [type(exc).__name__])[0][:200])
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(answer, answers)
            answers.flush()


_latest: dict[str, Any] = {}  # the table that the child has been asked about last


def _table(path: str, version: int | None) -> Any:
    import lance

    found = _latest.get(path)
    if found is None or found.version != version:
        found = lance.dataset(path, version=version)
        _latest.clear()
        _latest[path] = found
    return found


def open_table(path: str) -> Table:
    """Return what the newest version of a table of Lance's holds."""
    table = _table(path, None)
    fragments = []
    for one in table.get_fragments():
        try:
            rows = one.count_rows()
        except BaseException:
            rows = None
        fragments.append(Fragment(one.fragment_id, rows, [file.path for file in one.data_files()]))
    return Table(table.version, table.schema.serialize().to_pybytes(), fragments)


def take_rows(path: str, version: int, fragment: int, first: int, rows: int) -> bytes:
    """Return rows of a fragment, those that are deleted not counted, as an Arrow stream.

    Taken by number: a scan is no faster, and reads ahead as far as it likes.
    """
    taken = _table(path, version).get_fragment(fragment).take(list(range(first, first + rows)))
    return _stream_of(taken)


def metric_of(path: str, version: int, column: str) -> str | None:
    """Return what a table's index on *column* compares by."""
    table = _table(path, version)
    for index in table.list_indices():
        if column in index["fields"]:
            stats = table.stats.index_stats(index["name"])
            return str(stats["indices"][0]["metric_type"]).lower()
    return None


def feather_1(path: str) -> bytes:
    """Return a Feather file of version 1 as an Arrow stream."""
    from pyarrow import feather  # type: ignore[import-untyped]  # it ships no types

    return _stream_of(feather.read_table(path))


def _stream_of(table: Any) -> bytes:
    import pyarrow as pa

    table.validate(full=True)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue().to_pybytes())
