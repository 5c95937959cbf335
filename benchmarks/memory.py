"""Whether a migration's memory depends on the size of the store.

Runs ``harca migrate STORE --json`` as a process of its own and asks the kernel for its
peak resident set (``wait4``). The server's processes are not its children.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from _common import (
    numbers,
    parser,
    scratch_folder,
    server_facts,
    settle,
    show,
    temporary_database,
    write_store,
)

ALLOWED_MB = 150
_DIGITS = 3  # quick to write, and no matter for memory
_KIB_PER_MB = 1024


def migrate(store: Path, url: str) -> tuple[float, float, dict[str, Any]]:
    """Return peak memory in MB, seconds, and what the command printed."""
    command = [sys.executable, "-m", "harca", "migrate", str(store), "--json", "--quiet"]
    started = perf_counter()
    with subprocess.Popen(
        [*command, "--database", url], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"harca migrate ended with {process.returncode}: {printed}")
    return used.ru_maxrss / _KIB_PER_MB, perf_counter() - started, json.loads(printed)


def measure(records: int, dims: int, scratch: Path | None, database: str | None) -> dict[str, Any]:
    """Write a store, migrate it, and delete both it and the database."""
    with (
        scratch_folder(scratch) as folder,
        temporary_database(database, revision="base") as target,
    ):
        size = write_store(folder, records=records, dims=dims, digits=_DIGITS)
        with target.connect() as conn:
            settle(conn)
        peak, seconds, printed = migrate(folder, target.url(password=True))
    if not printed["verified"] or printed["loaded"] != records:
        raise SystemExit(f"loaded {printed['loaded']} of {records} records: {printed}")
    return {
        "records": records,
        "store MB": round(size / 1_000_000),
        "peak MB": round(peak, 1),
        "seconds": round(seconds, 1),
        "of them loading": printed["seconds"],
        "records/s loading": printed["rows_per_s"],
    }


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--records", type=numbers, default="10000,200000")
    options.add_argument("--dims", type=int, default=384)
    given = options.parse_args()

    with temporary_database(given.database) as target, target.connect() as conn:
        facts = server_facts(conn)
    rows = [
        measure(records, given.dims, given.scratch, given.database) for records in given.records
    ]
    more = rows[-1]["peak MB"] - rows[0]["peak MB"]
    notes = {
        "dims": given.dims,
        "the last above the first, MB": round(more, 1),
        f"within {ALLOWED_MB} MB": "yes" if more <= ALLOWED_MB else "no",
    }
    show(facts, rows, notes, as_json=given.json)


if __name__ == "__main__":
    main()
