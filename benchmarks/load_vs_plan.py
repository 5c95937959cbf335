"""How fast a store is loaded: harca against the plan's own method, fed by the same reader.

The plan's method: rows in batches of 100, one INSERT with 100 VALUES a batch, vectors as
text, metadata as JSON, a commit each, into the table and indexes as revision 3f1a6c0d9b21
(the plan's DDL) makes them. Harca's: what ``harca migrate`` does between opening the store
and building the indexes. Each gets a new database; the contestants take turns.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import psycopg
from _common import (
    load_as_migrate,
    parser,
    scratch_folder,
    server_facts,
    settle,
    show,
    temporary_database,
    write_store,
)

from harca.ahead import reading_ahead
from harca.canonical import object_text
from harca.load import Intake
from harca.model import Record
from harca.options import LoadOptions
from harca.postgres import indexes
from harca.readers.base import open_store

PLAN_REVISION = "3f1a6c0d9b21"
PLAN_BATCH_ROWS = 100
REQUIRED = 8

_OPTIONS = LoadOptions(name="benchmark")
_ROW = "(%s, %s, %s, %s, %s, %s)"


def records(store: Path) -> Intake:
    """Return what every contestant is fed by."""
    return Intake(open_store(store), _OPTIONS, now=datetime.now(UTC))


def read_only(store: Path, conn: psycopg.Connection[Any]) -> None:
    """Read and check the records: no load can be faster."""
    for _ in records(store).records():
        pass


def harca_load(store: Path, conn: psycopg.Connection[Any]) -> None:
    """Load as ``harca migrate`` does; the start of the reading process is in it."""
    reader = open_store(store)
    with reading_ahead(reader) as ahead:
        load_as_migrate(conn, reader, _OPTIONS, ahead=ahead, path=store)


def harca_load_and_index(store: Path, conn: psycopg.Connection[Any]) -> None:
    """Load, then build the index that the space gets."""
    harca_load(store, conn)
    indexes.build(conn)


def plan_load(store: Path, conn: psycopg.Connection[Any]) -> None:
    """Load as the plan has it."""
    reading = records(store).records()
    while batch := list(islice(reading, PLAN_BATCH_ROWS)):
        statement = (
            "INSERT INTO vector_embeddings "
            "(content, embedding, metadata, model_id, created_at, source) VALUES "
            + ", ".join([_ROW] * len(batch))
        )
        with conn.transaction():
            conn.execute(statement, [value for record in batch for value in _values(record)])


def plan_load_without_index(store: Path, conn: psycopg.Connection[Any]) -> None:
    """Load as the plan has it, but for its index on the vectors."""
    conn.execute("DROP INDEX vector_embeddings_embedding_idx")
    plan_load(store, conn)


def _values(record: Record) -> tuple[Any, ...]:
    return (
        record.content,
        f"[{','.join(map(repr, record.embedding.tolist()))}]",
        object_text(record.metadata),
        record.model_id,
        record.created_at,
        record.source,
    )


Contestant = Callable[[Path, psycopg.Connection[Any]], None]
CONTESTANTS: dict[str, tuple[Contestant, str]] = {
    "reading alone": (read_only, "head"),
    "harca: load": (harca_load, "head"),
    "harca: load, then index": (harca_load_and_index, "head"),
    "plan": (plan_load, PLAN_REVISION),
    "plan, without its vector index": (plan_load_without_index, PLAN_REVISION),
}


def measure(contestant: Contestant, revision: str, store: Path, database: str | None) -> float:
    """Return the seconds that one contestant takes in a database of its own."""
    with temporary_database(database, revision=revision) as target, target.connect() as conn:
        settle(conn)
        started = perf_counter()
        contestant(store, conn)
        return perf_counter() - started


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--records", type=int, default=10_000)
    options.add_argument("--dims", type=int, default=1536)
    options.add_argument("--repetitions", type=int, default=3)
    given = options.parse_args()

    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    with scratch_folder(given.scratch) as folder:
        write_store(folder, records=given.records, dims=given.dims)
        with temporary_database(given.database) as target, target.connect() as conn:
            facts = server_facts(conn)
            read_only(folder, conn)  # the files are in memory from here on, for everybody
        for _ in range(given.repetitions):
            for name, (contestant, revision) in CONTESTANTS.items():
                seconds[name].append(measure(contestant, revision, folder, given.database))

    rates = {name: [given.records / taken for taken in all_] for name, all_ in seconds.items()}
    base = median(rates["plan"])
    rows = [
        {
            "contestant": name,
            "rows/s": round(median(all_), 1),
            "lowest": round(min(all_), 1),
            "highest": round(max(all_), 1),
            "times the plan": round(median(all_) / base, 2),
        }
        for name, all_ in rates.items()
    ]
    ratio = median(rates["harca: load"]) / base
    notes = {
        "records": given.records,
        "dims": given.dims,
        "repetitions": given.repetitions,
        "harca's load against the plan's": round(ratio, 2),
        f"at least {REQUIRED}": "yes" if ratio >= REQUIRED else "no",
    }
    show(facts, rows, notes, as_json=given.json)


if __name__ == "__main__":
    main()
