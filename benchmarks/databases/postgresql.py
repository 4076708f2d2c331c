"""PostgreSQL, as the server is set."""

from __future__ import annotations

import psutil
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from benchmarks.databases.kind import Durability, Limits, Place
from benchmarks.databases.server import Server
from benchmarks.wire import postgresql_reader

ON = Durability("on", "full", "full", "on")

PGQUEUER = {1: 12_767 / 39_732, 2: 19_716 / 54_144}
"""PgQueuer 1.6.0 at its best as a share of a bare loop of the same kind, by processes: 2 cores, November 2026."""
_OVER_PGQUEUER = 1.5
_GOAL = 0.8


class PostgreSQL(Server):
    """A server with the settings that it has; the tables vacuumed before each drain."""

    name = "postgresql"
    title = "PostgreSQL"
    library = "psycopg"
    bare_name = "bare psycopg"
    durabilities = (ON,)
    default = ON
    bare_workers = (1, 2)
    limits = Limits(
        drain={workers: (_OVER_PGQUEUER * ratio, _GOAL) for workers, ratio in PGQUEUER.items()},
        push_goal=0.8,
        bulk_goal=0.5,
        latency_p95_ms=(6.0, 4.0),
        statements=(1, 5, 6, 1),
    )
    id_of_number = "CAST(lpad(to_hex(n), 32, '0') AS uuid)"
    open_snapshot = ("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1 FROM tq_jobs LIMIT 1")
    log_position = "SELECT pg_current_wal_insert_lsn() - '0/0'"
    port = 5432
    reader = staticmethod(postgresql_reader)
    variable = "TASKQUEUE_TEST_POSTGRESQL"
    usual = "postgresql://root@127.0.0.1:5432/postgres"
    create_options = "TEMPLATE template0"
    drop = "DROP DATABASE {} WITH (FORCE)"
    shown_settings = (
        "fsync",
        "synchronous_commit",
        "full_page_writes",
        "wal_level",
        "shared_buffers",
        "max_wal_size",
        "autovacuum",
    )

    def setting(self, connection: Connection, name: str) -> str:
        return str(connection.exec_driver_sql(f"SHOW {name}").scalar())

    def version(self) -> str:
        with self.administrator() as connection:
            return self.setting(connection, "server_version").partition(" ")[0]

    def find_process(self, connection: Connection) -> psutil.Process | None:
        backend = psutil.Process(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar())
        first = backend.parent()
        return first if backend.name().startswith("postgres") else None

    def tidy(self, place: Place) -> None:
        with place.looking() as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
            try:
                connection.exec_driver_sql("CHECKPOINT")
            except DBAPIError:
                return  # It takes a right that not every administrator of databases has.
