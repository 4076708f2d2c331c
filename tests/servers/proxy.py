"""A proxy between a client and its server that breaks the link in the ways in which networks do.

It works on bytes, in threads of the tests' own process, and knows of the servers' protocols only how a client asks for
COMMIT and how an answer ends.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable
from enum import Enum
from typing import Final

from tests.servers.private import HOST, await_that

_CHUNK: Final = 65_536

_RESET: Final = struct.pack("ii", 1, 0)
_COMMIT: Final = re.compile(rb"\bCOMMIT\b", re.IGNORECASE)
_ANYTHING: Final = re.compile(rb"(?s).")
_IDLE: Final = b"Z\x00\x00\x00\x05I"
"""How a PostgreSQL server ends an answer after which no transaction is open."""

_ANSWERED_WITHIN: Final = 5.0
_QUIET: Final = 0.15
"""Seconds of silence after which an answer of a server that is not known to say so has ended."""


class Doubt(Enum):
    """What became of a transaction whose client lost the link while it asked for COMMIT."""

    LOST = "the server never heard of it"
    COMMITTED = "the server did it, and its answer was lost"
    RACING = "the server got it with its last breath, and does it while the client asks again"


class _Link:
    """One connection of a client, and the one to the server that answers it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.swallowing = False
        """Set while the server's words do not reach the client any more."""
        self.answer = b""
        self.answered = threading.Event()

    def cut(self) -> None:
        """Reset both connections, so that neither end hears a goodbye."""
        for each in (self.client, self.server):
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                each.shutdown(socket.SHUT_RD)  # Wakes the thread that reads there.
            with contextlib.suppress(OSError):
                each.close()


class Proxy:
    """Listens on a port of its own until `close`."""

    def __init__(self, port: int) -> None:
        self._leads_to = port
        self._listener = socket.create_server((HOST, 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self._closed = False
        self._refusing = False
        self.delay = 0.0
        """Seconds that each piece from the server is late."""
        self.before_accepting: Callable[[], None] | None = None
        """Called once, before the next connection is made."""
        self.accepted = 0
        """How many connections were ever made."""
        self._doubts: list[tuple[Doubt, re.Pattern[bytes]]] = []
        self.doubted: list[Doubt] = []
        """The doubts that came to pass."""
        self.refuses_after_doubt = False
        """Whether the link stays down after a doubt, until `heal`."""
        threading.Thread(target=self._accept, daemon=True).start()

    # --- faults ----------------------------------------------------------------------------------------------

    def cut(self) -> int:
        """Reset every connection, and return how many there were; new ones are taken."""
        with self._lock:
            links, self._links = self._links, set()
        for link in links:
            link.cut()
        return len(links)

    def black_hole(self) -> None:
        """Take every byte and every connection, and answer nothing, until `heal`."""
        self._open.clear()

    def silence(self) -> int:
        """Keep the server's words from the clients of the open connections, for good, and return how many there are.

        So does a router that has forgotten them. New connections are as good as ever.
        """
        with self._lock:
            for link in self._links:
                link.swallowing = True
            return len(self._links)

    def refuse(self) -> None:
        """Reset every connection, and every new one at once, until `heal`."""
        self._refusing = True
        self.cut()

    def heal(self) -> None:
        """Forward again. What was swallowed is lost, and connections that lost something are reset."""
        self._refusing = self.refuses_after_doubt = False
        if not self._open.is_set():
            self.cut()
            self._open.set()

    def lead_to(self, port: int) -> None:
        """Lead new connections to another port, and reset those that are open."""
        self._leads_to = port
        self.cut()

    def doubt(self, *doubts: Doubt, single: bool = False) -> None:
        """Break the next links at their COMMIT, one for each of ``doubts``.

        ``single`` takes whatever the client sends next for a COMMIT, as a statement without a transaction is.
        """
        with self._lock:
            self._doubts.extend((each, _ANYTHING if single else _COMMIT) for each in doubts)

    def calm(self) -> None:
        """Forget every doubt that has not come to pass."""
        with self._lock:
            self._doubts.clear()

    @property
    def links(self) -> int:
        """Return how many connections are open."""
        return len(self._links)

    def close(self) -> None:
        """Reset every connection and take no more."""
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)  # Wakes the thread that accepts.
        self._listener.close()
        self._open.set()
        self.cut()

    # --- links -----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if (call := self.before_accepting) is not None:
                self.before_accepting = None
                call()
            threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        server = None
        with contextlib.suppress(OSError):
            if not self._refusing:
                server = socket.create_connection((HOST, self._leads_to), timeout=5)
        if server is None:
            with contextlib.suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        server.settimeout(None)
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(client, server)
        with self._lock:
            self._links.add(link)
        threading.Thread(target=self._pump, args=(link, server, self._from_server), daemon=True).start()
        self._pump(link, client, self._from_client)

    def _pump(self, link: _Link, source: socket.socket, take: Callable[[_Link, bytes], None]) -> None:
        try:
            while piece := source.recv(_CHUNK):
                if self._open.is_set():
                    take(link, piece)
            self._open.wait()
            self._hang_up(link, source)
        except OSError:
            if not link.swallowing:
                self._forget(link)
                link.cut()

    def _hang_up(self, link: _Link, source: socket.socket) -> None:
        """Pass on the goodbye of one end, behind its last words."""
        link.answered.set()
        self._forget(link)
        if source is link.client:
            link.cut()
        elif not link.swallowing:
            link.client.shutdown(socket.SHUT_WR)

    def _forget(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)

    def _from_server(self, link: _Link, piece: bytes) -> None:
        if self.delay:
            threading.Event().wait(self.delay)
        if not link.swallowing:
            link.client.sendall(piece)
            return
        link.answer += piece
        if link.answer.endswith(_IDLE):
            link.answered.set()

    def _from_client(self, link: _Link, piece: bytes) -> None:
        if self._doubts and (doubt := self._due(piece)):
            self._break_in_doubt(link, piece, *doubt)
            return
        link.server.sendall(piece)

    def _due(self, piece: bytes) -> tuple[Doubt, int] | None:
        """Return the doubt that begins within ``piece``, and where."""
        with self._lock:
            if not self._doubts:
                return None
            doubt, pattern = self._doubts[0]
            found = pattern.search(piece)
            if found is None:
                return None
            del self._doubts[0]
            self.doubted.append(doubt)
            return doubt, found.start()

    def _break_in_doubt(self, link: _Link, piece: bytes, doubt: Doubt, position: int) -> None:
        if doubt is Doubt.LOST:
            link.server.sendall(piece[:position])
            self._break(link)
            return
        link.swallowing = True
        link.server.sendall(piece)
        if doubt is Doubt.RACING:
            self._break(link)
        else:  # Meanwhile the client may send what the answer waits for.
            threading.Thread(target=self._break_when_answered, args=(link,), daemon=True).start()

    def _break(self, link: _Link) -> None:
        self._refusing = self._refusing or self.refuses_after_doubt
        self._forget(link)
        link.cut()

    def _break_when_answered(self, link: _Link) -> None:
        with contextlib.suppress(AssertionError):
            await_that(lambda: link.answer or link.answered.is_set(), "the server answers", _ANSWERED_WITHIN)
        length = -1
        while length < len(link.answer):  # In silence an answer ends as well, where nothing says so.
            length = len(link.answer)
            if link.answered.wait(_QUIET):
                break
        self._break(link)
