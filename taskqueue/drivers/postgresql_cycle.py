"""The cycle of a dispatcher on PostgreSQL: acknowledge, release, claim, in as few round trips as that can be done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import Dialect

from taskqueue.drivers import tables
from taskqueue.drivers.lanes import Lane, note_claims
from taskqueue.drivers.postgresql_binding import bigints, blobs, integers, names, uuids
from taskqueue.drivers.postgresql_link import HotCursor, Link
from taskqueue.drivers.prepared import prepare
from taskqueue.drivers.statements import arrays, finishing
from taskqueue.drivers.values import ClaimedJob, Completion, Ending, Lanes, Stale
from taskqueue.drivers.verbs.finishing import Finisher, final_states
from taskqueue.drivers.verbs.tally import Tally

_id_of = itemgetter(0)
_QUEUE, _RANK, _READY_AT = (ClaimedJob._fields.index(name) for name in ("queue", "rank", "ready_at"))
_ACKNOWLEDGED: tuple[Callable[[Any], bytes], ...] = (uuids, integers, bigints, bigints, bigints, blobs)
_acknowledged = itemgetter(
    *(Completion._fields.index(name) for name in ("id", "lease", "finished_at", "run_us", "wait_us", "result"))
)
_make = tuple.__new__

End = TypeVar("End", Completion, Ending)


class CycleWork:
    """The statements of a cycle, each within a transaction that its caller holds."""

    def __init__(self, dialect: Dialect) -> None:
        self._acknowledge = prepare(arrays.ACKNOWLEDGE, dialect).sql
        self._claim_all = prepare(arrays.CLAIM_ALL, dialect).sql
        self._claim_named = prepare(arrays.CLAIM_NAMED, dialect).sql
        self._lock_held = prepare(arrays.LOCK_HELD, dialect).sql
        self._note_attempt = prepare(finishing.NOTE_ATTEMPT, dialect).sql
        self._finisher = Finisher(dialect)

    # --- endings --------------------------------------------------------------------------------------------

    def send_completions(self, link: Link, node_id: int, completions: Sequence[Completion]) -> HotCursor:
        """Acknowledge completed jobs, in the order of their ids: whoever locks several of them takes the same order."""
        columns = zip(*map(_acknowledged, sorted(completions, key=_id_of)), strict=True)
        values = [bind(column) for bind, column in zip(_ACKNOWLEDGED, columns, strict=True)]
        return link.hot("acknowledge").execute(self._acknowledge, [*values, node_id])

    def send_lock(self, link: Link, endings: Sequence[Ending]) -> HotCursor:
        """Lock the jobs that are to end in another way, and ask under which lease they are held."""
        return link.hot("lock").execute(self._lock_held, [uuids([each.id for each in endings])])

    def send_endings(self, link: Link, endings: Sequence[Ending], now: int, tally: Tally) -> None:
        """Write the other ends of jobs that are held and locked."""
        recorded = _Recorded()
        for each in endings:
            self._finisher.end(recorded, each, now, tally)
        recorded.send(link, first=self._note_attempt)

    def send_counts(self, link: Link, tally: Tally) -> None:
        """Write what was counted."""
        recorded = _Recorded()
        self._finisher.count(recorded, tally)
        recorded.send(link)

    # --- claims ---------------------------------------------------------------------------------------------

    def send_claim(self, link: Link, node_id: int, lanes: Lanes, limit: int, now: int) -> HotCursor:
        """Claim at most ``limit`` jobs."""
        marked = list(lanes.low.keys() | lanes.served.keys())
        values = [
            node_id,
            now,
            names([queue for queue, _ in marked]),
            integers([rank for _, rank in marked]),
            bigints([lanes.low.get(lane, 0) for lane in marked]),
            bigints([lanes.served.get(lane, 0) for lane in marked]),
        ]
        if lanes.queues is None:
            return link.hot("claim").execute(self._claim_all, [*values, limit])
        return link.hot("claim").execute(self._claim_named, [*values, names(lanes.queues), limit])


def read_completions(cursor: HotCursor, completions: Sequence[Completion]) -> tuple[dict[bytes, int], list[Stale]]:
    """Return the completed jobs that have children, and the stale ones."""
    rows = cursor.fetchall()
    parents = {job_id: tables.COMPLETED for job_id, _, has_dependents in rows if has_dependents}
    if len(rows) == len(completions):
        return parents, []
    return parents, _part(completions, rows)[1]


def read_lock(cursor: HotCursor, endings: Sequence[Ending]) -> tuple[dict[bytes, int], list[Stale], list[Ending]]:
    """Return the final states of those that have children, the stale ones, and those that are held."""
    rows = cursor.fetchall()
    held, stale = _part(endings, rows)
    parents = {job_id for job_id, _, has_dependents in rows if has_dependents}
    left = final_states((), held, ())
    return {job_id: state for job_id, state in left.items() if job_id in parents}, stale, held


def _part(ends: Sequence[End], rows: Sequence[tuple[bytes, int, int]]) -> tuple[list[End], list[Stale]]:
    """Part ends of jobs into those of held ones, each once, and the stale others."""
    leases = {(job_id, lease) for job_id, lease, _ in rows}
    held: list[End] = []
    stale: list[Stale] = []
    for each in ends:
        key = (each.id, each.lease)
        if key in leases:
            leases.remove(key)
            held.append(each)
        else:
            stale.append(Stale(*key))
    return held, stale


class _Recorded:
    """Takes the place of a cursor and notes what is to be run, so that it can be sent in one trip.

    Every statement is about a row that is locked already, so each of them will change one.
    """

    rowcount = 1

    def __init__(self) -> None:
        self._statements: dict[str, list[Sequence[Any]]] = {}

    def execute(self, sql: str, values: Sequence[Any]) -> None:
        """Note a statement. Those with one text are sent together, in the order in which the texts came."""
        self._statements.setdefault(sql, []).append(values)

    def send(self, link: Link, first: str = "") -> None:
        """Send everything, the statements whose text is ``first`` before the others."""
        for sql in sorted(self._statements, key=lambda sql: sql != first):
            link.hot(sql).executemany(sql, self._statements[sql])


def read_claim(cursor: HotCursor, lanes: Lanes) -> list[ClaimedJob]:
    """Return what was claimed, in claim order."""
    rows = cursor.fetchall()
    claimed = list(map(_make, repeat(ClaimedJob), rows))
    by_lane: dict[Lane, list[ClaimedJob]] = {}
    for job in claimed:
        by_lane.setdefault((job.queue, job.rank), []).append(job)
    ordered: list[ClaimedJob] = []
    for lane in sorted(by_lane, key=order_of(lanes)):
        jobs = by_lane[lane]
        jobs.sort(key=_in_lane)
        ordered += jobs
    return ordered


_in_lane = itemgetter(_READY_AT, 0)


def order_of(lanes: Lanes) -> Any:
    """Return the key by which lanes are walked: the same order as in the statement."""
    if lanes.queues is None:
        return lambda lane: (lane[1], lanes.served.get(lane, 0), lane[0].encode())
    places = {queue: place for place, queue in enumerate(lanes.queues)}
    return lambda lane: (places[lane[0]], lane[1])


def note_turns(lanes: Lanes, claimed: Sequence[ClaimedJob]) -> None:
    """Note after a claim was committed how far the lanes were read, and that they had their turn."""
    note_claims(lanes, claimed)
    for lane in dict.fromkeys((job.queue, job.rank) for job in claimed):
        lanes.turn += 1
        lanes.served[lane] = lanes.turn
