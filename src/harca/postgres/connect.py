"""Which database, how to connect to it, and driver errors in our words."""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo, TransactionStatus

from harca import embedded
from harca.errors import CannotConnect, HarcaError, TargetError, UsageError
from harca.postgres import encryption, no_connection

_log = logging.getLogger("harca.sql")

if TYPE_CHECKING:
    from sqlalchemy import Engine

# HARCA's own order of precedence, behind ours.
VARIABLES = (
    "HARCA_DATABASE_URL",
    "POSTGRES_CONNECTION_STRING",
    "HARCA_POSTGRES_CONNECTION_STRING",
    "SUPABASE_CONNECTION_STRING",
)

EMBEDDED = "the embedded server"

_DRIVER = re.compile(r"^(postgres(?:ql)?)\+\w+://")
# What is asked of libpq unless the operator says otherwise. A network that is gone is noticed
# within a minute; by Linux's defaults, a read would wait for two hours.
_DEFAULTS = {
    "connect_timeout": "10",
    "application_name": "harca",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",  # milliseconds
}

# HARCA's first script leaves the extension in a schema that only the role of the same name
# has on its search path.
_SEE_VECTOR = """
    SELECT set_config('search_path', concat_ws(', ',
        nullif(current_setting('search_path'), ''), quote_ident(nspname)), false)
    FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace
    WHERE extname = 'vector' AND nspname <> ALL (current_schemas(true))
        AND has_schema_privilege(n.oid, 'USAGE')
"""


@dataclass(frozen=True, slots=True)
class Database:
    """A resolved database.

    Attributes:
        conninfo: What libpq takes; holds the password, so it is never shown.
        origin: Where it was named: an option, a variable or the embedded server.
    """

    conninfo: str
    origin: str

    def __repr__(self) -> str:
        return f"Database({self.shown!r}, origin={self.origin!r})"

    @property
    def shown(self) -> str:
        """The database for people and logs, without password."""
        parts = conninfo_to_dict(self.conninfo)
        user = f"{parts['user']}@" if "user" in parts else ""
        host = str(parts.get("host", "localhost"))
        port = f":{parts['port']}" if "port" in parts else ""
        name = parts.get("dbname", "")
        if host.startswith("/"):
            return f"postgresql://{user}/{name} (socket {host})"
        host = f"[{host}]" if ":" in host else host
        return f"postgresql://{user}{host}{port}/{name}"

    def url(self, *, password: bool = False) -> str:
        """Return a URL that other programs take; the password only if asked for."""
        parts = {key: str(value) for key, value in conninfo_to_dict(self.conninfo).items()}
        user, secret = parts.pop("user", ""), parts.pop("password", "")
        if not password:
            for name in _secrets():
                parts.pop(name, None)
        host, port = parts.pop("host", ""), parts.pop("port", "")
        name = parts.pop("dbname", "")
        parts.pop("client_encoding", None)
        for ours, default in _DEFAULTS.items():
            if parts.get(ours) == default:
                del parts[ours]
        login = quote(user, safe="") + (f":{quote(secret, safe='')}" if secret and password else "")
        if host.startswith("/") or "," in host:
            parts["host"] = host
            if port:
                parts["port"] = port
            host = port = ""
        host = f"[{host}]" if ":" in host else host
        address = (f"{login}@" if login else "") + host + (f":{port}" if port else "")
        options = f"?{urlencode(parts, quote_via=quote)}" if parts else ""
        return f"postgresql://{address}/{quote(name, safe='')}{options}"

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection[Any]:
        """Return a new connection.

        Raises:
            CannotConnect: No server, no such database, wrong password.
        """
        try:
            conn = psycopg.connect(self.conninfo, autocommit=True)
            self.settle(conn)
            conn.autocommit = autocommit
        except psycopg.OperationalError as exc:
            raise CannotConnect(
                f"cannot connect to {self.shown}: {_first_line(exc)}",
                hint=f"The database was named by {self.origin}. "
                + no_connection.hint(_first_line(exc)),
            ) from exc
        encryption.warn_if_readable(conn, self.conninfo)
        return conn

    def settle(self, conn: psycopg.Connection[Any]) -> None:
        """Have a new connection see pgvector, and say what it runs if that is asked for."""
        conn.execute(_SEE_VECTOR)
        if _log.isEnabledFor(logging.DEBUG):
            conn.cursor_factory = _LoggedCursor

    def reach(self) -> None:
        """Connect and go: a server that is not there is told before anything is begun.

        Raises:
            CannotConnect: As `connect` does.
        """
        self.connect().close()

    def engine(self) -> "Engine":
        """Return an SQLAlchemy engine that connects in the same way; for Alembic."""
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        return create_engine(
            "postgresql+psycopg://",
            creator=lambda: self.connect(autocommit=False),
            poolclass=NullPool,
            # It is closed anyway; of one that is lost, the reset would print a traceback.
            pool_reset_on_return=None,
        )


