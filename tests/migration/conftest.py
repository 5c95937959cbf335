"""The old application's database, and alembic upon it."""

from uuid import uuid4

import alembic.command as alembic_command
import psycopg
import pytest

from harca import migrations
from harca.postgres.connect import Database


@pytest.fixture
def alembic(empty_database, monkeypatch, caplog):
    """Run alembic's commands on the test's database in this process; return what was logged."""

    def run(command: str, revision: str, *, database: Database = empty_database, **env: str) -> str:
        caplog.clear()
        with monkeypatch.context() as patch, caplog.at_level("INFO", logger="harca"):
            for name, value in env.items():
                patch.setenv(name, value)
            settings = migrations.config(migrations.SCHEMA, database)
            getattr(alembic_command, command)(settings, revision)
        return str(caplog.text)

    return run


@pytest.fixture
def app(empty_database):
    """The application's connection: its tables are in schema public unless a test says so."""
    with psycopg.connect(empty_database.conninfo, autocommit=True) as conn:
        yield conn


@pytest.fixture
def role(app):
    """A role that may log in and create, and owns nothing."""
    name = f"someone_{uuid4().hex[:8]}"
    database = app.info.dbname
    app.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'p'")
    app.execute(f"GRANT CREATE ON DATABASE {database} TO {name}")
    app.execute(f"GRANT ALL ON SCHEMA public TO {name}")
    yield name
    app.execute(f"DROP OWNED BY {name} CASCADE")
    app.execute(f"DROP ROLE {name}")
