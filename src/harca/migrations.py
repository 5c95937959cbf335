"""What both Alembic environments share, and how harca itself runs them."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alembic.command
import alembic.util
import psycopg
import sqlalchemy.exc
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError

from harca import operations as operations  # registers them, where no entry point does
from harca.errors import HarcaError, SchemaNotReady, SeveralHeads, TargetError, UnknownRevision
from harca.postgres import lock, owned
from harca.postgres.connect import Database, database, target_error, translated
from harca.redact import redacted

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from harca.consolidate import LegacyOptions

_log = logging.getLogger("harca.migrations")

LEDGER = "5e7b20c3d4f6"  # the revision that makes it
LOADABLE = "a91c6e08b7d2"  # from here on, stores can be loaded
BEFORE_TABLES = "e4c7a90b53d8"  # the one before HARCA's old tables are consolidated
MEASUREMENTS = "7c15d08e42b6"  # from here on, what was measured can be kept

# DDL that waits for a lock makes everybody behind it wait too; better to give up soon.
LOCK_TIMEOUT = "2s"


@dataclass(frozen=True, slots=True)
class Environment:
    """One of the two chains of revisions."""

    name: str
    section: str
    version_table: str


SCHEMA = Environment("schema", "alembic", "alembic_version")
DATA = Environment("data", "data", "alembic_version_data")


def ini_path() -> Path:
    """Return the path of ``alembic.ini``: the wheel's own, else the checkout's."""
    here = Path(__file__).resolve().parent
    packaged = here / "_migrations" / "alembic.ini"
    return packaged if packaged.exists() else here.parents[1] / "alembic.ini"


def config(environment: Environment, target: Database | None = None) -> Config:
    """Return Alembic's configuration for *environment*, on *target*."""
    made = Config(ini_path(), ini_section=environment.section)
    made.attributes["database"] = target
    return made


def upgrade(
    target: Database,
    environment: Environment = SCHEMA,
    *,
    progress: Callable[[str], None] = lambda message: None,
    **attributes: Any,
) -> tuple[str | None, str | None]:
    """Bring *target* to head; return the revision before and the one after.

    Args:
        attributes: What revisions find in ``context.config.attributes``.
    """
    made = config(environment, target)
    made.attributes.update(attributes, progress=progress)
    before = current(target, environment)
    if before != head(environment):
        try:
            alembic.command.upgrade(made, "head")
        except alembic.util.CommandError as exc:
            raise HarcaError(f"alembic: {exc}") from exc
    elif environment is SCHEMA:
        from harca import consolidate

        given = consolidate.options({})
        if not given.ignore:
            _go_on(target, given)
    return before, current(target, environment)


def is_known(revision: str) -> bool:
    """Say whether there is a file of a revision of the schema."""
    return any(script.revision == revision for script in scripts().walk_revisions())


def move(target: Database, revision: str, **attributes: Any) -> None:
    """Bring the schema up or down to *revision*, of which there is a file.

    Args:
        attributes: What revisions find in ``context.config.attributes``.

    Raises:
        UnknownRevision: There is none of the one that *target* is at.
    """
    applied = is_applied(target, revision)
    command = alembic.command.downgrade if applied else alembic.command.upgrade
    made = config(SCHEMA, target)
    made.attributes.update(attributes)
    try:
        command(made, revision)
    except alembic.util.CommandError as exc:
        raise HarcaError(f"alembic: {exc}") from exc


def scripts(environment: Environment = SCHEMA) -> ScriptDirectory:
    """Return the files of a chain."""
    return ScriptDirectory.from_config(config(environment))


def heads(environment: Environment = SCHEMA) -> list[str]:
    """Return the revisions that none follows: one, unless two were planned beside each other."""
    return sorted(scripts(environment).get_heads())


def head(environment: Environment = SCHEMA) -> str | None:
    """Return the newest revision that there is a file of.

    Raises:
        SeveralHeads: There are several.
    """
    found = heads(environment)
    if len(found) > 1:
        raise SeveralHeads(found, chain=environment.name)
    return found[0] if found else None


def pending(target: Database, environment: Environment = SCHEMA) -> list[Script]:
    """Return the revisions that an upgrade to head would apply, in their order.

    Raises:
        SeveralHeads: There is no one head.
        UnknownRevision: *target* is at a revision of which there is no file.
    """
    newest, found = head(environment), current(target, environment)
    if newest == found:
        return []
    try:
        steps = list(scripts(environment).iterate_revisions(newest, found or "base"))
    except RevisionError as exc:
        raise UnknownRevision(found or "base", chain=environment.name) from exc
    return steps[::-1]


def current(target: Database, environment: Environment = SCHEMA) -> str | None:
    """Return the revision that *target* is at; None before the first."""
    engine = target.engine()
    try:
        with engine.connect() as connection:
            return current_on(connection, environment)
    except sqlalchemy.exc.DBAPIError as exc:
        raise _in_our_words(exc) from exc


def current_on(connection: "Connection", environment: Environment = SCHEMA) -> str | None:
    """Return the revision that a connection's database is at."""
    context = MigrationContext.configure(
        connection, opts={"version_table": environment.version_table}
    )
    return context.get_current_revision()


def require_schema(target: Database, revision: str) -> None:
    """Refuse if the schema is not at *revision* or behind it.

    Raises:
        SchemaNotReady: It is older, or not there at all.
    """
    if not is_applied(target, revision):
        raise SchemaNotReady(found=current(target), expected=revision)


