"""The life of a node as the database knows it, and the duties that nodes take in turns."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select

from taskqueue.drivers.statements import nodes as statements
from taskqueue.drivers.statements.parts import insert_into, unless_there
from taskqueue.drivers.tables import duties, nodes
from taskqueue.drivers.values import NodeIdentity, NodeRow

_COLUMNS = [nodes.c[name] for name in NodeRow.__dataclass_fields__]
_INSERT: Any = insert(nodes)


def register(connection: Connection, identity: NodeIdentity, now: int) -> int:
    """Store a starting node."""
    values = {name: getattr(identity, name) for name in NodeIdentity.__dataclass_fields__}
    times = {"started_at": now, "beat_at": now}
    result: Any = connection.execute(_INSERT, {**values, **times, "state": "alive", "sequence": 0})
    return int(result.inserted_primary_key[0])


def registered(connection: Connection, identity: NodeIdentity) -> int | None:
    """Return the number of a node that is stored already, by a transaction whose outcome was not known."""
    statement = select(nodes.c.id).where(nodes.c.incarnation == identity.incarnation)
    found: int | None = connection.execute(statement).scalar()
    return found


def beat(connection: Connection, node_id: int, state: str, info: str | None, now: int) -> bool:
    """Raise the sequence of a node that lives."""
    values = {"node": node_id, "now": now, "to": state, "news": info}
    return connection.execute(statements.BEAT, values).rowcount == 1


def stop(connection: Connection, node_id: int, now: int) -> None:
    """Note a clean stop."""
    connection.execute(statements.END_NODE, {"node": node_id, "now": now, "to": "stopped"})


def declare_dead(connection: Connection, node_id: int, sequence: int, now: int) -> bool:
    """Mark a node as dead whose sequence still stands where it was seen."""
    values = {"node": node_id, "now": now, "to": "dead", "seen": sequence}
    return connection.execute(statements.DECLARE_DEAD, values).rowcount == 1


def listed(connection: Connection, *, everyone: bool) -> list[NodeRow]:
    """Return nodes, oldest first."""
    statement = select(*_COLUMNS).order_by(nodes.c.id)
    if not everyone:
        statement = statement.where(statements.ALIVE)
    return [NodeRow(*row) for row in connection.execute(statement)]


def take_turn(connection: Connection, duty: str, node_id: int, every: float, now: int) -> bool:
    """Take the turn of a duty where it is due, or the first one of all."""
    values = {"duty": duty, "node": node_id, "now": now, "every": int(every * 1_000_000)}
    if connection.execute(statements.TAKE_TURN, values).rowcount == 1:
        return True
    first = insert_into(duties, connection.dialect.name).values(name=duty, turn=1, node_id=node_id, taken_at=now)
    return connection.execute(unless_there(first, ["name"])).rowcount == 1
