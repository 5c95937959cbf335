"""Load records into a scratch database by the steps of ``harca migrate``."""

from pathlib import Path
from typing import Any

import psycopg

from harca.ahead import ReadAhead
from harca.load import Intake, LoadResult, load, notes_of
from harca.model import Reader
from harca.options import LoadOptions
from harca.postgres import indexes
from harca.postgres.target import PostgresTarget, begin_run


def load_as_migrate(
    conn: psycopg.Connection[Any],
    reader: Reader,
    options: LoadOptions,
    *,
    ahead: ReadAhead | None = None,
    path: Path = Path(),
) -> int:
    """Load *reader* as ``harca migrate`` does, without indexing and verifying.

    Args:
        ahead: What reads the store at *path*, as it does for ``harca migrate``.

    Returns the number of records read.
    """
    indexes.drop_before_first_load(conn)
    store = options.name or "benchmark"
    run = begin_run(
        conn, store, store_format=reader.format, revision=None, options=options.as_dict()
    )
    target = PostgresTarget(conn, run, volatile=reader.volatile)
    intake = Intake(reader, options, now=run.started_at)
    if ahead is not None:
        intake = ahead.intake(reader, str(path), options, run.started_at)
    result: LoadResult = load(intake, target, options)
    target.finish(notes_of(result, reader), outlived=result.outlived)
    return result.tally.read
