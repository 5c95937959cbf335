"""Searches and writes at a set rate for as long as is asked, and whether all stays as it is."""

import logging
import math
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

import psycopg

from harca.errors import HarcaError, TargetError, UsageError, counted
from harca.model import Space
from harca.open_loop import GRACE_S, OpenLoop
from harca.postgres import measurements
from harca.postgres.connect import Database, translated
from harca.postgres.soaking import Example, Mix, Observer, SoakClient, examples
from harca.postgres.space_index import spaces
from harca.soak_result import (
    STEADY,
    Limits,
    Measured,
    Sample,
    as_dict,
    judge,
    quantile_ms,
)

KIND = "soak"

_log = logging.getLogger("harca.soak")

# Enough windows for a trend, each with enough requests, and not too many to keep.
_WINDOWS = 60
_SHORTEST_WINDOW_S, _LONGEST_WINDOW_S = 0.25, 60.0
# A soak that is killed leaves what was measured until then.
_KEEP_EVERY_S = 60.0
_KEPT_BEFORE_THE_END = 100
# A server that restarts when the soak ends is waited for, to take its rows away.
_CLEANS_UP_FOR_S = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the server.

    Attributes:
        rate: Requests per second, of all clients together.
        writes: Share of them that insert, update or delete rows of the soak's own.
        filtered: Share of the searches with a filter.
        in_place: Write into the space that is read, and so into its index.
        seed: Of what is random: queries, filters, the order of requests.
    """

    minutes: float = 10.0
    rate: float = 20.0
    writes: float = 0.1
    filtered: float = 0.25
    clients: int = 4
    model_id: str | None = None
    dims: int | None = None
    k: int = 10
    in_place: bool = False
    seed: int = 1

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.minutes * 60

    @property
    def window_s(self) -> float:
        """How long a window of the result is."""
        return min(max(self.seconds / _WINDOWS, _SHORTEST_WINDOW_S), _LONGEST_WINDOW_S)

    def as_dict(self) -> dict[str, Any]:
        """Return what was asked for as ``--json`` shows it, but for the space."""
        left_out = ("model_id", "dims")
        return {name: getattr(self, name) for name in self.__slots__ if name not in left_out}


@dataclass(slots=True)
class Soaked:
    """What came of a soak.

    Attributes:
        seconds: How long it lasted.
        removed: Rows of its own that were taken away at its end; None if they could not be.
        table: What pgstattuple says of the table before and after, where it is installed.
        measurement_id: Where the result is kept.
    """

    load: Load
    limits: Limits
    space: Space
    measured: Measured
    before: Sample
    seconds: float = 0.0
    interrupted: bool = True
    removed: int | None = None
    table: tuple[dict[str, float] | None, dict[str, float] | None] = (None, None)
    measurement_id: int | None = None

    @property
    def verdict(self) -> str:
        """``steady``, ``drifting`` or ``failing``."""
        return judge(self.measured, self.limits)[0]

    @property
    def is_steady(self) -> bool:
        """True if nothing speaks against it."""
        return self.verdict == STEADY

    def as_dict(self) -> dict[str, Any]:
        """Return the result as ``--json`` shows it and `measurements` keeps it.

        To the fields of `soak_result.as_dict` come

        - ``load``, what was asked for: the fields of `Load` but for the space's;
        - ``model_id``, ``dims`` and ``records`` of the space that was searched;
        - ``seconds``, ``removed``;
        - ``before``, ``after``: the fields of a `Sample`, at the beginning and in the end,
          with the soak's own rows still there;
        - ``pgstattuple``: ``before`` and ``after``, each with ``dead_percent`` and
          ``free_percent`` of the table, or null without that extension.
        """
        about = {
            **self.space.as_dict(),
            "load": self.load.as_dict(),
            "seconds": round(self.seconds, 1),
            "removed": self.removed,
            "before": self.before.as_dict(),
            "after": self._after().as_dict(),
            "pgstattuple": dict(zip(("before", "after"), self.table, strict=True)),
        }
        return as_dict(self.measured, self.limits, about, interrupted=self.interrupted)

    def _after(self) -> Sample:
        seen = [window.sample for window in self.measured.windows]
        return next((one for one in reversed(seen) if one.table_bytes is not None), self.before)


def soak(
    target: Database,
    load: Load,
    limits: Limits,
    *,
    told: Callable[[str], object] = lambda message: None,
) -> Soaked:
    """Search and write for as long as *load* says; keep the result, take own rows away.

    Ctrl-C ends it early, with a result: it is `Soaked.interrupted` then. A second one ends
    it at once.

    Args:
        told: Is told how it comes along, window by window.

    Raises:
        UsageError: *load* makes no sense, or no space fits.
        StoreBusy: Another soak is running.
        TargetError: There is no database, or it is not ready, when it begins.
    """
    _require_sense(load)
    with ExitStack() as closes:
        observer = closes.enter_context(closing(Observer(target)))
        with translated():
            done, rows = _begin(observer, load, limits, told)
        mix = Mix(load.writes, load.filtered, load.k, load.in_place)
        clients = [
            closes.enter_context(
                closing(SoakClient(target, done.space, rows, mix, number=number, seed=load.seed))
            )
            for number in range(load.clients)
        ]
        try:
            _run(done, clients, observer, told)
            done.interrupted = False
        except KeyboardInterrupt:
            told("interrupted; the soak's rows are taken away")
        finally:
            _end(done, observer, told)
    return done


def clean_up(target: Database) -> int:
    """Take away what a soak that was killed has left; return how many rows.

    Raises:
        StoreBusy: It is still running.
        TargetError: There is no database, or it is not ready.
    """
    with translated(), closing(Observer(target)) as observer:
        return observer.clean_up()


def _require_sense(load: Load) -> None:
    wanted: tuple[tuple[str, float, bool, str], ...] = (
        ("--minutes", load.minutes, 0 < load.minutes <= 525_600, "more than 0, a year at most"),
        ("--rate", load.rate, 0 < load.rate <= 100_000, "more than 0, 100,000 at most"),
        ("--writes", load.writes, 0 <= load.writes <= 1, "a share from 0 to 1"),
        ("--filtered", load.filtered, 0 <= load.filtered <= 1, "a share from 0 to 1"),
        ("--clients", load.clients, 1 <= load.clients <= 500, "1 to 500"),
        ("--k", load.k, 1 <= load.k <= 1_000, "1 to 1,000"),
    )  # fmt: skip
    for name, value, is_sensible, expected in wanted:
        if not is_sensible:
            raise UsageError(
                f"{name} is {value:g}, expected {expected}",
                hint="For example: harca soak --minutes 10 --rate 20 --writes 0.1",
            )


def _space(conn: psycopg.Connection[Any], load: Load) -> Space:
    """Return the space that is meant: of those that fit, the one with the most rows."""
    there = spaces(conn)
    fitting = [
        space
        for space in there
        if load.model_id in (None, space.model_id) and load.dims in (None, space.dims)
    ]
    if not fitting:
        shown = ", ".join(f"{space.model_id}/{space.dims}" for space in there)
        raise UsageError(
            f'no space fits "{load.model_id or "any model"}/{load.dims or "any dimension"}"',
            hint=f"There are: {shown}." if shown else "The table is empty: `harca migrate STORE`.",
        )
    return max(fitting, key=lambda space: space.records)


def _begin(
    observer: Observer, load: Load, limits: Limits, told: Callable[[str], object]
) -> tuple[Soaked, list[Example]]:
    """Return what is to be filled in, and what queries are made of; keep that it has begun."""
    conn = observer.conn()
    if left := observer.clean_up():
        told(f"took away {counted(left, 'row')} of a soak that had no end")
    space = _space(conn, load)
    rows = examples(conn, space, seed=load.seed)
    if not rows:
        raise UsageError(
            f'space "{space.model_id}"/{space.dims} has no embedding to search by',
            hint="They are all zero. Name another space by --model.",
        )
    done = Soaked(load, limits, space, Measured(load.window_s), Sample())
    done.before = observer.sample([])
    done.table = (observer.vacuumable(), None)
    done.measurement_id = measurements.keep(conn, KIND, done.as_dict())
    return done, rows


def _run(
    done: Soaked, clients: list[SoakClient], observer: Observer, told: Callable[[str], object]
) -> None:
    measured, load = done.measured, done.load
    loop = OpenLoop(clients, load.rate, load.seconds, measured.add)
    # It is written anew as a whole: of a soak of days, not each minute.
    keep_every_s = max(_KEEP_EVERY_S, load.seconds / _KEPT_BEFORE_THE_END)
    keeps_at = keep_every_s
    loop.start()
    try:
        for number in range(math.ceil(load.seconds / load.window_s)):
            is_going = loop.wait_until(min((number + 1) * load.window_s, load.seconds))
            measured.look(number, observer.sample(clients))
            done.seconds = min(loop.elapsed_s, load.seconds)
            told(_progress(done, number))
            if done.seconds >= keeps_at:
                keeps_at = done.seconds + keep_every_s
                _keep(done, observer)
            if not is_going:
                break
        loop.wait_until(load.seconds + GRACE_S)
    finally:
        done.seconds = min(loop.elapsed_s, load.seconds)
        measured.unserved = loop.end()


def _progress(done: Soaked, number: int) -> str:
    measured = done.measured
    with measured.lock:
        window = measured.windows[number]
        failed = measured.errors.total()
        reads = f"searches p50 {_ms(window.reads, 0.5)}, p95 {_ms(window.reads, 0.95)}"
        writes = f"; writes p95 {_ms(window.writes, 0.95)}" if done.load.writes else ""
        return (
            f"soak: {_clock(done.seconds)} of {_clock(done.load.seconds)}, "
            f"{measured.requests:,} requests, {failed:,} failed, {reads}{writes}"
        )


def _ms(histogram: Any, share: float) -> str:
    found = quantile_ms(histogram, share)
    return "-" if found is None else f"{found:.1f} ms"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _end(done: Soaked, observer: Observer, told: Callable[[str], object]) -> None:
    """Take the rows away and keep the result; a server that is restarting is waited for."""
    gives_up_at = monotonic() + _CLEANS_UP_FOR_S
    is_told = False
    while True:
        try:
            with translated():
                if done.removed is None:
                    with suppress(TargetError):
                        done.table = (done.table[0], observer.vacuumable())
                    done.removed = observer.clean_up()
            break
        except HarcaError as exc:
            if monotonic() > gives_up_at:
                _log.error("the soak's rows are still there: %s", exc)
                return
            if not is_told:
                told(f"the soak's rows cannot be taken away yet: {exc}")
                is_told = True
            sleep(1)
    _keep(done, observer)


def _keep(done: Soaked, observer: Observer) -> None:
    assert done.measurement_id is not None
    try:
        with translated(), done.measured.lock:
            measurements.amend(observer.conn(), done.measurement_id, done.as_dict())
    except TargetError as exc:
        _log.warning("the result is not kept: %s", exc)
