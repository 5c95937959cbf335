"""What to do where there is no connection, by what libpq says of it: it has no codes."""

import re

from harca.postgres import encryption

_HINTS = (
    (
        r"password authentication failed",
        "Are role and password right? Where the connection string has no password, it comes from "
        "PGPASSWORD, PGPASSFILE or ~/.pgpass.",
    ),
    (
        r"no password supplied",
        "Give the password: in the connection string, PGPASSWORD, PGPASSFILE or ~/.pgpass.",
    ),
    (
        r"failed to resolve host|could not translate host name",
        "Is the host's name right, and can this machine resolve it?",
    ),
    (
        r"connection refused|no such file or directory|time(d )?out",
        "Is the server running there, and are host and port right?",
    ),
    (
        r'database ".*" does not exist',
        "Is the database's name right? harca makes no database: CREATE DATABASE does.",
    ),
    (
        r"the database system is (starting up|shutting down|in recovery)",
        "Run the same command again when the server has started.",
    ),
    (
        r"too many (clients|connections)|remaining connection slots",
        "All of the server's connections are in use. Run the same command again when some are "
        "free.",
    ),
)


def hint(said: str) -> str:
    """Return what to do about *said*; in another language than English, what fits most."""
    if about_encryption := encryption.hint(said):
        return about_encryption
    for pattern, what_to_do in _HINTS:
        if re.search(pattern, said, re.IGNORECASE):
            return what_to_do
    return "Is the server running, and does the role exist?"
