"""Stores laid out as Chroma and LangChain.js lay them out, without either."""

import json
import pickle
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

Entry = tuple[str, list[float]]

COLLECTION = "5a3c9d6e-0000-4000-8000-00000000c011"
TABLES = "5a3c9d6e-0000-4000-8000-00000000be7a"
INDEX = "5a3c9d6e-0000-4000-8000-00000000face"
ADD, UPDATE, UPSERT, DELETE = range(4)

_QUEUE = """CREATE TABLE embeddings_queue (seq_id INTEGER PRIMARY KEY,
created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, operation INTEGER NOT NULL,
topic TEXT NOT NULL, id TEXT NOT NULL, vector BLOB, encoding TEXT, metadata TEXT);"""
_RECORDS = """CREATE TABLE embeddings (id INTEGER PRIMARY KEY, segment_id TEXT NOT NULL,
embedding_id TEXT NOT NULL, seq_id BLOB NOT NULL,
created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, UNIQUE (segment_id, embedding_id));
CREATE TABLE embedding_metadata (id INTEGER REFERENCES embeddings(id), key TEXT NOT NULL,
string_value TEXT, int_value INTEGER, float_value REAL{boolean}, PRIMARY KEY (id, key));"""
_SETTINGS = """CREATE TABLE collection_metadata (collection_id TEXT, key TEXT NOT NULL,
str_value TEXT, int_value INTEGER, float_value REAL, PRIMARY KEY (collection_id, key));
CREATE TABLE segment_metadata (segment_id TEXT, key TEXT NOT NULL,
str_value TEXT, int_value INTEGER, float_value REAL, PRIMARY KEY (segment_id, key));"""
_DATABASES = """CREATE TABLE tenants (id TEXT PRIMARY KEY, UNIQUE (id));
CREATE TABLE databases (id TEXT PRIMARY KEY, name TEXT NOT NULL, tenant_id TEXT NOT NULL,
UNIQUE (tenant_id, name));
INSERT INTO tenants VALUES ('default_tenant');
INSERT INTO databases VALUES ('0', 'default_database', 'default_tenant');"""
_SCHEMAS = {
    "0.4.0": _QUEUE
    + _RECORDS.format(boolean="")
    + _SETTINGS
    + """CREATE TABLE collections (id TEXT PRIMARY KEY, name TEXT NOT NULL, topic TEXT NOT NULL,
dimension INTEGER, UNIQUE (name));
CREATE TABLE segments (id TEXT PRIMARY KEY, type TEXT NOT NULL, scope TEXT NOT NULL, topic TEXT,
collection TEXT);
CREATE TABLE max_seq_id (segment_id TEXT PRIMARY KEY, seq_id BLOB NOT NULL);""",
    "0.5": _QUEUE
    + _RECORDS.format(boolean=", bool_value INTEGER")
    + _SETTINGS
    + _DATABASES
    + """CREATE TABLE collections (id TEXT PRIMARY KEY, name TEXT NOT NULL, dimension INTEGER,
database_id TEXT NOT NULL, config_json_str TEXT, UNIQUE (name, database_id));
CREATE TABLE segments (id TEXT PRIMARY KEY, type TEXT NOT NULL, scope TEXT NOT NULL,
collection TEXT);
CREATE TABLE max_seq_id (segment_id TEXT PRIMARY KEY, seq_id BLOB NOT NULL);""",
    "1.x": _QUEUE
    + _RECORDS.format(boolean=", bool_value INTEGER")
    + _SETTINGS
    + _DATABASES
    + """CREATE TABLE collections (id TEXT PRIMARY KEY, name TEXT NOT NULL, dimension INTEGER,
database_id TEXT NOT NULL, config_json_str TEXT, schema_str TEXT, UNIQUE (name, database_id));
CREATE TABLE segments (id TEXT PRIMARY KEY, type TEXT NOT NULL, scope TEXT NOT NULL,
collection TEXT NOT NULL);
CREATE TABLE max_seq_id (segment_id TEXT PRIMARY KEY, seq_id INTEGER);
CREATE TABLE embedding_metadata_array (id INTEGER NOT NULL, key TEXT NOT NULL, string_value TEXT,
int_value INTEGER, float_value REAL, bool_value INTEGER);""",
}


def floats(vector: Sequence[float]) -> bytes:
    return np.array(vector, "<f4").tobytes()


