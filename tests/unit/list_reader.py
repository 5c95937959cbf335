"""A store that is a list, for tests of logic."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from harca.model import Item, Rejection, StoreNotes


@dataclass(slots=True)
class ListReader:
    """Items from a list."""

    entries: list[Item | Rejection]
    format: str = "list"
    volatile: frozenset[str] = frozenset()
    guesses_ids: bool = False
    bookkeeping: frozenset[str] = frozenset()
    notes: StoreNotes = field(default_factory=StoreNotes)

    def items(self) -> Iterator[Item | Rejection]:
        """Yield the items in the list's order."""
        yield from self.entries

    def size_hint(self) -> int:
        """Return the number of items."""
        return len(self.entries)
