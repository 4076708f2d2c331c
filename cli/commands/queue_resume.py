"""``queue:resume``: allow claims from a queue again."""

from __future__ import annotations

from typing import Annotated

import typer

from ..application import Command, examples
from ..filters import checked_queue
from ..output import write
from ..session import open_manager

EXAMPLES = examples("worker queue:resume emails")


def register(app: typer.Typer) -> None:
    """Add ``queue:resume``."""
    app.command("queue:resume", cls=Command, epilog=EXAMPLES)(queue_resume)


def queue_resume(
    *,
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")],
) -> None:
    """Take jobs from a paused queue again."""
    name = checked_queue(queue)
    with open_manager() as manager:
        manager.resume_queue(name)
    write(f"{name} is open.")
