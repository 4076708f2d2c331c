"""A job acknowledged in its handler's own transaction: what may come of that, as values, and the seam to it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol, Self

from taskqueue.drivers.values import Completion


class Receipt(NamedTuple):
    """What an acknowledgement did beside completing its job."""

    released: bool
    """Whether jobs that depend on it may run now."""


class Fate(Enum):
    """What became of a job whose acknowledgement was in doubt."""

    COMPLETED = auto()
    """It was acknowledged under this lease."""
    HELD = auto()
    """It was not, and will not be: that transaction is over."""
    LOST = auto()
    """It was not, and the job is held under another lease by now, or has ended in another way."""


class Setback(Enum):
    """Why a transaction was lost through no fault of its handler: to run it again may help."""

    RACE = auto()
    """It met another transaction: a deadlock, a serialization failure, a lock not given in time."""
    LINK = auto()
    """The connection is gone, or the server takes no writes."""
    WAIT = auto()
    """It could not begin, since others wrote for too long. Nothing was done; better later than at once."""
    STORAGE = auto()
    """The database's disk is full or can only be read. Better later than at once."""


class HandlerTransaction(Protocol):
    """One transaction, on a connection that nobody else uses meanwhile. It begins with its first statement.

    It is for one thread; leave it by ``with``, which rolls back what is not committed.
    """

    around_begin: Callable[[], AbstractContextManager[None]]
    """Is entered where it begins, which may wait for other writers. Set it before the first statement."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None: ...

    def session(self, factory: Callable[..., Any] | None = None) -> Any:
        """Return a session in this transaction: SQLAlchemy's own, or what a ``sessionmaker`` or a class of yours makes.

        It joins by savepoints, so that nothing it does can end the transaction: a commit ends a savepoint, a roll-back
        undoes what came since. When the transaction is over, to use it raises `UsageError`. Raises `ConfigurationError`
        where what was made is, or could be, bound to anything else.
        """

    def acknowledge(self, completion: Completion) -> Receipt | None:
        """Complete the job after its handler's statements; None where its lease has moved on, and then roll back.

        What the session holds and did not commit is written first. The job's row is locked from here on. Raises
        `UsageError` where the handler has ended the transaction itself.
        """

    def commit(self) -> bool:
        """Commit; False where the link broke meanwhile, so that `Driver.fate` has to tell whether it has happened."""

    def setback(self, error: BaseException) -> Setback | None:
        """Say whether an error that a statement raised, or one that led to it, is a setback."""
