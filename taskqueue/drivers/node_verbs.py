"""The verbs about nodes: part of `Driver`, apart for its length."""

from __future__ import annotations

from abc import ABC, abstractmethod

from taskqueue.drivers.values import NodeIdentity, NodeRow, Rescue

ASKED_TO_DRAIN = "asked_to_drain"
"""What the info of a dead node says of one that was draining: should it return, it is to end and not begin anew."""


class NodeDriver(ABC):
    """The life of nodes as the database knows it, and whose jobs are orphans."""

    @abstractmethod
    def register_node(self, identity: NodeIdentity) -> int:
        """Store a starting node as ``alive`` and return its id, which is never given again."""

    @abstractmethod
    def beat(self, node_id: int, *, state: str = "alive", info: str | None = None) -> str | None:
        """Raise the node's heartbeat sequence; None: it was declared dead and must stop its workers.

        Otherwise the state that it is to be in: ``state``, or ``draining`` where somebody has asked for that.
        """

    @abstractmethod
    def drain_node(self, node_id: int) -> bool:
        """Ask a living node, by its next beat, to finish what it runs and stop; say whether there was one."""

    @abstractmethod
    def stop_node(self, node_id: int) -> None:
        """Note a clean stop."""

    @abstractmethod
    def nodes(self, *, everyone: bool = False) -> list[NodeRow]:
        """Return the nodes that are alive, quiet or draining, oldest first; with ``everyone`` also those that ended."""

    @abstractmethod
    def declare_dead(self, node_id: int, sequence: int) -> bool:
        """Mark a node as dead if its sequence still is the one seen (compare-and-swap); say whether it was."""

    @abstractmethod
    def orphaned_nodes(self) -> list[int]:
        """Return the ids that hold jobs in ``processing`` and are no living node: dead, stopped or without a row."""

    @abstractmethod
    def rescue(self, node_id: int, limit: int = 500) -> Rescue:
        """Take jobs from a node that is dead, stopped or unknown: raise their lease and count a loss.

        They become pending again with their attempt given back. A job whose start was recorded is charged a crash
        instead, and fails with reason ``crashed`` at `CRASH_LIMIT`, an at-most-once job with reason ``lost``.
        Counters and attempts are written along. Does nothing while the node is alive.
        """

    @abstractmethod
    def take_turn(self, duty: str, node_id: int, every: float) -> bool:
        """Take the next turn of a duty if the last one is ``every`` seconds old; of many callers one is told True."""
