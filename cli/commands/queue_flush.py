"""``queue:flush``: remove every job that waits."""

from __future__ import annotations

from typing import Annotated

import typer

from taskqueue.states import State

from ..application import Command, examples
from ..filters import checked_queue
from ..output import confirm, counted, write
from ..session import open_manager

EXAMPLES = examples("worker queue:flush emails", "worker queue:flush --yes")
WAITING = (State.PENDING, State.DELAYED, State.BLOCKED)


def register(app: typer.Typer) -> None:
    """Add ``queue:flush``."""
    app.command("queue:flush", cls=Command, epilog=EXAMPLES)(queue_flush)


def queue_flush(
    *,
    queue: Annotated[str | None, typer.Argument(metavar="QUEUE", help="The queue; all queues unless given.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Remove every job that waits, in one queue or in all.

    They leave no history; queue:cancel keeps one. Jobs that run and finished jobs stay.
    """
    wanted = checked_queue(queue) if queue is not None else None
    where = wanted if wanted is not None else "every queue"
    with open_manager() as manager:
        number = manager.count_jobs(state=WAITING, queue=wanted)
        if not number:
            write("No job waits." if wanted is None else f"No job waits in {wanted}.")
            return 0
        if not confirm(f"queue:flush removes {counted(number, 'job')} from {where}", yes=yes):
            return 1
        removed = manager.flush(wanted)
    write(f"{counted(removed, 'job')} removed from {where}.")
    return 0
