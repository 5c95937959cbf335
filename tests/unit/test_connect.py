"""Which database is used, and that its password is shown nowhere."""

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from harca import embedded
from harca.errors import CannotConnect, HarcaError, TargetError, UsageError
from harca.postgres import no_connection, programs
from harca.postgres.connect import (
    VARIABLES,
    Database,
    database,
    target_environment,
    target_error,
    translated,
)

CANARY = "c4nary-pa55"


@pytest.fixture(autouse=True)
def _no_embedded_server(monkeypatch):
    monkeypatch.setattr(embedded, "url", lambda: "postgresql://postgres@/postgres?host=/run/x")


def set_all(monkeypatch, names):
    for name in names:
        monkeypatch.setenv(name, f"postgresql://{name.lower()}/db")


@pytest.mark.parametrize("first", range(len(VARIABLES)), ids=VARIABLES)
def test_the_first_variable_that_is_set_names_the_database(first, monkeypatch):
    set_all(monkeypatch, VARIABLES[first:])

    found = database()

    assert found.origin == VARIABLES[first]
    assert conninfo_to_dict(found.conninfo)["host"] == VARIABLES[first].lower()


def test_the_order_of_the_variables_is_harcas_own_behind_ours():
    assert VARIABLES == (
        "HARCA_DATABASE_URL",
        "POSTGRES_CONNECTION_STRING",
        "HARCA_POSTGRES_CONNECTION_STRING",
        "SUPABASE_CONNECTION_STRING",
    )


def test_the_option_goes_before_all_variables(monkeypatch):
    set_all(monkeypatch, VARIABLES)

    found = database("postgresql://option/db")

    assert (found.origin, found.shown) == ("--database", "postgresql://option/db")


def test_a_variable_that_is_empty_is_not_set(monkeypatch):
    set_all(monkeypatch, VARIABLES[1:])
    monkeypatch.setenv(VARIABLES[0], "")

    assert database().origin == VARIABLES[1]


def test_without_any_the_embedded_server_is_used():
    found = database()

    assert found.origin == "the embedded server"
    assert found.shown == "postgresql://postgres@/postgres (socket /run/x)"


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        ({"dbname": "harca_nowhere"}, "harca makes no database: CREATE DATABASE does."),
        ({"host": "nowhere.invalid"}, "Is the host's name right"),
        ({"host": "127.0.0.1", "port": "1"}, "are host and port right?"),
        ({"host": "/nowhere"}, "are host and port right?"),
    ],
    ids=["database", "host", "port", "socket"],
)
def test_where_there_is_no_connection_it_is_said_what_is_wrong(changed, hint, database):
    wrong = Database(
        make_conninfo("", **{**conninfo_to_dict(database.conninfo), **changed}), "--database"
    )

    with pytest.raises(CannotConnect) as caught:
        wrong.connect()

    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ('FATAL:  password authentication failed for user "u"', "Are role and password right?"),
        ("fe_sendauth: no password supplied", "Give the password"),
        ("connection timeout expired", "are host and port right?"),
        ("FATAL:  the database system is starting up", "when the server has started"),
        ("FATAL:  sorry, too many clients already", "when some are free"),
        ("server does not support SSL, but SSL was required", "The encryption that was asked for"),
        ("FATAL:  etwas anderes", "Is the server running, and does the role exist?"),
    ],
)
def test_each_reason_that_libpq_gives_has_its_hint(said, hint):
    assert hint in no_connection.hint(said)


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://u:p@h:5433/d",
        "postgres://u:p@h:5433/d",
        "postgresql+psycopg://u:p@h:5433/d",
        "postgresql+psycopg2://u:p@h:5433/d",
        "postgresql+asyncpg://u:p@h:5433/d",
        "postgres+psycopg://u:p@h:5433/d",
        "  postgresql://u:p@h:5433/d\n",
        "host=h port=5433 user=u password=p dbname=d",
        "host = 'h' port=5433 user=u password='p' dbname=d",
    ],
)
def test_each_usual_form_names_the_same_database(given):
    parts = conninfo_to_dict(database(given).conninfo)

    assert parts == {
        "host": "h",
        "port": "5433",
        "user": "u",
        "password": "p",
        "dbname": "d",
        "connect_timeout": "10",
        "application_name": "harca",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
        "client_encoding": "utf8",
    }


def test_what_the_operator_sets_is_kept():
    parts = conninfo_to_dict(
        database("postgresql://h/d?connect_timeout=3&application_name=app&sslmode=require").conninfo
    )

    assert (parts["connect_timeout"], parts["application_name"]) == ("3", "app")
    assert parts["sslmode"] == "require"


