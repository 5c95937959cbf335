"""Whoever interrupts a command is not told of an error, nor is it tried again."""

import pytest

from harca.migrate import migrate
from harca.options import LoadOptions
from harca.postgres import indexes
from tests.stores import record, write_record

pytestmark = pytest.mark.one_server


def test_an_interruption_within_a_statement_stays_one(database, tmp_path):
    write_record(tmp_path / "store", record("text", [1.0] * indexes.PLAN_DIMS))
    migrate(tmp_path / "store", lambda: database, LoadOptions())
    conn = database.connect()
    conn.execute(indexes.dropping(indexes.PLAN_INDEX))

    def interrupted(message):
        conn.pgconn.send_query(b"SELECT pg_sleep(60)")  # whose answer nobody reads any more
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        indexes.build(conn, progress=interrupted)
    conn.close()
