"""A network between harca and its server that can be cut and stalled at will.

    with Proxy(database.conninfo) as network:
        behind = network.through(database)  # connects by the proxy
        network.cut_at(b"COPY")             # as soon as the client sends that

It runs in a thread of its own, so the test can act while the tested code is waiting. A
`Hold` makes the tested code wait at a point that is told by what it sends, so that a test
can do there whatever it likes:

    point = network.hold_at(b"COMMIT", how=How.BEFORE)
    ...                                     # starts the tested code
    point.wait()                            # it has sent COMMIT, the server has not seen it
    ...                                     # does its worst
    point.release()
"""

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from harca.postgres.connect import Database

_RESET = struct.pack("ii", 1, 0)  # linger for no time at all: closing sends RST, not FIN
_WAIT_S = 30
# BackendKeyData: its length depends on the protocol's version, then the process and a key.
_BACKEND = re.compile(rb"K\0\0[\0\1].(.{4})", re.DOTALL)


class How(StrEnum):
    """Where a point is, seen from the bytes that tell it.

    ``BEFORE``: the server has seen nothing of them. ``WITHIN``: it has seen all up to them.
    ``AFTER``: it has done what they ask for, and its answer is held back.
    """

    BEFORE = "before"
    WITHIN = "within"
    AFTER = "after"


class Hold:
    """A point at which a connection is held until it is let go.

    Attributes:
        backend: Process of the server that the connection is to, once it is held.
    """

    def __init__(
        self, proxy: "Proxy", sent: bytes, how: How, *, nth: int, since: bytes = b""
    ) -> None:
        self.proxy, self.sent, self.how, self.left, self.since = proxy, sent, how, nth, since
        self.counts_on: set[_End] = set()
        self.reached = threading.Event()
        self.end: _End | None = None

    @property
    def backend(self) -> int:
        """Process of the server that the held connection is to."""
        assert self.end is not None
        assert self.end.peer is not None
        return self.end.peer.backend

    def wait(self, timeout_s: float = _WAIT_S) -> bool:
        """Wait until a connection is held; return False if that does not happen."""
        return self.reached.wait(timeout_s)

    def release(self) -> None:
        """Pass on what was held back, and what comes; hold nothing more."""
        self.proxy._call(self.proxy._do(self._release))

    def _release(self) -> None:
        if self in self.proxy._holds:
            self.proxy._holds.remove(self)
        if self.end is not None:
            self.end.let_go()


