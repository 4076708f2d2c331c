"""``queue:list``: jobs, the newest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ..application import Command, examples
from ..filters import Filters, read_filters
from ..options import with_options
from ..records import write_jobs
from ..session import open_manager

EXAMPLES = examples(
    "worker queue:list --queue emails --state pending,delayed",
    "worker queue:list --class shop.jobs.SendEmail --since 2h",
    "worker queue:list --tag welcome --limit 500 --json",
)


def register(app: typer.Typer) -> None:
    """Add ``queue:list``."""
    app.command("queue:list", cls=Command, epilog=EXAMPLES)(queue_list)


@with_options(Filters)
def queue_list(
    *,
    given: Mapping[str, Any],
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> None:
    """List jobs, live and finished, the newest first."""
    filters = read_filters(given)
    with open_manager() as manager:
        records = manager.get_jobs(limit=filters.limit + 1, **filters.conditions())
    write_jobs(records, filters.limit, as_json=as_json)
