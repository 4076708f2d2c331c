"""``queue:cancel``: cancel jobs that wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskqueue.errors import InvalidTransition
from taskqueue.states import State

from ..application import Command, examples
from ..bulk import choose, each_of
from ..filters import CHOOSING, Filters
from ..options import with_options
from ..output import confirm, counted, write
from ..session import open_manager

if TYPE_CHECKING:
    from taskqueue.manager import QueueManager

EXAMPLES = examples(
    "worker queue:cancel 019a2f6e-8c1d-7a3b-9f42-5d6e7f8a9b0c",
    "worker queue:cancel --queue emails --tag newsletter",
    "worker queue:cancel --all --yes",
)
WAITING = (State.PENDING, State.DELAYED, State.BLOCKED)


def register(app: typer.Typer) -> None:
    """Add ``queue:cancel``."""
    app.command("queue:cancel", cls=Command, epilog=EXAMPLES)(queue_cancel)


@with_options(Filters, only=CHOOSING)
def queue_cancel(
    *,
    given: Mapping[str, Any],
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Jobs to cancel.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every job that waits, or all that the filters leave.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Cancel jobs that wait.

    A job that runs or has finished stays as it is. By --all or a filter the number of jobs is shown first.
    """
    chosen = choose(ids, given, every=every)
    with open_manager() as manager:
        if chosen.ids:
            return each_of(chosen.ids, lambda job_id: _cancel(manager, job_id), "is cancelled")
        number = manager.count_jobs(state=WAITING, **chosen.conditions)
        if not number:
            write("No job that waits matches.")
            return 0
        if not confirm(f"queue:cancel cancels {counted(number, 'job')}", yes=yes):
            return 1
        cancelled = manager.cancel_jobs(**chosen.conditions)
    write(f"{counted(len(cancelled), 'job')} cancelled.")
    return 0


def _cancel(manager: QueueManager, job_id: str) -> None:
    if not manager.cancel_job(job_id):
        state = manager.get_job(job_id).state
        raise InvalidTransition(f"job {job_id} is {state} and cannot be cancelled: only a job that waits can be")
