"""LangChain.js's HNSWLib: a folder with an index, the documents, and its arguments.

``hnswlib.index`` has the vectors by label, ``docstore.json`` the documents as a list of pairs of
label and document, ``args.json`` the space and the number of dimensions.

Established from a store of 2023 and ``libs/langchain-community/src/vectorstores/hnswlib.ts`` of
langchain-ai/langchainjs, and ``hnswlib-node`` for what the index holds.
"""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harca.errors import SourceError, counted
from harca.model import Item, Reason, Rejection, Warn
from harca.readers.base import Defaults, StoreReader
from harca.readers.fields import free_name
from harca.readers.files import (
    as_payload,
    exact_json,
    head,
    open_binary,
    origin_of,
    printable,
    size_of,
)
from harca.readers.hnsw_file import HnswFile, NotHnsw
from harca.readers.json_stream import Damaged, Scanner, damage, elements_at

FORMAT = "langchain-js-hnswlib"

_INDEX = "hnswlib.index"
_DOCUMENTS = "docstore.json"
_ARGUMENTS = "args.json"
_METRICS = {"l2": "l2", "cosine": "cosine", "ip": "inner_product"}
_MOST_ARGUMENTS_BYTES = 1 << 16


def open_path(path: Path, defaults: Defaults) -> "LangChainJsReader | None":
    """Return a reader if *path* is a folder that HNSWLib has saved, or its index.

    Raises:
        LfsPointer: Git LFS left a pointer in place of one of its files.
        SourceError: The index or the documents cannot be read.
    """
    file = path / _INDEX if path.is_dir() else path
    folder = file.parent
    # By its documents first, as hnswlib's header says nothing of itself. FAISS's stores have
    # such documents too, but another index.
    if not head(file, 1) or not _is_list_of_pairs(folder / _DOCUMENTS):
        return None
    try:
        with closing(HnswFile.open(file)):
            return LangChainJsReader(path, file, defaults)
    except (NotHnsw, OSError) as exc:
        if not path.is_dir():
            return None
        raise SourceError(
            f'"{printable(str(file))}" is no index of hnswlib: {exc}',
            hint="Copy the store again, or restore it from a backup.",
        ) from exc


def _is_list_of_pairs(file: Path) -> bool:
    if not head(file, 1):
        return False
    try:
        with open_binary(file) as stream:
            scanner = Scanner(stream)
            scanner.take(b"[")
            return scanner.peek() in (b"[", b"]")
    except (Damaged, OSError):
        return False


class LangChainJsReader(StoreReader):
    """Reads the documents one by one, each with its vector; memory is the labels."""

    format = FORMAT

    def __init__(self, path: Path, file: Path, defaults: Defaults) -> None:
        super().__init__(path, defaults)
        self._file = file
        self._documents = file.parent / _DOCUMENTS

    def read(self) -> Iterator[Item | Rejection]:
        """Yield every document, then the vectors that have none."""
        self.notes.why = "an index of hnswlib with LangChain.js's documents"
        self.notes.metric = self._metric()
        origin = origin_of(self._file, self.path)
        try:
            with closing(HnswFile.open(self._file)) as index:
                self.notes.files += 2
                self.notes.bytes += index.bytes + size_of(self._documents)
                yield from self._records(index, origin)
        except (NotHnsw, OSError) as exc:
            yield Rejection(origin, Reason.UNREADABLE, str(exc)[:200])

    def _metric(self) -> str | None:
        try:
            with open_binary(self._file.parent / _ARGUMENTS) as stream:
                arguments = exact_json(stream.read(_MOST_ARGUMENTS_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        space = arguments.get("space") if isinstance(arguments, dict) else None
        return _METRICS.get(str(space))

    def _records(self, index: HnswFile, index_origin: str) -> Iterator[Item | Rejection]:
        origin = origin_of(self._documents, self.path)
        met: set[int] = set()
        try:
            with open_binary(self._documents) as stream:
                for element in elements_at(stream, []):
                    at = f"{origin}#{element.key}"
                    try:
                        label, document = _pair(element.value())
                    except (ValueError, RecursionError) as exc:
                        yield Rejection(at, Reason.UNPARSABLE, str(exc)[:200], element.data)
                        continue
                    met.add(label)
                    vector = index.vector(label)
                    if vector is None:
                        why = f"the index has no vector {label}"
                        if index.whole < index.count:
                            why += f"; it ends after element {index.whole} of {index.count}"
                        yield Rejection(at, Reason.NO_VECTOR, why, element.data)
                        continue
                    yield self._item(label, document, vector, at, element.data)
        except Damaged as exc:
            # The labels that are left are those of the documents that cannot be read.
            yield damage(self._documents, origin, exc)
            return
        alone = [label for label in index.labels() if label not in met]
        for label in alone:
            found = index.vector(label)
            values = None if found is None else found.tolist()
            yield Rejection(
                f"{index_origin}#{label}",
                Reason.NO_TEXT,
                f"{_DOCUMENTS} has no document {label}",
                as_payload({"label": label, "embedding": values}, b""),
            )
        if self.notes.metric == "cosine" and met:
            what = (
                f"{counted(len(index), 'vector')} scaled to length 1 for cosine distance; the "
                "length is not in the store"
            )
            self.notes.warnings.append((index_origin, Warn.NORMALIZED, what))

    def _item(
        self,
        label: int,
        document: dict[str, Any],
        vector: NDArray[np.float32],
        at: str,
        data: bytes,
    ) -> Item:
        metadata = document.get("metadata")
        own = document.get("id")
        if own is not None and isinstance(metadata, dict | None):
            metadata = dict(metadata or {})
            metadata[free_name(metadata, "id")] = own
        return Item(
            key=str(label),
            content=document.get("pageContent"),
            vector=vector,
            metadata=metadata,
            model_id=self.defaults.model_id,
            created_at=None,
            source=self.source,
            origin=at,
            payload=partial(_payload, label, document, vector, data),
        )


def _pair(value: Any) -> tuple[int, dict[str, Any]]:
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], dict):
        raise ValueError("expected a pair of label and document")
    label = value[0]
    if isinstance(label, str) and label.isascii() and label.isdigit() and len(label) <= 20:
        label = int(label)
    if not isinstance(label, int) or isinstance(label, bool):
        raise ValueError("expected a number as label")
    return label, value[1]


def _payload(
    label: int, document: dict[str, Any], vector: NDArray[np.float32], whole: bytes
) -> bytes:
    record = {"label": label, "document": document, "embedding": vector.tolist()}
    return as_payload(record, whole)
