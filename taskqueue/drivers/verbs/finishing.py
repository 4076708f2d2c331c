"""How claimed jobs end: with prepared statements on a cursor, or one of them on a connection of its handler's own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect

from taskqueue.drivers import tables
from taskqueue.drivers.prepared import Bind, Prepared, PreparedBatch, prepare
from taskqueue.drivers.receipts import Fate, Receipt
from taskqueue.drivers.statements import control, counting, finishing
from taskqueue.drivers.values import Completion, Ending, Stale
from taskqueue.drivers.verbs.releasing import release
from taskqueue.drivers.verbs.tally import Tally
from taskqueue.states import Reason, Verb

_LEFT = {Verb.FAIL: tables.FAILED, Verb.CANCEL: tables.CANCELLED}
_CHUNK = 500
_done = itemgetter(*map(Completion._fields.index, finishing.DONE))
_id_alone = itemgetter(slice(0, 1))


class Finisher:
    """The statements that end claimed jobs, compiled for one dialect."""

    def __init__(self, dialect: Dialect, bind: Bind = list) -> None:
        self._complete = PreparedBatch(finishing.complete, dialect, finishing.DONE, bind)
        keeping = partial(finishing.complete, keeping_payload=True)
        self._complete_keeping = PreparedBatch(keeping, dialect, finishing.DONE, bind)
        self._remove_all = PreparedBatch(finishing.remove, dialect, ("id",), bind)
        self._remove = prepare(finishing.REMOVE, dialect)
        self._end = prepare(finishing.END, dialect)
        self._attempt = prepare(finishing.NOTE_ATTEMPT, dialect)
        self._hand_back = prepare(finishing.HAND_BACK, dialect)
        self._counter = prepare(counting.add_to_counter(dialect.name), dialect)
        self._rollup = prepare(counting.add_to_rollup(dialect.name), dialect)

    def complete(self, cursor: Any, completions: Sequence[Completion], keeping: Collection[str]) -> bool:
        """Move completed jobs into history; False where some were not held, and then the transaction must be undone."""
        if not keeping:
            return self._move(cursor, self._complete, completions)
        kept = [each for each in completions if each.queue in keeping]
        others = [each for each in completions if each.queue not in keeping]
        return self._move(cursor, self._complete_keeping, kept) and self._move(cursor, self._complete, others)

    def _move(self, cursor: Any, insert: PreparedBatch, completions: Sequence[Completion]) -> bool:
        if not completions:
            return True
        if insert.run(cursor, list(map(_done, completions))) != len(completions):
            return False
        return self._remove_all.run(cursor, list(map(_id_alone, completions))) == len(completions)

    def end(self, cursor: Any, ending: Ending, now: int, tally: Tally) -> bool:
        """Write any other end of a job, and count it; False where the job was not held under this lease."""
        if _leaves_attempt(ending) and not self._note_attempt(cursor, ending):
            return False
        if ending.verb in _LEFT:
            return self._leave(cursor, ending, tally)
        return self._return(cursor, ending, now, tally)

    def _note_attempt(self, cursor: Any, ending: Ending) -> bool:
        reason = ending.reason or (Reason.CRASHED if ending.crashed else Reason.ERROR)
        values = {
            "job": ending.id,
            "held": ending.lease,
            "reason": reason.value,
            "started_at": ending.finished_at - ending.run_us,
            "finished_at": ending.finished_at,
            "error_type": ending.error_type,
            "error": ending.error,
            "key_id": ending.key_id,
        }
        return run(cursor, self._attempt, values) == 1

    def _leave(self, cursor: Any, ending: Ending, tally: Tally) -> bool:
        state = _LEFT[ending.verb]
        failed = ending.verb is Verb.FAIL
        values = {
            "job": ending.id,
            "held": ending.lease,
            "state": state,
            "started_at": ending.finished_at - ending.run_us,
            "finished_at": ending.finished_at,
            "run_us": ending.run_us,
            "reason": (ending.reason or Reason.ERROR).value if failed else None,
            "lease_raised": 0,
            "given_back": int(not ending.spent),
            "crashed": int(ending.crashed),
            "lost": int(ending.lost),
        }
        if run(cursor, self._end, values) != 1:
            return False
        cursor.execute(self._remove.sql, (ending.id, ending.lease))
        if failed:
            tally.fail(ending.queue, ending.finished_at)
        else:
            tally.move(ending.queue, state)
        return True

    def _return(self, cursor: Any, ending: Ending, now: int, tally: Tally) -> bool:
        parked = ending.verb is Verb.PARK
        delayed = not parked and ending.run_at is not None and ending.run_at > now
        values = {
            "job": ending.id,
            "held": ending.lease,
            "to": tables.BLOCKED if parked else tables.DELAYED if delayed else tables.PENDING,
            "ready": ending.run_at if delayed else None if ending.verb is Verb.RELEASE else now,
            "due": ending.run_at,
            "given_back": int(parked or not ending.spent),
            "crashed": int(ending.crashed),
            "lost": int(ending.lost),
            "blocker": int(ending.blocked_by) if parked else 0,
        }
        if run(cursor, self._hand_back, values) != 1:
            return False
        if ending.verb is Verb.RETRY:
            tally.retry(ending.queue, ending.finished_at)
        return True

    def count(self, cursor: Any, tally: Tally) -> None:
        """Write what was counted."""
        tally.write(cursor, self._counter, self._rollup)


def run(cursor: Any, statement: Prepared, values: dict[str, Any]) -> int:
    """Run a prepared statement and return how many rows it changed."""
    cursor.execute(statement.sql, [values[name] for name in statement.names])
    return int(cursor.rowcount)


def _leaves_attempt(ending: Ending) -> bool:
    return ending.verb in (Verb.RETRY, Verb.FAIL) or ending.crashed or ending.error_type is not None


def final_states(
    completions: Sequence[Completion], endings: Sequence[Ending], stale: Collection[Stale]
) -> dict[bytes, int]:
    """Return the states in which jobs left the live ones, by id; what was stale did not."""
    left = {each.id: tables.COMPLETED for each in completions}
    fenced = {(each.id, each.lease) for each in stale}
    for each in endings:
        if each.verb in _LEFT and (each.id, each.lease) not in fenced:
            left[each.id] = _LEFT[each.verb]
    return left


def held(connection: Connection, completions: Sequence[Completion]) -> tuple[list[Completion], list[Stale]]:
    """Part completions into those whose job is held under their lease, each once, and the stale others."""
    leases: dict[bytes, int] = {}
    ids = [each.id for each in completions]
    for start in range(0, len(ids), _CHUNK):
        rows = connection.execute(finishing.LEASES, {"ids": ids[start : start + _CHUNK]})
        leases.update((row[0], row[1]) for row in rows)
    good: list[Completion] = []
    stale: list[Stale] = []
    for each in completions:
        if leases.get(each.id) == each.lease:
            good.append(each)
            del leases[each.id]
        else:
            stale.append(Stale(each.id, each.lease))
    return good, stale


# --- one job, within the transaction of its handler ------------------------------------------------------------------


def acknowledge(connection: Connection, completion: Completion, now: int) -> Receipt | None:
    """Complete one job in the transaction of ``connection``; None, and nothing changed, where it is not held.

    The row stays locked until the transaction ends: this is to come last.
    """
    row = connection.execute(finishing.HOLD, {"job": completion.id, "held": completion.lease}).one_or_none()
    if row is None:
        return None
    keeping = connection.execute(control.QUEUES_KEEPING_PAYLOADS).scalars().all()
    values = {
        "job": completion.id,
        "held": completion.lease,
        "finished_at": completion.finished_at,
        "run_us": completion.run_us,
        "result": completion.result,
        "keeping": int(completion.queue in keeping),
    }
    connection.execute(finishing.COMPLETE, values)
    connection.execute(finishing.REMOVE, {"job": completion.id, "held": completion.lease})
    tally = Tally(row.node_id)
    if row.has_dependents:
        release(connection, {completion.id: tables.COMPLETED}, now, tally)
    tally.complete([completion])
    tally.store(connection)
    return Receipt(released=bool(row.has_dependents))


def fate(connection: Connection, job_id: bytes, lease: int) -> Fate:
    """Find out what became of a job, waiting for a transaction that may be under way still: its row is locked."""
    if connection.execute(finishing.HOLD, {"job": job_id, "held": lease}).one_or_none() is not None:
        return Fate.HELD
    row = connection.execute(finishing.FINISHED_AS, {"job": job_id}).one_or_none()
    completed = row is not None and (row.lease, row.state) == (lease, tables.COMPLETED)
    return Fate.COMPLETED if completed else Fate.LOST
