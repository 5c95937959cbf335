"""Records -> batches, bounded by rows and by bytes. Pure."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from harca.model import Record, Rejection

# 1,000 rows are best at 384 dimensions, and 500 at 1536 (docs/tuning.md,
# benchmarks/batch_rows.py): so a batch also ends at about as many bytes as either has.
BATCH_ROWS = 1_000
BATCH_BYTES = 3 * 1024 * 1024


@dataclass(slots=True)
class Batch:
    """What one transaction brings in.

    Attributes:
        number: Counts from 1.
        origins: The first and the last place read from.
        refused: Keys of records that the target has refused, which are rejections now.
    """

    number: int
    records: list[Record] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    origins: tuple[str, str] = ("", "")
    refused: frozenset[str] = frozenset()

    @property
    def read(self) -> int:
        """Entries read for this batch, rejected ones among them."""
        return len(self.records) + len(self.rejections)

    def without(self, refused: Collection[Record], rejections: list[Rejection]) -> "Batch":
        """Return the batch with *rejections* in place of the records *refused*."""
        gone = set(map(id, refused))
        return Batch(
            self.number,
            [record for record in self.records if id(record) not in gone],
            self.rejections + rejections,
            self.origins,
            self.refused | {record.key for record in refused},
        )


def batched(
    entries: Iterable[Record | Rejection],
    *,
    rows: int = BATCH_ROWS,
    max_bytes: int = BATCH_BYTES,
) -> Iterator[Batch]:
    """Yield the entries in batches of at most *rows*, or about *max_bytes*."""
    batch, size = Batch(1), 0
    for entry in entries:
        if isinstance(entry, Rejection):
            batch.rejections.append(entry)
            size += len(entry.payload or b"")
        else:
            batch.records.append(entry)
            size += entry.embedding.nbytes + len(entry.content)
            size += sum(map(len, entry.metadata.values()))
        batch.origins = (batch.origins[0] or entry.origin, entry.origin)
        if batch.read >= rows or size >= max_bytes:
            yield batch
            batch, size = Batch(batch.number + 1), 0
    if batch.read:
        yield batch
