"""The same rows searched by other libraries, where these are installed.

Each has a table of its own in a scratch database, made by the library, filled with the same
rows by COPY (the library's own insert takes hours), and an HNSW index as the library makes it.
"""

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harca.bench.contestant import Key
from harca.bench.process import Backend
from harca.model import Space
from harca.postgres.by_hand import backends_called, calling_itself
from harca.postgres.connect import Database
from harca.postgres.rival_rows import TEXT_ID, UUID_ID, copy_rows

_TABLE = "rival_rows"


@dataclass(frozen=True, slots=True)
class LangChain:
    """``PGVectorStore`` of langchain-postgres: texts and metadata with each result.

    Attributes:
        ef_search: As harca's own search has it; None: the index is pgvector's by default.
    """

    database: Database
    ef_search: int | None = None
    name: str = "langchain-postgres"
    title: str = "langchain-postgres, PGVectorStore"

    def prepare(self, source: Database, space: Space) -> None:
        """Make the table, fill it and index it."""
        from langchain_postgres.v2.indexes import HNSWIndex

        engine = self._engine(self.database)
        engine.init_vectorstore_table(_TABLE, space.dims)
        columns = {
            "langchain_id": UUID_ID,
            "content": "content",
            "embedding": "embedding",
            "langchain_metadata": "metadata",
        }
        copy_rows(source, space, self.database, (_TABLE,), columns)
        self._store(engine).apply_vector_index(HNSWIndex())

    def start(self) -> "_LangChain":
        """Connect."""
        return _LangChain(self)

    def _engine(self, database: Database) -> Any:
        from langchain_postgres import PGEngine

        url = database.url(password=True).replace("postgresql://", "postgresql+psycopg://", 1)
        return PGEngine.from_connection_string(url)

    def _store(self, engine: Any) -> Any:
        from langchain_core.embeddings import FakeEmbeddings
        from langchain_postgres import PGVectorStore
        from langchain_postgres.v2.indexes import HNSWQueryOptions

        options = None if self.ef_search is None else HNSWQueryOptions(ef_search=self.ef_search)
        return PGVectorStore.create_sync(
            engine, FakeEmbeddings(size=1), _TABLE, index_query_options=options
        )


class _LangChain:
    def __init__(self, contestant: LangChain) -> None:
        application = _application()
        engine = contestant._engine(calling_itself(contestant.database, application))
        self._store = contestant._store(engine)
        self.notes = [_version("langchain-postgres")]
        # Making the store has asked the server for its columns: it is connected.
        self.backends: Sequence[Backend] = backends_called(contestant.database, application)

    def before(self) -> None:
        """The engine keeps its connection."""

    def search(self, embedding: NDArray[np.float32], k: int) -> list[Key]:
        """Return the ids of the documents."""
        found = self._store.similarity_search_with_score_by_vector(embedding.tolist(), k=k)
        return [uuid.UUID(str(document.id)).int for document, _ in found]

    def close(self) -> None:
        """The process ends with it."""


@dataclass(frozen=True, slots=True)
class Vecs:
    """A collection of vecs, Supabase's library: the ids of the results, as by default."""

    database: Database
    ef_search: int | None = None
    name: str = "vecs"
    title: str = "vecs, a collection; ids only"

    def prepare(self, source: Database, space: Space) -> None:
        """Make the collection, fill it and index it."""
        import vecs

        client = vecs.create_client(_psycopg2(self.database))
        collection = client.get_or_create_collection(name=_TABLE, dimension=space.dims)
        columns = {"id": TEXT_ID, "vec": "embedding", "metadata": "metadata"}
        copy_rows(source, space, self.database, ("vecs", _TABLE), columns)
        collection.create_index(
            method=vecs.IndexMethod.hnsw, measure=vecs.IndexMeasure.cosine_distance
        )
        client.disconnect()

    def start(self) -> "_Vecs":
        """Connect."""
        return _Vecs(self)


class _Vecs:
    def __init__(self, contestant: Vecs) -> None:
        import vecs

        application = _application()
        named = calling_itself(contestant.database, application)
        self._client = vecs.create_client(_psycopg2(named))
        self._collection = self._client.get_collection(name=_TABLE)
        self._ef_search = contestant.ef_search
        self.notes = [_version("vecs")]
        self.backends: Sequence[Backend] = backends_called(contestant.database, application)

    def before(self) -> None:
        """The client keeps its connection."""

    def search(self, embedding: NDArray[np.float32], k: int) -> list[Key]:
        """Return the ids of the records."""
        found = self._collection.query(data=embedding.tolist(), limit=k, ef_search=self._ef_search)
        return [int(one) for one in found]

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()


RIVALS: dict[str, type[LangChain] | type[Vecs]] = {"langchain-postgres": LangChain, "vecs": Vecs}
"""By the name of the package that has to be installed."""


def is_installed(package: str) -> bool:
    """Say whether *package* is there."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _psycopg2(database: Database) -> str:
    # Its statements have parameters in places where psycopg 3, which SQLAlchemy takes by
    # default since 2.1, cannot have any.
    return database.url(password=True).replace("postgresql://", "postgresql+psycopg2://", 1)


def _version(package: str) -> str:
    return f"{package} {version(package)}"


def _application() -> str:
    return f"harca bench {os.getpid()}"
