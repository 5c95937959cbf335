"""Chroma's log, applied as Chroma itself would apply it.

Both segments take the same view of an operation (``chromadb/segment/impl/metadata/sqlite.py``
and ``vector/local_persistent_hnsw.py``): to add an id that is there, or to update or delete one
that is not, changes nothing.
"""

import sqlite3
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harca.readers.chroma_tables import BATCH, Collection, Row, marks
from harca.readers.files import exact_json

# _operation_codes in chromadb/db/mixins/embeddings_queue.py
_ADD, _UPDATE, _UPSERT, _DELETE = range(4)
_ENCODINGS = {"FLOAT32": "<f4", "INT32": "<i4"}


@dataclass(slots=True)
class Log:
    """What the log says about a collection; memory is its ids.

    Attributes:
        older: The operation with an id's vector, among those that the index has too.
        newer: Likewise, among those that it does not have; None if the id was deleted since.
        pending: The operations on an id that the tables do not have.
    """

    older: dict[str, int] = field(default_factory=dict)
    newer: dict[str, int | None] = field(default_factory=dict)
    pending: dict[str, list[int]] = field(default_factory=dict)


def replay(
    db: sqlite3.Connection, collection: Collection, *, saved: int, indexed: Container[str]
) -> Log:
    """Return what a collection's operations come to.

    Args:
        saved: The last operation that the index has.
        indexed: The ids that it has.
    """
    log = Log()
    topic = collection.topic
    if topic is None:
        return log
    for seq, operation, key, has_vector in db.execute(
        "SELECT seq_id, operation, id, vector IS NOT NULL FROM embeddings_queue "  # noqa: S608
        f"WHERE topic IN {marks(topic.names)} AND seq_id BETWEEN ? AND ? ORDER BY seq_id",
        (*topic.names, topic.first, topic.last),
    ):
        if not isinstance(seq, int):
            raise sqlite3.DatabaseError("an operation in the log has no number")
        if seq > collection.applied:
            log.pending.setdefault(key, []).append(seq)
        if seq > saved:
            there = log.newer[key] is not None if key in log.newer else key in indexed
            if operation == _DELETE:
                log.newer[key] = None
            elif has_vector and operation in (_UPSERT, _UPDATE if there else _ADD):
                log.newer[key] = seq
        # The log may begin behind the operation that added the id: whether it was there is not
        # known, but for what the log itself says.
        elif operation == _DELETE:
            log.older.pop(key, None)
        elif has_vector and not (operation == _ADD and key in log.older):
            log.older[key] = seq
    return log


def brought_up_to_date(
    db: sqlite3.Connection, batches: Iterator[list[Row]], pending: Mapping[str, list[int]]
) -> Iterator[list[tuple[str, Row | ValueError]]]:
    """Yield the records as they are after the pending operations, with their ids.

    One whose operations cannot be read comes as the error that says why.
    """
    left = dict(pending)
    for rows in batches:
        operations = {row.key: left.pop(row.key) for row in rows if row.key in left}
        yield _after(db, {row.key: row for row in rows}, operations)
    keys = list(left)
    for first in range(0, len(keys), BATCH):
        part = keys[first : first + BATCH]
        yield _after(db, dict.fromkeys(part), {key: left[key] for key in part})


def _after(
    db: sqlite3.Connection, rows: Mapping[str, Row | None], pending: Mapping[str, list[int]]
) -> list[tuple[str, Row | ValueError]]:
    changes = {
        seq: (operation, metadata, created)
        for seq, operation, metadata, created in _by_seq(
            db,
            "operation, metadata, created_at",
            [one for some in pending.values() for one in some],
        )
    }
    found: list[tuple[str, Row | ValueError]] = []
    for key, row in rows.items():
        try:
            for seq in pending.get(key, ()):
                # Without it if Chroma has cut the log since: then the tables have it by now.
                if seq in changes:
                    row = _changed(key, row, *changes[seq])
        except ValueError as exc:
            found.append((key, exc))
            continue
        if row is not None:
            found.append((key, row))
    return found


def _changed(key: str, row: Row | None, operation: int, text: Any, created: Any) -> Row | None:
    if operation == _DELETE:
        return None
    if operation not in (_ADD, _UPDATE, _UPSERT):
        raise ValueError(f"operation {operation} in the log is unknown")
    if operation != _UPSERT and (operation == _ADD) == (row is not None):
        return row
    metadata = dict(row.metadata) if row is not None else {}
    for name, value in _metadata(text).items():
        if value is None:
            metadata.pop(name, None)
        else:
            metadata[name] = value
    return Row(key, None, created if row is None else row.created, metadata)


def _metadata(text: Any) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        parsed = exact_json(str(text).encode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"metadata in the log are no JSON: {exc}"[:200]) from exc
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise ValueError("metadata in the log are no object")
    return parsed


def vectors(db: sqlite3.Connection, seqs: Sequence[int]) -> dict[int, NDArray[Any] | ValueError]:
    """Return the vectors that operations bring, float32 or int32; an error for what is none."""
    return {
        seq: _decoded(data, encoding)
        for seq, data, encoding in _by_seq(db, "vector, encoding", seqs)
    }


def _decoded(data: Any, encoding: Any) -> NDArray[Any] | ValueError:
    if not isinstance(data, bytes) or encoding not in _ENCODINGS or len(data) % 4:
        size = f"{len(data)} bytes" if isinstance(data, bytes) else "no bytes"
        return ValueError(f"{size} in encoding {encoding}, expected FLOAT32 or INT32")
    return np.frombuffer(data, _ENCODINGS[encoding])


def _by_seq(db: sqlite3.Connection, columns: str, seqs: Sequence[int]) -> Iterator[Any]:
    for first in range(0, len(seqs), BATCH):
        part = seqs[first : first + BATCH]
        yield from db.execute(
            f"SELECT seq_id, {columns} FROM embeddings_queue WHERE seq_id IN {marks(part)}",  # noqa: S608
            part,
        ).fetchall()
