"""How long requests took, in a memory that does not grow with their number."""

import math
from collections import Counter

# A bucket is 2 % wide, so a value is told within 1 %; a day of requests has some 600 buckets.
_WIDTH = math.log(1.02)
_SHORTEST_S = 1e-6


class Histogram:
    """Counts of durations in buckets of equal ratio.

    Attributes:
        count: How many durations are in it.
        longest_s: The longest of them, exactly.
    """

    def __init__(self) -> None:
        self.count, self.longest_s = 0, 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one in."""
        self.count += 1
        self.longest_s = max(self.longest_s, seconds)
        self._buckets[math.floor(math.log(max(seconds, _SHORTEST_S)) / _WIDTH)] += 1

    def add_all(self, other: "Histogram") -> None:
        """Count in all that are in *other*."""
        self.count += other.count
        self.longest_s = max(self.longest_s, other.longest_s)
        self._buckets.update(other._buckets)

    def quantile(self, share: float) -> float | None:
        """Return the duration in seconds that *share* of them do not exceed; None if empty."""
        wanted, seen = max(1, math.ceil(share * self.count)), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return min(math.exp((bucket + 0.5) * _WIDTH), self.longest_s)
        return None
