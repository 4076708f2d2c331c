"""Taking over the jobs of nodes that are dead. Every node does it; none has to be asked, and two do no harm."""

from __future__ import annotations

import logging
from collections.abc import Callable

from taskqueue.clock import Clock, from_us
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import NodeRow
from taskqueue.node.identity import certainly_dead

_logger = logging.getLogger("taskqueue.rescue")


class Rescuer:
    """Watches the heartbeat sequences of other nodes and rescues the jobs of those that stand still.

    A sequence that has not moved for a whole lease, on this observer's own monotonic clock, is a dead node; wall clocks
    decide nothing, since with them an hour's jump of one clock kills every node. On the same host a death can be proved
    at once. The mark is set by compare-and-swap on the sequence seen, so an observer that was itself asleep cannot
    kill a living node.
    """

    def __init__(self, driver: Driver, clock: Clock, own_id: int, rescued: Callable[[], None]) -> None:
        self._driver = driver
        self._clock = clock
        self._own_id = own_id
        self._rescued = rescued
        self._seen: dict[int, tuple[int, float]] = {}

    def look(self) -> None:
        """Look once at every other node, and rescue what has to be."""
        others = [node for node in self._driver.nodes() if node.id != self._own_id]
        self._seen = {node.id: self._observed(node) for node in others}
        for node in others:
            if self._is_dead(node) and self._driver.declare_dead(node.id, node.sequence):
                _logger.warning("node %d (%s, pid %d) is dead; last beat %s", *_about(node))
        for node_id in self._driver.orphaned_nodes():
            if node_id != self._own_id:
                self._rescue(node_id)

    def _observed(self, node: NodeRow) -> tuple[int, float]:
        """Return the node's sequence and since when this observer has seen it unchanged."""
        sequence, since = self._seen.get(node.id, (-1, 0.0))
        return (sequence, since) if sequence == node.sequence else (node.sequence, self._clock.monotonic())

    def _is_dead(self, node: NodeRow) -> bool:
        _, since = self._seen[node.id]
        return certainly_dead(node) or self._clock.monotonic() - since >= node.lease_ms / 1000

    def _rescue(self, node_id: int) -> None:
        total = failed = 0
        while (batch := self._driver.rescue(node_id)).total:
            total += batch.total
            failed += batch.failed
        if total:
            _logger.warning("took over %d job(s) of node %d, %d of them failed", total, node_id, failed)
            self._rescued()


def _about(node: NodeRow) -> tuple[int, str, int, str]:
    return (node.id, node.name, node.pid, from_us(node.beat_at).isoformat())
