"""The roles that scripts/roles.sql makes: what they can do is enough, and it is all they can."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from harca.postgres.connect import Database
from harca.postgres.connect import database as resolve
from tests.commands import ARGUMENTS, arguments_of, of_a_database
from tests.conftest import ROOT
from tests.stores import record, write_record

SCRIPT = (ROOT / "scripts" / "roles.sql").read_text("utf-8")
PASSWORD = secrets.token_hex(8)


@dataclass(frozen=True)
class Roles:
    """The database as each of the roles reaches it, and the roles' names."""

    admin: Database
    migrator: Database
    reader: Database
    names: tuple[str, str]


def as_role(database: Database, role: str) -> Database:
    return resolve(make_conninfo(database.conninfo, user=role, password=PASSWORD))


def settings(database: Database, names: tuple[str, str]) -> str:
    given = f"-c harca.migrator={names[0]} -c harca.reader={names[1]}"
    return make_conninfo(database.conninfo, options=given)


@pytest.fixture
def names() -> tuple[str, str]:
    """Names of the test's own: roles belong to the server, and not to a database."""
    own = secrets.token_hex(4)
    return f"migrator {own}", f"reader {own}"


@pytest.fixture
def _dropped(empty_database: Database, names: tuple[str, str]) -> Iterator[None]:
    """Drop the roles that a test has made."""
    yield
    with empty_database.connect() as conn:
        for name in (*names, f"admin {names[0]}"):
            role = sql.Identifier(name)
            if conn.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).rowcount:
                conn.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))
                conn.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(role))
                conn.execute(sql.SQL("DROP OWNED BY {}").format(role))
                conn.execute(sql.SQL("DROP ROLE {}").format(role))


def run_script(database: Database, names: tuple[str, str]) -> None:
    # The settings are quoted for libpq's options, where a space would end one.
    escaped = (names[0].replace(" ", "\\ "), names[1].replace(" ", "\\ "))
    with psycopg.connect(settings(database, escaped), autocommit=True) as conn:
        conn.execute(SCRIPT)


@pytest.fixture
def roles(empty_database: Database, names: tuple[str, str], _dropped: None) -> Roles:
    """A database with a table of somebody else's, and the roles in it."""
    with empty_database.connect() as conn:
        conn.execute("CREATE EXTENSION vector")
        conn.execute("CREATE TABLE public.others AS SELECT 'theirs' AS what")
        conn.execute("CREATE SCHEMA theirs")
        conn.execute("CREATE TABLE theirs.others AS SELECT 'theirs' AS what")
    run_script(empty_database, names)
    run_script(empty_database, names)  # again does no harm
    with empty_database.connect() as conn:
        for name in names:
            conn.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(name), sql.Literal(PASSWORD)
                )
            )
    return Roles(
        empty_database,
        as_role(empty_database, names[0]),
        as_role(empty_database, names[1]),
        names,
    )


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    for number in range(3):
        write_record(folder, record(f"t{number}", [1.0, number]))
    write_record(folder / "a", record("twice", [1.0, 0.0]))
    write_record(folder / "b", record("twice", [0.0, 1.0]))
    write_record(folder, record("bad", [None]))
    (tmp_path / "query.json").write_text("[1, 2]")
    return folder


# It works in a schema of its own, for which an administrator gives the right for the moment.
ADVISE = "harca index advise"


@pytest.mark.usefixtures("project")
def test_the_migrator_can_do_all_that_a_migration_needs(roles, store, run_harca, run_alembic):
    assert run_alembic("upgrade", "head", database=roles.migrator).code == 0
    ends = {}
    for path in of_a_database():
        done = run_harca(*path.split()[1:], *arguments_of(path), database=roles.migrator)
        ends[path] = (done.code, done.err)
        if path == ADVISE:
            assert "permission denied for database" in done.err
            continue
        assert "permission denied" not in done.err, (path, done.err)
        assert "must be owner" not in done.err, (path, done.err)

    listed = {path: end for path, end in ends.items() if path in ARGUMENTS}
    assert {path for path, end in listed.items() if end[0]} == {"harca migrate"}, ends
    with roles.admin.connect() as conn:
        found = conn.execute(
            "SELECT DISTINCT schemaname, tableowner FROM pg_tables "
            "WHERE tablename IN ('vector_embeddings', 'load_runs', 'alembic_version')"
        ).fetchall()
    assert found == [("harca", roles.names[0])]


