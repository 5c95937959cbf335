"""The application, its common options, and how it ends."""

import io
import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harca.errors import ExitCode, HarcaError
from harca.redact import Redacting, redacted

if TYPE_CHECKING:
    from harca.postgres.connect import Database

app = typer.Typer(
    name="harca",
    help="Move a file-based vector store into PostgreSQL + pgvector, prove it, and be able "
    "to go back.\n\nThe database is --database, or the first set of HARCA_DATABASE_URL, "
    "POSTGRES_CONNECTION_STRING, HARCA_POSTGRES_CONNECTION_STRING and "
    "SUPABASE_CONNECTION_STRING; with none of them, an embedded server in .harca/.\n\n"
    "Exit codes: 0 done, 1 failed, 2 usage, 3 verified and different, 4 refused as unsafe "
    "now, 130 interrupted, 143 terminated.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", metavar="URL", help="Connection string of the database."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
VerboseOption = Annotated[
    bool, typer.Option("-v", "--verbose", help="Log the statements and decisions to stderr.")
]


# No others: what fetches stores from elsewhere logs its headers, with keys and signatures. The
# driver's own log shows connections, not statements; SQLAlchemy's shows the DDL.
_VERBOSE = {
    "harca": logging.DEBUG,
    "alembic": logging.INFO,
    "psycopg": logging.DEBUG,
    "sqlalchemy.engine": logging.INFO,
}


@dataclass(slots=True)
class Output:
    """How a command talks: results to stdout, everything else to stderr."""

    json: bool = False
    quiet: bool = False
    terminated: bool = False

    def result(self, as_dict: Callable[[], dict[str, Any]], text: Callable[[], str]) -> None:
        """Print the result in the form that was asked for."""
        if self.json:
            _write_json(as_dict())
        elif not self.quiet:
            sys.stdout.write(text() + "\n")

    def say(self, message: str) -> None:
        """Print a line for people to stderr."""
        if not self.quiet:
            sys.stderr.write(f"{message}\n")


def _write_json(value: dict[str, Any]) -> None:
    import json

    # The standard encoder: metadata can have integers of any length.
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


# What `main` needs to know of the command that is running, when it fails.
current = Output()


def begin(json: bool, quiet: bool, verbose: bool) -> Output:
    """Take a command's common options."""
    current.json, current.quiet = json, quiet
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Redacting("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.ERROR)
    # What progress would show: that something is tried again.
    logging.getLogger("harca.retry").setLevel(logging.WARNING if quiet else logging.NOTSET)
    logging.getLogger("harca.encryption").setLevel(logging.ERROR if quiet else logging.WARNING)
    if verbose:
        for name, level in _VERBOSE.items():
            logging.getLogger(name).setLevel(level)
    return current


def resolve(explicit: str | None) -> "Database":
    """Return the database that a command works on."""
    from harca.postgres.connect import database

    return database(explicit)


def _print_version(wanted: bool) -> None:
    if wanted:
        from harca import __version__

        sys.stdout.write(f"harca {__version__}\n")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass  # what it does, the option's callback does


def main() -> None:
    """Run the command line and exit with its code."""
    from harca.cli import (  # noqa: F401  # importing registers commands
        advise,
        bench,
        database,
        embedder,
        index,
        look,
        move,
        pace,
        plans,
        report,
        safety,
        search,
        soak,
    )

    for stream in (sys.stdout, sys.stderr):
        # A path or a label can hold what the terminal's encoding cannot.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Asked to end by the system, end as by Ctrl-C: what was unpacked is removed, the embedded
    # server is stopped. So if the terminal is closed, but for nohup.
    current.terminated = False
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _terminate)
    try:
        code = app(standalone_mode=False)
        if code == ExitCode.INTERRUPTED:  # typer's word for Ctrl-C
            code = _interrupted()
    except HarcaError as exc:
        code = _fail(str(exc), exc.hint, exc.exit_code, **exc.details)
    except Exception as exc:
        if not type(exc).__module__.startswith("typer"):
            raise
        code = _usage(exc)
    sys.exit(int(code or 0))


def _terminate(*_: object) -> None:
    current.terminated = True
    raise KeyboardInterrupt


def _interrupted() -> int:
    return _fail(
        "interrupted; every batch is in or not, never half of one",
        "Run the same command again: a load goes on where it was.",
        ExitCode.TERMINATED if current.terminated else ExitCode.INTERRUPTED,
    )


def _usage(exc: Any) -> int:
    """Print an error of the command line itself, as typer words it."""
    if isinstance(exc, typer.Abort):
        return _interrupted()
    context = getattr(exc, "ctx", None)
    path = context.command_path if context else "harca"
    current.json = current.json or "--json" in sys.argv
    if type(exc).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{exc.format_message()}\n")
        return ExitCode.USAGE
    return _fail(exc.format_message(), f"See `{path} --help`.", ExitCode.USAGE)


def _fail(message: str, hint: str, code: ExitCode, **details: Any) -> int:
    message, hint = redacted(message), redacted(hint)
    try:
        sys.stderr.write(f"error: {message}\n")
        if hint:
            sys.stderr.write(f"hint:  {hint}\n")
        if current.json:
            _write_json({"error": message, "hint": hint, "exit_code": int(code), **details})
    except OSError:
        # Whoever read it (`| tee`, a terminal) has gone, or there is no room for it. The exit code
        # says it still; Python would complain at its end.
        sys.stderr.close()
    return int(code)
