"""A server's encrypted door: what pgbouncer or a load balancer is to PostgreSQL.

The embedded server is built without TLS. libpq speaks to this end as to any server that has
it, with certificates made for the test; behind it the bytes go on to a server without.
"""

import contextlib
import select
import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104  # PostgreSQL's manual, "Message Formats"
_TLS_RECORD = b"\x16"  # of sslnegotiation=direct, which asks for nothing first
_STEP = 1 << 16


@dataclass(frozen=True)
class Certificates:
    """Files in *folder*, with an authority that has signed none of the others."""

    folder: Path

    def __getattr__(self, name: str) -> str:
        return str(self.folder / name.replace("_", "."))


def make_certificates(folder: Path) -> Certificates:
    """Make an authority, what it signs for 127.0.0.1 and for a client, and another authority."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, which makes the certificates")
    for name, subject, signed_by, more in (
        ("ca", "/CN=harca test authority", None, ""),
        ("other", "/CN=another authority", None, ""),
        ("server", "/CN=localhost", "ca", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        ("client", "/CN=admin", "ca", ""),
    ):
        key, certificate = f"{folder}/{name}.key", f"{folder}/{name}.crt"
        command = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", subject, "-keyout", key, "-out", certificate,
        ]  # fmt: skip
        if signed_by:
            command += ["-CA", f"{folder}/{signed_by}.crt", "-CAkey", f"{folder}/{signed_by}.key"]
            command += ["-addext", "basicConstraints=critical,CA:FALSE"]
        if more:
            command += ["-addext", more]
        subprocess.run(command, check=True, capture_output=True)
        Path(key).chmod(0o600)  # libpq takes no other
    return Certificates(folder)


class Door(socketserver.ThreadingTCPServer):
    """Listens on 127.0.0.1, and passes on what comes in encrypted; nothing else.

    Attributes:
        clients: The names in the certificates that clients have shown; None for none.
    """

    daemon_threads = True
    block_on_close = True

    def __init__(self, port: int, certificates: Certificates, *, asks_for_client: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Visit)
        self.behind = port
        self.clients: list[str | None] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificates.server_crt, certificates.server_key)
        self.context.load_verify_locations(certificates.ca_crt)
        self.context.set_alpn_protocols(["postgresql"])
        self.context.verify_mode = ssl.CERT_REQUIRED if asks_for_client else ssl.CERT_OPTIONAL

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Visit(socketserver.BaseRequestHandler):
    server: Door

    def handle(self) -> None:
        with contextlib.suppress(ssl.SSLError, OSError):  # what the client gives up, it says
            client = self._encrypted(self.request)
            if client is not None:
                with client, socket.create_connection(("127.0.0.1", self.server.behind)) as server:
                    _pass_on(client, server)

    def _encrypted(self, plain: socket.socket) -> ssl.SSLSocket | None:
        while plain.recv(1, socket.MSG_PEEK) != _TLS_RECORD:
            asked = plain.recv(8, socket.MSG_WAITALL)
            code = struct.unpack("!II", asked)[1] if len(asked) == 8 else 0
            if code == _GSS_REQUEST:
                plain.sendall(b"N")
                continue
            if code != _SSL_REQUEST:
                return None
            plain.sendall(b"S")
            break
        client = self.server.context.wrap_socket(plain, server_side=True)
        shown: Any = client.getpeercert()
        self.server.clients.append(shown["subject"][0][0][1] if shown else None)
        return client


def _pass_on(client: ssl.SSLSocket, server: socket.socket) -> None:
    ends: list[socket.socket] = [client, server]
    while True:
        ready = [client] if client.pending() else select.select(ends, [], [])[0]
        for end in ready:
            data = end.recv(_STEP)
            if not data:
                return
            (server if end is client else client).sendall(data)


@contextlib.contextmanager
def encrypted(
    port: int, certificates: Certificates, *, asks_for_client: bool = False
) -> Iterator[Door]:
    """Give an encrypted door to the server on *port*."""
    with Door(port, certificates, asks_for_client=asks_for_client) as door:
        thread = threading.Thread(target=door.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield door
        finally:
            door.shutdown()
            thread.join()
