"""`AsyncQueueManager`: the same operations for callers that run in an event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from uuid import UUID

from taskqueue.clock import SYSTEM_CLOCK, Clock
from taskqueue.drivers.base import Driver
from taskqueue.errors import JobFailed, UsageError
from taskqueue.events import Listener
from taskqueue.handle import JobHandle, failure_text
from taskqueue.ids import parse_id
from taskqueue.job import Job
from taskqueue.manager import MOST_LISTED, QueueManager
from taskqueue.record import JobRecord
from taskqueue.states import State
from taskqueue.waiting import Watch

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

T = TypeVar("T")

THREADS: Final = 8
"""How many operations of one manager go on at once; more wait for their turn. Each may hold a connection."""


@dataclass(frozen=True, slots=True)
class AsyncJobHandle:
    """A pushed job, to be asked about with ``await``."""

    id: UUID
    _manager: AsyncQueueManager

    async def record(self) -> JobRecord:
        """Return the job as it stands now."""
        return await self._manager.get_job(self.id)

    async def wait(self, timeout: float | None = None) -> JobRecord:  # noqa: ASYNC109 -- as in a thread: WaitTimeout
        """Wait until the job has finished and return its record; raise `WaitTimeout` after ``timeout`` seconds."""
        return await self._manager.wait(self.id, timeout)

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 -- as above
        """Wait until the job has finished and return what its handler returned; raise `JobFailed` if it failed."""
        record = await self.wait(timeout)
        if record.state is not State.COMPLETED:
            raise JobFailed(failure_text(record))
        return record.result

    async def cancel(self) -> bool:
        """Cancel the job if it still waits; say whether it was cancelled."""
        return await self._manager.cancel_job(self.id)


class AsyncQueueManager:
    """Do as `QueueManager` does, with ``await``: each operation is that manager's own, in one of a few threads.

    ::

        async with AsyncQueueManager.from_env() as manager:
            handle = await manager.push(SendEmail({"to": "a@example.org"}))
            await handle.wait(timeout=60)

    Takes what `QueueManager` takes. A task that is cancelled while it awaits an operation leaves nothing half done:
    what had begun happens as a whole, and its outcome is not told; what had not begun does not happen. A push may be
    repeated with the same job object, which stores it once. Waiting for jobs occupies no thread. Listeners of `on` are
    called in those threads.
    """

    def __init__(
        self, url: str | None = None, *, clock: Clock = SYSTEM_CLOCK, threads: int = THREADS, **keywords: Any
    ) -> None:
        if threads < 1:
            raise UsageError(f"threads must be at least 1, got {threads}")
        self._manager = QueueManager(url, clock=clock, **keywords)
        self._clock = clock
        self._threads = threads
        self._executor: ThreadPoolExecutor | None = None

    @classmethod
    def from_env(cls, **keywords: Any) -> AsyncQueueManager:
        """Return a manager with the settings of environment, ``.env`` and configuration files."""
        return cls(None, **keywords)

    # --- connection ------------------------------------------------------------------------------------------

    async def connect(self) -> AsyncQueueManager:
        """Open the database and check schema and key; raises what is wrong with them. Does nothing when open."""
        await self._run(self._manager.connect)
        return self

    async def disconnect(self) -> None:
        """Wait for the operations under way and close the database. It is opened again by the next use."""
        executor, self._executor = self._executor, None
        await asyncio.to_thread(self._close, executor)

    def _close(self, executor: ThreadPoolExecutor | None) -> None:
        if executor is not None:
            executor.shutdown()
        self._manager.disconnect()

    async def __aenter__(self) -> Self:
        """Open the database."""
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the database."""
        await self.disconnect()

    async def _run(self, operation: Callable[..., T], *values: Any, **keywords: Any) -> T:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="taskqueue")
        work = partial(contextvars.copy_context().run, operation, *values, **keywords)
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    @property
    def driver(self) -> Driver:
        """Return the driver, for what has no method here. Its verbs block: call them in a thread."""
        return self._manager.driver

    @property
    def notices(self) -> tuple[str, ...]:
        """Return what a person should read once after opening: a key that was made, a weak key."""
        return self._manager.notices

    # --- push ------------------------------------------------------------------------------------------------

    async def push(
        self, job: Job, *, session: AsyncSession | AsyncConnection | None = None, **options: Any
    ) -> AsyncJobHandle:
        """Store a job durably and return its handle; with ``session`` in the caller's transaction."""
        ready = job.configure(**options) if options else job
        pushed: JobHandle = await self._push(session, self._manager.push, [ready], ready)
        return self.handle(pushed.id)

    async def push_many(
        self, jobs: Iterable[Job], *, session: AsyncSession | AsyncConnection | None = None
    ) -> list[UUID]:
        """Store jobs in one transaction, all or none, and return their ids in the same order."""
        ready = list(jobs)
        return await self._push(session, self._manager.push_many, ready, ready)

    async def push_once(
        self,
        job: Job,
        ignore_payload: bool = False,  # noqa: FBT001, FBT002 -- as in `QueueManager`
        **options: Any,
    ) -> tuple[AsyncJobHandle, bool]:
        """Store a job unless the same one waits or runs; return the handle of the one that stands and if it is new."""
        pushed, created = await self._run(self._manager.push_once, job, ignore_payload, **options)
        return self.handle(pushed.id), created

    async def _push(self, session: Any, operation: Callable[..., T], jobs: Sequence[Job], what: Any) -> T:
        """Push in a thread, or in a caller's transaction by the bridge that SQLAlchemy has for plain code."""
        if session is None:
            return await self._run(operation, what)
        if not hasattr(session, "run_sync"):
            raise UsageError(
                f"session= must be an AsyncSession or AsyncConnection here, got {type(session).__name__}:"
                " push it with QueueManager"
            )
        # The bridge runs in the event loop, so what needs a connection of our own is done before.
        await self._run(self._note_lanes, jobs)
        made: T = await session.run_sync(lambda ours: operation(what, session=ours))
        return made

    def _note_lanes(self, jobs: Sequence[Job]) -> None:
        self._manager.driver.note_lanes([(job.options.queue, -job.options.priority) for job in jobs])

    def handle(self, job_id: UUID | str) -> AsyncJobHandle:
        """Return a handle for a job that was pushed earlier."""
        return AsyncJobHandle(parse_id(job_id), self)

    # --- reading ---------------------------------------------------------------------------------------------

    async def get_job(self, job_id: UUID | str) -> JobRecord:
        """Return a job, live or finished, with its failed attempts; raise `JobNotFound`."""
        return await self._run(self._manager.get_job, job_id)

    async def get_jobs(self, *, limit: int = MOST_LISTED, **conditions: Any) -> list[JobRecord]:
        """Return jobs that meet every condition, the newest first."""
        return await self._run(self._manager.get_jobs, limit=limit, **conditions)

    async def get_jobs_by_state(
        self, state: State | str, queue: str | None = None, limit: int = MOST_LISTED
    ) -> list[JobRecord]:
        """Return jobs in a state, the newest first."""
        return await self._run(self._manager.get_jobs_by_state, state, queue, limit)

    async def get_failed_jobs(self, queue: str | None = None, limit: int = MOST_LISTED) -> list[JobRecord]:
        """Return failed jobs with their errors, the newest first."""
        return await self._run(self._manager.get_failed_jobs, queue, limit)

    async def count_jobs(self, **conditions: Any) -> int:
        """Count jobs that meet every condition of `get_jobs`."""
        return await self._run(self._manager.count_jobs, **conditions)

    async def size(self, queue: str | None = None) -> int:
        """Return how many jobs wait or run: in one queue, or in all."""
        return await self._run(self._manager.size, queue)

    # --- statistics ------------------------------------------------------------------------------------------

    async def get_queue_stats(self, queue: str | None = None) -> dict[str, dict[str, Any]]:
        """Return for each queue its counts by state, whether it is paused, and its oldest wait in seconds."""
        return await self._run(self._manager.get_queue_stats, queue)

    async def get_performance_metrics(self, timeframe: float = 3600.0) -> dict[str, Any]:
        """Return what happened in the last ``timeframe`` seconds, over all queues and by queue."""
        return await self._run(self._manager.get_performance_metrics, timeframe)

    async def get_worker_health(self, *, everyone: bool = False) -> list[dict[str, Any]]:
        """Return the nodes that live; with ``everyone`` those that have stopped or died as well."""
        return await self._run(self._manager.get_worker_health, everyone=everyone)

    async def drain_nodes(self, *nodes: int | str, everyone: bool = False) -> list[int]:
        """Ask nodes, by id or name, to finish what they run and stop, wherever they are; return whom."""
        return await self._run(self._manager.drain_nodes, *nodes, everyone=everyone)

    # --- control ---------------------------------------------------------------------------------------------

    async def retry_failed_job(self, job_id: UUID | str, *, delay: float = 0.0) -> AsyncJobHandle:
        """Give a failed or cancelled job fresh attempts. Raises `JobNotFound` or `InvalidTransition`."""
        return self.handle((await self._run(self._manager.retry_failed_job, job_id, delay=delay)).id)

    async def retry_failed_jobs(self, *, delay: float = 0.0, **conditions: Any) -> list[UUID]:
        """Give every failed job that meets the conditions of `get_jobs` fresh attempts; return their ids."""
        return await self._run(self._manager.retry_failed_jobs, delay=delay, **conditions)

    async def cancel_job(self, job_id: UUID | str) -> bool:
        """Do as `QueueManager.cancel_job`."""
        return await self._run(self._manager.cancel_job, job_id)

    async def cancel_jobs(self, **conditions: Any) -> list[UUID]:
        """Do as `QueueManager.cancel_jobs`."""
        return await self._run(self._manager.cancel_jobs, **conditions)

    async def update_job(
        self,
        job_id: UUID | str,
        *,
        queue: str | None = None,
        priority: int | str | None = None,
        run_at: datetime | str | float | None = None,
        delay: float | None = None,
        tags: Sequence[str] | None = None,
    ) -> JobRecord:
        """Change a job that waits and return it. The payload cannot be changed: cancel and push anew."""
        changes = {"queue": queue, "priority": priority, "run_at": run_at, "delay": delay, "tags": tags}
        return await self._run(partial(self._manager.update_job, job_id, **changes))  # type: ignore[arg-type]

    async def delete_job(self, job_id: UUID | str) -> None:
        """Remove a job that does not run, with its history. Raises `JobNotFound` or `InvalidTransition`."""
        await self._run(self._manager.delete_job, job_id)

    async def delete_jobs(self, **conditions: Any) -> int:
        """Remove every job that does not run and meets the conditions of `get_jobs`; return how many."""
        return await self._run(self._manager.delete_jobs, **conditions)

    async def flush(self, queue: str | None = None) -> int:
        """Remove every job that waits, in one queue or in all, and return how many; what runs and history stay."""
        return await self._run(self._manager.flush, queue)

    async def purge(
        self,
        *,
        older_than: float | timedelta | str | None = None,
        state: State | str | Sequence[State | str] | None = None,
        queue: str | None = None,
        keep: int | None = None,
    ) -> int:
        """Remove finished jobs for good, in small batches, and return how many; the statistics stay."""
        purge = self._manager.purge
        return await self._run(purge, older_than=older_than, state=state, queue=queue, keep=keep)

    async def pause_queue(self, queue: str, note: str | None = None) -> None:
        """Stop claims from a queue on every node, over restarts, until `resume_queue`."""
        await self._run(self._manager.pause_queue, queue, note)

    async def resume_queue(self, queue: str) -> None:
        """Allow claims from a queue again."""
        await self._run(self._manager.resume_queue, queue)

    # --- waiting ---------------------------------------------------------------------------------------------

    async def wait(
        self,
        job: Job | JobHandle | AsyncJobHandle | UUID | str,
        timeout: float | None = None,  # noqa: ASYNC109 -- as in a thread: it ends with WaitTimeout
    ) -> JobRecord:
        """Wait until a job has finished and return its record; raise `WaitTimeout` or `JobNotFound`."""
        return (await self.wait_for([job], timeout))[0]

    async def wait_for(
        self,
        jobs: Sequence[Job | JobHandle | AsyncJobHandle | UUID | str],
        timeout: float | None = None,  # noqa: ASYNC109 -- as above
        *,
        throw: bool = False,
    ) -> list[JobRecord]:
        """Wait until every job has finished and return their records in the same order.

        With ``throw`` the first job that did not complete raises `JobFailed`.
        """
        ids = [job.id if isinstance(job, (Job, JobHandle, AsyncJobHandle)) else parse_id(job) for job in jobs]
        watch = Watch((each.bytes for each in ids), timeout, self._clock)
        while watch.waiting:  # noqa: ASYNC110 -- another process finishes the job: there is nothing here to be told by
            await asyncio.sleep(watch.look(await self._run(self._states, watch)))
        return await self._run(self._manager.wait_for, ids, 0, throw=throw)

    def _states(self, watch: Watch) -> dict[bytes, State]:
        return self._manager.driver.states(watch.waiting)

    def on(self, event: str, listener: Listener) -> None:
        """Call ``listener`` with each event of this name that this process causes; ``*`` is every event."""
        self._manager.on(event, listener)