def _misread(parts: Mapping[str, Any]) -> bool:
    """Say whether a password's / or @ has led libpq to take it for something else.

    It would then be shown as a host, a port or a database.
    """
    ports = str(parts.get("port", "0")).split(",")
    hosts = [host for host in str(parts.get("host", "")).split(",") if host[:1] not in ("/", "@")]
    name = str(parts.get("dbname", ""))
    return (
        not all(port.isdecimal() or not port for port in ports)
        or any("@" in host for host in hosts)
        or "://" in name
        or "@" in name
    )


def _secrets() -> list[str]:
    """Return libpq's options that are passwords, by its own account."""
    return [
        str(option.keyword, "ascii")
        for option in Conninfo.get_defaults()
        if option.dispchar == b"*"
    ]


class _LoggedCursor(psycopg.Cursor[Any]):
    """Logs statements before they run; never their values, which are people's data."""

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        _log.debug("%s", _one_line(query, self))
        return super().execute(query, *args, **options)

    def executemany(self, query: Any, *args: Any, **options: Any) -> None:
        _log.debug("%s", _one_line(query, self))
        super().executemany(query, *args, **options)

    def copy(self, statement: Any, *args: Any, **options: Any) -> Any:
        _log.debug("%s", _one_line(statement, self))
        return super().copy(statement, *args, **options)


def _one_line(query: Any, cursor: psycopg.Cursor[Any]) -> str:
    text = query.as_string(cursor) if isinstance(query, sql.Composable) else str(query)
    return " ".join(text.split())


def database(explicit: str | None = None) -> Database:
    """Return the database to use.

    *explicit* (``--database``), else the first of `VARIABLES` that is set, else the
    embedded server, which is started if needed.

    Raises:
        UsageError: What names the database is no connection string.
    """
    if explicit:
        return Database(_conninfo(explicit, "--database"), "--database")
    for name in VARIABLES:
        if value := os.environ.get(name):
            return Database(_conninfo(value, name), name)
    return embedded_database()


def embedded_database(*, stay: bool = False) -> Database:
    """Return the embedded server's database; started so that it stays, if *stay*."""
    url = embedded.start() if stay else embedded.url()
    return Database(_conninfo(url, EMBEDDED), EMBEDDED)


def _conninfo(value: str, origin: str) -> str:
    if "${" in value:
        # HARCA's sample env file has such references, and dotenv does not expand them.
        raise UsageError(
            f"the connection string in {origin} has an unexpanded ${{...}} reference",
            hint="Write the value itself, or let the shell expand it.",
        )
    try:
        parts = conninfo_to_dict(_DRIVER.sub(r"\1://", value.strip()))
    except psycopg.ProgrammingError:  # its message may quote the string, with the password
        parts = {}
    if not parts or _misread(parts):
        raise UsageError(
            f"the connection string in {origin} cannot be read",
            hint="Expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or libpq's "
            "key=value form. In a URL, write / as %2F and @ as %40 in a password.",
        ) from None
    for name, default in _DEFAULTS.items():
        parts.setdefault(name, default)
    parts["client_encoding"] = "utf8"  # whatever PGCLIENTENCODING says
    return make_conninfo("", **parts)


