"""Progress on stderr: a bar on a terminal, a line every few seconds elsewhere."""

import sys
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_EVERY_S = 3.0
_COUNTED = {"load", "verify", "export"}


def watcher(*, quiet: bool) -> "LineWatcher":
    """Return what shows a migration's progress."""
    if quiet:
        return LineWatcher(silent=True)
    return BarWatcher() if sys.stderr.isatty() else LineWatcher()


def _part(name: str, done: int, total: int | None) -> str:
    return f"{name}, {done:,} of {total:,} ({100 * done / total:.0f} %)" if total else name


class LineWatcher:
    """A line when a stage begins, and every few seconds: rows, rate, time left."""

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._name = ""
        self._total: int | None = None
        self._waits: str | None = None
        self._began = self._spoke = monotonic()

    def __enter__(self) -> "LineWatcher":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin a stage."""
        self._name, self._total = name, total
        self._began = self._spoke = monotonic()
        if not self._silent:
            of = f" (about {total:,} entries)" if total is not None else ""
            sys.stderr.write(f"{name}{of}\n")

    def step(self, done: int) -> None:
        """Say how far the stage is, now and then."""
        now = monotonic()
        if self._silent or now - self._spoke < _EVERY_S:
            return
        self._spoke = now
        rate = done / (now - self._began)
        left = ""
        if self._total is not None and rate > 0:
            left = f", {max(self._total - done, 0) / rate:.0f} s left"
        sys.stderr.write(f"{self._name}: {done:,} rows, {rate:,.0f} rows/s{left}\n")

    def phase(self, name: str, done: int, total: int | None) -> None:
        """Say now and then which phase the stage is in, and how far that is."""
        now = monotonic()
        if not self._silent and now - self._spoke >= _EVERY_S:
            self._spoke = now
            sys.stderr.write(f"{self._name}: {_part(name, done, total)}\n")

    def trouble(self, message: str) -> None:
        """Say at once what is tried again; with --quiet the log does."""
        if not self._silent:
            sys.stderr.write(f"{message}\n")

    def wait(self, why: str | None) -> None:
        """Say why the stage waits, now and then if that changes, and when it goes on."""
        now = monotonic()
        new = why is None or self._waits is None
        if not self._silent and why != self._waits and (new or now - self._spoke >= _EVERY_S):
            self._spoke, self._waits = now, why
            sys.stderr.write(f"{self._name}: {why or 'goes on'}\n")


class BarWatcher(LineWatcher):
    """A bar for each stage, redrawn in place."""

    def __init__(self) -> None:
        super().__init__(silent=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "BarWatcher":
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            Task,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class Left(TimeRemainingColumn):
            """The time left; nothing where it cannot be known, or none is left."""

            def render(self, task: Task) -> Text:
                if task.total is None or task.finished:
                    return Text()
                return Text("ETA ", no_wrap=True).append_text(super().render(task))

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            Left(),
            console=Console(stderr=True),
        )
        self._progress.__enter__()
        return self

    def __exit__(self, *failed: object) -> None:
        if self._progress is not None:
            if self._task is not None and failed[0] is None:
                self._finish()
            self._progress.__exit__(None, None, None)

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin a stage, and end the one before."""
        assert self._progress is not None
        if self._task is not None:
            self._finish()
        self._began, self._total = monotonic(), total
        self._task = self._progress.add_task(name, total=total, counts="")

    def step(self, done: int) -> None:
        """Move the bar."""
        assert self._progress is not None
        assert self._task is not None
        rate = done / max(monotonic() - self._began, 1e-6)
        self._progress.update(
            self._task, completed=done, counts=f"{done:,} rows {rate:,.0f} rows/s"
        )

    def phase(self, name: str, done: int, total: int | None) -> None:
        """Move the bar; a phase that counts nothing leaves it where it is."""
        assert self._progress is not None
        assert self._task is not None
        self._progress.update(self._task, counts=_part(name, done, total))
        if total:
            self._progress.update(self._task, total=total, completed=done)

    def trouble(self, message: str) -> None:
        """Say it above the bars, and leave the stage's where it was: it did not come to its end."""
        assert self._progress is not None
        if self._task is not None:
            self._progress.stop_task(self._task)
            self._task = None
        self._progress.console.print(message, markup=False, highlight=False)

    def wait(self, why: str | None) -> None:
        """Show beside the bar why the stage waits; the next step takes that away."""
        assert self._progress is not None
        assert self._task is not None
        if why is not None:
            self._progress.update(self._task, counts=why)

    def _finish(self) -> None:
        assert self._progress is not None
        assert self._task is not None
        task = self._progress.tasks[self._task]
        total = task.completed or 1
        self._progress.update(self._task, total=total, completed=total)
        self._progress.stop_task(self._task)
