"""``queue:retry``: give failed jobs fresh attempts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from taskqueue.states import State

from ..application import Command, examples
from ..bulk import choose, each_of
from ..filters import CHOOSING, Filters
from ..options import with_options
from ..output import confirm, counted, write
from ..session import open_manager

EXAMPLES = examples(
    "worker queue:retry 019a2f6e-8c1d-7a3b-9f42-5d6e7f8a9b0c",
    "worker queue:retry --all --queue emails",
    "worker queue:retry --class shop.jobs.SendEmail --since 2h --yes",
)


def register(app: typer.Typer) -> None:
    """Add ``queue:retry``."""
    app.command("queue:retry", cls=Command, epilog=EXAMPLES)(queue_retry)


@with_options(Filters, only=CHOOSING)
def queue_retry(
    *,
    given: Mapping[str, Any],
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Jobs to retry.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every failed job, or all that the filters leave.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Give failed jobs fresh attempts.

    By id also cancelled ones. By --all or a filter the number of jobs is shown first.
    """
    chosen = choose(ids, given, every=every)
    with open_manager() as manager:
        if chosen.ids:
            return each_of(chosen.ids, manager.retry_failed_job, "is waiting again")
        number = manager.count_jobs(state=State.FAILED, **chosen.conditions)
        if not number:
            write("No failed job matches.")
            return 0
        if not confirm(f"queue:retry gives {counted(number, 'failed job')} fresh attempts", yes=yes):
            return 1
        revived = manager.retry_failed_jobs(**chosen.conditions)
    write(f"{counted(len(revived), 'job')} waiting again.")
    return 0
