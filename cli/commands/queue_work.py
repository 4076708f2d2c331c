"""``queue:work``: run a node."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskqueue.errors import TaskQueueError, UsageError, did_you_mean
from taskqueue.settings import GeneralSettings, Settings, WorkerSettings
from taskqueue.states import State

from ..application import Command, examples
from ..filters import checked_queue
from ..options import with_options
from ..output import counted
from ..session import node_settings

if TYPE_CHECKING:
    from taskqueue.drivers.values import QueueRow

EXAMPLES = examples(
    "worker queue:work",
    "worker queue:work emails reports --workers=4",
    "worker queue:work --pm=dynamic --min-workers=2 --max-workers=10",
    "worker queue:work '*' --memory=100 --max-jobs=500 --timeout=1800",
    "worker queue:work --import shop.jobs --stop-when-empty",
)
DEFAULT_QUEUE = "default"
EVERY_QUEUE = "*"
OPTIONS = (
    "workers",
    "pm",
    "min_workers",
    "max_workers",
    "memory",
    "max_jobs",
    "timeout",
    "job_timeout",
    "concurrency",
    "stop_when_empty",
    "max_time",
    "grace",
    "imports",
    "node_name",
)
"""The settings of workers that this release heeds."""

HEEDED = {"static": ("workers",), "dynamic": ("min_workers", "max_workers"), "ondemand": ("max_workers",)}
"""The numbers of workers by which each mode of process management goes."""

_MOST_SENSIBLE = 4
"""Workers for each processor above which a warning is due."""
_logger = logging.getLogger("taskqueue.node")


def register(app: typer.Typer) -> None:
    """Add ``queue:work``."""
    app.command("queue:work", cls=Command, epilog=EXAMPLES)(queue_work)


@with_options(GeneralSettings, only=("log_level", "log_format"), into="general")
@with_options(WorkerSettings, only=OPTIONS, into="worker")
def queue_work(
    *,
    worker: Mapping[str, Any],
    general: Mapping[str, Any],
    queues: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUEUE", help="Queues in the order of service; '*' is every queue. [default: default]"),
    ] = None,
) -> int:
    """Work on jobs until told to stop.

    Ctrl-C or SIGTERM stops taking jobs and lets running ones finish; a second one stops at once and hands them back.
    """
    served = _served(queues)
    settings = node_settings({"worker": worker, "general": general})
    _refuse_idle_numbers(worker, settings.worker.pm)
    if settings.worker.pm == "static":
        _warn_of_many(settings.worker.workers)
    _tell_of_queues(settings, served, named=bool(queues))

    from taskqueue.node.supervisor import Node

    return Node(settings, served).run()


def _served(queues: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the queues to serve; None is every queue."""
    if not queues:
        return (DEFAULT_QUEUE,)
    if EVERY_QUEUE in queues:
        if len(set(queues)) > 1:
            raise UsageError("'*' means every queue: give it alone, or name the queues")
        return None
    return tuple(dict.fromkeys(checked_queue(name) for name in queues))


def _refuse_idle_numbers(given: Mapping[str, Any], mode: str) -> None:
    """Refuse a number of workers on the command line that means nothing in this mode, rather than pass over it."""
    for name in ("workers", "min_workers", "max_workers"):
        if given.get(name) is not None and name not in HEEDED[mode]:
            heeded = " and ".join(_flag(each) for each in HEEDED[mode])
            raise UsageError(f"{_flag(name)} means nothing with --pm={mode}, which goes by {heeded}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _warn_of_many(workers: int) -> None:
    processors = os.cpu_count() or 1
    if workers > _MOST_SENSIBLE * processors:
        _logger.warning("%d workers share %s", workers, counted(processors, "processor"))


def _tell_of_queues(settings: Settings, served: tuple[str, ...] | None, *, named: bool) -> None:
    """Say which served queue was never seen, and without a name what waits in queues that are not served."""
    if served is None:
        return
    rows = _known_queues(settings)
    known = [row.queue for row in rows]
    for name in served if named else ():
        if name not in known:
            _logger.warning("there is no queue %s so far%s", name, did_you_mean(name, known))
    waiting = {row.queue: row.counts.get(State.PENDING, 0) for row in rows if row.queue not in served}
    elsewhere = [f"{name} {number:,}" for name, number in waiting.items() if number]
    if elsewhere and not named:
        _logger.warning(
            "working on %s alone; jobs also wait in %s: name these queues, or '*' for all",
            served[0],
            ", ".join(elsewhere),
        )


def _known_queues(settings: Settings) -> Sequence[QueueRow]:
    """Return the queues, or none where the database is not ready; the node says what is wrong with it."""
    from taskqueue.drivers import migrate, open_driver

    try:
        driver = open_driver(settings.database.url)
        try:
            migrate.check(driver)
            return driver.queues()
        finally:
            driver.close()
    except TaskQueueError:
        return ()
