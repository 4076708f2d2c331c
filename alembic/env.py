"""How Alembic gets at the database: on the connection that taskqueue holds, in its transaction.

Run by hand (``alembic revision --autogenerate``) it connects to the URL in DATABASE_URL or alembic.ini.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from alembic import context
from sqlalchemy import Connection

from taskqueue.drivers import open_driver
from taskqueue.drivers.schema import VERSION_TABLE
from taskqueue.drivers.sql import SQLDriver
from taskqueue.drivers.tables import is_made_on, metadata
from taskqueue.settings import parse_database_url


def ours(item: object, name: str | None, kind: str, *_rest: object) -> bool:
    """Say whether a table is one of ours, as an application may keep its own there, and is meant for this database."""
    return (kind != "table" or (name or "").startswith("tq_")) and is_made_on(item, context.get_context().dialect.name)


def run(connection: Connection) -> None:
    """Run the migrations in one transaction on ``connection``."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_object=ours,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


@contextmanager
def opened(url: str) -> Iterator[SQLDriver]:
    """Open the database of a URL as a node would: with the same library, waiting for whoever else migrates."""
    driver = cast("SQLDriver", open_driver(url))
    try:
        driver.create()
        yield driver
    finally:
        driver.close()


held = context.config.attributes.get("connection")
if held is not None:
    run(held)
else:
    url = os.environ.get("DATABASE_URL") or context.config.get_main_option("sqlalchemy.url") or ""
    with opened(parse_database_url(url)) as driver, driver.migrating() as connection:
        run(connection)
