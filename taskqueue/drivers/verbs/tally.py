"""What a transaction has done, added up by queue, to be written into counters and rollups once at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection

from taskqueue.drivers import tables
from taskqueue.drivers.prepared import Prepared
from taskqueue.drivers.statements import counting
from taskqueue.drivers.values import Completion

MINUTE = 60_000_000
"""Microseconds in a minute: rollups start at whole minutes."""

OUTSIDE = 0
"""The node id under which everything is counted that no node does."""

_QUEUE = Completion._fields.index("queue")
_FINISHED_AT = Completion._fields.index("finished_at")
_RUN_US = Completion._fields.index("run_us")
_WAIT_US = Completion._fields.index("wait_us")
_queue_of, _finish_of, _run_of, _wait_of = (itemgetter(each) for each in (_QUEUE, _FINISHED_AT, _RUN_US, _WAIT_US))

_COMPLETED, _FAILED, _RETRIED, _RUN, _RUN_MOST, _WAIT, _WAIT_MOST = range(7)


class Tally:
    """Counts of one transaction. Run and wait times add up over the completed jobs."""

    __slots__ = ("_counters", "_minutes", "_node_id")

    def __init__(self, node_id: int = OUTSIDE) -> None:
        self._node_id = node_id
        self._counters: Counter[tuple[str, int]] = Counter()
        self._minutes: dict[tuple[int, str], list[int]] = {}

    def complete(self, completions: Sequence[Completion]) -> None:
        """Count completed jobs: in one go where they are of one queue and minute, as they mostly are."""
        queues = set(map(_queue_of, completions))
        first, last = min(map(_finish_of, completions)), max(map(_finish_of, completions))
        if len(queues) == 1 and first // MINUTE == last // MINUTE:
            self._add_completed(queues.pop(), first, completions)
            return
        parts: dict[tuple[str, int], list[Completion]] = {}
        for each in completions:
            parts.setdefault((each.queue, each.finished_at // MINUTE), []).append(each)
        for (queue, minute), part in parts.items():
            self._add_completed(queue, minute * MINUTE, part)

    def _add_completed(self, queue: str, at: int, completions: Sequence[Completion]) -> None:
        self._counters[queue, tables.COMPLETED] += len(completions)
        runs, waits = list(map(_run_of, completions)), list(map(_wait_of, completions))
        sums = self._minute(queue, at)
        sums[_COMPLETED] += len(completions)
        sums[_RUN] += sum(runs)
        sums[_RUN_MOST] = max(sums[_RUN_MOST], *runs)
        sums[_WAIT] += sum(waits)
        sums[_WAIT_MOST] = max(sums[_WAIT_MOST], *waits)

    def fail(self, queue: str, at: int, jobs: int = 1) -> None:
        """Count jobs that failed for good."""
        self._counters[queue, tables.FAILED] += jobs
        self._minute(queue, at)[_FAILED] += jobs

    def retry(self, queue: str, at: int) -> None:
        """Count an attempt that failed and is to be repeated."""
        self._minute(queue, at)[_RETRIED] += 1

    def move(self, queue: str, state: int, jobs: int = 1) -> None:
        """Count rows that came into history in this state; a negative number left it."""
        self._counters[queue, state] += jobs

    def _minute(self, queue: str, at: int) -> list[int]:
        return self._minutes.setdefault((at // MINUTE * MINUTE, queue), [0] * 7)

    def counters(self) -> Iterable[dict[str, Any]]:
        """Return the parameters for the counters, in the order of their key so that no two writers cross."""
        for (queue, state), jobs in sorted(self._counters.items()):
            if jobs:
                yield {"queue": queue, "state": state, "node_id": self._node_id, "jobs": jobs}

    def rollups(self) -> Iterable[dict[str, Any]]:
        """Return the parameters for the rollups, in the order of their key."""
        for (minute, queue), sums in sorted(self._minutes.items()):
            yield {
                "minute": minute,
                "queue": queue,
                "node_id": self._node_id,
                "completed": sums[_COMPLETED],
                "failed": sums[_FAILED],
                "retried": sums[_RETRIED],
                "run_us": sums[_RUN],
                "run_us_most": sums[_RUN_MOST],
                "wait_us": sums[_WAIT],
                "wait_us_most": sums[_WAIT_MOST],
            }

    def store(self, connection: Connection) -> None:
        """Write everything on a SQLAlchemy connection."""
        dialect = connection.dialect.name
        for statement, rows in (
            (counting.add_to_counter(dialect), list(self.counters())),
            (counting.add_to_rollup(dialect), list(self.rollups())),
        ):
            if rows:
                connection.execute(statement, rows)

    def write(self, cursor: Any, add_to_counter: Prepared, add_to_rollup: Prepared) -> None:
        """Write everything with prepared statements on a cursor of the database's driver."""
        for statement, rows in ((add_to_counter, self.counters()), (add_to_rollup, self.rollups())):
            for row in rows:
                cursor.execute(statement.sql, [row[name] for name in statement.names])
