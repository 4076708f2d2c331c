"""How a MySQL or MariaDB server is connected to, and what is set on each connection."""

from __future__ import annotations

import hashlib
import math
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from select import POLLIN, poll
from types import MappingProxyType
from typing import Any, Final

import pymysql
from pymysql.constants import SERVER_STATUS
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, func, make_url, select

from taskqueue.drivers.transacting import SAVEPOINT
from taskqueue.errors import ConfigurationError, DatabaseBusy

_SECONDS_TO_CONNECT: Final = 5
_SECONDS_TO_LOOK: Final = 2
"""For a look at whether the server is still there at all, while a read takes long."""

_SECONDS_TO_ANSWER: Final = 22
_SECONDS_FOR_A_STATEMENT: Final = 60
_SECONDS_FOR_A_LOCK: Final = 10
"""The server gives up before the client does, and before anybody takes a node that waits for dead. It does not notice
that a client has gone: a statement that waits would stay there with its connection, and do its work after its sender
was told that it failed. A lock of the table and one of a row may follow on each other."""

_SECONDS_TO_MIGRATE: Final = 3600
_SECONDS_TO_SPARE: Final = 2
"""After the end of a handler's time the node kills its worker; the server comes after that, should it be needed."""

COMMITS_BY_ITSELF: Final = frozenset(
    {
        "ALTER",
        "ANALYZE",
        "CREATE",
        "DROP",
        "FLUSH",
        "GRANT",
        "LOCK",
        "OPTIMIZE",
        "RENAME",
        "REPAIR",
        "REVOKE",
        "TRUNCATE",
    }
)
"""Statements that begin so end the transaction in which they are run."""

_SELF_COMMITTING = "SET SESSION autocommit = %s"

_MODE = """SET SESSION sql_mode = CONCAT_WS(',', 'STRICT_TRANS_TABLES', 'ERROR_FOR_DIVISION_BY_ZERO',
 'NO_ENGINE_SUBSTITUTION', IF(FIND_IN_SET('ONLY_FULL_GROUP_BY', @@SESSION.sql_mode), 'ONLY_FULL_GROUP_BY', NULL))"""
"""Values that do not fit are errors, never cut."""

_LOCKS = "SET SESSION innodb_lock_wait_timeout = %s, lock_wait_timeout = %s"

_ISOLATION = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
"""The gap locks of the default level gave 68 deadlocks in 4 s to pollers of an empty queue, this one none."""

_LONGEST = {True: "SET SESSION max_statement_time = %s", False: "SET SESSION max_execution_time = %s * 1000"}
"""How long a statement may take, by whether the server is MariaDB. The other knows such a limit for SELECT alone."""

_SECONDS_IDLE: Final = 10
_NO_IDLE_TRANSACTIONS = "SET SESSION idle_transaction_timeout = %s"
"""So that a client whose link was cut does not hold its locks until the server notices. MariaDB alone has it."""


def located(url: str) -> tuple[URL, str]:
    """Return a URL for SQLAlchemy and the address that may be shown to people.

    Raises `ConfigurationError` where the name of the database is missing.
    """
    given = make_url(url)
    host = f"{given.username}@" if given.username else ""
    host += given.host or str(given.query.get("unix_socket", "localhost"))
    host += f":{given.port}" if given.port else ""
    scheme = given.drivername.partition("+")[0]
    if not given.database:
        raise ConfigurationError(
            f"a {scheme} URL must name a database, got {scheme}://{host}: write {scheme}://USER:PASSWORD@HOST/DATABASE"
        )
    return given.set(drivername="mysql+pymysql"), f"{scheme}://{host}/{given.database}"


class _Link(pymysql.Connection):
    """A connection that is quick to give up while it is made, and to make."""

    given: Mapping[str, Any] = MappingProxyType({})
    """The values it was opened with."""

    _reads = False

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        # To read the machine's certificates takes 25 ms, for each connection that names no certificate of its own.
        return _preferred_tls() if sslp == {} else super()._create_ssl_ctx(sslp)  # type: ignore[misc]

    def query(self, sql: Any, unbuffered: bool = False) -> int:  # noqa: FBT001, FBT002 - as in PyMySQL
        """Run a statement. A read may go on for as long as the server lets it, if that can be reached at all."""
        self._reads = str(sql[:6]).upper() == "SELECT" and not in_transaction(self)
        return int(super().query(sql, unbuffered))

    def _read_query_result(self, unbuffered: bool = False) -> int:  # noqa: FBT001, FBT002
        if self._reads:
            self._await_read()
        return int(super()._read_query_result(unbuffered))  # type: ignore[misc]

    def _await_read(self) -> None:
        patience: float = self._read_timeout
        if patience >= _SECONDS_FOR_A_STATEMENT or self._has_answer(patience):
            return
        reached = _Link(**{**self.given, "connect_timeout": _SECONDS_TO_LOOK, "read_timeout": _SECONDS_TO_LOOK})
        reached.close()
        self._has_answer(_SECONDS_FOR_A_STATEMENT - patience)

    def _has_answer(self, within: float) -> bool:
        watched = poll()
        watched.register(self._sock, POLLIN)  # type: ignore[attr-defined]
        return bool(watched.poll(within * 1000))

    def patient(self, seconds: float) -> float:
        """Wait so long for an answer from now on; return how long it was before."""
        before: float = self._read_timeout  # type: ignore[has-type]
        self._read_timeout = seconds
        return before


