"""Writes Vectra indexes as its LocalIndex and LocalDocumentIndex do."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_index(
    folder: Path, items: list[dict[str, Any]], *, name: str = "index.json", **more: Any
) -> Path:
    """Write an index of *items*; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in items:
        one.setdefault("norm", sum(part * part for part in one["vector"]) ** 0.5)
    index = {"version": 1, "metadata_config": {}, "items": items, **more}
    (folder / name).write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
    return folder


def vectra(folder: Path, entries: Sequence[tuple[str, list[float]]]) -> Path:
    """Write items whose texts are in their metadata."""
    return write_index(
        folder / "index",
        [
            {"id": f"id {number}", "metadata": {"text": text, "n": number}, "vector": vector}
            for number, (text, vector) in enumerate(entries)
        ],
    )


def vectra_documents(folder: Path, entries: Sequence[tuple[str, list[float]]]) -> Path:
    """Write chunks: three entries are a document, of which each is a part."""
    store, items, names = folder / "index", [], {}
    for first in range(0, len(entries), 3):
        document, position = f"document-{first}", 0
        names[document] = f"{document}.md"
        some = entries[first : first + 3]
        for number, (text, vector) in enumerate(some):
            length = len(text.encode("utf-16-le")) // 2
            metadata = {
                "documentId": document,
                "startPos": position,
                "endPos": position + length - 1,
            }
            items.append({"id": f"id {first + number}", "metadata": metadata, "vector": vector})
            position += length
        store.mkdir(exist_ok=True)
        whole = "".join(text for text, _ in some)
        (store / f"{document}.txt").write_bytes(whole.encode())
    write_index(store, items)
    catalog = {
        "version": 1,
        "count": len(names),
        "uriToId": {uri: document for document, uri in names.items()},
        "idToUri": names,
    }
    (store / "catalog.json").write_text(json.dumps(catalog))
    return store


def vectra_empty(folder: Path) -> Path:
    """Write an index without items."""
    return write_index(folder / "index", [])
