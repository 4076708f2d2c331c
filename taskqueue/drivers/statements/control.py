"""Statements that people ask for: cancel, revive, change, delete, flush, pause."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    Delete,
    Insert,
    Select,
    Update,
    bindparam,
    case,
    delete,
    func,
    insert,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from taskqueue.drivers import tables
from taskqueue.drivers.statements.parts import (
    CARRIED,
    COUNTED,
    LIVE_STATES_THAT_WAIT,
    constant,
    given,
    in_state,
    insert_into,
    none_found,
    speaks_mysql,
)
from taskqueue.drivers.statements.reading import conditions
from taskqueue.drivers.tables import attempts, dependencies, history, jobs, queues, tags
from taskqueue.drivers.values import JobFilter

_ids: BindParameter[Any] = bindparam("ids", expanding=True)


def waiting(which: JobFilter) -> Select[Any]:
    """Lock the matching jobs that wait and return (id, queue, state)."""
    tests = [in_state(jobs, *LIVE_STATES_THAT_WAIT), *conditions(jobs, which)]
    return select(jobs.c.id, jobs.c.queue, jobs.c.state).where(*tests).order_by(jobs.c.id).with_for_update()


def finished(which: JobFilter) -> Select[Any]:
    """Lock the matching jobs in history and return (id, queue, state)."""
    columns = (history.c.id, history.c.queue, history.c.state)
    return select(*columns).where(*conditions(history, which)).order_by(history.c.id).with_for_update()


def revivable(which: JobFilter) -> Select[Any]:
    """Lock the matching failed and cancelled jobs that still have a payload; return what a revival asks of them."""
    keyed = history.c.unique_key.is_not(None).label("keyed")
    return (
        select(history.c.id, history.c.queue, history.c.rank, history.c.state, keyed)
        .where(
            # The sum keeps the state from choosing the index: for a few ids it read the whole history.
            (history.c.state + constant(0)).in_([constant(tables.FAILED), constant(tables.CANCELLED)])
            if which.ids
            else in_state(history, tables.FAILED, tables.CANCELLED),
            history.c.payload.is_not(None),
            *conditions(history, which),
        )
        .order_by(history.c.id)
        .with_for_update()
    )


def _cancelled() -> dict[str, ColumnElement[Any]]:
    return {name: jobs.c[name] for name in (*CARRIED, "payload")} | {
        "state": constant(tables.CANCELLED),
        "finished_at": given(history, "finished_at"),
    }


CANCEL: Insert = insert(history).from_select(
    list(_cancelled()),
    select(*_cancelled().values()).where(jobs.c.id.in_(_ids)),
    include_defaults=False,
)
"""Copy jobs into history as cancelled."""

_taken = jobs.alias("taken")
_REVIVED: dict[str, ColumnElement[Any]] = {name: history.c[name] for name in (*CARRIED, "payload")} | {
    "state": given(jobs, "state", "to"),
    "ready_at": given(jobs, "ready_at"),
    "run_at": func.coalesce(given(jobs, "run_at"), history.c.run_at),
    "lease": history.c.lease + constant(1),
    "attempt": constant(0),
    "crashes": constant(0),
    "losses": constant(0),
    "expires_at": null(),
    "node_id": null(),
    "started_at": null(),
    "has_dependents": case(
        (none_found(select(dependencies.c.child_id).where(dependencies.c.parent_id == history.c.id)), constant(0)),
        else_=constant(1),
    ),
}


def _revive(*tests: ColumnElement[bool]) -> Insert:
    revived = select(*_REVIVED.values()).where(*tests)
    return insert(jobs).from_select(list(_REVIVED), revived, include_defaults=False).execution_options(**COUNTED)


REVIVE: Insert = _revive(
    history.c.id == given(history, "id"),
    ~select(_taken.c.id).where(_taken.c.unique_key == history.c.unique_key).exists(),
)
"""Copy a job back from history, unless its unique key has been taken meanwhile."""

REVIVE_UNKEYED: Insert = _revive(history.c.id.in_(_ids))
"""Copy jobs back from history that have no unique key."""


def change(job_id: bytes) -> Select[Any]:
    """Lock a job that waits and return what a change needs to know of it."""
    tests = (jobs.c.id == job_id, in_state(jobs, *LIVE_STATES_THAT_WAIT))
    return select(jobs.c.queue, jobs.c.rank, jobs.c.state).where(*tests).with_for_update()


CHANGE: Update = update(jobs).where(jobs.c.id == given(jobs, "id", "job"))

REMOVE_LIVE: Delete = delete(jobs).where(jobs.c.id.in_(_ids))
REMOVE_FINISHED: Delete = delete(history).where(history.c.id.in_(_ids))
REMOVE_WHAT_HANGS_ON: tuple[Delete, ...] = (
    delete(tags).where(tags.c.job_id.in_(_ids)),
    delete(attempts).where(attempts.c.job_id.in_(_ids)),
    delete(dependencies).where(dependencies.c.child_id.in_(_ids)),
)
"""Tags, attempts and the edges to parents of jobs that are removed."""

REMOVE_TAGS: Delete = delete(tags).where(tags.c.job_id == given(tags, "job_id"))


def flush(queue: str | None) -> tuple[Delete, ...]:
    """Remove the jobs that wait in a queue (or in all) and what hangs on them; the last statement removes the jobs.

    Parents and children are left to `related`: a job whose first child is being pushed is looked at after that.
    """
    tests = [*_waiting_in(queue), jobs.c.unmet == constant(0), jobs.c.has_dependents == constant(0)]
    tagged = select(jobs.c.id).where(*tests, jobs.c.tags.is_not(None))
    tried = select(jobs.c.id).where(*tests, jobs.c.lease > constant(0))
    return (
        delete(tags).where(tags.c.job_id.in_(tagged)),
        delete(attempts).where(attempts.c.job_id.in_(tried)),
        delete(jobs).where(*tests),
    )


def related(queue: str | None) -> Select[Any]:
    """Lock the jobs that wait in a queue (or in all) and are parents or children, and return their ids."""
    is_one = or_(jobs.c.unmet > constant(0), jobs.c.has_dependents == constant(1))
    return select(jobs.c.id).where(*_waiting_in(queue), is_one).order_by(jobs.c.id).with_for_update()


def _waiting_in(queue: str | None) -> list[ColumnElement[bool]]:
    tests = [in_state(jobs, *LIVE_STATES_THAT_WAIT)]
    return tests if queue is None else [*tests, jobs.c.queue == queue]


@cache
def pause(dialect: str) -> Insert:
    """Pause a queue; a queue that is paused already keeps its time."""
    names = ("queue", "paused_at", "note")
    statement: Any = insert_into(queues, dialect).values({name: given(queues, name) for name in names})
    is_mysql = speaks_mysql(statement)
    fresh = statement.inserted if is_mysql else statement.excluded
    changes = {
        "paused_at": case((queues.c.paused_at.is_(None), fresh.paused_at), else_=queues.c.paused_at),
        "note": fresh.note,
    }
    if is_mysql:
        return statement.on_duplicate_key_update(changes)  # type: ignore[no-any-return]
    return statement.on_conflict_do_update(index_elements=["queue"], set_=changes)  # type: ignore[no-any-return]


RESUME: Update = (
    update(queues).where(queues.c.queue == given(queues, "queue", "named")).values(paused_at=null(), note=null())
)

QUEUES_KEEPING_PAYLOADS = select(queues.c.queue).where(queues.c.keep_payload == constant(1))