def require_ledger(target: Database) -> None:
    """Refuse if the ledger is not there, as after a downgrade of the schema.

    Raises:
        SchemaNotReady: Runs cannot be found, so none can be taken back.
    """
    with translated(), target.connect() as conn:
        has_ledger = owned.is_there(conn, "load_runs")
    if not has_ledger:
        raise SchemaNotReady(found=current(target), expected=LEDGER)


def is_applied(target: Database, revision: str, environment: Environment = SCHEMA) -> bool:
    """Say whether *target* is at *revision* or beyond it.

    Raises:
        UnknownRevision: There is no file of the revision that it is at.
    """
    found = current(target, environment)
    if found is None:
        return False
    try:
        steps = list(scripts(environment).iterate_revisions(found, "base"))
    except RevisionError as exc:
        raise UnknownRevision(found, chain=environment.name) from exc
    return revision in {step.revision for step in steps}


def run(context: Any, **options: Any) -> None:
    """Run the revisions that the command line asked for; the body of each ``env.py``.

    Raises:
        alembic.util.CommandError: For our own errors and the database's, so that
            ``alembic`` prints them as one line with the hint, without a traceback.
        HarcaError: Likewise, where harca runs the revisions.
    """
    settings: Config = context.config
    if settings.cmd_opts is not None and settings.config_file_name:
        from logging.config import fileConfig

        fileConfig(settings.config_file_name, disable_existing_loggers=False)
    options.setdefault("transaction_per_migration", True)
    if context.is_offline_mode():
        context.configure(dialect_name="postgresql", literal_binds=True, **options)
        with context.begin_transaction():
            context.run_migrations()
        return
    try:
        explicit = context.get_x_argument(as_dictionary=True).get("database")
        target = settings.attributes.get("database") or database(explicit)
        settings.attributes["database"] = target
        waiting = settings.attributes.get("progress", _log.info)
        with target.engine().connect() as connection, _alone(target, connection, waiting):
            connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
            connection.commit()
            context.configure(connection=connection, **options)
            consolidates = _consolidates(context)
            if consolidates:
                _refuse_early(target)
            with context.begin_transaction():
                context.run_migrations()
        if consolidates:
            _go_on(target, legacy_options(context))
    except (HarcaError, sqlalchemy.exc.DBAPIError) as exc:
        ours = _in_our_words(exc)
        if settings.cmd_opts is None:  # run by harca, which prints it itself
            raise ours from exc
        raise alembic.util.CommandError(
            redacted(f"{ours}\n  hint: {ours.hint}" if ours.hint else str(ours))
        ) from exc


@contextmanager
def _alone(
    target: Database, connection: "Connection", waiting: Callable[[str], object]
) -> Iterator[None]:
    """Keep others from running revisions while this connection does.

    Two first upgrades at once would both create everything.
    """
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with translated(), target.connect() as locker:
        lock.notice_loss(locker)
        lock.take(locker, lock.SCHEMA_LOCK, waiting=waiting)
        driver.autocommit = True
        lock.notice_loss(driver)
        driver.autocommit = False
        with lock.looked_after(locker, driver):
            yield


def arguments(context: Any) -> dict[str, str]:
    """Return what ``-x`` says, or harca in its place."""
    return {
        **context.config.attributes.get("arguments", {}),
        **context.get_x_argument(as_dictionary=True),
    }


def legacy_options(context: Any) -> "LegacyOptions":
    """Return what the operator says about HARCA's old tables, in an Alembic environment."""
    from harca import consolidate

    settings: Config = context.config
    section = settings.get_section(settings.config_ini_section) or {}
    given = context.get_x_argument(as_dictionary=True)
    if legacy := settings.attributes.get("legacy"):
        given = {**given, "legacy": legacy}
    return consolidate.options(given, section.get("legacy_model"))


def _consolidates(context: Any) -> bool:
    """Say whether the command leads to the revision that consolidates, or beyond."""
    from harca import consolidate

    try:
        wanted = context.get_revision_argument()
    except (KeyError, alembic.util.CommandError):
        return False  # a command that is about no revision
    if not isinstance(wanted, str) or not wanted.isalnum():
        return False  # nothing, or relative to where the database is
    script = ScriptDirectory.from_config(context.config)
    try:
        steps = {step.revision for step in script.iterate_revisions(wanted, "base")}
    except RevisionError:
        return False  # alembic says what is wrong with it
    return consolidate.REVISION in steps and not legacy_options(context).ignore


def _go_on(target: Database, given: "LegacyOptions") -> None:
    from harca import consolidate

    if is_applied(target, consolidate.REVISION):
        consolidate.go_on(target, given)


def _refuse_early(target: Database) -> None:
    """Refuse what a later revision of this upgrade would refuse, before the first one runs."""
    from harca import consolidate

    if not is_applied(target, consolidate.REVISION):
        with translated(), target.connect() as conn:
            consolidate.check(conn)


def _in_our_words(exc: HarcaError | sqlalchemy.exc.DBAPIError) -> HarcaError:
    if isinstance(exc, HarcaError):
        return exc
    if isinstance(exc.orig, psycopg.Error):
        return target_error(exc.orig)
    return TargetError(f"PostgreSQL: {exc}")


def refuse_offline(context: Any) -> None:
    """Data revisions read files and prove rows: there is no SQL script of them."""
    if context.is_offline_mode():
        raise alembic.util.CommandError(
            "data revisions cannot be written as SQL: they read a store and verify its rows"
        )
