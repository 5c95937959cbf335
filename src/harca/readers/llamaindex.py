"""LlamaIndex's simple vector stores, as ```StorageContext.persist``` writes them.

A folder holds vectors (``vector_store.json``, or since 0.10 ``NAMESPACE__vector_store.json``)
and, in ``docstore.json``, the nodes with their texts. The TypeScript version writes the same
in camelCase, the document store as ``doc_store.json`` and each node as JSON in a string.

Established from stores of 2023, 2024 and 2025 and llama_index's ``SimpleVectorStoreData``
and ``SimpleDocumentStore``.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from harca.errors import counted
from harca.model import Item, Reason, Rejection
from harca.readers.base import Defaults, StoreReader
from harca.readers.files import (
    as_payload,
    exact_json,
    head,
    open_binary,
    origin_of,
    printable,
    read_json,
    size_of,
)
from harca.readers.json_stream import Damaged, Scanner, damage, elements_at

FORMAT = "llamaindex"

_VECTORS = "vector_store.json"
_DOCUMENTS = ("docstore.json", "doc_store.json")
_EMBEDDINGS = ("embedding_dict", "embeddingDict")
_DEFAULT_NAMESPACE = "default"


def open_path(path: Path, defaults: Defaults) -> "LlamaIndexReader | None":
    """Return a reader if *path* is a folder that LlamaIndex has written, or a file of one."""
    if path.is_dir():
        files = sorted(
            path / name
            for name in (one.name for one in path.iterdir())
            if name == _VECTORS or name.endswith(f"__{_VECTORS}")
        )
    else:
        files = [path]
    named = [file for file in files if head(file, 1)]  # raises if it is a Git LFS pointer
    ours = [file for file in named if _embeddings_in(file) is not None]
    return LlamaIndexReader(path, files if path.is_dir() else ours, defaults) if ours else None


def _embeddings_in(file: Path) -> str | None:
    """Return what the field with the vectors is called; None if the file has none."""
    if head(file, 1) not in (b"{", b" ", b"\n"):
        return None
    try:
        with open_binary(file) as stream:
            scanner = Scanner(stream)
            for name in scanner.members():
                if name in _EMBEDDINGS and scanner.peek() == b"{":
                    return name
                scanner.value()
    except (Damaged, OSError):
        return None
    return None


class LlamaIndexReader(StoreReader):
    """Reads one vector store after the other; memory is the nodes with their texts."""

    format = FORMAT

    def __init__(self, path: Path, files: list[Path], defaults: Defaults) -> None:
        super().__init__(path, defaults)
        self._files = files

    def read(self) -> Iterator[Item | Rejection]:
        """Yield every vector with its node's text."""
        self.notes.why = f"{counted(len(self._files), 'vector store')} with an embedding_dict"
        nodes = self._nodes(self._files[0].parent)
        if isinstance(nodes, Rejection):
            yield nodes  # without the texts there is no record; once said is enough
            return
        for file in self._files:
            yield from self._vectors(file, nodes)

    def _nodes(self, folder: Path) -> dict[str, Any] | Rejection:
        """Return the nodes of a folder by id; none if it has no document store."""
        file = next((folder / name for name in _DOCUMENTS if (folder / name).exists()), None)
        if file is None:
            return {}
        origin = origin_of(file, self.path)
        found, parsed = read_json(str(file), origin, exact_json)
        self.notes.files += 1
        self.notes.bytes += len(found.data)
        if found.rejection is not None:
            return found.rejection
        nodes = parsed.get("docstore/data", {}) if isinstance(parsed, dict) else None
        if not isinstance(nodes, dict):
            return Rejection(origin, Reason.UNPARSABLE, "no docstore/data in it", found.data)
        return nodes

    def _vectors(self, file: Path, nodes: dict[str, Any]) -> Iterator[Item | Rejection]:
        origin = origin_of(file, self.path)
        self.notes.files += 1
        self.notes.bytes += size_of(file)
        namespace = _DEFAULT_NAMESPACE
        if file.name.endswith(f"__{_VECTORS}"):
            namespace = printable(file.name.removesuffix(f"__{_VECTORS}"))
        prefix = "" if namespace == _DEFAULT_NAMESPACE else f"{namespace}/"
        try:
            field, beside = _beside(file)
            if field is None:
                yield Rejection(origin, Reason.NO_VECTOR, "no embedding_dict in it")
                return
            with open_binary(file) as stream:
                for element in elements_at(stream, [field]):
                    key, at = str(element.key), f"{origin}#{element.key}"
                    try:
                        vector = element.value()
                    except (ValueError, RecursionError) as exc:
                        yield Rejection(at, Reason.UNPARSABLE, str(exc)[:200], element.data)
                        continue
                    node = _node(nodes.get(key))
                    metadata = _metadata(node, *(_of(values, key) for values in beside))
                    if prefix and isinstance(metadata, dict):
                        metadata["namespace"] = namespace
                    yield Item(
                        key=prefix + key,
                        content=None if node is None else node.get("text"),
                        vector=vector,
                        metadata=metadata,
                        model_id=self.defaults.model_id,
                        created_at=None,
                        source=self.source,
                        origin=at,
                        payload=partial(
                            as_payload, {"embedding": vector, "node": node}, element.data
                        ),
                    )
        except Damaged as exc:
            yield damage(file, origin, exc)
        except OSError as exc:
            yield Rejection(origin, Reason.UNREADABLE, exc.strerror or str(exc))


def _beside(file: Path) -> tuple[str | None, tuple[Any, Any]]:
    """Return the name of the field with the vectors, and what stands beside it."""
    field, extra, references = None, None, None
    with open_binary(file) as stream:
        scanner = Scanner(stream)
        for name in scanner.members():
            if name in ("metadata_dict", "metadataDict"):
                extra = scanner.parsed()
            elif name in ("text_id_to_ref_doc_id", "textIdToRefDocId"):
                references = scanner.parsed()
            else:
                field = name if name in _EMBEDDINGS else field
                scanner.value()
    return field, (extra, references)


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
