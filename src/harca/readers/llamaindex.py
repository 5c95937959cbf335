"""LlamaIndex's simple vector stores, as ``StorageContext.persist`` writes them.

A folder holds vectors (``vector_store.json``, or since 0.10 ``NAMESPACE__vector_store.json``)
and, in ``docstore.json``, the nodes with their texts. The TypeScript version writes the same
in camelCase, the document store as ``doc_store.json`` and each node as JSON in a string.

Established from stores of 2023, 2024 and 2025 and llama_index's ``SimpleVectorStoreData``
and ``SimpleDocumentStore``.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from harca.errors import EmptyStore, counted
from harca.model import Item, Reason, Rejection, StoreNotes
from harca.readers.base import (
    Defaults,
    as_payload,
    exact_json,
    printable,
    read_json,
)

FORMAT = "llamaindex"

_VECTORS = "vector_store.json"
_DOCUMENTS = ("docstore.json", "doc_store.json")
_DEFAULT_NAMESPACE = "default"
_SKIPPED_FOLDERS = {".git", ".harca", "node_modules"}


def open_path(path: Path, defaults: Defaults) -> "LlamaIndexReader | None":
    """Return a reader if *path* is a folder that LlamaIndex has written, or a file of one.

    Raises:
        EmptyStore: It is one, but no node in it has a vector.
    """
    files = _vector_files(path)
    if not files:
        return None
    reader = LlamaIndexReader(path, files, defaults)
    if next(iter(reader.items()), None) is None:
        raise EmptyStore(
            str(path), found=f"{counted(len(files), 'vector store')} of LlamaIndex without a vector"
        )
    return reader


def _vector_files(path: Path) -> list[Path]:
    """Return the vector stores at or below *path*, the same order on every call."""
    if path.is_file():
        found, parsed = read_json(str(path), path.name, exact_json)
        ours = found.rejection is None and _embeddings(parsed) is not None
        return [path] if ours or (found.rejection and _is_named(path.name)) else []
    files = []
    for folder, inner, names in os.walk(path):
        inner[:] = sorted(set(inner) - _SKIPPED_FOLDERS)
        files += [Path(folder, name) for name in sorted(names) if _is_named(name)]
    return files


def _is_named(name: str) -> bool:
    return name == _VECTORS or name.endswith(f"__{_VECTORS}")


def _embeddings(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    found = value.get("embedding_dict", value.get("embeddingDict"))
    return found if isinstance(found, dict) else None


class LlamaIndexReader:
    """Reads one vector store after the other; memory is one of them and its texts."""

    format = FORMAT
    volatile: frozenset[str] = frozenset()

    def __init__(self, path: Path, files: list[Path], defaults: Defaults) -> None:
        self.path, self.defaults = path, defaults
        self.notes = StoreNotes()
        self._files = files

    def size_hint(self) -> int | None:
        """Return None: only reading tells."""
        return None

    def items(self) -> Iterator[Item | Rejection]:
        """Yield every vector with its node's text."""
        self.notes = StoreNotes()
        nodes: dict[Path, dict[str, Any] | Rejection] = {}
        for file in self._files:
            if file.parent not in nodes:
                nodes = {file.parent: self._nodes(file.parent)}
            texts = nodes[file.parent]
            if isinstance(texts, Rejection):
                # Without the texts there is no record; once said is enough.
                if file == next(one for one in self._files if one.parent == file.parent):
                    yield texts
                continue
            yield from self._vectors(file, texts)

    def _read(self, file: Path) -> tuple[str, bytes, Any, Rejection | None]:
        root = self.path if self.path.is_dir() else self.path.parent
        origin = printable(os.path.relpath(file, root))
        found, parsed = read_json(str(file), origin, exact_json)
        self.notes.files += 1
        self.notes.bytes += len(found.data)
        return origin, found.data, parsed, found.rejection

    def _nodes(self, folder: Path) -> dict[str, Any] | Rejection:
        """Return the nodes of a folder by id; none if it has no document store."""
        file = next((folder / name for name in _DOCUMENTS if (folder / name).exists()), None)
        if file is None:
            return {}
        origin, data, parsed, rejection = self._read(file)
        if rejection is not None:
            return rejection
        nodes = parsed.get("docstore/data", {}) if isinstance(parsed, dict) else None
        if not isinstance(nodes, dict):
            return Rejection(origin, Reason.UNPARSABLE, "no docstore/data in it", data)
        return nodes

    def _vectors(self, file: Path, nodes: dict[str, Any]) -> Iterator[Item | Rejection]:
        origin, data, parsed, rejection = self._read(file)
        if rejection is not None:
            yield rejection
            return
        embeddings = _embeddings(parsed)
        if embeddings is None:
            yield Rejection(origin, Reason.NO_VECTOR, "no embedding_dict in it", data)
            return
        references = parsed.get("text_id_to_ref_doc_id", parsed.get("textIdToRefDocId"))
        extra = parsed.get("metadata_dict", parsed.get("metadataDict"))
        namespace = _DEFAULT_NAMESPACE
        if file.name.endswith(f"__{_VECTORS}"):
            namespace = printable(file.name.removesuffix(f"__{_VECTORS}"))
        for key, vector in embeddings.items():
            node = _node(nodes.get(key))
            metadata = _metadata(node, _of(extra, key), _of(references, key))
            if namespace != _DEFAULT_NAMESPACE and isinstance(metadata, dict):
                metadata["namespace"] = namespace
            yield Item(
                key=self._key(file, namespace, key),
                content=None if node is None else node.get("text"),
                vector=vector,
                metadata=metadata,
                model_id=self.defaults.model_id,
                created_at=None,
                source=self.defaults.source or FORMAT,
                origin=f"{origin}#{key}",
                payload=partial(as_payload, {"embedding": vector, "node": node}, data),
            )

    def _key(self, file: Path, namespace: str, key: str) -> str:
        """Return the node's id; where a store is one of several, with which one it is."""
        parts = [] if namespace == _DEFAULT_NAMESPACE else [namespace]
        if len({one.parent for one in self._files}) > 1:
            parts.insert(0, printable(os.path.relpath(file.parent, self.path)))
        return "/".join([*parts, key])


def _of(values: Any, key: str) -> Any:
    return values.get(key) if isinstance(values, dict) else None


def _node(entry: Any) -> dict[str, Any] | None:
    """Return a node's fields; TypeScript keeps them as JSON in a string."""
    data = entry.get("__data__") if isinstance(entry, dict) else None
    if isinstance(data, str):
        try:
            data = exact_json(data.encode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            return None
    return data if isinstance(data, dict) else None


def _metadata(node: dict[str, Any] | None, extra: Any, reference: Any) -> Any:
    """Return the node's own metadata, then what the vector store adds."""
    own = (node or {}).get("metadata", (node or {}).get("extra_info"))
    if own is not None and not isinstance(own, dict):
        return own  # normalize says what is wrong with it
    merged: dict[str, Any] = dict(extra) if isinstance(extra, dict) else {}
    merged |= own or {}
    if isinstance(reference, str) and reference != "None":
        merged.setdefault("ref_doc_id", reference)
    return merged
