"""Statistics in the shape in which users get them, from what drivers count; nothing here reads a job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from taskqueue.drivers.values import QueueRow, RollupRow
from taskqueue.states import State


def queue_stats(rows: Iterable[QueueRow], now_us: int, queue: str | None = None) -> dict[str, dict[str, Any]]:
    """Return each queue's totals by name; a queue that was asked for and never held a job counts zero."""
    wanted = {row.queue: row for row in rows if queue is None or row.queue == queue}
    if queue is not None and queue not in wanted:
        wanted[queue] = QueueRow(queue, {})
    return {name: _one_queue(row, now_us) for name, row in wanted.items()}


def _one_queue(row: QueueRow, now_us: int) -> dict[str, Any]:
    waiting = row.oldest_ready_at
    return {
        "total_jobs": sum(row.counts.values()),
        "by_state": {state.value: row.counts.get(state, 0) for state in State},
        "paused": row.paused_at is not None,
        "oldest_wait": max(0.0, (now_us - waiting) / 1e6) if waiting is not None else None,
    }


def status_document(rows: Sequence[QueueRow]) -> dict[str, Any]:
    """Return what ``queue:status --json`` prints: counts by state for each queue, and their totals."""
    queues = {row.queue: {state.value: row.counts.get(state, 0) for state in _ORDER} for row in rows}
    totals = {state.value: sum(counts[state.value] for counts in queues.values()) for state in _ORDER}
    return {"queues": queues, "totals": totals}


_ORDER = (
    State.PENDING,
    State.DELAYED,
    State.BLOCKED,
    State.PROCESSING,
    State.COMPLETED,
    State.FAILED,
    State.CANCELLED,
)


def performance(rows: Sequence[RollupRow], timeframe: float) -> dict[str, Any]:
    """Return rates, success share, mean and longest run and wait in seconds, over all queues and by queue.

    Run and wait times are those of the completed jobs, as the rollups keep them.
    """
    names = sorted({row.queue for row in rows})
    by_queue = {name: _performance([row for row in rows if row.queue == name], timeframe) for name in names}
    return {"timeframe": timeframe, **_performance(rows, timeframe), "queues": by_queue}


def _performance(rows: Sequence[RollupRow], timeframe: float) -> dict[str, Any]:
    completed = sum(row.completed for row in rows)
    failed = sum(row.failed for row in rows)
    retried = sum(row.retried for row in rows)
    finished = completed + failed
    return {
        "completed": completed,
        "failed": failed,
        "retried": retried,
        "jobs_per_second": finished / timeframe,
        "success_rate": completed / finished if finished else None,
        "run_seconds_mean": sum(row.run_us for row in rows) / completed / 1e6 if completed else None,
        "run_seconds_most": max((row.run_us_most for row in rows), default=0) / 1e6,
        "wait_seconds_mean": sum(row.wait_us for row in rows) / completed / 1e6 if completed else None,
        "wait_seconds_most": max((row.wait_us_most for row in rows), default=0) / 1e6,
    }
