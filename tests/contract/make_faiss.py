"""Writes FAISS indexes and the stores that LangChain makes of them, for tests."""

import pickle
import sys
import types
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.stores import Entry

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what SWIG leaves undone
    import faiss

__all__ = ["faiss"]


def make_index(entries: Sequence[Entry], kind: str = "Flat") -> Any:
    """Return an index of a kind that ``faiss.index_factory`` knows, with these vectors."""
    vectors = np.array([vector for _, vector in entries], np.float32)
    # By inner product, as the square of a large component is beyond float32.
    metric = faiss.METRIC_INNER_PRODUCT if kind.startswith("IVF") else faiss.METRIC_L2
    index: Any = faiss.index_factory(vectors.shape[1], kind, metric)
    if not index.is_trained:
        random = np.random.default_rng(1)
        index.train(random.normal(size=(200, vectors.shape[1])).astype(np.float32))
    if kind.startswith("IDMap"):
        index.add_with_ids(vectors, 100 + 3 * np.arange(len(entries), dtype=np.int64))
    else:
        index.add(vectors)
    return index


def write_index(index: Any, path: Path) -> Path:
    """Write an index; FAISS itself takes no name that is not ASCII on every system."""
    path.write_bytes(faiss.serialize_index(index).tobytes())
    return path


class Generation:
    """Where a version of LangChain had its classes, and which pydantic made its documents."""

    def __init__(self, store: str, document: str, *, pydantic: int, with_id: bool = False) -> None:
        self.store, self.document = store, document
        self.pydantic, self.with_id = pydantic, with_id


GENERATIONS = {
    "2023": Generation("langchain.docstore.in_memory", "langchain.schema", pydantic=1),
    "2023 late": Generation(
        "langchain.docstore.in_memory", "langchain.docstore.document", pydantic=1
    ),
    "2024": Generation(
        "langchain_community.docstore.in_memory", "langchain_core.documents.base", pydantic=1
    ),
    "2025": Generation(
        "langchain_community.docstore.in_memory",
        "langchain_core.documents.base",
        pydantic=2,
        with_id=True,
    ),
}


@contextmanager
def _classes(generation: Generation):
    """Have classes of LangChain's names for as long as they are pickled."""
    before = dict(sys.modules)
    made = []
    for module, name in (
        (generation.store, "InMemoryDocstore"),
        (generation.document, "Document"),
    ):
        parts = module.split(".")
        for count in range(1, len(parts) + 1):
            parent = ".".join(parts[:count])
            sys.modules[parent] = types.ModuleType(parent)
        made.append(type(name, (), {"__module__": module}))
        setattr(sys.modules[module], name, made[-1])
    try:
        yield made
    finally:
        for module in set(sys.modules) - set(before):
            del sys.modules[module]
        sys.modules.update(before)


def _document_state(generation: Generation, key: str, text: Any, metadata: Any) -> dict[str, Any]:
    fields = {"page_content": text, "metadata": metadata, "type": "Document"}
    if generation.with_id:
        fields["id"] = key
    if generation.pydantic == 1:
        return {
            "__dict__": fields,
            "__fields_set__": set(fields),
            "__private_attribute_values__": {},
        }
    return {
        "__dict__": fields,
        "__pydantic_extra__": None,
        "__pydantic_fields_set__": set(fields),
        "__pydantic_private__": None,
    }


def pickled(
    texts: dict[str, Any],
    ids: Any,
    *,
    generation: str = "2025",
    metadata: Any = None,
) -> bytes:
    """Return a document store and the ids of its places, as LangChain pickles them."""
    age = GENERATIONS[generation]

    with _classes(age) as (store_class, document_class):
        # An object whose state is another than its attributes, as pydantic's.
        document_class.__getstate__ = lambda self: self.pydantic
        documents = {}
        for key, text in texts.items():
            documents[key] = document_class()
            documents[key].pydantic = _document_state(
                age, key, text, {"n": 1} if metadata is None else metadata
            )
        store = store_class()
        store._dict = documents
        return pickle.dumps((store, ids))


def make_langchain(
    folder: Path, entries: Sequence[Entry], *, kind: str = "Flat", generation: str = "2025"
) -> Path:
    """Write a store of LangChain's with these entries; return its folder."""
    store = folder / "faiss_index"
    store.mkdir()
    write_index(make_index(entries, kind), store / "index.faiss")
    keys = [f"document {number}" for number in range(len(entries))]
    places = [100 + 3 * number for number in range(len(entries))]
    ids = dict(zip(places if kind.startswith("IDMap") else range(len(keys)), keys, strict=True))
    texts = {key: text for key, (text, _) in zip(keys, entries, strict=True)}
    (store / "index.pkl").write_bytes(pickled(texts, ids, generation=generation))
    return store


def make_langchain_empty(folder: Path) -> Path:
    """Write a store of LangChain's without a document."""
    store = folder / "faiss_index"
    store.mkdir()
    write_index(faiss.IndexFlatL2(3), store / "index.faiss")
    (store / "index.pkl").write_bytes(pickled({}, {}))
    return store
