"""Counting what a client says to a server: a proxy in between that reads the messages and passes them on."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_CHUNK = 65_536
_ENCRYPTION_ASKED = (80877103, 80877104)
"""PostgreSQL: what a client asks with before it starts, for TLS and GSS."""
_EXECUTE, _QUERY, _SYNC = b"E", b"Q", b"S"


@dataclass(slots=True)
class Count:
    """What was sent so far."""

    statements: int = 0
    round_trips: int = 0
    """How often the client had to wait for an answer."""

    def since(self, earlier: Count) -> Count:
        """Return what was sent after ``earlier``."""
        return Count(self.statements - earlier.statements, self.round_trips - earlier.round_trips)

    def copy(self) -> Count:
        """Return the count as it stands."""
        return Count(self.statements, self.round_trips)


Reader = Callable[[Count], Callable[[bytes], None]]


def postgresql_reader(count: Count) -> Callable[[bytes], None]:
    """Return what reads a client's side of a PostgreSQL connection: it waits after each Sync and each Query."""
    waiting = bytearray()
    started = False

    def read(data: bytes) -> None:
        nonlocal started
        waiting.extend(data)
        while len(waiting) >= 8 if not started else len(waiting) >= 5:
            head = 1 if started else 0
            size = head + int.from_bytes(waiting[head : head + 4])
            if len(waiting) < size:
                return
            message = bytes(waiting[:size])
            del waiting[:size]
            if not started:
                started = int.from_bytes(message[4:8]) not in _ENCRYPTION_ASKED
                continue
            count.statements += message[:1] in (_EXECUTE, _QUERY)
            count.round_trips += message[:1] in (_SYNC, _QUERY)

    return read


def mysql_reader(count: Count) -> Callable[[bytes], None]:
    """Return what reads a client's side of a MySQL connection: each command begins a packet with number 0."""
    waiting = bytearray()

    def read(data: bytes) -> None:
        waiting.extend(data)
        while len(waiting) >= 4:
            size = 4 + int.from_bytes(waiting[:3], "little")
            if len(waiting) < size:
                return
            if waiting[3] == 0:
                count.statements += 1
                count.round_trips += 1
            del waiting[:size]

    return read


@contextmanager
def counting_proxy(host: str, port: int, reader: Reader) -> Iterator[tuple[int, Count]]:
    """Listen on a port of this machine for a server; yield that port and what is counted."""
    count = Count()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return  # It was closed: the count is over.
                server = socket.create_connection((host, port))
                _start(_pass_on, client, server, reader(count))
                _start(_pass_on, server, client, lambda _data: None)

        _start(accept)
        try:
            yield listener.getsockname()[1], count
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _pass_on(source: socket.socket, target: socket.socket, read: Callable[[bytes], None]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            read(data)  # Before it is passed on: by the time of an answer it has been counted.
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


def _start(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()
