"""From the rows of a result to the values of the seam."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from taskqueue.drivers.statements.reading import FIELDS
from taskqueue.drivers.values import AttemptRow, BlockedBy, JobRow, QueueRow
from taskqueue.states import Reason, State, state_of

_STATE = FIELDS.index("state")
_REASON = FIELDS.index("reason")
_BLOCKED_BY = FIELDS.index("blocked_by")


def job_row(row: Sequence[Any]) -> JobRow:
    """Return a job from a row with the columns of a `JobRow`, in order."""
    values = list(row)
    values[_STATE] = state_of(values[_STATE])
    values[_REASON] = Reason(values[_REASON]) if values[_REASON] is not None else None
    values[_BLOCKED_BY] = BlockedBy(values[_BLOCKED_BY] or 0)
    return JobRow(*values)


def attempts_by_job(rows: Iterable[Sequence[Any]]) -> dict[bytes, list[AttemptRow]]:
    """Return attempts by job, in the order of the rows."""
    found: defaultdict[bytes, list[AttemptRow]] = defaultdict(list)
    for row in rows:
        found[row[0]].append(AttemptRow(*row))
    return dict(found)


def queue_rows(rows: Iterable[Sequence[Any]]) -> list[QueueRow]:
    """Return the queues, by name, from rows of (queue, state, jobs, oldest, paused_at, note)."""
    counts: dict[str, dict[State, int]] = {}
    others: dict[str, dict[str, Any]] = {}
    for queue, state, jobs, oldest, paused_at, note in rows:
        counted = counts.setdefault(queue, dict.fromkeys(State, 0))
        other = others.setdefault(queue, {})
        if state >= 0:
            counted[state_of(state)] += int(jobs)
        for name, value in (("oldest_ready_at", oldest), ("paused_at", paused_at), ("note", note)):
            if value is not None:
                other[name] = value
    return [QueueRow(queue=queue, counts=counts[queue], **others[queue]) for queue in sorted(counts)]
