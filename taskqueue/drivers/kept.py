"""One connection for each thread, kept open between verbs and never carried over a fork.

Before a fork every connection that is not in the middle of a statement is closed, and its thread opens a new one when it
needs it. A child that finds an open one all the same leaves it alone for ever: to close it there would be to take part
in the parent's conversation, and with a database in a file could even drop the parent's locks or its log.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from typing import Any, Final

from sqlalchemy import Connection, Engine

_PATIENCE: Final = 1.0
"""Seconds that a fork waits for another thread's statement to end."""


class Kept:
    """One thread's place for a connection; ``lock`` is held while it is used."""

    __slots__ = ("__weakref__", "connection", "lock", "number", "pid", "raw")

    def __init__(self, connection: Connection, number: int) -> None:
        self.lock = threading.RLock()
        self.connection: Connection | None = connection
        self.raw: Any = connection.connection.driver_connection
        self.number = number
        self.pid = os.getpid()

    def close(self) -> None:
        """Close the connection; the thread makes a new place when it comes back."""
        connection, self.connection, self.raw = self.connection, None, None
        if connection is not None:
            connection.close()


class KeptConnections:
    """The connections of one driver, by thread."""

    def __init__(self, engine: Engine, *, closes_for_forks: bool = True) -> None:
        self._engine = engine
        self._closes_for_forks = closes_for_forks
        self._numbers = itertools.count(1)
        self._start_empty()
        _everyone.add(self)

    def _start_empty(self) -> None:
        self._local = threading.local()
        self._places: weakref.WeakSet[Kept] = weakref.WeakSet()
        self._held: list[Kept] = []

    def current(self) -> Kept:
        """Return this thread's place with an open connection in it. Each one opened has a new ``number``."""
        kept: Kept | None = getattr(self._local, "kept", None)
        if kept is None or kept.connection is None or kept.pid != os.getpid():
            if kept is not None and kept.connection is not None:
                _abandoned.append(kept)
            kept = Kept(self._engine.connect(), next(self._numbers))
            self._local.kept = kept
            self._places.add(kept)
        return kept

    def close(self) -> None:
        """Close every thread's connection, each as soon as it is not in use."""
        for kept in list(self._places):
            with kept.lock:
                kept.close()

    def before_fork(self) -> None:
        """Close what can be closed, and keep the other threads from opening anything before the fork is done."""
        if not self._closes_for_forks:
            return
        for kept in list(self._places):
            if kept.lock.acquire(timeout=_PATIENCE):
                self._held.append(kept)
                if not (kept.raw is not None and kept.raw.in_transaction):
                    kept.close()

    def after_fork_in_parent(self) -> None:
        """Let the other threads go on."""
        held, self._held = self._held, []
        for kept in held:
            kept.lock.release()

    def after_fork_in_child(self) -> None:
        """Forget the parent's connections without closing them, and start with none."""
        _abandoned.extend(kept for kept in self._places if kept.connection is not None)
        self._start_empty()


_everyone: weakref.WeakSet[KeptConnections] = weakref.WeakSet()
_abandoned: list[Kept] = []


def _before_fork() -> None:
    for each in list(_everyone):
        each.before_fork()


def _after_fork_in_parent() -> None:
    for each in list(_everyone):
        each.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for each in list(_everyone):
        each.after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
