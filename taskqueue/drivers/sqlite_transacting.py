"""A handler's own transaction on SQLite: it holds the one write lock from its first statement on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from taskqueue.clock import Clock
from taskqueue.drivers.kept import Kept, KeptConnections
from taskqueue.drivers.receipts import Setback
from taskqueue.drivers.sqlite_errors import is_busy, is_read_only, translated
from taskqueue.drivers.transacting import SAVEPOINT, Grip, Transaction
from taskqueue.errors import StorageFull


class Steps(NamedTuple):
    """The driver's own steps on a raw connection; ``begin`` takes the write lock at once."""

    begin: Callable[[sqlite3.Connection], None]
    commit: Callable[[sqlite3.Connection], None]
    undo: Callable[[sqlite3.Connection], None]


def handler_transaction(connections: KeptConnections, clock: Clock, steps: Steps, path: Path | None) -> Transaction:
    """Return a transaction, which takes the write lock when it begins.

    One that reads first and takes the lock at its first write loses it whenever somebody has written in between, and
    has to run again from the start: measured in docs/decisions/0013.
    """

    def begin_with_savepoint(kept: Kept) -> None:
        steps.begin(kept.raw)
        kept.raw.execute(f"SAVEPOINT {SAVEPOINT}")

    def surely_commit(kept: Kept) -> bool:
        steps.commit(kept.raw)
        return True

    def setback(error: BaseException) -> Setback | None:
        if is_busy(error):
            return Setback.RACE
        if is_read_only(error) or isinstance(error, StorageFull) or isinstance(translated(error, path), StorageFull):
            return Setback.STORAGE
        return None

    grip = Grip(begin_with_savepoint, surely_commit, lambda kept: steps.undo(kept.raw), lambda _kept: None, setback)
    return Transaction(connections, grip, clock)
