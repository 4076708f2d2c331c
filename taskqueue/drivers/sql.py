"""`SQLDriver`: the verbs on shared statements; a database's own driver overrides what is different there."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, select

from taskqueue.clock import Clock
from taskqueue.drivers import schema
from taskqueue.drivers.base import Driver
from taskqueue.drivers.lanes import SLACK_US
from taskqueue.drivers.rows import attempts_by_job, job_row, queue_rows
from taskqueue.drivers.statements import control as control_statements
from taskqueue.drivers.statements import counting, reading, waiting
from taskqueue.drivers.statements import nodes as node_statements
from taskqueue.drivers.statements.parts import insert_into, unless_there
from taskqueue.drivers.tables import installation, keys
from taskqueue.drivers.values import (
    AttemptRow,
    JobChanges,
    JobFilter,
    JobRow,
    KeyRow,
    Lanes,
    NewJob,
    NodeIdentity,
    NodeRow,
    Promotion,
    QueueRow,
    Rescue,
    RollupRow,
)
from taskqueue.drivers.verbs import control, nodes, pushing, rescuing
from taskqueue.drivers.verbs.chunks import chunks, narrowed, without_repeats
from taskqueue.states import State, state_of

T = TypeVar("T")


class SQLDriver(Driver):
    """Every verb that SQLAlchemy Core can say the same way everywhere."""

    engine: Engine

    def __init__(self, address: str, clock: Clock) -> None:
        self._address = address
        self._clock = clock
        self._ours: weakref.WeakSet[Engine] = weakref.WeakSet()
        """Engines of callers that were found to lead to this very database."""

    # --- the seam to a database's own driver ----------------------------------------------------------------

    @abstractmethod
    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` on a connection that sees what is committed, again where the database was busy."""

    @abstractmethod
    def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in one transaction, from the start again where it lost a lock."""

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
        row = self.read(lambda connection: connection.execute(select(installation.c.id, installation.c.salt)).one())
        return row.id, row.salt

    def push_within(self, session: Any, jobs: Sequence[NewJob], tags: Sequence[Sequence[str]] = ()) -> None:
        connection = session if isinstance(session, Connection) else session.connection()
        if connection.engine not in self._ours:
            pushing.refuse_another_database(connection, self.installation()[0], self.describe())
            self._ours.add(connection.engine)
        pushing.push(connection, jobs, tags)

    # --- the way of a job -----------------------------------------------------------------------------------

    def lanes(self, queues: Sequence[str] | None) -> Lanes:
        return Lanes(None if queues is None else tuple(dict.fromkeys(queues)))

    def promote(self, limit: int = 1000) -> Promotion:
        now = self._clock.now_us()
        next_run_at = self.read(lambda connection: connection.execute(waiting.NEXT_RUN_AT).scalar())
        if next_run_at is None or next_run_at > now:
            return Promotion(0, next_run_at)
        return self.write(lambda connection: self._promote(connection, limit, now))

    def _promote(self, connection: Connection, limit: int, now: int) -> Promotion:
        ids = list(connection.execute(waiting.DUE, {"now": now, "limit": limit}).scalars())
        earliest = now - SLACK_US if self.capabilities.dead_rows else 0
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

    def change_mark(self) -> object:
        return None

    # --- nodes ----------------------------------------------------------------------------------------------

    def register_node(self, identity: NodeIdentity) -> int:
        now = self._clock.now_us()
        return self.write(lambda connection: nodes.register(connection, identity, now))

    def beat(self, node_id: int, *, state: str = "alive", info: str | None = None) -> bool:
        now = self._clock.now_us()
        return self.write(lambda connection: nodes.beat(connection, node_id, state, info, now))

    def stop_node(self, node_id: int) -> None:
        now = self._clock.now_us()
        self.write(lambda connection: nodes.stop(connection, node_id, now))

    def nodes(self, *, everyone: bool = False) -> list[NodeRow]:
        return self.read(lambda connection: nodes.listed(connection, everyone=everyone))

    def declare_dead(self, node_id: int, sequence: int) -> bool:
        now = self._clock.now_us()
        return self.write(lambda connection: nodes.declare_dead(connection, node_id, sequence, now))

    def orphaned_nodes(self) -> list[int]:
        return self.read(lambda connection: list(connection.execute(node_statements.ORPHANED).scalars()))

    def rescue(self, node_id: int, limit: int = 500) -> Rescue:
        now = self._clock.now_us()
        return self.write(lambda connection: rescuing.rescue(connection, node_id, limit, now))

    def take_turn(self, duty: str, node_id: int, every: float) -> bool:
        now = self._clock.now_us()
        return self.write(lambda connection: nodes.take_turn(connection, duty, node_id, every, now))

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
        return self.write(lambda connection: control.cancel(connection, which, now))

    def revive(self, which: JobFilter, *, run_at: int | None = None) -> list[bytes]:
        now = self._clock.now_us()
        return self.write(lambda connection: control.revive(connection, which, run_at, now))

    def update(self, job_id: bytes, changes: JobChanges) -> bool:
        now = self._clock.now_us()
        return self.write(lambda connection: control.update(connection, job_id, changes, now))

    def delete(self, which: JobFilter) -> int:
        return self.write(lambda connection: control.delete(connection, which))

    def flush(self, queue: str | None = None) -> int:
        return self.write(lambda connection: control.flush(connection, queue))

    def pause(self, queue: str, note: str | None = None) -> None:
        values = {"queue": queue, "paused_at": self._clock.now_us(), "note": note}
        self.write(lambda connection: connection.execute(self._pause, values))

    @property
    def _pause(self) -> Any:
        return control_statements.pause(self.engine.dialect.name)

    def resume(self, queue: str) -> None:
        self.write(lambda connection: connection.execute(control_statements.RESUME, {"named": queue}))

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
