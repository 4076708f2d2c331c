"""`ServerDriver`: what drivers of servers share: links that may be cut, locks that may be lost, doubt at COMMIT.

Connections are in autocommit mode and transactions are begun by name, so that a single statement costs one round trip
and a transaction pooler in between notices nothing. No verb relies on anything that lasts longer than its transaction.
"""

from __future__ import annotations

import contextlib
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum, auto
from types import MappingProxyType
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine

from taskqueue.clock import Clock
from taskqueue.drivers.kept import Kept, KeptConnections
from taskqueue.drivers.lanes import forget_marks, is_to_look_back, note_cycle
from taskqueue.drivers.receipts import Setback
from taskqueue.drivers.sql import SQLDriver
from taskqueue.drivers.statements import doubt
from taskqueue.drivers.transacting import Grip, Transaction
from taskqueue.drivers.values import ClaimedJob, Completion, Cycle, Ending, Lanes, NodeIdentity, Stale
from taskqueue.drivers.verbs import nodes
from taskqueue.errors import DatabaseBusy, DatabaseUnreachable
from taskqueue.states import Verb

T = TypeVar("T")

LOST_LOCKS: Final = 8
"""How often a transaction is begun again after a deadlock or a lock that was not given in time."""

_LONGEST_PAUSE: Final = 0.05
_AT_ONCE: Final = 5.0
"""Seconds within which a broken link is tried again: one that kept silent for longer is left to the caller."""

_GIVES_BACK: Final = frozenset({Verb.RELEASE, Verb.PARK})


class Fault(Enum):
    """What an error of the database's driver means for the transaction that it ended."""

    CONTENTION = auto()
    """It lost against another one: nothing was done, and to begin again helps."""
    LINK = auto()
    """The connection is gone: whether a COMMIT that was under way has happened is not known."""
    REFUSED = auto()
    """The server refused, as one that takes no writes any more: nothing was done, another connection may be better."""


_OF_THE_CONNECTION: Final = frozenset({Fault.LINK, Fault.REFUSED})
_SETBACKS: Mapping[Fault | None, Setback] = MappingProxyType(
    {Fault.CONTENTION: Setback.RACE, Fault.LINK: Setback.LINK, Fault.REFUSED: Setback.LINK}
)


class CommitUnknown(Exception):
    """The connection was lost while COMMIT was under way: it may have happened, or happen yet."""


