"""Whether a migration's memory depends on the size of the store.

Runs ``harca migrate STORE --json`` as a process of its own, and looks every few milliseconds
at what it and the process that reads ahead for it hold together. The server's processes are
not its children.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import psutil
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
_BYTES_PER_MB = 1_048_576
_EVERY_S = 0.01


def migrate(store: Path, url: str) -> tuple[float, float, dict[str, Any]]:
    """Return peak memory in MB, seconds, and what the command printed."""
    command = [sys.executable, "-m", "harca", "migrate", str(store), "--json", "--quiet"]
    started = perf_counter()
    with subprocess.Popen(
        [*command, "--database", url], stdout=subprocess.PIPE, text=True
    ) as process:
        peak = _Peak(process.pid)
        printed, _ = process.communicate()
        seconds = perf_counter() - started
    if process.returncode:
        raise SystemExit(f"harca migrate ended with {process.returncode}: {printed}")
    return peak.bytes() / _BYTES_PER_MB, seconds, json.loads(printed)


class _Peak:
    """The most that a process and its children had resident at one moment; pages that they
    share are counted in each, so it is an upper bound.
    """

    def __init__(self, pid: int) -> None:
        self._bytes = 0
        self._watching = threading.Thread(target=self._watch, args=(psutil.Process(pid),))
        self._watching.start()

    def bytes(self) -> int:
        """Wait for the process to end."""
        self._watching.join()
        return self._bytes

    def _watch(self, process: psutil.Process) -> None:
        while True:
            try:
                now = sum(
                    each.memory_info().rss for each in [process, *process.children(recursive=True)]
                )
            except psutil.NoSuchProcess:  # one of them has just ended
                if not process.is_running():
                    return
                continue
            if not now:  # a zombie: has ended, and is not yet waited for
                return
            self._bytes = max(self._bytes, now)
            sleep(_EVERY_S)


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