def test_the_migrator_can_restore_what_it_or_the_reader_has_backed_up(
    roles, store, run_harca, tmp_path
):
    first = run_harca("migrate", store, "--max-rejects", "1", "--json", database=roles.migrator)
    for number, role in enumerate((roles.migrator, roles.reader)):
        made = run_harca("backup", "--json", "--backup-dir", tmp_path / "made", database=role)
        assert made.code == 0, made.err
        write_record(store, record(f"new {number}", [5.0, number]))
        run_harca("migrate", store, "--max-rejects", "1", "--no-backup", database=roles.migrator)

        done = run_harca("restore", made.json["folder"], "--replace", database=roles.migrator)

        assert done.code == 0, done.err
    with roles.migrator.connect() as conn:
        found = conn.execute("SELECT count(*), max(run_id) FROM vector_embeddings").fetchone()
    assert found == (first.json["loaded"], first.json["run_id"])


def test_the_migrator_can_take_back_data_revisions_and_the_schema(
    roles, store, run_harca, run_alembic
):
    def alembic(*arguments: str) -> None:
        done = run_alembic(*arguments, database=roles.migrator)
        assert done.code == 0, done.err

    alembic("upgrade", "head")
    alembic("-n", "data", "-x", f"store={store}", "-x", "max_rejects=1", "upgrade", "head")
    alembic("-n", "data", "downgrade", "base")
    done = run_harca("status", "--json", database=roles.migrator)
    assert (done.json["rows"], done.json["data"]) == (0, None)

    # What an older schema cannot hold would need a schema of its own, which takes a right that
    # the role has not: it says so, and nothing is lost.
    refused = run_alembic("downgrade", "base", database=roles.migrator)
    assert refused.code != 0
    assert "permission denied for database" in refused.err
    with roles.admin.connect() as conn:
        conn.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
                sql.Identifier(conn.info.dbname), sql.Identifier(roles.names[0])
            )
        )
    alembic("downgrade", "base")
    alembic("upgrade", "head")


FORBIDDEN = {
    "read a table of somebody else's": "SELECT * FROM public.others",
    "read one in another schema": "SELECT * FROM theirs.others",
    "read passwords": "SELECT rolpassword FROM pg_authid",
    "drop a table of somebody else's": "DROP TABLE public.others",
    "change it": "ALTER TABLE public.others ADD COLUMN ours text",
    "make a table in public": "CREATE TABLE public.ours ()",
    "make a schema": "CREATE SCHEMA ours",
    "make a role": "CREATE ROLE ours",
    "become more": "ALTER ROLE CURRENT_USER SUPERUSER",
    "make a database": "CREATE DATABASE ours",
    "drop the extension": "DROP EXTENSION vector CASCADE",
    "update the extension": "ALTER EXTENSION vector UPDATE",
    "run programs": "COPY (SELECT 1) TO PROGRAM 'true'",
    "write files": "COPY (SELECT 1) TO '/tmp/harca-should-not-be'",
    "read files": "SELECT pg_read_file('postgresql.conf')",
    "change the server": "ALTER SYSTEM SET work_mem = '5MB'",
    "act as pg_monitor": "SET ROLE pg_monitor",
}
NOR_THE_READER = {
    "insert": "INSERT INTO vector_embeddings (content) VALUES ('x')",
    "update": "UPDATE vector_embeddings SET content = 'x'",
    "delete": "DELETE FROM vector_embeddings",
    "empty": "TRUNCATE vector_embeddings",
    "drop": "DROP TABLE vector_embeddings",
    "change the ledger": "UPDATE load_runs SET status = 'verified'",
    "make a table": "CREATE TABLE ours ()",
    "act as the migrator": "SET ROLE {migrator}",
}


