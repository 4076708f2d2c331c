"""A worker's desks: what its handlers ask is answered here, or by the node at the other end of the connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from taskqueue import errors
from taskqueue.clock import Clock
from taskqueue.desk import LONGEST_MESSAGE
from taskqueue.drivers.values import ClaimedJob
from taskqueue.errors import JobLost, TaskQueueError, UsageError
from taskqueue.job import Job
from taskqueue.node.post import CHECKPOINT, DONE, NOT_HELD, PROGRESS, PUSH, Post
from taskqueue.payload import Codec, Purpose
from taskqueue.translation import seal_job
from taskqueue.worker_hooks import WorkerContext

PROGRESS_EVERY: Final = 0.25
"""Seconds between two progress values of a job that leave the worker."""
LOOK_EVERY: Final = 0.001
"""Seconds between two looks at the connection that `should_stop` takes; in between it costs 0.3 microseconds."""


class WorkerReception:
    """Opens the desks of one worker."""

    def __init__(self, post: Post, codec: Codec, salt: bytes, clock: Clock, context: WorkerContext) -> None:
        self.post = post
        self.codec = codec
        self.salt = salt
        self.clock = clock
        self.context = context

    def open(self, claimed: ClaimedJob) -> WorkerDesk:
        """Return a desk for the run of a claimed job."""
        return WorkerDesk(self, claimed)


class WorkerDesk:
    """Answers for one run, in its own thread, which waits for what has to be stored."""

    def __init__(self, reception: WorkerReception, claimed: ClaimedJob) -> None:
        self._office = reception
        self._claimed = claimed
        self._run = (claimed.id, claimed.lease)
        self._stored = claimed.checkpoint
        self._unsent: tuple[float, str | None] | None = None
        self._due = self._look_at = 0.0

    # --- asked by the job ------------------------------------------------------------------------------------

    def progress(self, percent: float, message: str | None = None) -> None:
        """Note how far the job has come; sent at most four times a second, and the last value at the end."""
        self._refuse_if_lost()
        self._unsent = (_percent(percent), _short(message))
        self._send_progress()

    def checkpoint(self, state: Any) -> Any:
        """Store ``state`` durably, sealed."""
        self._refuse_if_lost()
        sealed = self._seal(state, Purpose.CHECKPOINT)
        return self._request(lambda _: self._keep(sealed), CHECKPOINT, sealed)

    def state(self) -> Any:
        """Open what the last checkpoint stored, anew each time: what is changed in it is not stored by that."""
        if self._stored is None:
            return None
        claimed = self._claimed
        return self._office.codec.open(self._stored, Purpose.CHECKPOINT, claimed.id, claimed.job_class)

    def should_stop(self) -> bool:
        """Say whether the job had better come to an end."""
        now = self._office.clock.monotonic()
        post = self._office.post
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY
            try:
                post.look()
            except EOFError:
                return True
            self._send_progress()
        return self._run in post.stops or self._run in post.lost

    def push(self, job: Job, options: dict[str, Any]) -> Any:
        """Store another job in one transaction with the proof that this run holds its own."""
        self._refuse_if_lost()
        if not isinstance(job, Job):
            raise UsageError(
                f"push takes a job, got {type(job).__name__}; of a function with @task, .job(...) makes one"
            )
        office = self._office
        sealed = seal_job(
            job.configure(**options) if options else job, office.codec, office.salt, office.clock.now_us()
        )
        row = tuple(sealed.row)
        return self._request(
            lambda stands: UUID(bytes=stands), PUSH, row, sealed.tags, sealed.parents, sealed.rule.value
        )

    def finish(self) -> None:
        """Send the last progress value, ahead of the outcome."""
        self._send_progress(at_once=True)

    # --- inside ----------------------------------------------------------------------------------------------

    def _request(self, take: Callable[[Any], Any], kind: str, *fields: Any) -> Any:
        """Send a request of this run, and return what ``take`` makes of the value in its reply."""
        try:
            return self.settle(take, self._office.post.ask(kind, *self._run, *fields))
        except EOFError:
            raise self._lost() from None

    def settle(self, take: Callable[[Any], Any], reply: tuple[Any, ...]) -> Any:
        """Return what ``take`` makes of the value in a reply, or raise what the reply says."""
        if reply[0] == DONE:
            return take(reply[1])
        if reply[0] == NOT_HELD:
            self._office.post.lose(self._run)
            raise self._lost()
        raise _error(*reply[1:])

    def _keep(self, sealed: bytes) -> None:
        self._stored = sealed

    def _send_progress(self, *, at_once: bool = False) -> None:
        if self._unsent is None:
            return
        now = self._office.clock.monotonic()
        if at_once or now >= self._due:
            percent, message = self._unsent
            self._due, self._unsent = now + PROGRESS_EVERY, None
            sealed = self._seal({"percent": percent, "message": message}, Purpose.PROGRESS)
            self._office.post.tell(PROGRESS, *self._run, sealed)

    def _seal(self, value: Any, purpose: Purpose) -> bytes:
        claimed = self._claimed
        return self._office.codec.seal(value, purpose, claimed.id, claimed.job_class)

    def _refuse_if_lost(self) -> None:
        if self._run in self._office.post.lost:
            raise self._lost()

    def _lost(self) -> JobLost:
        job_id, lease = self._run
        return JobLost(
            f"job {UUID(bytes=job_id)} is not held under lease {lease} any more, so nothing was stored: another worker"
            " has it or will have it; return from the handler, what comes of this run is dropped"
        )


def _percent(value: float) -> float:
    try:
        percent = -1.0 if isinstance(value, (str, bytes, bool)) else float(value)
    except (TypeError, ValueError, OverflowError):
        percent = -1.0
    if not 0 <= percent <= 100:  # So it is for nan.
        raise UsageError(f"progress takes a number from 0 to 100, got {type(value).__name__} {str(value)[:20]}")
    return percent


def _short(message: str | None) -> str | None:
    """Return a message cut to its longest, with nothing in it that could not be stored."""
    if message is None:
        return None
    if not isinstance(message, str):
        raise UsageError(f"the message of a progress is a text, got {type(message).__name__}")
    return message[:LONGEST_MESSAGE].encode("utf-8", "replace").decode("utf-8")


def _error(name: str, text: str) -> TaskQueueError:
    """Return an error of ours by its name, as the driver raised it at the other end."""
    kind = getattr(errors, name, None)
    known = isinstance(kind, type) and issubclass(kind, TaskQueueError)
    error: TaskQueueError = kind(text) if known and kind is not None else TaskQueueError(text)
    return error
