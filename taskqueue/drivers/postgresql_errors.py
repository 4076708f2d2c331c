"""What PostgreSQL's errors mean for a transaction, and to the people who get them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError

from taskqueue.drivers.server import Fault
from taskqueue.drivers.verbs.pushing import duplicate
from taskqueue.errors import DatabaseBusy, DatabaseUnreachable, SchemaError, StorageFull, StoreError

_LOST_AGAINST_ANOTHER: Final = frozenset({"40P01", "40001"})
"""A deadlock, a serialization failure."""

_GAVE_UP: Final = frozenset({"55P03", "57014"})
"""A lock that was not given in time, a statement that took too long: it has waited for long enough already."""

_GONE: Final = frozenset({"57P01", "57P02", "57P05", "25P03"})
"""The server ends, or has cut an idle connection."""

_REFUSED: Final = frozenset({"57P03", "25006"})
"""The server starts, or takes no writes because another one has become the primary."""

_PREPARED_ELSEWHERE: Final = frozenset({"26000", "42P05"})
"""A statement that is not prepared, or prepared already: this connection now leads to another backend."""

_NO_TABLES: Final = frozenset({"42P01", "42703", "3F000"})
_FULL: Final = frozenset({"53100"})
_NO_RIGHT: Final = "42501"
_READ_ONLY: Final = "25006"
_UNIQUE: Final = "23505"
KEY_INDEX: Final = "tq_jobs_unique"

_ADVICE: Mapping[str, str] = MappingProxyType(
    {
        r"password authentication failed|no password supplied|authentication failed": (
            "the user name or the password is wrong: check DB_USERNAME and DB_PASSWORD, or those in the URL"
        ),
        r'role "[^"]*" does not exist': "the server knows no such user: make it with `createuser`, or name another one",
        r'database "[^"]*" does not exist': "make the database with `createdb`, or name another one",
        r"no pg_hba.conf entry": "the server allows no such login from here: ask for a line in its pg_hba.conf",
        r"too many (clients|connections)|remaining connection slots": (
            "the server has no connection left: raise its max_connections, or put a pooler in front of it"
        ),
        r"starting up|shutting down|recovery": "the server is starting or stopping: try again in a moment",
        r"timeout|timed out": "nothing answered in time: check the address, the network and the firewall",
        r"could not translate host name|resolve": "the host's name is not known: check it",
        r"certificate|SSL": "no encrypted connection could be agreed on: check sslmode and the certificates",
        r"invalid (URI|connection option)|missing \"=\"": "correct the parameters behind the ? of the URL",
    }
)
"""What to do about a connection that was not made, by what the server or the library said."""

_OTHERWISE: Final = "check that the server runs and that host and port are right"


def _cause(error: BaseException) -> psycopg.Error | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return cause if isinstance(cause, psycopg.Error) else None


def fault(error: BaseException) -> Fault | None:
    """Return what an error means for the transaction it ended, or None where it is about what was asked."""
    cause = _cause(error)
    if cause is None:
        return None
    code = cause.sqlstate
    if code is None:
        # What libpq itself says has no code: the socket broke, or the connection was closed before.
        return Fault.LINK if isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError)) else None
    if code in _LOST_AGAINST_ANOTHER:
        return Fault.CONTENTION
    if code in _REFUSED or code in _PREPARED_ELSEWHERE:
        return Fault.REFUSED
    return Fault.LINK if code.startswith("08") or code in _GONE else None


def unreachable(error: psycopg.Error, address: str) -> DatabaseUnreachable:
    """Return the error for a connection that was not made."""
    said = _said(error)
    advice = next((advice for words, advice in _ADVICE.items() if re.search(words, said, re.IGNORECASE)), _OTHERWISE)
    return DatabaseUnreachable(f"no connection to {address}: {said}; {advice}")


def translated(error: BaseException, address: str) -> Exception | None:
    """Return our error for one of PostgreSQL's, or None for any other. Says nothing of values, which may be secret."""
    cause = _cause(error)
    if cause is None:
        return None
    code, said = cause.sqlstate or "", _said(cause)
    if code == _UNIQUE and cause.diag.constraint_name == KEY_INDEX:
        return duplicate(cause)
    if code == _READ_ONLY:
        return DatabaseUnreachable(f"{address} takes no writes, perhaps because another server took over: look for it")
    if fault(error) in {Fault.LINK, Fault.REFUSED}:
        return DatabaseUnreachable(f"the connection to {address} was lost ({said}): {_OTHERWISE}")
    if code in _LOST_AGAINST_ANOTHER or code in _GAVE_UP:
        return DatabaseBusy(
            f"{address}: {said}; nothing was changed: look for a transaction that holds on to its locks"
        )
    if code in _NO_TABLES:
        return SchemaError(f"{address} does not hold the tables of this release ({said}): run `worker db:upgrade`")
    if code in _FULL:
        return StorageFull(f"no room is left on {address} ({said}); what is stored stays safe: free space on its disk")
    if code == _NO_RIGHT:
        return StoreError(f"a right is missing on {address}: {said}: let the owner of the tables GRANT it to this user")
    return StoreError(f"{address} refused an operation: {said}")


def _said(error: psycopg.Error) -> str:
    """Return what the server said, in one line and without the details, in which it repeats rows."""
    text = error.diag.message_primary or str(error)
    line = next(iter(text.strip().splitlines()), type(error).__name__)
    return re.sub(r"^(consuming input failed|connection failed|sending query failed): ", "", line).rstrip(".:")
