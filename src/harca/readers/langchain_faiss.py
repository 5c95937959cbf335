"""LangChain's FAISS stores, as ``FAISS.save_local`` writes them: NAME.faiss and NAME.pkl.

The index has the vectors. The pickle is a pair: the document store, with every text and its
metadata by id, and which position in the index has which id.

Established from stores of 2023 to 2025 and langchain's ``vectorstores/faiss.py``,
``docstore/in_memory.py`` and ``documents/base.py``, whose classes moved between packages.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harca.errors import SourceError, counted
from harca.model import Item, Reason, Rejection, Warn
from harca.readers.base import Defaults, StoreReader
from harca.readers.faiss_file import FaissIndex, is_faiss, open_index
from harca.readers.fields import free_name
from harca.readers.files import as_payload, head, origin_of, printable, read_file, size_of
from harca.readers.pickles import Kept, NotAllowed, plain, unpickle
from harca.readers.values import key_of, plain_json

FORMAT = "langchain-faiss"

_INDEX, _TEXTS = ".faiss", ".pkl"

_CLASSES = frozenset(
    [
        (f"{package}.docstore.{module}", name)
        for package in ("langchain", "langchain_community", "langchain_classic")
        for module, name in (
            ("in_memory", "InMemoryDocstore"),
            ("document", "Document"),
            ("base", "Document"),
        )
    ]
    + [
        (module, "Document")
        for module in (
            "langchain.schema",
            "langchain.schema.document",
            "langchain_core.documents",
            "langchain_core.documents.base",
        )
    ]
)
# An index without a pickle is left to the reader of these, if there is one: it may know the
# texts, and an index is often kept beside what it was built from.
_OTHER_STORES = frozenset(
    (".json", ".jsonl", ".csv", ".tsv", ".npy", ".npz", ".parquet", ".db", ".sqlite", ".sqlite3")
)


def open_path(path: Path, defaults: Defaults) -> "LangChainFaissReader | None":
    """Return a reader if *path* is a folder with FAISS indexes, or one of its files.

    Raises:
        LfsPointer: Git LFS left a pointer in place of an index or its texts.
    """
    if path.is_dir():
        names = sorted(one.name for one in path.iterdir())
        indexes = [path / name for name in names if name.endswith(_INDEX)]
        alone = not any(index.with_suffix(_TEXTS).exists() for index in indexes)
        if alone and _OTHER_STORES & {Path(name).suffix.lower() for name in names}:
            return None
    elif path.suffix == _TEXTS:
        indexes = [path.with_suffix(_INDEX)]
    else:
        indexes = [path]
    readable = [index for index in indexes if is_faiss(index)]
    for index in readable:
        head(index.with_suffix(_TEXTS))  # raises if it is a Git LFS pointer
    if not readable:
        return None
    return LangChainFaissReader(path, indexes, defaults)


class LangChainFaissReader(StoreReader):
    """Reads one index after the other; memory is the texts of one, and a chunk of vectors."""

    format = FORMAT

    def __init__(self, path: Path, indexes: list[Path], defaults: Defaults) -> None:
        super().__init__(path, defaults)
        self._indexes = indexes

    def size_hint(self) -> int:
        """Return the number of vectors that the indexes say they have."""
        return sum(open_index(index).total for index in self._indexes if is_faiss(index))

    def read(self) -> Iterator[Item | Rejection]:
        """Yield every vector with its document."""
        self.notes.why = counted(len(self._indexes), "FAISS file")
        for file in self._indexes:
            prefix = f"{printable(file.stem)}/" if len(self._indexes) > 1 else ""
            if not is_faiss(file):
                detail = "no index file of FAISS, as others beside it are"
                yield Rejection(origin_of(file, self.path), Reason.UNPARSABLE, detail)
                continue
            index = open_index(file)
            self.notes.metric = self.notes.metric or index.metric
            self._note(file)
            texts = file.with_suffix(_TEXTS)
            if texts.exists():
                self._note(texts)
                store = _Documents(texts)
            else:
                store = None
            yield from self._vectors(index, store, prefix)

    def _note(self, file: Path) -> None:
        self.notes.files += 1
        self.notes.bytes += size_of(file)

    def _vectors(
        self, index: FaissIndex, documents: "_Documents | None", prefix: str
    ) -> Iterator[Item | Rejection]:
        file = origin_of(index.path, self.path)
        found: set[int] = set()
        try:
            for number, vector in index.vectors():
                found.add(number)
                origin = f"{file}#{number}"
                if documents is None:
                    yield self._item(prefix, str(number), "", vector, {}, origin, Warn.NO_TEXT)
                elif (key := documents.ids.get(number)) is None:
                    payload = as_payload({"embedding": vector.tolist()}, b"")
                    yield Rejection(origin, Reason.NO_TEXT, "no document has its place", payload)
                else:
                    try:
                        content, metadata = documents.get(key)
                    except ValueError as exc:
                        payload = as_payload({"embedding": vector.tolist()}, b"")
                        yield Rejection(origin, Reason.BAD_METADATA, str(exc), payload)
                        continue
                    yield self._item(prefix, key_of(key, ""), content, vector, metadata, origin)
        except OSError as exc:
            yield Rejection(file, Reason.UNREADABLE, exc.strerror or str(exc))
            return
        if index.damage is not None:
            yield Rejection(file, Reason.UNPARSABLE, index.damage)
        elif documents is not None:
            yield from self._without_vectors(documents, found)

    def _item(
        self,
        prefix: str,
        key: Any,
        content: Any,
        vector: Any,
        metadata: Any,
        origin: str,
        *warnings: Warn,
    ) -> Item:
        def payload() -> bytes:
            entry = {"id": key, "text": content, "metadata": metadata}
            return as_payload({**entry, "embedding": vector.tolist()}, b"")

        return Item(
            key=prefix + key if isinstance(key, str) else key,
            content=content,
            vector=vector,
            metadata=metadata,
            model_id=self.defaults.model_id,
            created_at=None,
            source=self.source,
            origin=origin,
            payload=payload,
            warnings=warnings,
        )

    def _without_vectors(self, documents: "_Documents", found: set[int]) -> Iterator[Rejection]:
        """Yield what has a place that the index does not have; note what has no place."""
        file = origin_of(documents.path, self.path)
        placed = set(documents.ids.values())
        for key in documents:
            if key not in placed:
                self.notes.without_vectors.append(f"{file}#{key}")
        for number, key in documents.ids.items():
            if number not in found:
                origin = f"{file}#{key}"
                try:
                    content, metadata = documents.get(key)
                    payload = as_payload({"text": content, "metadata": metadata}, b"")
                except (TypeError, ValueError):
                    payload = b""
                yield Rejection(
                    origin, Reason.NO_VECTOR, f"the index has no vector at {number}", payload
                )


class _Documents:
    """The texts of one index, by the ids of their documents.

    Attributes:
        ids: The document's id of each place in the index.
    """

    def __init__(self, path: Path) -> None:
        """Read the pickle.

        Raises:
            SourceError: It wants to run something, is damaged, or holds something else.
        """
        self.path = path
        found = read_file(str(path), printable(path.name))
        if found.rejection is not None:
            raise self._unread(f"{found.rejection.reason}: {found.rejection.detail}")
        try:
            value = unpickle(found.data, _CLASSES)
        except NotAllowed as exc:
            raise SourceError(
                f'"{printable(str(path))}" is not loaded: {exc}',
                hint="Nothing was run. If this is a class of your own metadata, load the store "
                "with LangChain and save it again with plain values.",
            ) from exc
        except ValueError as exc:
            raise self._unread(str(exc)) from exc
        store, places = value if isinstance(value, tuple) and len(value) == 2 else (None, None)
        documents = store.state.get("_dict") if isinstance(store, Kept) else None
        if isinstance(places, list):
            places = dict(enumerate(places))
        if not isinstance(documents, dict) or not isinstance(places, dict):
            raise self._unread(f"it holds a {type(value).__name__}")
        self._documents: dict[Any, Any] = documents
        self.ids: dict[Any, Any] = places

    def _unread(self, what: str) -> SourceError:
        return SourceError(
            f'"{printable(str(self.path))}" is no document store of LangChain: {what}',
            hint="Restore it from a backup; to move the vectors without their texts, put the "
            f"{_INDEX} file into a folder of its own.",
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self._documents)

    def get(self, key: Any) -> tuple[Any, Any]:
        """Return the text and metadata of a document; no text if there is none.

        Raises:
            ValueError: The metadata cannot be told in JSON.
        """
        document = self._documents.get(key)
        if not isinstance(document, Kept):
            return None, None
        metadata = plain_json(plain(document.state.get("metadata")))
        own_id = document.state.get("id")
        if own_id is not None and own_id != key and isinstance(metadata, Mapping):
            metadata = {**metadata, free_name(metadata, "document_id"): plain_json(own_id)}
        return document.state.get("page_content"), metadata
