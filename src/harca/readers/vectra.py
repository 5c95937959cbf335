"""Local indexes of Vectra (Stevenic/vectra, JavaScript): a folder with an ``index.json``.

``index.json`` is ``{version, metadata_config, items: [{id, metadata, vector, norm,
metadataFile?}]}``. With a ``metadataFile`` the metadata are in a file of that name beside it,
and only the indexed part of them is in the index. A LocalDocumentIndex adds ``catalog.json``
(names of the documents by id) and each document's text as ``DOCUMENTID.txt``; its items are
chunks, whose text are the characters ``startPos`` to ``endPos`` of that, both included.

Established from ``LocalIndex.ts``, ``LocalDocumentIndex.ts`` and ``LocalDocumentResult.ts`` of
that repository, versions of 2023 to 2026, and a store of 2026.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from harca.model import Item, Reason, Rejection
from harca.readers.base import Defaults, StoreReader
from harca.readers.fields import SAMPLE, FieldMap
from harca.readers.files import (
    as_payload,
    exact_json,
    head,
    open_binary,
    origin_of,
    read_file,
    read_json,
    size_of,
)
from harca.readers.json_stream import Damaged, Scanner, damage, elements_at
from harca.readers.values import key_of

FORMAT = "vectra"

_INDEX = "index.json"
_CATALOG = "catalog.json"


def open_path(path: Path, defaults: Defaults) -> "VectraReader | None":
    """Return a reader if *path* is a folder with a Vectra index, or the index itself."""
    index = path / _INDEX if path.is_dir() else path
    return VectraReader(path, index, defaults) if _is_index(index) else None


def _is_index(file: Path) -> bool:
    if not head(file, 64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return False
    found = set()
    try:
        with open_binary(file) as stream:
            scanner = Scanner(stream)
            for name in scanner.members():
                expected = {"metadata_config": b"{", "items": b"["}.get(name)
                if expected is not None:
                    if scanner.peek() != expected:
                        return False
                    found.add(name)
                    if len(found) == 2:
                        return True
                elif not found and name != "version":
                    return False  # spares reading all of what is something else
                scanner.value()
    except (Damaged, OSError):
        return False
    return False


@dataclass(slots=True)
class _Document:
    """The document of the latest chunk: chunks of one document follow each other.

    Attributes:
        text: UTF-16, as positions count JavaScript's characters; None if it is missing.
        problem: Why it is missing.
    """

    name: str = ""
    text: bytes | None = None
    problem: str = ""


@dataclass(slots=True)
class _Pass:
    """What one pass over the store knows besides the item at hand."""

    uris: dict[str, Any]
    document: _Document = field(default_factory=_Document)


class VectraReader(StoreReader):
    """Reads the items in their order; memory is one item, one document and the catalog."""

    format = FORMAT

    def __init__(self, path: Path, index: Path, defaults: Defaults) -> None:
        super().__init__(path, defaults)
        self._index = index

    def read(self) -> Iterator[Item | Rejection]:
        """Yield every item with its text."""
        self.notes.why = f"{self._index.name} with items and a metadata_config"
        self.notes.metric = "cosine"  # ItemSelector.ts knows no other
        known = _Pass(self._uris())
        rows = self._rows()
        sample = list(islice(rows, SAMPLE))
        plain = [row for row in sample if isinstance(row, dict) and not _is_chunk(row)]
        fields = FieldMap(plain, self.defaults)
        if len(plain) < sum(isinstance(row, dict) for row in sample):
            self.notes.fields["content"] = "documentId.txt, startPos to endPos"
        self.notes.fields = fields.shown | self.notes.fields if plain else self.notes.fields
        origin = origin_of(self._index, self.path)
        for number, row in enumerate(chain(sample, rows)):
            if isinstance(row, Rejection):
                yield row
            elif _is_chunk(row):
                yield self._chunk(row, f"{origin}#{number}", str(number), known)
            else:
                yield fields.item(
                    {name: value for name, value in row.items() if name != "norm"},
                    position=str(number),
                    origin=f"{origin}#{number}",
                    source=self.source,
                    payload=partial(as_payload, row, b""),
                )

    def _rows(self) -> Iterator[dict[str, Any] | Rejection]:
        """Yield the items, with their metadata from a file of its own if they have one."""
        origin = origin_of(self._index, self.path)
        self.notes.files += 1
        self.notes.bytes += size_of(self._index)
        damaged = False
        try:
            with open_binary(self._index) as stream:
                for element in elements_at(stream, ["items"]):
                    at = f"{origin}#{element.key}"
                    try:
                        row = element.value()
                    except (ValueError, RecursionError) as exc:
                        damaged = True
                        yield Rejection(at, Reason.UNPARSABLE, str(exc)[:200], element.data)
                        continue
                    if isinstance(row, dict):
                        damaged = False
                        yield self._with_metadata(row, at)
                    elif not damaged:  # else it is the rest of the item before
                        yield Rejection(at, Reason.UNPARSABLE, "not an object", element.data)
        except Damaged as exc:
            yield damage(self._index, origin, exc)
        except OSError as exc:
            yield Rejection(origin, Reason.UNREADABLE, exc.strerror or str(exc))

    def _with_metadata(self, row: dict[str, Any], origin: str) -> dict[str, Any] | Rejection:
        name = row.get("metadataFile")
        if name is None:
            return row
        payload = as_payload(row, b"")
        if not _stays_inside(name):
            return Rejection(
                origin, Reason.UNREADABLE, f"metadataFile {str(name)[:200]!r} is no file's name",
                payload,
            )  # fmt: skip
        found, metadata = read_json(str(self._index.parent / name), name, exact_json)
        if found.rejection is not None:
            why = found.rejection
            return Rejection(
                origin, why.reason, f"its metadata, in {name[:200]!r}: {why.detail}", payload
            )
        own = row.get("metadata")
        if isinstance(own, dict) and isinstance(metadata, dict):
            metadata = own | metadata
        return {
            field: value for field, value in row.items() if field != "metadataFile"
        } | {"metadata": metadata}  # fmt: skip

    def _uris(self) -> dict[str, Any]:
        """Return the documents' names by id; none if there is no catalog."""
        file = self._index.parent / _CATALOG
        if not file.exists():
            return {}
        found, catalog = read_json(str(file), _CATALOG, exact_json)
        self.notes.files += 1
        self.notes.bytes += len(found.data)
        uris = catalog.get("idToUri") if isinstance(catalog, dict) else None
        if isinstance(uris, dict):
            return uris
        why = found.rejection.detail if found.rejection else "no idToUri in it"
        self.notes.left_out.append((_CATALOG, f"names of the documents cannot be read: {why}"))
        return {}

    def _chunk(
        self, row: dict[str, Any], origin: str, position: str, known: _Pass
    ) -> Item | Rejection:
        metadata = dict(row["metadata"])
        name, start, end = (metadata[one] for one in ("documentId", "startPos", "endPos"))
        payload = partial(as_payload, row, b"")
        if not _stays_inside(name):
            return Rejection(
                origin, Reason.NO_TEXT, f"documentId {name[:200]!r} is no file's name", payload()
            )
        if known.document.name != name:
            known.document = self._document(name)
        text = known.document.text
        if text is None:
            return Rejection(origin, Reason.NO_TEXT, known.document.problem, payload())
        if not 0 <= start <= end + 1 <= len(text) // 2:
            return Rejection(
                origin, Reason.NO_TEXT,
                f"characters {start} to {end} of {name}.txt, which has {len(text) // 2}",
                payload(),
            )  # fmt: skip
        uri = known.uris.get(name)
        if uri is not None:
            metadata.setdefault("uri", uri)
        return Item(
            key=key_of(row.get("id"), position),
            content=text[2 * start : 2 * end + 2].decode("utf-16-le", "surrogatepass"),
            vector=row.get("vector"),
            metadata=metadata,
            model_id=self.defaults.model_id,
            created_at=None,
            source=self.source,
            origin=origin,
            payload=payload,
        )

    def _document(self, name: str) -> _Document:
        found = read_file(str(self._index.parent / f"{name}.txt"), f"{name}.txt")
        if found.rejection is not None:
            return _Document(
                name, problem=f"its document {name}.txt cannot be read ({found.rejection.reason})"
            )
        self.notes.files += 1
        self.notes.bytes += len(found.data)
        try:
            return _Document(name, found.data.decode().encode("utf-16-le"))
        except UnicodeDecodeError as exc:
            # Vectra writes nothing but UTF-8: it was cut short or changed since.
            return _Document(
                name, problem=f"its document {name}.txt is no UTF-8 from byte {exc.start}"
            )


def _is_chunk(row: dict[str, Any]) -> bool:
    metadata = row.get("metadata")
    return (
        isinstance(metadata, dict)
        and isinstance(metadata.get("documentId"), str)
        and all(type(metadata.get(name)) is int for name in ("startPos", "endPos"))
    )


def _stays_inside(name: Any) -> bool:
    """Say whether *name* is the name of a file in the store's own folder.

    Anybody can have written the index, and what it names ends in the table.
    """
    return (
        isinstance(name, str) and name == Path(name).name and "\0" not in name and "\\" not in name
    )
