"""Commands about the database itself: db url, psql, start, stop, config."""

import os
import shutil
from typing import Annotated

import typer

from harca.cli.app import (
    DatabaseOption,
    JsonOption,
    QuietOption,
    VerboseOption,
    app,
    begin,
    resolve,
)

db_app = typer.Typer(help="Reach the database; run the embedded server.", no_args_is_help=True)
app.add_typer(db_app, name="db")


@db_app.command()
def url(
    database: DatabaseOption = None,
    password: Annotated[
        bool, typer.Option("--password", help="Show the password too, for use in scripts.")
    ] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Print the database that commands would use, as a connection string.

    Example: psql "$(harca db url)"
    """
    out = begin(json, quiet, verbose)
    from harca import embedded
    from harca.postgres.connect import EMBEDDED

    target = resolve(database)
    if target.origin == EMBEDDED:
        embedded.start()  # the address is of use only while somebody listens
        out.say("the embedded server is running now; `harca db stop` stops it")
    shown = target.url(password=password)
    out.quiet = False  # the address is what was asked for
    out.result(lambda: {"url": shown, "origin": target.origin}, lambda: shown)


@db_app.command()
def psql(
    database: DatabaseOption = None,
    command: Annotated[
        str | None, typer.Option("-c", "--command", help="Run this and end.")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Open psql on the database.

    Example: harca db psql -c 'SELECT count(*) FROM vector_embeddings'
    """
    begin(json, quiet, verbose)
    import subprocess

    from psycopg.conninfo import conninfo_to_dict

    from harca import embedded
    from harca.errors import HarcaError
    from harca.postgres.connect import target_environment

    target = resolve(database)
    program = shutil.which("psql") or str(embedded.binary("psql"))
    arguments = [program, "-v", "ON_ERROR_STOP=1", *(["-c", command] if command else [])]
    # By the environment: a command line can be read by everybody on the machine.
    environment = {**os.environ, **target_environment(conninfo_to_dict(target.conninfo))}
    try:
        code = subprocess.run(arguments, env=environment, check=False).returncode  # noqa: S603  # the operator's own command
    except OSError as exc:
        raise HarcaError(f"psql cannot be run: {exc.strerror}", hint="Install it.") from exc
    raise typer.Exit(code)


@db_app.command()
def start(
    json: JsonOption = False, quiet: QuietOption = False, verbose: VerboseOption = False
) -> None:
    """Start the embedded server and keep it running.

    Example: harca db start
    """
    out = begin(json, quiet, verbose)
    from harca.postgres.connect import embedded_database

    address = embedded_database(stay=True).url()
    out.result(lambda: {"url": address}, lambda: f"running at {address}")


@db_app.command()
def stop(
    json: JsonOption = False, quiet: QuietOption = False, verbose: VerboseOption = False
) -> None:
    """Stop the embedded server; its data stay.

    Example: harca db stop
    """
    out = begin(json, quiet, verbose)
    from harca import embedded

    stopped = embedded.stop()
    out.result(lambda: {"stopped": stopped}, lambda: "stopped" if stopped else "it was not running")


@db_app.command()
def config(
    json: JsonOption = False, quiet: QuietOption = False, verbose: VerboseOption = False
) -> None:
    """Print the path of alembic.ini, for alembic outside a checkout.

    Example: alembic -c "$(harca db config)" history
    """
    out = begin(json, quiet, verbose)
    from harca.migrations import ini_path

    path = str(ini_path())
    out.quiet = False  # the path is what was asked for
    out.result(lambda: {"config": path}, lambda: path)
