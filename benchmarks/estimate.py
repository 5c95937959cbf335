"""How near `harca inspect`'s estimate is to what a migration really takes.

Each store is a JSONL file of synthetic records; it is migrated into a new database, and
table, indexes and times are compared with what `inspect` said before.
"""

import json
import random
from functools import partial
from pathlib import Path
from time import perf_counter

from _common import Embeddings, parser, scratch_folder, server_facts, show, temporary_database

from harca.inspect import inspect
from harca.migrate import migrate
from harca.options import LoadOptions
from harca.postgres.connect import Database

# dims, records, characters of text
STORES = ((100, 20_000, 200), (384, 10_000, 800), (768, 5_000, 3_000), (1536, 5_000, 1_000),
          (3072, 2_000, 1_000), (384, 500, 400))  # fmt: skip


def write(path: Path, dims: int, records: int, characters: int) -> None:
    """Write a store of records whose texts are words, so that they compress as prose does."""
    chosen = random.Random(dims)
    words = [
        "".join(chosen.choices("abcdefghijklmnopqrstuvwxyz", k=chosen.randint(2, 9)))
        for _ in range(5_000)
    ]
    embeddings = Embeddings(dims)
    with path.open("w") as file:
        for number in range(records):
            text = " ".join(chosen.choices(words, k=characters // 6))
            row = {
                "id": f"record-{number:08}",
                "text": text,
                "metadata": {"source": f"docs/{number % 100}.md", "page": number % 37},
                "embedding": [round(float(one), 8) for one in embeddings.draw(1)[0]],
            }
            file.write(json.dumps(row) + "\n")


def _itself(target: Database) -> Database:
    return target


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    given = options.parse_args()
    rows = []
    with temporary_database(given.database) as target, target.connect() as conn:
        facts = server_facts(conn)
    for dims, records, characters in STORES:
        with scratch_folder(given.scratch) as folder, temporary_database(given.database) as target:
            path = folder / "items.jsonl"
            write(path, dims, records, characters)
            about = inspect(path).estimate
            started = perf_counter()
            done = migrate(path, partial(_itself, target), LoadOptions())
            seconds = perf_counter() - started
            with target.connect() as conn:
                found = conn.execute(
                    "SELECT pg_table_size('vector_embeddings'), "
                    "pg_indexes_size('vector_embeddings')"
                ).fetchone()
            assert found is not None
            rows.append(
                {
                    "dims": dims,
                    "records": records,
                    "table MB": round(found[0] / 1e6, 1),
                    "estimated / found": round(about.table_bytes / found[0], 2),
                    "indexes MB": round(found[1] / 1e6, 1),
                    "indexes, est. / found": round(about.index_bytes / found[1], 2),
                    "load s": round(done.result.seconds, 1),
                    "load, est. / found": round(about.load_s / done.result.seconds, 2),
                    "rest s": round(seconds - done.result.seconds, 1),
                    "index s est.": round(about.index_s, 1),
                }
            )
    show(facts, rows, {}, as_json=given.json)


if __name__ == "__main__":
    main()
