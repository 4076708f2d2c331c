"""Statements that bring jobs in."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Delete, Insert, Select, bindparam, delete, select

from taskqueue.drivers.statements.parts import given, insert_into, listed, speaks_mysql, unless_there
from taskqueue.drivers.tables import history, jobs, lanes, tags
from taskqueue.drivers.values import NewJob


def _insert_unknown(dialect: str) -> Any:
    known = [select(table.c.id).where(table.c.id == given(jobs, "id")).exists() for table in (history, jobs)]
    values = select(*[given(jobs, name).label(name) for name in NewJob._fields]).where(*[~each for each in known])
    return insert_into(jobs, dialect).from_select(NewJob._fields, values)


@cache
def locks_what_it_reads(dialect: str) -> bool:
    """Say whether an INSERT that looks into tables may lock what it finds there, and the gaps where it finds nothing.

    In a caller's transaction it would keep completions waiting: there a look without locks comes first, and then
    `insert_plain`. On our own connections no such locks are taken.
    """
    return speaks_mysql(insert_into(jobs, dialect))


@cache
def insert_plain(dialect: str) -> Insert:
    """Insert a job whose id and unique key were looked for: any conflict is an error."""
    return insert_into(jobs, dialect).values({name: given(jobs, name) for name in NewJob._fields})  # type: ignore[no-any-return]


@cache
def insert_job(dialect: str) -> Insert:
    """Insert a job, or nothing where its id is known, live or finished: a push may be repeated safely.

    Both are looked up, one probe at the young end of each primary key: the index of the live ones alone would make a
    repeated push wait for whoever is completing the job, and insert it then, as its look into history is from before.
    In one snapshot a job is live or finished. Where a conflict can only be passed over along with values that do not
    fit, it stays an error of this statement, as with `insert_unique_job`.
    """
    statement = _insert_unknown(dialect)
    return statement if speaks_mysql(statement) else unless_there(statement, ["id"])


@cache
def insert_unique_job(dialect: str) -> Insert:
    """Insert a job, or nothing where its id is known or its unique key is taken.

    Where the database cannot pass over a conflict of any index it is an error of this one statement, which there does
    not end the transaction: so no savepoint is needed anywhere. Another transaction that is about to take the key is
    waited for.
    """
    statement = _insert_unknown(dialect)
    if speaks_mysql(statement):
        return statement  # type: ignore[no-any-return]
    # In a caller's transaction the engine is the caller's, and may forget how many rows an INSERT wrote.
    return statement.on_conflict_do_nothing().execution_options(preserve_rowcount=True)  # type: ignore[no-any-return]


_holder = select(jobs.c.id, jobs.c.state).where(jobs.c.unique_key == given(jobs, "unique_key"))
HOLDER: Select[Any] = _holder
"""Who has a unique key, as this transaction sees it: takes no lock, so nobody's claim or finish has to wait."""

HOLDER_NOW: Select[Any] = _holder.with_for_update(read=True)
"""The same past a snapshot that is older than the conflict."""

HOLDER_ALONE: Select[Any] = _holder.with_for_update()
"""Who has a unique key, locked so that it can be cancelled."""


@cache
def insert_new_job(dialect: str) -> Insert:
    """Insert a job that is not in history, or nothing where a live one has its id.

    For long lists: of an INSERT with plain values the databases' drivers send many rows at once.
    """
    return unless_there(insert_into(jobs, dialect).values({name: given(jobs, name) for name in NewJob._fields}), ["id"])


@cache
def insert_lane(dialect: str) -> Insert:
    """Note a lane unless it is known."""
    statement = insert_into(lanes, dialect).values(queue=given(lanes, "queue"), rank=given(lanes, "rank"))
    return unless_there(statement, ["queue", "rank"])


@cache
def insert_tag(dialect: str) -> Insert:
    """Note a tag of a job unless it is known."""
    statement = insert_into(tags, dialect).values(tag=given(tags, "tag"), job_id=given(tags, "job_id"))
    return unless_there(statement, ["tag", "job_id"])


def insert_jobs(rows: int, dialect: str) -> Insert:
    """Insert a list of jobs, passing over those whose id is known."""
    fields = NewJob._fields
    new = listed("new", jobs, fields, rows)
    finished = select(history.c.id).where(history.c.id == new.c.id).exists()
    wanted = select(*[new.c[name] for name in fields]).where(~finished)
    return unless_there(insert_into(jobs, dialect).from_select(fields, wanted), ["id"])


FINISHED: Select[Any] = select(history.c.id).where(
    history.c.id.in_(bindparam("ids", expanding=True, type_=jobs.c.id.type))
)
"""Which of these jobs have finished."""

TAKE_BACK: Delete = delete(jobs).where(jobs.c.id.in_(bindparam("ids", expanding=True, type_=jobs.c.id.type)))
"""Take jobs away that have finished."""
