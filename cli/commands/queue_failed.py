"""``queue:failed``: failed jobs with their errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from taskqueue.states import State

from ..application import Command, examples
from ..filters import CHOOSING, Filters, read_filters
from ..options import with_options
from ..records import write_failures
from ..session import open_manager

EXAMPLES = examples(
    "worker queue:failed",
    "worker queue:failed --queue emails --since 1d",
    "worker queue:failed --json | jq -r '.jobs[].id' | xargs worker queue:retry",
)


def register(app: typer.Typer) -> None:
    """Add ``queue:failed``."""
    app.command("queue:failed", cls=Command, epilog=EXAMPLES)(queue_failed)


@with_options(Filters, only=(*CHOOSING, "limit"))
def queue_failed(
    *,
    given: Mapping[str, Any],
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> None:
    """List failed jobs with their last error, the newest first."""
    filters = read_filters(given)
    with open_manager() as manager:
        records = manager.get_jobs(limit=filters.limit + 1, state=State.FAILED, **filters.conditions())
    write_failures(records, filters.limit, as_json=as_json)
