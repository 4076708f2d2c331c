"""Tickets: the right to start one job, which the kernel gives to exactly one of two.

The dispatcher sends jobs to a worker ahead of time, so that a worker with short jobs never waits. A job sent is not a
job started: the worker takes a ticket, 8 bytes from a pipe, before each. The dispatcher holds the reading end as well
and may take tickets back: what it reads the worker can never start. So no job is a hostage of the slow one before it,
a stop hands back at once what has not begun, and a dead worker's unread tickets are exactly its unstarted jobs.
Reading 8 bytes costs 0.5 microseconds; a pipe's lock makes each read whole.
"""

from __future__ import annotations

import os
import struct

_TICKET = struct.Struct("<q")
SIZE = _TICKET.size
MOST = 4096 // SIZE
"""How many tickets may wait in one pipe: what POSIX promises to be written whole or not at all."""


class TicketPipe:
    """The dispatcher's ends of a worker's pipe."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self._writer, False)

    def issue(self, tokens: list[int]) -> None:
        """Give the worker the right to start these jobs, in this order. At most `MOST` may be waiting."""
        os.write(self._writer, b"".join(map(_TICKET.pack, tokens)))

    def take_back(self) -> list[int]:
        """Take every ticket that the worker has not taken, in order."""
        try:
            data = os.read(self.reader, MOST * SIZE)
        except BlockingIOError:
            return []
        return [token for (token,) in _TICKET.iter_unpack(data)]

    def close(self) -> None:
        """Close both ends; a worker that waits for a ticket sees the end and leaves."""
        os.close(self.reader)
        os.close(self._writer)


def take(reader: int) -> int | None:
    """Take the next ticket as a worker: a token, None while there is none; raises EOFError at the pipe's end."""
    try:
        data = os.read(reader, SIZE)
    except BlockingIOError:
        return None
    if len(data) < SIZE:
        raise EOFError
    token: int = _TICKET.unpack(data)[0]
    return token