class ChromaStore:
    """A store under construction: what is written, and how far each segment has come."""

    def __init__(self, folder: Path, version: str = "0.5") -> None:
        self.folder, self.version = folder, version
        folder.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(folder / "chroma.sqlite3", isolation_level=None)
        # As if it had a journal; without waiting for the disk.
        self.db.execute("PRAGMA synchronous = OFF")
        self.db.executescript(f"BEGIN; {_SCHEMAS[version]} COMMIT;")

    def __enter__(self) -> "ChromaStore":
        return self

    def __exit__(self, *exc: object) -> None:
        self.db.close()

    def collection(
        self,
        name: str = "docs",
        *,
        id: str = COLLECTION,
        tables: str = TABLES,
        index: str = INDEX,
        dims: int = 3,
        database: str = "0",
        space: str | None = None,
        **more: Any,
    ) -> None:
        row: dict[str, Any] = {"id": id, "name": name, "dimension": dims, **more}
        if self.version == "0.4.0":
            row["topic"] = topic(id)
        else:
            row["database_id"] = database
        self.insert("collections", **row)
        kind = "urn:chroma:segment"
        self.insert("segments", id=index, type=f"{kind}/vector/hnsw", scope="VECTOR", collection=id)
        self.insert(
            "segments", id=tables, type=f"{kind}/metadata/sqlite", scope="METADATA", collection=id
        )
        if space is not None:
            self.insert("collection_metadata", collection_id=id, key="hnsw:space", str_value=space)

    def insert(self, table: str, **row: Any) -> None:
        columns, marks = ", ".join(row), ", ".join("?" * len(row))
        self.db.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(row.values()))

    def log(
        self,
        seq: int,
        key: str,
        vector: Sequence[float] | None = None,
        *,
        operation: int = ADD,
        metadata: Any = None,
        collection: str = COLLECTION,
    ) -> None:
        self.insert(
            "embeddings_queue",
            seq_id=seq,
            operation=operation,
            topic=topic(collection),
            id=key,
            vector=None if vector is None else floats(vector),
            encoding=None if vector is None else "FLOAT32",
            metadata=json.dumps(metadata) if isinstance(metadata, dict) else metadata,
            created_at="2024-05-06 07:08:09",
        )

    def record(
        self, key: str, text: str | None, *, seq: int, segment: str = TABLES, **values: Any
    ) -> int:
        """Write a record into the tables; return its number."""
        row = self.db.execute(
            "INSERT INTO embeddings (segment_id, embedding_id, seq_id, created_at) "
            "VALUES (?, ?, ?, '2024-01-02 03:04:05') RETURNING id",
            (segment, key, self._seq(seq)),
        ).fetchone()
        if text is not None:
            values = {"chroma:document": text, **values}
        columns = {str: "string_value", int: "int_value", float: "float_value", bool: "bool_value"}
        for name, value in values.items():
            column = columns[type(value)]
            self.insert("embedding_metadata", id=row[0], key=name, **{column: value})
        return int(row[0])

    def reached(self, segment: str, seq: int) -> None:
        """Note that a segment has all operations up to *seq*."""
        self.insert("max_seq_id", segment_id=segment, seq_id=self._seq(seq))

    def _seq(self, seq: int) -> Any:
        return seq if self.version == "1.x" else seq.to_bytes(8, "big")

    def index(
        self,
        vectors: Mapping[str, Sequence[float]],
        *,
        segment: str = INDEX,
        saved: int | None = None,
        deleted: Sequence[int] = (),
        lengths: Sequence[float] | None = None,
    ) -> Path:
        """Write an index with these vectors, in labels from 1."""
        folder = self.folder / segment
        folder.mkdir()
        labels = {key: number for number, key in enumerate(vectors, 1)}
        maps = {
            "dimensionality": None if self.version == "1.x" else 3,
            "total_elements_added": len(labels),
            "max_seq_id": saved,
            "id_to_label": labels,
            "label_to_id": {label: key for key, label in labels.items()},
            "id_to_seq_id": {},
        }
        dumped = pickle.dumps(maps) if self.version == "1.x" else pickled_object(maps)
        (folder / "index_metadata.pickle").write_bytes(dumped)
        header, elements, links = hnsw(
            list(enumerate(vectors.values(), 1)), deleted=deleted, room=len(vectors) + 5
        )
        (folder / "header.bin").write_bytes(struct.pack("<i", 1) + header)
        (folder / "data_level0.bin").write_bytes(elements + bytes(5 * len(elements)))
        given = [1e-41] * len(vectors) if lengths is None else lengths
        (folder / "length.bin").write_bytes(floats(given))
        (folder / "link_lists.bin").write_bytes(links)
        return folder


def topic(collection: str) -> str:
    return f"persistent://default/default/{collection}"


def pickled_object(state: Mapping[str, Any]) -> bytes:
    """Return the pickle of an object of the class that Chroma uses, made of its opcodes."""
    name = b"chromadb.segment.impl.vector.local_persistent_hnsw\nPersistentData\n"
    inner = pickle.dumps(dict(state), 2).removeprefix(b"\x80\x02").removesuffix(b".")
    return b"\x80\x02c" + name + b")\x81" + inner + b"b."  # GLOBAL, NEWOBJ, state, BUILD


