"""Statements over lists for MySQL and MariaDB, as texts in which the values of each row are spelled out.

The client puts values into the text in any case, one call for each; a row at a time costs a quarter of that. Only what
has its own safe spelling is put in here: numbers, and bytes in hexadecimal. Strings are quoted by the client, with
backslashes: the mode in which a server takes those literally is off on our connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from pymysql.converters import escape_item, escape_str
from sqlalchemy import Integer, Update, bindparam, func, insert, literal_column, or_, select, update

from taskqueue.drivers import tables
from taskqueue.drivers.lanes import Lane
from taskqueue.drivers.prepared import prepare
from taskqueue.drivers.statements import claiming, control, finishing, pushing
from taskqueue.drivers.statements.parts import constant, given, in_state
from taskqueue.drivers.tables import dependencies, history, jobs, lanes, queues
from taskqueue.drivers.values import ClaimedJob, Completion, Lanes, NewJob
from taskqueue.drivers.verbs.finishing import Finisher

MOST_ROWS: Final = 500

_ROW: Final = "(%s, %s, %s, %s, %s)"
_one_id = [bindparam("id", type_=jobs.c.id.type)]

# What the client reads it takes apart column by column: ten numbers in one text cost it a third of ten columns.
_NUMBERS = func.concat_ws(
    literal_column("' '"),
    jobs.c.lease + constant(1),
    jobs.c.attempt + constant(1),
    *[jobs.c[name] for name in ("max_attempts", "crashes", "losses", "delivery", "force_spawn")],
    *[jobs.c[name] for name in ("created_at", "ready_at")],
    *[func.coalesce(jobs.c[name], literal_column("'-'")) for name in ("timeout_ms", "memory_limit", "expires_at")],
)
_HEAD = (
    claiming.HEAD.with_only_columns(
        jobs.c.id, _NUMBERS, *[jobs.c[name] for name in ("job_class", "backoff", "key_id", "payload", "checkpoint")]
    )
    .with_for_update(skip_locked=True)
    .with_hint(jobs, "FORCE INDEX (tq_jobs_claim_full)")
)
_CLAIM: Update = (
    update(jobs)
    .where(jobs.c.id.in_(_one_id))
    .values(
        {
            jobs.c.state: constant(tables.PROCESSING),
            jobs.c.lease: jobs.c.lease + constant(1),
            jobs.c.attempt: jobs.c.attempt + constant(1),
            jobs.c.node_id: given(jobs, "node_id", "node"),
            jobs.c.claimed_at: given(jobs, "claimed_at", "now"),
        }
    )
)

# A subquery with a LIMIT is asked for each lane, down the index; as EXISTS it would be turned into a join, which may
# start by reading every job that is pending.
_FIRST = (
    select(jobs.c.id)
    .with_hint(jobs, "FORCE INDEX (tq_jobs_claim_full)")
    .where(in_state(jobs, tables.PENDING), jobs.c.queue == lanes.c.queue, jobs.c.rank == lanes.c.rank)
    .correlate(lanes)
    .limit(bindparam("one", type_=jobs.c.rank.type))
    .scalar_subquery()
)
_PAUSE = (
    select(queues.c.queue).where(queues.c.queue == lanes.c.queue, queues.c.paused_at.is_not(None)).correlate(lanes)
).exists()
_LANES = (
    select(lanes.c.queue, lanes.c.rank)
    .where(
        ~_PAUSE,
        bindparam("is_served", type_=Integer) == constant(1),
        or_(bindparam("is_marked", type_=Integer) == constant(1), _FIRST.is_not(None)),
    )
    .order_by(lanes.c.rank, lanes.c.queue)
)
"""The lanes to be tried. One that has a low-water mark is tried without a look at its beginning, where the dead are."""

_INSERT_ONE = insert(jobs).values({name: given(jobs, name) for name in NewJob._fields})
_EDGE_BETWEEN = (
    select(dependencies.c.parent_id)
    .where(
        dependencies.c.parent_id.between(
            given(dependencies, "parent_id", "first"), given(dependencies, "parent_id", "last")
        )
    )
    .limit(bindparam("one", type_=Integer))
)
_EDGES = select(dependencies.c.parent_id).where(dependencies.c.parent_id.in_(_one_id)).distinct()
_KNOWN = [select(table.c.id).where(table.c.id.in_(_one_id)) for table in (jobs, history)]


def read_head(lane: Lane, rows: Iterable[Sequence[Any]]) -> list[ClaimedJob]:
    """Return the jobs at the head of a lane as they are once they are claimed."""
    queue, rank = lane
    claimed = []
    for job_id, numbers, job_class, backoff, key_id, payload, checkpoint in rows:
        lease, attempt, most, crashes, losses, delivery, spawn, made, ready, *limits = numbers.split(" ")
        timeout, memory, expires = limits
        values = (
            job_id,
            int(lease),
            queue,
            rank,
            job_class,
            int(attempt),
            int(most),
            int(crashes),
            int(losses),
            int(delivery),
            None if timeout == "-" else int(timeout),
            None if memory == "-" else int(memory),
            int(spawn),
            backoff,
            int(made),
            int(ready),
            None if expires == "-" else int(expires),
            key_id,
            payload,
            checkpoint,
        )
        claimed.append(_make(ClaimedJob, values))
    return claimed


_make: Callable[[type[ClaimedJob], tuple[Any, ...]], ClaimedJob] = tuple.__new__
"""`ClaimedJob._make` without its call in Python for each job."""


def hexed(ids: Iterable[bytes]) -> str:
    """Return a list of ids for a statement."""
    return ",".join([f"x'{each.hex()}'" for each in ids])


class Texts:
    """The statements, compiled for the dialect of a connection that was opened: servers differ in what they take."""

    def __init__(self, dialect: Any) -> None:
        self._row = "" if dialect.is_mariadb else "ROW"
        self.finisher = Finisher(dialect)
        self._spellings = _Spellings()
        self._complete = {keeping: _completing(dialect, keeping_payload=keeping) for keeping in (False, True)}
        self._remove = prepare(finishing.remove(1), dialect).sql
        self._edge_between = prepare(_EDGE_BETWEEN, dialect).sql
        self._with_edges = prepare(_EDGES, dialect).sql
        self._known = [prepare(each, dialect).sql for each in _KNOWN]
        self._claim = _by_id(prepare(_CLAIM, dialect).sql)
        self._head = prepare(_HEAD, dialect)
        self._head_values = self._head.picker(("queue", "rank", "low", "limit"))
        self._lanes = prepare(_LANES, dialect).sql
        self.keeping = prepare(control.QUEUES_KEEPING_PAYLOADS, dialect).sql
        self.insert_job = prepare(pushing.insert_job(dialect.name), dialect)
        self.insert_values = self.insert_job.picker(NewJob._fields)
        self.insert_lane = prepare(pushing.insert_lane(dialect.name), dialect).sql
        self.insert_tag = prepare(pushing.insert_tag(dialect.name), dialect).sql
        self.record_start = prepare(finishing.RECORD_START, dialect)
        self.start_values = self.record_start.picker(("job", "held", "node", "now"))
        self._insert = prepare(_INSERT_ONE, dialect).sql.partition("VALUES ")[0] + "VALUES "

    def complete(self, done: Sequence[Completion], most: int, *, keeping_payload: bool) -> Iterator[str]:
        """Note completed jobs in history and lock them, in statements of ``most`` bytes."""
        row, text = self._row, self._complete[keeping_payload]
        for rows in _packed([row + _done(each) for each in done], most):
            yield text % ",".join(rows)

    def remove(self, ids: Sequence[bytes]) -> str:
        """Take away rows that were copied."""
        # The order makes it find them by their ids: of a small table it would read and lock all, others' new ones too.
        return f"{self._remove % hexed(ids)} ORDER BY tq_jobs.id LIMIT {len(ids):d}"

    def edge_between(self, first: bytes, last: bytes) -> str:
        """Say whether others depend on any job with an id in this range: cheaper to ask than for each of a list."""
        return self._edge_between % (hexed([first]), hexed([last]), 1)

    def with_edges(self, ids: Iterable[bytes]) -> str:
        """Find which of these jobs others depend on."""
        return self._with_edges % hexed(ids)

    def known(self, ids: Iterable[bytes]) -> list[str]:
        """Find which of these jobs there are, among the live ones and then in history: that is the way they go."""
        wanted = hexed(ids)
        return [text % wanted for text in self._known]

    def lanes(self, served: Lanes) -> str:
        """Find the lanes that have work, or had more than was taken, and are not paused."""
        queues_served = "1"
        if served.queues is not None:
            names = ",".join([escape_str(queue) for queue in served.queues])
            queues_served = f"(tq_lanes.queue IN ({names}))" if names else "0"
        marks = ",".join([f"({escape_str(queue)},{rank:d})" for queue, rank in served.low])
        marked = f"((tq_lanes.queue, tq_lanes.`rank`) IN ({marks}))" if marks else "0"
        return self._lanes % (queues_served, marked, 1)

    def head(self, lane: tuple[str, int], low: int, limit: int) -> str:
        """Lock and read the head of a lane, passing over what others have locked."""
        queue, rank = lane
        return self._head.sql % tuple(self._head_values((escape_str(queue), rank, low, limit)))

    def claim(self, rows: Sequence[Sequence[Any]], node_id: int, now: int) -> str:
        """Claim rows that are locked."""
        return self._claim % (node_id, now, hexed(sorted([row[0] for row in rows])))

    def insert(self, new: Sequence[NewJob], most: int) -> Iterator[str]:
        """Yield statements that insert jobs, of ``most`` bytes at most; one row may be longer."""
        spellings = self._spellings
        spelled = [f"({','.join([spellings[type(value)](value) for value in job])})" for job in new]
        for rows in _packed(spelled, most):
            yield self._insert + ",".join(rows)


def _packed(rows: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """Yield rows together that fit into one statement; a longer one comes alone. Nothing for no rows."""
    if not rows:
        return
    lengths = [len(row) if row.isascii() else len(row.encode()) for row in rows]
    if sum(lengths) + len(rows) <= most:
        yield rows
        return
    start = size = 0
    for place, length in enumerate(lengths):
        if size + length > most and place > start:
            yield rows[start:place]
            start, size = place, 0
        size += length + 1
    yield rows[start:]


class _Spellings(dict[type, Callable[[Any], str]]):
    """How values are spelled in a statement, by their type; any other type is left to the client."""

    def __init__(self) -> None:
        super().__init__({int: int.__repr__, bytes: _hexed, type(None): _null, str: escape_str})

    def __missing__(self, _kind: type) -> Callable[[Any], str]:
        return escape_item


def _hexed(value: bytes) -> str:
    return f"x'{value.hex()}'"


def _null(_value: None) -> str:
    return "NULL"


def _done(each: Completion) -> str:
    result = "NULL" if each.result is None else f"x'{each.result.hex()}'"
    return f"(x'{each.id.hex()}',{each.lease:d},{each.finished_at:d},{each.run_us:d},{result})"


def _by_id(text: str) -> str:
    """Let an UPDATE find its rows by their ids: of a small table it would read and lock all, others' new ones too."""
    begins = f"UPDATE {jobs.name}"
    if not text.startswith(begins):
        raise ValueError(f"a statement must begin with {begins}")
    return f"{begins} FORCE INDEX (PRIMARY){text.removeprefix(begins)}"


def _completing(dialect: Any, *, keeping_payload: bool) -> str:
    text = prepare(finishing.complete(1, keeping_payload=keeping_payload, locking=True), dialect).sql
    if text.count(_ROW) != 1:
        raise ValueError("a statement over a list must hold it once")
    return text.replace(_ROW, "%s")
