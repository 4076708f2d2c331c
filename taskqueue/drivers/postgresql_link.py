"""The connection to PostgreSQL: how it is opened, what is set on it, and the cursors of the hot statements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.adapt import Dumper
from psycopg.pq import Format, TransactionStatus
from psycopg.types.string import ByteaBinaryLoader
from sqlalchemy import URL

from taskqueue.drivers.transacting import SAVEPOINT

RV = TypeVar("RV")

LIMITS: Mapping[str, int | str] = MappingProxyType(
    {
        "connect_timeout": 5,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "application_name": "taskqueue",
    }
)
"""How soon a server that is gone is noticed, in seconds (the last in milliseconds), unless the URL says otherwise."""

SECONDS_TO_ANSWER: Final = 15.0
SECONDS_FOR_A_LOCK: Final = 10
SECONDS_FOR_A_STATEMENT: Final = 60
"""The server itself gives up first: of a client that has just gone away it knows nothing, so a statement that waits
would stay there with its backend, and do its work after its sender was told that it failed."""

_SECONDS_TO_CANCEL: Final = 2.0
_SECONDS_TO_CONNECT: Final = 3
"""For a look at whether the server is still there at all."""

_LOOKS_UP_EVERY: Final = 0.1
"""Seconds after which a wait looks at the time and at signals, as in psycopg itself."""

_FOREIGN: Final = ("serverVersion", "charset")
"""Parameters that other libraries put into a URL and libpq does not know."""

BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
_NEVER: Final = 2**31
_ABOUT: Final = "SELECT pg_backend_pid(), current_setting('synchronous_commit') <> 'off'"

_SESSION: Final = (
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off;"
    f" SET lock_timeout = '{SECONDS_FOR_A_LOCK}s'; SET statement_timeout = '{SECONDS_FOR_A_STATEMENT}s';"
    " SET default_transaction_isolation = 'read committed'"
)
"""The first three are for the prepared statements. Their plans are made when they are first run, often on tables that
are empty still, and kept while those grow: a plan that reads the whole table, cheap then, took 5 ms a claim at 30,000
jobs. The last is for single statements: under another default, claims that met each other failed."""

_LIMITED: Final = (
    f"SELECT set_config('lock_timeout', '{SECONDS_FOR_A_LOCK}s', true),"
    f" set_config('statement_timeout', '{SECONDS_FOR_A_STATEMENT}s', true)"
)
_UNLIMITED: Final = "SELECT set_config('lock_timeout', '0', true), set_config('statement_timeout', '0', true)"
_LIFT: Final = "SET lock_timeout = 0; SET statement_timeout = 0"
_LIMIT: Final = _SESSION[_SESSION.index("SET lock_timeout") :]

_PLANNED_AS_USUAL: Final = tuple(
    f"SET LOCAL {name} TO DEFAULT" for name in ("plan_cache_mode", "enable_seqscan", "jit")
)
_SECONDS_TO_SPARE: Final = 2
"""After the end of a handler's time the node kills its worker; the server comes after that, should it be needed."""

_SYNC: Final = "SET {} synchronous_commit = on"


class _AnyBytes(Dumper):
    """Binds bytes in binary for whatever type the statement says: bytea, uuid or an array."""

    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        """Return bytes as they are."""
        return obj


class _Id(_AnyBytes):
    """Writes an id, where COPY asks for a value of this type."""

    oid = psycopg.adapters.types["uuid"].oid


class _AnyInt(Dumper):
    """Binds a number for whatever type the statement says: one prepared statement, however large the numbers are."""

    def dump(self, obj: int) -> bytes:
        """Return the digits."""
        return b"%d" % obj


