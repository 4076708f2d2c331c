"""MySQL and MariaDB: claims in two steps, rows touched in the order of their ids, nothing that one of them lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count
from typing import Any, Final

from sqlalchemy import URL, Connection

from taskqueue.clock import Clock
from taskqueue.drivers.examination import make_missing_indexes
from taskqueue.drivers.kept import Kept
from taskqueue.drivers.mysql_connecting import (
    COMMITS_BY_ITSELF,
    alone,
    begin_for_handler,
    engine_for,
    in_transaction,
    located,
    packet_limit,
    restore,
    without_haste,
)
from taskqueue.drivers.mysql_cycle import CycleWork, NotHeld, Place, walk
from taskqueue.drivers.mysql_errors import fault, is_known_id, translated
from taskqueue.drivers.mysql_texts import MOST_ROWS, Texts
from taskqueue.drivers.mysql_upkeep import examine
from taskqueue.drivers.server import LOST_LOCKS, Fault, ServerDriver
from taskqueue.drivers.values import Capabilities, Completion, Cycle, Ending, Finding, Lanes, NewJob, Stale
from taskqueue.drivers.verbs import pushing
from taskqueue.drivers.verbs.chunks import chunks
from taskqueue.drivers.verbs.finishing import held
from taskqueue.errors import DatabaseBusy, PayloadTooLarge

_BESIDE_PAYLOAD: Final = 32_768
"""Bytes that the other values of a job may need in a statement, at most and then some."""


def connect(url: str, _durability: str, clock: Clock) -> MySQLDriver:
    """Return the driver for a ``mysql:`` or ``mariadb:`` URL. Connects to nothing.

    How durable a commit is the server decides for all: ``innodb_flush_log_at_trx_commit``.
    """
    return MySQLDriver(*located(url), clock)


class MySQLDriver(ServerDriver):
    """The verbs on MySQL and MariaDB."""

    _commits_by_itself = COMMITS_BY_ITSELF

    def __init__(self, url: URL, address: str, clock: Clock) -> None:
        super().__init__(engine_for(url), address, clock)
        self.capabilities = Capabilities(returning=False, notify=False, partial_index=False, transactional_ddl=False)
        self._url = url
        self._texts: Texts | None = None
        self._packet = 0
        """How many bytes a statement may have; half of what the server takes."""

    # --- the seam -------------------------------------------------------------------------------------------

    def _fault(self, error: BaseException) -> Fault | None:
        return fault(error)

    def _translated(self, error: BaseException) -> Exception | None:
        return translated(error, self.describe())

    def _in_transaction(self, raw: Any) -> bool:
        return in_transaction(raw)

    def _begin(self, kept: Kept) -> None:
        kept.raw.begin()

    def _commit(self, kept: Kept) -> None:
        kept.raw.commit()

    def _undo(self, kept: Kept) -> None:
        if kept.raw is not None and in_transaction(kept.raw):
            kept.raw.rollback()

    def _clean(self, kept: Kept, error: BaseException) -> None:
        # An interrupt may come between a statement and its answer, which the next statement would take for its own.
        if isinstance(error, Exception):
            super()._clean(kept, error)
        else:
            kept.drop()

    def _without_haste(self, kept: Kept) -> AbstractContextManager[None]:
        return without_haste(kept.raw)

    def _begin_for_handler(self, kept: Kept, seconds: float) -> None:
        begin_for_handler(kept.raw, seconds)

    def _restore(self, kept: Kept) -> None:
        restore(kept.raw)

    @contextmanager
    def migrating(self, patience: float = 60.0) -> Iterator[Connection]:
        try:
            with alone(self._url, patience, self.describe()) as connection:
                yield connection
        except Exception as error:
            found = self._translated(error)
            if found is None:
                raise
            raise found from error

    def _statements(self, kept: Kept) -> Texts:
        """Return the statements, compiled when the first connection has said which server this is."""
        if self._texts is None:
            self._packet = packet_limit(kept.raw)
            self._texts = Texts(self.engine.dialect)
        return self._texts

    # --- push -----------------------------------------------------------------------------------------------

    def push(self, job: NewJob, tags: Sequence[str] = (), parents: Sequence[bytes] = ()) -> None:
        if tags or parents:
            self.push_many((job,), (tags,), (parents,) if parents else ())
        else:
            runs = count()
            self.on_link(lambda kept: self._push(kept, job, repeated=next(runs) > 0))

    def _push(self, kept: Kept, job: NewJob, *, repeated: bool) -> None:
        if repeated:  # The run before may be under way still: then only a look after the insert is certain.
            self.transact(kept, lambda: pushing.push(kept.connection, [job]))
            return
        texts = self._statements(kept)
        with kept.raw.cursor() as cursor:
            self._note_lanes(cursor, texts, (job,))
            self._insert(cursor, texts, job)

    def _insert(self, cursor: Any, texts: Texts, job: NewJob) -> bool:
        """Insert a job; False where its id is known. A statement that fails does not end the transaction."""
        self._refuse_too_large(job)
        try:
            cursor.execute(texts.insert_job.sql, texts.insert_values(job))
        except Exception as error:
            if not is_known_id(error):
                raise
            return False
        return bool(cursor.rowcount == 1)

    def push_many(
        self, jobs: Sequence[NewJob], tags: Sequence[Sequence[str]] = (), parents: Sequence[Sequence[bytes]] = ()
    ) -> None:
        if not jobs:
            return
        if any(parents):
            self.write(lambda connection: pushing.push(connection, jobs, tags, parents))
        else:
            runs = count()
            self.on_link(lambda kept: self._push_many(kept, jobs, tags, repeated=next(runs) > 0))

    def _push_many(self, kept: Kept, jobs: Sequence[NewJob], tags: Sequence[Sequence[str]], *, repeated: bool) -> None:
        if repeated:
            self.transact(kept, lambda: pushing.push(kept.connection, jobs, tags))
            return
        texts = self._statements(kept)
        with kept.raw.cursor() as cursor:
            self._note_lanes(cursor, texts, jobs)
            if tags:
                self.transact(kept, lambda: self._insert_tagged(cursor, texts, jobs, tags))
            else:
                self._insert_all_or_the_rest(kept, cursor, texts, jobs)

    def _insert_all_or_the_rest(self, kept: Kept, cursor: Any, texts: Texts, jobs: Sequence[NewJob]) -> None:
        """Insert jobs; once more where an earlier try, whose COMMIT was in doubt, was committed meanwhile."""
        try:
            self.transact(kept, lambda: self._insert_all(cursor, texts, jobs))
        except Exception as error:
            if not is_known_id(error):
                raise
            self._undo(kept)
            self.transact(kept, lambda: self._insert_all(cursor, texts, jobs))

    def _insert_tagged(self, cursor: Any, texts: Texts, jobs: Sequence[NewJob], tags: Sequence[Sequence[str]]) -> None:
        for job, labels in zip(jobs, tags, strict=True):
            if self._insert(cursor, texts, job) and labels:
                cursor.executemany(texts.insert_tag, [(label, job.id) for label in dict.fromkeys(labels)])

    def _insert_all(self, cursor: Any, texts: Texts, jobs: Sequence[NewJob]) -> None:
        for part in chunks(jobs, MOST_ROWS):
            new = {job.id: job for job in reversed(part)}
            for job in part:
                self._refuse_too_large(job)
            for text in texts.known(new):
                cursor.execute(text)
                for (known,) in cursor.fetchall():
                    new.pop(known, None)
            for text in texts.insert(list(new.values()), self._packet):
                cursor.execute(text)

    def _refuse_too_large(self, job: NewJob) -> None:
        """Say what is wrong before the server does, which just cuts the connection. Bytes are sent as hexadecimal."""
        if len(job.payload) > self._packet - _BESIDE_PAYLOAD:
            raise PayloadTooLarge(
                f"a payload of {len(job.payload):,} bytes is too large for {self.describe()}, which takes"
                f" {self._packet - _BESIDE_PAYLOAD:,}: store the data elsewhere and push a reference, or raise"
                " max_allowed_packet on the server (to twice the payload)"
            )

    def _note_lanes(self, cursor: Any, texts: Texts, jobs: Sequence[NewJob]) -> None:
        """Make lanes known before anything is put into them: one that stays empty does no harm."""
        new = self._lanes.missing(jobs)
        if new:
            cursor.executemany(texts.insert_lane, new)
            self._lanes.remember(new)

    # --- the way of a job -----------------------------------------------------------------------------------

    def record_start(self, node_id: int, job_id: bytes, lease: int) -> bool:
        now = self._clock.now_us()

        def record(kept: Kept) -> bool:
            texts = self._statements(kept)
            with kept.raw.cursor() as cursor:
                cursor.execute(texts.record_start.sql, texts.start_values((job_id, lease, node_id, now)))
                return bool(cursor.rowcount == 1)

        return self.on_link(record)

    def _cycle(
        self,
        kept: Kept,
        node_id: int,
        completions: Sequence[Completion],
        endings: Sequence[Ending],
        lanes: Lanes,
        limit: int,
        now: int,
    ) -> Cycle:
        texts = self._statements(kept)
        with kept.raw.cursor() as cursor:
            if not completions and not endings and (limit <= 0 or not walk(cursor, texts, lanes)):
                return Cycle()
            return self._write_cycle(
                kept, cursor, completions, endings, lanes, limit, Place(node_id, now, self._packet)
            )

    def _write_cycle(
        self,
        kept: Kept,
        cursor: Any,
        completions: Sequence[Completion],
        endings: Sequence[Ending],
        lanes: Lanes,
        limit: int,
        place: Place,
    ) -> Cycle:
        stale: list[Stale] = []
        for _ in range(LOST_LOCKS):
            cycle = CycleWork(kept.connection, cursor, self._statements(kept), place)
            try:
                self._begin(kept)
                cycle.complete(completions)
                cycle.end(endings)
                claimed = cycle.claim(lanes, limit) if limit > 0 else []
                cycle.count()
                self.finish(kept)
            except Exception as error:
                if not isinstance(error, NotHeld) and not is_known_id(error):
                    raise
                self._undo(kept)
                ids = pushing.ids_of(completions, endings)
                doubled = self.transact(kept, partial(pushing.take_back, kept.connection, ids))
                if not doubled and not isinstance(error, NotHeld):
                    raise
                completions, refused = held(kept.connection, completions)
                stale += refused
                continue
            cycle.note_marks(lanes)
            return Cycle(claimed, [*stale, *cycle.stale])
        raise DatabaseBusy(
            f"{self.describe()}: completed jobs changed {LOST_LOCKS} times in a row while they were written"
        )

    # --- upkeep ---------------------------------------------------------------------------------------------

    def _examine(self) -> list[Finding]:
        return self.read(lambda connection: examine(connection, self._clock))

    def _mend(self) -> list[str]:
        with self.migrating() as connection:  # An index of a long history takes longer than a statement is given.
            return make_missing_indexes(connection)
