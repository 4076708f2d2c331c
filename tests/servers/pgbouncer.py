"""A throw-away PgBouncer that pools by transaction."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

import psycopg

from tests.servers.private import HOST, PASSWORD, USER, PrivateServer

_SETTINGS = """
[databases]
* = host={host} port={server}

[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
ignore_startup_parameters = {ignored}
"""


class PgBouncer(PrivateServer):
    """A pooler in front of a server: few connections there, each lent for one transaction."""

    name = "pgbouncer"
    scheme = "postgresql"
    account = "postgres"

    def __init__(self, server: PrivateServer, size: int = 2, ignored: str = "") -> None:
        self._server = server
        self._size = size
        self._ignored = ignored
        super().__init__()

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("pgbouncer", path=_PATH) else "PgBouncer (pgbouncer)"

    def _make(self) -> None:
        file = self.folder / "pgbouncer.ini"
        users = self.folder / "users.txt"
        users.write_text(f'"postgres" "{PASSWORD}"\n"{USER}" "{PASSWORD}"\n')
        file.write_text(
            _SETTINGS.format(
                host=HOST, server=self._server.port, port=self.port, size=self._size, ignored=self._ignored, users=users
            )
        )
        file.chmod(0o644)
        users.chmod(0o644)

    def _command(self) -> Sequence[str]:
        return [str(shutil.which("pgbouncer", path=_PATH)), str(self.folder / "pgbouncer.ini")]

    def _prepare(self) -> None:
        """Do nothing: who may log in is the server's business."""

    def _make_database(self, name: str) -> None:
        raise NotImplementedError

    def execute(self, statement: str, *values: Any, database: str | None = None) -> list[tuple[Any, ...]]:
        with psycopg.connect(
            host=HOST, port=self.port, user="postgres", password=PASSWORD, dbname=database or "postgres",
            connect_timeout=2, autocommit=True, prepare_threshold=None,
        ) as connection:  # fmt: skip
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def connections(self, database: str) -> int:
        return self._server.connections(database)

    def set_read_only(self, read_only: bool) -> None:
        self._server.set_read_only(read_only)


_PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
