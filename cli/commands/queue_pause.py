"""``queue:pause``: stop claims from a queue."""

from __future__ import annotations

from typing import Annotated

import typer

from ..application import Command, examples
from ..filters import checked_queue
from ..output import write
from ..session import open_manager

EXAMPLES = examples("worker queue:pause emails", "worker queue:pause emails --note 'mail server is down'")


def register(app: typer.Typer) -> None:
    """Add ``queue:pause``."""
    app.command("queue:pause", cls=Command, epilog=EXAMPLES)(queue_pause)


def queue_pause(
    *,
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")],
    remark: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Why, for whoever looks.")] = None,
) -> None:
    """Stop taking jobs from a queue, on every node.

    Jobs can still be pushed, and those that run go on. It lasts over restarts, until queue:resume.
    """
    name = checked_queue(queue)
    with open_manager() as manager:
        manager.pause_queue(name, remark)
    write(f"{name} is paused.")
