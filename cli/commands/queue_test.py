"""``queue:test``: push test jobs and show statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskqueue.job_options import JobOptions
from taskqueue.options import flag_layer, option, resolve

from ..application import Command, examples
from ..options import with_options
from ..output import confirm, counted, write, write_json
from ..session import open_manager
from .queue_status import write_status

if TYPE_CHECKING:
    from taskqueue.job import Job
    from taskqueue.manager import QueueManager

EXAMPLES = examples(
    "worker queue:test --jobs=10",
    "worker queue:test --jobs=5 --queue=high-priority --priority=10",
    "worker queue:test --jobs=3 --delay=30",
    "worker queue:test --jobs=0",
)
WITHOUT_ASKING = 100_000
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Amount:
    """How many test jobs."""

    jobs: int = option(10, help="Test jobs to push; 0 only shows statistics.", minimum=0)


def register(app: typer.Typer) -> None:
    """Add ``queue:test``."""
    app.command("queue:test", cls=Command, epilog=EXAMPLES)(queue_test)


@with_options(JobOptions, only=("queue", "priority", "delay"), into="options")
@with_options(Amount, into="amount")
def queue_test(
    *,
    amount: Mapping[str, Any],
    options: Mapping[str, Any],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask above 100,000 jobs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> int:
    """Push test jobs and show statistics."""
    jobs = resolve(Amount, [flag_layer(Amount, amount)]).value.jobs
    chosen = resolve(JobOptions, [flag_layer(JobOptions, options)]).value
    if jobs > WITHOUT_ASKING and not confirm(f"queue:test would push {counted(jobs, 'job')}", yes=yes):
        return 1
    with open_manager() as manager:
        _push(manager, jobs, {name: getattr(chosen, name) for name in options})
        rows = manager.driver.queues()
    if as_json:
        from taskqueue.statistics import status_document

        write_json({"pushed": jobs, "queue": chosen.queue, **status_document(rows)})
        return 0
    if jobs:
        write(f"Pushed {counted(jobs, 'test job')} to {chosen.queue}.")
        write()
    write_status(rows)
    return 0


def _push(manager: QueueManager, jobs: int, options: Mapping[str, Any]) -> None:
    """Push in batches, so that a million jobs need no more memory than a thousand."""
    for start in range(0, jobs, _BATCH):
        manager.push_many(_test_jobs(start + 1, min(start + _BATCH, jobs), options))


def _test_jobs(first: int, last: int, options: Mapping[str, Any]) -> Iterator[Job]:
    from taskqueue.jobs import TestJob

    for number in range(first, last + 1):
        yield TestJob({"task": "test", "number": number}, **options)
