"""`SQLDriver`: the verbs on shared statements; a database's own driver overrides what is different there."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, select

from taskqueue.clock import Clock
from taskqueue.drivers import examination, schema
from taskqueue.drivers.base import Listener
from taskqueue.drivers.lanes import LATE_US, NotedLanes
from taskqueue.drivers.noting import Noted
from taskqueue.drivers.receipts import Fate
from taskqueue.drivers.rows import attempts_by_job, job_row, queue_rows
from taskqueue.drivers.sql_nodes import SQLNodes
from taskqueue.drivers.statements import control as control_statements
from taskqueue.drivers.statements import counting, doubt, reading, waiting
from taskqueue.drivers.statements import upkeep as upkeep_statements
from taskqueue.drivers.statements.parts import insert_into, unless_there
from taskqueue.drivers.tables import installation, keys
from taskqueue.drivers.values import (
    AttemptRow,
    ClaimedJob,
    Finding,
    JobChanges,
    JobFilter,
    JobRow,
    KeyRow,
    Lanes,
    Level,
    NewJob,
    Note,
    Parked,
    Promotion,
    QueueRow,
    RollupRow,
    Standing,
)
from taskqueue.drivers.verbs import claiming, control, depending, finishing, noting, pushing, upkeep
from taskqueue.drivers.verbs.chunks import chunks, narrowed, without_repeats
from taskqueue.states import OnConflict, State, state_of

T = TypeVar("T")


class SQLDriver(SQLNodes):
    """Every verb that SQLAlchemy Core can say the same way everywhere."""

    engine: Engine

    def __init__(self, address: str, clock: Clock) -> None:
        self._address = address
        self._clock = clock
        self._ours: weakref.WeakSet[Engine] = weakref.WeakSet()
        """Engines of callers that were found to lead to this very database."""
        self._installation: tuple[bytes, bytes] | None = None
        """What was read last, for those who cannot wait: a push in a caller's transaction, perhaps in an event loop."""
        self._lanes = NotedLanes(clock)

    # --- the seam to a database's own driver ----------------------------------------------------------------

    @abstractmethod
    @contextmanager
    def migrating(self, patience: float = 60.0) -> Iterator[Connection]:
        """Hold the sole right to change tables, in one transaction; wait at most ``patience`` seconds for it."""

    @abstractmethod
    def create(self) -> None:
        """Make the database itself where that is ours to do, as with a file; its tables are made by a migration."""

    # --- life -----------------------------------------------------------------------------------------------

    def describe(self) -> str:
        return self._address

    def check_schema(self) -> None:
        schema.refuse_misfit(self.schema_status(), self.describe())

    def schema_status(self) -> schema.SchemaStatus:
        """Say how the tables fit this release. Changes nothing."""
        return self.read(schema.read_status)

    def installation(self) -> tuple[bytes, bytes]:
        statement = select(installation.c.id, installation.c.salt)
        row = self.read(lambda connection: connection.execute(statement).one())
        self._installation = (row.id, row.salt)
        return self._installation

    def push_unique(
        self,
        job: NewJob,
        tags: Sequence[str] = (),
        parents: Sequence[bytes] = (),
        *,
        replace: bool = False,
        instead_of: bytes | None = None,
    ) -> Standing:
        rules = [OnConflict.REPLACE if replace else OnConflict.KEEP]
        now, above = self._clock.now_us(), [parents] if parents else ()
        return self._push_once(
            [job],
            lambda connection: pushing.push(connection, [job], [tags], above, rules, now=now, instead_of=instead_of),
        )[0]

    def _push_once(self, jobs: Sequence[NewJob], work: Callable[[Connection], list[Standing]]) -> list[Standing]:
        """Run a push, perhaps several times; what an earlier run turns out to have stored was created by this push."""
        self.admit(jobs)
        runs = count()

        def run(connection: Connection) -> list[Standing]:
            next(runs)
            return work(connection)

        standing = self.write(run)
        if next(runs) == 1:
            return standing
        return [Standing(each.id, each.created or each.id == job.id) for job, each in zip(jobs, standing, strict=True)]

    def push_each(
        self,
        jobs: Sequence[NewJob],
        tags: Sequence[Sequence[str]] = (),
        parents: Sequence[Sequence[bytes]] = (),
        rules: Sequence[OnConflict] = (),
    ) -> list[Standing]:
        now = self._clock.now_us()
        return self._push_once(jobs, lambda connection: pushing.push(connection, jobs, tags, parents, rules, now=now))

    def push_within(
        self,
        session: Any,
        jobs: Sequence[NewJob],
        tags: Sequence[Sequence[str]] = (),
        parents: Sequence[Sequence[bytes]] = (),
        rules: Sequence[OnConflict] = (),
    ) -> list[Standing]:
        self.admit(jobs)
        connection = pushing.connection_of(session)
        if connection.engine not in self._ours:
            ours, _ = self._installation or self.installation()
            pushing.refuse_another_database(connection, ours, self.describe())
            self._ours.add(connection.engine)
        noted, now = self.note_lanes((job.queue, job.rank) for job in jobs), self._clock.now_us()
        stand = pushing.push(connection, jobs, tags, parents, rules, now=now, whole=True, lanes_known=noted)
        self.announce_within(connection)
        return stand

    def note_lanes(self, lanes: Iterable[tuple[str, int]]) -> bool:
        if not self.capabilities.concurrent_writers:
            return False
        new = self._lanes.unknown(lanes)
        if new:
            self.write(lambda connection: control.note_lanes(connection, new))
            self._lanes.remember(new)
        return True

    def note(self, progress: Sequence[Note] = (), checkpoints: Sequence[Note] = ()) -> Noted:
        return self.write(lambda connection: noting.note(connection, progress, checkpoints))

    def push_held(
        self,
        holder: tuple[bytes, int],
        jobs: Sequence[NewJob],
        tags: Sequence[Sequence[str]] = (),
        parents: Sequence[Sequence[bytes]] = (),
        rules: Sequence[OnConflict] = (),
    ) -> list[Standing] | None:
        self.admit(jobs)
        return noting.push_held(self.write, holder, (jobs, tags, parents, rules, self._clock.now_us()))

    # --- the way of a job -----------------------------------------------------------------------------------

    def lanes(self, queues: Sequence[str] | None) -> Lanes:
        return Lanes(None if queues is None else tuple(dict.fromkeys(queues)))

    def fate(self, job_id: bytes, lease: int) -> Fate:
        return self.write(lambda connection: finishing.fate(connection, job_id, lease))

    def promote(self, limit: int = 1000) -> Promotion:
        now = self._clock.now_us()
        next_run_at = self.read(lambda connection: connection.execute(waiting.NEXT_RUN_AT).scalar())
        if next_run_at is None or next_run_at > now:
            return Promotion(0, next_run_at)
        return self.write(lambda connection: self._promote(connection, limit, now))

    def _promote(self, connection: Connection, limit: int, now: int) -> Promotion:
        ids = list(connection.execute(waiting.DUE, {"now": now, "limit": limit}).scalars())
        earliest = now - LATE_US if self.capabilities.dead_rows else 0
        for part in chunks(ids):
            connection.execute(waiting.PROMOTE, {"ids": part, "earliest": earliest})
        return Promotion(len(ids), connection.execute(waiting.NEXT_RUN_AT).scalar())

    def unpark(self, classes: Collection[str], key_ids: Collection[str]) -> int:
        if not classes and not key_ids:
            return 0
        now = self._clock.now_us()
        known, opened = chunks(sorted(classes)), chunks(sorted(key_ids))
        parts = [waiting.unpark(part, (), now) for part in known] + [waiting.unpark((), part, now) for part in opened]
        return self.write(lambda connection: sum(connection.execute(part).rowcount for part in parts))

    def unfinished(self, queues: Sequence[str] | None) -> int:
        statement = waiting.unfinished(queues)
        return self.read(lambda connection: int(connection.execute(statement).scalar_one()))

    def announce(self) -> None:
        """Say nothing: most databases have no way to."""

    def announce_within(self, connection: Connection) -> None:
        """Say it when the transaction of ``connection`` commits."""

    def listen(self) -> Listener | None:
        return None

    def change_mark(self) -> object:
        return None

    def claim_own(self, node_id: int, queues: Sequence[str] | None, limit: int) -> list[ClaimedJob]:
        ids = [] if self.shortage() else self.read(lambda connection: claiming.find_own(connection, queues, limit))
        now = self._clock.now_us()
        return self.write(lambda connection: claiming.claim(connection, node_id, ids, now)) if ids else []

    def held(self, node_id: int) -> list[ClaimedJob]:
        found = self.read(lambda connection: connection.execute(doubt.HELD_BY, {"node": node_id}).all())
        return [ClaimedJob._make((*row, b"", None)) for row in found]

    # --- reading --------------------------------------------------------------------------------------------

    def get(self, job_id: bytes) -> JobRow | None:
        row = self.read(lambda connection: connection.execute(reading.GET, {"id": job_id}).one_or_none())
        return None if row is None else job_row(row)

    def find(self, which: JobFilter, limit: int = 100) -> list[JobRow]:
        parts = [reading.find(part, limit) for part in narrowed(which)]
        rows = self.read(lambda connection: [row for part in parts for row in connection.execute(part)])
        rows.sort(key=lambda row: row[0], reverse=True)
        return [job_row(row) for row in rows[:limit]]

    def count(self, which: JobFilter) -> int:
        parts = [reading.count(part) for part in narrowed(which)]
        return self.read(lambda connection: sum(int(connection.execute(part).scalar_one()) for part in parts))

    def attempts(self, job_ids: Collection[bytes]) -> dict[bytes, list[AttemptRow]]:
        parts = [reading.attempts_of(part) for part in chunks(without_repeats(job_ids))]
        return attempts_by_job(
            self.read(lambda connection: [row for part in parts for row in connection.execute(part)])
        )

    def parents(self, job_ids: Collection[bytes]) -> dict[bytes, list[bytes]]:
        return self.read(lambda connection: depending.parents_of(connection, without_repeats(job_ids)))

    def states(self, job_ids: Collection[bytes]) -> dict[bytes, State]:
        parts = list(chunks(without_repeats(job_ids)))
        rows = self.read(
            lambda connection: [row for part in parts for row in connection.execute(reading.STATES, {"ids": part})]
        )
        return {row[0]: state_of(row[1]) for row in rows}

    def queues(self) -> list[QueueRow]:
        return queue_rows(self.read(lambda connection: connection.execute(reading.QUEUES).all()))

    def rollups(self, since: int, queue: str | None = None) -> list[RollupRow]:
        statement = counting.rollups_since(since, queue)
        rows = self.read(lambda connection: connection.execute(statement).all())
        return [RollupRow(row[0], row[1], *map(int, row[2:])) for row in rows]

    # --- control --------------------------------------------------------------------------------------------

    def cancel(self, which: JobFilter) -> list[bytes]:
        now = self._clock.now_us()
        return self.write(lambda connection: control.cancel(connection, which, now), repeatable=False)

    def revive(self, which: JobFilter, *, run_at: int | None = None) -> list[bytes]:
        now = self._clock.now_us()
        return self.write(lambda connection: control.revive(connection, which, run_at, now), repeatable=False)

    def update(self, job_id: bytes, changes: JobChanges) -> bool:
        now = self._clock.now_us()
        return self.write(lambda connection: control.update(connection, job_id, changes, now), repeatable=False)

    def delete(self, which: JobFilter) -> int:
        now = self._clock.now_us()
        return self.write(lambda connection: control.delete(connection, which, now), repeatable=False)

    def flush(self, queue: str | None = None) -> int:
        now = self._clock.now_us()
        return self.write(lambda connection: control.flush(connection, queue, now), repeatable=False)

    def pause(self, queue: str, note: str | None = None) -> None:
        values = {"queue": queue, "paused_at": self._clock.now_us(), "note": note}
        self.write(lambda connection: connection.execute(self._pause, values))

    @property
    def _pause(self) -> Any:
        return control_statements.pause(self.engine.dialect.name)

    def resume(self, queue: str) -> None:
        self.write(lambda connection: connection.execute(control_statements.RESUME, {"named": queue}))

    # --- upkeep ---------------------------------------------------------------------------------------------

    def purge(self, before: int, states: Collection[State], queue: str | None = None, limit: int = 5000) -> int:
        due = self.read(lambda connection: upkeep.due(connection, before, states, queue, limit))
        return self.write(lambda connection: upkeep.remove(connection, due)) if due else 0

    def purge_beyond(self, keep: int, queue: str, limit: int = 5000) -> int:
        due = self.read(lambda connection: upkeep.beyond(connection, keep, queue, limit))
        return self.write(lambda connection: upkeep.remove(connection, due)) if due else 0

    def purgeable(self, before: int, states: Collection[State], queue: str | None = None) -> int:
        return self.read(lambda connection: upkeep.count_due(connection, before, states, queue))

    def kept_since(self, keep: int, queue: str) -> int | None:
        return self.read(lambda connection: upkeep.kept_since(connection, keep, queue))

    def sweep(self, minutes_before: int, nodes_before: int, limit: int = 5000) -> int:
        return self.write(lambda connection: upkeep.sweep(connection, minutes_before, nodes_before, limit))

    def restore_lanes(self) -> int:
        partial = self.capabilities.partial_index
        missing = upkeep_statements.LANES_MISSING if partial else upkeep_statements.LANES_MISSING_IN_WHOLE_INDEX
        found = self.read(lambda connection: connection.execute(missing).first())
        return self.write(lambda connection: upkeep.note_missing_lanes(connection, missing)) if found else 0

    def tend(self, node_id: int) -> list[str]:  # noqa: ARG002 - most databases look after themselves
        return []

    def findings(self) -> list[Finding]:
        found = self.read(lambda connection: examination.general(connection, self._clock))
        fits = all(each.level is not Level.ERROR for each in found)
        return found + (self._examine() if fits else [])

    def _examine(self) -> list[Finding]:
        """Return what is to be said of this kind of database; the tables are known to be there."""
        return []

    def mend(self) -> list[str]:
        fits = self.schema_status().fit is schema.Fit.CURRENT
        return self._mend() if fits else []

    def _mend(self) -> list[str]:
        return self.write(examination.make_missing_indexes)

    def parked(self) -> list[Parked]:
        return self.read(upkeep.parked)

    def live_keys(self) -> dict[str, int]:
        return self.read(upkeep.live_keys)

    # --- keys -----------------------------------------------------------------------------------------------

    def keys(self) -> list[KeyRow]:
        columns = (keys.c.key_id, keys.c.state, keys.c.check_value, keys.c.created_at, keys.c.retired_at)
        statement = select(*columns).order_by(keys.c.created_at, keys.c.key_id)
        return self.read(lambda connection: [KeyRow(*row) for row in connection.execute(statement)])

    def add_key(self, key_id: str, check_value: bytes, state: str = "active") -> None:
        now = self._clock.now_us()
        values = {"key_id": key_id, "check_value": check_value, "state": state, "created_at": now}
        statement = unless_there(insert_into(keys, self.engine.dialect.name).values(values), ["key_id"])
        self.write(lambda connection: connection.execute(statement))

    def key_usage(self) -> dict[str, int]:
        return self.read(lambda connection: {row[0]: row[1] for row in connection.execute(reading.KEY_USAGE)})
