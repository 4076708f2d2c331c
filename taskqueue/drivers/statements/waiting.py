"""Statements for jobs that wait: promotion of the delayed, return of the parked."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import BigInteger, Select, Update, and_, bindparam, case, func, or_, select, update

from taskqueue.drivers import tables
from taskqueue.drivers.statements.parts import constant, in_state
from taskqueue.drivers.tables import jobs, queues
from taskqueue.drivers.values import BlockedBy

DUE: Select[Any] = (
    select(jobs.c.id)
    .where(in_state(jobs, tables.DELAYED), jobs.c.run_at <= bindparam("now", type_=BigInteger))
    .order_by(jobs.c.run_at)
    .limit(bindparam("limit", type_=BigInteger))
    .offset(constant(0))
    .with_for_update(skip_locked=True)
)
"""The delayed jobs that are due, the longest due first."""

_SECOND = 1_000_000
_MOST_SECONDS = 1_000_000
"""Of lateness that is told apart: eleven days."""

_EARLIEST = bindparam("earliest", type_=BigInteger)
_lateness = _EARLIEST - jobs.c.run_at
_READY_AT = case(
    (jobs.c.run_at > _EARLIEST, jobs.c.run_at),
    (_lateness < constant(_SECOND * _MOST_SECONDS), _EARLIEST - _lateness // constant(_SECOND)),
    else_=_EARLIEST - constant(_MOST_SECONDS),
)

PROMOTE: Update = (
    update(jobs)
    .where(
        jobs.c.id.in_(bindparam("ids", expanding=True)),
        # The sum keeps the state from choosing the index: a batch read every delayed job.
        jobs.c.state + constant(0) == constant(tables.DELAYED),
    )
    .values(
        {
            jobs.c.state: constant(tables.PENDING),
            jobs.c.ready_at: _READY_AT,
        }
    )
)
"""Make delayed jobs pending. They have been ready since they were due, but not long before ``earliest``.

Those that were due before it stand a microsecond before it for each second that they are late: at most a second in all,
and still in the order in which they were due.
"""

NEXT_RUN_AT: Select[Any] = (
    select(jobs.c.run_at)
    .where(in_state(jobs, tables.DELAYED))
    .order_by(jobs.c.run_at)
    .limit(constant(1))
    .offset(constant(0))
)
"""When the next delayed job is due. A minimum is added up over all of them where the statistics know of few."""


def unfinished(queues_served: Collection[str] | None) -> Select[Any]:
    """Count jobs that are pending, processing, or delayed after a crash or a loss: each state in its own index."""
    served = ~select(queues.c.queue).where(queues.c.queue == jobs.c.queue, queues.c.paused_at.is_not(None)).exists()
    if queues_served is not None:
        served = and_(served, jobs.c.queue.in_(queues_served))
    counts = [
        select(func.count()).select_from(jobs).where(*tests, served).scalar_subquery()
        for tests in (
            (in_state(jobs, tables.PENDING),),
            (in_state(jobs, tables.PROCESSING),),
            (in_state(jobs, tables.DELAYED), jobs.c.crashes + jobs.c.losses > constant(0)),
        )
    ]
    return select(counts[0] + counts[1] + counts[2])


def unpark(classes: Collection[str], key_ids: Collection[str], now: int) -> Update:
    """Let parked jobs go whose class or key is among these: they are pending, or wait for their own time."""
    later = jobs.c.run_at > now
    known = or_(
        and_(jobs.c.blocked_by == int(BlockedBy.UNKNOWN_CLASS), jobs.c.job_class.in_(classes)),
        and_(jobs.c.blocked_by == int(BlockedBy.UNKNOWN_KEY), jobs.c.key_id.in_(key_ids)),
    )
    return (
        update(jobs)
        .where(in_state(jobs, tables.BLOCKED), known)
        .values(
            {
                jobs.c.state: case((later, constant(tables.DELAYED)), else_=constant(tables.PENDING)),
                jobs.c.ready_at: case((later, jobs.c.run_at), else_=now),
                jobs.c.blocked_by: constant(0),
            }
        )
    )
