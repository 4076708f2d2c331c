"""A throw-away MariaDB server."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence
from typing import Any

import pymysql

from tests.servers.private import PASSWORD, USER, PrivateServer

SETTINGS = (
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--innodb-flush-log-at-trx-commit=2",  # Processes are killed here, never the machine.
    "--innodb-buffer-pool-size=64M",
    "--max-connections=300",
)


class MariaDB(PrivateServer):
    """MariaDB, as it is installed."""

    name = "mariadb"
    scheme = "mysql"
    account = "mysql"

    @classmethod
    def missing(cls) -> str | None:
        found = shutil.which("mariadb-install-db") and shutil.which("mariadbd", path=_SERVER_PATH)
        return None if found else "a MariaDB server (mariadb-install-db, mariadbd)"

    def _make(self) -> None:
        self._data = self.folder / "data"
        self._socket = self.folder / "server.sock"
        self._run(
            str(shutil.which("mariadb-install-db")), "--no-defaults", f"--datadir={self._data}", "--skip-test-db",
            "--auth-root-authentication-method=normal", "--skip-name-resolve",
        )  # fmt: skip

    def _command(self) -> Sequence[str]:
        return [
            str(shutil.which("mariadbd", path=_SERVER_PATH)), "--no-defaults", f"--datadir={self._data}",
            f"--port={self.port}", f"--socket={self._socket}", f"--pid-file={self.folder}/server.pid", *SETTINGS,
        ]  # fmt: skip

    def _answers(self) -> bool:
        # PyMySQL leaves a socket open that it could not connect.
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0 and super()._answers()

    def _prepare(self) -> None:
        self.execute(f"CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}'")
        self.execute(f"GRANT PROCESS ON *.* TO {USER}@'%'")  # To see who is in a transaction.

    def _make_database(self, name: str) -> None:
        self.execute(f"CREATE DATABASE {name}")
        self.execute(f"GRANT ALL ON {name}.* TO {USER}@'%'")

    def execute(self, statement: str, *values: Any, database: str | None = None) -> list[tuple[Any, ...]]:
        connection = pymysql.connect(
            unix_socket=str(self._socket), user="root", database=database, autocommit=True, connect_timeout=2
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def connections(self, database: str) -> int:
        sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = %s"
        ((number,),) = self.execute(sql, database)
        return int(number)

    def set_read_only(self, read_only: bool) -> None:
        """As a server that was demoted while its connections stayed open: error 1290."""
        self.execute(f"SET GLOBAL read_only = {int(read_only)}")


_SERVER_PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
