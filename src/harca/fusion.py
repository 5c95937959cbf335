"""One order of several: reciprocal rank fusion."""

import math
from collections import defaultdict
from collections.abc import Iterable

# Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual
# Rank Learning Methods", SIGIR 2009: found to be best there, and not critical.
K = 60


def fuse(rankings: Iterable[Iterable[int]], *, k: int = K) -> list[tuple[int, float]]:
    """Return the ids of all *rankings* with their scores, the best first.

    An id's score is the sum of ``1 / (k + place)`` over the rankings that have it, places
    counted from 1. Equal scores come in the order of their ids.
    """
    parts: defaultdict[int, list[float]] = defaultdict(list)
    for ranking in rankings:
        for place, id_ in enumerate(ranking, 1):
            parts[id_].append(1 / (k + place))
    # fsum: equal sums are equal, in whatever order the rankings are given.
    scores = {id_: math.fsum(of_id) for id_, of_id in parts.items()}
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
