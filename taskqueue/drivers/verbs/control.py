"""What people ask for: cancel, revive, change, delete, flush."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select

from taskqueue.drivers import tables
from taskqueue.drivers.statements import control, pushing
from taskqueue.drivers.values import JobChanges, JobFilter, tags_to_text
from taskqueue.drivers.verbs import releasing
from taskqueue.drivers.verbs.chunks import chunks, narrowed
from taskqueue.drivers.verbs.tally import Tally


def _matching(connection: Connection, read: Callable[[JobFilter], Select[Any]], which: JobFilter) -> list[Any]:
    return [row for part in narrowed(which) for row in connection.execute(read(part))]


def cancel(connection: Connection, which: JobFilter, now: int) -> list[bytes]:
    """Move matching jobs that wait into history as cancelled; their children learn of it."""
    rows = _matching(connection, control.waiting, which)
    ids = [row.id for row in rows]
    for part in chunks(ids):
        connection.execute(control.CANCEL, {"ids": part, "finished_at": now})
        connection.execute(control.REMOVE_LIVE, {"ids": part})
    releasing.cut_off(connection, [row.id for row in rows if row.state == tables.BLOCKED])
    tally = Tally()
    for row in rows:
        tally.move(row.queue, tables.CANCELLED)
    releasing.release(connection, dict.fromkeys(ids, tables.CANCELLED), now, tally)
    tally.store(connection)
    return ids


def revive(connection: Connection, which: JobFilter, run_at: int | None, now: int) -> list[bytes]:
    """Move matching failed and cancelled jobs back.

    Those with a unique key one by one, as an earlier one may take the key of a later; the others many at a time, which
    takes a quarter of the time.
    """
    delayed = run_at is not None and run_at > now
    values = {
        "to": tables.DELAYED if delayed else tables.PENDING,
        "ready_at": run_at if delayed else now,
        "run_at": run_at,
    }
    rows = _matching(connection, control.revivable, which)
    for part in chunks([row.id for row in rows if not row.keyed]):
        connection.execute(control.REVIVE_UNKEYED, {"ids": part, **values})
    revived = [row for row in rows if not row.keyed or _revive_keyed(connection, row.id, values)]
    for part in chunks([row.id for row in revived]):
        connection.execute(control.REMOVE_FINISHED, {"ids": part})
    note_lanes(connection, sorted({(row.queue, row.rank) for row in revived}))
    tally = Tally()
    for row in revived:
        tally.move(row.queue, row.state, -1)
    tally.store(connection)
    return [row.id for row in revived]


def _revive_keyed(connection: Connection, job_id: bytes, values: Mapping[str, Any]) -> bool:
    return connection.execute(control.REVIVE, {"id": job_id, **values}).rowcount == 1


def note_lanes(connection: Connection, lanes: Sequence[tuple[str, int]]) -> None:
    """Make sure that lanes are known, so that claims walk them."""
    if lanes:
        statement = pushing.insert_lane(connection.dialect.name)
        connection.execute(statement, [{"queue": queue, "rank": rank} for queue, rank in lanes])


def update(connection: Connection, job_id: bytes, changes: JobChanges, now: int) -> bool:
    """Change a job that waits."""
    row = connection.execute(control.change(job_id)).one_or_none()
    if row is None:
        return False
    queue = row.queue if changes.queue is None else changes.queue
    rank = row.rank if changes.rank is None else changes.rank
    values: dict[str, Any] = {"queue": queue, "rank": rank}
    if changes.tags is not None:
        values["tags"] = tags_to_text(changes.tags)
        _replace_tags(connection, job_id, changes.tags)
    if changes.run_at is not None:
        values |= _due(changes.run_at, row.state, now)
    connection.execute(control.CHANGE.values(values), {"job": job_id})
    note_lanes(connection, [(queue, rank)])
    return True


def _due(run_at: int, state: int, now: int) -> dict[str, int]:
    """Return what a new time means for a job in ``state``; a blocked one goes on waiting for what blocks it."""
    if state == tables.BLOCKED:
        return {"run_at": run_at}
    if run_at > now:
        return {"run_at": run_at, "state": tables.DELAYED, "ready_at": run_at}
    return {"run_at": run_at, "state": tables.PENDING, "ready_at": now}


def _replace_tags(connection: Connection, job_id: bytes, tags: Sequence[str]) -> None:
    connection.execute(control.REMOVE_TAGS, {"job_id": job_id})
    if tags:
        statement = pushing.insert_tag(connection.dialect.name)
        connection.execute(statement, [{"tag": tag, "job_id": job_id} for tag in tags])


def delete(connection: Connection, which: JobFilter, now: int) -> int:
    """Remove matching jobs that wait or are finished, with what hangs on them; their children learn of it."""
    waiting = _matching(connection, control.waiting, which)
    finished = _matching(connection, control.finished, which)
    for rows, remove in ((waiting, control.REMOVE_LIVE), (finished, control.REMOVE_FINISHED)):
        for part in chunks([row.id for row in rows]):
            for statement in (*control.REMOVE_WHAT_HANGS_ON, remove):
                connection.execute(statement, {"ids": part})
    tally = Tally()
    for row in finished:
        tally.move(row.queue, row.state, -1)
    gone = dict.fromkeys([row.id for row in (*waiting, *finished)], releasing.REMOVED)
    releasing.release(connection, gone, now, tally)
    tally.store(connection)
    return len(waiting) + len(finished)


def flush(connection: Connection, queue: str | None, now: int) -> int:
    """Remove every job that waits in a queue, or in all: parents and children one by one, the others at once."""
    removed = 0
    for statement in control.flush(queue):
        removed = connection.execute(statement).rowcount
    related = [row.id for row in connection.execute(control.related(queue))]
    for part in chunks(related):
        for statement in (*control.REMOVE_WHAT_HANGS_ON, control.REMOVE_LIVE):
            connection.execute(statement, {"ids": part})
    tally = Tally()
    releasing.release(connection, dict.fromkeys(related, releasing.REMOVED), now, tally)
    tally.store(connection)
    return removed + len(related)
