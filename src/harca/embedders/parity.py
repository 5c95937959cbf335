"""Whether an embedder makes the embeddings that a space has. Pure.

Another model, another version of it or another treatment of the text finds nonsense, and nothing
else would say so: every number is a fine number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harca.embedders.base import Embedder, embedded

# Lowest cosine over 90 texts of the examples, all-MiniLM-L6-v2: in batches of 1 and of 64 1.000000,
# in bfloat16 0.99988. Highest, with "query: " before the texts 0.994, pooled in another way 0.64.
SAME = 0.999
_SAME_LENGTH = 0.01


@dataclass(frozen=True, slots=True)
class Parity:
    """How embeddings made anew compare with those stored.

    Attributes:
        texts: How many were embedded.
        agreeing: How many of them have the direction of the stored one.
        lowest: The lowest cosine of both.
        lengths_differ: True if the lengths do: a search by cosine does not mind.
    """

    texts: int
    agreeing: int
    lowest: float
    lengths_differ: bool

    @property
    def ok(self) -> bool:
        """True if all agree."""
        return self.agreeing == self.texts

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as ``--json`` shows it."""
        return {name: getattr(self, name) for name in self.__slots__}


def parity(
    embedder: Embedder, texts: Sequence[str], stored: NDArray[np.float32], *, dims: int
) -> Parity:
    """Embed *texts* anew and compare with *stored*, shape ``(n, dims)``, no zero vectors.

    Raises:
        EmbedderError, UsageError: As `embedded` does.
    """
    made = embedded(embedder, texts, dims=dims).astype(np.float64)
    wanted = stored.astype(np.float64)
    made_lengths, wanted_lengths = (np.linalg.norm(each, axis=1) for each in (made, wanted))
    products = made_lengths * wanted_lengths
    cosines = np.divide(
        (made * wanted).sum(axis=1), products, out=np.zeros(len(texts)), where=products > 0
    )
    return Parity(
        texts=len(texts),
        agreeing=int((cosines >= SAME).sum()),
        lowest=float(cosines.min()),
        lengths_differ=bool(
            (np.abs(made_lengths - wanted_lengths) > _SAME_LENGTH * wanted_lengths).any()
        ),
    )
