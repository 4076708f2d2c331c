"""What becomes of children when their parents have ended: they start, end with them, or go on waiting.

Every writer takes locks in this order: parents, then children, each in the order of their ids, then edges. Who ends a
parent holds its row, so no edge to it can be added meanwhile; who changes a child's edges holds the child's row.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection

from taskqueue.drivers import tables
from taskqueue.drivers.statements import control
from taskqueue.drivers.statements import releasing as statements
from taskqueue.drivers.values import PARENT_FAILURE_CODES, BlockedBy
from taskqueue.drivers.verbs.chunks import chunks
from taskqueue.drivers.verbs.tally import Tally
from taskqueue.states import ParentFailure, Reason

REMOVED: Final = -1
"""The end of a parent that was deleted: like cancelled, but it can never come back, so nobody waits for it any more."""

_FAIL, _CANCEL, _RUN, _WAIT = (
    PARENT_FAILURE_CODES[each]
    for each in (ParentFailure.FAIL, ParentFailure.CANCEL, ParentFailure.RUN, ParentFailure.WAIT)
)


def parents_among(connection: Connection, ids: Collection[bytes]) -> set[bytes]:
    """Return which of these live jobs may have children; their rows stay locked, in the order of their ids.

    To be called before their rows are deleted: a push of a child either has set the flag by then, or waits for the lock
    and finds the parent in history.
    """
    found: set[bytes] = set()
    for part in chunks(sorted(ids)):
        rows = connection.execute(statements.LOCK_PARENTS, {"ids": part})
        found.update(row.id for row in rows if row.has_dependents)
    return found


def release(connection: Connection, ended: Mapping[bytes, int], now: int, tally: Tally) -> None:
    """Let the children of ``ended`` (job id -> final state, or `REMOVED`) start, end too, or wait on.

    To be called after the parents' rows were deleted, in the same transaction: a statement that deletes and releases at
    once reads edges as they were before it waited for the lock, and lost 615 of 4,500 jobs. Children that end take
    their own children with them, however long the chain. What comes into history is added to ``tally``.
    """
    if not ended:
        return
    family = _lock_family(connection, ended)
    if family.edges:
        _store(connection, family, _decide(ended, family), now, tally)


def cut_off(connection: Connection, ids: Collection[bytes]) -> None:
    """Let these jobs, which are going, wait for no parent any more."""
    for part in chunks(sorted(ids)):
        connection.execute(statements.REMOVE_EDGES_TO_PARENTS, {"ids": part})


def fall(connection: Connection, ids: Collection[bytes], state: int, now: int) -> None:
    """Move live jobs into history because of a parent; ``state`` says how."""
    why = Reason.DEPENDENCY_FAILED.value if state == tables.FAILED else None
    for part in chunks(sorted(ids)):
        connection.execute(statements.FALL, {"ids": part, "to": state, "why": why, "now": now})
        connection.execute(control.REMOVE_LIVE, {"ids": part})


def count_fallen(tally: Tally, queue: str, state: int, now: int) -> None:
    """Count a job that has fallen."""
    if state == tables.FAILED:
        tally.fail(queue, now)
    else:
        tally.move(queue, state)


# --- reading, under locks ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Family:
    """The locked children by id, and the edges that lead to them, by parent."""

    children: dict[bytes, Any] = field(default_factory=dict)
    edges: dict[bytes, list[bytes]] = field(default_factory=dict)


def _lock_family(connection: Connection, ended: Mapping[bytes, int]) -> _Family:
    """Lock every child that an end may reach, all in the order of their ids, and read the edges under the locks.

    Who would be reached is first found without locks. What was pushed meanwhile is found when the edges are read again,
    and is locked then. No edge can be added to a parent that is gone, so only children of falling ones can be new.
    """
    family = _Family()
    bad = [each for each, state in ended.items() if state != tables.COMPLETED]
    falling = _descendants(connection, bad)
    found = falling | _children(_edges(connection, ended.keys() - set(bad)))
    asked = set(found)
    ends = {_FAIL, _CANCEL, _WAIT} if REMOVED in ended.values() else {_FAIL, _CANCEL}
    while found:
        for part in chunks(sorted(found)):
            rows = connection.execute(statements.LOCK_CHILDREN, {"ids": part})
            family.children.update((row.id, row) for row in rows)
        parents = {each for each in falling if each in family.children and _falls(family.children[each], ends)}
        family.edges = _edges(connection, ended.keys() | parents)
        found = _children(family.edges) - asked
        asked |= found
        falling |= found
    return family


def _falls(child: Any, ends: Collection[int]) -> bool:
    """Say whether ``child`` may end with its parents, and has children of its own to be told."""
    return bool(child.has_dependents) and child.on_parent_failure in ends


def _descendants(connection: Connection, parents: Collection[bytes]) -> set[bytes]:
    """Return every child that an end of ``parents`` other than a good one may reach, without locks."""
    found: set[bytes] = set()
    todo = sorted(parents)
    statement = statements.descendants(connection.dialect.name)
    while todo:
        deepest: set[bytes] = set()
        for part in chunks(todo):
            for child, depth in connection.execute(statement, {"ids": part}):
                if child not in found and depth == statements.DEPTH:
                    deepest.add(child)
                found.add(child)
        todo = sorted(deepest)
    return found


def _edges(connection: Connection, parents: Collection[bytes]) -> dict[bytes, list[bytes]]:
    edges: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for part in chunks(sorted(parents)):
        for parent, child in connection.execute(statements.EDGES, {"ids": part}):
            edges[parent].append(child)
    return dict(edges)


def _children(edges: Mapping[bytes, Collection[bytes]]) -> set[bytes]:
    return {child for children in edges.values() for child in children}


# --- deciding ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Plan:
    """What is to be done: whose count falls by how much, who falls and how, and which edges go."""

    met: Counter[bytes] = field(default_factory=Counter)
    fallen: dict[bytes, int] = field(default_factory=dict)
    done_with: list[bytes] = field(default_factory=list)
    """Parents for which nobody waits any more."""
    cut: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Edges to parents for which somebody else goes on waiting."""


