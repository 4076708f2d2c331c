"""Statements that look what became of a transaction whose COMMIT had an unknown outcome."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, bindparam, select

from taskqueue.drivers import tables
from taskqueue.drivers.statements.parts import in_state
from taskqueue.drivers.tables import attempts, history, jobs
from taskqueue.drivers.values import ClaimedJob

_ids = bindparam("ids", expanding=True, type_=jobs.c.id.type)

CLAIMED_AT: Select[Any] = (
    select(*[jobs.c[name] for name in ClaimedJob._fields])
    .where(
        in_state(jobs, tables.PROCESSING),
        jobs.c.node_id == bindparam("node", type_=jobs.c.node_id.type),
        jobs.c.claimed_at.in_(bindparam("stamps", expanding=True, type_=jobs.c.claimed_at.type)),
    )
    .order_by(jobs.c.rank, jobs.c.ready_at, jobs.c.id)
)
"""What a node claimed at these moments and still holds."""

RECEIPTS: tuple[Select[Any], ...] = tuple(
    select(job_id, table.c.lease).where(
        job_id.in_(_ids), table.c.node_id == bindparam("node", type_=table.c.node_id.type)
    )
    for job_id, table in ((history.c.id, history), (attempts.c.job_id, attempts))
)
"""The (id, lease) that a node did acknowledge: what is finished, and what left an attempt behind."""

HELD_BY: Select[Any] = select(*[jobs.c[name] for name in ClaimedJob._fields[:-2]]).where(
    in_state(jobs, tables.PROCESSING), jobs.c.node_id == bindparam("node", type_=jobs.c.node_id.type)
)
"""Every job that a node holds, without its payload and checkpoint."""
