"""How long writers wait while an old table of theirs is consolidated, and given back.

A table in the shape of HARCA's ``embeddings`` (jsonb with a trigger that fills the vector),
full of rows; a writer that inserts by the application's statement all the time; then
``alembic upgrade head`` and the way back, each in a process of its own.
"""

import os
import subprocess
import sys
import threading
from statistics import median, quantiles
from time import perf_counter, sleep
from typing import Any

import alembic.command
import psycopg
from _common import parser, server_facts, settle, show, temporary_database

from harca import migrations
from harca.postgres.connect import Database

_BEFORE = "d2f84b6a17e5"
_ALONE_S = 10.0
_ROWS_AT_ONCE = 5_000

_TABLE = """
CREATE TABLE embeddings (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    content text NOT NULL,
    embedding jsonb,
    metadata jsonb,
    created_at timestamptz DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz DEFAULT CURRENT_TIMESTAMP,
    embedding_vector vector({dims})
);
CREATE FUNCTION convert_json_to_vector() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.embedding_vector = NEW.embedding::text::vector;
    RETURN NEW;
END
$$;
CREATE TRIGGER embedding_to_vector BEFORE INSERT OR UPDATE OF embedding ON embeddings
    FOR EACH ROW EXECUTE FUNCTION convert_json_to_vector();
"""

# Correlated with n, or the server would make one vector for all rows.
_FILL = """
INSERT INTO embeddings (content, embedding, metadata)
SELECT 'row ' || n, (
    SELECT jsonb_agg(round((random() - 0.5)::numeric, 6)) FROM generate_series(1, %s + 0 * n)
), jsonb_build_object('n', n)
FROM generate_series(%s::int, %s::int) n
"""


class Writer(threading.Thread):
    """Inserts one row after the other, and notes how long each took."""

    def __init__(self, target: Database, dims: int) -> None:
        super().__init__()
        self._target, self._vector = target, str([0.01] * dims)
        self._stop_now = threading.Event()
        self.taken: list[tuple[float, float]] = []
        self.errors: list[str] = []

    def run(self) -> None:
        """Write until told to stop."""
        with psycopg.connect(self._target.conninfo, autocommit=True) as conn:
            while not self._stop_now.is_set():
                began = perf_counter()
                try:
                    conn.execute(
                        "INSERT INTO embeddings (content, embedding, metadata) "
                        "VALUES ('w', %s::jsonb, '{}') RETURNING id",
                        [self._vector],
                    )
                except psycopg.Error as exc:
                    self.errors.append(str(exc))
                self.taken.append((began, perf_counter() - began))
                sleep(0.005)

    def stop(self) -> None:
        """Stop, and wait for the last write."""
        self._stop_now.set()
        self.join()

    def between(self, start: float, end: float) -> dict[str, Any]:
        """Return how long writes took that began in a time, in ms."""
        found = [(took, began) for began, took in self.taken if start <= began < end]
        times = [1000 * took for took, _ in found]
        return {
            "writes": len(times),
            "median ms": round(median(times), 2),
            "p99 ms": round(quantiles(times, n=100)[-1], 1),
            "longest ms": round(max(times), 1),
            "after s": round(max(found)[1] - start, 1),
        }


def run_alembic(target: Database, *arguments: str) -> None:
    """Run alembic in a process of its own."""
    subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(migrations.ini_path()), *arguments],
        env={**os.environ, "HARCA_DATABASE_URL": target.conninfo},
        check=True,
    )


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--records", type=int, default=200_000)
    options.add_argument("--dims", type=int, default=384)
    given = options.parse_args()

    with temporary_database(given.database, revision="base") as target, target.connect() as conn:
        facts = server_facts(conn)
        alembic.command.upgrade(migrations.config(migrations.SCHEMA, target), _BEFORE)
        conn.execute(_TABLE.format(dims=given.dims))
        for start in range(0, given.records, _ROWS_AT_ONCE):
            end = min(start + _ROWS_AT_ONCE, given.records)
            conn.execute(_FILL, [given.dims, start + 1, end])
        settle(conn)
        writer = Writer(target, given.dims)
        writer.start()
        rows = []
        for step, arguments in (
            ("alone", ()),
            ("upgrade", ("upgrade", "head")),
            ("behind the view", ()),
            ("downgrade", ("downgrade", _BEFORE)),
        ):
            began = perf_counter()
            if arguments:
                run_alembic(target, *arguments)
            else:
                sleep(_ALONE_S)
            ended = perf_counter()
            rows.append(
                {
                    "while": step,
                    "seconds": round(ended - began, 1),
                    **writer.between(began, ended),
                }
            )
        writer.stop()
        there = conn.execute("SELECT count(*) FROM embeddings").fetchone()
    assert there is not None
    lost = given.records + len(writer.taken) - len(writer.errors) - there[0]
    notes = {
        "rows": given.records,
        "dims": given.dims,
        "errors seen by the writer": len(writer.errors),
        "rows lost": lost,
    }
    show(facts, rows, notes, as_json=given.json)


if __name__ == "__main__":
    main()
