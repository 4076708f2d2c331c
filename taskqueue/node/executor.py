"""One job, from sealed bytes to an outcome: a straight row of steps, with no database in sight."""

from __future__ import annotations

import marshal
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import CoroutineType, FrameType
from typing import Any

from taskqueue.clock import Clock
from taskqueue.desk import Reception
from taskqueue.drivers.values import BlockedBy, ClaimedJob
from taskqueue.errors import CannotOpen, ConfigurationError, PayloadError
from taskqueue.job import Job, Run
from taskqueue.node.handlers import (
    Awaiter,
    Kind,
    Kinds,
    TaskWatch,
    await_nothing,
    is_coroutine,
    refuse_coroutine,
)
from taskqueue.node.memory_cap import CAP
from taskqueue.node.outcome import COMPLETED, JobTimedOut, Outcome, decide, parked
from taskqueue.payload import Codec, Purpose
from taskqueue.registry import Registry
from taskqueue.states import Reason, Verb

_LONGEST_MESSAGE = 8_192
_LONGEST_TRACEBACK = 32_768
_AGAIN_AFTER = 0.001
_PLAIN, _ASYNC = Kind.PLAIN, Kind.ASYNC  # An enum's own attribute costs 30 nanoseconds more.
_held = threading.Event()
_SCALARS = (str, bytes, int, float, bool, type(None))


class Executor:
    """Runs claimed jobs, one after the other, in the calling thread (the main one, so that a timeout is real).

    Its steps serve workers that run several at a time as well. ``awaiter`` runs the hooks of plain handlers that are
    coroutines.
    """

    def __init__(self, registry: Registry, codec: Codec, clock: Clock, awaiter: Awaiter = await_nothing) -> None:
        self._registry = registry
        self._codec = codec
        self._clock = clock
        self._awaiter = awaiter
        self.kinds = Kinds()
        self.transact: Callable[[Job, ClaimedJob], Outcome] = self._refuse_transaction
        """Runs a transactional handler, and returns what came of it."""
        self.reception: Reception | None = None
        """Where handlers ask what they may ask while they run; coroutines ask at ``awaited``."""
        self.awaited: Reception | None = None

    def run(self, claimed: ClaimedJob) -> Outcome:
        """Run one job and return what came of it. Never raises, whatever the handler does."""
        job = self.begin(claimed)
        if isinstance(job, Outcome):
            return job
        kind = self.kinds[type(job)]
        if kind is not _PLAIN:
            return self._run_other(kind, job, claimed)
        try:
            return self.complete(job, claimed, self._handle(job, claimed))
        except BaseException as error:
            _drop_alarm()
            return self.fail(job, claimed, error)

    def begin(self, claimed: ClaimedJob) -> Job | Outcome:
        """Return the job, opened and built, or what came of it where it cannot be run. Never raises.

        Where the memory does not suffice for that, the attempt fails as it would in the handler.
        """
        cls = self._registry.find(claimed.job_class)
        if cls is None:
            return parked(BlockedBy.UNKNOWN_CLASS)
        if not self._codec.can_open(claimed.key_id):
            return parked(BlockedBy.UNKNOWN_KEY)
        try:
            payload = self._codec.open(claimed.payload, Purpose.PAYLOAD, claimed.id, claimed.job_class)
        except CannotOpen as error:
            return self._sealed(Outcome(Verb.FAIL, reason=Reason.UNDECRYPTABLE), error, claimed, trace=False)
        except BaseException as error:
            return self.refuse(claimed, error, again=isinstance(error, MemoryError))
        try:
            reception = self.awaited if self.kinds[cls] is _ASYNC else self.reception
            return _build(cls, claimed, payload, reception)
        except BaseException as error:
            return self.refuse(claimed, error, again=isinstance(error, MemoryError))

    def refuse(self, claimed: ClaimedJob, error: BaseException, *, again: bool = True) -> Outcome:
        """Return the outcome of an attempt that failed before or beside its handler, sealed.

        ``again``: whether another attempt may go better, as far as the class allows any after such an error.
        """
        if claimed.memory_limit is not None:
            error = CAP.lift_after(error)
        outcome = Outcome(Verb.FAIL, reason=Reason.ERROR)
        cls = self._registry.find(claimed.job_class)
        if cls is not None and again:
            with suppress(Exception):  # A row that was changed by hand.
                outcome = decide(error, cls, claimed, self._clock.jitter())
        return self._sealed(outcome, error, claimed)

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
        if result is not None and type(result) is CoroutineType:
            refuse_coroutine(job, result)
        return result

    # --- other kinds, other workers --------------------------------------------------------------------------

    def attempt(self, job: Job, claimed: ClaimedJob, timeout_ms: int | None = None) -> Outcome:
        """Run a plain handler whose hooks may be coroutines, and return what came of it; see `perform`."""
        try:
            return self.complete(job, claimed, self.perform(job, claimed, timeout_ms))
        except BaseException as error:
            if timeout_ms is not None:
                _drop_alarm()
            return self.fail(job, claimed, error)

    def perform(self, job: Job, claimed: ClaimedJob, timeout_ms: int | None = None) -> Any:
        """Run a plain handler and its hooks, and return the result to be stored; raises what the handler raises.

        Its time is watched by somebody else, unless ``timeout_ms`` says to have an alarm while ``handle`` runs; in a
        hook an alarm would be raised in the midst of the event loop.
        """
        payload = job.payload
        before = _remember(payload)
        self._finish_hook(job.before())
        if timeout_ms is not None:
            signal.setitimer(signal.ITIMER_REAL, timeout_ms / 1000)
        try:
            result = job.handle()
        finally:
            if timeout_ms is not None:
                _drop_alarm()
        self._finish_hook(job.after(result))
        return self._result_of(job, claimed, before, payload, result)

    async def attempt_awaited(self, job: Job, claimed: ClaimedJob) -> Outcome:
        """Run a handler that is a coroutine, in a task of its own, and return what came of it. Never raises.

        The task is cancelled when the job's time is over. Whatever the handler makes of that, it has timed out.
        """
        payload = job.payload
        before, result, failure = _remember(payload), None, None
        watch = TaskWatch(claimed.timeout_ms)
        try:
            await _finish_hook(job.before())
            result = await job.handle()
            await _finish_hook(job.after(result))
            await _await_replies(job)
        except BaseException as error:
            failure = error
        if await watch.ended_late():
            late, late.__cause__ = JobTimedOut(), failure
            failure = late
        if failure is None:
            try:
                return self.complete(job, claimed, self._result_of(job, claimed, before, payload, result))
            except BaseException as error:
                failure = error
        if claimed.memory_limit is not None:
            failure = CAP.lift_after(failure)
        try:
            await _finish_hook(job.on_failure(failure))
            await _await_replies(job)
        except BaseException as second:
            self._note_second(job, second)
        return self.judge(job, claimed, failure)

    def _result_of(self, job: Job, claimed: ClaimedJob, before: bytes | None, payload: Any, returned: Any) -> Any:
        """Return the result to be stored: what the handler returned, or else the payload that it changed."""
        if returned is None and (job.payload != payload if before is None else self._changed(job, claimed, before)):
            return job.payload
        if is_coroutine(returned):
            refuse_coroutine(job, returned)
        return returned

    def _run_other(self, kind: Kind, job: Job, claimed: ClaimedJob) -> Outcome:
        if kind is Kind.HOOKED:
            return self.attempt(job, claimed, claimed.timeout_ms)
        if kind is Kind.TRANSACTIONAL:
            return self.transact(job, claimed)
        outcome: Outcome = self._awaiter(self.attempt_awaited(job, claimed))
        return outcome

    def _refuse_transaction(self, job: Job, claimed: ClaimedJob) -> Outcome:
        return self.fail(job, claimed, ConfigurationError("a transactional handler runs in the worker of a node only"))

    def _finish_hook(self, made: Any) -> None:
        if is_coroutine(made):
            self._awaiter(made)

    def complete(self, job: Job, claimed: ClaimedJob, result: Any) -> Outcome:
        """Return the outcome of a handler that returned ``result``, sealed."""
        _close_desk(job)
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
        if claimed.memory_limit is not None:
            error = CAP.lift_after(error)
        try:
            self._finish_hook(job.on_failure(error))
        except BaseException as second:
            self._note_second(job, second)
        return self.judge(job, claimed, error)

    def _note_second(self, job: Job, error: BaseException) -> None:
        """Log that ``on_failure`` itself failed; it changes nothing."""
        # Its type alone: its message, and that of the failure before it, may hold what the payload holds.
        job.logger.error("on_failure of %s failed with %s", type(job).job_class, type(error).__name__)

    def judge(self, job: Job, claimed: ClaimedJob, error: BaseException) -> Outcome:
        """Return what follows from ``error``, sealed."""
        _close_desk(job)
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


