"""How jobs are shown: the columns of listings, the facts of one job, and their JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from taskqueue.errors import CannotOpen
from taskqueue.quantities import format_size
from taskqueue.record import Attempt, ErrorDetails, JobRecord, Progress, iso
from taskqueue.states import State

from .output import counted, note, write, write_json
from .tables import Column, write_table

STATE_STYLES = {
    State.COMPLETED.value: "green",
    State.FAILED.value: "red",
    State.PROCESSING.value: "cyan",
    State.DELAYED.value: "yellow",
    State.BLOCKED.value: "yellow",
    State.CANCELLED.value: "dim",
}

_SHOWN = 3
_ID = Column("id")
_CLASS = Column("class", folds=True)
_QUEUE = Column("queue", folds=True)


def write_jobs(records: Sequence[JobRecord], limit: int, *, as_json: bool) -> None:
    """Write a listing; ``records`` holds one more than ``limit`` where there are more."""
    _say_more(records, limit)
    shown = records[:limit]
    if as_json:
        write_json({"jobs": [record.to_json() for record in shown]})
    elif not shown:
        write("No jobs.")
    else:
        columns = [
            _ID,
            _CLASS,
            _QUEUE,
            Column("state", styles=STATE_STYLES),
            Column("attempt", spare=True),
            Column("pushed"),
        ]
        write_table(columns, [_row(record) for record in shown])


def write_failures(records: Sequence[JobRecord], limit: int, *, as_json: bool) -> None:
    """Write a listing of failed jobs with why they failed."""
    _say_more(records, limit)
    shown = records[:limit]
    if as_json:
        write_json({"jobs": [record.to_json() | {"error": _error(record.error, trace=False)} for record in shown]})
    elif not shown:
        write("No failed jobs.")
    else:
        columns = [_ID, _CLASS, _QUEUE, Column("attempts", spare=True), Column("finished"), Column("error", folds=True)]
        write_table(columns, [_failure(record) for record in shown])


def job_document(record: JobRecord) -> dict[str, Any]:
    """Return everything of a job but its payload and result."""
    attempts = [_attempt(each) for each in record.attempts]
    return record.to_json() | {"lease": record.lease, "progress": _progress(record), "attempts": attempts}


def _progress(record: JobRecord) -> dict[str, Any] | None:
    said = _said(record)
    return {"percent": said.percent, "message": said.message} if said is not None else None


def _said(record: JobRecord) -> Progress | None:
    """Return how far a job has come; None also where no key at hand opens it: the other facts are shown anyway."""
    with contextlib.suppress(CannotOpen):
        return record.progress
    return None


def job_facts(record: JobRecord) -> dict[str, Any]:
    """Return what a person is shown of a job: what is not set is left out."""
    facts = {
        "id": record.id,
        "class": record.job_class,
        "queue": record.queue,
        "priority": record.priority,
        "state": f"{record.state} ({record.reason})" if record.reason else record.state.value,
        "blocked by": record.blocked_by,
        "waits for": _first_of(record.dependencies),
        "tags": ", ".join(record.tags),
        "category": record.category,
        "attempt": _attempts(record),
        "progress": str(_said(record) or ""),
        "crashes": record.crashes or None,
        "losses": record.losses or None,
        "lease": record.lease,
        "delivery": record.delivery,
        "timeout": f"{record.timeout:g} s" if record.timeout is not None else None,
        "memory limit": format_size(record.memory_limit) if record.memory_limit is not None else None,
        "worker": "one of its own" if record.force_spawn else None,
        "pushed": record.created_at,
        "ready": record.ready_at,
        "due": record.run_at,
        "expires": record.expires_at,
        "started": record.started_at,
        "finished": record.finished_at,
        "ran for": f"{record.duration:.3f} s" if record.duration is not None else None,
        "node": record.node_id,
        "key": record.key_id,
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _first_of(ids: Sequence[UUID]) -> str:
    """Return the first few of ids that may be a thousand."""
    more = f", and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    return ", ".join(str(each) for each in ids[:_SHOWN]) + more


def error_line(record: JobRecord) -> str:
    """Return why a job failed in one line: its last error, or the reason where a worker could leave no error."""
    if record.error is not None:
        return str(record.error)
    return record.reason.value if record.reason is not None else ""


def _row(record: JobRecord) -> list[Any]:
    return [record.id, record.job_class, record.queue, record.state.value, _attempts(record), record.created_at]


def _failure(record: JobRecord) -> list[Any]:
    return [
        record.id, record.job_class, record.queue, _attempts(record), record.finished_at, error_line(record)
    ]  # fmt: skip


def _attempts(record: JobRecord) -> str:
    return f"{record.attempt}/{record.max_attempts}"


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "lease": attempt.lease,
        "node_id": attempt.node_id,
        "reason": attempt.reason,
        "started_at": iso(attempt.started_at),
        "finished_at": iso(attempt.finished_at),
        "error": _error(attempt.error, trace=True),
    }


def _error(error: ErrorDetails | None, *, trace: bool) -> dict[str, str] | None:
    if error is None:
        return None
    shown = {"type": error.type, "message": error.message}
    return shown | {"traceback": error.traceback} if trace else shown


def _say_more(records: Sequence[JobRecord], limit: int) -> None:
    if len(records) > limit:
        note(f"these are the newest {counted(limit, 'job')}; --limit shows more")
