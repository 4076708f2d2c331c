"""How jobs come in through a SQLAlchemy connection: the caller's own, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Insert, Select, inspect, select
from sqlalchemy.exc import IntegrityError

from taskqueue.drivers import tables
from taskqueue.drivers.statements import pushing, reading
from taskqueue.drivers.tables import installation
from taskqueue.drivers.values import Completion, Ending, JobFilter, NewJob, Standing
from taskqueue.drivers.verbs import control, depending
from taskqueue.drivers.verbs.chunks import chunks
from taskqueue.errors import ConfigurationError, DatabaseBusy, DuplicateJob, UsageError
from taskqueue.states import OnConflict, state_of

MANY: Final = 8
"""From how many jobs on they are looked for and inserted together."""

MOST_TRIES: Final = 20
"""How often a job is inserted again because the holder of its key finished between the insert and the look."""


def connection_of(session: Any) -> Connection:
    """Return the connection of a Session or Connection; raise `UsageError` for anything else."""
    if hasattr(session, "run_sync"):
        raise UsageError(
            "session= is asynchronous here: push it with `await AsyncQueueManager(...).push(job, session=session)`"
        )
    connection = session if isinstance(session, Connection) else getattr(session, "connection", None)
    connection = connection() if callable(connection) else connection
    if not isinstance(connection, Connection):
        raise UsageError(f"session= must be a SQLAlchemy Session or Connection, got {type(session).__name__}")
    return connection


def refuse_another_database(connection: Connection, ours: bytes, address: str) -> None:
    """Raise `ConfigurationError` unless ``connection`` leads to the database whose installation id is ``ours``."""
    known = inspect(connection).has_table(installation.name)
    if not known or connection.execute(select(installation.c.id)).scalar() != ours:
        raise ConfigurationError(
            f"the session is bound to another database than the queue: bind it to {address}, or push without a session"
        )


def push(
    connection: Connection,
    jobs: Sequence[NewJob],
    tags: Sequence[Sequence[str]] = (),
    parents: Sequence[Sequence[bytes]] = (),
    rules: Sequence[OnConflict] = (),
    *,
    now: int = 0,
    whole: bool = False,
    lanes_known: bool = False,
    instead_of: bytes | None = None,
) -> list[Standing]:
    """Insert jobs, the lanes and tags they need; jobs whose id is known are passed over.

    A unique key that is taken is an error, unless ``rules`` says otherwise for its job; ``now`` is when a job that is
    replaced ends. Returns for each job which one stands. With ``whole`` an error undoes what was written before it, for
    a caller who goes on with the transaction. ``instead_of`` names the only job that may be replaced. With
    ``lanes_known`` the lanes are there already.
    """
    if not jobs:
        return []
    # This comes before any savepoint: some drivers begin the transaction only at the first statement that writes, and
    # a savepoint outside of one would commit when it is released.
    if not lanes_known:
        control.note_lanes(connection, sorted({(job.queue, job.rank) for job in jobs}))
    rules = rules or [OnConflict.ERROR] * len(jobs)
    careful = whole and pushing.locks_what_it_reads(connection.dialect.name)
    with connection.begin_nested() if whole and _may_end_halfway(jobs, parents, rules) else nullcontext():
        links = depending.look(connection, jobs, parents) if any(parents) else None
        standing = _insert_together(connection, jobs) or [
            _insert(connection, job, careful=careful)
            if job.unique_key is None
            else _take_key(connection, job, rule, now, instead_of, careful=careful)
            for job, rule in zip(jobs, rules, strict=True)
        ]
        if not whole:
            # One of them may have been pushed by another, claimed and completed between the look and the insert. In a
            # caller's transaction a further round trip is too much for that: whoever completes it takes it away.
            doubled = take_back(connection, [each.id for each in standing if each.created])
            standing = [Standing(each.id, each.created and each.id not in doubled) for each in standing]
        for stands, labels in zip(standing, tags, strict=False):
            if stands.created and labels:
                _tag(connection, stands.id, labels)
        if links is not None:
            stood_for = {job.id: each.id for job, each in zip(jobs, standing, strict=True) if each.id != job.id}
            if stood_for:  # A child waits for the job that stands where its parent was passed over.
                parents = [[stood_for.get(parent, parent) for parent in each] for each in parents]
                links = depending.look(connection, jobs, parents)
            depending.link(connection, links, [each.id for each in standing if each.created])
    return standing


def _may_end_halfway(jobs: Sequence[NewJob], parents: Sequence[Sequence[bytes]], rules: Sequence[OnConflict]) -> bool:
    """Say whether an error can come after the first row is written."""
    keys = any(job.unique_key is not None for job in jobs)
    return any(parents) or (keys and (len(jobs) > 1 or OnConflict.REPLACE in rules))


def _insert_together(connection: Connection, jobs: Sequence[NewJob]) -> list[Standing] | None:
    """Insert many jobs in few round trips, or none of them and return None: then they have to go one by one.

    That is so where keys are to be taken, and where another push of the same jobs ends between the look and the insert.
    """
    ids = [job.id for job in jobs]
    if len(jobs) < MANY or len(set(ids)) < len(ids) or any(job.unique_key is not None for job in jobs):
        return None
    known = {row.id for part in chunks(ids) for row in connection.execute(reading.STATES, {"ids": part})}
    new = [job for job in jobs if job.id not in known]
    with connection.begin_nested() as savepoint:
        if not _insert_new(connection, new):
            savepoint.rollback()
            return None
    return [Standing(each, each not in known) for each in ids]


def _insert_new(connection: Connection, jobs: Sequence[NewJob]) -> bool:
    """Insert jobs that were not known a moment ago; say whether that still holds of all of them."""
    statement = pushing.insert_new_job(connection.dialect.name)
    stored = 0
    for part in chunks(jobs):
        stored += connection.execute(statement, [job._asdict() for job in part]).rowcount
        if connection.execute(pushing.FINISHED, {"ids": [job.id for job in part]}).first() is not None:
            return False
    return stored == len(jobs)


def ids_of(completions: Iterable[Completion], endings: Iterable[Ending]) -> set[bytes]:
    """Return the jobs that a cycle ends."""
    return {each.id for each in completions} | {each.id for each in endings}


def take_back(connection: Connection, ids: Iterable[bytes]) -> set[bytes]:
    """Take away live jobs that have finished already, and return which: they came in a second time."""
    doubled: set[bytes] = set()
    for part in chunks(sorted(ids)):
        found = list(connection.execute(pushing.FINISHED, {"ids": part}).scalars())
        if found:
            connection.execute(pushing.TAKE_BACK, {"ids": found})
            doubled.update(found)
    return doubled


def _insert(connection: Connection, job: NewJob, *, careful: bool) -> Standing:
    if careful and _is_known(connection, job):
        return Standing(job.id, created=False)
    statement = pushing.insert_plain if careful else pushing.insert_job
    try:
        inserted = _rows_of(connection, statement(connection.dialect.name), job)
    except IntegrityError:
        if not _is_known(connection, job):
            raise
        inserted = 0
    return Standing(job.id, bool(inserted))


def _rows_of(connection: Connection, statement: Insert, job: NewJob) -> int:
    """Return how many rows an INSERT stored, which on some databases is known only if asked for beforehand."""
    return connection.execute(statement, job._asdict(), execution_options={"preserve_rowcount": True}).rowcount


def _take_key(
    connection: Connection, job: NewJob, rule: OnConflict, now: int, instead_of: bytes | None, *, careful: bool
) -> Standing:
    """Insert a job with a unique key, or find who has it. No lock of our own: the index decides, each time anew."""
    for attempt in range(MOST_TRIES):
        if rule is OnConflict.REPLACE:
            _make_room(connection, job, now, instead_of, careful=careful and not attempt)
        # A conflict would lock who has the key, for as long as the caller's transaction lasts.
        looks_first = careful and not attempt and rule is not OnConflict.REPLACE
        other = _holder(connection, job, pushing.HOLDER) if looks_first else None
        if other is None and _insert_unique(connection, job, careful=careful):
            return Standing(job.id, created=True)
        if _is_known(connection, job):
            return Standing(job.id, created=False)
        if other is None:
            other = _holder(connection, job, pushing.HOLDER_NOW if attempt else pushing.HOLDER)
        if other is None or (rule is OnConflict.REPLACE and instead_of in (None, other.id)):
            continue
        if rule is OnConflict.ERROR:
            raise _taken(other.id, other.state, rule)
        return Standing(other.id, created=False)
    raise DatabaseBusy(
        f"the unique key of job {UUID(bytes=job.id)} was taken and given back {MOST_TRIES} times in a row and nothing"
        " was stored: try again"
    )


def _holder(connection: Connection, job: NewJob, statement: Select[Any]) -> Any:
    return connection.execute(statement, {"unique_key": job.unique_key}).one_or_none()


def _make_room(connection: Connection, job: NewJob, now: int, instead_of: bytes | None, *, careful: bool) -> None:
    """Cancel the job that has the key, if it waits.

    It is locked before the insert: a conflict would lock it for sharing on some databases, and two that share a lock
    and then want it alone wait for each other. ``careful`` is not to lock the gap where nobody has the key.
    """
    if careful and _holder(connection, job, pushing.HOLDER) is None:
        return
    other = _holder(connection, job, pushing.HOLDER_ALONE)
    if other is None or instead_of not in (None, other.id) or _is_known(connection, job):
        return
    if other.state == tables.PROCESSING:
        raise _taken(other.id, other.state, OnConflict.REPLACE)
    control.cancel(connection, JobFilter(ids=(other.id,)), now)


def _insert_unique(connection: Connection, job: NewJob, *, careful: bool) -> bool:
    if careful and _is_known(connection, job):
        return False
    statement = pushing.insert_plain if careful else pushing.insert_unique_job
    try:
        return _rows_of(connection, statement(connection.dialect.name), job) == 1
    except IntegrityError as error:
        if duplicate(error) is error and not _is_known(connection, job):
            raise
        return False


def _is_known(connection: Connection, job: NewJob) -> bool:
    return connection.execute(reading.STATES, {"ids": [job.id]}).first() is not None


def _tag(connection: Connection, job_id: bytes, labels: Sequence[str]) -> None:
    rows: list[dict[str, Any]] = [{"tag": label, "job_id": job_id} for label in dict.fromkeys(labels)]
    connection.execute(pushing.insert_tag(connection.dialect.name), rows)


def _taken(job_id: bytes, state: int, rule: OnConflict) -> DuplicateJob:
    taken = f"job {UUID(bytes=job_id)} has the same unique key and is {state_of(state)}, so nothing was stored"
    if rule is OnConflict.REPLACE:
        return DuplicateJob(f"{taken}: a job that runs cannot be replaced, push again when it has finished")
    return DuplicateJob(
        f"{taken}: push again when it has finished, or say what is to happen with on_conflict: 'keep' returns that job,"
        " 'replace' cancels it if it waits"
    )


def duplicate(error: Exception) -> Exception:
    """Return `DuplicateJob` for a conflict of unique keys, or the error itself."""
    cause = getattr(error, "orig", error)
    if "unique_key" in str(cause) or "tq_jobs_unique" in str(cause):
        return DuplicateJob(
            "another job that waits or runs has the same unique key, so nothing was stored:"
            " use `push_once` to get that job, or push again when it has finished"
        )
    return error
