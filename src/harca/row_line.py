"""A row, or a record, as one line of JSON: what `export` writes, and what is kept of a refusal."""

import json
from datetime import datetime
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from harca.canonical import object_parts, object_text
from harca.model import Record


def row_line(
    *,
    store_key: str,
    content: str,
    embedding: NDArray[np.float32],
    metadata: str,
    model_id: str,
    created_at: datetime | None,
    source: str | None,
    **more: str | None,
) -> bytes:
    """Return a row as a line, without its end; *more* goes in front.

    Args:
        metadata: An object, as JSON.
    """
    # As doubles, which hold a float32 exactly and are what JSON's numbers become.
    value = {
        **more,
        "store_key": store_key,
        "content": content,
        "embedding": embedding.astype(np.float64),
        "metadata": orjson.Fragment(metadata),
        "model_id": model_id,
        # Offsets of the time before there were zones have seconds, which orjson leaves out.
        "created_at": created_at and created_at.isoformat(),
        "source": source,
    }
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def record_line(record: Record) -> bytes:
    """Return a record as a line; `record_of` gives an equal one back."""
    return row_line(
        store_key=record.key,
        content=record.content,
        embedding=record.embedding,
        metadata=object_text(record.metadata),
        model_id=record.model_id,
        created_at=record.created_at,
        source=record.source,
    )


def record_of(line: bytes, *, origin: str) -> Record:
    """Return the record that a line holds.

    Raises:
        ValueError: It holds none.
    """
    try:
        # Not orjson, which takes no integer beyond 64 bits.
        value: dict[str, Any] = json.loads(line)
        created_at = value["created_at"]
        return Record(
            key=value["store_key"],
            content=value["content"],
            embedding=np.array(value["embedding"], dtype=np.float64).astype(np.float32),
            metadata=object_parts(value["metadata"]),
            model_id=value["model_id"],
            created_at=None if created_at is None else datetime.fromisoformat(created_at),
            source=value["source"],
            origin=origin,
        )
    except (TypeError, KeyError, AttributeError) as exc:
        raise ValueError(f"no record: {exc}") from exc
