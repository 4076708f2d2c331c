"""`QueueManager`: one short method for each thing that can be done with a queue."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from taskqueue.backoff import LONGEST_DELAY
from taskqueue.clock import SYSTEM_CLOCK, Clock, to_us
from taskqueue.drivers.base import Driver
from taskqueue.drivers.retention import asked_purge
from taskqueue.drivers.values import BlockedBy, JobChanges, JobFilter
from taskqueue.errors import InvalidTransition, JobFailed, JobNotFound, UsageError
from taskqueue.events import Event, Events, Listener
from taskqueue.fleet import chosen_nodes, worker_health
from taskqueue.handle import Access, JobHandle, failure_text
from taskqueue.ids import parse_id
from taskqueue.job import Job
from taskqueue.job_options import parse_priority, parse_queue, parse_tags, parse_time
from taskqueue.payload import Codec
from taskqueue.pushing import Pusher
from taskqueue.record import JobRecord
from taskqueue.settings import Settings
from taskqueue.states import State
from taskqueue.statistics import performance, queue_stats
from taskqueue.store import Store, open_store, settings_of
from taskqueue.translation import checked, filter_of, job_record
from taskqueue.waiting import Watch

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

MOST_LISTED = 100
_logger = logging.getLogger("taskqueue.manager")


class QueueManager:
    """Push jobs, find them, wait for them, control them. Safe to share between threads; not over a fork.

    ::

        with QueueManager.from_env() as manager:
            handle = manager.push(SendEmail({"to": "a@example.org"}), delay=60)

    ``url`` is a database URL, or None for what environment and files say. Keyword settings are those of
    `DatabaseSettings` (``durability``) and ``encryption_key``, ``encryption_key_file``, ``encryption`` and
    ``environment``. The database is opened by `connect`, by entering the manager, or by its first use.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        encryption_key: str | None = None,
        logger: logging.Logger | None = None,
        events: Events | None = None,
        clock: Clock = SYSTEM_CLOCK,
        settings: Settings | None = None,
        **options: Any,
    ) -> None:
        self._settings = settings or settings_of(url, encryption_key, options)
        self._logger = logger or _logger
        self._events = events or Events()
        self._clock = clock
        self._opening = threading.Lock()
        self._store: Store | None = None
        self._made_pusher: Pusher | None = None

    @classmethod
    def from_env(cls, **keywords: Any) -> QueueManager:
        """Return a manager with the settings of environment, ``.env`` and configuration files."""
        return cls(None, **keywords)

    # --- connection ------------------------------------------------------------------------------------------

    def connect(self) -> QueueManager:
        """Open the database and check schema and key; raises what is wrong with them. Does nothing when open."""
        self._open()
        return self

    def disconnect(self) -> None:
        """Close the database. It is opened again by the next use."""
        with self._opening:
            if self._store is not None:
                self._store.close()
                self._store = None

    def __enter__(self) -> Self:
        """Open the database."""
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the database."""
        self.disconnect()

    @property
    def driver(self) -> Driver:
        """Return the driver, for what has no method here."""
        return self._open().driver

    @property
    def notices(self) -> tuple[str, ...]:
        """Return what a person should read once after opening: a key that was made, a weak key."""
        return self._open().notices

    # --- push ------------------------------------------------------------------------------------------------

    def push(self, job: Job, *, session: Session | Connection | None = None, **options: Any) -> JobHandle:
        """Store a job durably and return its handle; ``options`` override the job's own.

        When this returns the job survives the death of any process. With ``session`` the job is one INSERT in the
        caller's transaction instead: visible when that commits, gone without a trace when it rolls back. Pushing the
        same job twice stores it once. Raises `PayloadError` or `InvalidOption` before anything is written.

        Where another live job has the same ``unique_key``, ``on_conflict`` decides: ``error`` raises `DuplicateJob`,
        ``keep`` stores nothing and returns the handle of that job, ``replace`` cancels it and stores this one, which
        is a `DuplicateJob` too where it runs already.
        """
        return self.handle(self._pusher.push(job.configure(**options) if options else job, session))

    def push_many(self, jobs: Iterable[Job], *, session: Session | Connection | None = None) -> list[UUID]:
        """Store jobs in one transaction, all or none, and return their ids in the same order.

        A job that is passed over because of ``on_conflict="keep"`` is stood for by the id of the one that is there.
        """
        return self._pusher.push_many(list(jobs), session)

    def push_once(self, job: Job, ignore_payload: bool = False, **options: Any) -> tuple[JobHandle, bool]:  # noqa: FBT001, FBT002
        """Store a job unless the same one waits or runs; return the handle of the one that stands and if it is new.

        The same is: same class, equal payload (in value and type, whatever the order of its dicts), in any queue,
        pushed by `push_once` too. A job that waits with other options than this push names is cancelled and the new
        one takes its place; one that runs keeps its options. With ``ignore_payload`` the class alone is compared: a job
        that waits with another payload is replaced, one that runs with another payload raises `DuplicateJob`. A job
        with a ``unique_key`` is compared by that key instead.

        What is compared is kept as a digest under a secret of the oldest encryption key that is loaded: leave an old
        key loaded until the jobs from before its rotation are done. Without encryption the secret is in the database.
        """
        job_id, created = self._pusher.push_once(
            job.configure(**options) if options else job, ignore_payload=ignore_payload
        )
        return self.handle(job_id), created

    def handle(self, job_id: UUID | str) -> JobHandle:
        """Return a handle for a job that was pushed earlier."""
        return JobHandle(parse_id(job_id), Access(self.get_job, self.wait, self.cancel_job))

    # --- reading ---------------------------------------------------------------------------------------------

    def get_job(self, job_id: UUID | str) -> JobRecord:
        """Return a job, live or finished, with its failed attempts; raise `JobNotFound`."""
        key = parse_id(job_id).bytes
        row = self._open().driver.get(key)
        if row is None:
            raise JobNotFound(f"there is no job {parse_id(job_id)}: it was never pushed here, or purged since")
        driver = self._open().driver
        parents = driver.parents([key]).get(key, ()) if row.blocked_by is BlockedBy.PARENTS else ()
        return job_record(row, driver.attempts([key]).get(key, ()), self._codec, parents)

    def get_jobs(self, *, limit: int = MOST_LISTED, **conditions: Any) -> list[JobRecord]:
        """Return jobs that meet every condition, the newest first.

        Conditions: ``ids``, ``state``, ``queue`` (one value or several each), ``job_class``, ``tag``, ``category``,
        ``reason``, ``since`` and ``until`` (of the push), ``before`` (an id: the next page).
        """
        driver = self._open().driver
        rows = driver.find(filter_of(conditions), limit)
        attempts = driver.attempts([row.id for row in rows if row.attempt or row.reason])
        return [job_record(row, attempts.get(row.id, ()), self._codec) for row in rows]

    def get_jobs_by_state(
        self, state: State | str, queue: str | None = None, limit: int = MOST_LISTED
    ) -> list[JobRecord]:
        """Return jobs in a state, the newest first."""
        return self.get_jobs(state=state, queue=queue, limit=limit)

    def get_failed_jobs(self, queue: str | None = None, limit: int = MOST_LISTED) -> list[JobRecord]:
        """Return failed jobs with their errors, the newest first."""
        return self.get_jobs(state=State.FAILED, queue=queue, limit=limit)

    def count_jobs(self, **conditions: Any) -> int:
        """Count jobs that meet every condition of `get_jobs`."""
        return self._open().driver.count(filter_of(conditions))

    def size(self, queue: str | None = None) -> int:
        """Return how many jobs wait or run: in one queue, or in all."""
        rows = self._open().driver.queues()
        wanted = [row for row in rows if queue is None or row.queue == queue]
        return sum(number for row in wanted for state, number in row.counts.items() if not state.final)

    # --- statistics ------------------------------------------------------------------------------------------

    def get_queue_stats(self, queue: str | None = None) -> dict[str, dict[str, Any]]:
        """Return for each queue ``total_jobs``, ``by_state``, ``paused`` and ``oldest_wait`` in seconds, by name."""
        return queue_stats(self._open().driver.queues(), self._clock.now_us(), queue)

    def get_performance_metrics(self, timeframe: float = 3600.0) -> dict[str, Any]:
        """Return what happened in the last ``timeframe`` seconds, over all queues and by queue, from the rollups."""
        if not 0 < timeframe <= LONGEST_DELAY:
            raise UsageError(f"timeframe must be more than 0 and at most {LONGEST_DELAY:.0f} seconds, got {timeframe}")
        since = self._clock.now_us() - round(timeframe * 1e6)
        return performance(self._open().driver.rollups(since), timeframe)

    def get_worker_health(self, *, everyone: bool = False) -> list[dict[str, Any]]:
        """Return the nodes that live: name, host, pid, workers, queues, seconds since their last beat, and more.

        With ``everyone`` those that have stopped or died as well.
        """
        return worker_health(self._open().driver.nodes(everyone=everyone), self._clock.now_us())

    def drain_nodes(self, *nodes: int | str, everyone: bool = False) -> list[int]:
        """Ask nodes, by id or name, to finish what they run and stop, wherever they are; return whom.

        They learn of it at their next beat. Raises `NotFound` for one that does not live, before any was asked.
        """
        driver = self._open().driver
        living = driver.nodes()
        chosen = [row.id for row in living] if everyone else chosen_nodes(living, nodes)
        return [node_id for node_id in chosen if driver.drain_node(node_id)]

    # --- control ---------------------------------------------------------------------------------------------

    def retry_failed_job(self, job_id: UUID | str, *, delay: float = 0.0) -> JobHandle:
        """Give a failed or cancelled job fresh attempts. Raises `JobNotFound` or `InvalidTransition`."""
        handle = self.handle(job_id)
        if not self._open().driver.revive(JobFilter(ids=(handle.id.bytes,)), run_at=self._due(delay)):
            self._refuse(handle.id, "retried: only a failed or cancelled job whose payload is kept can be")
        self._open().announce()
        return handle

    def retry_failed_jobs(self, *, delay: float = 0.0, **conditions: Any) -> list[UUID]:
        """Give every failed job that meets the conditions of `get_jobs` fresh attempts; return their ids."""
        which = filter_of({"state": State.FAILED, **conditions})
        revived = self._open().driver.revive(which, run_at=self._due(delay))
        if revived:
            self._open().announce()
        return [UUID(bytes=each) for each in revived]

    def cancel_job(self, job_id: UUID | str) -> bool:
        """Cancel a job that waits; False where it runs or has finished. Raises `JobNotFound`."""
        key = parse_id(job_id)
        if self.cancel_jobs(ids=[key]):
            return True
        self.get_job(key)
        return False

    def cancel_jobs(self, **conditions: Any) -> list[UUID]:
        """Cancel every job that waits and meets the conditions of `get_jobs`; return their ids."""
        cancelled = [UUID(bytes=each) for each in self._open().driver.cancel(filter_of(conditions))]
        if self._events.wanted("cancel"):
            for job_id in cancelled:
                self._events.emit(Event("cancel", job_id))
        return cancelled

    def update_job(
        self,
        job_id: UUID | str,
        *,
        queue: str | None = None,
        priority: int | str | None = None,
        run_at: datetime | str | float | None = None,
        delay: float | None = None,
        tags: Sequence[str] | None = None,
    ) -> JobRecord:
        """Change a job that waits and return it. The payload cannot be changed: cancel and push anew.

        Raises `JobNotFound`, or `InvalidTransition` where the job no longer waits.
        """
        if run_at is not None and delay is not None:
            raise UsageError("give only one of run_at and delay")
        key = parse_id(job_id)
        changes = JobChanges(
            queue=checked("queue", parse_queue, queue),
            rank=-checked("priority", parse_priority, priority) if priority is not None else None,
            run_at=self._moment(run_at, delay),
            tags=checked("tags", parse_tags, tags),
        )
        if not self._open().driver.update(key.bytes, changes):
            self._refuse(key, "changed: only a job that waits can be")
        self._open().announce()
        return self.get_job(key)

    def delete_job(self, job_id: UUID | str) -> None:
        """Remove a job that does not run, with its history. Raises `JobNotFound` or `InvalidTransition`."""
        key = parse_id(job_id)
        if not self._open().driver.delete(JobFilter(ids=(key.bytes,))):
            self._refuse(key, "deleted: it runs")

    def delete_jobs(self, **conditions: Any) -> int:
        """Remove every job that does not run and meets the conditions of `get_jobs`; return how many."""
        return self._open().driver.delete(filter_of(conditions))

    def flush(self, queue: str | None = None) -> int:
        """Remove every job that waits, in one queue or in all, and return how many; what runs and history stay."""
        return self._open().driver.flush(queue)

    def purge(
        self,
        *,
        older_than: float | timedelta | str | None = None,
        state: State | str | Sequence[State | str] | None = None,
        queue: str | None = None,
        keep: int | None = None,
    ) -> int:
        """Remove finished jobs for good, in small batches, and return how many; the statistics stay.

        Those that finished longer ago than ``older_than`` (seconds, or text such as ``30d``), in these final states.
        With ``keep`` the last that many finished jobs of each queue stay. Give one of the two, or both.
        """
        wanted = asked_purge(self._open().driver, self._clock, older_than, state, queue, keep)
        return wanted.run(self._clock)

    def pause_queue(self, queue: str, note: str | None = None) -> None:
        """Stop claims from a queue on every node, over restarts, until `resume_queue`."""
        self._open().driver.pause(checked("queue", parse_queue, queue), note)

    def resume_queue(self, queue: str) -> None:
        """Allow claims from a queue again."""
        self._open().driver.resume(checked("queue", parse_queue, queue))
        self._open().announce()

    # --- waiting ---------------------------------------------------------------------------------------------

    def wait(self, job: Job | JobHandle | UUID | str, timeout: float | None = None) -> JobRecord:
        """Wait until a job has finished, however it did, and return its record.

        Raises `WaitTimeout` after ``timeout`` seconds and `JobNotFound`. Looks every 2 ms at first, every 50 ms later.
        """
        return self.wait_for([job], timeout)[0]

    def wait_for(
        self, jobs: Sequence[Job | JobHandle | UUID | str], timeout: float | None = None, *, throw: bool = False
    ) -> list[JobRecord]:
        """Wait until every job has finished and return their records in the same order.

        With ``throw`` the first job that did not complete raises `JobFailed`.
        """
        ids = [job.id if isinstance(job, (Job, JobHandle)) else parse_id(job) for job in jobs]
        watch, never = Watch((each.bytes for each in ids), timeout, self._clock), threading.Event()
        while watch.waiting:
            self._clock.wait(never, watch.look(self.driver.states(watch.waiting)))
        records = [self.get_job(each) for each in ids]
        for record in records:
            if throw and record.state is not State.COMPLETED:
                raise JobFailed(failure_text(record))
        return records

    def on(self, event: str, listener: Listener) -> None:
        """Call ``listener`` with each event of this name that this process causes; ``*`` is every event."""
        self._events.on(event, listener)

    # --- inside ----------------------------------------------------------------------------------------------

    def _open(self) -> Store:
        store = self._store
        if store is None:
            with self._opening:
                if self._store is None:
                    self._store = open_store(self._settings, self._clock)
                    for notice in self._store.notices:
                        self._logger.warning("%s", notice)
                store = self._store
        return store

    @property
    def _codec(self) -> Codec:
        return self._open().codec

    @property
    def _pusher(self) -> Pusher:
        store, pusher = self._open(), self._made_pusher
        if pusher is None or pusher.store is not store:
            pusher = self._made_pusher = Pusher(store, self._clock, self._events, self._logger)
        return pusher

    def _due(self, delay: float) -> int | None:
        return self._clock.now_us() + round(delay * 1e6) if delay > 0 else None

    def _moment(self, at: Any, delay: float | None) -> int | None:
        if delay is not None:
            return self._clock.now_us() + round(delay * 1e6)
        return to_us(checked("run_at", parse_time, at)) if at is not None else None

    def _refuse(self, job_id: UUID, what: str) -> None:
        """Raise `JobNotFound` where there is no such job, else say that its state does not allow it."""
        state = self.get_job(job_id).state
        raise InvalidTransition(f"job {job_id} is {state} and cannot be {what}")