class ServerDriver(SQLDriver):
    """The verbs on a server. A database's own driver adds how it connects, pushes, claims and acknowledges."""

    _commits_by_itself: frozenset[str] = frozenset()
    """With what words statements begin that end a transaction without saying so."""

    def __init__(self, engine: Engine, address: str, clock: Clock) -> None:
        super().__init__(address, clock)
        self.engine = engine
        self._connections = KeptConnections(engine)
        self._stamped = 0
        self._in_doubt: list[int] = []
        """When the cycles claimed whose COMMIT had an unknown outcome."""

    # --- the seam to a server's own driver ------------------------------------------------------------------

    @abstractmethod
    def _fault(self, error: BaseException) -> Fault | None:
        """Return what an error means for the transaction, or None where it is about what was asked."""

    @abstractmethod
    def _translated(self, error: BaseException) -> Exception | None:
        """Return our error for one of the database driver's, or None for any other."""

    @abstractmethod
    def _begin(self, kept: Kept) -> None:
        """Begin a transaction in which each statement sees what was committed before it."""

    @abstractmethod
    def _commit(self, kept: Kept) -> None:
        """Commit it."""

    @abstractmethod
    def _undo(self, kept: Kept) -> None:
        """Roll back what is open; does nothing where nothing is."""

    @abstractmethod
    def _without_haste(self, kept: Kept) -> AbstractContextManager[None]:
        """Let the statements of a block take as long as they need: others are given up after half a minute at most."""

    @abstractmethod
    def _begin_for_handler(self, kept: Kept, seconds: float) -> None:
        """Begin a transaction that lasts for ``seconds`` at most, for statements that are not ours."""

    @abstractmethod
    def _restore(self, kept: Kept) -> None:
        """Put back what was set for that transaction and outlasts it."""

    @abstractmethod
    def _cycle(
        self,
        kept: Kept,
        node_id: int,
        completions: Sequence[Completion],
        endings: Sequence[Ending],
        lanes: Lanes,
        limit: int,
        now: int,
    ) -> Cycle:
        """Run a whole cycle in a transaction of its own; ``now`` becomes the ``claimed_at`` of what is claimed.

        With nothing to write and ``limit`` 0 it does nothing. A link that breaks during COMMIT is `CommitUnknown`.
        """

    # --- life -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        self._connections.close()

    def create(self) -> None:
        """Do nothing: a server's databases are made by its administrator."""

    # --- transactions ---------------------------------------------------------------------------------------

    def read(self, work: Callable[[Connection], T]) -> T:
        return self.on_link(lambda kept: work(kept.connection))

    def write(self, work: Callable[[Connection], T], *, repeatable: bool = True) -> T:
        def attempt(kept: Kept) -> T:
            # What people ask of many jobs may take its time: flushing a million, say.
            with contextlib.nullcontext() if repeatable else self._without_haste(kept):
                return self.transact(kept, lambda: work(kept.connection))

        return self.on_link(attempt, repeatable=repeatable)

    def transact(self, kept: Kept, work: Callable[[], T]) -> T:
        """Run ``work`` between BEGIN and COMMIT."""
        self._begin(kept)
        result = work()
        self.finish(kept)
        return result

    def finish(self, kept: Kept) -> None:
        """Commit; raise `CommitUnknown` where the link broke meanwhile."""
        try:
            self._commit(kept)
        except Exception as error:
            if self._fault(error) is Fault.LINK:
                raise CommitUnknown from error
            raise

    def on_link(self, attempt: Callable[[Kept], T], *, repeatable: bool = True) -> T:
        """Run ``attempt`` on this thread's connection, and again where that may help.

        An unknown outcome is an error only where the attempt is not ``repeatable``: the others change nothing when they
        are run a second time.
        """
        try:
            return self._persist(attempt)
        except CommitUnknown as doubtful:
            if not repeatable:
                raise self._unknown(doubtful) from doubtful
        try:
            return self._persist(attempt)
        except CommitUnknown as doubtful:
            raise self._unknown(doubtful) from doubtful

    def _persist(self, attempt: Callable[[Kept], T]) -> T:
        """Run ``attempt``, after a lost lock from the start and after a cut link once more on a new connection."""
        contended = cut = after = 0
        began = self._clock.monotonic()
        while True:
            try:
                return self._once(attempt, after)
            except CommitUnknown:
                raise
            except Exception as error:
                fault = self._fault(error)
                if fault is Fault.CONTENTION and contended < LOST_LOCKS:
                    contended += 1
                elif fault in _OF_THE_CONNECTION and not cut and self._clock.monotonic() - began < _AT_ONCE:
                    cut += 1
                    after = self._connections.newest  # What broke one link may have broken every one.
                else:
                    raise self._error(error, fault) from error
            if contended:
                self._clock.wait(threading.Event(), self._clock.jitter() * _LONGEST_PAUSE * contended / LOST_LOCKS)

    def _once(self, attempt: Callable[[Kept], T], after: int) -> T:
        with self._connections.use(after) as kept:
            try:
                return attempt(kept)
            except BaseException as error:
                self._clean(kept, error)
                raise

    def _clean(self, kept: Kept, error: BaseException) -> None:
        """Leave no transaction open behind an error; a connection that cannot be cleaned is closed."""
        if isinstance(error, CommitUnknown) or self._fault(error) in _OF_THE_CONNECTION:
            kept.drop()
            return
        try:
            self._undo(kept)
        except Exception:
            kept.drop()

    def _unknown(self, doubtful: CommitUnknown) -> Exception:
        return DatabaseUnreachable(
            f"the connection to {self.describe()} was lost while a change was being committed, so it may or may not"
            f" have happened: look before you repeat it ({doubtful.__cause__})"
        )

    def _error(self, error: Exception, fault: Fault | None) -> Exception:
        if fault is Fault.CONTENTION:
            return DatabaseBusy(
                f"{self.describe()}: lost a lock {LOST_LOCKS + 1} times in a row, nothing was changed: look for a"
                " transaction that holds on to rows of taskqueue"
            )
        return self._translated(error) or error

    # --- a handler's own transaction ------------------------------------------------------------------------

    def transaction(self, seconds: float, patience: float = 30.0) -> Transaction:
        del patience  # It begins at once.
        grip = Grip(
            lambda kept: self._begin_for_handler(kept, seconds),
            self._surely_commit,
            self._undo,
            self._restore,
            lambda error: _SETBACKS.get(self._fault(error)),
            self._commits_by_itself,
        )
        try:
            return Transaction(self._connections, grip, self._clock)
        except Exception as error:
            found = self._translated(error)
            if found is None:
                raise
            raise found from error

    def _surely_commit(self, kept: Kept) -> bool:
        try:
            self.finish(kept)
        except CommitUnknown:
            return False
        return True

    # --- nodes ----------------------------------------------------------------------------------------------

    def register_node(self, identity: NodeIdentity) -> int:
        now = self._clock.now_us()
        return self.write(
            lambda connection: nodes.registered(connection, identity) or nodes.register(connection, identity, now)
        )

    # --- the way of a job -----------------------------------------------------------------------------------

    def cycle(
        self,
        node_id: int,
        completions: Sequence[Completion],
        endings: Sequence[Ending],
        lanes: Lanes,
        limit: int,
    ) -> Cycle:
        forget_marks(lanes, {each.queue for each in endings if each.verb is Verb.RELEASE and each.run_at is None})
        if limit <= 0:
            return self._certain_cycle(node_id, completions, endings, lanes, limit)
        marks, began = lanes.low, self._clock.monotonic()
        looks_back = is_to_look_back(lanes, began)
        if looks_back:
            lanes.low = {}
        try:
            return self._certain_cycle(node_id, completions, endings, lanes, limit)
        finally:
            note_cycle(lanes, began, self._clock.monotonic(), looked_back=looks_back)
            if looks_back and lanes.dear:
                lanes.low = marks | lanes.low

    def _certain_cycle(
        self,
        node_id: int,
        completions: Sequence[Completion],
        endings: Sequence[Ending],
        lanes: Lanes,
        limit: int,
    ) -> Cycle:
        """Run a cycle, and find out what became of it and of earlier ones where that is in doubt."""
        now = self._stamp()
        try:
            cycle = self._persist(
                lambda kept: self._cycle(kept, node_id, completions, endings, lanes, limit, now),
            )
        except CommitUnknown:
            # What was claimed is found by its time; what was acknowledged waits on the locks of the lost transaction.
            self._in_doubt.append(now)
            now = self._stamp()
            cycle = self.on_link(
                lambda kept: self._cycle(kept, node_id, completions, endings, lanes, 0, now), repeatable=False
            )
        return self._out_of_doubt(node_id, endings, cycle) if self._in_doubt else cycle

    def _stamp(self) -> int:
        """Return the time, later than every earlier one: it tells the claims of one cycle from those of another."""
        self._stamped = max(self._stamped + 1, self._clock.now_us())
        return self._stamped

    def _out_of_doubt(self, node_id: int, endings: Sequence[Ending], cycle: Cycle) -> Cycle:
        """Add what earlier cycles turn out to have claimed, and take out of the stale what they acknowledged.

        A job that was to be given back leaves no receipt: that it is not held any more is all that was wanted.
        """
        stamps = list(self._in_doubt)
        claimed, receipts = self.read(lambda connection: _found(connection, node_id, stamps, cycle.stale))
        self._in_doubt.clear()
        receipts.update((each.id, each.lease) for each in endings if each.verb in _GIVES_BACK)
        stale = [each for each in cycle.stale if (each.id, each.lease) not in receipts]
        return Cycle([*claimed, *cycle.claimed], stale, doubtful=True)


def _found(
    connection: Connection, node_id: int, stamps: Sequence[int], stale: Sequence[Stale]
) -> tuple[list[ClaimedJob], set[tuple[bytes, int]]]:
    rows = connection.execute(doubt.CLAIMED_AT, {"node": node_id, "stamps": stamps})
    claimed = [ClaimedJob(*row) for row in rows]
    receipts: set[tuple[bytes, int]] = set()
    if stale:
        values = {"node": node_id, "ids": [each.id for each in stale]}
        for statement in doubt.RECEIPTS:
            receipts.update((row[0], row[1]) for row in connection.execute(statement, values))
    return claimed, receipts