def hnsw(
    entries: Sequence[tuple[int, Sequence[float]]], *, deleted: Sequence[int] = (), room: int = 0
) -> tuple[bytes, bytes, bytes]:
    """Return header, elements and upper links of an index with M=2."""
    dims = len(entries[0][1]) if entries else 3
    data = 4 * 4 + 4
    label = data + 4 * dims
    header = struct.pack(
        "<6QiI3QdQ",
        0, max(room, len(entries)), len(entries), label + 8, label, data, 0, 0, 2, 4, 2, 1.44, 100,
    )  # fmt: skip
    elements = b"".join(
        struct.pack("<I4I", 0x10000 if number in deleted else 0, 0, 0, 0, 0)
        + floats(vector)
        + struct.pack("<Q", number)
        for number, vector in entries
    )
    return header, elements, bytes(4 * len(entries))


def chroma(folder: Path, entries: Sequence[Entry], *, version: str = "0.5") -> Path:
    """Write a store as each version leaves it: 0.4 with all in the log, 0.5 with an index too.

    In 0.5 the log is cut behind the index; in 1.x the tables lag behind the log as well.
    """
    ids = [f"id {number} {text[:99]}" for number, (text, _) in enumerate(entries)]
    half = {"0.4.0": 0, "0.5": len(ids) - len(ids) // 2, "1.x": len(ids) - len(ids) // 2}[version]
    applied = len(ids) if version != "1.x" else half + (len(ids) - half) // 2
    with ChromaStore(folder / "db", version) as store:
        store.db.execute("BEGIN")
        store.collection()
        for number, (key, (text, vector)) in enumerate(zip(ids, entries, strict=True)):
            if number >= half:
                store.log(number + 1, key, vector, metadata={"chroma:document": text, "n": number})
            if number < applied:
                store.record(key, text, seq=number + 1, n=number)
        store.reached(TABLES, applied)
        if half:
            vectors = {key: vector for key, (_, vector) in list(zip(ids, entries, strict=True))}
            store.index(dict(list(vectors.items())[:half]))
            store.reached(INDEX, half)
        store.db.execute("COMMIT")
    return folder / "db"


def chroma_without_records(folder: Path) -> Path:
    with ChromaStore(folder / "db") as store:
        store.collection()
    return folder / "db"


def chroma_parquet(folder: Path, entries: Sequence[Entry]) -> Path:
    rows = [
        {
            "collection_uuid": COLLECTION,
            "uuid": f"uuid {number}",
            "embedding": vector,
            "document": text,
            "id": f"id {number} {text[:99]}",
            "metadata": json.dumps({"n": number}),
        }
        for number, (text, vector) in enumerate(entries)
    ]
    collections = [{"uuid": COLLECTION, "name": "docs", "metadata": '{"hnsw:space": "cosine"}'}]
    write_chroma_parquet(folder / "db", rows, collections)
    return folder / "db"


def write_chroma_parquet(
    folder: Path, rows: Sequence[Mapping[str, Any]], collections: Sequence[Mapping[str, Any]]
) -> None:
    pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    texts = ["collection_uuid", "uuid", "document", "id", "metadata"]
    fields = [pa.field(name, pa.string()) for name in texts]
    fields.insert(2, pa.field("embedding", pa.list_(pa.float64())))
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), schema=pa.schema(fields))
    pq.write_table(table, folder / "chroma-embeddings.parquet", compression="NONE")
    names = pa.schema([pa.field(name, pa.string()) for name in ("uuid", "name", "metadata")])
    table = pa.Table.from_pylist(list(collections), schema=names)
    pq.write_table(table, folder / "chroma-collections.parquet", compression="NONE")


def chroma_parquet_without_records(folder: Path) -> Path:
    write_chroma_parquet(folder / "db", [], [])
    return folder / "db"


def langchain_js(folder: Path, entries: Sequence[Entry]) -> Path:
    documents: list[Any] = [
        [str(number), {"pageContent": text, "metadata": {"n": number}}]
        for number, (text, _) in enumerate(entries)
    ]
    vectors = [vector for _, vector in entries]
    return write_langchain_js(folder / "store", documents, vectors)


def write_langchain_js(
    folder: Path, documents: Any, vectors: Sequence[Sequence[float]], *, space: str = "l2"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hnswlib.index").write_bytes(b"".join(hnsw(list(enumerate(vectors)))))
    (folder / "docstore.json").write_text(json.dumps(documents), encoding="utf-8")
    arguments = {"space": space, "numDimensions": 3}
    (folder / "args.json").write_text(json.dumps(arguments))
    return folder


def langchain_js_without_documents(folder: Path) -> Path:
    return write_langchain_js(folder / "store", [], [])


def change(database: Path, *statements: str) -> None:
    """Run statements on a store's database."""
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)