class Proxy:
    """Passes bytes on between clients and the server that *conninfo* names.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        accepted: Connections that it was asked for, those that it reset included.
    """

    def __init__(self, conninfo: str) -> None:
        parts = conninfo_to_dict(conninfo)
        self._host = str(parts.get("host") or "/tmp")
        self._server_port = int(str(parts.get("port") or 5432))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._ends: set[_End] = set()
        self._refusing = self._stalled = False
        self._triggers: list[tuple[bytes, Callable[[], None]]] = []
        self._holds: list[Hold] = []
        self.accepted = 0
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._listener = self._call(self._listen())
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WAIT_S)
        self._loop.close()

    def through(self, database: Database) -> Database:
        """Return *database* as it is reached by this proxy."""
        parts = conninfo_to_dict(database.conninfo)
        parts.pop("hostaddr", None)
        # Neither would be of use, and asking for them takes a round trip each.
        parts |= {"sslmode": "disable", "gssencmode": "disable"}
        return Database(
            make_conninfo("", **{**parts, "host": "127.0.0.1", "port": self.port}),
            "the proxy",
        )

    def cut(self) -> None:
        """Reset every connection, on both sides; new ones are let through."""
        self._call(self._do(self._cut))

    def cut_off(self) -> None:
        """Reset every connection, and every new one until `restore`."""
        self._call(self._do(self._cut_off))

    def stall(self) -> None:
        """Pass nothing on any more, in neither direction, until `restore`."""
        self._call(self._do(self._stall))

    def restore(self) -> None:
        """Let everything through again, what was held back by a stall first."""
        self._call(self._do(self._restore))

    def cut_at(self, sent: bytes) -> None:
        """Cut once, instead of passing on the client's next bytes that contain *sent*."""
        self._triggers.append((sent, self._cut))

    def stall_at(self, sent: bytes) -> None:
        """Stall at them, which are held back until `restore`."""
        self._triggers.append((sent, self._stall))

    def hold_at(
        self, sent: bytes, *, how: How = How.BEFORE, nth: int = 1, since: bytes = b""
    ) -> Hold:
        """Hold a connection the *nth* time that a client sends bytes that contain *sent*.

        Counted from where that connection has sent *since*. Others go on, and an end of this
        one is passed on.
        """
        held = Hold(self, sent, how, nth=nth, since=since)
        self._holds.append(held)
        return held

    def _call(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(_WAIT_S)

    async def _do(self, action: Callable[[], None]) -> None:
        action()

    async def _listen(self) -> asyncio.Server:
        return await self._loop.create_server(lambda: _End(self), "127.0.0.1", 0)

    async def _close(self) -> None:
        self._listener.close()
        self._cut()
        await self._listener.wait_closed()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _connect(self, client: "_End") -> None:
        def server_end() -> _End:
            return _End(self, peer=client)

        try:
            if self._host.startswith("/"):
                path = f"{self._host}/.s.PGSQL.{self._server_port}"
                await self._loop.create_unix_connection(server_end, path)
            else:
                await self._loop.create_connection(server_end, self._host, self._server_port)
        except OSError:  # the server is down, so the client's connection ends too
            client.reset()

    def _cut(self) -> None:
        for end in list(self._ends):
            end.reset()

    def _cut_off(self) -> None:
        self._refusing = True
        self._cut()

    def _stall(self) -> None:
        self._stalled = True
        for end in self._ends:
            end.pause()

    def _restore(self) -> None:
        self._refusing = self._stalled = False
        for end in list(self._ends):
            end.release()

    def _held_at(self, end: "_End", data: bytes) -> Hold | None:
        for hold in self._holds:
            if hold.since in data:
                hold.counts_on.add(end)
            if hold.sent in data and end in hold.counts_on:
                hold.left -= 1
                if hold.left == 0:
                    self._holds.remove(hold)
                    return hold
        return None

    def _triggered(self, data: bytes) -> Callable[[], None] | None:
        for trigger in self._triggers:
            if trigger[0] in data:
                self._triggers.remove(trigger)
                return trigger[1]
        return None


class _End(asyncio.Protocol):
    """One side of a connection: the client's, or, if it is made for a *peer*, the server's."""

    def __init__(self, proxy: Proxy, *, peer: "_End | None" = None) -> None:
        self.proxy, self.peer, self.is_client = proxy, peer, peer is None
        self.kept: list[bytes] = []
        self.keeps = self.ended = False
        self.answer_of: Hold | None = None
        self.backend = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.is_client:
            self.proxy.accepted += 1
            if self.proxy._refusing:
                self.reset()
                return
            transport.pause_reading()  # until there is somebody to pass it on to
            self.proxy._ends.add(self)
            self.connecting = self.proxy._loop.create_task(self.proxy._connect(self))
            return
        assert self.peer is not None
        if self.peer.ended:
            self.reset()
            return
        self.proxy._ends.add(self)
        self.peer.peer = self
        if self.proxy._stalled:
            self.pause()
        else:
            self.peer.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.is_client:
            if (act := self.proxy._triggered(data)) is not None:
                act()
            if (hold := self.proxy._held_at(self, data)) is not None:
                data = self._begin(hold, data)
        else:
            self._note_backend(data)
        if self.answer_of is not None:
            self.keeps = True
            self.answer_of.reached.set()
            self.answer_of = None
        if self.proxy._stalled or self.keeps:
            self.kept.append(data)
        elif self.peer is not None and not self.ended:
            self.peer.transport.write(data)

    def _begin(self, hold: Hold, data: bytes) -> bytes:
        """Begin to hold; return what is still to be passed on or kept."""
        assert self.peer is not None
        hold.end = self
        if hold.how is How.AFTER:
            self.peer.answer_of = hold
            return data
        if hold.how is How.WITHIN:
            seen, data = data[: (at := data.index(hold.sent))], data[at:]
            self.peer.transport.write(seen)
        self.keeps = True
        hold.reached.set()
        return data

    def _note_backend(self, data: bytes) -> None:
        """Read BackendKeyData, which comes with the first answers of a server."""
        if not self.backend and (found := _BACKEND.search(data)) is not None:
            (self.backend,) = struct.unpack("!i", found[1])

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.proxy._ends.discard(self)
        if self.peer is not None and not self.peer.ended:
            self.peer.transport.close()  # what is still to be sent goes first

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.pause()

    def resume_writing(self) -> None:
        if self.peer is not None and not self.proxy._stalled:
            self.peer.release()

    def pause(self) -> None:
        """Take nothing in."""
        self.transport.pause_reading()

    def let_go(self) -> None:
        """End what a `Hold` has begun, on both sides."""
        for end in (self, self.peer):
            if end is not None:
                end.keeps, end.answer_of = False, None
                if not self.proxy._stalled:
                    end.release()

    def release(self) -> None:
        """Pass on what was kept, and what comes."""
        if self.peer is None or self.ended:
            return
        if not self.keeps:
            for data in self.kept:
                self.peer.transport.write(data)
            self.kept.clear()
        self.transport.resume_reading()

    def reset(self) -> None:
        """End it as a broken network does."""
        self.ended = True
        self.proxy._ends.discard(self)
        connected: socket.socket = self.transport.get_extra_info("socket")
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()
