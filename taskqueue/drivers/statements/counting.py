"""Statements that keep the counters and the rollups, which mirror what the other statements of a transaction did."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Insert, Select, Table, case, func, select

from taskqueue.drivers.statements.parts import given, insert_into, speaks_mysql
from taskqueue.drivers.tables import counters, rollups

COUNTER = ("queue", "state", "node_id", "jobs")
ROLLUP = tuple(column.name for column in rollups.c)
_SUMS = ("completed", "failed", "retried", "run_us", "wait_us")
_MOST = ("run_us_most", "wait_us_most")


@cache
def add_to_counter(dialect: str) -> Insert:
    """Add to the number of finished jobs of a queue in a state, as kept by one node."""
    return _accumulate(counters, dialect, COUNTER[:3], sums=("jobs",), most=())


@cache
def add_to_rollup(dialect: str) -> Insert:
    """Add to what happened in a minute on a queue at one node."""
    return _accumulate(rollups, dialect, ROLLUP[:3], sums=_SUMS, most=_MOST)


def _accumulate(table: Table, dialect: str, key: Sequence[str], *, sums: Sequence[str], most: Sequence[str]) -> Insert:
    statement: Any = insert_into(table, dialect).values({column.name: given(table, column.name) for column in table.c})
    fresh = statement.inserted if speaks_mysql(statement) else statement.excluded
    changes: dict[str, Any] = {name: table.c[name] + fresh[name] for name in sums}
    for name in most:
        changes[name] = case((table.c[name] > fresh[name], table.c[name]), else_=fresh[name])
    if speaks_mysql(statement):
        return statement.on_duplicate_key_update(changes)  # type: ignore[no-any-return]
    return statement.on_conflict_do_update(index_elements=list(key), set_=changes)  # type: ignore[no-any-return]


def rollups_since(since: int, queue: str | None) -> Select[Any]:
    """Read the minutes from ``since`` on, added up over the nodes."""
    added = [func.sum(rollups.c[name]).label(name) for name in ("completed", "failed", "retried")]
    times = [
        total(rollups.c[name]).label(name)
        for name, total in (
            ("run_us", func.sum),
            ("run_us_most", func.max),
            ("wait_us", func.sum),
            ("wait_us_most", func.max),
        )
    ]
    statement = (
        select(rollups.c.minute, rollups.c.queue, *added, *times)
        .where(rollups.c.minute >= since)
        .group_by(rollups.c.minute, rollups.c.queue)
        .order_by(rollups.c.minute, rollups.c.queue)
    )
    return statement if queue is None else statement.where(rollups.c.queue == queue)
