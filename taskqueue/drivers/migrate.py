"""Make, upgrade and look at the tables. Alembic is imported by the functions that migrate: it costs 0.4 s."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from sqlalchemy import Connection

from taskqueue.drivers import open_driver, schema, tables
from taskqueue.drivers.base import Driver
from taskqueue.drivers.schema import Fit, SchemaStatus
from taskqueue.drivers.sql import SQLDriver

_PATIENCE = 60.0
"""Seconds to wait for another process that is migrating."""


def migrations_dir() -> Path:
    """Return the folder of the migrations: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "migrations"
    return packaged if packaged.is_dir() else package.parent / "alembic"


def check(driver: Driver) -> None:
    """Raise `SchemaError` unless the tables are those of this release."""
    driver.check_schema()


def check_or_create(driver: Driver) -> None:
    """Make the tables where there are none at all, in a new file or an empty one; otherwise `check` them."""
    with _opened(driver) as ours:
        ours.create()
        if ours.schema_status().fit is Fit.MISSING:
            upgrade(ours)
        else:
            ours.check_schema()


def upgrade(target: str | Driver, *, share: bool = False) -> SchemaStatus:
    """Bring the tables of a database to this release, and return what they were before.

    On SQLite the file is made (its folder is not). Of several processes that upgrade at once one does it and the others
    wait up to 60 s and see it done. A database with another application's tables and none of ours is refused with
    `SchemaError`, unless ``share`` says that both are to live in it.
    """
    with _opened(target) as driver:
        driver.create()
        before = driver.schema_status()
        _refuse(before, driver, share=share)
        if before.fit is Fit.CURRENT:
            return before
        with driver.migrating(_PATIENCE) as connection:
            found = schema.read_status(connection)
            _refuse(found, driver, share=share)
            if found.fit is not Fit.CURRENT:
                _run(connection, "head")
        return before


def downgrade(target: str | Driver, revision: str = "base") -> None:
    """Take the tables back to an earlier revision; ``base`` removes them with every job in them."""
    with _opened(target) as driver, driver.migrating(_PATIENCE) as connection:
        _run(connection, revision, down=True)


def remove(target: str | Driver) -> None:
    """Remove the tables of taskqueue with everything in them, and the note of their revision. Other tables stay."""
    with _opened(target) as driver, driver.migrating(_PATIENCE) as connection:
        _drop(connection)


def status(target: str | Driver) -> SchemaStatus:
    """Say how the tables of a database fit this release. Changes nothing."""
    with _opened(target) as driver:
        return driver.schema_status()


def reset(target: str | Driver) -> None:
    """Remove the tables of taskqueue with everything in them, and make them anew. Other tables stay."""
    with _opened(target) as driver:
        driver.create()
        _refuse(driver.schema_status(), driver, share=False)
        with driver.migrating(_PATIENCE) as connection:
            _drop(connection)
            _run(connection, "head")


@contextmanager
def _opened(target: str | Driver) -> Iterator[SQLDriver]:
    """Give the driver of ``target``; one that had to be opened for this is closed again."""
    driver = cast("SQLDriver", open_driver(target) if isinstance(target, str) else target)
    try:
        yield driver
    finally:
        if isinstance(target, str):
            driver.close()


def _refuse(found: SchemaStatus, driver: SQLDriver, *, share: bool) -> None:
    allowed = {Fit.CURRENT, Fit.MISSING, Fit.OLDER} | ({Fit.FOREIGN} if share else set())
    schema.refuse_misfit(found, driver.describe(), allowed=allowed)


def _drop(connection: Connection) -> None:
    # The note goes first: where each change is committed by itself, tables without it are taken for unfinished ones.
    schema.drop_version(connection)
    tables.metadata.drop_all(connection)


def _run(connection: Connection, revision: str, *, down: bool = False) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    config.attributes["connection"] = connection
    if not connection.in_transaction():
        connection.begin()  # Or Alembic would begin and commit one of its own.
    (command.downgrade if down else command.upgrade)(config, revision)
