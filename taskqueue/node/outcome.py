"""What a run ended as: a value first, a write to the database later and elsewhere."""

from __future__ import annotations

from asyncio import CancelledError
from dataclasses import dataclass
from typing import Any

from taskqueue.backoff import parse_backoff
from taskqueue.drivers.values import DELIVERY_CODES, BlockedBy, ClaimedJob, Ending
from taskqueue.job import Job
from taskqueue.states import Delivery, Reason, Verb

AT_MOST_ONCE = DELIVERY_CODES[Delivery.AT_MOST_ONCE]


class JobTimedOut(BaseException):
    """Raised in a handler whose time is up. Not an `Exception`, so that ``except Exception`` does not swallow it."""

    def __init__(self, text: str = "the job's timeout is over") -> None:
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. ``result`` and ``error`` are sealed; ``retry_after`` is in seconds."""

    verb: Verb = Verb.COMPLETE
    result: bytes | None = None
    reason: Reason | None = None
    retry_after: float = 0.0
    error_type: str | None = None
    error: bytes | None = None
    blocked_by: BlockedBy = BlockedBy.NOTHING
    settled: str = ""
    """Where nothing is left to be written, the word for why; ``verb`` then says nothing."""

    def to_wire(self) -> tuple[Any, ...]:
        """Return plain values, in which an outcome that is not a completion travels from the worker."""
        if self.settled:
            return (self.settled,)
        reason = self.reason.value if self.reason else None
        return (self.verb.value, reason, self.retry_after, self.error_type, self.error, int(self.blocked_by))

    @classmethod
    def from_wire(cls, wire: tuple[Any, ...]) -> Outcome:
        """Read what `to_wire` wrote."""
        verb, reason, retry_after, error_type, error, blocked_by = wire
        return cls(
            Verb(verb), None, Reason(reason) if reason else None, retry_after, error_type, error, BlockedBy(blocked_by)
        )


COMPLETED = Outcome()
"""The outcome of a handler that returned nothing."""

WRITTEN = Outcome(Verb.RELEASE, settled="written")
"""The outcome of a transactional handler: its job's completion was committed together with what it did."""

LOST = Outcome(Verb.RELEASE, settled="lost")
"""The outcome of one whose job was held under another lease by then: what it did was rolled back."""


def parked(blocked_by: BlockedBy) -> Outcome:
    """Return the outcome of a job that this node cannot run but another may."""
    return Outcome(Verb.PARK, blocked_by=blocked_by)


def decide(error: BaseException, cls: type[Job], claimed: ClaimedJob, jitter: float) -> Outcome:
    """Return what follows from an exception: another attempt after a backoff, or the end. The error is sealed later.

    ``give_up_on`` wins over ``retry_on``; a timeout counts as an attempt whatever they say; at-most-once never retries.
    A `CancelledError` that leaves a handler is told by nobody but what the handler awaited: an `Exception` like others.
    """
    timed_out = isinstance(error, JobTimedOut)
    reason = Reason.TIMED_OUT if timed_out else Reason.ERROR
    listed = isinstance(error, cls.retry_on) or (isinstance(error, CancelledError) and Exception in cls.retry_on)
    wanted = timed_out or (listed and not isinstance(error, cls.give_up_on))
    return retry_or_fail(claimed, reason, jitter, wanted=wanted)


def retry_or_fail(claimed: ClaimedJob, reason: Reason, jitter: float, *, wanted: bool = True) -> Outcome:
    """Return a retry while attempts are left and one is wanted, else a failure with ``reason``."""
    if not wanted or claimed.attempt >= claimed.max_attempts or claimed.delivery == AT_MOST_ONCE:
        return Outcome(Verb.FAIL, reason=reason)
    delay = parse_backoff(claimed.backoff).delay(claimed.attempt, jitter)
    return Outcome(Verb.RETRY, reason=reason, retry_after=delay)


def ending(
    claimed: ClaimedJob, outcome: Outcome, finished_at: int, *, run_us: int = 0, wait_us: int = 0, key_id: str = ""
) -> Ending:
    """Return the write that an outcome asks for; ``key_id`` names the key that sealed its error."""
    spent = outcome.verb in (Verb.RETRY, Verb.FAIL)
    run_at = finished_at + round(outcome.retry_after * 1e6) if outcome.retry_after > 0 else None
    return Ending(
        claimed.id,
        claimed.lease,
        claimed.queue,
        outcome.verb,
        finished_at,
        run_us,
        wait_us,
        reason=outcome.reason,
        run_at=run_at,
        spent=spent,
        error_type=outcome.error_type,
        error=outcome.error,
        key_id=key_id if outcome.error is not None else None,
        blocked_by=outcome.blocked_by,
    )
