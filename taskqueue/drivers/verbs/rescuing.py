"""What becomes of the jobs of a node that is dead, stopped or unknown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from taskqueue.drivers import tables
from taskqueue.drivers.statements import finishing, nodes
from taskqueue.drivers.values import CRASH_LIMIT, DELIVERY_CODES, Rescue
from taskqueue.drivers.verbs.releasing import release
from taskqueue.drivers.verbs.tally import Tally
from taskqueue.states import Delivery, Reason

_AT_MOST_ONCE = DELIVERY_CODES[Delivery.AT_MOST_ONCE]


def rescue(connection: Connection, node_id: int, limit: int, now: int) -> Rescue:
    """Take jobs from a node that does not live, and decide for each what becomes of it."""
    rows = connection.execute(nodes.JOBS_OF_NODE, {"node": node_id, "limit": limit}).all()
    if not rows:
        return Rescue()
    back: list[Any] = []
    gone: list[tuple[Any, Reason]] = []
    for row in rows:
        reason = _verdict(row)
        if reason is None:
            back.append(row)
        else:
            gone.append((row, reason))
    _note_attempts(connection, rows, now)
    _give_back(connection, back, now)
    _fail(connection, gone, now)
    return Rescue(pending=len(back), failed=len(gone))


def _verdict(row: Any) -> Reason | None:
    """Return the reason with which a job fails, or None where it becomes pending again."""
    if row.delivery == _AT_MOST_ONCE and row.start_recorded:
        return Reason.LOST
    if row.start_recorded and row.crashes + 1 >= CRASH_LIMIT:
        return Reason.CRASHED
    return None


def _note_attempts(connection: Connection, rows: Sequence[Any], now: int) -> None:
    values = [
        {
            "job": row.id,
            "held": row.lease,
            "reason": (_verdict(row) or (Reason.CRASHED if row.start_recorded else Reason.LOST)).value,
            "started_at": None,
            "finished_at": now,
            "error_type": None,
            "error": None,
            "key_id": None,
        }
        for row in rows
    ]
    connection.execute(finishing.NOTE_ATTEMPT, values)


def _give_back(connection: Connection, rows: Sequence[Any], now: int) -> None:
    values = [
        {
            "job": row.id,
            "held": row.lease,
            "to": tables.PENDING,
            "ready": now,
            "due": None,
            "given_back": 1,
            "crashed": int(bool(row.start_recorded)),
            "lost": int(not row.start_recorded),
            "blocker": 0,
        }
        for row in rows
    ]
    if values:
        connection.execute(finishing.HAND_BACK, values)


def _fail(connection: Connection, rows: Sequence[tuple[Any, Reason]], now: int) -> None:
    if not rows:
        return
    tally = Tally()
    values = []
    for row, reason in rows:
        tally.fail(row.queue, now)
        values.append(
            {
                "job": row.id,
                "held": row.lease,
                "state": tables.FAILED,
                "started_at": None,
                "finished_at": now,
                "run_us": 0,
                "reason": reason.value,
                "lease_raised": 1,
                "given_back": 0,
                "crashed": int(reason is Reason.CRASHED),
                "lost": int(reason is Reason.LOST),
            }
        )
    connection.execute(finishing.END, values)
    connection.execute(finishing.REMOVE, [{"job": each["job"], "held": each["held"]} for each in values])
    release(connection, {row.id: tables.FAILED for row, _ in rows}, now, tally)
    tally.store(connection)
