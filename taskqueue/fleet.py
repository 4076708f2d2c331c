"""The nodes of a queue as users see them, and which of them somebody means by an id or a name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from taskqueue.clock import from_us
from taskqueue.drivers.values import NodeRow
from taskqueue.errors import NotFound, UsageError, did_you_mean
from taskqueue.record import iso


def worker_health(rows: Iterable[NodeRow], now_us: int) -> list[dict[str, Any]]:
    """Return each node with what it says of itself and the seconds since its last beat."""
    return [
        {
            "id": row.id,
            "name": row.name,
            "host": row.host,
            "pid": row.pid,
            "state": row.state,
            "started_at": iso(from_us(row.started_at)),
            "stopped_at": iso(from_us(row.stopped_at)) if row.stopped_at is not None else None,
            "seconds_since_beat": max(0.0, (now_us - row.beat_at) / 1e6),
            **json.loads(row.info or "{}"),
        }
        for row in rows
    ]


def chosen_nodes(living: Sequence[NodeRow], wanted: Iterable[int | str]) -> list[int]:
    """Return the ids of the living nodes that are named by id or by name, each once.

    Raises `NotFound` where there is none and `UsageError` for a name that several have: nodes are called after their
    host unless somebody names them, and to stop all of a host must be said. So is a text that is the id of one node and
    the name of another; a number is an id first.
    """
    return list(dict.fromkeys(_chosen(living, each) for each in wanted))


def _chosen(living: Sequence[NodeRow], wanted: int | str) -> int:
    text = str(wanted)
    by_id = [row.id for row in living if str(row.id) == text]
    others = [row.id for row in living if row.name == text and row.id not in by_id]
    if isinstance(wanted, str) and by_id and others:
        (former,) = (row.name for row in living if row.id == by_id[0])
        raise UsageError(
            f"{text} is the id of a living node and the name of another, node {', '.join(map(str, others))}: give"
            f" {others[0]} for the latter, or for the former its name, {former}"
        )
    found = by_id or others
    if not found:
        names = [row.name for row in living]
        raise NotFound(f"there is no living node {text}{did_you_mean(text, names)}; node:list shows them all")
    if len(found) > 1:
        ids = ", ".join(map(str, found))
        raise UsageError(f"{len(found)} living nodes are named {text}: give the ids of those that are meant, of {ids}")
    return found[0]
