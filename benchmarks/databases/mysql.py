"""MariaDB and MySQL, as the server is set."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
from sqlalchemy import Connection

from benchmarks.databases.kind import Durability, Limits, Place
from benchmarks.databases.server import Server
from benchmarks.wire import mysql_reader

SERVERS = Durability("the server's", "full", "full", "the server's")
"""How durable a commit is, the server decides for all: see its innodb_flush_log_at_trx_commit."""

_PROCESSES = ("mariadbd", "mysqld")


class MySQL(Server):
    """A server with the settings that it has."""

    name = "mysql"
    title = "MySQL/MariaDB"
    library = "pymysql"
    bare_name = "bare PyMySQL"
    durabilities = (SERVERS,)
    default = SERVERS
    limits = Limits(
        drain={1: (0.5, 0.8), 2: (0.5, 0.8)},
        push_goal=0.8,
        bulk_goal=0.5,
        latency_p95_ms=(100.0, 50.0),
        statements=(1, 5, 11, 1),
    )
    id_of_number = "UNHEX(LPAD(HEX(n), 32, '0'))"
    open_snapshot = ("START TRANSACTION WITH CONSISTENT SNAPSHOT", "SELECT 1 FROM tq_jobs LIMIT 1")
    log_position = (
        "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'Innodb_os_log_written'"
    )
    port = 3306
    reader = staticmethod(mysql_reader)
    variable = "TASKQUEUE_TEST_MYSQL"
    usual = "mysql://root@127.0.0.1:3306"
    drop = "DROP DATABASE {}"
    shown_settings = (
        "innodb_flush_log_at_trx_commit",
        "sync_binlog",
        "log_bin",
        "innodb_buffer_pool_size",
        "innodb_doublewrite",
        "innodb_flush_method",
    )

    def setting(self, connection: Connection, name: str) -> str:
        return str(connection.exec_driver_sql(f"SELECT @@GLOBAL.{name}").scalar())

    def find_process(self, connection: Connection) -> psutil.Process | None:
        port = connection.exec_driver_sql("SELECT @@port").scalar()
        file = Path(str(connection.exec_driver_sql("SELECT @@pid_file").scalar()))
        with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
            return psutil.Process(int(file.read_text()))
        found = [each for each in psutil.process_iter(["name"]) if each.info["name"] in _PROCESSES]
        return found[0] if len(found) == 1 and port else None

    def tidy(self, place: Place) -> None:
        with place.looking() as connection:
            connection.exec_driver_sql("ANALYZE TABLE tq_jobs, tq_history")
