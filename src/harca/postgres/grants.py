"""Rights on a table, read and given to another relation."""

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql

_GRANTS = """
    SELECT r.rolname, a.privilege_type, a.is_grantable, NULL::name
    FROM pg_class c, aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE c.oid = %(relation)s::regclass AND a.grantee <> c.relowner
    UNION ALL
    SELECT r.rolname, a.privilege_type, a.is_grantable, t.attname
    FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a
    LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE c.oid = %(relation)s::regclass AND a.grantee <> c.relowner
"""


def role(name: str | None) -> sql.Composable:
    """Return a role in a statement; None is everybody."""
    return sql.SQL("PUBLIC") if name is None else sql.Identifier(name)


def copy(conn: psycopg.Connection[Any], table: sql.Identifier, view: sql.Identifier) -> None:
    """Give *view* the rights on *table*, and no others."""
    revoke_all(conn, view)
    for grantee, privilege, grantable, column in _grants(conn, table):
        conn.execute(
            sql.SQL("GRANT {privilege}{column} ON {view} TO {role}{option}").format(
                privilege=sql.SQL(privilege),
                column=sql.SQL(" ({})").format(sql.Identifier(column)) if column else sql.SQL(""),
                view=view,
                role=role(grantee),
                option=sql.SQL(" WITH GRANT OPTION" if grantable else ""),
            )
        )


def revoke_all(conn: psycopg.Connection[Any], view: sql.Identifier) -> None:
    """Take away what default privileges have given."""
    for grantee in {grant[0] for grant in _grants(conn, view)}:
        conn.execute(sql.SQL("REVOKE ALL ON {} FROM {}").format(view, role(grantee)))


def readers(
    conn: psycopg.Connection[Any], table: sql.Identifier, columns: Iterable[str]
) -> set[str | None]:
    """Return who may read all of *columns* of *table*, beside its owner."""
    seen: dict[str | None, set[str | None]] = {}
    for grantee, privilege, _, column in _grants(conn, table):
        if privilege == "SELECT":
            seen.setdefault(grantee, set()).add(column)
    wanted = set(columns)
    return {grantee for grantee, read in seen.items() if None in read or wanted <= read}


def _grants(
    conn: psycopg.Connection[Any], relation: sql.Identifier
) -> list[tuple[str | None, str, bool, str | None]]:
    """Return grantee, privilege, whether it can be passed on, and column of each grant."""
    return conn.execute(_GRANTS, {"relation": relation.as_string(conn)}).fetchall()
