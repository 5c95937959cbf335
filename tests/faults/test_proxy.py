"""The network that the tests of faults cut: it does what it says."""

import threading

import psycopg
import pytest

from tests.faults.proxy import How, Proxy

pytestmark = pytest.mark.one_server


@pytest.fixture
def network(database):
    """A network to the test's database."""
    with Proxy(database.conninfo) as proxy:
        yield proxy


def test_a_network_passes_on_what_is_sent(network, database):
    with network.through(database).connect() as conn:
        row = conn.execute("SELECT repeat('x', 3000000)").fetchone()

    assert row == ("x" * 3_000_000,)


def test_a_cut_network_resets_connections_and_takes_new_ones(network, database):
    with network.through(database).connect() as conn:
        network.cut()
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 1")
    with network.through(database).connect() as again:
        assert again.execute("SELECT 1").fetchone() == (1,)
    assert network.accepted == 2


def test_a_network_that_is_cut_off_takes_none_until_it_is_restored(network, database):
    behind = network.through(database)
    network.cut_off()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(behind.conninfo)
    network.restore()

    with behind.connect() as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_stalled_network_passes_on_later_what_it_held_back(network, database):
    with network.through(database).connect() as conn:
        network.stall()
        answers = []
        asking = threading.Thread(target=lambda: answers.append(conn.execute("SELECT 1")))
        asking.start()
        asking.join(0.2)
        assert answers == []
        network.restore()
        asking.join(30)

        assert answers[0].fetchone() == (1,)


def test_a_network_is_cut_at_what_a_client_sends(network, database):
    network.cut_at(b"SELECT 'here'")
    with network.through(database).connect() as conn:
        assert conn.execute("SELECT 'there'").fetchone() == ("there",)
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 'here'")
    with network.through(database).connect() as again:
        assert again.execute("SELECT 'here'").fetchone() == ("here",)


def test_a_network_stalls_at_what_a_client_sends(network, database):
    network.stall_at(b"SELECT 'here'")
    with network.through(database).connect() as conn:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(conn.execute("SELECT 'here'")))
        asking.start()
        asking.join(0.2)
        assert answers == []
        network.restore()
        asking.join(30)

        assert answers[0].fetchone() == ("here",)


@pytest.mark.parametrize("how", list(How))
def test_a_connection_is_held_at_a_point_until_it_is_let_go(how, network, database, conn):
    conn.execute("CREATE TABLE done (number int)")
    point = network.hold_at(b"VALUES (2)", how=how)
    with network.through(database).connect() as held:
        held.execute("INSERT INTO done VALUES (1)")
        asking = threading.Thread(target=held.execute, args=("INSERT INTO done VALUES (2)",))
        asking.start()

        assert point.wait()
        assert point.backend == held.info.backend_pid
        assert conn.execute("SELECT max(number) FROM done").fetchone() == (
            (2,) if how is How.AFTER else (1,)
        )

        point.release()
        asking.join(30)
        assert conn.execute("SELECT max(number) FROM done").fetchone() == (2,)