def assert_refused(database: Database, statements: dict[str, str], migrator: str) -> None:
    with psycopg.connect(database.conninfo, autocommit=True) as conn:
        for what, statement in statements.items():
            named = sql.SQL(statement).format(migrator=sql.Identifier(migrator))
            try:
                conn.execute(named)
            except pg.InsufficientPrivilege:
                continue
            pytest.fail(f"{conn.info.user} can {what}")
        extensions = conn.execute(
            "SELECT has_database_privilege(current_database(), 'CREATE')"
        ).fetchone()
        assert extensions == (False,)  # by which trusted extensions are created


def test_neither_role_can_do_more(roles, store, run_harca, run_alembic):
    assert run_alembic("upgrade", "head", database=roles.migrator).code == 0
    assert run_harca("migrate", store, database=roles.migrator).code == 3

    assert_refused(roles.migrator, FORBIDDEN, roles.names[0])
    assert_refused(roles.reader, FORBIDDEN | NOR_THE_READER, roles.names[0])


def test_the_reader_can_look_and_nothing_else(roles, store, tmp_path, run_harca, run_alembic):
    assert run_alembic("upgrade", "head", database=roles.migrator).code == 0
    assert run_harca("migrate", store, "--max-rejects", "1", database=roles.migrator).code == 0

    for path in (
        "verify", "status", "search", "rejections list", "rejections export", "export", "db psql",
    ):  # fmt: skip
        done = run_harca(*path.split(), *arguments_of(f"harca {path}"), database=roles.reader)
        assert done.code == 0, (path, done.err)
    write_record(store, record("t0", [9.0, 9.0]))
    assert run_harca("verify", store, database=roles.reader).code == 3

    refusals = [
        run_harca("migrate", store, database=roles.reader),
        run_harca("rollback", "1", database=roles.reader),
        run_alembic("downgrade", "base", database=roles.reader),
    ]
    for refused in refusals:
        assert refused.code != 0
        assert "permission denied" in refused.err or "must be owner" in refused.err, refused.err
    assert run_harca("status", "--json", database=roles.migrator).json["rows"] == 4


@pytest.mark.usefixtures("_dropped")
def test_an_owner_of_the_database_who_is_no_superuser_can_make_them(
    empty_database, names, run_alembic
):
    admin = f"admin {names[0]}"
    with empty_database.connect() as conn:
        conn.execute("CREATE EXTENSION vector")
        conn.execute(
            sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}").format(
                sql.Identifier(admin), sql.Literal(PASSWORD)
            )
        )
        conn.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(
                sql.Identifier(conn.info.dbname), sql.Identifier(admin)
            )
        )
    owner = as_role(empty_database, admin)
    run_script(owner, names)
    run_script(owner, names)
    with owner.connect() as conn:
        for name in names:
            conn.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(name), sql.Literal(PASSWORD)
                )
            )

    migrator, reader = (as_role(empty_database, name) for name in names)
    assert run_alembic("upgrade", "head", database=migrator).code == 0
    with psycopg.connect(reader.conninfo) as conn:
        assert conn.execute("SELECT count(*) FROM vector_embeddings").fetchone() == (0,)


@pytest.mark.usefixtures("_dropped")
def test_the_script_refuses_what_it_would_weaken(empty_database, names):
    with pytest.raises(pg.RaiseException, match="the extension vector is not in database"):
        run_script(empty_database, names)
    with empty_database.connect() as conn:
        conn.execute("CREATE EXTENSION vector")
        conn.execute(sql.SQL("CREATE ROLE {} CREATEROLE").format(sql.Identifier(names[0])))
    with pytest.raises(pg.RaiseException, match="can do more than harca needs"):
        run_script(empty_database, names)
    with empty_database.connect() as conn:
        conn.execute(sql.SQL("ALTER ROLE {} NOCREATEROLE").format(sql.Identifier(names[0])))
        conn.execute("CREATE SCHEMA harca")
    with pytest.raises(pg.RaiseException, match='schema "harca" is there already'):
        run_script(empty_database, names)
