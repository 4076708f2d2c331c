"""What a node has done: counted, told to listeners, and logged. The code that decides calls it and formats nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from taskqueue.drivers.values import ClaimedJob, Ending, NewJob, Stale
from taskqueue.events import Event, EventName, Events
from taskqueue.node.settlement import Obituary
from taskqueue.states import Reason, State, Verb

_DELAYED = State.DELAYED.code
_logger = logging.getLogger("taskqueue.node")


@dataclass(slots=True)
class Counts:
    """How many jobs ended how, since the node started."""

    completed: int = 0
    failed: int = 0
    retried: int = 0
    crashed: int = 0
    parked: int = 0
    stale_writes: int = 0
    pushed: int = 0

    def describe(self) -> str:
        """Return what is worth saying, such as ``5 completed, 1 failed``."""
        named = {
            "completed": self.completed,
            "failed": self.failed,
            "retried": self.retried,
            "crashed": self.crashed,
            "parked": self.parked,
            "stale writes dropped": self.stale_writes,
            "pushed by jobs": self.pushed,
        }
        return ", ".join(f"{number} {name}" for name, number in named.items() if number or name == "completed")


class Tally:
    """Keeps the counts, emits the events, writes the log lines of a node's jobs."""

    def __init__(self, events: Events) -> None:
        self.counts = Counts()
        self._events = events

    def started(self, jobs: Sequence[ClaimedJob], pid: int) -> None:
        """Note that jobs were sent to a worker."""
        if self._events.wanted("processing"):
            for claimed in jobs:
                self._emit("processing", claimed, pid=pid)

    def ended(self, claimed: ClaimedJob, wire: tuple[Any, ...] | None) -> None:
        """Note how a job ended; ``wire`` is None for a completion."""
        if wire is None:
            self.counts.completed += 1
            if self._events.wanted("done"):
                self._emit("done", claimed)
            return
        verb, reason, retry_after, error_type = wire[:4]
        self._count(Verb(verb), Reason(reason) if reason else None, claimed, error_type, retry_after)

    def died(self, claimed: ClaimedJob, end: Ending, obituary: Obituary) -> None:
        """Note a job whose worker died under it."""
        self.counts.crashed += int(end.crashed)
        self.counts.retried += int(end.verb is Verb.RETRY)
        _logger.warning(
            "job %s (%s) lost its worker: %s", UUID(bytes=claimed.id), claimed.job_class, obituary.describe()
        )
        if end.verb is Verb.FAIL:
            self.counts.failed += 1
            self._emit("failed", claimed, detail=end.reason.value if end.reason else "")
        elif end.reason is Reason.TIMED_OUT:
            self._emit("timeout", claimed)

    def fenced(self, stale: Sequence[Stale | ClaimedJob]) -> None:
        """Note writes that changed nothing, because the jobs are held under another lease by now."""
        self.counts.stale_writes += len(stale)
        for each in stale:
            _logger.warning(
                "job %s is no longer ours (lease %d): its outcome was dropped", UUID(bytes=each.id), each.lease
            )

    def lost(self, run: tuple[bytes, int], what: str) -> None:
        """Note that a running job turned out to be held by another, when it wanted this written."""
        self.counts.stale_writes += 1
        job_id, lease = run
        _logger.warning("job %s is no longer ours (lease %d): its %s was dropped", UUID(bytes=job_id), lease, what)

    def pushed(self, row: NewJob) -> None:
        """Note a job that a running one has pushed."""
        self.counts.pushed += 1
        name: EventName = "postponed" if row.state == _DELAYED else "waiting"
        if self._events.wanted(name):
            self._events.emit(Event(name, UUID(bytes=row.id), row.job_class, row.queue))

    def worker_spawned(self, pid: int) -> None:
        """Note a new worker."""
        _logger.debug("worker %d is ready", pid)
        self._events.emit(Event("worker_spawn", pid=pid))

    def worker_gone(self, pid: int, why: str) -> None:
        """Note that a worker has ended."""
        _logger.debug("worker %d has ended: %s", pid, why)
        self._events.emit(Event("worker_kill", pid=pid, detail=why))

    def _count(
        self, verb: Verb, reason: Reason | None, claimed: ClaimedJob, error_type: str | None, retry_after: float
    ) -> None:
        about = (UUID(bytes=claimed.id), claimed.job_class)
        if verb is Verb.PARK:
            self.counts.parked += 1
            _logger.warning("job %s (%s) waits for a node that knows its class and key", *about)
            return
        if reason is Reason.TIMED_OUT:
            self._emit("timeout", claimed)
        if verb is Verb.RETRY:
            self.counts.retried += 1
            _logger.warning(
                "job %s (%s) failed with %s, attempt %d of %d; next in %.1f s",
                *about, error_type, claimed.attempt, claimed.max_attempts, retry_after,
            )  # fmt: skip
        elif verb is Verb.FAIL:
            self.counts.failed += 1
            _logger.error("job %s (%s) failed for good with %s", *about, error_type or reason)
            self._emit("failed", claimed, detail=reason.value if reason else "")

    def _emit(self, name: EventName, claimed: ClaimedJob, *, pid: int | None = None, detail: str = "") -> None:
        if self._events.wanted(name):
            job_id = UUID(bytes=claimed.id)
            self._events.emit(Event(name, job_id, claimed.job_class, claimed.queue, pid, detail))
