"""Statements that keep the tables small: what may be purged, what hangs on it, what nobody needs any more.

Finished jobs are found in the index (queue, state, finished_at), group by group, so that a batch reads the rows that
it removes and no others, however long the history is. To find them takes no lock; they are removed by their ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Delete,
    Integer,
    ScalarSelect,
    Select,
    Subquery,
    bindparam,
    delete,
    func,
    literal_column,
    or_,
    select,
)

from taskqueue.drivers import tables
from taskqueue.drivers.statements.parts import constant, given, in_state, none_found
from taskqueue.drivers.tables import (
    attempts,
    counters,
    dependencies,
    duties,
    history,
    jobs,
    lanes,
    nodes,
    rollups,
    tags,
)

_ids: BindParameter[Any] = bindparam("ids", expanding=True)
_before = bindparam("before", type_=history.c.finished_at.type)
_of_queue, _of_state = given(history, "queue", "of_queue"), given(history, "state", "of_state")
_limit: BindParameter[Any] = bindparam("limit", type_=Integer)
_GROUP = (history.c.queue == _of_queue, history.c.state == _of_state)


def groups(states: Sequence[int], queue: str | None) -> Select[Any]:
    """Read (queue, state, jobs, when the oldest finished) of each queue with finished jobs in these states.

    The number comes from the counters, the time from the end of an index: no row of history is counted.
    """
    chosen: list[ColumnElement[bool]] = [counters.c.state.in_([constant(state) for state in states])]
    if queue is not None:
        chosen.append(counters.c.queue == queue)
    total = func.sum(counters.c.jobs)
    counted = (
        select(counters.c.queue, counters.c.state, total.label("jobs"))
        .where(*chosen)
        .group_by(counters.c.queue, counters.c.state)
        .having(total > constant(0))
        .subquery()
    )
    oldest = (
        select(history.c.finished_at)
        .where(history.c.queue == counted.c.queue, history.c.state == counted.c.state)
        .order_by(history.c.finished_at)
        .limit(literal_column("1"))
        .scalar_subquery()
    )
    columns = (counted.c.queue, counted.c.state, counted.c.jobs)
    return select(*columns, oldest).order_by(counted.c.queue, counted.c.state)


DUE: Final = (
    select(history.c.finished_at, history.c.id)
    .where(
        *_GROUP,
        history.c.finished_at < _before,
        none_found(select(dependencies.c.child_id).where(dependencies.c.parent_id == history.c.id)),
    )
    .order_by(history.c.finished_at)
    .limit(_limit)
)
"""The longest finished jobs of one queue and state. One that another job still waits for stays: it may be revived."""

DUE_JOBS: Final = select(func.count()).select_from(history).where(*_GROUP, history.c.finished_at < _before)

NEWEST: Final = select(history.c.finished_at).where(*_GROUP).order_by(history.c.finished_at.desc()).limit(_limit)
"""When the last jobs of one queue and state finished, the latest first."""

LOCK: Final = (
    select(
        history.c.id,
        history.c.queue,
        history.c.state,
        history.c.tags.is_not(None).label("tagged"),
        or_(history.c.state != constant(tables.COMPLETED), history.c.lease > constant(1)).label("troubled"),
    )
    # The sum keeps the time from choosing the index: one batch read the whole history.
    .where(history.c.id.in_(_ids), history.c.finished_at + constant(0) < _before)
    .order_by(history.c.id)
    .with_for_update()
)
"""Lock what is still there. A job that completed at its first claim is not ``troubled``: it left no attempt."""

AWAITED: Final = select(dependencies.c.parent_id).where(dependencies.c.parent_id.in_(_ids)).distinct()
"""Which of these jobs another one waits for. Once they are locked no further one can begin to."""

REMOVE: Final[Delete] = delete(history).where(history.c.id.in_(_ids))
REMOVE_TAGS: Final[Delete] = delete(tags).where(tags.c.job_id.in_(_ids))
REMOVE_TROUBLE: Final[tuple[Delete, ...]] = (
    delete(attempts).where(attempts.c.job_id.in_(_ids)),
    delete(dependencies).where(dependencies.c.child_id.in_(_ids)),
)
"""Attempts that did not complete, and edges to parents that never did."""

OLD_MINUTES: Final = select(rollups.c.minute).where(rollups.c.minute < _before).order_by(rollups.c.minute).limit(_limit)
REMOVE_MINUTES: Final[Delete] = delete(rollups).where(rollups.c.minute <= given(rollups, "minute", "last"))

_GONE = nodes.c.state.in_([literal_column("'stopped'"), literal_column("'dead'")])
FORGOTTEN_NODES: Final = (
    select(nodes.c.id)
    .where(
        _GONE,
        nodes.c.stopped_at < _before,
        none_found(select(jobs.c.id).where(in_state(jobs, tables.PROCESSING), jobs.c.node_id == nodes.c.id)),
    )
    .order_by(nodes.c.id)
    .limit(_limit)
    .with_for_update()
)
"""Nodes that ended long ago and whose jobs have all been rescued."""

REMOVE_NODES: Final[Delete] = delete(nodes).where(nodes.c.id.in_(_ids))
COUNTED_BY: Final = (
    select(counters.c.queue, counters.c.state, counters.c.node_id, counters.c.jobs)
    .where(counters.c.node_id.in_(_ids))
    .order_by(counters.c.queue, counters.c.state, counters.c.node_id)
    .with_for_update()
)
REMOVE_COUNTED_BY: Final[Delete] = delete(counters).where(counters.c.node_id.in_(_ids))

REMOVE_DUTIES: Final[Delete] = delete(duties).where(duties.c.taken_at < _before)
"""Turns that nobody has taken for long: the duty is gone, or begins again with its next turn."""


def _first_pending(name: str, *tests: ColumnElement[bool]) -> ScalarSelect[Any]:
    found = jobs.c[name]
    where = (in_state(jobs, tables.PENDING), *tests)
    return select(found).where(*where).order_by(found).limit(constant(1)).correlate_except(jobs).scalar_subquery()


def _walked() -> Subquery:
    """Return the lanes of pending jobs: down an index from one queue to the next, and in each from rank to rank."""
    names = select(_first_pending("queue").label("queue")).cte("names", recursive=True)
    following = _first_pending("queue", jobs.c.queue > names.c.queue)
    names = names.union_all(select(following).where(names.c.queue.is_not(None)))
    lowest = _first_pending("rank", jobs.c.queue == names.c.queue).label("rank")
    walk = select(names.c.queue, lowest).where(names.c.queue.is_not(None)).cte("walk", recursive=True)
    higher = _first_pending("rank", jobs.c.queue == walk.c.queue, jobs.c.rank > walk.c.rank)
    walk = walk.union_all(select(walk.c.queue, higher).where(walk.c.rank.is_not(None)))
    return select(walk.c.queue, walk.c.rank).where(walk.c.rank.is_not(None)).subquery("pending")


def _told_apart() -> Subquery:
    """Return the same where the state stands first in the index: with it a DISTINCT passes over what is alike."""
    lane = (jobs.c.state, jobs.c.queue, jobs.c.rank)
    return select(*lane).where(in_state(jobs, tables.PENDING)).distinct().subquery("pending")


def _not_noted(pending: Subquery) -> Select[Any]:
    noted = select(lanes.c.queue).where(lanes.c.queue == pending.c.queue, lanes.c.rank == pending.c.rank).exists()
    return select(pending.c.queue, pending.c.rank).where(~noted).order_by(pending.c.queue, pending.c.rank)


LANES_MISSING: Final = _not_noted(_walked())
"""Lanes of pending jobs that no claim walks. A DISTINCT reads each of 200,000 jobs, for 50 to 170 ms; this takes 2."""

LANES_MISSING_IN_WHOLE_INDEX: Final = _not_noted(_told_apart())
"""The same where there are no partial indexes: 0.3 ms, and 40 until the server has counted; the other takes 450."""

PARKED: Final = (
    select(jobs.c.queue, jobs.c.blocked_by, jobs.c.job_class, jobs.c.key_id, func.count())
    .where(in_state(jobs, tables.BLOCKED), jobs.c.blocked_by > constant(1))
    .group_by(jobs.c.queue, jobs.c.blocked_by, jobs.c.job_class, jobs.c.key_id)
    .order_by(jobs.c.queue, jobs.c.job_class, jobs.c.key_id)
)
"""Jobs that wait for a node which knows their class, or has their key."""

LIVE_KEYS: Final = select(jobs.c.key_id, func.count()).group_by(jobs.c.key_id).order_by(jobs.c.key_id)
