"""How a manager's jobs come in: sealed, then stored alone, together, once, or in the caller's own transaction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any
from uuid import UUID

from taskqueue.clock import Clock
from taskqueue.drivers.values import JobRow, KeyRow, NewJob, Standing
from taskqueue.errors import DatabaseBusy
from taskqueue.events import Event, Events
from taskqueue.flow.uniqueness import derived_key, has_same_options, has_same_payload, secret_of
from taskqueue.job import Job
from taskqueue.registry import module_name
from taskqueue.states import State
from taskqueue.store import Store
from taskqueue.translation import SealedJob, seal_job

_MOST_TRIES = 20
_DELAYED = State.DELAYED.code


class Pusher:
    """Pushes into one open store. Safe to share between threads."""

    def __init__(self, store: Store, clock: Clock, events: Events, logger: logging.Logger) -> None:
        self.store = store
        self._clock = clock
        self._events = events
        self._logger = logger
        self._salt = store.salt
        self._warned: set[type[Job]] = set()

    def push(self, job: Job, session: Any = None) -> UUID:
        """Store a job, and return the id of the one that stands."""
        sealed = self._seal(job)
        if session is None and sealed.row.unique_key is None:
            self.store.driver.push(sealed.row, sealed.tags, sealed.parents)
            self._tell(sealed.row)
            return job.id
        return self._settle([sealed], session)[0]

    def push_many(self, jobs: Sequence[Job], session: Any = None) -> list[UUID]:
        """Store jobs, all or none, and return the ids of those that stand."""
        sealed = [self._seal(job) for job in jobs]
        if not sealed:
            return []
        if session is not None or any(each.row.unique_key is not None for each in sealed):
            return self._settle(sealed, session)
        rows, tags = [each.row for each in sealed], [each.tags for each in sealed]
        parents = [each.parents for each in sealed]
        self.store.driver.push_many(rows, tags if any(tags) else (), parents if any(parents) else ())
        for row in rows:
            self._tell(row)
        return [job.id for job in jobs]

    def _settle(self, sealed: Sequence[SealedJob], session: Any) -> list[UUID]:
        rows, tags = [each.row for each in sealed], [each.tags for each in sealed]
        rules, parents = [each.rule for each in sealed], [each.parents for each in sealed]
        if session is None:
            standing = self.store.driver.push_each(rows, tags, parents, rules)
        else:
            standing = self.store.driver.push_within(session, rows, tags, parents, rules)
        for row, stands in zip(rows, standing, strict=True):
            if stands.created:
                # Within a transaction there is nothing to announce yet: the driver does it at its end, where it can.
                self._tell(row, at_once=session is None)
        return [UUID(bytes=stands.id) for stands in standing]

    def push_once(self, job: Job, *, ignore_payload: bool) -> tuple[UUID, bool]:
        """Store a job unless the same one waits or runs; return the id of the one that stands and if it is new."""
        row, tags, _, parents = self._seal(job)
        if row.unique_key is None:
            row = row._replace(unique_key=derived_key(self._secret, job, ignore_payload=ignore_payload))
        driver, given = self.store.driver, frozenset(job.__dict__.get("_given", ()))
        stands = driver.push_unique(row, tags, parents)
        for _ in range(_MOST_TRIES):
            other = None if stands.created or stands.id == row.id else driver.get(stands.id)
            if other is None or self._serves(job, row, other, given, ignore_payload=ignore_payload):
                return self._told(row, stands)
            stands = driver.push_unique(row, tags, parents, replace=True, instead_of=other.id)
        raise DatabaseBusy(f"others replaced the job of class {job.job_class} {_MOST_TRIES} times in a row: try again")

    def _serves(self, job: Job, row: NewJob, other: JobRow, given: frozenset[str], *, ignore_payload: bool) -> bool:
        """Say whether a job that is there does what this push wants; what has begun is left its options."""
        if other.state.final:
            return True
        if ignore_payload and not has_same_payload(job, other, self.store.codec):
            return False
        return other.state is State.PROCESSING or has_same_options(row, other, given)

    def _told(self, row: NewJob, stands: Standing) -> tuple[UUID, bool]:
        if stands.created:
            self._tell(row)
        return UUID(bytes=stands.id), stands.created

    @cached_property
    def _secret(self) -> bytes:
        known: Sequence[KeyRow] = self.store.driver.keys()
        return secret_of(self.store.ring, [row.key_id for row in known], self._salt)

    def _seal(self, job: Job) -> SealedJob:
        if type(job).__module__ == "__main__" and type(job) not in self._warned:
            self._warned.add(type(job))
            self._logger.warning(
                "%s is defined in the script itself; workers find it with --import %s",
                job.job_class,
                module_name(type(job)),
            )
        return seal_job(job, self.store.codec, self._salt, self._clock.now_us())

    def _tell(self, row: NewJob, *, at_once: bool = True) -> None:
        if at_once:
            self.store.announce()
        name = "postponed" if row.state == _DELAYED else "waiting"
        if self._events.wanted(name):  # type: ignore[arg-type]
            self._events.emit(Event(name, UUID(bytes=row.id), row.job_class, row.queue))  # type: ignore[arg-type]
