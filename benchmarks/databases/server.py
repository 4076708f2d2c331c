"""What databases on servers share: one with a random name for each repetition, dropped afterwards, and CPU time."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import psutil
from sqlalchemy import Connection, NullPool, create_engine, make_url
from sqlalchemy.exc import OperationalError

from benchmarks.databases.kind import Kind, Place
from benchmarks.measure import cpu_of, family
from benchmarks.wire import Count, counting_proxy

_SECONDS_TO_CONNECT = 3
_LOOPBACK = {None, "localhost", "127.0.0.1", "::1"}


class Server(Kind):
    """A server that is there already; its settings are left as they are."""

    library: ClassVar[str]
    port: ClassVar[int]
    variable: ClassVar[str]
    usual: ClassVar[str]
    """The URL that is tried where the variable is not set."""
    drop: ClassVar[str]
    create_options: ClassVar[str] = ""
    shown_settings: ClassVar[Sequence[str]]

    @property
    def address(self) -> str:
        """Return the URL of an administrator."""
        return os.environ.get(self.variable) or self.usual

    def missing(self) -> str | None:
        try:
            with self.administrator():
                return None
        except OperationalError as error:
            reason = str(error.orig).strip().splitlines()[0]
        return f"no {self.title} server answers ({reason}): start one, or set {self.variable} to an administrator's URL"

    @contextmanager
    def administrator(self) -> Iterator[Connection]:
        """Lend a connection with the right to make databases."""
        arguments = {"connect_timeout": _SECONDS_TO_CONNECT}
        engine = create_engine(
            self.sqlalchemy_url(self.address),
            poolclass=NullPool,
            isolation_level=self.autocommit,
            connect_args=arguments,
        )
        with engine.connect() as connection:
            yield connection

    def sqlalchemy_url(self, url: str) -> str:
        return make_url(url).set(drivername=f"{self.name}+{self.library}").render_as_string(hide_password=False)

    @contextmanager
    def empty(self) -> Iterator[Place]:
        name = f"tq_bench_{secrets.token_hex(8)}"
        url = make_url(self.address).set(drivername=self.name, database=name)
        with self.administrator() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} {self.create_options}")
        try:
            with tempfile.TemporaryDirectory(prefix="taskqueue-bench-") as folder:
                yield Place(self, url.render_as_string(hide_password=False), Path(folder))
        finally:
            with self.administrator() as connection:
                connection.exec_driver_sql(self.drop.format(name))

    @staticmethod
    @abstractmethod
    def reader(count: Count) -> Callable[[bytes], None]:
        """Return what counts the statements in that which a client sends."""

    @contextmanager
    def counting(self, url: str) -> Iterator[tuple[str, Count]]:
        parsed = make_url(url)
        address = parsed.host or "localhost", parsed.port or self.port
        with counting_proxy(*address, self.reader) as (port, count):
            yield parsed.set(host="127.0.0.1", port=port).render_as_string(hide_password=False), count

    def version(self) -> str:
        with self.administrator() as connection:
            return str(connection.exec_driver_sql("SELECT version()").scalar())

    def settings(self) -> Mapping[str, str]:
        with self.administrator() as connection:
            return {name: self.setting(connection, name) for name in self.shown_settings}

    @abstractmethod
    def setting(self, connection: Connection, name: str) -> str:
        """Return a setting as the server shows it."""

    @cached_property
    def process(self) -> psutil.Process | None:
        """The server's first process; None where it runs elsewhere or may not be seen."""
        if make_url(self.address).host not in _LOOPBACK:
            return None
        with contextlib.suppress(psutil.Error, OSError, ValueError), self.administrator() as connection:
            return self.find_process(connection)
        return None

    @abstractmethod
    def find_process(self, connection: Connection) -> psutil.Process | None:
        """Return the server's first process."""

    def server_cpu(self) -> float:
        """Return the CPU seconds of all its processes, for whomever they worked; 0 where they cannot be seen."""
        return cpu_of(family(self.process)) if self.process is not None else 0.0
