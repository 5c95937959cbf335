"""How many records a transaction should bring in: rows/s of a load by ``--batch-rows``.

Each load is what ``harca migrate`` does between opening the store and building the
indexes, into a new database; the sizes take turns.
"""

from pathlib import Path
from statistics import median
from time import perf_counter

from _common import (
    load_as_migrate,
    numbers,
    parser,
    scratch_folder,
    server_facts,
    settle,
    show,
    temporary_database,
    write_store,
)

from harca.options import LoadOptions
from harca.readers.base import open_store


def measure(store: Path, batch_rows: int, database: str | None) -> float:
    """Return the rows per second of one load into a database of its own."""
    options = LoadOptions(name="benchmark", batch_rows=batch_rows)
    with temporary_database(database) as target, target.connect() as conn:
        settle(conn)
        started = perf_counter()
        read = load_as_migrate(conn, open_store(store), options)
        return read / (perf_counter() - started)


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--batch-rows", type=numbers, default="100,250,500,1000,2000,5000")
    options.add_argument("--dims", type=numbers, default="384,1536")
    options.add_argument("--records", type=int, default=10_000)
    options.add_argument("--repetitions", type=int, default=3)
    given = options.parse_args()

    with temporary_database(given.database) as target, target.connect() as conn:
        facts = server_facts(conn)
    rows = []
    for dims in given.dims:
        rates: dict[int, list[float]] = {size: [] for size in given.batch_rows}
        with scratch_folder(given.scratch) as folder:
            write_store(folder, records=given.records, dims=dims)
            for _ in range(given.repetitions):
                for size, all_ in rates.items():
                    all_.append(measure(folder, size, given.database))
        best = max(median(all_) for all_ in rates.values())
        rows += [
            {
                "dims": dims,
                "batch rows": size,
                "rows/s": round(median(all_), 1),
                "lowest": round(min(all_), 1),
                "highest": round(max(all_), 1),
                "of the best": round(median(all_) / best, 3),
            }
            for size, all_ in rates.items()
        ]
    notes = {"records": given.records, "repetitions": given.repetitions}
    show(facts, rows, notes, as_json=given.json)


if __name__ == "__main__":
    main()
