"""A handler's own transaction: its statements and the acknowledgement of its job happen together, or neither does."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, NamedTuple, NoReturn, Self

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, scoped_session

from taskqueue.clock import Clock
from taskqueue.drivers.kept import Kept, KeptConnections
from taskqueue.drivers.receipts import HandlerTransaction, Receipt, Setback
from taskqueue.drivers.values import Completion
from taskqueue.drivers.verbs.finishing import acknowledge
from taskqueue.errors import ConfigurationError, DatabaseBusy, UsageError

SAVEPOINT: Final = "tq_of_handler"
"""Set when the transaction begins. Where it is gone at the end the transaction is another one than that which began."""

_ENDS: Final = frozenset({"ABORT", "BEGIN", "COMMIT", "END", "ROLLBACK", "START"})
_NOTHING: Final = re.compile(r"(?:[\s;(]|--[^\n]*(?:\n|$)|\#[^\n]*(?:\n|$)|/\*M?!\d*|/\*.*?\*/|\*/)*", re.DOTALL)
"""What may stand before a statement's first word. What `/*!` begins is run on some databases, so it is looked into."""
_NOTHING_BETWEEN: Final = re.compile(r"/\*.*?\*/|--[^\n]*\n", re.DOTALL)
_BEGINNING: Final = 200
"""Characters of a statement in which its first three words are looked for."""
_WORDS: Final = re.compile(r"[A-Z]+(?:\s+[A-Z]+){0,2}")
_BACK_TO: Final = re.compile(r"ROLLBACK(?: WORK| TRANSACTION)? TO\b")
_GUARD: Final = "taskqueue.guard"
_ENOUGH: Final = 16
"""How many errors that led to one another are looked at."""


class Grip(NamedTuple):
    """What a database's own driver does for a handler's transaction, on a connection that is lent for it."""

    begin: Callable[[Kept], None]
    """Begin, with the limits that hold for handlers, and set `SAVEPOINT`."""
    commit: Callable[[Kept], bool]
    """Commit; False where the link broke meanwhile, so that nobody knows whether it has happened."""
    undo: Callable[[Kept], None]
    """Roll back what is open, if anything is."""
    restore: Callable[[Kept], None]
    """Put back what `begin` has set for longer than the transaction."""
    setback: Callable[[BaseException], Setback | None]
    """Say what an error means, or None where it is about what was asked."""
    commits_by_itself: frozenset[str] = frozenset()
    """With what words statements begin that end a transaction here without saying so."""


