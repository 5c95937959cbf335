"""How fast a load may go, and when it has to wait."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, sleep

from harca.batching import Batch
from harca.errors import UsageError
from harca.watcher import Watcher

# Often enough that nobody sees a throttled load stand and jump.
_BATCHES_PER_S = 4
# What a slow batch has left unused may be made up for, but no more: a load that was paused
# would otherwise rush afterwards.
_MADE_UP_FOR_S = 0.5
_LOOKS_EVERY_S = 1.0

_CONDITION = re.compile(r"\s*(lag|load)\s*>\s*(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|min)?\s*")
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0}

Reason = Callable[[], str | None]
"""Says why a load has to wait; None if it has not."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a server must not exceed while it is loaded.

    Attributes:
        what: ``lag``, of the replica that is farthest behind, in seconds; or ``load``, the
            number of other sessions at work.
        text: As the operator wrote it.
    """

    what: str
    most: float
    text: str

    @classmethod
    def read(cls, text: str) -> "Limit":
        """Return the limit that an operator wrote.

        Raises:
            UsageError: It is none.
        """
        found = _CONDITION.fullmatch(text)
        if found is None or (found[1] == "lag") != (found[3] is not None):
            raise UsageError(
                f'--pause-when is "{text}", expected "lag>SECONDSs" or "load>SESSIONS"',
                hint='For example --pause-when "lag>10s", "lag>500ms" or "load>8", in quotes.',
            )
        most = float(found[2]) * _SECONDS[found[3] or "s"]
        return cls(found[1], most, "".join(text.split()))


@dataclass(frozen=True, slots=True)
class Pace:
    """What an operator asks of the speed of a load; by default it is as fast as it can be.

    Attributes:
        max_rows_per_s: Records read per second, those included that are in the table already.
        pause_when: The load waits while one of these is exceeded.
    """

    max_rows_per_s: int | None = None
    pause_when: tuple[Limit, ...] = ()

    def batch_rows(self, asked: int) -> int:
        """Return how many rows a batch may have so that the load goes smoothly."""
        if self.max_rows_per_s is None:
            return asked
        return min(asked, max(1, self.max_rows_per_s // _BATCHES_PER_S))


FULL_SPEED = Pace()


class Throttle:
    """Lets no more than so many rows pass in a second, evenly."""

    def __init__(
        self,
        rows_per_s: int,
        *,
        clock: Callable[[], float] = monotonic,
        sleeping: Callable[[float], None] = sleep,
    ) -> None:
        self._rows_per_s, self._clock, self._sleeping = rows_per_s, clock, sleeping
        self._free_at = clock()

    def take(self, rows: int) -> None:
        """Wait until *rows* may pass."""
        now = self._clock()
        if self._free_at > now:
            self._sleeping(self._free_at - now)
        self._free_at = max(self._free_at, now - _MADE_UP_FOR_S) + rows / self._rows_per_s


class Checkpoint:
    """Passed before every batch, while no transaction is open: waits as long as it has to."""

    def __init__(
        self,
        reasons: Sequence[Reason],
        throttle: Throttle | None,
        watcher: Watcher,
        *,
        clock: Callable[[], float] = monotonic,
        sleeping: Callable[[float], None] = sleep,
    ) -> None:
        self._reasons, self._throttle, self._watcher = reasons, throttle, watcher
        self._clock, self._sleeping = clock, sleeping
        self._looks_at = clock()

    def passed(self, batch: Batch) -> None:
        """Return when *batch* may be loaded."""
        if self._clock() >= self._looks_at:
            self._wait()
            self._looks_at = self._clock() + _LOOKS_EVERY_S
        if self._throttle is not None:
            self._throttle.take(batch.read)

    def _wait(self) -> None:
        waited = False
        while why := self._why():
            self._watcher.wait(why)
            waited = True
            self._sleeping(_LOOKS_EVERY_S)
        if waited:
            self._watcher.wait(None)

    def _why(self) -> str | None:
        return next((why for reason in self._reasons if (why := reason())), None)
