"""Who is told how a long command comes along."""

from typing import Protocol


class Watcher(Protocol):
    """Is told how a command comes along."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A stage begins; *total* entries are expected in it."""
        ...

    def step(self, done: int) -> None:
        """*done* entries of the stage are done."""
        ...

    def phase(self, name: str, done: int, total: int | None) -> None:
        """The stage, which counts no entries itself, is in a phase: *done* of *total* in it."""
        ...

    def trouble(self, message: str) -> None:
        """Something went wrong that is tried again."""
        ...

    def wait(self, why: str | None) -> None:
        """The stage waits, and why; None: it goes on."""
        ...


class Unwatched:
    """Nobody is looking."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Say nothing."""

    def step(self, done: int) -> None:
        """Say nothing."""

    def phase(self, name: str, done: int, total: int | None) -> None:
        """Say nothing."""

    def trouble(self, message: str) -> None:
        """Say nothing; the log has it."""

    def wait(self, why: str | None) -> None:
        """Say nothing."""