class Transaction(HandlerTransaction):
    """A `HandlerTransaction` on a kept connection. Sessions join it by savepoints."""

    def __init__(self, connections: KeptConnections, grip: Grip, clock: Clock) -> None:
        self._grip = grip
        self._clock = clock
        self._sessions: list[Session] = []
        self._begun = False
        self._failed: BaseException | None = None
        """Why it could not begin. A handler may swallow that and go on, which must not be without a transaction."""
        self._spoilt = False
        """Whether the connection is to be given up: one that was opened on a disk that can only be read stays so."""
        self._over = False
        self.around_begin: Callable[[], AbstractContextManager[None]] = nullcontext
        self._connections = connections
        self._kept = connections.use()

    def __enter__(self) -> Self:
        if self._kept.connection.in_transaction():
            self._reset()
        connection = self._kept.connection
        connection.begin()  # Says nothing to the server: it is what the sessions join.
        self._guard = _guard_of(connection)
        self._guard.watch(self)
        return self

    def _reset(self) -> None:
        """End what an earlier use has left open on the connection; take a new one where that link is broken."""
        try:
            self._kept.connection.rollback()
        except Exception:
            with self._kept:
                self._kept.drop()
            self._kept = self._connections.use(self._connections.newest)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        with self._kept:
            if kind is not None and not issubclass(kind, Exception):
                # An interrupt may come between a statement and its answer, which the next one would take for its own.
                self._release()
                self._kept.drop()
                return
            try:
                self._end()
            except BaseException:
                self._release()
                self._spoilt = True
            if self._spoilt:
                self._kept.drop()

    def session(self, factory: Callable[..., Any] | None = None) -> Any:
        connection = self._kept.connection
        if isinstance(factory, scoped_session):
            raise ConfigurationError(
                "session_factory must make a new session for each job, got a scoped_session, which keeps one for each"
                " thread: give the sessionmaker that it was made with (its session_factory)"
            )
        made = (factory or Session)(bind=connection, join_transaction_mode="create_savepoint")
        if not isinstance(made, Session) or made.bind is not connection:
            raise ConfigurationError(
                f"session_factory must return a SQLAlchemy Session with the bind= that it is given, got"
                f" {type(made).__name__}: use a sessionmaker, or a class derived from Session"
            )
        # Either would send statements to an engine, where they are committed whatever becomes of the job.
        if type(made).get_bind is not Session.get_bind or made.binds:
            raise ConfigurationError(
                f"session_factory must return a session for which bind= alone says where statements go, and"
                f" {type(made).__name__} has binds= or a get_bind() of its own: give one without for transactional jobs"
            )
        self._sessions.append(made)
        return made

    def acknowledge(self, completion: Completion) -> Receipt | None:
        for session in self._sessions:
            session.commit()
            session.close()
        self.begin()
        connection = self._kept.connection
        self._prove_unbroken(connection)
        return acknowledge(connection, completion, self._clock.now_us())

    def commit(self) -> bool:
        certain = self._grip.commit(self._kept)
        self._begun = False
        if not certain:
            self._release()
            self._kept.drop()
        return certain

    def setback(self, error: BaseException) -> Setback | None:
        if isinstance(self._failed, DatabaseBusy):
            return Setback.WAIT
        each: BaseException | None = error if self._failed is None else self._failed
        for _ in range(_ENOUGH):
            if each is None:
                break
            found = self._grip.setback(each)
            if found is not None:
                self._spoilt = found is Setback.STORAGE
                return found
            each = each.__cause__ or each.__context__
        return None

    def begin(self) -> None:
        """Begin, unless that has happened; called before each statement."""
        if self._begun or self._over:
            return
        if self._failed is not None:
            raise self._failed
        try:
            with self.around_begin():
                self._grip.begin(self._kept)
        except BaseException as error:
            self._failed = error
            raise
        self._begun = True

    def allow(self, statement: str) -> None:
        """Begin, and raise `UsageError` for a statement that would end the whole transaction."""
        words = _first_words(statement)
        word = words[0] if words else ""
        if word in _ENDS and not _BACK_TO.match(" ".join(words)):
            self.refuse_end()
        if word in self._grip.commits_by_itself and words[1:2] != ["TEMPORARY"]:
            raise UsageError(
                f"a transactional handler cannot run {word} here: this database commits by itself with it, which would"
                " part the handler's effect from its acknowledgement: do it before, in a migration"
            )
        self.begin()

    def refuse_end(self) -> None:
        """Raise `UsageError`: called when somebody is about to end the whole transaction."""
        if not self._over:
            raise UsageError(
                "a transactional handler cannot commit or roll back its connection, which would part its effect from"
                " its acknowledgement: use session.commit(), session.rollback() or session.begin_nested()"
            )

    def _prove_unbroken(self, connection: Connection) -> None:
        try:
            connection.exec_driver_sql(f"RELEASE SAVEPOINT {SAVEPOINT}")
        except Exception as error:
            if self._grip.setback(error) is not None:
                raise
            raise UsageError(
                "the handler's transaction was ended before its job was acknowledged, by a COMMIT or ROLLBACK as text,"
                " by a statement that commits by itself (as CREATE TABLE does on some databases), or by a deadlock"
                " whose error was swallowed: leave these out; what was not committed by it is rolled back"
            ) from error

    def _end(self) -> None:
        connection = self._kept.connection
        if connection is None:
            return
        for session in self._sessions:
            session.close()
        self._release()
        self._grip.undo(self._kept)
        connection.rollback()
        self._grip.restore(self._kept)

    def _release(self) -> None:
        self._over = True
        self._guard.watch(None)
        for session in self._sessions:  # The connection goes on to the next job: none of these may follow it.
            session.bind = None
            session.__dict__["get_bind"] = _refuse_use


def _first_words(statement: str) -> list[str]:
    """Return up to three words with which a statement begins, in capitals; comments before and between do not count."""
    start = _NOTHING.match(statement)
    found = _WORDS.match(_NOTHING_BETWEEN.sub(" ", statement[start.end() if start else 0 :][:_BEGINNING]).upper())
    return found.group().split() if found else []


def _refuse_use(*_about: Any, **_more: Any) -> NoReturn:
    raise UsageError(
        "the session of a transactional handler ends with its transaction, and was used after that, as in on_failure or"
        " in a thread that is left: use a session of your own there"
    )


class _Guard:
    """Stands at a connection that is kept, and tells the transaction that is on it what happens there."""

    def __init__(self) -> None:
        self._transaction: Transaction | None = None

    def watch(self, transaction: Transaction | None) -> None:
        self._transaction = transaction

    def before_savepoint(self, _connection: Connection, _name: str) -> None:
        if self._transaction is not None:
            self._transaction.begin()

    def before_statement(self, _connection: Connection, _cursor: Any, statement: str, *_about: Any) -> None:
        if self._transaction is not None:
            self._transaction.allow(statement)

    def before_end(self, _connection: Connection) -> None:
        if self._transaction is not None:
            self._transaction.refuse_end()


def _guard_of(connection: Connection) -> _Guard:
    found: _Guard | None = connection.info.get(_GUARD)
    if found is None:
        found = connection.info[_GUARD] = _Guard()
        event.listen(connection, "savepoint", found.before_savepoint)
        event.listen(connection, "before_cursor_execute", found.before_statement)
        for name in ("commit", "rollback"):
            event.listen(connection, name, found.before_end)
    return found
