"""Statements of the claim: which lanes have work, and the jobs at the head of one."""

from __future__ import annotations

from sqlalchemy import BigInteger, Select, Update, bindparam, column, select, update

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

_CLAIM = {
    jobs.c.state: constant(tables.PROCESSING),
    jobs.c.lease: jobs.c.lease + constant(1),
    jobs.c.attempt: jobs.c.attempt + constant(1),
    jobs.c.node_id: given(jobs, "node_id"),
    jobs.c.claimed_at: given(jobs, "claimed_at"),
}

_rowid = column("rowid", BigInteger)

CLAIM_BY_ROWID: Update = (
    update(jobs)
    .where(
        _rowid.in_(
            select(_rowid)
            .select_from(jobs)
            .where(
                jobs.c.queue == given(jobs, "queue"),
                jobs.c.rank == given(jobs, "rank"),
                in_state(jobs, tables.PENDING),
                jobs.c.ready_at >= given(jobs, "ready_at", "low"),
            )
            .order_by(jobs.c.ready_at, jobs.c.id)
            .limit(bindparam("limit", type_=BigInteger))
            .offset(constant(0))
            .correlate(None)
        )
    )
    .values(_CLAIM)
    .returning(*[jobs.c[name] for name in ClaimedJob._fields])
)
"""Claim the head of a lane and return it, in no order, where rows have a ``rowid`` and one writer has the database."""
