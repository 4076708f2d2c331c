"""How jobs come in through a SQLAlchemy connection: the caller's own, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, inspect, select
from sqlalchemy.exc import IntegrityError

from taskqueue.drivers.statements import pushing
from taskqueue.drivers.tables import installation
from taskqueue.drivers.values import NewJob
from taskqueue.errors import ConfigurationError, DuplicateJob


def refuse_another_database(connection: Connection, ours: bytes, address: str) -> None:
    """Raise `ConfigurationError` unless ``connection`` leads to the database whose installation id is ``ours``."""
    known = inspect(connection).has_table(installation.name)
    if not known or connection.execute(select(installation.c.id)).scalar() != ours:
        raise ConfigurationError(
            f"the session is bound to another database than the queue: bind it to {address}, or push without a session"
        )


def push(connection: Connection, jobs: Sequence[NewJob], tags: Sequence[Sequence[str]] = ()) -> None:
    """Insert jobs, the lanes and tags they need; jobs whose id is known are passed over."""
    if not jobs:
        return
    dialect = connection.dialect.name
    lanes = sorted({(job.queue, job.rank) for job in jobs})
    connection.execute(pushing.insert_lane(dialect), [{"queue": queue, "rank": rank} for queue, rank in lanes])
    statement = pushing.insert_job(dialect)
    try:
        for job, labels in zip(jobs, tags or [()] * len(jobs), strict=True):
            inserted = connection.execute(statement, job._asdict()).rowcount
            if inserted and labels:
                _tag(connection, job.id, labels)
    except IntegrityError as error:
        raise duplicate(error) from error


def _tag(connection: Connection, job_id: bytes, labels: Sequence[str]) -> None:
    rows: list[dict[str, Any]] = [{"tag": label, "job_id": job_id} for label in dict.fromkeys(labels)]
    connection.execute(pushing.insert_tag(connection.dialect.name), rows)


def duplicate(error: Exception) -> Exception:
    """Return `DuplicateJob` for a conflict of unique keys, or the error itself."""
    cause = getattr(error, "orig", error)
    if "unique_key" in str(cause) or "tq_jobs_unique" in str(cause):
        return DuplicateJob(
            "another job that waits or runs has the same unique key, so nothing was stored:"
            " use `push_once` to get that job, or push again when it has finished"
        )
    return error
