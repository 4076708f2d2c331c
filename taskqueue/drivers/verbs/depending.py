"""How a job comes to depend on others when it is pushed: which of its parents are open, done or have failed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from taskqueue.drivers import tables
from taskqueue.drivers.statements import reading
from taskqueue.drivers.statements import releasing as statements
from taskqueue.drivers.values import PARENT_FAILURE_CODES, NewJob
from taskqueue.drivers.verbs.chunks import chunks
from taskqueue.drivers.verbs.releasing import count_fallen, fall
from taskqueue.drivers.verbs.tally import Tally
from taskqueue.errors import DependencyError
from taskqueue.states import ParentFailure

MOST_PARENTS: Final = 1000
"""How many jobs one job may depend on."""

_SHOWN: Final = 10
_FINAL = (tables.COMPLETED, tables.FAILED, tables.CANCELLED)
_RUN = PARENT_FAILURE_CODES[ParentFailure.RUN]
_WAIT = PARENT_FAILURE_CODES[ParentFailure.WAIT]
_CANCEL = PARENT_FAILURE_CODES[ParentFailure.CANCEL]


@dataclass(frozen=True, slots=True)
class Links:
    """What was found out before an insert: the children with their parents, a parent before its own children.

    ``states`` are those of the parents that are stored already; the others are to be inserted now.
    """

    children: Sequence[tuple[NewJob, Sequence[bytes]]]
    states: Mapping[bytes, int]


def look(connection: Connection, jobs: Sequence[NewJob], parents: Sequence[Sequence[bytes]]) -> Links:
    """Lock the parents of jobs that are about to be inserted, and find how they stand.

    Raises `DependencyError` before anything is written: for a cycle, too many parents, and a parent that is neither
    stored nor among ``jobs``.
    """
    wanted = {job.id: tuple(dict.fromkeys(each)) for job, each in zip(jobs, parents, strict=True) if each}
    for child, each in wanted.items():
        if len(each) > MOST_PARENTS:
            raise DependencyError(
                f"job {_text(child)} depends on {len(each):,} jobs, at most {MOST_PARENTS:,} are possible: let a job"
                " in between gather some of them"
            )
    order = _parents_first(wanted)
    states = _standing(connection, {parent for each in wanted.values() for parent in each})
    pushed = {job.id: job for job in jobs}
    _refuse_unknown(connection, wanted, states.keys() | pushed.keys())
    return Links([(pushed[child], wanted[child]) for child in order], states)


def link(connection: Connection, links: Links, inserted: Collection[bytes]) -> None:
    """Let the jobs among ``inserted`` wait for their parents, in the same transaction and after their insert.

    A job that was passed over because it is known stays as it is. Where a parent has failed already, its children
    follow at once, as their ``on_parent_failure`` says.
    """
    stored = set(inserted)
    children = [(job, parents) for job, parents in links.children if job.id in stored]
    states = dict(links.states)
    plan = _plan(children, states)
    if not _flag(connection, plan.awaited):
        # One of these inserts took the place of a parent, by its unique key; or another push was the first with its id.
        states = _standing(connection, {parent for _, parents in children for parent in parents} - stored)
        plan = _plan(children, states)
        _flag(connection, plan.awaited)
    _block(connection, plan)
    _let_fall(connection, plan)


@dataclass(slots=True)
class _Plan:
    """Who waits for whom, how many parents each waits for, and who has ended already."""

    edges: list[dict[str, bytes]] = field(default_factory=list)
    awaited: set[bytes] = field(default_factory=set)
    waiting: defaultdict[int, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    fallen: list[tuple[NewJob, int]] = field(default_factory=list)


def _plan(children: Sequence[tuple[NewJob, Sequence[bytes]]], known: Mapping[bytes, int]) -> _Plan:
    plan = _Plan()
    states = dict(known)
    for job, parents in children:
        end, waits_for = _fate(job, parents, states)
        if end is not None:
            states[job.id] = end
            plan.fallen.append((job, end))
        elif waits_for:
            plan.edges += [{"parent_id": parent, "child_id": job.id} for parent in waits_for]
            plan.awaited.update(parent for parent in waits_for if states.get(parent) not in _FINAL)
            plan.waiting[len(waits_for)].append(job.id)
    return plan


def parents_of(connection: Connection, children: Sequence[bytes]) -> dict[bytes, list[bytes]]:
    """Return the parents that jobs still wait for, by child."""
    found: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for part in chunks(children):
        for child, parent in connection.execute(statements.PARENTS_OF, {"ids": part}):
            found[child].append(parent)
    return dict(found)


def _fate(job: NewJob, parents: Iterable[bytes], states: Mapping[bytes, int]) -> tuple[int | None, list[bytes]]:
    """Return how a new job ends at once, or None, and the parents that it has to wait for."""
    waits_for: list[bytes] = []
    for parent in parents:
        state = states.get(parent)
        if state == tables.COMPLETED:
            continue
        if state not in _FINAL or job.on_parent_failure == _WAIT:
            waits_for.append(parent)
        elif job.on_parent_failure != _RUN:
            return (tables.CANCELLED if job.on_parent_failure == _CANCEL else tables.FAILED), []
    return None, waits_for


def _flag(connection: Connection, parents: Collection[bytes]) -> bool:
    """Note that jobs have children; say whether all of them are there."""
    parts = chunks(sorted(parents))
    return sum(connection.execute(statements.FLAG_PARENTS, {"ids": part}).rowcount for part in parts) == len(parents)


def _block(connection: Connection, plan: _Plan) -> None:
    for some in chunks(plan.edges):
        connection.execute(statements.ADD_EDGE, some)
    for count, ids in plan.waiting.items():
        for part in chunks(ids):
            connection.execute(statements.BLOCK, {"ids": part, "count": count})


def _let_fall(connection: Connection, plan: _Plan) -> None:
    tally = Tally()
    fallen: defaultdict[tuple[int, int], list[bytes]] = defaultdict(list)
    for job, end in plan.fallen:
        fallen[end, job.created_at].append(job.id)
        count_fallen(tally, job.queue, end, job.created_at)
    for (end, at), ids in sorted(fallen.items()):
        fall(connection, ids, end, at)
    tally.store(connection)


def _standing(connection: Connection, ids: Collection[bytes]) -> dict[bytes, int]:
    """Return the states of those jobs that are stored, and keep them from changing until the transaction ends.

    First the live ones are locked; who is missing then has finished before, and is looked for in history. One that was
    revived in between is missing there, and is looked for among the live ones again.
    """
    states: dict[bytes, int] = {}
    missing = set(ids)
    for statement in (statements.LOCK_PARENTS, statements.FINISHED_PARENTS) * 2:
        for part in chunks(sorted(missing)):
            states.update((row.id, row.state) for row in connection.execute(statement, {"ids": part}))
        missing -= states.keys()
        if not missing:
            break
    return states


# --- refusals ---------------------------------------------------------------------------------------------------------


def _parents_first(wanted: Mapping[bytes, Sequence[bytes]]) -> list[bytes]:
    """Return the children so that each stands behind those of its parents that are children too.

    Raises `DependencyError` with the path of a cycle. Without recursion: a chain may have a hundred thousand links.
    """
    order: dict[bytes, None] = {}
    for start in wanted:
        path: dict[bytes, Any] = {} if start in order else {start: iter(wanted[start])}
        while path:
            child = next(reversed(path))
            parent = next((each for each in path[child] if each in wanted and each not in order), None)
            if parent is None:
                del path[child]
                order[child] = None
            elif parent in path:
                _refuse_cycle([*path, parent])
            else:
                path[parent] = iter(wanted[parent])
    return list(order)


def _refuse_cycle(path: Sequence[bytes]) -> None:
    circle = list(path[path.index(path[-1]) :])
    if len(circle) == 2:
        raise DependencyError(f"job {_text(circle[0])} depends on itself and could never start: take it out of its own")
    shown = [_text(each) for each in circle]
    if len(shown) > _SHOWN:
        shown = [*shown[: _SHOWN - 1], f"({len(shown) - _SHOWN} more)", shown[-1]]
    raise DependencyError(
        f"jobs that wait for each other could never start: {' -> '.join(shown)}; take out one of these dependencies"
    )


def _refuse_unknown(connection: Connection, wanted: Mapping[bytes, Sequence[bytes]], known: Collection[bytes]) -> None:
    """Raise `DependencyError` for a parent that nobody knows, unless its child is stored already and passed over."""
    missing = {child: [each for each in parents if each not in known] for child, parents in wanted.items()}
    children = [child for child, parents in missing.items() if parents]
    for part in chunks(children):
        stored = {row.id for row in connection.execute(reading.STATES, {"ids": part})}
        for child in part:
            if child not in stored:
                raise DependencyError(
                    f"job {_text(child)} depends on job {_text(missing[child][0])}, which does not exist in this"
                    " database: push that one first or in the same call, or leave it out if it was deleted"
                )


def _text(job_id: bytes) -> str:
    return str(UUID(bytes=job_id))
