"""Where a run happens: a database of its own, on a server that may be killed or in a file, and links to be cut."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from taskqueue.drivers import migrate
from tests.databases import SERVERS, Database
from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.private import PrivateServer, await_that
from tests.servers.proxy import Proxy

T = TypeVar("T")

KINDS: dict[str, type[PrivateServer]] = {each.scheme: each for each in (PostgreSQL, MariaDB)}
"""The servers to be started for a run; what is not among them is a file."""


class Ground:
    """A new database with the tables of this release. ``server`` is a private one that runs, or None for a file."""

    def __init__(self, name: str, folder: Path, server: PrivateServer | None = None) -> None:
        self._owned = server is None and name in KINDS
        self.server = KINDS[name]() if self._owned else server
        self._proxies: list[Proxy] = []
        if self.server is None:
            self.database = SERVERS[name].with_tables(folder)
            self._name = ""
        else:
            self._name = self.server.new_database()
            migrate.upgrade(self.server.url(self._name))
            self.database = Database(SERVERS[name], self.server.url(self._name))

        self.make_effects()

    def make_effects(self) -> None:
        """Make the table of what transactional jobs do."""
        self.database.run("CREATE TABLE chaos_effects (job VARCHAR(36) NOT NULL, lease INTEGER NOT NULL)")

    def drop_effects(self) -> None:
        """Remove that table."""
        self.database.run("DROP TABLE chaos_effects")

    @property
    def url(self) -> str:
        return self.database.url

    @property
    def version(self) -> str:
        """Return what the server or library calls itself."""
        from sqlalchemy import create_engine

        engine = create_engine(self.database.engine.url)
        with engine.connect() as connection:
            version = ".".join(map(str, connection.dialect.server_version_info or ()))
        engine.dispose()
        return f"{type(self.server).__name__ if self.server else self.database.server.name} {version}"

    def link(self) -> tuple[str, Proxy | None]:
        """Return a URL of the database through a proxy of its own; in a file there is nothing to cut."""
        if self.server is None:
            return self.url, None
        proxy = Proxy(self.server.port)
        self._proxies.append(proxy)
        return self.server.url(self._name, proxy.port), proxy

    def restart(self, *, gently: bool) -> None:
        """Kill the server or have it close every connection, and start it; returns when it is ready."""
        assert self.server is not None
        self.server.restart(gently=gently)

    def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Read behind everybody's back, again while the server restarts."""
        return self._patiently(lambda: self.database.rows(sql, **values))

    def _patiently(self, look: Callable[[], T]) -> T:
        give_up = time.monotonic() + 30
        while True:
            try:
                return look()
            except DBAPIError:
                if time.monotonic() > give_up:
                    raise
                await_that(lambda: True, "a moment has passed")

    def key_of(self, job: UUID) -> Any:
        """Return a job's id as a parameter of a query."""
        return job.bytes if self.in_bytes else str(job)

    @property
    def in_bytes(self) -> bool:
        """Say whether ids are kept as bytes, where the database has no type for them."""
        return not self.database.server.capabilities.returning or self.server is None

    def clear(self) -> None:
        """Remove every row, and end every connection that is left."""
        self.database.empty()
        self.database.run("DELETE FROM chaos_effects")

    def leftovers(self) -> list[str]:
        """Say which connections and locks are left, once every node has ended."""
        left = []
        if self.server is not None:
            try:
                await_that(lambda: not self._connections(), "every connection is closed", 5)
            except AssertionError:
                left.append(f"{self._connections()} connection(s)")
        elif self.database.is_in_a_transaction():
            left.append("an open transaction")
        return left

    def _connections(self) -> int:
        assert self.server is not None
        return self.server.connections(self._name)

    def close(self) -> None:
        for each in self._proxies:
            each.close()
        if self._owned and self.server is not None:
            self.server.close()
