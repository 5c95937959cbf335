"""What the tables of Chroma's database say: collections, records, metadata.

Read in short queries, none of which stays open between two records: an open one would keep
Chroma from writing.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harca.readers.files import exact_json

REQUIRED = frozenset(
    {"collections", "segments", "embeddings", "embedding_metadata", "embeddings_queue"}
)
# The latter where a damaged name is no UTF-8: Python can neither look for it, nor say what
# SQLite complains about.
DAMAGE = (sqlite3.DatabaseError, UnicodeError)

BATCH = 256  # SQLite before 3.32 takes 999 parameters

_METRICS = {"cosine": "cosine", "ip": "inner_product"}

# What Chroma embeds with if it is not told otherwise. It is noted as well where the application
# gives vectors of its own, so it only counts for as many dimensions as it makes.
_DEFAULT_FUNCTIONS = ("default", "onnx_mini_lm_l6_v2")
_DEFAULT_MODEL, _DEFAULT_DIMS = "all-MiniLM-L6-v2", 384


@dataclass(frozen=True, slots=True)
class Topic:
    """A collection's operations in the log: what they are filed under, the first, the last."""

    names: tuple[str, ...]
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection, and how far its two segments have come in the log.

    Attributes:
        metric: ``l2``, ``cosine`` or ``inner_product``.
        model: The model that the collection is set up with.
        assumed: The model is Chroma's default, used or not.
        tables: The segment with texts and metadata.
        index: The segment with the vectors.
        applied: The last operation that the tables have.
        saved: Likewise, of the index; None if the database does not say.
        topic: None if the log has nothing of it.
    """

    tenant: str
    database: str
    name: str
    metric: str
    model: str | None
    assumed: bool
    tables: str | None
    index: str | None
    applied: int
    saved: int | None
    topic: Topic | None

    @property
    def path(self) -> str:
        """The name that is unique in the store."""
        return f"{self.tenant}/{self.database}/{self.name}"

    @property
    def pending(self) -> bool:
        """True if the log has operations that the tables do not have."""
        return self.topic is not None and self.topic.last > self.applied


@dataclass(frozen=True, slots=True)
class Row:
    """A record in the tables, or one that only the log has.

    Attributes:
        last: The last operation that changed it in the tables; None if they do not have it.
        metadata: With the text among them.
    """

    key: Any
    last: int | None
    created: Any
    metadata: dict[str, Any]


def seq_id(value: Any) -> int:
    """Return an operation's number: before 1.0 it is kept as big-endian bytes in places."""
    if isinstance(value, bytes):
        return int.from_bytes(value[-8:], "big")
    return value if isinstance(value, int) else 0


class _Known(dict[Any, Any]):
    """What is not in it is damage: a column that was renamed, a row that an index mistakes."""

    def __missing__(self, name: Any) -> Any:
        raise sqlite3.DatabaseError(f"found no {name!r}, where there has to be one"[:200])


def as_dicts(
    db: sqlite3.Connection, query: str, parameters: Sequence[Any] = ()
) -> Iterator[dict[str, Any]]:
    """Yield rows by the names of their columns: those differ between Chroma's versions."""
    cursor = db.execute(query, parameters)
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield _Known(zip(names, row, strict=True))


def marks(values: Sequence[Any]) -> str:
    """Return a list of as many parameters."""
    return f"({','.join('?' * len(values))})"


def table_names(db: sqlite3.Connection) -> set[str]:
    """Return the names of the tables."""
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def collections(db: sqlite3.Connection) -> list[Collection]:
    """Return all collections, in the order of their names."""
    names = table_names(db)
    databases = {}
    if "databases" in names:  # since 0.4.15
        databases = {row["id"]: row for row in as_dicts(db, "SELECT * FROM databases")}
    segments: dict[tuple[Any, Any], str] = {
        (row["collection"], row["scope"]): row["id"]
        for row in as_dicts(db, "SELECT * FROM segments ORDER BY id")
    }
    reached = {
        row["segment_id"]: seq_id(row["seq_id"])
        for row in as_dicts(db, "SELECT * FROM max_seq_id" if "max_seq_id" in names else _NOTHING)
    }
    topics = _topics(db)
    spaces = _spaces(db, names)
    found = []
    for row in as_dicts(db, "SELECT * FROM collections"):
        configured = [
            one for name in ("config_json_str", "schema_str") for one in _configs(row.get(name))
        ]
        tables, index = segments.get((row["id"], "METADATA")), segments.get((row["id"], "VECTOR"))
        database = databases.get(row.get("database_id"), {})
        model, assumed = _model(configured, row.get("dimension"))
        found.append(
            Collection(
                tenant=str(database.get("tenant_id", "default_tenant")),
                database=str(database.get("name", "default_database")),
                name=str(row["name"]),
                metric=_metric(
                    [one.get("space") for one in configured]
                    + [spaces.get(one) for one in (row["id"], index)]
                ),
                model=model,
                assumed=assumed,
                tables=tables,
                index=index,
                applied=reached.get(tables, 0),
                saved=reached.get(index),
                topic=topics.get(row["id"]),
            )
        )
    return sorted(found, key=lambda one: (one.tenant, one.database, one.name))


_NOTHING = "SELECT NULL AS segment_id, NULL AS seq_id WHERE false"


