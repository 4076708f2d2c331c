"""Statements about nodes, the duties they take in turns, and whose jobs are orphans."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, Update, bindparam, func, literal_column, or_, select, update

from taskqueue.drivers import tables
from taskqueue.drivers.statements.parts import constant, given, in_state
from taskqueue.drivers.tables import duties, jobs, nodes

ALIVE = nodes.c.state.in_([literal_column("'alive'"), literal_column("'draining'")])

BEAT: Update = (
    update(nodes)
    .where(nodes.c.id == bindparam("node", type_=nodes.c.id.type), ALIVE)
    .values(
        {
            nodes.c.sequence: nodes.c.sequence + constant(1),
            nodes.c.beat_at: bindparam("now", type_=nodes.c.beat_at.type),
            nodes.c.state: bindparam("to", type_=nodes.c.state.type),
            nodes.c.info: func.coalesce(bindparam("news", type_=nodes.c.info.type), nodes.c.info),
        }
    )
)

END_NODE: Update = (
    update(nodes)
    .where(nodes.c.id == bindparam("node", type_=nodes.c.id.type), ALIVE)
    .values(state=bindparam("to"), stopped_at=bindparam("now", type_=nodes.c.stopped_at.type))
)
"""Note the end of a node, clean (stopped) or not (dead). Nothing leads back: a node that returns is a new one."""

DECLARE_DEAD = END_NODE.where(nodes.c.sequence == bindparam("seen", type_=nodes.c.sequence.type))

IS_ALIVE: Select[Any] = select(nodes.c.id).where(nodes.c.id == bindparam("node", type_=nodes.c.id.type), ALIVE)

ORPHANED: Select[Any] = (
    select(jobs.c.node_id)
    .where(
        in_state(jobs, tables.PROCESSING),
        jobs.c.node_id.is_not(None),
        ~select(nodes.c.id).where(nodes.c.id == jobs.c.node_id, ALIVE).exists(),
    )
    .distinct()
    .order_by(jobs.c.node_id)
)

_of_node = bindparam("node", type_=jobs.c.node_id.type)
JOBS_OF_NODE: Select[Any] = (
    select(jobs.c.id, jobs.c.lease, jobs.c.queue, jobs.c.delivery, jobs.c.start_recorded, jobs.c.crashes)
    .where(
        in_state(jobs, tables.PROCESSING),
        jobs.c.node_id == _of_node,
        ~select(nodes.c.id).where(nodes.c.id == _of_node, ALIVE).exists(),
    )
    .limit(bindparam("limit"))
    .offset(constant(0))
    .with_for_update(skip_locked=True)
)
"""Jobs that a node held which does not live: guarded here, so that a living one is never robbed."""

_now, _every = bindparam("now", type_=duties.c.taken_at.type), bindparam("every", type_=duties.c.taken_at.type)
TAKE_TURN: Update = (
    update(duties)
    .where(
        duties.c.name == given(duties, "name", "duty"),
        or_(duties.c.taken_at <= _now - _every, duties.c.taken_at > _now + _every),
    )
    .values(turn=duties.c.turn + constant(1), node_id=bindparam("node", type_=duties.c.node_id.type), taken_at=_now)
)
"""Take a turn that is due. A last turn far in the future was taken before a clock was set back: that one is due too."""
