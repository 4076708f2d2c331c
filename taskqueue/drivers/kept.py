"""One connection for each thread, kept open between verbs and never carried over a fork.

Before a fork every connection that is not in the middle of a transaction is closed, and its thread opens a new one when
it needs one. A child that finds an open one all the same leaves it alone for ever: to close it there would be to take
part in the parent's conversation, and with a database in a file could even drop the parent's log.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from typing import Any, Final, Self

from sqlalchemy import Engine

_PATIENCE: Final = 1.0
"""Seconds that a fork waits for another thread's statement to end."""


class Kept:
    """One thread's place for a connection. To enter it is to hold its lock, which `KeptConnections.use` has taken."""

    __slots__ = ("__weakref__", "connection", "lock", "number", "pid", "raw")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connection: Any = None
        self.raw: Any = None
        self.number = 0
        """Another one for each connection that was ever opened."""
        self.pid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.lock.release()

    def open(self, engine: Engine, number: int) -> None:
        """Open a connection in this place."""
        self.connection = engine.connect()
        self.raw = self.connection.connection.driver_connection
        self.number = number
        self.pid = os.getpid()

    def close(self) -> None:
        """Close the connection, if there is one."""
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
        self._opening = threading.Lock()
        self._held: list[Kept] = []

    def use(self) -> Kept:
        """Return this thread's place, locked, with an open connection in it; leave it by ``with``."""
        kept: Kept | None = getattr(self._local, "kept", None)
        if kept is not None and kept.pid not in (0, os.getpid()):
            kept = None  # Forked behind Python's back: the parent's connection is left alone.
        if kept is None:
            kept = self._local.kept = Kept()
        kept.lock.acquire()
        if kept.connection is None:
            try:
                with self._opening:
                    kept.open(self._engine, next(self._numbers))
                    self._places.add(kept)
            except BaseException:
                kept.lock.release()
                raise
        return kept

    def close(self) -> None:
        """Close every thread's connection; one that is in use for longer than a second is left to its thread."""
        for kept in list(self._places):
            if kept.lock.acquire(timeout=_PATIENCE):
                try:
                    kept.close()
                finally:
                    kept.lock.release()

    def before_fork(self) -> None:
        """Close what can be closed, and keep other threads from opening anything before the fork is done."""
        self._opening.acquire()
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
        self._opening.release()

    def after_fork_in_child(self) -> None:
        """Forget the parent's connections without closing them, and start with none."""
        if self._closes_for_forks:
            _abandoned.extend(kept for kept in self._places if kept.connection is not None)
            self._start_empty()
        else:
            self._opening = threading.Lock()


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
