"""``queue:status``: how many jobs are in which state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskqueue.errors import did_you_mean

from ..application import Command, examples
from ..filters import checked_queue
from ..output import note, write, write_json
from ..session import open_manager
from ..tables import Column, write_table

if TYPE_CHECKING:
    from taskqueue.drivers.values import QueueRow

EXAMPLES = examples(
    "worker queue:status",
    "worker queue:status --queue emails",
    "worker queue:status --json | jq .totals.pending",
)


def register(app: typer.Typer) -> None:
    """Add ``queue:status``."""
    app.command("queue:status", cls=Command, epilog=EXAMPLES)(queue_status)


def queue_status(
    *,
    queue: Annotated[str | None, typer.Option("--queue", metavar="NAME", help="Only this queue.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> None:
    """Show each queue's jobs by state."""
    wanted = checked_queue(queue, "--queue") if queue is not None else None
    with open_manager() as manager:
        rows = manager.driver.queues()
    write_status(rows, wanted, as_json=as_json)


def write_status(rows: Sequence[QueueRow], queue: str | None = None, *, as_json: bool = False) -> None:
    """Write the counts of all queues, or of one; a queue that never held a job counts zero."""
    from taskqueue.statistics import status_document

    shown = _chosen(rows, queue)
    document = status_document(shown)
    if as_json:
        write_json(document)
        return
    if not shown:
        write("No jobs so far.")
        return
    paused = {row.queue for row in shown if row.paused_at is not None}
    states = list(document["totals"])
    lines: list[list[Any]] = [
        [f"{name} (paused)" if name in paused else name, *counts.values()]
        for name, counts in document["queues"].items()
    ]
    if len(lines) > 1:
        lines.append(["total", *document["totals"].values()])
    write_table([Column("queue", folds=True), *(Column(state, right=True) for state in states)], lines)


def _chosen(rows: Sequence[QueueRow], queue: str | None) -> Sequence[QueueRow]:
    if queue is None:
        return rows
    from taskqueue.drivers.values import QueueRow as Row

    found = [row for row in rows if row.queue == queue]
    if not found:
        note(f"there is no queue {queue} so far{did_you_mean(queue, [row.queue for row in rows])}")
    return found or [Row(queue, {})]
