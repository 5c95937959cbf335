"""Whether a connection is encrypted, and what to do if it is not, or cannot be."""

import ipaddress
import logging
import os
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

_log = logging.getLogger("harca.encryption")

# How libpq says that it is about encryption that there is no connection.
_ABOUT_IT = ("ssl", "certificate", "channel binding")

_told: set[str] = set()


def hint(said: str) -> str:
    """Return what to do about libpq's *said*, if encryption is what fails; else nothing."""
    if not any(word in said.lower() for word in _ABOUT_IT):
        return ""
    return (
        "The encryption that was asked for is what fails. Do sslmode, sslrootcert, sslcert and "
        "sslkey fit the server, and is its certificate for that host? See "
        "docs/security.md#encryption."
    )


def warn_if_readable(conn: psycopg.Connection[Any], conninfo: str) -> None:
    """Say, once for each host, that a connection to another machine is not encrypted.

    Not if the operator has chosen that with ``sslmode=disable``.
    """
    chosen = conninfo_to_dict(conninfo).get("sslmode") or os.environ.get("PGSSLMODE")
    host = conn.info.host
    if (
        conn.pgconn.ssl_in_use
        or chosen == "disable"
        or is_local(host, conn.info.hostaddr)
        or host in _told
    ):
        return
    _told.add(host)
    _log.warning(
        "the connection to %s is not encrypted: others on the way can read it. Add "
        "sslmode=verify-full (or sslmode=disable, if that is meant) to the connection string",
        host,
    )


def is_local(host: str, address: str) -> bool:
    """Say whether a connection leaves the machine: not to a socket or a loopback address."""
    if not address or host.startswith(("/", "@")):
        return True
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
