"""LangChain's ``CacheBackedEmbeddings`` over a ``LocalFileStore``: one file per text.

A file's name is the namespace, usually the model's name, and a hash of the text; its content
is the vector as a JSON list. The texts themselves are nowhere in it.

Established from langchain_classic's ``embeddings/cache.py`` (SHA-1 within a UUID of version
5; since 0.3.23 also the hex digits of BLAKE2b, SHA-256 or SHA-512).
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from harca.model import Item, Reason, Rejection, Warn
from harca.readers.base import Defaults, StoreReader
from harca.readers.files import exact_json, head, is_lfs_pointer, origin_of, read_json, walk

FORMAT = "langchain-cache"

_NAME = re.compile(
    r"(?P<namespace>.*?)(?:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|[0-9a-f]{128}|[0-9a-f]{64}|[0-9a-f]{40})"
)
_LOOKED_AT = 20


def open_path(path: Path, defaults: Defaults) -> "CacheReader | None":
    """Return a reader if *path* is a folder of cached vectors."""
    if not path.is_dir():
        return None
    looked_at = 0
    for folder, names in walk(path):
        for name in names:
            file = folder / name
            if _NAME.fullmatch(name) and not is_lfs_pointer(file) and head(file, 1) == b"[":
                found, value = read_json(str(file), name, exact_json)
                if found.rejection is None and _is_vector(value):
                    return CacheReader(path, defaults)
            looked_at += 1
            if looked_at == _LOOKED_AT:
                return None
    return None


def _is_vector(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, float) for one in value)


class CacheReader(StoreReader):
    """Reads one file after the other, in the order of their names."""

    format = FORMAT

    def read(self) -> Iterator[Item | Rejection]:
        """Yield a record for each file that is named after a hash."""
        self.notes.why = "files named after a hash, each a JSON list of numbers"
        for folder, names in walk(self.path):
            for name in names:
                file = folder / name
                origin = origin_of(file, self.path)
                match = _NAME.fullmatch(origin)
                if match is None:
                    self.notes.left_out.append((origin, "not named after a hash"))
                    continue
                found, value = read_json(str(file), origin, exact_json)
                self.notes.files += 1
                self.notes.bytes += len(found.data)
                if found.rejection is not None:
                    yield found.rejection
                elif not isinstance(value, list):
                    detail = "expected a list of numbers"
                    yield Rejection(origin, Reason.NOT_A_VECTOR, detail, found.data)
                else:
                    yield Item(
                        key=origin,
                        content="",
                        vector=value,
                        metadata={},
                        model_id=match["namespace"] or self.defaults.model_id,
                        created_at=None,
                        source=self.source,
                        origin=origin,
                        payload=partial(bytes, found.data),
                        warnings=(Warn.NO_TEXT,),
                    )