def target_environment(parts: Mapping[str, Any]) -> dict[str, str]:
    """Return a connection's parts as the variables that libpq's programs read."""
    return {
        str(option.envvar, "ascii"): str(parts[str(option.keyword, "ascii")])
        for option in Conninfo.get_defaults()
        if option.envvar and str(option.keyword, "ascii") in parts
    }


def takes_statements(conn: psycopg.Connection[Any]) -> bool:
    """Say whether what is to be cleaned up can be.

    Not if the connection is lost, and not if an interruption has left a statement running: the
    error that comes of it would be told, and tried again, in the interruption's place.
    """
    return conn.info.transaction_status in (TransactionStatus.IDLE, TransactionStatus.INTRANS)


def untold_by_environment(parts: Mapping[str, Any]) -> dict[str, str]:
    """Return those parts that are no secret and that no variable can tell."""
    return {
        name: str(parts[name])
        for option in Conninfo.get_defaults()
        if not option.envvar
        and option.dispchar != b"*"
        and (name := str(option.keyword, "ascii")) in parts
    }


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into ours, with a hint by SQLSTATE class.

    Raises:
        TargetError: For every `psycopg.Error`.
    """
    try:
        yield
    except psycopg.Error as exc:
        raise target_error(exc) from exc


def target_error(exc: psycopg.Error) -> HarcaError:
    """Return our error for the driver's."""
    hint = next((hint for kinds, hint in _HINTS if isinstance(exc, kinds)), "")
    where = f" ({exc.diag.context.splitlines()[0]})" if exc.diag.context and not hint else ""
    return TargetError(
        f"PostgreSQL: {_first_line(exc)}{where}",
        hint=hint,
        sqlstate=exc.sqlstate,
        passes_by_itself=_passes_by_itself(exc),
    )


def _passes_by_itself(exc: psycopg.Error) -> bool:
    """Say whether the same may succeed after a while, by SQLSTATE: messages are translated."""
    if exc.sqlstate is None:
        # So libpq and the driver report a connection that failed after it was made.
        return isinstance(exc, psycopg.OperationalError)
    return exc.sqlstate in _PASSING or exc.sqlstate[:2] == _CONNECTION_EXCEPTIONS


_CONNECTION_EXCEPTIONS = "08"
_PASSING = {
    "25P03",  # idle_in_transaction_session_timeout, which ends the session
    "40001",  # serialization_failure; on a standby, a conflict with recovery
    "40003",  # statement_completion_unknown
    "40P01",  # deadlock_detected
    "53300",  # too_many_connections
    "55P03",  # lock_not_available
    "57P01",  # admin_shutdown: a restart, a failover, pg_terminate_backend
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now: starting up, shutting down
    "57P05",  # idle_session_timeout
}

_HINTS: list[tuple[type[psycopg.Error] | tuple[type[psycopg.Error], ...], str]] = [
    (
        pg.InsufficientPrivilege,
        "The role lacks a right. docs/operating.md lists what each command needs; the tables' "
        "owner has it all. The extension vector takes a superuser, once, with CREATE EXTENSION "
        "vector.",
    ),
    (pg.UndefinedTable, "Run `alembic upgrade head` (or `harca migrate`) first."),
    (pg.DiskFull, "The server is out of disk space. Make room, then run the same command again."),
    (
        (pg.LockNotAvailable, pg.DeadlockDetected, pg.SerializationFailure),
        "Another session was in the way. Run the same command again later: it goes on where it "
        "was.",
    ),
    (
        pg.QueryCanceled,
        "A statement was cancelled, by somebody or by statement_timeout. Run the same command "
        "again: it goes on where it was.",
    ),
    (
        pg.ReadOnlySqlTransaction,
        "The server takes no writes: is it a standby, or the old primary after a failover?",
    ),
    (pg.OutOfMemory, "The server is out of memory; its log says of which."),
    (
        (pg.FeatureNotSupported, pg.UndefinedFile),
        "Is pgvector installed on the server? See the list in pg_available_extensions.",
    ),
    (
        (pg.AdminShutdown, pg.CrashShutdown, pg.CannotConnectNow, psycopg.OperationalError),
        "The connection was lost. Run the same command again: it goes on where it was.",
    ),
]


def _first_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0] if lines else type(exc).__name__
