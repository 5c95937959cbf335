"""HARCA stores as tests need them, written as HARCA writes them."""

import json
import random
from pathlib import Path
from typing import Any

from harca.readers.harca import record_key

Entry = tuple[str, list[float]]
"""A text that stands for itself, and its vector."""

DATE = "2025-03-16T03:08:02.864Z"


def record(text: str, vector: Any, model: str = "test-model", **fields: Any) -> dict[str, Any]:
    """Return a record's JSON value."""
    return {
        "text": text,
        "modelName": model,
        "embedding": vector,
        "createdAt": DATE,
        "lastAccessed": DATE,
        "expiresAt": "2025-03-16T03:09:29.264Z",
        "accessCount": 1,
        **fields,
    }


def write_record(folder: Path, value: dict[str, Any], *, name: str | None = None) -> Path:
    """Write a record as HARCA does; return the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = name or record_key(str(value.get("modelName")), str(value.get("text")))
    path = folder / f"{stem}.json"
    # Half a surrogate pair can only be written escaped.
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if any("\ud800" <= char <= "\udfff" for char in text):
        text = json.dumps(value, indent=2)
    path.write_text(text, encoding="utf-8")
    return path


def write_store(root: Path, records: int, *, dims: int = 8, seed: int = 1) -> Path:
    """Write a store of *records* in two folders, with a stats.json; return its path."""
    dice = random.Random(seed)
    for number in range(records):
        vector = [dice.uniform(-1, 1) for _ in range(dims)]
        folder = root / ("cache/embeddings" if number % 3 else ".cache/メモ（全角）")
        write_record(folder, record(f"テキスト {number}", vector))
    (root / "cache" / "embeddings").mkdir(parents=True, exist_ok=True)
    (root / "cache" / "embeddings" / "stats.json").write_text('{"hits": 1, "size": 9999}')
    return root
