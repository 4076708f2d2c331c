"""``db:reset``: remove every job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from taskqueue.errors import SchemaError

from ..application import Command, examples
from ..output import confirm, counted, write
from ..session import make_default_folder, read_settings

if TYPE_CHECKING:
    from taskqueue.drivers.base import Driver

EXAMPLES = examples("worker db:reset", "worker db:reset --yes")


def register(app: typer.Typer) -> None:
    """Add ``db:reset``."""
    app.command("db:reset", cls=Command, epilog=EXAMPLES)(db_reset)


def db_reset(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Remove every job and make the tables anew.

    Waiting, running and finished jobs are gone, with their statistics. Tables of other applications stay.
    """
    from taskqueue.drivers import migrate, open_driver

    database = read_settings().database
    make_default_folder(database.url)
    driver = open_driver(database.url)
    try:
        if not confirm(f"db:reset removes {_what_is_there(driver)} from {driver.describe()}", yes=yes):
            return 1
        migrate.reset(driver)
        write(f"{driver.describe()} is empty now")
        return 0
    finally:
        driver.close()


def _what_is_there(driver: Driver) -> str:
    """Return how many jobs would go, or less where the tables do not fit."""
    try:
        jobs = sum(sum(row.counts.values()) for row in driver.queues())
        nodes = len(driver.nodes())
    except SchemaError:
        return "every table of taskqueue"
    running = f" ({counted(nodes, 'node')} still at work)" if nodes else ""
    return f"{counted(jobs, 'job')}{running}"
