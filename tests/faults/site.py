"""One database on a server that may be broken, reached through a proxy that may break the link."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.drivers import migrate, open_driver
from tests.databases import SERVERS, Database
from tests.drivers.world import MovableClock, World
from tests.node.running import House
from tests.servers.private import PrivateServer
from tests.servers.proxy import Proxy

GIVES_UP_WITHIN = 6.0
"""Seconds in which a server that is down has to be reported."""

LETS_GO_WITHIN = 25.0
"""Seconds in which a verb has to give up on a link that takes everything and answers nothing."""


@dataclass
class Site:
    """What a test breaks, and the ways to look at it that are never broken."""

    server: PrivateServer
    database: str
    proxy: Proxy
    worlds: list[World] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Return the URL through the proxy."""
        return self.server.url(self.database, self.proxy.port)

    @property
    def direct_url(self) -> str:
        return self.server.url(self.database)

    def world(self, url: str | None = None, **options: Any) -> World:
        """Return the verbs of a driver of its own, through the proxy, on the clocks of this machine."""
        made = World(open_driver(url or self.url, **options), cast("MovableClock", SYSTEM_CLOCK))
        self.worlds.append(made)
        return made

    @cached_property
    def beside(self) -> World:
        """The verbs past the proxy."""
        return self.world(self.direct_url)

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read as the administrator does; ids are bytes."""
        rows = self.server.execute(statement, *values, database=self.database)
        return [tuple(value.bytes if isinstance(value, UUID) else value for value in row) for row in rows]

    def count(self, table: str) -> int:
        ((number,),) = self.rows(f"SELECT COUNT(*) FROM {table}")
        return int(number)

    def close(self) -> None:
        for each in self.worlds:
            each.driver.close()


def site_on(server: PrivateServer) -> Iterator[Site]:
    """Make a database with the tables of this release; whatever was broken is whole again afterwards."""
    database = server.new_database()
    migrate.upgrade(server.url(database))
    proxy = Proxy(server.port)
    site = Site(server, database, proxy)
    try:
        yield site
    finally:
        proxy.close()
        if not server.running:
            server.start()
        server.set_read_only(False)
        site.close()


class ServerHouse(House):
    """A house on a server: its nodes reach their database through the proxy, the test itself past it."""

    durability = "full"
    """What a server has not been made to write is lost when it is killed: claims, and so leases, as well as results."""

    def __init__(self, folder: Path, site: Site) -> None:
        super().__init__(folder, Database(SERVERS[site.server.scheme], site.direct_url))
        self.site = site
        self.url = site.url


@contextlib.contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Give a list that holds the seconds that the block took, once it has ended."""
    taken: list[float] = []
    began = time.monotonic()
    try:
        yield taken
    finally:
        taken.append(time.monotonic() - began)


def ids(jobs: Sequence[Any]) -> set[bytes]:
    return {bytes(job.id) for job in jobs}
