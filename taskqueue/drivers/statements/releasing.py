"""Statements about parents and children: what a job waits for, and what becomes of it when that has ended."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    CTE,
    BindParameter,
    ColumnElement,
    Delete,
    Insert,
    Select,
    Update,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from taskqueue.drivers import tables
from taskqueue.drivers.statements.parts import CARRIED, constant, given
from taskqueue.drivers.tables import dependencies, history, jobs
from taskqueue.drivers.values import PARENT_FAILURE_CODES, BlockedBy
from taskqueue.states import ParentFailure

DEPTH = 200
"""How many generations one statement walks down: servers end a recursion after 1,000 steps, some without a word."""

_ids: BindParameter[Any] = bindparam("ids", expanding=True, type_=jobs.c.id.type)
_BLOCKED = constant(tables.BLOCKED)
_PARENTS = constant(int(BlockedBy.PARENTS))

# --- who depends on whom ----------------------------------------------------------------------------------------------

LOCK_PARENTS: Select[Any] = (
    select(jobs.c.id, jobs.c.state, jobs.c.has_dependents).where(jobs.c.id.in_(_ids)).order_by(jobs.c.id)
).with_for_update()
"""Lock live jobs in the order of their ids. Nothing but the ids is asked, so that no other index can be chosen."""

FINISHED_PARENTS: Select[Any] = (
    select(history.c.id, history.c.state).where(history.c.id.in_(_ids)).order_by(history.c.id)
).with_for_update(read=True)
"""Find finished jobs and keep them from being revived or removed until the end of the transaction."""

FLAG_PARENTS: Update = update(jobs).where(jobs.c.id.in_(_ids)).values({jobs.c.has_dependents: constant(1)})

ADD_EDGE: Insert = insert(dependencies)

BLOCK: Update = (
    update(jobs)
    .where(jobs.c.id.in_(_ids))
    .values({jobs.c.state: _BLOCKED, jobs.c.blocked_by: _PARENTS, jobs.c.unmet: given(jobs, "unmet", "count")})
)
"""Let jobs wait for ``count`` parents."""

EDGES: Select[Any] = select(dependencies.c.parent_id, dependencies.c.child_id).where(dependencies.c.parent_id.in_(_ids))
"""The children of these jobs."""

PARENTS_OF: Select[Any] = (
    select(dependencies.c.child_id, dependencies.c.parent_id)
    .where(dependencies.c.child_id.in_(_ids))
    .order_by(dependencies.c.child_id, dependencies.c.parent_id)
)
"""What these jobs still wait for."""

ANY_EDGE: Select[Any] = select(select(dependencies.c.parent_id).exists())
"""Whether any job depends on another one, for a database with one writer: it asks this before it looks for parents."""


_ENDS = jobs.c.on_parent_failure.in_(
    [constant(PARENT_FAILURE_CODES[each]) for each in (ParentFailure.FAIL, ParentFailure.CANCEL)]
)


@cache
def descendants(dialect: str) -> Select[Any]:
    """Read the children of jobs and the children of those that would end with them, `DEPTH` generations at most."""
    first = select(dependencies.c.child_id, constant(1).label("depth")).where(dependencies.c.parent_id.in_(_ids))
    down = first.cte("down", recursive=True)
    tests = (jobs.c.id == down.c.child_id, jobs.c.has_dependents == constant(1), _ENDS)
    next_one = _looked_up(down, tests) if dialect == "postgresql" else _joined(down, tests)
    down = down.union(next_one.where(down.c.depth < constant(DEPTH)))
    return select(down.c.child_id, down.c.depth)


def _joined(down: CTE, tests: Sequence[ColumnElement[bool]]) -> Select[Any]:
    return (
        select(dependencies.c.child_id, down.c.depth + constant(1))
        .select_from(down)
        .join(jobs, and_(*tests))
        .join(dependencies, dependencies.c.parent_id == jobs.c.id)
    )


def _looked_up(down: CTE, tests: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """Return the same without a join: each generation read all of 20,000 jobs where the statistics knew of few."""
    falling = select(jobs.c.id).where(*tests).correlate(down).scalar_subquery()
    children = select(dependencies.c.child_id).where(dependencies.c.parent_id == falling).correlate(down)
    each = func.unnest(func.array(children.scalar_subquery()), type_=jobs.c.id.type)
    return select(each, down.c.depth + constant(1)).select_from(down)


# --- what becomes of a child ------------------------------------------------------------------------------------------

LOCK_CHILDREN: Select[Any] = (
    select(
        jobs.c.id,
        jobs.c.queue,
        jobs.c.state,
        jobs.c.blocked_by,
        jobs.c.unmet,
        jobs.c.run_at,
        jobs.c.on_parent_failure,
        jobs.c.has_dependents,
    )
    .where(jobs.c.id.in_(_ids))
    .order_by(jobs.c.id)
).with_for_update()

COUNT_DOWN: Update = (
    update(jobs)
    .where(jobs.c.id.in_(_ids))
    .values({jobs.c.unmet: jobs.c.unmet - bindparam("count", type_=jobs.c.unmet.type)})
)
"""Let jobs wait for ``count`` parents fewer."""

_free = {jobs.c.blocked_by: constant(0), jobs.c.unmet: constant(0)}
START: Update = (
    update(jobs)
    .where(jobs.c.id.in_(_ids))
    .values({jobs.c.state: constant(tables.PENDING), jobs.c.ready_at: given(jobs, "ready_at", "now"), **_free})
)
DELAY: Update = (
    update(jobs)
    .where(jobs.c.id.in_(_ids))
    .values({jobs.c.state: constant(tables.DELAYED), jobs.c.ready_at: jobs.c.run_at, **_free})
)
"""Let jobs whose parents are done wait for their own time."""

_FALLEN = {name: jobs.c[name] for name in (*CARRIED, "payload")} | {
    "state": given(history, "state", "to"),
    "reason": given(history, "reason", "why"),
    "finished_at": given(history, "finished_at", "now"),
}
FALL: Insert = insert(history).from_select(
    list(_FALLEN), select(*_FALLEN.values()).where(jobs.c.id.in_(_ids)), include_defaults=False
)
"""Copy jobs into history that end with a parent, with their payload, so that they can be revived."""

REMOVE_EDGES_TO_CHILDREN: Delete = delete(dependencies).where(dependencies.c.parent_id.in_(_ids))
REMOVE_EDGES_TO_PARENTS: Delete = delete(dependencies).where(dependencies.c.child_id.in_(_ids))
REMOVE_EDGE: Delete = delete(dependencies).where(
    dependencies.c.parent_id == bindparam("parent", type_=jobs.c.id.type),
    dependencies.c.child_id == bindparam("child", type_=jobs.c.id.type),
)
