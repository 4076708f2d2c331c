"""SQLite: one file, one writer at a time, and the quickest way from a push to a run on one machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from typing import Any, TypeVar

from sqlalchemy import Connection, NullPool, create_engine, event

from taskqueue.clock import Clock
from taskqueue.drivers.kept import Kept, KeptConnections
from taskqueue.drivers.lanes import in_turn
from taskqueue.drivers.prepared import PreparedBatch, prepare
from taskqueue.drivers.sql import SQLDriver
from taskqueue.drivers.sqlite_binding import bindable
from taskqueue.drivers.sqlite_errors import Translating, is_busy, is_read_only
from taskqueue.drivers.sqlite_files import Location, create_file, fault_of, locate
from taskqueue.drivers.sqlite_patience import BUSY_PATIENCE, patiently
from taskqueue.drivers.sqlite_room import Room
from taskqueue.drivers.sqlite_transacting import Steps, handler_transaction
from taskqueue.drivers.sqlite_upkeep import close_to_others, examine, restore_log_mode, tend
from taskqueue.drivers.statements import claiming, control, finishing, pushing, releasing
from taskqueue.drivers.transacting import Transaction
from taskqueue.drivers.values import Capabilities, ClaimedJob, Completion, Cycle, Ending, Finding, Lanes, NewJob, Stale
from taskqueue.drivers.verbs import pushing as pushing_verbs
from taskqueue.drivers.verbs.finishing import Finisher, final_states, held
from taskqueue.drivers.verbs.releasing import parents_among, release
from taskqueue.drivers.verbs.tally import Tally
from taskqueue.errors import StorageFull

T = TypeVar("T")

_make: Callable[[type[ClaimedJob], tuple[Any, ...]], ClaimedJob] = tuple.__new__
"""`ClaimedJob._make` without its call in Python for each job."""


def connect(url: str, durability: str, clock: Clock) -> SQLiteDriver:
    """Return the driver for an ``sqlite:`` URL."""
    return SQLiteDriver(locate(url), durability, clock)


class _NotHeld(Exception):
    """A batch of completions holds a stale one: the transaction is undone and each is looked at."""


class SQLiteDriver(SQLDriver):
    """The verbs on SQLite. Hot ones run prepared statements on the thread's own connection, in autocommit mode."""

    def __init__(self, location: Location, durability: str, clock: Clock) -> None:
        super().__init__(location.address, clock)
        self.capabilities = Capabilities(
            skip_locked=False, notify=False, concurrent_writers=False, remote=False, dead_rows=False
        )
        self._location = location
        self._full = durability == "full"
        self._room = Room(location.path, clock)
        self._translating = Translating(location.path, self._take_note)
        self._read_only_until = 0
        """Connections up to this number were opened on a disk that could only be read."""
        self.engine = create_engine(
            "sqlite+pysqlite://", creator=self._open, poolclass=NullPool, isolation_level="AUTOCOMMIT"
        )
        event.listen(self.engine, "connect", self._configure)
        self._anchor = self._open() if location.path is None else None
        self._connections = KeptConnections(self.engine, closes_for_forks=location.path is not None)
        self._prepare()

    def _prepare(self) -> None:
        dialect = self.engine.dialect
        # The list of a batch follows the INSERT: a statement that starts with WITH tells no count of rows.
        dialect.cte_follows_insert = True
        self._insert_job = prepare(pushing.insert_job(dialect.name), dialect)
        self._job_values = self._insert_job.picker(NewJob._fields)
        self._insert_jobs = PreparedBatch(
            partial(pushing.insert_jobs, dialect=dialect.name), dialect, NewJob._fields, bindable
        )
        self._insert_lane = prepare(pushing.insert_lane(dialect.name), dialect).sql
        self._insert_tag = prepare(pushing.insert_tag(dialect.name), dialect).sql
        self._lanes_with_work = prepare(claiming.LANES_WITH_WORK, dialect).sql
        self._lanes_of_queue = prepare(claiming.LANES_OF_QUEUE_WITH_WORK, dialect).sql
        self._head = prepare(claiming.HEAD, dialect).sql
        self._claim_head = prepare(claiming.CLAIM_HEAD, dialect).sql
        self._record_start = prepare(finishing.RECORD_START, dialect)
        self._start_values = self._record_start.picker(("job", "held", "node", "now"))
        self._keeping = prepare(control.QUEUES_KEEPING_PAYLOADS, dialect).sql
        self._any_edge = prepare(releasing.ANY_EDGE, dialect).sql
        self._finisher = Finisher(dialect, bindable)

    # --- connections ----------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        fault = fault_of(self._location.path) if self._location.path else None
        if fault is not None:
            raise fault
        return sqlite3.connect(self._location.uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)

    def _configure(self, raw: sqlite3.Connection, _record: object = None) -> None:
        # The log mode is a property of the file and is set when it is made: here it would touch a foreign one.
        raw.execute(f"PRAGMA synchronous = {'FULL' if self._full else 'NORMAL'}")
        raw.execute("PRAGMA temp_store = MEMORY")

    def _use(self) -> Kept:
        """Lend a connection, to be used by ``with``. To open one reads the file, which may be locked."""
        return self._patiently(partial(self._connections.use, self._read_only_until))

    def _take_note(self, error: BaseException, found: Exception) -> None:
        if isinstance(found, StorageFull):
            self._room.run_out()
        elif is_read_only(error):
            self._read_only_until = self._connections.newest

    def keep_reserve(self, size: int) -> None:
        self._room.keep(size)

    def admit(self, jobs: Sequence[NewJob]) -> None:
        self._room.admit(jobs)

    def shortage(self) -> str | None:
        return self._room.shortage()

    def close(self) -> None:
        self._connections.close()

    def create(self) -> None:
        """Make the database file where there is none, readable for its owner only."""
        if self._location.path is not None:
            create_file(self._location.path)

    # --- transactions ---------------------------------------------------------------------------------------

    def _patiently(self, attempt: Callable[[], T], patience: float = BUSY_PATIENCE) -> T:
        """Return what ``attempt`` returns, once no other writer is in the way."""
        return patiently(attempt, self._clock, self._address, patience)

    def _begin(self, raw: sqlite3.Connection, patience: float = BUSY_PATIENCE) -> None:
        self._undo(raw)  # What an interrupt between two statements left open would lock everybody out for ever.
        try:
            raw.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            self._patiently(lambda: raw.execute("BEGIN IMMEDIATE"), patience)

    def _commit(self, raw: sqlite3.Connection) -> None:
        try:
            raw.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            self._patiently(lambda: raw.execute("COMMIT"))

    def _undo(self, raw: sqlite3.Connection) -> None:
        if raw.in_transaction:
            raw.execute("ROLLBACK")

    def read(self, work: Callable[[Connection], T]) -> T:
        with self._translating, self._use() as kept:
            return self._patiently(lambda: self._look(kept, work))

    def _look(self, kept: Kept, work: Callable[[Connection], T]) -> T:
        try:
            return work(kept.connection)
        finally:
            kept.connection.rollback()

    def write(self, work: Callable[[Connection], T], *, repeatable: bool = True) -> T:
        del repeatable  # A COMMIT here is never in doubt.
        with self._translating, self._transaction(BUSY_PATIENCE) as connection:
            return work(connection)

    @contextmanager
    def _transaction(self, patience: float) -> Iterator[Connection]:
        with self._use() as kept:
            connection, raw = kept.connection, kept.raw
            try:
                self._begin(raw, patience)
                yield connection
                self._commit(raw)
            except BaseException:
                self._undo(raw)
                raise
            finally:
                connection.rollback()

    @contextmanager
    def migrating(self, patience: float = 60.0) -> Iterator[Connection]:
        with self._translating:
            if self._location.path is not None:
                with self._use() as kept:
                    self._patiently(lambda: kept.raw.execute("PRAGMA journal_mode = WAL").fetchone(), patience)
            with self._transaction(patience) as connection:
                yield connection

    # --- push -----------------------------------------------------------------------------------------------

    def push(self, job: NewJob, tags: Sequence[str] = (), parents: Sequence[bytes] = ()) -> None:
        if parents:
            self.push_many((job,), (tags,), (parents,))
            return
        if tags or not self._lanes.know((job.queue, job.rank)):
            self.push_many((job,), (tags,) if tags else ())
            return
        self._room.admit((job,))
        with self._translating, self._use() as kept:
            raw, sql, values = kept.raw, self._insert_job.sql, bindable(self._job_values(job))
            try:
                raw.execute(sql, values)
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                self._patiently(lambda: raw.execute(sql, values))

    def push_many(
        self, jobs: Sequence[NewJob], tags: Sequence[Sequence[str]] = (), parents: Sequence[Sequence[bytes]] = ()
    ) -> None:
        if not jobs:
            return
        self._room.admit(jobs)
        if any(parents):
            self.write(lambda connection: pushing_verbs.push(connection, jobs, tags, parents))
            return
        new = self._lanes.missing(jobs)
        with self._translating:
            self._on_cursor(lambda cursor: self._insert(cursor, jobs, tags, new))
        self._lanes.remember(new)

    def _insert(
        self, cursor: Any, jobs: Sequence[NewJob], tags: Sequence[Sequence[str]], lanes: Sequence[tuple[str, int]]
    ) -> None:
        if lanes:
            cursor.executemany(self._insert_lane, lanes)
        if not tags:
            self._insert_jobs.run(cursor, jobs)
            return
        for job, labels in zip(jobs, tags, strict=True):
            cursor.execute(self._insert_job.sql, bindable(self._job_values(job)))
            if labels and cursor.rowcount == 1:
                cursor.executemany(self._insert_tag, [(label, job.id) for label in dict.fromkeys(labels)])

    def _on_cursor(self, work: Callable[[Any], T]) -> T:
        """Run ``work`` on a cursor, in one transaction."""
        return self._on_kept(lambda kept: work(kept.raw.cursor()))

    def _on_kept(self, work: Callable[[Kept], T]) -> T:
        """Run ``work`` on a connection, in one transaction."""
        with self._use() as kept:
            raw = kept.raw
            try:
                self._begin(raw)
                result = work(kept)
                self._commit(raw)
            except BaseException:
                self._undo(raw)
                raise
            finally:
                if kept.connection.in_transaction():
                    kept.connection.rollback()  # Some of the work was done on it; for the database all is over.
            return result

    # --- the way of a job -----------------------------------------------------------------------------------

    def cycle(
        self,
        node_id: int,
        completions: Sequence[Completion],
        endings: Sequence[Ending],
        lanes: Lanes,
        limit: int,
    ) -> Cycle:
        limit = 0 if self._room.is_short else limit
        with self._translating:
            if not completions and not endings and (limit <= 0 or not self._has_work(lanes)):
                return Cycle()
            try:
                return self._on_kept(
                    lambda kept: self._cycle(
                        kept.connection, kept.raw.cursor(), node_id, completions, (), endings, lanes, limit
                    )
                )
            except (_NotHeld, sqlite3.IntegrityError):
                return self._careful_cycle(node_id, completions, endings, lanes, limit)

    def _careful_cycle(
        self,
        node_id: int,
        completions: Sequence[Completion],
        endings: Sequence[Ending],
        lanes: Lanes,
        limit: int,
    ) -> Cycle:
        with self._transaction(BUSY_PATIENCE) as connection:
            pushing_verbs.take_back(connection, pushing_verbs.ids_of(completions, endings))
            good, stale = held(connection, completions)
            cursor = connection.connection.cursor()
            return self._cycle(connection, cursor, node_id, good, stale, endings, lanes, limit)

    def _cycle(
        self,
        connection: Connection,
        cursor: Any,
        node_id: int,
        completions: Sequence[Completion],
        stale: Sequence[Stale],
        endings: Sequence[Ending],
        lanes: Lanes,
        limit: int,
    ) -> Cycle:
        now = self._clock.now_us()
        fenced = list(stale)
        tally = Tally(node_id)
        parents = self._parents(connection, cursor, completions, endings)
        if completions:
            keeping = {queue for (queue,) in cursor.execute(self._keeping)}
            if not self._finisher.complete(cursor, completions, keeping):
                raise _NotHeld
            tally.complete(completions)
        for ending in endings:
            held_it = self._finisher.end(cursor, ending, now, tally)
            fenced += () if held_it else (Stale(ending.id, ending.lease),)
        if parents:
            left = final_states(completions, endings, fenced)
            release(connection, {each: left[each] for each in parents & left.keys()}, now, tally)
        claimed = self._claim(cursor, node_id, lanes, limit, now) if limit > 0 else ()
        self._finisher.count(cursor, tally)
        return Cycle(claimed, fenced)

    def _parents(
        self, connection: Connection, cursor: Any, completions: Sequence[Completion], endings: Sequence[Ending]
    ) -> set[bytes]:
        """Return which of these jobs have children. Where no job depends on another it costs one probe."""
        if not completions and not endings:
            return set()
        ((any_edge,),) = cursor.execute(self._any_edge)
        if not any_edge:
            return set()
        return parents_among(connection, [*(each.id for each in completions), *(each.id for each in endings)])

    def transaction(self, seconds: float, patience: float = BUSY_PATIENCE) -> Transaction:
        del seconds  # Nobody but the worker ends it.
        steps = Steps(partial(self._begin, patience=patience), self._commit, self._undo)
        with self._translating:
            return self._patiently(
                lambda: handler_transaction(self._connections, self._clock, steps, self._location.path)
            )

    def _has_work(self, lanes: Lanes) -> bool:
        with self._use() as kept:
            cursor = kept.raw.cursor()
            return self._patiently(lambda: any(True for _ in self._walk(cursor, lanes)))

    def _walk(self, cursor: Any, lanes: Lanes) -> Iterator[tuple[str, int]]:
        """Yield the lanes that have work, in the order in which they are to be served."""
        if lanes.queues is None:
            yield from in_turn(cursor.execute(self._lanes_with_work).fetchall(), lanes.turn)
            return
        for queue in lanes.queues:
            yield from cursor.execute(self._lanes_of_queue, (queue,)).fetchall()

    def _claim(self, cursor: Any, node_id: int, lanes: Lanes, limit: int, now: int) -> list[ClaimedJob]:
        claimed: list[ClaimedJob] = []
        for queue, rank in self._walk(cursor, lanes):
            wanted = limit - len(claimed)
            head = (queue, rank, 0, wanted)
            rows = cursor.execute(self._head, head).fetchall()
            cursor.execute(self._claim_head, (node_id, now, *head))
            claimed += map(_make, repeat(ClaimedJob), rows)
            if len(claimed) >= limit:
                break
        if claimed:
            lanes.turn += 1
        return claimed

    def record_start(self, node_id: int, job_id: bytes, lease: int) -> bool:
        values = self._start_values((job_id, lease, node_id, self._clock.now_us()))
        with self._translating, self._use() as kept:
            raw = kept.raw
            self._sync(raw, full=True)
            try:
                return bool(self._patiently(lambda: raw.execute(self._record_start.sql, values)).rowcount == 1)
            finally:
                self._sync(raw, full=self._full)

    def _sync(self, raw: sqlite3.Connection, *, full: bool) -> None:
        if not self._full:
            raw.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")

    def change_mark(self) -> object:
        with self._translating, self._use() as kept:
            try:
                (version,) = kept.raw.execute("PRAGMA data_version").fetchone()
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                (version,) = self._patiently(lambda: kept.raw.execute("PRAGMA data_version").fetchone())
            return kept.number, version, self._room.is_short

    # --- upkeep ---------------------------------------------------------------------------------------------

    def tend(self, node_id: int) -> list[str]:
        return tend(self, self._location.path, self._room, node_id)

    def _examine(self) -> list[Finding]:
        return self.read(lambda connection: examine(connection, self._location.path, full=self._full))

    def _mend(self) -> list[str]:
        made, path = super()._mend(), self._location.path
        return made if path is None else [*made, *self.read(restore_log_mode), *close_to_others(path)]
