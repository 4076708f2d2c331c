"""Statements for what a running job leaves behind, each fenced by (id, lease) and the state."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, Update, bindparam, select, update

from taskqueue.drivers import tables
from taskqueue.drivers.statements.finishing import HELD
from taskqueue.drivers.statements.parts import constant, given
from taskqueue.drivers.tables import jobs

STANDING: Select[Any] = (
    select(jobs.c.id, jobs.c.lease)
    .where(
        jobs.c.id.in_(bindparam("ids", expanding=True, type_=jobs.c.id.type)),
        jobs.c.state + constant(0) == constant(tables.PROCESSING),
    )
    .order_by(jobs.c.id)
    .with_hint(jobs, "FORCE INDEX (PRIMARY)", "mysql")
    .with_hint(jobs, "FORCE INDEX (PRIMARY)", "mariadb")
)
"""Return those of these jobs that run, with their leases; lock nothing and wait for nobody."""

HELD_AMONG: Select[Any] = STANDING.with_for_update()
"""Lock those of these jobs that run, in the order of their ids, and return the leases under which they do.

Without the hint a small table would be read and locked as a whole, rows that others insert included.
"""

FREE_AMONG: Select[Any] = STANDING.with_for_update(skip_locked=True)
"""Do the same with those of them that nobody else has locked, where the database can tell."""

PROGRESS: Update = update(jobs).where(*HELD).values({jobs.c.progress: given(jobs, "progress", "sealed")})
CHECKPOINT: Update = update(jobs).where(*HELD).values({jobs.c.checkpoint: given(jobs, "checkpoint", "sealed")})