def _decide(ended: Mapping[bytes, int], family: _Family) -> _Plan:
    plan = _Plan()
    ends = dict(ended)
    todo = list(ended)
    while todo:
        parent = todo.pop()
        let_go: list[tuple[bytes, bytes]] = []
        awaited = False
        for child in family.edges.get(parent, ()):
            end = _consequence(family.children.get(child), ends[parent])
            if end is None:
                awaited = True
                continue
            let_go.append((parent, child))
            if end == tables.COMPLETED:
                plan.met[child] += 1
            elif end != REMOVED and child not in ends:
                ends[child] = plan.fallen[child] = end
                todo.append(child)
        if awaited:
            plan.cut += let_go
        elif let_go:
            plan.done_with.append(parent)
    for child in plan.fallen:
        plan.met.pop(child, None)
    return plan


def _consequence(child: Any, end: int) -> int | None:
    """Return what the end of a parent means for a child.

    COMPLETED: one parent fewer. FAILED or CANCELLED: its own end. `REMOVED`: it waits no more. None: it waits on.
    """
    if child is None or child.state != tables.BLOCKED or child.blocked_by != BlockedBy.PARENTS:
        return REMOVED
    policy = child.on_parent_failure
    if end == tables.COMPLETED or policy == _RUN:
        return tables.COMPLETED
    if policy == _WAIT:
        return tables.CANCELLED if end == REMOVED else None
    return tables.CANCELLED if policy == _CANCEL else tables.FAILED


# --- writing ----------------------------------------------------------------------------------------------------------


def _store(connection: Connection, family: _Family, plan: _Plan, now: int, tally: Tally) -> None:
    _cut(connection, plan)
    _count_down(connection, family, plan.met, now)
    for state in (tables.FAILED, tables.CANCELLED):
        fall(connection, [child for child, end in plan.fallen.items() if end == state], state, now)
    for child, end in plan.fallen.items():
        count_fallen(tally, family.children[child].queue, end, now)


def _cut(connection: Connection, plan: _Plan) -> None:
    for part in chunks(sorted(plan.done_with)):
        connection.execute(statements.REMOVE_EDGES_TO_CHILDREN, {"ids": part})
    for pairs in chunks(sorted(plan.cut)):
        connection.execute(statements.REMOVE_EDGE, [{"parent": parent, "child": child} for parent, child in pairs])
    cut_off(connection, plan.fallen)


def _count_down(connection: Connection, family: _Family, met: Mapping[bytes, int], now: int) -> None:
    """Take the parents that are met off the counts; who has none left starts, or waits for its own time."""
    waiting: defaultdict[int, list[bytes]] = defaultdict(list)
    starting: list[bytes] = []
    delayed: list[bytes] = []
    for child in sorted(met):
        row = family.children[child]
        if row.unmet > met[child]:
            waiting[met[child]].append(child)
        elif row.run_at is not None and row.run_at > now:
            delayed.append(child)
        else:
            starting.append(child)
    for count, ids in waiting.items():
        for part in chunks(ids):
            connection.execute(statements.COUNT_DOWN, {"ids": part, "count": count})
    for part in chunks(starting):
        connection.execute(statements.START, {"ids": part, "now": now})
    for part in chunks(delayed):
        connection.execute(statements.DELAY, {"ids": part})
