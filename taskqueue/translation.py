"""Between jobs as users know them and rows as drivers store them; sealing and opening happen here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from taskqueue.clock import from_us, to_us
from taskqueue.drivers.values import (
    DELIVERY_CODES,
    PARENT_FAILURE_CODES,
    AttemptRow,
    BlockedBy,
    JobFilter,
    JobRow,
    NewJob,
)
from taskqueue.errors import CannotOpen, UsageError
from taskqueue.flow.uniqueness import digest_of_key
from taskqueue.ids import parse_id
from taskqueue.job import Job
from taskqueue.job_options import parse_time
from taskqueue.payload import Codec, Purpose
from taskqueue.record import Attempt, ErrorDetails, JobRecord
from taskqueue.states import Delivery, OnConflict, Reason, State

_DELIVERIES = {code: delivery for delivery, code in DELIVERY_CODES.items()}
_NO_JOB = bytes(16)
"""The nil UUID, which no job has."""
_PENDING, _DELAYED = State.PENDING.code, State.DELAYED.code


class SealedJob(NamedTuple):
    """A job on its way to a driver, and what is to happen where its unique key is taken."""

    row: NewJob
    tags: tuple[str, ...]
    rule: OnConflict
    parents: tuple[bytes, ...]


def seal_job(job: Job, codec: Codec, salt: bytes, now_us: int) -> SealedJob:
    """Seal a job into all that a push hands to a driver; raises what `new_job` does."""
    row, tags = new_job(job, codec, salt, now_us)
    rule = OnConflict.ERROR if row.unique_key is None else job.options.on_conflict
    return SealedJob(row, tags, rule, parents_of(job))


def new_job(job: Job, codec: Codec, salt: bytes, now_us: int) -> tuple[NewJob, tuple[str, ...]]:
    """Seal a job into the row to be inserted, and return it with its tags.

    Raises `PayloadError` or `InvalidOption`: everything that can be refused is refused here, before any write.
    """
    options = job.options
    due_at = options.due_at()
    run_at = now_us + round(options.delay * 1e6) if options.delay else (to_us(due_at) if due_at else None)
    waits = run_at is not None and run_at > now_us
    job_id = job.id.bytes
    sealed = codec.seal(job.payload, Purpose.PAYLOAD, job_id, job.job_class, compress=job.compress)
    timeout, tags = options.timeout, options.tags
    row = NewJob(
        job_id,
        options.queue,
        -options.priority,
        job.job_class,
        _DELAYED if waits else _PENDING,
        now_us,
        run_at if waits and run_at is not None else now_us,
        run_at,
        now_us + round(options.expires_in * 1e6) if options.expires_in is not None else None,
        options.max_attempts,
        DELIVERY_CODES[options.delivery],
        round(timeout * 1000) if timeout is not None else None,
        options.memory_limit,
        int(options.force_spawn),
        options.stored_backoff(),
        PARENT_FAILURE_CODES[options.on_parent_failure],
        json.dumps(tags, ensure_ascii=False) if tags else None,
        options.category,
        codec.active_key_id,
        digest_of_key(options.unique_key, salt) if options.unique_key is not None else None,
        sealed,
    )
    return row, tags


def parents_of(job: Job) -> tuple[bytes, ...]:
    """Return the ids of the jobs that a job depends on."""
    return tuple(each.bytes for each in job.options.dependencies) if job.dependencies else ()


def job_record(
    row: JobRow, attempts: Sequence[AttemptRow], codec: Codec, dependencies: Sequence[bytes] = ()
) -> JobRecord:
    """Return a stored job as users read it; its payload and result are opened when they are asked for."""
    return JobRecord(
        id=UUID(bytes=row.id),
        job_class=row.job_class,
        queue=row.queue,
        priority=-row.rank,
        state=row.state,
        reason=row.reason,
        tags=tuple(json.loads(row.tags)) if row.tags else (),
        category=row.category,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        lease=row.lease,
        crashes=row.crashes,
        losses=row.losses,
        delivery=_DELIVERIES.get(row.delivery, Delivery.AT_LEAST_ONCE),
        timeout=row.timeout_ms / 1000 if row.timeout_ms is not None else None,
        memory_limit=row.memory_limit,
        force_spawn=bool(row.force_spawn),
        created_at=from_us(row.created_at),
        ready_at=from_us(row.ready_at),
        run_at=_time(row.run_at),
        expires_at=_time(row.expires_at),
        started_at=_time(row.started_at),
        finished_at=_time(row.finished_at),
        duration=row.run_us / 1e6 if row.run_us is not None and row.finished_at is not None else None,
        node_id=row.node_id,
        blocked_by=row.blocked_by.name.lower() if row.blocked_by is not BlockedBy.NOTHING else None,
        key_id=row.key_id,
        attempts=tuple(_attempt(each, row.job_class, codec) for each in attempts),
        dependencies=tuple(UUID(bytes=each) for each in dependencies),
        _open=partial(_open_part, codec, row),
    )


def job_filter(
    *,
    ids: Iterable[str | UUID] | None = None,
    state: State | str | Iterable[State | str] | None = None,
    queue: str | Iterable[str] | None = None,
    job_class: str | None = None,
    tag: str | None = None,
    category: str | None = None,
    reason: Reason | str | None = None,
    since: datetime | str | float | None = None,
    until: datetime | str | float | None = None,
    before: str | UUID | None = None,
) -> JobFilter:
    """Return the filter that these conditions describe; raises `UsageError` for an unknown state or a wrong time.

    A choice that is given and empty chooses nothing: a caller's empty list must never come to mean every job.
    """
    wanted = tuple(parse_id(each).bytes for each in _several(ids))
    states = tuple(_member(State, each, "state") for each in _several(state))
    queues = tuple(_several(queue))
    chosen = ((ids, wanted), (state, states), (queue, queues))
    nothing = any(given is not None and not choices for given, choices in chosen)
    return JobFilter(
        ids=(_NO_JOB,) if nothing else wanted,
        states=states,
        queues=queues,
        job_class=job_class,
        tag=tag,
        category=category,
        reason=_member(Reason, reason, "reason") if reason is not None else None,
        since=_moment(since, "since"),
        until=_moment(until, "until"),
        before=parse_id(before).bytes if before is not None else None,
    )


def filter_of(conditions: Mapping[str, Any]) -> JobFilter:
    """Do as `job_filter` for conditions that a caller gave; an unknown one raises `UsageError` too."""
    try:
        return job_filter(**conditions)
    except TypeError as error:
        raise UsageError(f"unknown condition: {error}".replace("job_filter() got an ", "")) from None


def checked(name: str, parse: Any, value: Any) -> Any:
    """Return what ``parse`` makes of a value, None for none; raise `UsageError` where it does not fit."""
    if value is None:
        return None
    try:
        return parse(value)
    except ValueError as error:
        raise UsageError(f"{name} must be {error}, got {str(value)[:80]!r}") from None


def _attempt(row: AttemptRow, job_class: str, codec: Codec) -> Attempt:
    return Attempt(
        attempt=row.attempt,
        lease=row.lease,
        node_id=row.node_id,
        reason=row.reason,
        started_at=_time(row.started_at),
        finished_at=from_us(row.finished_at),
        error=_error(row, job_class, codec),
    )


def _error(row: AttemptRow, job_class: str, codec: Codec) -> ErrorDetails | None:
    if row.error_type is None:
        return None
    if row.error is None:
        return ErrorDetails(row.error_type, "")
    try:
        details = codec.open(row.error, Purpose.ERROR, row.job_id, job_class)
    except CannotOpen as error:
        return ErrorDetails(row.error_type, str(error))
    return ErrorDetails(row.error_type, details["message"], details["traceback"])


def _open_part(codec: Codec, row: JobRow, part: str) -> Any:
    blob, purpose = {
        "payload": (row.payload, Purpose.PAYLOAD),
        "result": (row.result, Purpose.RESULT),
        "progress": (row.progress, Purpose.PROGRESS),
    }[part]
    return codec.open(blob, purpose, row.id, row.job_class) if blob is not None else None


def _time(us: int | None) -> datetime | None:
    return from_us(us) if us is not None else None


def _several(value: Any) -> Iterable[Any]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _member(kind: Any, value: Any, what: str) -> Any:
    try:
        return kind(str(value).lower())
    except ValueError:
        raise UsageError(f"{value!r} is no {what}: expected one of {', '.join(kind)}") from None


def _moment(value: Any, name: str) -> int | None:
    if value is None:
        return None
    try:
        return to_us(parse_time(value))
    except ValueError as error:
        raise UsageError(f"{name} must be {error}, got {str(value)[:80]!r}") from None