def _close_desk(job: Job) -> None:
    """Send what the job has noted and not sent, if it has asked anything."""
    desk = job.__dict__.get("_desk")
    if desk is not None:
        desk.finish()


async def _await_replies(job: Job) -> None:
    """Wait for what a coroutine, or a plain hook beside one, has asked for and not awaited."""
    desk = job.__dict__.get("_desk")
    if desk is not None:
        await desk.settled()


def install_alarm() -> None:
    """Turn the end of a job's time into an exception in its handler. Call once, in the main thread."""
    signal.signal(signal.SIGALRM, _raise_timed_out)


def _raise_timed_out(_signal: int, _frame: FrameType | None) -> None:
    if _held.is_set():
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_AFTER)
        return
    raise JobTimedOut


@contextmanager
def alarm_held() -> Iterator[None]:
    """Put the alarm off for a moment in which an exception would tear something apart. It rings in the main thread."""
    if _held.is_set() or threading.current_thread() is not threading.main_thread():
        yield
        return
    _held.set()
    try:
        yield
    finally:
        _held.clear()


def _drop_alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


def _remember(payload: Any) -> bytes | None:
    """Return what tells, after a handler has run, whether it changed this payload."""
    return None if isinstance(payload, _SCALARS) else _snapshot(payload)


async def _finish_hook(made: Any) -> None:
    if is_coroutine(made):
        await made


def _build(cls: type[Job], claimed: ClaimedJob, payload: Any, reception: Reception | None) -> Job:
    """Make the job as it was pushed. ``__init__`` is for pushing and is not called again."""
    job = cls.__new__(cls)
    job.__dict__.update(
        _id=claimed.id,
        payload=payload,
        queue=claimed.queue,
        priority=-claimed.rank,
        _run=Run(claimed.attempt, claimed.max_attempts, claimed.lease, reception, claimed),
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
