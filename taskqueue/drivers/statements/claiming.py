"""Statements of the claim: which lanes have work, and the jobs at the head of one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnClause, Select, Update, bindparam, column, func, select, update

from taskqueue.drivers import tables
from taskqueue.drivers.statements.parts import constant, given, in_state
from taskqueue.drivers.tables import jobs, lanes, queues
from taskqueue.drivers.values import ClaimedJob

_PAUSED = (
    select(queues.c.queue).where(queues.c.queue == lanes.c.queue, queues.c.paused_at.is_not(None)).correlate(lanes)
).exists()
_HAS_WORK = (
    select(jobs.c.id)
    .where(jobs.c.queue == lanes.c.queue, jobs.c.rank == lanes.c.rank, in_state(jobs, tables.PENDING))
    .correlate(lanes)
).exists()

LANES_WITH_WORK: Select[str, int] = (
    select(lanes.c.queue, lanes.c.rank).where(_HAS_WORK, ~_PAUSED).order_by(lanes.c.rank, lanes.c.queue)
)
"""Every lane in which a job is pending, by priority; lanes of paused queues are left out."""

LANES_OF_QUEUE_WITH_WORK = LANES_WITH_WORK.where(lanes.c.queue == given(lanes, "queue"))
"""The same of one queue."""

_HEAD_OF_LANE = (
    jobs.c.queue == given(jobs, "queue"),
    jobs.c.rank == given(jobs, "rank"),
    in_state(jobs, tables.PENDING),
    jobs.c.ready_at >= given(jobs, "ready_at", "low"),
)
_RAISED = ("lease", "attempt")


def _head(*columns: Any) -> Select[Any]:
    return (
        select(*columns)
        .select_from(jobs)
        .where(*_HEAD_OF_LANE)
        .order_by(jobs.c.ready_at, jobs.c.id)
        .limit(bindparam("limit", type_=BigInteger))
        .offset(constant(0))
    )


HEAD = _head(
    *[(jobs.c[name] + constant(1)).label(name) if name in _RAISED else jobs.c[name] for name in ClaimedJob._fields]
)
"""The jobs at the head of a lane as `CLAIM_HEAD` is about to leave them, in claim order."""

_ahead = _head(jobs.c.id, jobs.c.force_spawn).subquery("ahead")
OWN_AHEAD: Select[Any] = select(_ahead.c.id).where(_ahead.c.force_spawn == constant(1))
"""The jobs among the first of a lane that are to have a worker of their own."""

_first = (
    select(jobs.c.force_spawn)
    .where(in_state(jobs, tables.PENDING))
    .limit(bindparam("limit", type_=BigInteger))
    .offset(constant(0))
).subquery("first_jobs")
OWN_AT_ALL: Select[Any] = select(func.count(), func.coalesce(func.sum(_first.c.force_spawn), constant(0))).select_from(
    _first
)
"""How many jobs are pending, counted up to a limit, and how many of these are to have a worker of their own.

In no order: with statistics from a time when little was pending, a database would sort all there is for one.
"""

CLAIM_ONE: Update = (
    update(jobs)
    .where(jobs.c.id == given(jobs, "id", "job"), in_state(jobs, tables.PENDING))
    .values(
        {
            jobs.c.state: constant(tables.PROCESSING),
            jobs.c.lease: jobs.c.lease + constant(1),
            jobs.c.attempt: jobs.c.attempt + constant(1),
            jobs.c.node_id: given(jobs, "node_id", "node"),
            jobs.c.claimed_at: given(jobs, "claimed_at", "now"),
        }
    )
)
"""Claim a job that was found, unless it has been claimed meanwhile."""

CLAIMED: Select[Any] = (
    select(*[jobs.c[name] for name in ClaimedJob._fields])
    .where(jobs.c.id.in_(bindparam("ids", expanding=True, type_=jobs.c.id.type)))
    .order_by(jobs.c.rank, jobs.c.ready_at, jobs.c.id)
)
"""Jobs as a claim in the same transaction has left them."""

_rowid: ColumnClause[int] = column("rowid", BigInteger)

CLAIM_HEAD: Update = (
    update(jobs)
    .where(_rowid.in_(_head(_rowid).correlate(None)))
    .values(
        {
            jobs.c.state: constant(tables.PROCESSING),
            jobs.c.lease: jobs.c.lease + constant(1),
            jobs.c.attempt: jobs.c.attempt + constant(1),
            jobs.c.node_id: given(jobs, "node_id"),
            jobs.c.claimed_at: given(jobs, "claimed_at"),
        }
    )
)
"""Claim them. Two statements, for a database with row ids and one writer at a time: what they see is the same, and
together they cost a third less than one that returns its rows, which it would do in no order."""
