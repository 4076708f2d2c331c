"""Statements that read jobs, live and finished together, and the state of the queues."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Integer,
    Select,
    Table,
    bindparam,
    cast,
    func,
    literal_column,
    null,
    select,
    union_all,
)
from sqlalchemy.sql.selectable import CompoundSelect

from taskqueue.drivers import tables
from taskqueue.drivers.statements.parts import constant, in_state, same
from taskqueue.drivers.tables import attempts, counters, history, jobs, lanes, queues, tags
from taskqueue.drivers.values import AttemptRow, JobFilter, JobRow

FIELDS = tuple(each.name for each in fields(JobRow))


def _columns(table: Table) -> list[ColumnElement[Any]]:
    """Return the columns of a `JobRow`, in order; what a table does not have is null there."""
    return [
        table.c[name] if name in table.c else cast(null(), _other(table).c[name].type).label(name) for name in FIELDS
    ]


def _other(table: Table) -> Table:
    return history if table is jobs else jobs


def conditions(table: Table, which: JobFilter) -> list[ColumnElement[bool]]:
    """Return what a row of ``table`` has to fulfil, or a false condition where none can."""
    tests: list[ColumnElement[bool]] = []
    if which.ids:
        tests.append(table.c.id.in_(list(which.ids)))
    if which.states:
        tests.append(in_state(table, *sorted(state.code for state in which.states)))
    if which.queues:
        tests.append(table.c.queue.in_(list(which.queues)))
    if which.job_class is not None:
        tests.append(table.c.job_class == which.job_class)
    if which.tag is not None:
        tests.append(table.c.id.in_(select(tags.c.job_id).where(tags.c.tag == which.tag)))
    if which.category is not None:
        tests.append(table.c.category == which.category)
    if which.reason is not None:
        tests.append(history.c.reason == which.reason.value if table is history else _never())
    if which.since is not None:
        tests.append(table.c.created_at >= which.since)
    if which.until is not None:
        tests.append(table.c.created_at < which.until)
    if which.before is not None:
        tests.append(table.c.id < which.before)
    return tests


def _never() -> ColumnElement[bool]:
    return constant(0) == constant(1)


def find(which: JobFilter, limit: int) -> Select[Any]:
    """Read the matching jobs with the newest ids: first the ids alone, so that no payload is carried through a sort."""
    # The limit is spelled out: a server that plans for any limit takes it for a tenth of the rows, and read them all.
    most: BindParameter[int] = bindparam("most", limit, Integer, literal_execute=True)
    newest = []
    for table in (jobs, history):
        ids = select(table.c.id).where(*conditions(table, which)).order_by(table.c.id.desc()).limit(most).subquery()
        newest.append(select(*_columns(table)).join_from(ids, table, same(table.c.id, ids.c.id)))
    both = union_all(*newest).subquery()
    return select(both).order_by(both.c.id.desc()).limit(most)


def count(which: JobFilter) -> Select[Any]:
    """Count the matching jobs."""
    each = [
        select(func.count()).select_from(table).where(*conditions(table, which)).scalar_subquery()
        for table in (jobs, history)
    ]
    return select(each[0] + each[1])


GET: CompoundSelect[Any] = union_all(
    *[select(*_columns(table)).where(table.c.id == bindparam("id", type_=jobs.c.id.type)) for table in (jobs, history)]
)

STATES: CompoundSelect[Any] = union_all(
    *[
        select(table.c.id, table.c.state).where(table.c.id.in_(bindparam("ids", expanding=True)))
        for table in (jobs, history)
    ]
)


def attempts_of(job_ids: Collection[bytes]) -> Select[Any]:
    """Read the attempts of these jobs that did not complete, oldest first."""
    columns = [attempts.c[each.name] for each in fields(AttemptRow)]
    return select(*columns).where(attempts.c.job_id.in_(job_ids)).order_by(attempts.c.job_id, attempts.c.lease)


def _live(code: int) -> Select[Any]:
    oldest: ColumnElement[Any] = func.min(jobs.c.ready_at) if code == tables.PENDING else cast(null(), BigInteger)
    return (
        select(
            jobs.c.queue.label("queue"),
            constant(code).label("state"),
            func.count().label("jobs"),
            oldest.label("oldest"),
            cast(null(), BigInteger).label("paused_at"),
            cast(null(), queues.c.note.type).label("note"),
        )
        .where(in_state(jobs, code))
        .group_by(jobs.c.queue)
    )


def _finished() -> Select[Any]:
    return select(
        counters.c.queue,
        counters.c.state,
        func.sum(counters.c.jobs),
        cast(null(), BigInteger),
        cast(null(), BigInteger),
        cast(null(), queues.c.note.type),
    ).group_by(counters.c.queue, counters.c.state)


def _known() -> Select[Any]:
    return select(
        lanes.c.queue,
        literal_column("-1"),
        literal_column("0"),
        cast(null(), BigInteger),
        cast(null(), BigInteger),
        cast(null(), queues.c.note.type),
    ).distinct()


def _controlled() -> Select[Any]:
    return select(
        queues.c.queue,
        literal_column("-1"),
        literal_column("0"),
        cast(null(), BigInteger),
        queues.c.paused_at,
        queues.c.note,
    )


QUEUES: CompoundSelect[Any] = union_all(
    *[_live(code) for code in (tables.PENDING, tables.PROCESSING, tables.DELAYED, tables.BLOCKED)],
    _finished(),
    _known(),
    _controlled(),
)
"""Everything that is known about the queues, in one statement so that it is one moment's truth.

Rows of (queue, state, jobs, oldest, paused_at, note), where a state of -1 counts nothing. The pending are counted in
the claim's index, the others in their own partial indexes, and finished jobs by the counters.
"""

KEY_USAGE: Select[Any] = (
    select((_used := union_all(select(jobs.c.key_id), select(history.c.key_id)).subquery()).c.key_id, func.count())
    .group_by(_used.c.key_id)
    .order_by(_used.c.key_id)
)
