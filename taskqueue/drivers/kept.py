"""Connections kept open between verbs, lent to one thread at a time and never carried over a fork.

Before a fork every connection that is not in the middle of a transaction is closed, and whoever needs one opens a new
one. A child that finds an open one all the same leaves it alone for ever: to close it there would be to take part in
the parent's conversation, and with a database in a file could even drop the parent's log.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
import weakref
from typing import Any, Final, Self

from sqlalchemy import Engine

_PATIENCE: Final = 1.0
"""Seconds that a fork waits for other threads' statements to end."""

MOST_IDLE: Final = 10
"""How many connections are kept open that nobody uses; threads beyond that open one when they need it."""


class Kept:
    """A connection that is lent: leave it by ``with``. ``raw`` is that of the database's driver."""

    __slots__ = ("__weakref__", "connection", "home", "number", "pid", "raw", "thread")

    def __init__(self, home: KeptConnections, connection: Any, number: int) -> None:
        self.home = home
        self.connection = connection
        self.raw = connection.connection.driver_connection
        self.number = number
        """Another one for each connection that was ever opened."""
        self.pid = os.getpid()
        self.thread = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.home.take_back(self)

    def close(self) -> None:
        """Close the connection, if it is not closed."""
        connection, self.connection, self.raw = self.connection, None, None
        if connection is None:
            return
        try:
            connection.close()
        except Exception:  # The link broke while nobody used it: there is nobody to take leave of.
            _give_up(connection)

    def drop(self) -> None:
        """Give up a connection that is of no use any more, without a word to the server."""
        connection, self.connection, self.raw = self.connection, None, None
        if connection is not None:
            _give_up(connection)


def _give_up(connection: Any) -> None:
    with contextlib.suppress(Exception):  # It is broken already: how it breaks further changes nothing.
        connection.invalidate()
    with contextlib.suppress(Exception):
        connection.close()


class KeptConnections:
    """The connections of one driver. The one that was used last is lent first, so that few are open."""

    def __init__(self, engine: Engine, *, closes_for_forks: bool = True) -> None:
        self._engine = engine
        self._closes_for_forks = closes_for_forks
        self._numbers = itertools.count(1)
        self.newest = 0
        """The number of the connection that was opened last."""
        self._retired = 0
        """Connections up to this number are closed when they come back."""
        self._start_empty()
        _everyone.add(self)

    def _start_empty(self) -> None:
        self._idle: list[Kept] = []
        self._lent: set[Kept] = set()
        self._connecting: set[int] = set()
        """The threads that are just opening one; a server that is gone may keep each of them waiting."""
        self._opening = threading.Lock()

    def use(self, after: int = 0) -> Kept:
        """Lend an open connection to this thread; leave it by ``with``. Opens one where none is idle.

        Whoever saw a link break asks for one that was opened ``after`` those that may have broken with it.
        """
        while True:
            try:
                kept = self._idle.pop()  # One step for the interpreter: no two threads are given the same.
            except IndexError:
                kept = self._open()
            if kept.pid != os.getpid():
                _abandoned.append(kept)  # Forked behind Python's back: the parent's connection is left alone.
            elif kept.number <= after:
                kept.drop()
            else:
                break
        kept.thread = threading.get_ident()
        self._lent.add(kept)
        return kept

    def _open(self) -> Kept:
        own = threading.get_ident()
        with self._opening:  # Held during a fork: nothing is begun then.
            self._connecting.add(own)
        try:
            connection = self._engine.connect()
            self.newest = next(self._numbers)
            return Kept(self, connection, self.newest)
        finally:
            self._connecting.discard(own)

    def take_back(self, kept: Kept) -> None:
        """Keep a connection for the next user, unless it was given up or enough are idle."""
        self._lent.discard(kept)
        if kept.connection is None:
            return
        if len(self._idle) >= MOST_IDLE or kept.number <= self._retired:
            kept.close()
        else:
            self._idle.append(kept)

    def close(self) -> None:
        """Close every connection, waiting a second for statements that are under way; the others when they end."""
        self._retired = self.newest
        self._wait_for_others()
        self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()

    def _wait_for_others(self) -> None:
        own, deadline = threading.get_ident(), time.monotonic() + _PATIENCE
        while self._others_busy(own) and time.monotonic() < deadline:
            threading.Event().wait(0.001)

    def _others_busy(self, own: int) -> bool:
        return any(kept.thread != own for kept in list(self._lent)) or bool(self._connecting - {own})

    def before_fork(self) -> None:
        """Close what can be closed, and keep other threads from opening anything before the fork is done."""
        self._opening.acquire()
        if self._closes_for_forks:
            self._close_idle()
            self._wait_for_others()
            self._close_idle()

    def after_fork_in_parent(self) -> None:
        """Let the other threads go on."""
        self._opening.release()

    def after_fork_in_child(self) -> None:
        """Forget the parent's connections without closing them, and start with none."""
        if self._closes_for_forks:
            _abandoned.extend((*self._idle, *self._lent))
            self._start_empty()
        else:
            self._connecting = set()
            self._opening = threading.Lock()


_everyone: weakref.WeakSet[KeptConnections] = weakref.WeakSet()
_abandoned: list[Kept] = []


_forking: list[KeptConnections] = []
"""Who is held up by the fork that is under way: the same let go after it, whoever has come or gone meanwhile."""


def _before_fork() -> None:
    for each in list(_everyone):
        each.before_fork()
        _forking.append(each)


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().after_fork_in_parent()


def _after_fork_in_child() -> None:
    _forking.clear()
    for each in list(_everyone):
        each.after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
