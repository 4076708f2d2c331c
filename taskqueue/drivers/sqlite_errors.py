"""What SQLite's errors mean to the people who get them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from sqlalchemy.exc import DBAPIError

from taskqueue.drivers.sqlite_files import fault_of, not_ours, read_only
from taskqueue.drivers.sqlite_room import is_full
from taskqueue.drivers.verbs.pushing import duplicate
from taskqueue.errors import DatabaseBusy, DatabaseUnreachable, SchemaError, StorageFull, StoreError

_PRIMARY = 0xFF
"""The low byte of an extended result code is the primary one."""


def _code(error: BaseException) -> int:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlite_errorcode", 0) & _PRIMARY


def is_busy(error: BaseException) -> bool:
    """Say whether another connection is in the way, so that trying again helps."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_read_only(error: BaseException) -> bool:
    """Say whether the database could only be read; a connection that was opened so stays so."""
    return _code(error) == sqlite3.SQLITE_READONLY


def translated(error: BaseException, path: Path | None) -> Exception | None:
    """Return our error for one of SQLite's, or None for any other."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, sqlite3.Error):
        return None
    where = path or "the database in memory"
    code = _code(cause)
    if isinstance(cause, sqlite3.IntegrityError):
        found = duplicate(cause)
        return found if found is not cause else StoreError(f"{where} refused a value: {cause}")
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and is_full(path)):
        return StorageFull(f"no room is left for {where}; what is stored stays safe: free space on its disk")
    if code == sqlite3.SQLITE_READONLY:
        return read_only(path)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseBusy(f"{where} is locked by another process")
    if code == sqlite3.SQLITE_NOTADB:
        return not_ours(path)
    if code == sqlite3.SQLITE_CANTOPEN:
        if path is not None and path.exists() and not os.access(path.parent, os.W_OK):
            return read_only(path)  # Its log cannot be made, without which not even a read is possible.
        return (fault_of(path) if path else None) or DatabaseUnreachable(f"{where} cannot be opened: {cause}")
    if code == sqlite3.SQLITE_CORRUPT:
        return StoreError(f"{where} is damaged: stop every node and restore it from a backup")
    if "no such table" in str(cause) or "no such column" in str(cause):
        return SchemaError(f"{where} does not hold the tables of this release: run `worker db:upgrade`")
    return StoreError(f"{where} refused an operation: {cause}")


class Translating:
    """A context in which SQLite's errors become ours."""

    __slots__ = ("_path", "_tell")

    def __init__(self, path: Path | None, tell: Callable[[BaseException, Exception], None]) -> None:
        """Tell of each error, as it was and as it is raised."""
        self._path = path
        self._tell = tell

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            found = translated(error, self._path)
            if found is not None:
                self._tell(error, found)
                raise found from error
