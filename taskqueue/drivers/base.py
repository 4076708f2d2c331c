"""The seam to the database: the verbs that every driver offers, with their contracts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

from taskqueue.drivers.node_verbs import NodeDriver
from taskqueue.drivers.noting import NotingDriver
from taskqueue.drivers.receipts import Fate, HandlerTransaction
from taskqueue.drivers.values import (
    AttemptRow,
    Capabilities,
    ClaimedJob,
    Completion,
    Cycle,
    Ending,
    Finding,
    JobChanges,
    JobFilter,
    JobRow,
    KeyRow,
    Lanes,
    NewJob,
    Parked,
    Promotion,
    QueueRow,
    RollupRow,
    Standing,
)
from taskqueue.states import OnConflict, State


class Listener(Protocol):
    """Something that says when there may be new jobs; its descriptor is readable when it has."""

    def fileno(self) -> int:
        """Return the descriptor to be watched."""

    def heard(self) -> bool | None:
        """Take in what was said; say whether anything was, or None where nothing will ever be said again."""

    def close(self) -> None:
        """Stop listening."""


class Driver(NotingDriver, NodeDriver, ABC):
    """Everything that taskqueue asks of a database.

    Each verb is one transaction: it happens as a whole or not at all, and what it returns is committed. Writes on a
    claimed job carry (id, lease) and change nothing where the lease has moved on. Every method may raise
    `DatabaseUnreachable`, `DatabaseBusy` or `StorageFull`; nothing is half done then. A driver may be used from many
    threads; a connection is never carried over a fork.
    """

    capabilities: Capabilities

    # --- life -----------------------------------------------------------------------------------------------

    @abstractmethod
    def close(self) -> None:
        """Close every connection. The driver opens new ones when it is used again."""

    @abstractmethod
    def describe(self) -> str:
        """Return the database's address for people, without its password."""

    @abstractmethod
    def check_schema(self) -> None:
        """Raise `SchemaError` where the tables are missing, older or newer than this release, or another application's.

        Changes nothing. Two small statements: to be called once at every start.
        """

    @abstractmethod
    def installation(self) -> tuple[bytes, bytes]:
        """Return this database's own id and its salt for passphrases, made by the first migration."""

    # --- push -----------------------------------------------------------------------------------------------

    @abstractmethod
    def push(self, job: NewJob, tags: Sequence[str] = (), parents: Sequence[bytes] = ()) -> None:
        """Insert one job durably: one statement on a kept connection, more where it has a new lane, tags or parents.

        A job with ``parents`` waits, blocked, until each of them has completed; what happens when one does not is its
        ``on_parent_failure``. Raises `DependencyError` for a parent that does not exist and `DuplicateJob` for a unique
        key that a live job has. A job whose id is known is passed over, so that a push may be repeated.
        """

    @abstractmethod
    def push_many(
        self, jobs: Sequence[NewJob], tags: Sequence[Sequence[str]] = (), parents: Sequence[Sequence[bytes]] = ()
    ) -> None:
        """Insert jobs in one transaction: all or none. ``tags`` and ``parents`` are empty or as long as ``jobs``.

        A parent may be among the jobs, in any order; a cycle raises `DependencyError` with its path.
        """

    @abstractmethod
    def push_unique(
        self,
        job: NewJob,
        tags: Sequence[str] = (),
        parents: Sequence[bytes] = (),
        *,
        replace: bool = False,
        instead_of: bytes | None = None,
    ) -> Standing:
        """Insert a job unless another live one has its unique key; return the job that stands and whether it is new.

        With ``replace`` a job that waits gives its place up and is cancelled in the same transaction; one that runs
        keeps it, and `DuplicateJob` is raised. ``instead_of`` limits this to one job: another that has taken its place
        meanwhile stands. Of any number of callers at once one creates; whoever meets a push that
        is not committed yet waits for it, and takes its place if that rolls back.
        """

    @abstractmethod
    def push_each(
        self,
        jobs: Sequence[NewJob],
        tags: Sequence[Sequence[str]] = (),
        parents: Sequence[Sequence[bytes]] = (),
        rules: Sequence[OnConflict] = (),
    ) -> list[Standing]:
        """Do as `push_many` in one transaction, with a rule for each job; return which job stands for each.

        ``rules`` is empty (every conflict is an error) or as long as ``jobs``. One statement for each job.
        """

    @abstractmethod
    def push_within(
        self,
        session: Any,
        jobs: Sequence[NewJob],
        tags: Sequence[Sequence[str]] = (),
        parents: Sequence[Sequence[bytes]] = (),
        rules: Sequence[OnConflict] = (),
    ) -> list[Standing]:
        """Do as `push_each` in the caller's own transaction: a SQLAlchemy Session or Connection on this very database.

        Nothing is visible before the caller commits and nothing is left after a roll-back. An error leaves the
        caller's transaction as it was before this call. Raises `ConfigurationError` where the session is bound to
        another database, `UsageError` for what is no Session or Connection.
        """

    @abstractmethod
    def note_lanes(self, lanes: Iterable[tuple[str, int]]) -> bool:
        """Make (queue, rank) pairs known to claims before a push within a caller's transaction; say whether they are.

        In that transaction they would keep other pushes to new queues waiting until it ends. Where there is one writer
        at a time it may be the caller already: there nothing is done, and the push notes them itself.
        """

    # --- the way of a job -----------------------------------------------------------------------------------

    @abstractmethod
    def lanes(self, queues: Sequence[str] | None) -> Lanes:
        """Return fresh lane marks for serving ``queues`` in this order, or every queue by priority (None)."""

    @abstractmethod
    def cycle(
        self,
        node_id: int,
        completions: Sequence[Completion],
        endings: Sequence[Ending],
        lanes: Lanes,
        limit: int,
    ) -> Cycle:
        """Write how jobs ended and claim at most ``limit`` more, in one transaction.

        Order of claims: queues in the order of service (every queue: by priority over all), in a queue the higher
        priority first, then the oldest ready first. Paused queues are passed over. No two callers are ever given the
        same (id, lease). Counters and rollups change in the same transaction. An unknown or moved lease is reported as
        stale and changes nothing.
        """

    @abstractmethod
    def claim_own(self, node_id: int, queues: Sequence[str] | None, limit: int) -> list[ClaimedJob]:
        """Claim jobs with ``force_spawn`` alone, past others that wait before them, of the first 200 of each lane."""

    @abstractmethod
    def transaction(self, seconds: float, patience: float = 30.0) -> HandlerTransaction:
        """Lend a transaction for a handler's statements and its job's acknowledgement, which may take ``seconds``.

        Where there is one writer at a time, its first statement waits up to ``patience`` seconds for the others.
        """

    @abstractmethod
    def fate(self, job_id: bytes, lease: int) -> Fate:
        """Find out what became of an acknowledgement in doubt, and wait for its transaction where that still lasts."""

    @abstractmethod
    def promote(self, limit: int = 1000) -> Promotion:
        """Make due delayed jobs pending, the longest due first."""

    @abstractmethod
    def record_start(self, node_id: int, job_id: bytes, lease: int) -> bool:
        """Durably note that this lease of the job is about to run; False where the lease has moved on."""

    @abstractmethod
    def unpark(self, classes: Collection[str], key_ids: Collection[str]) -> int:
        """Make parked jobs pending whose class or key this node knows; return how many."""

    @abstractmethod
    def unfinished(self, queues: Sequence[str] | None) -> int:
        """Count the jobs that are pending, processing, or delayed after a crash.

        Of these queues, or with None of all; what waits in a paused queue is not counted.
        """

    @abstractmethod
    def announce(self) -> None:
        """Tell every listening node that there may be work. A hint: it never raises, and may be lost."""

    @abstractmethod
    def listen(self) -> Listener | None:
        """Return a listener for what `announce` says on other machines, or None where the database has no such thing.

        It was proved to work: where a pooler swallows what is said, None is returned. It has a connection of its own.
        """

    @abstractmethod
    def change_mark(self) -> object:
        """Return a cheap value that changes when another connection writes, or None where there is none.

        Equal marks mean that nothing was written; a dispatcher without work asks this instead of claiming.
        """

    @abstractmethod
    def held(self, node_id: int) -> list[ClaimedJob]:
        """Return every job that a node holds, without payload: to be compared with what the node knows of."""

    # --- reading --------------------------------------------------------------------------------------------

    @abstractmethod
    def get(self, job_id: bytes) -> JobRow | None:
        """Return a job, live or finished."""

    @abstractmethod
    def find(self, which: JobFilter, limit: int = 100) -> list[JobRow]:
        """Return matching jobs, live and finished together, the newest id first."""

    @abstractmethod
    def count(self, which: JobFilter) -> int:
        """Count matching jobs. Bounded by the rows that match: statistics use `queues` instead."""

    @abstractmethod
    def attempts(self, job_ids: Collection[bytes]) -> dict[bytes, list[AttemptRow]]:
        """Return the attempts that did not complete, oldest first, by job."""

    @abstractmethod
    def parents(self, job_ids: Collection[bytes]) -> dict[bytes, list[bytes]]:
        """Return what each of these jobs still waits for, by id; jobs that wait for no other are left out."""

    @abstractmethod
    def states(self, job_ids: Collection[bytes]) -> dict[bytes, State]:
        """Return the state of each job that exists: what a waiting caller polls."""

    @abstractmethod
    def queues(self) -> list[QueueRow]:
        """Return every queue that holds or held a job, by name, with exact counts; history rows are not counted."""

    @abstractmethod
    def rollups(self, since: int, queue: str | None = None) -> list[RollupRow]:
        """Return the minutes from ``since`` on, oldest first."""

    # --- control --------------------------------------------------------------------------------------------

    @abstractmethod
    def cancel(self, which: JobFilter) -> list[bytes]:
        """Move matching jobs that wait (pending, delayed, blocked) to history as cancelled; return their ids."""

    @abstractmethod
    def revive(self, which: JobFilter, *, run_at: int | None = None) -> list[bytes]:
        """Move matching failed or cancelled jobs back from history, with fresh attempts and a higher lease.

        Counts of attempts and crashes start again at 0; the rows of earlier attempts stay. A job whose unique key has
        been taken meanwhile, or whose payload is gone, stays where it is.
        """

    @abstractmethod
    def update(self, job_id: bytes, changes: JobChanges) -> bool:
        """Change a job that waits; False where it does not exist or does not wait."""

    @abstractmethod
    def delete(self, which: JobFilter) -> int:
        """Remove matching jobs, live ones that wait and finished ones, with their tags and attempts; return how many.

        Jobs in ``processing`` stay.
        """

    @abstractmethod
    def flush(self, queue: str | None = None) -> int:
        """Remove every job that waits in a queue (or in all), and return how many. Running jobs and history stay."""

    @abstractmethod
    def pause(self, queue: str, note: str | None = None) -> None:
        """Stop claims from a queue, on every node and over restarts, until `resume`."""

    @abstractmethod
    def resume(self, queue: str) -> None:
        """Allow claims from a queue again."""

    # --- upkeep ---------------------------------------------------------------------------------------------

    @abstractmethod
    def purge(self, before: int, states: Collection[State], queue: str | None = None, limit: int = 5000) -> int:
        """Remove jobs in these final states that finished before a time, with their tags and attempts.

        At most ``limit`` of them, the longest finished of each queue first, in one transaction; call again until 0
        come back. Costs the same however long the history is. A job that another one still waits for stays.
        """

    @abstractmethod
    def purge_beyond(self, keep: int, queue: str, limit: int = 5000) -> int:
        """Remove the longest finished jobs of a queue that has more than ``keep`` finished ones, as `purge` does."""

    @abstractmethod
    def purgeable(self, before: int, states: Collection[State], queue: str | None = None) -> int:
        """Count what `purge` would remove in all. Reads as many index entries."""

    @abstractmethod
    def kept_since(self, keep: int, queue: str) -> int | None:
        """Return when the ``keep``-th last finished job of a queue finished; None where it has no more than that.

        Reads ``keep`` index entries of each state.
        """

    @abstractmethod
    def sweep(self, minutes_before: int, nodes_before: int, limit: int = 5000) -> int:
        """Remove minutes of the rollups from before a time, and nodes that ended before another and hold no job.

        What such a node has counted goes on counting. Returns how many rows went; call again until it is 0.
        """

    @abstractmethod
    def restore_lanes(self) -> int:
        """Note the lanes of pending jobs that are missing, and return how many were: their jobs would never be claimed.

        They are after a restore or a reset under a pusher that runs: it takes a lane that it noted to be there still.
        """

    @abstractmethod
    def tend(self, node_id: int) -> list[str]:
        """Do for the database's own health what is due and what it does not do by itself; say what was done.

        Of the nodes that call this at once, one does it. Never takes a lock that claims or acknowledgements wait for.
        """

    @abstractmethod
    def findings(self) -> list[Finding]:
        """Examine the database: its version, settings, indexes, size and rights. Changes nothing; takes about 1 s."""

    @abstractmethod
    def mend(self) -> list[str]:
        """Put right what `findings` tells of and what can be put right safely beside running nodes; say what was."""

    @abstractmethod
    def parked(self) -> list[Parked]:
        """Return the jobs that wait for a node which knows their class or has their key."""

    @abstractmethod
    def live_keys(self) -> dict[str, int]:
        """Return how many jobs that have not finished name each key id. Reads every such job."""

    # --- keys -----------------------------------------------------------------------------------------------

    @abstractmethod
    def keys(self) -> list[KeyRow]:
        """Return the keys that this database knows, oldest first."""

    @abstractmethod
    def add_key(self, key_id: str, check_value: bytes, state: str = "active") -> None:
        """Note a key under its id; does nothing where the id is known."""

    @abstractmethod
    def key_usage(self) -> dict[str, int]:
        """Return how many stored jobs, live and finished, name each key id. Reads both tables."""
