"""LISTEN and NOTIFY as a hint: polling alone is complete, so nothing here may fail a push or hold a node up.

A transaction pooler accepts LISTEN and delivers nothing. So a listener proves itself before it is believed: a
notification of our own has to come back.
"""

from __future__ import annotations

import time
from typing import Any, Final
from uuid import uuid4

import psycopg
from sqlalchemy import Connection, Engine, text

CHANNEL: Final = "taskqueue"
PROBE_WITHIN: Final = 1.0
"""Seconds in which a notification of our own has to come back; measured 0.1 ms."""

_LISTEN = text("LISTEN taskqueue")
NOTIFY = text("SELECT pg_notify('taskqueue', '')")
_PROBE = text("SELECT pg_notify('taskqueue', :token)")


class PostgreSQLListener:
    """A connection that does nothing but listen; ``fileno`` is for a selector."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        raw: Any = connection.connection.driver_connection
        self._raw = raw
        self._descriptor = int(raw.fileno())
        connection.execute(_LISTEN)

    def fileno(self) -> int:
        """Return the descriptor to be watched."""
        return self._descriptor

    def heard(self) -> bool | None:
        """Take in every notification so far; say whether there was one, or None where the connection is dead."""
        # Not by `Connection.notifies`, which does not tell a server that has hung up from one that has nothing to say.
        told, pgconn = False, self._raw.pgconn
        try:
            pgconn.consume_input()
            while pgconn.notifies() is not None:
                told = True
        except psycopg.Error:
            return None
        return told

    def proves_itself(self, other: Connection) -> bool:
        """Say whether a notification arrives here that is sent on the connection ``other``."""
        token = uuid4().hex
        other.execute(_PROBE, {"token": token})
        deadline = time.monotonic() + PROBE_WITHIN
        while (left := deadline - time.monotonic()) > 0:
            if any(each.payload == token for each in self._raw.notifies(timeout=left, stop_after=1)):
                return True
        return False

    def close(self) -> None:
        """Close the connection without a word: it may be dead. Does nothing the second time."""
        if not self._connection.closed:
            self._connection.invalidate()
            self._connection.close()


def proven_listener(engine: Engine, other: Connection) -> PostgreSQLListener | None:
    """Return a listener on a connection of its own, or None where what is said on ``other`` does not reach it."""
    listener = PostgreSQLListener(engine.connect())
    try:
        if listener.proves_itself(other):
            return listener
    except BaseException:
        listener.close()
        raise
    listener.close()
    return None
