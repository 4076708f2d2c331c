"""The life of a node as the database knows it, and the duties that nodes take in turns."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, insert, select

from taskqueue.drivers.node_verbs import ASKED_TO_DRAIN
from taskqueue.drivers.statements import nodes as statements
from taskqueue.drivers.statements.parts import insert_into, unless_there
from taskqueue.drivers.tables import duties, nodes
from taskqueue.drivers.values import NodeIdentity, NodeRow

_COLUMNS = [nodes.c[name] for name in NodeRow.__dataclass_fields__]
DRAINING = "draining"
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


def beat(connection: Connection, node_id: int, state: str, info: str | None, now: int) -> str | None:
    """Raise the sequence of a node that lives, and return the state in which it is to be."""
    values = {"node": node_id, "now": now, "to": state, "news": info}
    if connection.execute(statements.BEAT, values).rowcount == 1:
        return state
    asked = connection.execute(statements.BEAT, {**values, "to": DRAINING}).rowcount == 1
    return DRAINING if asked else None


def drain(connection: Connection, node_id: int) -> bool:
    """Ask a node that lives to drain."""
    return connection.execute(statements.DRAIN, {"node": node_id}).rowcount == 1


def stop(connection: Connection, node_id: int, now: int) -> None:
    """Note a clean stop."""
    connection.execute(statements.END_NODE, {"node": node_id, "now": now, "to": "stopped"})


def declare_dead(connection: Connection, node_id: int, sequence: int, now: int) -> bool:
    """Mark a node as dead whose sequence still stands where it was seen; that it was to drain stays to be known."""
    state, info = connection.execute(statements.STANDING, {"node": node_id}).one_or_none() or (None, None)
    values = {"node": node_id, "now": now, "to": "dead", "seen": sequence}
    if connection.execute(statements.DECLARE_DEAD, values).rowcount != 1:
        return False
    if state == DRAINING:
        noted = json.dumps({**json.loads(info or "{}"), ASKED_TO_DRAIN: True})
        connection.execute(statements.NOTE, {"node": node_id, "news": noted})
    return True


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
