"""What the errors of MySQL and MariaDB mean: to a transaction, and to the people who get them."""

from __future__ import annotations

import re
from typing import Final

import pymysql
from sqlalchemy.exc import DBAPIError

from taskqueue.drivers.server import Fault
from taskqueue.errors import (
    DatabaseBusy,
    DatabaseUnreachable,
    DuplicateJob,
    SchemaError,
    StorageFull,
    StoreError,
)

_CONTENTION: Final = frozenset({1213, 1020})
"""Deadlock, a row that changed under a snapshot."""

_NO_LOCK: Final = 1205
"""A lock not given in time: it has waited for long enough already.

It rolls back its statement alone: the transaction is still open then, and has to be rolled back by us.
"""

_LINK: Final = frozenset({0, 1053, 1077, 1079, 1080, 1158, 1159, 1160, 1161, 1317, 1927, 2003, 2006, 2013, 2055, 4031})
"""The connection cannot be made, was closed or killed, or the server is going down. 0 is a closed socket."""

_CUT_OFF: Final = frozenset({0, 2006, 2013, 2055})
"""A connection that stood was closed: what a server does, among others, to a statement that is too large for it."""

_READ_ONLY: Final = frozenset({1290, 1792, 1836})
"""The server takes no writes, as after a failover: another one does."""

_UNREACHABLE: Final = frozenset({1040, 1203, 1226})
"""Connections are refused because there are too many; to try again at once would not help."""

_WRONG_LOGIN: Final = frozenset({1045, 1698, 1862, 3118})
_NO_RIGHT: Final = frozenset({1044, 1142, 1143, 1227, 1370})
_NO_TABLES: Final = frozenset({1146, 1054})
_FULL: Final = frozenset({1021, 1114, 3675, 1041})
_DUPLICATE: Final = 1062
_TOO_LARGE: Final = frozenset({1153, 1301})
_NO_DATABASE: Final = 1049
_TOO_SLOW: Final = frozenset({1969, 3024})

_KEY = re.compile(r"for key '(?:[^'.]+\.)?(?P<name>[^']+)'$")
_UNIQUE: Final = "tq_jobs_unique"


def cause_of(error: BaseException) -> BaseException:
    """Return the database driver's own error inside one of SQLAlchemy's, or the error itself."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def code_of(error: BaseException) -> int | None:
    """Return the server's number for an error, or None where the database's driver did not raise it."""
    cause = cause_of(error)
    if not isinstance(cause, pymysql.err.MySQLError):
        return None
    code = cause.args[0] if cause.args else 0
    return code if isinstance(code, int) else 0


def key_of(error: BaseException) -> str | None:
    """Return the name of the index in which a value was there already, or None where that is not the error."""
    if code_of(error) != _DUPLICATE:
        return None
    found = _KEY.search(str(cause_of(error).args[1]))
    return found["name"] if found else ""


def is_known_id(error: BaseException) -> bool:
    """Say whether a row was refused because its primary key is there already."""
    return key_of(error) == "PRIMARY"


def fault(error: BaseException) -> Fault | None:
    """Return what an error means for the transaction it happened in."""
    code = code_of(error)
    if code in _CONTENTION:
        return Fault.CONTENTION
    if code in _READ_ONLY:
        return Fault.REFUSED
    return Fault.LINK if code in _LINK else None


def duplicate() -> DuplicateJob:
    """Return the error for a unique key that a live job has."""
    return DuplicateJob(
        "another job that waits or runs has the same unique key, so nothing was stored:"
        " use `push_once` to get that job, or push again when it has finished"
    )


def translated(error: BaseException, address: str) -> Exception | None:
    """Return our error for one of the database driver's, or None for any other.

    The server's own words are repeated only where they hold names: elsewhere they may quote a value.
    """
    code = code_of(error)
    if code is None:
        return None
    if code == _DUPLICATE:
        name = key_of(error)
        return duplicate() if name == _UNIQUE else StoreError(f"{address}: a row with this {name} is there already")
    words = str(cause_of(error).args[-1]) if cause_of(error).args else ""
    return _connecting(code, address, words) or _storing(code, address, words)


def _connecting(code: int, address: str, words: str) -> Exception | None:
    if code in _READ_ONLY:
        return DatabaseUnreachable(
            f"{address} takes no writes at the moment ({code}): point the URL at the server that is writable"
        )
    if code in _UNREACHABLE:
        return DatabaseUnreachable(
            f"{address} has no connection left for us ({code}): raise max_connections or stop programs that hold many"
        )
    if code in _WRONG_LOGIN:
        return DatabaseUnreachable(f"{address} refused the login ({code}): check user and password in the URL")
    if code == _NO_DATABASE:
        return DatabaseUnreachable(
            f"{address}: there is no such database: make it with CREATE DATABASE, or correct the name in the URL"
        )
    if code in _LINK or 2000 <= code < 2100:
        reason = f": {words}" if words else ""
        hint = ", and that its max_allowed_packet is above twice the largest payload" if code in _CUT_OFF else ""
        return DatabaseUnreachable(
            f"no connection to {address} ({code}{reason}): check that the server runs and can be reached{hint}"
        )
    return None


def _storing(code: int, address: str, words: str) -> Exception:
    if code in _CONTENTION:
        return DatabaseBusy(f"{address}: another transaction is in the way ({code}), nothing was changed: try again")
    if code == _NO_LOCK:
        return DatabaseBusy(
            f"{address}: a lock was not given in time ({code}), nothing was changed: look for a transaction or a change"
            " of a table that holds on to its locks"
        )
    if code in _NO_TABLES:
        return SchemaError(f"{address} does not hold the tables of this release: run `worker db:upgrade`")
    if code in _FULL:
        return StorageFull(f"no room is left for {address} ({code}); what is stored stays safe: free space on its disk")
    if code in _NO_RIGHT:
        return StoreError(f"{address}: the user of the URL lacks a right: {words}: GRANT it")
    if code in _TOO_LARGE:
        return StoreError(f"{address} refused a value because of its size: raise max_allowed_packet on the server")
    if code in _TOO_SLOW:
        return DatabaseBusy(f"{address}: a statement took too long ({code}), nothing was changed: ask for less")
    return StoreError(f"{address} refused an operation (error {code}): see the server's list of errors")
