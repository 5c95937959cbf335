"""Whether something that is measured again and again grows: a trend, told from noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# With fewer, even values that only rise could be so by chance.
FEWEST = 8
# Chance that values without any trend look as if they had this one. Several series are
# judged in one soak, and a false alarm should be rare.
_BY_CHANCE = 0.01


@dataclass(frozen=True, slots=True)
class Drift:
    """The trend of a series.

    Attributes:
        points: How many values it has.
        per_hour: Slope by Theil and Sen: the median of the slopes between all pairs, which
            a minority of outliers cannot move.
        growth: What the slope comes to from the first value to the last, as a share of
            `first`.
        first: Median of the first third of the values.
        last: Median of the last third.
        by_chance: How likely values without a trend rise at least so steadily (the test of
            Mann and Kendall, one-sided, with its correction for ties).
    """

    points: int
    per_hour: float
    growth: float
    first: float
    last: float
    by_chance: float

    @property
    def between_thirds(self) -> float:
        """Growth from the first third to the last, as a share."""
        return _share(self.last - self.first, self.first)

    def exceeds(self, share: float, *, least: float = 0.0) -> bool:
        """Say whether it grows by more than *share*, and by more than *least* in its own unit.

        By both measures, and not by chance: a single slow spell in the end raises the last
        third but hardly the slope, and noise raises neither for sure.
        """
        return (
            self.by_chance < _BY_CHANCE
            and self.growth > share
            and self.between_thirds > share
            and self.last - self.first > least
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the trend as ``--json`` shows it."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {**values, "between_thirds": self.between_thirds}


def drift(times_s: Sequence[float], values: Sequence[float | None]) -> Drift | None:
    """Return the trend of *values* over *times_s*; None if they are fewer than `FEWEST`.

    What is None was not measured, and is left out.
    """
    known = [(at, value) for at, value in zip(times_s, values, strict=True) if value is not None]
    if len(known) < FEWEST:
        return None
    times, found = (np.array(side, dtype=np.float64) for side in zip(*known, strict=True))
    third = len(found) // 3
    first, last = float(np.median(found[:third])), float(np.median(found[-third:]))
    slope = theil_sen(times, found)
    return Drift(
        points=len(found),
        per_hour=slope * 3600,
        growth=_share(slope * float(times[-1] - times[0]), first),
        first=first,
        last=last,
        by_chance=mann_kendall(found),
    )


def theil_sen(times: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> float:
    """Return the median slope between all pairs of points."""
    later, earlier = np.tril_indices(len(times), -1)
    return float(np.median((values[later] - values[earlier]) / (times[later] - times[earlier])))


def mann_kendall(values: np.ndarray[Any, Any]) -> float:
    """Return the probability that values in random order rise at least so steadily."""
    later, earlier = np.tril_indices(len(values), -1)
    score = float(np.sign(values[later] - values[earlier]).sum())
    ties = np.unique(values, return_counts=True)[1].astype(np.float64)
    count = float(len(values))
    variance = (
        count * (count - 1) * (2 * count + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())
    ) / 18
    if score <= 0 or variance <= 0:
        return 1.0
    return 0.5 * math.erfc((score - 1) / math.sqrt(2 * variance))


def _share(difference: float, of: float) -> float:
    if of > 0:
        return difference / of
    return math.inf if difference > 0 else 0.0
