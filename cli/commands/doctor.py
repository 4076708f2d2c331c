"""``doctor``: examine the database, the nodes and the jobs, and say what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from taskqueue.errors import StoreError, TaskQueueError

from ..application import Command, examples
from ..doctor_report import document, write_findings
from ..output import write_json
from ..session import is_still_to_be_made, read_settings

if TYPE_CHECKING:
    from taskqueue.drivers.base import Driver
    from taskqueue.drivers.values import Finding
    from taskqueue.settings import Settings

EXAMPLES = examples("worker doctor", "worker doctor --json | jq .level", "worker doctor --fix")


def register(app: typer.Typer) -> None:
    """Add ``doctor``."""
    app.command("doctor", cls=Command, epilog=EXAMPLES)(doctor)


def doctor(
    *,
    fix: Annotated[bool, typer.Option("--fix", help="First put right what can be put right beside nodes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> int:
    """Examine database, nodes and jobs, and say what to do.

    Changes nothing without --fix, which makes missing indexes and sets the rights of files. Exit code 0 where all is
    well or needs only a look, 1 where a promise is broken.
    """
    from taskqueue.drivers import open_driver
    from taskqueue.drivers.values import Level

    settings = read_settings()
    driver = open_driver(settings.database.url, durability=settings.database.durability)
    try:
        mended = _mended(driver) if fix else []
        findings = _findings(driver, settings)
        (_write_document if as_json else write_findings)(findings, driver.describe(), mended)
    finally:
        driver.close()
    return int(any(each.level is Level.ERROR for each in findings))


def _mended(driver: Driver) -> list[str]:
    try:
        return driver.mend()
    except StoreError:  # What stands in the way is among the findings.
        return []


def _findings(driver: Driver, settings: Settings) -> list[Finding]:
    from taskqueue.clock import SYSTEM_CLOCK
    from taskqueue.drivers.values import Finding, Level
    from taskqueue.monitoring.checks import examine

    if is_still_to_be_made(settings.database.url):
        level = Level.ERROR if settings.general.production else Level.WARNING
        return [Finding("schema", level, "there is no database yet", "run `worker db:upgrade`, or push a first job")]
    key_ids, faults = _key_ids(driver, settings)
    return [*examine(driver, key_ids, SYSTEM_CLOCK), *faults]


def _key_ids(driver: Driver, settings: Settings) -> tuple[tuple[str, ...] | None, list[Finding]]:
    """Return the keys at hand, or None and what is wrong with them."""
    from taskqueue.drivers.values import Finding, Level
    from taskqueue.store import open_store

    try:
        driver.check_schema()
    except TaskQueueError:  # That is a finding of its own.
        return None, []
    try:
        store = open_store(settings)
    except TaskQueueError as failure:
        return None, [Finding("keys", Level.ERROR, str(failure))]
    try:
        return store.codec.key_ids, [Finding("keys", Level.WARNING, each) for each in store.notices]
    finally:
        store.close()


def _write_document(findings: list[Finding], database: str, mended: list[str]) -> None:
    write_json(document(findings, database, mended))
