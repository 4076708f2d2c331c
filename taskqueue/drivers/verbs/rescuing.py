"""What becomes of the jobs of a node that is dead, stopped or unknown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from taskqueue.drivers import tables
from taskqueue.drivers.statements import finishing, nodes
from taskqueue.drivers.values import CRASH_LIMIT, CRASHED_AGAIN_DELAY, DELIVERY_CODES, STRICT_AT, Rescue
from taskqueue.drivers.verbs.releasing import release
from taskqueue.drivers.verbs.tally import Tally
from taskqueue.states import Delivery, Reason

MOST_STARTED = 10_000
"""More than the workers that a node can have, each with at most one job whose start is on record before it begins."""

_AT_MOST_ONCE = DELIVERY_CODES[Delivery.AT_MOST_ONCE]


class _Judge:
    """Decides who is charged for the death of a node: the one suspect whose start was on record, where there is one.

    Of several nobody knows which it was. They are charged nothing but the loss, after which they run one at a time on
    a node (`STRICT_AT`), so that of two deaths at most one is not charged. Such a strict one, of which there is at most
    one on a node, is charged whoever else was started beside it.
    """

    def __init__(self, suspicions: Sequence[int]) -> None:
        strict = [each for each in suspicions if each >= STRICT_AT]
        self._threshold = STRICT_AT if strict else 0
        self._certain = len(strict or suspicions) == 1

    def charges(self, row: Any) -> bool:
        """Say whether a job is charged a crash rather than a loss."""
        return bool(row.start_recorded) and self._certain and row.crashes + row.losses >= self._threshold

    def verdict(self, row: Any) -> Reason | None:
        """Return the reason with which a job fails, or None where it waits again."""
        if row.delivery == _AT_MOST_ONCE and row.start_recorded:
            return Reason.LOST
        if self.charges(row) and row.crashes + 1 >= CRASH_LIMIT:
            return Reason.CRASHED
        return None


def rescue(connection: Connection, node_id: int, limit: int, now: int) -> Rescue:
    """Take jobs from a node that does not live, and decide for each what becomes of it.

    Those whose start is on record come first, all of them at once: they are judged together. Two nodes that rescue at
    the same time both count all of them, whichever rows each of them gets.
    """
    judge = _Judge(connection.execute(nodes.SUSPECTS, {"node": node_id}).scalars().all())
    values = {"node": node_id, "limit": limit}
    rows = connection.execute(nodes.STARTED_JOBS_OF_NODE, {**values, "limit": MOST_STARTED}).all()
    rows = rows or connection.execute(nodes.JOBS_OF_NODE, values).all()
    if not rows:
        return Rescue()
    back: list[Any] = []
    gone: list[tuple[Any, Reason]] = []
    for row in rows:
        reason = judge.verdict(row)
        if reason is None:
            back.append(row)
        else:
            gone.append((row, reason))
    _note_attempts(connection, rows, judge, now)
    _give_back(connection, back, judge, now)
    _fail(connection, gone, now)
    return Rescue(pending=len(back), failed=len(gone))


def _note_attempts(connection: Connection, rows: Sequence[Any], judge: _Judge, now: int) -> None:
    values = [
        {
            "job": row.id,
            "held": row.lease,
            "reason": (judge.verdict(row) or (Reason.CRASHED if judge.charges(row) else Reason.LOST)).value,
            "started_at": None,
            "finished_at": now,
            "error_type": None,
            "error": None,
            "key_id": None,
        }
        for row in rows
    ]
    connection.execute(finishing.NOTE_ATTEMPT, values)


def _give_back(connection: Connection, rows: Sequence[Any], judge: _Judge, now: int) -> None:
    """Make jobs pending; those charged with a second crash wait, as after one of their worker alone."""
    values = []
    for row in rows:
        charged = judge.charges(row)
        waits = charged and row.crashes > 0
        due = now + round(CRASHED_AGAIN_DELAY * 1_000_000)
        values.append(
            {
                "job": row.id,
                "held": row.lease,
                "to": tables.DELAYED if waits else tables.PENDING,
                "ready": due if waits else now,
                "due": due if waits else None,
                "given_back": 1,
                "crashed": int(charged),
                "lost": int(not charged),
                "blocker": 0,
            }
        )
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
