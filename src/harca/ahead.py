"""Read a large store in a process of its own, ahead of the one that writes.

Parsing keeps one core busy, and so do framing, sending and the server; in one process the
first two take turns. A child process reads, checks and batches, and sends the batches
through a pipe, which stops it when it is too far ahead: memory is a batch on either side.
Order, batches and outcome are the same as without it (docs/tuning.md).
"""

import contextlib
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from harca.batching import Batch, batched
from harca.errors import HarcaError, SourceError
from harca.load import Intake
from harca.model import Reader, Record, StoreNotes
from harca.options import LoadOptions
from harca.readers.base import open_store

# The child is ready after a fifth of a second: from about here on that pays.
WORTH_ENTRIES = 2_000

_FIELDS = (
    "key", "content", "metadata", "model_id", "created_at", "source", "origin", "warnings",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Task:
    path: str
    options: LoadOptions
    now: datetime


@dataclass(frozen=True, slots=True)
class _End:
    """Sent after the last batch: what the intake has counted."""

    skipped: int
    warnings: dict[str, int]
    notes: StoreNotes


class ReadAhead:
    """A process that waits to be told what to read; ended by `close`.

    Started before it is needed, it gets ready while the schema is upgraded.
    """

    def __init__(self) -> None:
        # Not forked: this process has threads and connections. -P: a file in the current
        # folder must not be taken for a module. A session of its own: Ctrl-C is for the
        # parent to handle; the child ends when nobody takes its batches any more.
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-c", "from harca.ahead import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def intake(self, reader: Reader, path: str, options: LoadOptions, now: datetime) -> Intake:
        """Return the intake of the store at *path*, as the child reads it."""
        return _AheadIntake(reader, _Task(path, options, now), self._child)

    def close(self) -> None:
        """End the child."""
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._child.terminate()
        self._child.wait()


@contextlib.contextmanager
def reading_ahead(reader: Reader) -> Iterator[ReadAhead | None]:
    """Give a process to read the store with, if it is large enough for that to pay."""
    if (reader.size_hint() or 0) < WORTH_ENTRIES:
        yield None
        return
    ahead = ReadAhead()
    try:
        yield ahead
    finally:
        ahead.close()


class _AheadIntake(Intake):
    def __init__(self, reader: Reader, task: _Task, child: "subprocess.Popen[bytes]") -> None:
        super().__init__(reader, task.options, now=task.now)
        self._task, self._child = task, child

    def batches(self, *, rows: int) -> Iterator[Batch]:
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError), child.stdin:
            pickle.dump((self._task, rows), child.stdin)
        while True:
            try:
                message = pickle.load(child.stdout)  # noqa: S301  # our own child's
            except (EOFError, pickle.UnpicklingError):
                raise SourceError(
                    f"the process that read the store ended early (exit code {child.wait()})",
                    hint="Was it killed, or out of memory? Run the same command again.",
                ) from None
            if isinstance(message, HarcaError):
                raise message
            if isinstance(message, _End):
                self.skipped, self.reader.notes = message.skipped, message.notes
                self.warnings.clear()
                self.warnings.update(message.warnings)
                return
            yield unpack(message)


def pack(batch: Batch) -> tuple[Any, ...]:
    """Return a batch by columns, which is a third of the work of pickling its records."""
    records = batch.records
    columns = [[getattr(record, name) for record in records] for name in _FIELDS]
    dims = [len(record.embedding) for record in records]
    embeddings = b"".join(record.embedding.tobytes() for record in records)
    return batch.number, batch.origins, batch.rejections, columns, dims, embeddings


def unpack(packed: tuple[Any, ...]) -> Batch:
    """Return the batch that `pack` has packed."""
    number, origins, rejections, columns, dims, embeddings = packed
    components = np.frombuffer(embeddings, dtype=np.float32)
    ends = np.cumsum(dims, dtype=np.int64).tolist()
    records = [
        Record(**dict(zip(_FIELDS, values, strict=True)), embedding=components[end - size : end])
        for *values, end, size in zip(*columns, ends, dims, strict=True)
    ]
    return Batch(number, records, rejections, origins)


def main() -> None:
    """Read the task from stdin, write batches to stdout: the child's whole life."""
    out = sys.stdout.buffer
    # Asked to end, it ends as a program does: what was copied for reading is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        task, rows = pickle.load(sys.stdin.buffer)  # noqa: S301  # our own parent's
    except EOFError:
        return  # closed before there was anything to read
    try:
        try:
            reader = open_store(task.path, task.options.defaults)
            intake = Intake(reader, task.options, now=task.now)
            for batch in batched(intake.entries(), rows=rows):
                pickle.dump(pack(batch), out)
                out.flush()
            last: Any = _End(intake.skipped, dict(intake.warnings), intake.reader.notes)
        except HarcaError as exc:
            last = exc
        pickle.dump(last, out)
        out.flush()
    except BrokenPipeError:
        sys.stderr.close()  # the parent has ended, and Python would complain at exit
