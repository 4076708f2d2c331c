"""What a node is seen to decide, told by the node's own process to the journal: nothing of it is changed.

A log would say the same in words that change. Here it is the verbs that are listened to.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from taskqueue.node.lease import NodeLease
from taskqueue.node.rescue import Rescuer
from tests.chaos import journal
from tests.chaos.wrapping import around, around_verb


def _of_cycle(inner: Any, *values: Any, **named: Any) -> Any:
    cycle = inner(*values, **named)
    for each in cycle.stale:
        journal.write("stale", UUID(bytes=bytes(each.id)), each.lease)
    return cycle


def _of_registration(inner: Any, *values: Any, **named: Any) -> Any:
    number = inner(*values, **named)
    journal.write("registered", more=str(number))
    return number


def _of_a_verdict(inner: Any, driver: Any, node_id: int, *values: Any, **named: Any) -> Any:
    marked = inner(driver, node_id, *values, **named)
    if marked:
        journal.write("declared_dead", more=str(node_id))
    return marked


def _of_a_rescue(inner: Any, driver: Any, node_id: int, *values: Any, **named: Any) -> Any:
    rescued = inner(driver, node_id, *values, **named)
    if rescued.total:
        journal.write("rescued", more=f"{node_id} {rescued.total}")
    return rescued


def _of_a_beat(inner: Any, lease: Any, *values: Any, **named: Any) -> Any:
    before = lease.lost.is_set()
    found = inner(lease, *values, **named)
    if lease.lost.is_set() and not before:
        journal.write("lost")
    return found


def _of_a_look(inner: Any, *values: Any, **named: Any) -> Any:
    found = inner(*values, **named)
    journal.write("looked")
    return found


def install() -> None:
    """Listen."""
    around_verb("cycle", _of_cycle)
    around_verb("register_node", _of_registration)
    around_verb("declare_dead", _of_a_verdict)
    around_verb("rescue", _of_a_rescue)
    around(NodeLease, "beat", _of_a_beat)
    around(Rescuer, "look", _of_a_look)
    _listen_to_self_stops()


def _listen_to_self_stops() -> None:
    inner = NodeLease.__dict__["must_stop"].fget
    told: set[int] = set()

    def must_stop(lease: NodeLease) -> bool:
        stops = bool(inner(lease))
        if stops and id(lease) not in told:
            told.add(id(lease))
            journal.write("stops_itself", more="lost" if lease.lost.is_set() else "silent")
        elif not stops:
            told.discard(id(lease))
        return stops

    NodeLease.must_stop = property(must_stop)  # type: ignore[assignment]
