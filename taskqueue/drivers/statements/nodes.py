"""Statements about nodes, the duties they take in turns, and whose jobs are orphans."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, Update, bindparam, func, literal_column, or_, select, update

from taskqueue.drivers import tables
from taskqueue.drivers.statements.parts import constant, given, in_state
from taskqueue.drivers.tables import duties, jobs, nodes
from taskqueue.drivers.values import DELIVERY_CODES
from taskqueue.states import Delivery

DRAINING: ColumnElement[str] = literal_column("'draining'")
ALIVE = nodes.c.state.in_([literal_column(f"'{state}'") for state in ("alive", "draining", "quiet")])

BEAT: Update = (
    update(nodes)
    .where(
        nodes.c.id == bindparam("node", type_=nodes.c.id.type),
        ALIVE,
        or_(nodes.c.state != DRAINING, bindparam("to", type_=nodes.c.state.type) == DRAINING),
    )
    .values(
        {
            nodes.c.sequence: nodes.c.sequence + constant(1),
            nodes.c.beat_at: bindparam("now", type_=nodes.c.beat_at.type),
            nodes.c.state: bindparam("to", type_=nodes.c.state.type),
            nodes.c.info: func.coalesce(bindparam("news", type_=nodes.c.info.type), nodes.c.info),
        }
    )
)
"""Beat as a node that lives. A beat of one that was asked to drain, as anything else, changes nothing: so it learns."""

DRAIN: Update = (
    update(nodes).where(nodes.c.id == bindparam("node", type_=nodes.c.id.type), ALIVE).values(state=DRAINING)
)
"""Ask a node to finish what it runs and to stop."""

END_NODE: Update = (
    update(nodes)
    .where(nodes.c.id == bindparam("node", type_=nodes.c.id.type), ALIVE)
    .values(state=bindparam("to"), stopped_at=bindparam("now", type_=nodes.c.stopped_at.type))
)
"""Note the end of a node, clean (stopped) or not (dead). Nothing leads back: a node that returns is a new one."""

DECLARE_DEAD = END_NODE.where(nodes.c.sequence == bindparam("seen", type_=nodes.c.sequence.type))

STANDING: Select[Any] = (
    select(nodes.c.state, nodes.c.info)
    .where(nodes.c.id == bindparam("node", type_=nodes.c.id.type), ALIVE)
    .with_for_update()
)
"""What a living node is to do and tells of itself; it stays so until the transaction ends."""

NOTE: Update = (
    update(nodes)
    .where(nodes.c.id == bindparam("node", type_=nodes.c.id.type))
    .values(info=bindparam("news", type_=nodes.c.info.type))
)
"""Replace what a node tells of itself, whether it lives or not."""

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
    select(jobs.c.id, jobs.c.lease, jobs.c.queue, jobs.c.delivery, jobs.c.start_recorded, jobs.c.crashes, jobs.c.losses)
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

STARTED_JOBS_OF_NODE = JOBS_OF_NODE.where(jobs.c.start_recorded == constant(1))

SUSPECTS: Select[Any] = select(jobs.c.crashes + jobs.c.losses).where(
    in_state(jobs, tables.PROCESSING),
    jobs.c.node_id == _of_node,
    jobs.c.start_recorded == constant(1),
    jobs.c.delivery != constant(DELIVERY_CODES[Delivery.AT_MOST_ONCE]),
)
"""How often each job whose start was on record when its node died has lost its worker or node before."""

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
