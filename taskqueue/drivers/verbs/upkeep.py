"""Keep the tables small: purge finished jobs in bounded batches, and sweep out what nobody needs any more.

What is due is looked for without a lock; then it is locked by its ids, looked at again and removed.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Select

from taskqueue.drivers.statements import upkeep as statements
from taskqueue.drivers.values import Parked
from taskqueue.drivers.verbs.chunks import chunks
from taskqueue.drivers.verbs.control import note_lanes
from taskqueue.drivers.verbs.tally import OUTSIDE, Tally
from taskqueue.states import FINAL, State

Due = list[tuple[int, bytes]]
"""When a job finished, and its id."""

_NEVER = 2**62
"""Later than every time."""


def _groups(connection: Connection, states: Collection[State], queue: str | None) -> Sequence[Any]:
    codes = sorted(state.code for state in states if state in FINAL)
    return connection.execute(statements.groups(codes, queue)).all() if codes else ()


def _of(group: Any) -> dict[str, Any]:
    return {"of_queue": group[0], "of_state": group[1]}


def due(connection: Connection, before: int, states: Collection[State], queue: str | None, limit: int) -> Due:
    """Return the longest finished jobs of each queue and state, together at most ``limit``."""
    found: Due = []
    for group in _groups(connection, states, queue):
        if group[3] is None or group[3] >= before:
            continue
        rows = connection.execute(statements.DUE, {**_of(group), "before": before, "limit": limit - len(found)})
        found += [(row[0], row[1]) for row in rows]
        if len(found) >= limit:
            break
    return found


def beyond(connection: Connection, keep: int, queue: str, limit: int) -> Due:
    """Return the longest finished jobs of a queue that has more than ``keep``, at most ``limit``."""
    groups = _groups(connection, FINAL, queue)
    excess = min(limit, sum(int(group[2]) for group in groups) - keep)
    if excess <= 0:
        return []
    values = {"before": _NEVER, "limit": excess}
    oldest = [connection.execute(statements.DUE, _of(group) | values).all() for group in groups]
    # Counted once more: what another purge has removed since may no longer be in excess.
    excess = min(excess, sum(int(group[2]) for group in _groups(connection, FINAL, queue)) - keep)
    return [(row[0], row[1]) for row in sorted(heapq.merge(*oldest))[: max(0, excess)]]


def count_due(connection: Connection, before: int, states: Collection[State], queue: str | None) -> int:
    """Count the jobs in these states that finished before a time."""
    due_groups = [group for group in _groups(connection, states, queue) if group[3] is not None and group[3] < before]
    return sum(
        int(connection.execute(statements.DUE_JOBS, _of(group) | {"before": before}).scalar_one())
        for group in due_groups
    )


def kept_since(connection: Connection, keep: int, queue: str) -> int | None:
    """Return when the ``keep``-th last job of a queue finished; None where there are not more than that."""
    groups = _groups(connection, FINAL, queue)
    if sum(int(group[2]) for group in groups) <= keep:
        return None
    if keep <= 0:
        return _NEVER
    values = {"limit": keep}
    newest = [list(connection.execute(statements.NEWEST, _of(each) | values).scalars()) for each in groups]
    times = list(heapq.merge(*newest, reverse=True))[:keep]
    return int(times[-1]) if len(times) == keep else None


def remove(connection: Connection, jobs: Due) -> int:
    """Remove jobs that `due` or `beyond` found, with what hangs on them.

    One that was revived meanwhile stays, and so does one for which a child has been pushed that waits for it.
    """
    tally = Tally()
    before = max(finished_at for finished_at, _ in jobs) + 1
    removed = 0
    for part in chunks([job_id for _, job_id in jobs]):
        rows = _unawaited(connection, connection.execute(statements.LOCK, {"ids": part, "before": before}).all())
        _remove_what_hangs_on(connection, rows)
        if rows:
            connection.execute(statements.REMOVE, {"ids": [row.id for row in rows]})
        for row in rows:
            tally.move(row.queue, row.state, -1)
        removed += len(rows)
    tally.store(connection)
    return removed


def _unawaited(connection: Connection, rows: Sequence[Any]) -> Sequence[Any]:
    """Return the locked jobs without those that a child waits for.

    To lock them is to wait for whoever is pushing such a child; the lock itself looks at what was there before it.
    """
    if not rows:
        return rows
    awaited = set(connection.execute(statements.AWAITED, {"ids": [row.id for row in rows]}).scalars())
    return [row for row in rows if row.id not in awaited]


def _remove_what_hangs_on(connection: Connection, rows: Sequence[Any]) -> None:
    tagged = [row.id for row in rows if row.tagged]
    if tagged:
        connection.execute(statements.REMOVE_TAGS, {"ids": tagged})
    troubled = [row.id for row in rows if row.troubled]
    for statement in statements.REMOVE_TROUBLE if troubled else ():
        connection.execute(statement, {"ids": troubled})


def sweep(connection: Connection, minutes_before: int, nodes_before: int, limit: int) -> int:
    """Remove old minutes of the rollups, nodes that ended long ago and turns that nobody takes."""
    return (
        _sweep_minutes(connection, minutes_before, limit)
        + _sweep_nodes(connection, nodes_before, limit)
        + connection.execute(statements.REMOVE_DUTIES, {"before": nodes_before}).rowcount
    )


def _sweep_minutes(connection: Connection, before: int, limit: int) -> int:
    old = connection.execute(statements.OLD_MINUTES, {"before": before, "limit": limit}).scalars().all()
    if not old:
        return 0
    return connection.execute(statements.REMOVE_MINUTES, {"last": old[-1]}).rowcount


def _sweep_nodes(connection: Connection, before: int, limit: int) -> int:
    """Remove forgotten nodes; what they have counted goes on counting, as of nobody."""
    values = {"before": before, "limit": limit}
    ids = list(connection.execute(statements.FORGOTTEN_NODES, values).scalars())
    if not ids:
        return 0
    tally = Tally(OUTSIDE)
    for queue, state, _, jobs in connection.execute(statements.COUNTED_BY, {"ids": ids}).all():
        tally.move(queue, state, int(jobs))
    connection.execute(statements.REMOVE_COUNTED_BY, {"ids": ids})
    tally.store(connection)
    return connection.execute(statements.REMOVE_NODES, {"ids": ids}).rowcount


def note_missing_lanes(connection: Connection, missing: Select[Any]) -> int:
    """Note the lanes of pending jobs that are missing."""
    lanes = [(row.queue, row.rank) for row in connection.execute(missing)]
    note_lanes(connection, lanes)
    return len(lanes)


def parked(connection: Connection) -> list[Parked]:
    """Return the jobs that wait for a class or a key, by queue."""
    return [Parked(*row) for row in connection.execute(statements.PARKED)]


def live_keys(connection: Connection) -> dict[str, int]:
    """Return how many live jobs each key has sealed."""
    return {row[0]: row[1] for row in connection.execute(statements.LIVE_KEYS)}