@pytest.mark.parametrize(
    "given",
    [
        "nonsense",
        "   ",
        f"mysql://u:{CANARY}@h/d",
        f"jdbc:postgresql://h/d?password={CANARY}",
        f"postgresql:/u:{CANARY}@h/d",
        f"postgresql://u:{CANARY}@[::1/d",
        f"postgresql://u:{CANARY}%zz@h/d",
        f"host=h passwrd={CANARY}",
        f"host=h password='{CANARY}",
        f"password={CANARY} nonsense",
    ],
)
def test_what_is_no_connection_string_is_refused(given, monkeypatch):
    monkeypatch.setenv("POSTGRES_CONNECTION_STRING", given)

    with pytest.raises(UsageError) as caught:
        database()

    assert str(caught.value) == (
        "the connection string in POSTGRES_CONNECTION_STRING cannot be read"
    )
    assert caught.value.hint == (
        "Expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or libpq's key=value form. "
        "In a URL, write / as %2F and @ as %40 in a password."
    )
    assert_no_canary(caught.value)


def test_a_reference_that_nobody_expanded_is_refused(monkeypatch):
    monkeypatch.setenv(
        "SUPABASE_CONNECTION_STRING", f"postgresql://u:{CANARY}@${{POSTGRES_HOST}}:5432/d"
    )

    with pytest.raises(UsageError) as caught:
        database()

    assert str(caught.value) == (
        "the connection string in SUPABASE_CONNECTION_STRING has an unexpanded ${...} reference"
    )
    assert_no_canary(caught.value)


def assert_no_canary(error: BaseException | None) -> None:
    while error is not None:
        assert CANARY not in f"{error!s} {error!r} {getattr(error, 'hint', '')}"
        error = error.__cause__


SECRETS = {
    "url": f"postgresql://u:{CANARY}@127.0.0.1:1/d",
    "url with driver": f"postgresql+psycopg2://u:{CANARY}@127.0.0.1:1/d",
    "url parameter": f"postgresql://127.0.0.1:1/d?user=u&password={CANARY}",
    "key=value": f"host=127.0.0.1 port=1 user=u password={CANARY} dbname=d",
    "socket": f"postgresql://u:{CANARY}@/d?host=/nowhere&port=1",
    "two hosts": f"postgresql://u:{CANARY}@127.0.0.1:1,127.0.0.1:2/d",
    "escaped characters": f"postgresql://u:%2F%40%3A{CANARY}@127.0.0.1:1/d",
}


# Passwords with "/" or "@" in them belong escaped; many are not.
@pytest.mark.parametrize(
    "given",
    [
        f"postgresql://u:x/{CANARY}@127.0.0.1:1/d",
        f"postgresql://u:{CANARY}/x@127.0.0.1:1/d",
        f"postgresql://u:x@{CANARY}@127.0.0.1:1/d",
        f"host=127.0.0.1 port=1 dbname=postgresql://u:{CANARY}@h/d",
        f"postgresql://u@127.0.0.1:1/d?sslpassword={CANARY}",
    ],
    ids=["slash before", "slash after", "at sign", "url as dbname", "password of the key file"],
)
def test_a_password_in_the_wrong_place_is_shown_nowhere(given):
    try:
        found = database(given)
    except UsageError as refused:
        assert_no_canary(refused)
        return

    assert CANARY not in f"{found!r} {found!s} {found.shown} {found.url()}"
    with pytest.raises(CannotConnect) as caught:
        found.connect()
    assert_no_canary(caught.value)


@pytest.mark.parametrize("given", SECRETS.values(), ids=SECRETS)
def test_the_password_is_shown_nowhere(given):
    found = database(given)

    assert CANARY in found.conninfo
    assert CANARY not in f"{found!r} {found!s} {found.shown} {found.url()} {found.origin}"
    assert CANARY in found.url(password=True)
    with pytest.raises(CannotConnect) as caught:
        found.connect()
    assert str(caught.value).startswith(f"cannot connect to {found.shown}: ")
    assert "The database was named by --database." in caught.value.hint
    assert_no_canary(caught.value)


def test_a_refused_password_is_not_shown(database):
    parts = {**conninfo_to_dict(database.conninfo), "password": CANARY, "user": "nobody here"}
    wrong = Database(" ".join(f"{key}='{value}'" for key, value in parts.items()), "--database")

    with pytest.raises(CannotConnect) as caught:
        wrong.connect()

    assert "nobody here" in str(caught.value)
    assert_no_canary(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://u:p@h:5433/d",
        "postgresql://u:p@/d?host=/run/x&port=5433",
        "postgresql://u@h/d?sslmode=require&options=-c%20search_path%3Dharca",
        "postgresql://u:p%2F%40%3A%25@h/d%20%2F",
        "postgresql://u:p@h1:1,h2:2/d",
        "host=h",
        "dbname=d",
        "postgresql://us%40er@h/d",
        "postgresql://u:p@[::1]:5433/d",
    ],
)
def test_the_url_names_the_same_database(given):
    found = database(given)

    again = database(found.url(password=True))

    assert conninfo_to_dict(again.conninfo) == conninfo_to_dict(found.conninfo)


