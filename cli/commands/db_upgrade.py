"""``db:upgrade``: bring the tables to this release."""

from __future__ import annotations

from typing import Annotated

import typer

from ..application import Command, examples
from ..output import write
from ..session import make_default_folder, read_settings

EXAMPLES = examples("worker db:upgrade", "DB_PATH=/var/lib/queue/queue.db worker db:upgrade")


def register(app: typer.Typer) -> None:
    """Add ``db:upgrade``."""
    app.command("db:upgrade", cls=Command, epilog=EXAMPLES)(db_upgrade)


def db_upgrade(
    *,
    share: Annotated[
        bool, typer.Option("--share", help="Also where another application's tables are in the database.")
    ] = False,
) -> None:
    """Make the tables, or bring them to this release.

    Jobs stay. Of several commands that upgrade at once one does it and the others wait. Stop the nodes before.
    """
    from taskqueue.drivers import migrate, open_driver

    database = read_settings().database
    make_default_folder(database.url)
    driver = open_driver(database.url)
    try:
        before = migrate.upgrade(driver, share=share)
        address = driver.describe()
    finally:
        driver.close()
    if before.fit == "current":
        write(f"{address} is at revision {before.needed}: nothing to do")
    elif before.current is None:
        write(f"{address} now has the tables of revision {before.needed}")
    else:
        write(f"{address} went from revision {before.current} to {before.needed}")
