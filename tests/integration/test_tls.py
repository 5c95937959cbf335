"""libpq's options for encryption are taken by everything that connects, and refused clearly."""

import logging

import pytest
from psycopg.conninfo import make_conninfo

from harca.errors import CannotConnect
from harca.postgres import encryption
from harca.postgres.connect import Database
from harca.postgres.connect import database as resolve
from tests.own_server import own_server
from tests.tls import encrypted, make_certificates

pytestmark = pytest.mark.one_server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def plain():
    with own_server("a password") as server:
        yield server


@pytest.fixture(scope="module")
def door(plain, certificates):
    with encrypted(plain.port, certificates) as opened:
        yield opened


def through(server, door, **options) -> Database:
    return resolve(server.conninfo(port=door.port, **options))


def connect(database: Database) -> None:
    """Connect in each way that there is."""
    with database.connect() as conn:
        assert conn.pgconn.ssl_in_use
    with database.engine().connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        assert driver.pgconn.ssl_in_use


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_a_server_with_the_right_certificate_is_connected_to(
    host, negotiation, plain, door, certificates
):
    connect(
        through(
            plain,
            door,
            host=host,
            sslmode="verify-full",
            sslrootcert=certificates.ca_crt,
            sslnegotiation=negotiation,
        )
    )


def test_every_program_gets_the_options(plain, door, certificates, run_harca, run_alembic):
    options = {"sslmode": "verify-full", "sslrootcert": certificates.ca_crt}
    database = through(plain, door, **options)
    wrong = through(plain, door, **{**options, "sslrootcert": certificates.other_crt})

    for run, arguments in (
        (run_alembic, ("current",)),
        (run_harca, ("status",)),
        (run_harca, ("db", "psql", "-c", "SELECT 1")),
    ):
        before = len(door.clients)
        done = run(*arguments, database=database)
        assert done.code == 0, done.err
        assert "not encrypted" not in done.err
        assert len(door.clients) > before

        assert run(*arguments, database=wrong).code != 0
    url = database.url(password=True)
    assert resolve(url).conninfo == database.conninfo


FAILING = {
    "another authority": (
        {"sslmode": "verify-full", "sslrootcert": "other.crt"},
        "certificate verify failed",
    ),
    "another authority, name not looked at": (
        {"sslmode": "verify-ca", "sslrootcert": "other.crt"},
        "certificate verify failed",
    ),
    "another name": (
        {"sslmode": "verify-full", "sslrootcert": "ca.crt", "host": "elsewhere",
         "hostaddr": "127.0.0.1"},
        'does not match host name "elsewhere"',
    ),
    "no such file": ({"sslmode": "verify-full", "sslrootcert": "none.crt"}, "does not exist"),
    "no channel to bind to": (
        {"sslmode": "require", "channel_binding": "require"},
        "channel binding",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "said"), FAILING.values(), ids=FAILING)
def test_what_cannot_be_trusted_is_refused(options, said, plain, door, certificates):
    given = {**options}
    if "sslrootcert" in given:
        given["sslrootcert"] = str(certificates.folder / given["sslrootcert"])
    database = through(plain, door, **given)

    for attempt in (database.connect, lambda: database.engine().connect()):
        with pytest.raises(CannotConnect, match="cannot connect to") as caught:
            attempt()

        assert said in str(caught.value)
        assert "The encryption that was asked for is what fails." in caught.value.hint


def test_a_server_without_encryption_is_refused_where_it_is_required(plain):
    with pytest.raises(CannotConnect, match="server does not support SSL") as caught:
        resolve(plain.conninfo(sslmode="require")).connect()

    assert "The encryption that was asked for is what fails." in caught.value.hint


def test_a_client_shows_its_certificate_where_the_server_asks_for_it(plain, certificates):
    options = {"sslmode": "verify-full", "sslrootcert": certificates.ca_crt}
    with encrypted(plain.port, certificates, asks_for_client=True) as door:
        connect(
            through(
                plain,
                door,
                **options,
                sslcert=certificates.client_crt,
                sslkey=certificates.client_key,
            )
        )
        assert door.clients == ["admin", "admin"]

        with pytest.raises(CannotConnect) as caught:
            through(plain, door, **options, sslcert="/nowhere").connect()
    assert "The encryption that was asked for is what fails." in caught.value.hint


@pytest.mark.parametrize(
    ("host", "address", "local"),
    [
        ("/run/postgresql", "", True),
        ("@abstract", "", True),
        ("localhost", "127.0.0.1", True),
        ("db", "127.0.1.1", True),
        ("::1", "::1", True),
        ("db", "192.0.2.1", False),
        ("db", "10.0.0.1", False),
        ("db", "fe80::1%eth0", False),
    ],
)
def test_what_leaves_the_machine_is_known_by_its_address(host, address, local):
    assert encryption.is_local(host, address) is local


def test_on_loopback_nothing_is_said(plain, run_harca):
    done = run_harca("status", database=resolve(plain.conninfo()))

    assert (done.code, done.err) == (0, "")


@pytest.fixture
def elsewhere(monkeypatch):
    """Have this machine's own addresses taken for another's."""
    monkeypatch.setattr(encryption, "is_local", lambda *_: False)
    monkeypatch.setattr(encryption, "_told", set())


@pytest.mark.usefixtures("elsewhere")
def test_that_others_can_read_a_connection_is_said_once(plain, run_harca):
    database = resolve(plain.conninfo())

    done = run_harca("status", database=database)

    assert done.code == 0
    assert done.err.count("the connection to 127.0.0.1 is not encrypted") == 1
    assert "a password" not in done.err


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("mode", ["in the conninfo", "in the environment", "quiet"])
def test_it_is_not_said_to_who_has_chosen_it(mode, plain, run_harca):
    options = {"sslmode": "disable"} if mode == "in the conninfo" else {}
    env = {"PGSSLMODE": "disable"} if mode == "in the environment" else {}
    more = ["-q"] if mode == "quiet" else []

    done = run_harca("status", *more, database=resolve(plain.conninfo(**options)), **env)

    assert (done.code, done.err) == (0, "")


@pytest.mark.usefixtures("elsewhere")
def test_it_is_not_said_of_an_encrypted_connection(plain, door, caplog):
    with caplog.at_level(logging.WARNING, "harca.encryption"):
        through(plain, door, sslmode="require").connect().close()

    assert caplog.messages == []


def test_options_of_libpq_s_are_kept_as_they_are(plain, certificates):
    options = {
        "sslmode": "verify-full", "sslrootcert": certificates.ca_crt, "sslkey": "k", "sslcert": "c",
        "channel_binding": "require", "sslnegotiation": "direct", "sslcrl": "l", "sslsni": "1",
        "ssl_min_protocol_version": "TLSv1.3",
    }  # fmt: skip

    database = resolve(make_conninfo(plain.conninfo(), **options))

    assert all(f"{name}=" in database.conninfo for name in options)
    assert resolve(database.url(password=True)).conninfo == database.conninfo
