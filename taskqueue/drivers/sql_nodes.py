"""The verbs about nodes on shared statements: part of `SQLDriver`, apart for its length."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver
from taskqueue.drivers.statements import nodes as node_statements
from taskqueue.drivers.values import NodeIdentity, NodeRow, Rescue
from taskqueue.drivers.verbs import nodes, rescuing

T = TypeVar("T")


class SQLNodes(Driver):
    """The life of nodes, said the same way everywhere."""

    _clock: Clock

    @abstractmethod
    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` on a connection that sees what is committed, again where the database was busy."""

    @abstractmethod
    def write(self, work: Callable[[Connection], T], *, repeatable: bool = True) -> T:
        """Run ``work`` in one transaction, from the start again where it lost a lock.

        Where nobody knows whether its COMMIT has happened it is run once more, which has to change nothing then and to
        answer the same. Work for which that is not so is not ``repeatable``: it ends with `DatabaseUnreachable` then.
        """

    def register_node(self, identity: NodeIdentity) -> int:
        now = self._clock.now_us()
        return self.write(lambda connection: nodes.register(connection, identity, now))

    def beat(self, node_id: int, *, state: str = "alive", info: str | None = None) -> str | None:
        now = self._clock.now_us()
        return self.write(lambda connection: nodes.beat(connection, node_id, state, info, now))

    def drain_node(self, node_id: int) -> bool:
        return self.write(lambda connection: nodes.drain(connection, node_id))

    def stop_node(self, node_id: int) -> None:
        now = self._clock.now_us()
        self.write(lambda connection: nodes.stop(connection, node_id, now))

    def nodes(self, *, everyone: bool = False) -> list[NodeRow]:
        return self.read(lambda connection: nodes.listed(connection, everyone=everyone))

    def declare_dead(self, node_id: int, sequence: int) -> bool:
        now = self._clock.now_us()
        return self.write(lambda connection: nodes.declare_dead(connection, node_id, sequence, now))

    def orphaned_nodes(self) -> list[int]:
        return self.read(lambda connection: list(connection.execute(node_statements.ORPHANED).scalars()))

    def rescue(self, node_id: int, limit: int = 500) -> Rescue:
        now = self._clock.now_us()
        return self.write(lambda connection: rescuing.rescue(connection, node_id, limit, now))

    def take_turn(self, duty: str, node_id: int, every: float) -> bool:
        now = self._clock.now_us()
        return self.write(lambda connection: nodes.take_turn(connection, duty, node_id, every, now))
