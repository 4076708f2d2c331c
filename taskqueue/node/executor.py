"""One job, from sealed bytes to an outcome: a straight row of steps, with no database in sight."""

from __future__ import annotations

import marshal
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

from taskqueue.clock import Clock
from taskqueue.drivers.values import BlockedBy, ClaimedJob
from taskqueue.errors import CannotOpen, PayloadError
from taskqueue.job import Job, Run
from taskqueue.node.outcome import COMPLETED, JobTimedOut, Outcome, decide, parked
from taskqueue.payload import Codec, Purpose
from taskqueue.registry import Registry
from taskqueue.states import Reason, Verb

_LONGEST_MESSAGE = 8_192
_LONGEST_TRACEBACK = 32_768
_AGAIN_AFTER = 0.001
_held = threading.Event()
_SCALARS = (str, bytes, int, float, bool, type(None))


class Executor:
    """Runs claimed jobs, one after the other, in the calling thread (the main one, so that a timeout is real)."""

    def __init__(self, registry: Registry, codec: Codec, clock: Clock) -> None:
        self._registry = registry
        self._codec = codec
        self._clock = clock

    def run(self, claimed: ClaimedJob) -> Outcome:
        """Run one job and return what came of it. Never raises, whatever the handler does."""
        job = self.begin(claimed)
        if isinstance(job, Outcome):
            return job
        try:
            return self.complete(job, claimed, self._handle(job, claimed))
        except BaseException as error:
            _drop_alarm()
            return self.fail(job, claimed, error)

    def begin(self, claimed: ClaimedJob) -> Job | Outcome:
        """Return the job, opened and built, or what came of it where it cannot be run."""
        cls = self._registry.find(claimed.job_class)
        if cls is None:
            return parked(BlockedBy.UNKNOWN_CLASS)
        if not self._codec.can_open(claimed.key_id):
            return parked(BlockedBy.UNKNOWN_KEY)
        try:
            payload = self._codec.open(claimed.payload, Purpose.PAYLOAD, claimed.id, claimed.job_class)
        except CannotOpen as error:
            return self._sealed(Outcome(Verb.FAIL, reason=Reason.UNDECRYPTABLE), error, claimed, trace=False)
        try:
            return _build(cls, claimed, payload)
        except Exception as error:
            return self._sealed(Outcome(Verb.FAIL, reason=Reason.ERROR), error, claimed)

    def _handle(self, job: Job, claimed: ClaimedJob) -> Any:
        """Run the handler and its hooks, and return the result to be stored."""
        timeout_ms = claimed.timeout_ms
        payload = job.payload
        before = None if isinstance(payload, _SCALARS) else _snapshot(payload)
        if timeout_ms is not None:
            signal.setitimer(signal.ITIMER_REAL, timeout_ms / 1000)
        try:
            job.before()
            result = job.handle()
            job.after(result)
        finally:
            if timeout_ms is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
        if result is None and (job.payload != payload if before is None else self._changed(job, claimed, before)):
            return job.payload
        return result

    def complete(self, job: Job, claimed: ClaimedJob, result: Any) -> Outcome:
        """Return the outcome of a handler that returned ``result``, sealed."""
        if result is None:
            return COMPLETED
        try:
            sealed = self._codec.seal(
                result, Purpose.RESULT, claimed.id, claimed.job_class, compress=type(job).compress
            )
        except PayloadError as error:
            # The work is done; to try again would do it twice. The job fails, and says what could not be stored.
            return self._sealed(Outcome(Verb.FAIL, reason=Reason.ERROR), error, claimed, trace=False)
        return Outcome(result=sealed)

    def fail(self, job: Job, claimed: ClaimedJob, error: BaseException) -> Outcome:
        """Return the outcome of a handler that raised ``error``, sealed, after its ``on_failure`` hook."""
        try:
            job.on_failure(error)
        except BaseException as second:
            # Its type alone: its message, and that of the failure before it, may hold what the payload holds.
            job.logger.error("on_failure of %s failed with %s", claimed.job_class, type(second).__name__)  # noqa: TRY400
        try:
            outcome = decide(error, type(job), claimed, self._clock.jitter())
        except Exception:  # A row that was changed by hand: nothing in it may end the worker.
            outcome = Outcome(Verb.FAIL, reason=Reason.ERROR)
        return self._sealed(outcome, error, claimed)

    def _sealed(self, outcome: Outcome, error: BaseException, claimed: ClaimedJob, *, trace: bool = True) -> Outcome:
        """Add the error to an outcome: its type in clear, its message and traceback sealed."""
        details = {
            "type": type(error).__name__,
            "message": _message(error),
            "traceback": _trace(error) if trace else "",
        }
        sealed = self._codec.seal(details, Purpose.ERROR, claimed.id, claimed.job_class)
        return replace(outcome, error_type=type(error).__name__[:255], error=sealed)

    def _changed(self, job: Job, claimed: ClaimedJob, before: bytes) -> bool:
        """Say whether the handler changed its payload; a differing snapshot is checked against the stored one."""
        if before and _snapshot(job.payload) == before:
            return False
        stored = self._codec.open(claimed.payload, Purpose.PAYLOAD, claimed.id, claimed.job_class)
        return bool(stored != job.payload)


def install_alarm() -> None:
    """Turn the end of a job's time into an exception in its handler. Call once, in the main thread."""
    signal.signal(signal.SIGALRM, _raise_timed_out)


def _raise_timed_out(_signal: int, _frame: FrameType | None) -> None:
    if _held.is_set():
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_AFTER)
        return
    raise JobTimedOut("the job's timeout is over")


@contextmanager
def alarm_held() -> Iterator[None]:
    """Put the alarm off for a moment in which an exception would tear something apart. In the main thread only."""
    _held.set()
    try:
        yield
    finally:
        _held.clear()


def _drop_alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


def _build(cls: type[Job], claimed: ClaimedJob, payload: Any) -> Job:
    """Make the job as it was pushed. ``__init__`` is for pushing and is not called again."""
    job = cls.__new__(cls)
    job.__dict__.update(
        _id=claimed.id,
        payload=payload,
        queue=claimed.queue,
        priority=-claimed.rank,
        _run=Run(claimed.attempt, claimed.max_attempts, claimed.lease),
    )
    return job


def _snapshot(payload: Any) -> bytes:
    # 0.4 microseconds for a small dict, where sealing it again would cost 4. Empty: not a plain value, compare in full.
    try:
        return marshal.dumps(payload, 2)
    except ValueError:
        return b""


def _message(error: BaseException) -> str:
    try:
        return str(error)[:_LONGEST_MESSAGE]
    except BaseException:
        return "(the exception's text could not be made)"


def _trace(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
    except BaseException:  # An exception's own attributes may raise while it is being printed.
        lines = traceback.format_tb(error.__traceback__)
    return "".join(lines)[-_LONGEST_TRACEBACK:]