def test_programs_of_libpq_get_the_parts_as_variables():
    parts = conninfo_to_dict("host=h port=1 user=u password=p dbname=d sslmode=require")

    assert target_environment(parts) == {
        "PGHOST": "h",
        "PGPORT": "1",
        "PGUSER": "u",
        "PGPASSWORD": "p",
        "PGDATABASE": "d",
        "PGSSLMODE": "require",
    }


def test_what_has_no_variable_and_is_no_secret_goes_into_an_option():
    target = database("host=h password=p sslpassword=q keepalives_idle=7 options='-c a=b'")

    option = programs.connection_option(target)

    name, _, value = option.partition("=")
    assert name == "--dbname"
    assert conninfo_to_dict(value) == {
        "keepalives_idle": "7",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }


STATEMENTS = {
    "no such table": (
        "SELECT * FROM nowhere",
        'PostgreSQL: relation "nowhere" does not exist',
        "Run `alembic upgrade head` (or `harca migrate`) first.",
    ),
    "no right": (
        "SET ROLE pg_monitor; SELECT * FROM vector_embeddings",
        "PostgreSQL: permission denied for table vector_embeddings",
        "The role lacks a right. docs/operating.md lists what each command needs; the tables' "
        "owner has it all. The extension vector takes a superuser, once, with CREATE EXTENSION "
        "vector.",
    ),
    "connection lost": (
        "SELECT pg_terminate_backend(pg_backend_pid())",
        "PostgreSQL: terminating connection due to administrator command",
        "The connection was lost. Run the same command again: it goes on where it was.",
    ),
    "no such extension": (
        "CREATE EXTENSION no_such_thing",
        'PostgreSQL: extension "no_such_thing" is not available',
        "Is pgvector installed on the server? See the list in pg_available_extensions.",
    ),
    "anything else": ("SELECT 1/0", "PostgreSQL: division by zero", ""),
}


@pytest.mark.parametrize(("statement", "message", "hint"), STATEMENTS.values(), ids=STATEMENTS)
def test_the_servers_errors_are_told_in_our_words(statement, message, hint, conn):
    with pytest.raises(TargetError) as caught, translated():
        conn.execute(statement)

    assert str(caught.value) == message
    assert caught.value.hint == hint
    assert isinstance(caught.value.__cause__, pg.Error)


PASSING = [
    "08000", "08003", "08006", "08P01", "25P03", "40001", "40003", "40P01", "53300", "55P03",
    "57P01", "57P02", "57P03", "57P05",
]  # fmt: skip
LASTING = [
    "22P02", "23505", "25006", "28000", "28P01", "42501", "42704", "42P01", "53100", "53200",
    "57014", "57P04", "58030", "XX000", "XX001",
]  # fmt: skip


@pytest.mark.parametrize("sqlstate", [*PASSING, *LASTING])
def test_what_passes_by_itself_is_told_by_its_code(sqlstate):
    told = target_error(pg.lookup(sqlstate)("whatever the message is, in whatever language"))

    assert isinstance(told, TargetError)
    assert told.sqlstate == sqlstate
    assert told.passes_by_itself is (sqlstate in PASSING)


def test_a_connection_that_fails_without_an_answer_passes_by_itself():
    lost = target_error(psycopg.OperationalError("server closed the connection unexpectedly"))
    ours = target_error(psycopg.ProgrammingError("the driver was not used as it should be"))

    assert isinstance(lost, TargetError)
    assert isinstance(ours, TargetError)
    assert (lost.passes_by_itself, ours.passes_by_itself) == (True, False)


HINTS = {
    "40P01": "Another session was in the way",
    "57014": "A statement was cancelled",
    "25006": "The server takes no writes",
    "53200": "The server is out of memory",
    "53100": "The server is out of disk space",
    "57P01": "The connection was lost",
}


@pytest.mark.parametrize(("sqlstate", "hint"), HINTS.items(), ids=HINTS)
def test_a_hint_says_what_to_do(sqlstate, hint):
    assert target_error(pg.lookup(sqlstate)("")).hint.startswith(hint)


def test_errors_of_ours_pass_through():
    with pytest.raises(HarcaError, match="ours"), translated():
        raise HarcaError("ours")
