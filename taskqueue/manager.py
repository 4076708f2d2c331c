"""`QueueManager`: one short method for each thing that can be done with a queue."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from taskqueue.backoff import LONGEST_DELAY
from taskqueue.clock import SYSTEM_CLOCK, Clock, to_us
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import JobChanges, JobFilter, NewJob
from taskqueue.errors import InvalidTransition, JobFailed, JobNotFound, UsageError, WaitTimeout
from taskqueue.events import Event, Events, Listener
from taskqueue.handle import Access, JobHandle, failure_text
from taskqueue.ids import parse_id
from taskqueue.job import Job
from taskqueue.job_options import parse_priority, parse_queue, parse_tags, parse_time
from taskqueue.payload import Codec
from taskqueue.record import JobRecord
from taskqueue.registry import module_name
from taskqueue.settings import Settings, load_settings
from taskqueue.states import State
from taskqueue.statistics import performance, queue_stats, worker_health
from taskqueue.store import Store, open_store
from taskqueue.translation import job_filter, job_record, new_job

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

MOST_LISTED = 100
_FIRST_LOOK, _LAST_LOOK = 0.002, 0.05
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
        self._settings = settings or _settings(url, encryption_key, options)
        self._logger = logger or _logger
        self._events = events or Events()
        self._clock = clock
        self._opening = threading.Lock()
        self._store: Store | None = None
        self._salt = b""
        self._warned: set[type[Job]] = set()

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
        """
        row, tags = self._seal(job.configure(**options) if options else job)
        if session is None:
            self._open().driver.push(row, tags)
        else:
            self._open().driver.push_within(session, [row], [tags])
        self._tell_pushed(row)
        return self.handle(job.id)

    def push_many(self, jobs: Iterable[Job], *, session: Session | Connection | None = None) -> list[UUID]:
        """Store jobs in one transaction, all or none, and return their ids."""
        sealed = [(job.id, *self._seal(job)) for job in jobs]
        rows, tags = [row for _, row, _ in sealed], [tags for _, _, tags in sealed]
        if not rows:
            return []
        if session is None:
            self._open().driver.push_many(rows, tags if any(tags) else ())
        else:
            self._open().driver.push_within(session, rows, tags)
        for row in rows:
            self._tell_pushed(row)
        return [job_id for job_id, _, _ in sealed]

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
        return job_record(row, self._open().driver.attempts([key]).get(key, ()), self._codec)

    def get_jobs(self, *, limit: int = MOST_LISTED, **conditions: Any) -> list[JobRecord]:
        """Return jobs that meet every condition, the newest first.

        Conditions: ``ids``, ``state``, ``queue`` (one value or several each), ``job_class``, ``tag``, ``category``,
        ``reason``, ``since`` and ``until`` (of the push), ``before`` (an id: the next page).
        """
        driver = self._open().driver
        rows = driver.find(_filter(conditions), limit)
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
        return self._open().driver.count(_filter(conditions))

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

    def get_worker_health(self) -> list[dict[str, Any]]:
        """Return the nodes that are alive: name, host, pid, workers, queues and seconds since their last beat."""
        return worker_health(self._open().driver.nodes(), self._clock.now_us())

    # --- control ---------------------------------------------------------------------------------------------

    def retry_failed_job(self, job_id: UUID | str, *, delay: float = 0.0) -> JobHandle:
        """Give a failed or cancelled job fresh attempts. Raises `JobNotFound` or `InvalidTransition`."""
        handle = self.handle(job_id)
        if not self._open().driver.revive(JobFilter(ids=(handle.id.bytes,)), run_at=self._due(delay)):
            self._refuse(handle.id, "retried: only a failed or cancelled job whose payload is kept can be")
        return handle

    def retry_failed_jobs(self, *, delay: float = 0.0, **conditions: Any) -> list[UUID]:
        """Give every failed job that meets the conditions of `get_jobs` fresh attempts; return their ids."""
        which = _filter({"state": State.FAILED, **conditions})
        return [UUID(bytes=each) for each in self._open().driver.revive(which, run_at=self._due(delay))]

    def cancel_job(self, job_id: UUID | str) -> bool:
        """Cancel a job that waits; False where it runs or has finished. Raises `JobNotFound`."""
        key = parse_id(job_id)
        if self.cancel_jobs(ids=[key]):
            return True
        self.get_job(key)
        return False

    def cancel_jobs(self, **conditions: Any) -> list[UUID]:
        """Cancel every job that waits and meets the conditions of `get_jobs`; return their ids."""
        cancelled = [UUID(bytes=each) for each in self._open().driver.cancel(_filter(conditions))]
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
            queue=_checked("queue", parse_queue, queue),
            rank=-_checked("priority", parse_priority, priority) if priority is not None else None,
            run_at=self._moment(run_at, delay),
            tags=_checked("tags", parse_tags, tags),
        )
        if not self._open().driver.update(key.bytes, changes):
            self._refuse(key, "changed: only a job that waits can be")
        return self.get_job(key)

    def delete_job(self, job_id: UUID | str) -> None:
        """Remove a job that does not run, with its history. Raises `JobNotFound` or `InvalidTransition`."""
        key = parse_id(job_id)
        if not self._open().driver.delete(JobFilter(ids=(key.bytes,))):
            self._refuse(key, "deleted: it runs")

    def delete_jobs(self, **conditions: Any) -> int:
        """Remove every job that does not run and meets the conditions of `get_jobs`; return how many."""
        return self._open().driver.delete(_filter(conditions))

    def flush(self, queue: str | None = None) -> int:
        """Remove every job that waits, in one queue or in all, and return how many; what runs and history stay."""
        return self._open().driver.flush(queue)

    def pause_queue(self, queue: str, note: str | None = None) -> None:
        """Stop claims from a queue on every node, over restarts, until `resume_queue`."""
        self._open().driver.pause(_checked("queue", parse_queue, queue), note)

    def resume_queue(self, queue: str) -> None:
        """Allow claims from a queue again."""
        self._open().driver.resume(_checked("queue", parse_queue, queue))

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
        self._await({each.bytes for each in ids}, timeout)
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
                    self._salt = self._store.driver.installation()[1]
                    for notice in self._store.notices:
                        self._logger.warning("%s", notice)
                store = self._store
        return store

    @property
    def _codec(self) -> Codec:
        return self._open().codec

    def _seal(self, job: Job) -> tuple[NewJob, tuple[str, ...]]:
        if type(job).__module__ == "__main__" and type(job) not in self._warned:
            self._warned.add(type(job))
            self._logger.warning(
                "%s is defined in the script itself; workers find it with --import %s",
                job.job_class,
                module_name(type(job)),
            )
        codec = self._codec
        return new_job(job, codec, self._salt, self._clock.now_us())

    def _tell_pushed(self, row: NewJob) -> None:
        name = "postponed" if row.state == State.DELAYED.code else "waiting"
        if self._events.wanted(name):  # type: ignore[arg-type]
            self._events.emit(Event(name, UUID(bytes=row.id), row.job_class, row.queue))  # type: ignore[arg-type]

    def _due(self, delay: float) -> int | None:
        return self._clock.now_us() + round(delay * 1e6) if delay > 0 else None

    def _moment(self, at: Any, delay: float | None) -> int | None:
        if delay is not None:
            return self._clock.now_us() + round(delay * 1e6)
        return to_us(_checked("run_at", parse_time, at)) if at is not None else None

    def _refuse(self, job_id: UUID, what: str) -> None:
        """Raise `JobNotFound` where there is no such job, else say that its state does not allow it."""
        state = self.get_job(job_id).state
        raise InvalidTransition(f"job {job_id} is {state} and cannot be {what}")

    def _await(self, waiting: set[bytes], timeout: float | None) -> None:
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        pause, never = _FIRST_LOOK, threading.Event()
        while True:
            states = self._open().driver.states(waiting)
            missing = waiting - states.keys()
            if missing:
                raise JobNotFound(f"there is no job {UUID(bytes=missing.pop())}: it was never pushed here, or purged")
            waiting = {each for each in waiting if not states[each].final}
            if not waiting:
                return
            left = _LAST_LOOK if deadline is None else deadline - self._clock.monotonic()
            if left <= 0:
                first = min(waiting)
                raise WaitTimeout(
                    f"{len(waiting)} job(s) have not finished within {timeout:g} s, the first is {UUID(bytes=first)} "
                    f"({states[first]}); is a worker running for their queue?"
                )
            self._clock.wait(never, min(pause, left))
            pause = min(pause * 1.5, _LAST_LOOK)


def _settings(url: str | None, key: str | None, options: Mapping[str, Any]) -> Settings:
    """Return settings from keywords, which win over environment and files."""
    groups: dict[str, dict[str, Any]] = {
        "database": {"url": url},
        "encryption": {"key": key},
        "general": {},
    }
    homes = {
        "durability": ("database", "durability"),
        "encryption": ("encryption", "enabled"),
        "encryption_key_file": ("encryption", "key_file"),
        "environment": ("general", "environment"),
    }
    for name, value in options.items():
        if name not in homes:
            raise UsageError(f"QueueManager has no setting {name!r}; it takes {', '.join(homes)} and encryption_key")
        group, option = homes[name]
        groups[group][option] = value
    return load_settings(keywords=groups).settings


def _filter(conditions: Mapping[str, Any]) -> JobFilter:
    try:
        return job_filter(**conditions)
    except TypeError as error:
        raise UsageError(f"unknown condition: {error}".replace("job_filter() got an ", "")) from None


def _checked(name: str, parse: Any, value: Any) -> Any:
    if value is None:
        return None
    try:
        return parse(value)
    except ValueError as error:
        raise UsageError(f"{name} must be {error}, got {str(value)[:80]!r}") from None
