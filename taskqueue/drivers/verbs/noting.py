"""What a running job leaves behind while it is held: progress, checkpoints, and other jobs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Select

from taskqueue.drivers.noting import Noted
from taskqueue.drivers.statements import noting as statements
from taskqueue.drivers.statements import reading
from taskqueue.drivers.values import NewJob, Note, Stale, Standing
from taskqueue.drivers.verbs import pushing
from taskqueue.drivers.verbs.chunks import chunks
from taskqueue.states import OnConflict


class NotHeld(Exception):
    """The run that pushes is held no more: raised to undo the transaction, and caught by the driver."""


def note(connection: Connection, progress: Sequence[Note], checkpoints: Sequence[Note]) -> Noted:
    """Write what is held under its lease, and return what is not.

    Whoever writes progress feeds a whole node: it waits for no row that a handler's or a web request's transaction has
    locked. Waiting for a push that itself waited for a unique key, it stood still for 9.5 s.
    """
    held = _among(connection, statements.HELD_AMONG, checkpoints)
    free = _among(connection, statements.FREE_AMONG, progress)
    for statement, notes, writable in (
        (statements.PROGRESS, progress, free),
        (statements.CHECKPOINT, checkpoints, held),
    ):
        last = {(each.id, each.lease): each.sealed for each in notes}
        values = [{"job": run[0], "held": run[1], "sealed": last[run]} for run in sorted(last.keys() & writable)]
        if values:
            connection.execute(statement, values)
    missed = [each for each in progress if (each.id, each.lease) not in free]
    wanted = {(each.id, each.lease) for each in missed}
    locked = frozenset(_among(connection, statements.STANDING, missed) & wanted) if missed else frozenset()
    lost = [*missed, *(each for each in checkpoints if (each.id, each.lease) not in held)]
    named = dict.fromkeys((each.id, each.lease) for each in lost)
    return Noted([Stale(*run) for run in named if run not in locked], locked)


def _among(connection: Connection, statement: Select[Any], notes: Sequence[Note]) -> set[tuple[bytes, int]]:
    """Return what a statement finds of the jobs of some notes, with their leases."""
    return _found(connection, statement, {each.id for each in notes})


def _found(connection: Connection, statement: Select[Any], ids: Collection[bytes]) -> set[tuple[bytes, int]]:
    parts = chunks(sorted(ids))
    return {(row.id, row.lease) for part in parts for row in connection.execute(statement, {"ids": part})}


def push(
    connection: Connection,
    holder: tuple[bytes, int],
    jobs: Sequence[NewJob],
    tags: Sequence[Sequence[str]],
    parents: Sequence[Sequence[bytes]],
    rules: Sequence[OnConflict],
    now: int,
) -> list[Standing] | None:
    """Insert jobs if their pusher is held, which it is then until the transaction ends.

    A look comes first, so that a run that is over hears that and no other error. The lock comes last: an insert may
    wait 10 s for the unique key of a transaction that is open elsewhere, and whoever acknowledges waits for the lock.
    """
    ids = {job.id for job in jobs}
    if holder not in _found(connection, statements.STANDING, [holder[0]]) and not _stand(connection, ids):
        return None
    standing = pushing.push(connection, jobs, tags, parents, rules, now=now)
    told_before = not any(each.created for each in standing) and {each.id for each in standing} == ids
    if not told_before and holder not in _found(connection, statements.HELD_AMONG, [holder[0]]):
        raise NotHeld
    return standing


def push_held(
    write: Callable[[Callable[[Connection], list[Standing] | None]], list[Standing] | None],
    holder: tuple[bytes, int],
    what: tuple[Any, ...],
) -> list[Standing] | None:
    """Run a `push` of ``what`` and return what it stores; None where it turned out at the end that it is not held."""
    with suppress(NotHeld):
        return write(lambda connection: push(connection, holder, *what))
    return None


def _stand(connection: Connection, ids: set[bytes]) -> bool:
    """Say whether an earlier try has pushed these already and nobody had told it."""
    return {row.id for row in connection.execute(reading.STATES, {"ids": list(ids)})} == ids