class HotCursor(psycopg.RawCursor[tuple[Any, ...]]):
    """A cursor for one statement that is run again and again: prepared, with binary results, ids as 16 bytes."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.adapters.register_dumper(bytes, _Id)
        self.adapters.register_dumper(bytes, _AnyBytes)
        self.adapters.register_dumper(int, _AnyInt)
        self.adapters.register_loader("uuid", ByteaBinaryLoader)

    def execute(  # type: ignore[override]
        self,
        query: str,
        params: Sequence[Any] | None = None,
        *,
        prepare: bool | None = True,
        binary: bool | None = True,
    ) -> Self:
        """Run a statement, prepared where this connection leads to one backend only."""
        return super().execute(query, params, prepare=prepare, binary=binary)


class Link(psycopg.Connection[tuple[Any, ...]]):
    """A connection in autocommit mode that knows what lies between it and its server."""

    patience: float | None = SECONDS_TO_ANSWER
    """Seconds in which an answer has to come. The limits of TCP do not help where the other end is a proxy that took
    the question and has nobody to pass it on to."""

    pooled = False
    """Whether a pooler may give each transaction to another backend: nothing is prepared or set for longer then."""

    begin: tuple[str, ...] = (BEGIN,)
    single = True
    """Whether a single statement outside of a transaction runs as one within: durable, and with its limits."""

    given: Mapping[str, Any] = MappingProxyType({})
    """The parameters it was opened with."""

    _reading = False

    @cached_property
    def cursors(self) -> dict[str, HotCursor]:
        """The cursors that were opened for hot statements, by name."""
        return {}

    def hot(self, name: str) -> HotCursor:
        """Return the cursor for one hot statement. It keeps what it learned about the statement's types."""
        found = self.cursors.get(name)
        if found is None:
            found = self.cursors[name] = HotCursor(self)
        return found

    @contextmanager
    def one_trip(self) -> Iterator[None]:
        """Send the statements of this block together; their results are there when it ends.

        The first error is raised. The pipeline itself would write the errors that follow from it to the log.
        """
        first: psycopg.Error | None = None
        try:
            with self.pipeline():
                try:
                    yield
                except psycopg.Error as error:
                    first = error
        except psycopg.Error as error:
            raise first or error from None
        if first is not None:
            raise first

    def wait(self, gen: PQGen[RV], interval: float = _LOOKS_UP_EVERY, timeout: float | None = None) -> RV:
        """Wait for the server, which is given up after `patience` seconds without an answer.

        What it was asked is cancelled first, or it would be done later all the same. A read may go on for as long as
        the server lets it, if the server can be reached at all.
        """
        if timeout is not None or self.patience is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.patience)
        except psycopg.OperationalError:
            if not self._silent():
                raise
            if self._reading:
                return self._wait_for_a_read(gen, interval)
            self._cancel()
        return super().wait(gen, interval, _SECONDS_TO_CANCEL)

    def _wait_for_a_read(self, gen: PQGen[RV], interval: float) -> RV:
        with psycopg.connect(**{**self.given, "connect_timeout": _SECONDS_TO_CONNECT}):
            pass
        try:
            return super().wait(gen, interval, SECONDS_FOR_A_STATEMENT - SECONDS_TO_ANSWER + 1)
        except psycopg.OperationalError:
            if not self._silent():
                raise
            self._cancel()
        return super().wait(gen, interval, _SECONDS_TO_CANCEL)

    def _silent(self) -> bool:
        """Say whether the server has just not answered, rather than with an error or by hanging up."""
        return self.pgconn.transaction_status == TransactionStatus.ACTIVE

    def _cancel(self) -> None:
        with suppress(psycopg.Error):  # Then nobody is there; that is found out by waiting for the answer.
            self.cancel_safe(timeout=_SECONDS_TO_CANCEL)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let the statements of this block, which change nothing, take as long as the server allows them."""
        before, self._reading = self._reading, True
        try:
            yield
        finally:
            self._reading = before

    @contextmanager
    def without_haste(self) -> Iterator[None]:
        """Let the transactions of this block take as long as they need, and wait as long for locks."""
        before = self.patience, self.begin
        self.patience, self.begin = None, (*self.begin, _UNLIMITED)
        try:
            yield
        finally:
            self.patience, self.begin = before

    def begin_for_handler(self, seconds: float) -> None:
        """Begin a transaction for statements that are not ours: planned as the server would, and with one time for all.

        The server ends it by itself when its client stands still, and its locks with it.
        """
        self.patience = seconds + _SECONDS_TO_SPARE
        limit = f"{max(1, round((seconds + _SECONDS_TO_SPARE) * 1000))}ms"
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        limits = [f"SET LOCAL {name} = '{limit}'" for name in names]
        self.execute("; ".join((*self.begin, *_PLANNED_AS_USUAL, *limits, f"SAVEPOINT {SAVEPOINT}")))

    @contextmanager
    def unlimited(self) -> Iterator[None]:
        """Let the single statements of this block take as long as they need, and wait as long for locks."""
        with self.without_haste():
            if self.pooled:  # What is set there would be set for somebody else.
                yield
                return
            self.execute(_LIFT)
            try:
                yield
            finally:
                with suppress(psycopg.Error):  # A broken link is closed by whoever sees the first error.
                    self.execute(_LIMIT)

    @contextmanager
    def by_itself(self) -> Iterator[None]:
        """Run the one statement of this block as a transaction of its own, in one round trip."""
        if self.single:
            yield
            return
        with self.one_trip():
            for each in self.begin:
                self.execute(each)
            yield
            self.execute("COMMIT")

    def busy(self) -> bool:
        """Say whether a transaction is open, or a statement under way."""
        return self.pgconn.transaction_status != TransactionStatus.IDLE

    def settle(self) -> None:
        """Find out what the connection leads to and set on it what may be set.

        Commits wait for the disk whatever durability was asked for. An asynchronous one may be lost when just
        the server dies, not only with the power: claims would be forgotten and the same (id, lease) given twice.
        """
        ((backend, durable),) = self.execute(_ABOUT).fetchall()
        self.pooled = backend != self.pgconn.backend_pid
        self.prepare_threshold = None if self.pooled else _NEVER
        if not self.pooled:
            self.execute(_SESSION)
            if not durable:
                self.execute(_SYNC.format(""))
            return
        self.begin = (BEGIN, _LIMITED) if durable else (BEGIN, _LIMITED, _SYNC.format("LOCAL"))
        self.single = False


def parameters(url: URL, dialect: Any) -> dict[str, Any]:
    """Return what libpq is to be told, with short limits where the URL names none."""
    _, given = dialect.create_connect_args(url.difference_update_query(_FOREIGN))
    return {**LIMITS, "client_encoding": "utf8", **given}
