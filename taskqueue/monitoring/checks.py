"""Everything that ``doctor`` looks at: what the driver says of its database, then jobs, keys and nodes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import BlockedBy, Finding, Level, NodeRow, QueueRow
from taskqueue.errors import StoreError, TaskQueueError
from taskqueue.states import State

EVERY_QUEUE: Final = "*"
_MOST_NAMED: Final = 5
_DUE_STATES: Final = (State.PENDING, State.DELAYED, State.PROCESSING)


def examine(driver: Driver, key_ids: Collection[str] | None, clock: Clock) -> list[Finding]:
    """Return every finding. ``key_ids`` are the keys at hand; None leaves out what has to do with keys.

    A database that does not answer is a finding too, and the only one then.
    """
    try:
        found = driver.findings()
        if any(each.check == "schema" and each.level is Level.ERROR for each in found):
            return found
        queues, nodes = driver.queues(), driver.nodes()
        return [
            *found,
            *_wake_up(driver),
            *_nodes(nodes, driver, clock),
            *_served(queues, nodes),
            *_paused(queues),
            *_parked(driver),
            *([] if key_ids is None else _keys(driver, key_ids)),
        ]
    except StoreError as failure:
        return [unreachable(driver, failure)]


def unreachable(driver: Driver, failure: TaskQueueError) -> Finding:
    """Return the finding for a database that does not answer."""
    fix = f"see that the server behind {driver.describe()} runs and can be reached from here"
    return Finding("reachable", Level.ERROR, str(failure), fix)


def worst(findings: Iterable[Finding]) -> Level:
    """Return the level of the gravest finding."""
    return max((each.level for each in findings), key=list(Level).index, default=Level.OK)


def _wake_up(driver: Driver) -> Iterator[Finding]:
    if not driver.capabilities.notify:
        return
    listener = driver.listen()
    if listener is None:
        sentence = "notifications do not arrive, so idle nodes poll: a job may wait for up to 0.1 s"
        yield Finding("wake-up", Level.WARNING, sentence, "connect to the server itself, or pool by session")
        return
    listener.close()
    yield Finding("wake-up", Level.OK, "a notification sent from here arrives here")


def _nodes(nodes: Sequence[NodeRow], driver: Driver, clock: Clock) -> Iterator[Finding]:
    now = clock.now_us()
    silent = [node for node in nodes if (now - node.beat_at) / 1000 > node.lease_ms]
    if silent:
        names = _named(f"{node.id} ({node.name} on {node.host}, {_seconds(now - node.beat_at)})" for node in silent)
        sentence = f"without a heartbeat for longer than their lease: node {names}"
        yield Finding("nodes", Level.WARNING, sentence, "start a node: it takes their jobs over")
    elif nodes:
        yield Finding("nodes", Level.OK, f"{_counted(len(nodes), 'node')} alive, each with a fresh heartbeat")
    orphaned = driver.orphaned_nodes()
    if orphaned and len(silent) == len(nodes):
        sentence = (
            f"jobs are held by node {_named(map(str, orphaned))}, which has ended, and no node is there to rescue"
        )
        yield Finding("orphans", Level.WARNING, sentence, "start a node: it takes them over")


def _served(queues: Sequence[QueueRow], nodes: Sequence[NodeRow]) -> Iterator[Finding]:
    served = {queue for node in nodes for queue in json.loads(node.info or "{}").get("queues", ())}
    waiting = {row.queue: sum(row.counts.get(state, 0) for state in _DUE_STATES) for row in queues}
    alone = [queue for queue, jobs in waiting.items() if jobs and queue not in served and EVERY_QUEUE not in served]
    if not alone:
        yield Finding("queues", Level.OK, "every queue with jobs is served by a node" if nodes else "no job waits")
        return
    jobs = sum(waiting[queue] for queue in alone)
    sentence = f"no node serves {_named(alone)}, where {_counted(jobs, 'job')} wait{'s' if jobs == 1 else ''}"
    yield Finding("queues", Level.WARNING, sentence, f"run `worker queue:work {alone[0]}`")


def _paused(queues: Sequence[QueueRow]) -> Iterator[Finding]:
    paused = [row.queue for row in queues if row.paused_at is not None]
    if paused:
        sentence = f"paused: {_named(paused)}"
        yield Finding(
            "paused", Level.WARNING, sentence, f"run `worker queue:resume {paused[0]}` when its time has come"
        )


def _parked(driver: Driver) -> Iterator[Finding]:
    parked = driver.parked()
    if not parked:
        yield Finding("parked", Level.OK, "no job waits for a class or a key")
        return
    classes: Counter[str] = Counter()
    keys: Counter[str] = Counter()
    for each in parked:
        if each.blocked_by == BlockedBy.UNKNOWN_CLASS:
            classes[each.job_class] += each.jobs
        else:
            keys[each.key_id] += each.jobs
    if classes:
        sentence = f"{_counted(classes.total(), 'job')} of a class that no node knows: {_named(sorted(classes))}"
        yield Finding("parked", Level.WARNING, sentence, "start a node with --import and the module that defines it")
    if keys:
        sentence = f"{_counted(keys.total(), 'job')} sealed with a key that no node has: {_named(sorted(keys))}"
        yield Finding("parked", Level.WARNING, sentence, "give the nodes that key after the active one")


def _keys(driver: Driver, key_ids: Collection[str]) -> Iterator[Finding]:
    unknown = {key: jobs for key, jobs in driver.live_keys().items() if key not in key_ids}
    if not unknown:
        yield Finding("keys", Level.OK, "every job that waits can be opened with the keys given here")
        return
    sentence = f"{_counted(sum(unknown.values()), 'job')} sealed with a key that is not given here: {_named(unknown)}"
    yield Finding("keys", Level.WARNING, sentence, "add that key behind the active one, after a comma")


def _named(names: Iterable[str]) -> str:
    given = list(names)
    shown = ", ".join(given[:_MOST_NAMED])
    return shown if len(given) <= _MOST_NAMED else f"{shown} and {len(given) - _MOST_NAMED} more"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _seconds(us: int) -> str:
    return f"{us / 1e6:.0f} s"
