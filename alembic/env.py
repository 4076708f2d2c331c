"""How Alembic gets at the database: on the connection that taskqueue holds, in its transaction.

Run by hand (``alembic revision --autogenerate``) it connects to the URL in DATABASE_URL or alembic.ini.
"""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection, create_engine

from taskqueue.drivers.schema import VERSION_TABLE
from taskqueue.drivers.tables import metadata


def ours(_object: object, name: str | None, kind: str, *_rest: object) -> bool:
    """Say whether a table is one of ours: an application may keep its own in the same database."""
    return kind != "table" or (name or "").startswith("tq_")


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


held = context.config.attributes.get("connection")
if held is not None:
    run(held)
else:
    url = os.environ.get("DATABASE_URL") or context.config.get_main_option("sqlalchemy.url", "")
    with create_engine(url).begin() as connection:
        run(connection)
