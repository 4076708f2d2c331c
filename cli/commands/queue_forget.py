"""``queue:forget``: remove jobs with their history."""

from __future__ import annotations

from typing import Annotated

import typer

from ..application import Command, examples
from ..bulk import each_of
from ..session import open_manager

EXAMPLES = examples("worker queue:forget 019a2f6e-8c1d-7a3b-9f42-5d6e7f8a9b0c")


def register(app: typer.Typer) -> None:
    """Add ``queue:forget``."""
    app.command("queue:forget", cls=Command, epilog=EXAMPLES)(queue_forget)


def queue_forget(
    *,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Jobs to remove.")],
) -> int:
    """Remove jobs and all that is known of them.

    Jobs that run stay.
    """
    with open_manager() as manager:
        return each_of(ids, manager.delete_job, "is forgotten")