@contextmanager
def without_haste(raw: Any) -> Iterator[None]:
    """Let the statements of a block take as long as they need, and wait as long for locks."""
    before = raw.patient(_SECONDS_TO_MIGRATE)
    _limit(raw, _SECONDS_TO_MIGRATE, 0)
    try:
        yield
    finally:
        raw.patient(before)
        with suppress(pymysql.MySQLError):  # A broken link is closed by whoever sees the first error.
            _limit(raw, _SECONDS_FOR_A_LOCK, _SECONDS_FOR_A_STATEMENT)


def _limit(raw: Any, lock: int, statement: int) -> None:
    with raw.cursor() as cursor:
        cursor.execute(_LOCKS, (lock, lock))
        cursor.execute(_LONGEST[_is_mariadb(raw)], (statement,))


def begin_for_handler(raw: Any, seconds: float) -> None:
    """Begin a transaction for statements that are not ours, which lasts for ``seconds`` at most.

    A deadlock ends the whole transaction. Without autocommit the statement after it begins a new one, and the loss is
    noticed at the end; with it, that statement would commit by itself.
    """
    whole = math.ceil(seconds) + _SECONDS_TO_SPARE
    raw.patient(whole)
    with raw.cursor() as cursor:
        cursor.execute(_SELF_COMMITTING, (0,))
        cursor.execute(_LONGEST[_is_mariadb(raw)], (whole,))
        if _is_mariadb(raw):
            cursor.execute(_NO_IDLE_TRANSACTIONS, (whole,))
        raw.begin()
        cursor.execute(f"SAVEPOINT {SAVEPOINT}")


def restore(raw: Any) -> None:
    """Put back what was set for a handler's transaction, which is over."""
    raw.patient(_SECONDS_TO_ANSWER)
    with raw.cursor() as cursor:
        cursor.execute(_SELF_COMMITTING, (1,))
        cursor.execute(_LONGEST[_is_mariadb(raw)], (_SECONDS_FOR_A_STATEMENT,))
        if _is_mariadb(raw):
            cursor.execute(_NO_IDLE_TRANSACTIONS, (_SECONDS_IDLE,))


def _is_mariadb(raw: Any) -> bool:
    return "mariadb" in str(raw.server_version).lower()


@cache
def _preferred_tls() -> ssl.SSLContext:
    """Return what PyMySQL uses where the URL says nothing of TLS: encrypted where the server can, unverified."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def engine_for(url: URL, *, migrating: bool = False) -> Engine:
    """Return an engine whose connections commit each statement by themselves. Connects to nothing."""
    patience = _SECONDS_TO_MIGRATE if migrating else _SECONDS_TO_ANSWER
    wanted = {
        "charset": "utf8mb4",
        "autocommit": True,
        "connect_timeout": _SECONDS_TO_CONNECT,
        "write_timeout": patience,
    }

    def connect(_dialect: object, _record: object, _positional: object, given: Mapping[str, Any]) -> _Link:
        values = {"read_timeout": _SECONDS_TO_CONNECT, **given}
        if isinstance(values.get("password"), str):
            values["password"] = values["password"].encode()  # Text it would send as Latin-1.
        link = _Link(**values)
        link.given = values
        link.patient(given.get("read_timeout", patience))
        return link

    def set_up(raw: Any, _record: object) -> None:
        _set_up(raw)
        if migrating:
            _limit(raw, _SECONDS_TO_MIGRATE, 0)
        else:
            _limit(raw, _SECONDS_FOR_A_LOCK, _SECONDS_FOR_A_STATEMENT)

    engine = create_engine(
        url,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        paramstyle="format",
        hide_parameters=True,
        connect_args={name: value for name, value in wanted.items() if name not in url.query},
    )
    engine.dialect.cte_follows_insert = True
    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", set_up)
    return engine


def _set_up(raw: Any) -> None:
    with raw.cursor() as cursor:
        cursor.execute(_MODE)
        cursor.execute(_ISOLATION)
        if _is_mariadb(raw):
            cursor.execute(_NO_IDLE_TRANSACTIONS, (_SECONDS_IDLE,))


def in_transaction(raw: Any) -> bool:
    """Say whether the server's last word was that a transaction is open."""
    return bool(raw.open and raw.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)


def packet_limit(raw: Any) -> int:
    """Return how many bytes a statement may have: half of what the server takes, to be safe."""
    with raw.cursor() as cursor:
        cursor.execute("SELECT @@max_allowed_packet")
        return int(cursor.fetchone()[0]) // 2


@contextmanager
def alone(url: URL, patience: float, address: str) -> Iterator[Connection]:
    """Hold the sole right to change tables, on a connection of its own; wait at most ``patience`` seconds for it.

    Each change of a table is committed by itself, so no transaction can keep a second migration out. A lock of the
    session can: the server gives it back when the connection dies, and a migration is run by hand, one at a time, over
    a connection that it has for itself. Nothing else in taskqueue may rely on one, because behind a pooler the next
    statement may run in another session.
    """
    engine = engine_for(url, migrating=True)
    # A lock is the server's and its name has 64 characters at most, as many as a database's: so that is hashed.
    name = f"taskqueue.{hashlib.sha256(str(url.database).encode()).hexdigest()[:40]}"
    with engine.connect() as connection:
        if connection.scalar(select(func.get_lock(name, math.ceil(patience)))) != 1:
            raise DatabaseBusy(
                f"{address} is being migrated by another process, which did not end within {patience:.0f} s: wait for"
                " it, or look for a migration that hangs"
            )
        try:
            yield connection
        finally:
            if not connection.invalidated and not connection.closed:
                connection.execute(select(func.release_lock(name)))
