"""``db:status``: whether the tables are those of this release."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..application import Command, examples
from ..output import write_json
from ..session import is_still_to_be_made, read_settings
from ..tables import write_facts

EXAMPLES = examples("worker db:status", "worker db:status --json", "worker db:status || worker db:upgrade")
NOT_CURRENT = 78


def register(app: typer.Typer) -> None:
    """Add ``db:status``."""
    app.command("db:status", cls=Command, epilog=EXAMPLES)(db_status)


def db_status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> int:
    """Show whether the tables fit this release.

    Changes nothing, and makes no database. Exit code 0 where they fit, 78 where they do not.
    """
    document = _read_status()
    if as_json:
        write_json(document)
    else:
        others = ", ".join(document.pop("others"))
        write_facts(document | ({"other tables": others} if others else {}))
    return 0 if document["schema"] == "current" else NOT_CURRENT


def _read_status() -> dict[str, Any]:
    from taskqueue.drivers import migrate, open_driver
    from taskqueue.drivers.schema import Fit, SchemaStatus

    url = read_settings().database.url
    driver = open_driver(url)
    try:
        found = SchemaStatus(Fit.MISSING, None) if is_still_to_be_made(url) else migrate.status(driver)
        return {
            "database": driver.describe(),
            "schema": found.fit.value,
            "revision": found.current,
            "needed": found.needed,
            "others": list(found.others),
        }
    finally:
        driver.close()
