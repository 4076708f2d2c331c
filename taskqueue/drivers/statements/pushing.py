"""Statements that bring jobs in."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Insert, select

from taskqueue.drivers.statements.parts import given, insert_into, listed, unless_there
from taskqueue.drivers.tables import history, jobs, lanes, tags
from taskqueue.drivers.values import NewJob


@cache
def insert_job(dialect: str) -> Insert:
    """Insert a job, or nothing where its id is known, live or finished: a push may be repeated safely.

    The look-up in history is one probe at the young end of its primary key.
    """
    finished = select(history.c.id).where(history.c.id == given(jobs, "id")).exists()
    values = select(*[given(jobs, name).label(name) for name in NewJob._fields]).where(~finished)
    return unless_there(insert_into(jobs, dialect).from_select(NewJob._fields, values), ["id"])


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