def _topics(db: sqlite3.Connection) -> dict[Any, Topic]:
    """Return what is in the log, by the id of the collection.

    A topic ends in it, behind names that a server can be set up with: another name stands there
    after a move to another server.
    """
    found: dict[Any, Topic] = {}
    for name, first, last in db.execute(
        "SELECT topic, min(seq_id), max(seq_id) FROM embeddings_queue GROUP BY topic"
    ):
        key, first, last = str(name).rpartition("/")[2], seq_id(first), seq_id(last)
        other = found.get(key, Topic((), first, last))
        found[key] = Topic((*other.names, name), min(first, other.first), max(last, other.last))
    return found


def _spaces(db: sqlite3.Connection, names: set[str]) -> dict[Any, Any]:
    """Return the distance that is set in metadata, by collection or segment."""
    return {
        owner: value
        for table, column in (
            ("collection_metadata", "collection_id"),
            ("segment_metadata", "segment_id"),
        )
        if table in names
        for owner, value in db.execute(
            f"SELECT {column}, str_value FROM {table} WHERE key = 'hnsw:space'"  # noqa: S608
        )
    }


def _metric(settings: Sequence[Any]) -> str:
    """Return the distance: l2 is also what stands where nobody has set one."""
    return next((_METRICS[str(one)] for one in settings if str(one) in _METRICS), "l2")


def _configs(text: Any) -> Iterator[dict[str, Any]]:
    """Yield the settings of the index, wherever this version of Chroma puts them.

    0.5 has ``hnsw_configuration``, 1.0 ``hnsw`` and ``embedding_function``, 1.3 a schema with
    ``vector_index`` for each key.
    """
    try:
        config = exact_json(text.encode("utf-8", "surrogateescape"))
        if not isinstance(config, dict):
            return
        yield config
        for name in ("hnsw", "hnsw_configuration", "spann"):
            if isinstance(config.get(name), dict):
                yield config[name]
        yield config["keys"]["#embedding"]["float_list"]["vector_index"]["config"]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return


def _model(configs: Sequence[dict[str, Any]], dims: Any) -> tuple[str | None, bool]:
    """Return the model that a collection is set up with, and whether it is assumed only."""
    for config in configs:
        function = config.get("embedding_function")
        if not isinstance(function, dict) or function.get("type") != "known":
            continue
        settings = function.get("config")
        if isinstance(settings, dict):
            for name in ("model_name", "model"):
                if isinstance(settings.get(name), str) and settings[name]:
                    return settings[name], False
        if function.get("name") in _DEFAULT_FUNCTIONS and dims == _DEFAULT_DIMS:
            return _DEFAULT_MODEL, True
    return None, False


def count(db: sqlite3.Connection, segment: str | None) -> int:
    """Return how many records the tables have of a segment."""
    query = "SELECT count(*) FROM embeddings WHERE segment_id = ?"
    (found,) = db.execute(query, (segment,)).fetchone()
    return int(found)


def without_collection(db: sqlite3.Connection) -> int:
    """Return how many records are left of collections that were deleted."""
    query = "SELECT count(*) FROM embeddings WHERE segment_id NOT IN (SELECT id FROM segments)"
    (found,) = db.execute(query).fetchone()
    return int(found)


def batches(db: sqlite3.Connection, segment: str | None) -> Iterator[list[Row]]:
    """Yield the records of a segment in the order in which they were added."""
    columns = {row["name"] for row in as_dicts(db, "PRAGMA table_info(embedding_metadata)")}
    boolean = "bool_value" if "bool_value" in columns else "NULL"  # since 0.4.4
    scalars = f"string_value, int_value, float_value, {boolean} FROM embedding_metadata"
    arrays = "string_value, int_value, float_value, bool_value FROM embedding_metadata_array"
    with_arrays = "embedding_metadata_array" in table_names(db)  # since 1.5
    after = -(1 << 63)
    while True:
        # Not by the index on the segment: sorting what that finds, again for each batch, would
        # take the square of the time.
        page = db.execute(
            "SELECT id, embedding_id, seq_id, created_at FROM embeddings NOT INDEXED "
            "WHERE segment_id = ? AND id > ? ORDER BY id LIMIT ?",
            (segment, after, BATCH),
        ).fetchall()
        if not page:
            return
        ids = [row[0] for row in page]
        after = ids[-1]
        metadata: dict[int, dict[str, Any]] = _Known({one: {} for one in ids})
        where = f"WHERE id IN {marks(ids)}"
        for one, name, *values in db.execute(f"SELECT id, key, {scalars} {where}", ids):
            metadata[one][str(name)] = _value(*values)
        if with_arrays:
            query = f"SELECT id, key, {arrays} {where} ORDER BY rowid"
            for one, name, *values in db.execute(query, ids):
                items = metadata[one].get(str(name))
                if not isinstance(items, list):
                    items = metadata[one][str(name)] = []
                items.append(_value(*values))
        yield [Row(key, seq_id(last), created, metadata[one]) for one, key, last, created in page]


def _value(text: Any, integer: Any, number: Any, boolean: Any) -> Any:
    """Return a value of metadata. NaN is kept as if there were none."""
    for value in (text, integer, number):
        if value is not None:
            return value
    return None if boolean is None else bool(boolean)
