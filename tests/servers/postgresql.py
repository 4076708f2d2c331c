"""A throw-away PostgreSQL cluster."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import psycopg

from tests.servers.private import HOST, PASSWORD, USER, PrivateServer

_SETTINGS = {
    "listen_addresses": HOST,
    "fsync": "off",  # Processes are killed here, never the machine.
    "shared_buffers": "64MB",
    "max_connections": "300",
    "max_prepared_transactions": "10",
    "log_lock_waits": "on",
}


class PostgreSQL(PrivateServer):
    """PostgreSQL, in the newest version that is installed."""

    name = "postgresql"
    scheme = "postgresql"
    account = "postgres"
    gentle: ClassVar[signal.Signals] = signal.SIGINT

    @classmethod
    def missing(cls) -> str | None:
        return None if _programs() else "a PostgreSQL server (initdb, postgres)"

    def _make(self) -> None:
        self._data = self.folder / "data"
        self._programs = _programs()
        assert self._programs is not None
        initdb = ("--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C", "-D", self._data)
        self._run(self._programs / "initdb", *initdb)
        with (self._data / "postgresql.conf").open("a") as file:
            file.write("include_if_exists = 'moods.conf'\n")

    def _command(self) -> Sequence[str]:
        assert self._programs is not None
        settings = _SETTINGS | {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self._data), *words]

    def _prepare(self) -> None:
        self.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")

    def _make_database(self, name: str) -> None:
        self.execute(f"CREATE DATABASE {name} OWNER {USER}")

    def execute(self, statement: str, *values: Any, database: str | None = None) -> list[tuple[Any, ...]]:
        with psycopg.connect(
            host=str(self.folder), port=self.port, user="postgres", dbname=database or "postgres", autocommit=True,
            connect_timeout=2,
        ) as connection:  # fmt: skip
            cursor = connection.execute("SET default_transaction_read_only = off")
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def connections(self, database: str) -> int:
        ((number,),) = self.execute("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = %s", database)
        return int(number)

    def set_read_only(self, read_only: bool) -> None:
        """As a server that was demoted while its connections stayed open: SQLSTATE 25006."""
        moods = self._data / "moods.conf"
        word = "on" if read_only else "off"
        moods.write_text(f"default_transaction_read_only = {word}\n")
        moods.chmod(0o644)
        self.execute("SELECT pg_reload_conf()")
        self._await_mood(word)

    def _await_mood(self, word: str) -> None:
        from tests.servers.private import await_that

        def told() -> bool:
            with psycopg.connect(self.url("postgres"), connect_timeout=2) as connection:
                return connection.execute("SHOW default_transaction_read_only").fetchone() == (word,)

        await_that(told, f"the server's sessions have default_transaction_read_only {word}")


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parents[1].name))
    if found:
        return found[-1].parent
    anywhere = shutil.which("initdb")
    return Path(anywhere).parent if anywhere else None
