"""Taking over the jobs of nodes that are dead. Every node does it; none has to be asked, and two do no harm."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from taskqueue.clock import Clock, from_us
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import NodeRow
from taskqueue.node.identity import certainly_dead, is_local

LOOK_FOR_DEATHS_EVERY: Final = 0.25
"""Seconds between two looks at the processes of other nodes on this host: a few reads in /proc for each."""
LOOK_AT_NODES_EVERY: Final = 1.0
"""Seconds between two looks at the list of nodes, one query; with more than 20 others a twentieth of a second each."""
LONGEST_LOOK: Final = 5.0
LOOK_FOR_ORPHANS_EVERY: Final = 5.0
"""Seconds between two looks for jobs whose node does not live, whatever became of it."""

_logger = logging.getLogger("taskqueue.rescue")


@dataclass(slots=True)
class _Seen:
    """What an observer has seen of a node: its last row, and for how long it has watched its sequence stand still."""

    row: NodeRow
    still: float = 0.0


class Rescuer:
    """Watches the heartbeat sequences of other nodes and rescues the jobs of those that stand still.

    A sequence that has not moved for a whole lease, on this observer's own monotonic clock, is a dead node; wall clocks
    decide nothing, since with them an hour's jump of one clock kills every node. Of the time between two looks at most
    half a lease counts: while the observer slept, or the store was away, nobody could see a beat. On the same host a
    death can be proved at once. The mark is set by compare-and-swap on the sequence seen, so an observer that was
    itself asleep cannot kill a living node.
    """

    def __init__(self, driver: Driver, clock: Clock, own_id: int, rescued: Callable[[], None]) -> None:
        self._driver = driver
        self._clock = clock
        self._own_id = own_id
        self._rescued = rescued
        self._seen: dict[int, _Seen] = {}
        self._looked_at = clock.monotonic()
        self._look_at = self._look_for_orphans_at = 0.0

    def tick(self) -> None:
        """Look at the processes on this host, and at the nodes and their jobs when it is time to."""
        if self._clock.monotonic() >= self._look_at or any(certainly_dead(seen.row) for seen in self._neighbours()):
            self.look(orphans=self._clock.monotonic() >= self._look_for_orphans_at)

    def look(self, *, orphans: bool = True) -> None:
        """Look once at every other node, and rescue what has to be."""
        others = [node for node in self._driver.nodes() if node.id != self._own_id]
        now = self._clock.monotonic()
        passed, self._looked_at = now - self._looked_at, now
        self._seen = {node.id: self._observed(node, passed) for node in others}
        for seen in self._seen.values():
            if _is_dead(seen) and self._driver.declare_dead(seen.row.id, seen.row.sequence):
                orphans = True
                _logger.warning("node %d (%s, pid %d) is dead; last beat %s", *_about(seen.row))
        if orphans:
            for node_id in self._driver.orphaned_nodes():
                if node_id != self._own_id:
                    self._rescue(node_id)
            self._look_for_orphans_at = now + LOOK_FOR_ORPHANS_EVERY
        self._look_at = now + min(LONGEST_LOOK, max(LOOK_AT_NODES_EVERY, len(others) / 20))

    def _neighbours(self) -> list[_Seen]:
        return [seen for seen in self._seen.values() if is_local(seen.row)]

    def _observed(self, node: NodeRow, passed: float) -> _Seen:
        """Return what is seen of a node after ``passed`` seconds."""
        before = self._seen.get(node.id)
        if before is None or before.row.sequence != node.sequence:
            return _Seen(node)
        return _Seen(node, before.still + min(passed, node.lease_ms / 2000))

    def _rescue(self, node_id: int) -> None:
        total = failed = 0
        while (batch := self._driver.rescue(node_id)).total:
            total += batch.total
            failed += batch.failed
        if total:
            _logger.warning("took over %d job(s) of node %d, %d of them failed", total, node_id, failed)
            self._rescued()


def _is_dead(seen: _Seen) -> bool:
    return certainly_dead(seen.row) or seen.still >= seen.row.lease_ms / 1000


def _about(node: NodeRow) -> tuple[int, str, int, str]:
    return (node.id, node.name, node.pid, from_us(node.beat_at).isoformat())
