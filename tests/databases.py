"""Databases for the tests: on a file and on every server that can be reached. Nowhere else do the tests name one.

A file is made for each test, as a copy. On a server a test gets the database of its process, emptied: to make one with
its tables costs 0.2 to 0.5 s there, to empty it 2 to 6 ms. Everything is dropped when the tests are over.
"""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import secrets
import shutil
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, inspect, make_url, text
from sqlalchemy.exc import OperationalError

from taskqueue.drivers import migrate, open_driver
from taskqueue.drivers.tables import metadata

_KEPT = {"tq_installation"}
"""Tables that an emptied database keeps, beside the one with its revision."""

_EMPTIED = [table.name for table in reversed(metadata.sorted_tables) if table.name not in _KEPT]
_AWAITED = {"pysqlite": "aiosqlite", "pymysql": "asyncmy"}
"""The libraries that do for an event loop what these do for threads; one that is not named does both."""

_SECONDS = 3
"""How long to try to reach a server."""


@dataclass
class Database:
    """A database that a test may use as it likes, and look into behind everybody's back."""

    server: Server
    url: str
    file: Path | None = None
    """Where it is a file."""

    @cached_property
    def engine(self) -> Engine:
        """An engine as a user would make it; it keeps no connection."""
        return self.server.engine(self.url)

    @property
    def asynchronous(self) -> URL:
        """Return the URL for an engine that is awaited; the library for it may be missing."""
        dialect = self.engine.dialect
        return self.engine.url.set(drivername=f"{dialect.name}+{_AWAITED.get(dialect.driver, dialect.driver)}")

    def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Return what a query finds; ids are 16 bytes, whatever the database makes of them."""
        with self.engine.connect() as connection:
            return [tuple(map(_plain, row)) for row in connection.execute(text(sql), values)]

    def run(self, *statements: str, **values: Any) -> None:
        """Run statements in one transaction."""
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement), values)

    def tables(self) -> set[str]:
        return set(inspect(self.engine).get_table_names())

    def empty(self) -> None:
        """Remove every row that a test left; tables, revision and the database's own id stay."""
        with self.engine.connect() as connection:
            self.server.end_others(connection)
        self.run(*(f"DELETE FROM {table}" for table in _EMPTIED))

    def is_in_a_transaction(self) -> bool:
        """Say whether somebody keeps a transaction open for longer than a write takes."""
        return self.server.is_in_a_transaction(self)

    def stored(self) -> Mapping[str, bytes]:
        """Return everything that is stored, by file or table, as it could be searched by a thief."""
        return self.server.stored(self)

    def copy(self, folder: Path) -> Database:
        """Return another database with the same tables and rows."""
        return self.server.copy(self, folder)


class Server(ABC):
    """Where databases of one kind are made."""

    name: ClassVar[str]
    example: ClassVar[str]
    nickname: ClassVar[str]
    """Another name that users have for it."""
    library: ClassVar[str]
    in_files: ClassVar[bool] = False

    def __init__(self) -> None:
        self._made: list[str] = []
        self._ready: Database | None = None
        self._tables: set[str] = set()

    @cached_property
    def missing(self) -> str | None:
        """Say why no database can be made here; None where one can."""
        return None

    @property
    def capabilities(self) -> Any:
        """Return what databases of this kind can do; asks no server."""
        return open_driver(self.example).capabilities

    @abstractmethod
    def new(self, folder: Path) -> Database:
        """Make a database without tables."""

    @abstractmethod
    def copy(self, original: Database, folder: Path) -> Database:
        """Make a database with the tables and rows of another one."""

    def ready(self, folder: Path) -> Database:
        """Return an empty database with the tables of this release."""
        made = self._ready
        if made is not None and made.tables() != self._tables:  # A test has dropped some of them.
            self.drop(made)
            made = None
        if made is None:
            made = self._ready = self.with_tables(folder)
            self._tables = made.tables()
        else:
            made.empty()
        return made

    def with_tables(self, folder: Path) -> Database:
        """Make a new database with the tables of this release."""
        made = self.new(folder)
        migrate.upgrade(made.url)
        return made

    def engine(self, url: str) -> Engine:
        return create_engine(url, poolclass=NullPool)

    @abstractmethod
    def end_others(self, connection: Connection) -> None:
        """End every other connection to the database: whatever an earlier test left is not to disturb the next."""

    @abstractmethod
    def is_in_a_transaction(self, database: Database) -> bool: ...

    def stored(self, database: Database) -> Mapping[str, bytes]:
        return {
            name: b"\n".join(_bytes(value) for row in database.rows(f"SELECT * FROM {name}") for value in row)
            for name in sorted(database.tables())
        }

    @abstractmethod
    def drop(self, database: Database) -> None:
        """Remove a database; a file goes with its folder."""

    @abstractmethod
    def close(self) -> None:
        """Remove every database that is left."""


class Files(Server):
    """Databases in files."""

    name = "sqlite"
    nickname = "sqlite"
    library = "sqlite3"
    example = "sqlite://"
    in_files = True

    def __init__(self) -> None:
        super().__init__()
        self._given: set[Path] = set()

    def new(self, folder: Path) -> Database:
        names = itertools.chain(["queue.db"], map("another-{}.db".format, itertools.count(1)))
        file = next(folder / name for name in names if folder / name not in self._given)
        self._given.add(file)
        return Database(self, f"{self.name}:///{file}", file)

    def copy(self, original: Database, folder: Path) -> Database:
        made = self.new(folder)
        assert original.file is not None
        assert made.file is not None
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(f"{original.file}{suffix}", f"{made.file}{suffix}")
        return made

    def ready(self, folder: Path) -> Database:
        if self._ready is None:
            self._made.append(tempfile.mkdtemp(prefix="taskqueue-test-"))
            self._ready = self.with_tables(Path(self._made[-1]))
        return self.copy(self._ready, folder)

    def is_in_a_transaction(self, database: Database) -> bool:
        with self.engine(f"{database.url}?timeout=0.3").connect() as connection:
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            except OperationalError:
                return True
            return False

    def stored(self, database: Database) -> Mapping[str, bytes]:
        assert database.file is not None
        files = database.file.parent.glob(f"{database.file.name}*")
        return {file.name: file.read_bytes() for file in files if file.suffix != ".key"}

    def end_others(self, connection: Connection) -> None:
        """Do nothing: every test has a file of its own."""

    def drop(self, database: Database) -> None:
        """Do nothing: the folder goes."""

    def close(self) -> None:
        for folder in self._made:
            shutil.rmtree(folder, ignore_errors=True)


class DatabaseServer(Server):
    """What the servers share: databases with random names, made and dropped on an administrator's connection."""

    variable: ClassVar[str]
    candidates: ClassVar[Sequence[str]]
    """URLs to try where the variable is not set."""

    drop_database: ClassVar[str]
    user_statements: ClassVar[tuple[Sequence[str], Sequence[str]]]
    """How a user is made and removed."""
    connect_args: ClassVar[Mapping[str, Any]] = {}

    @cached_property
    def address(self) -> str | None:
        """The first URL that answers."""
        given = os.environ.get(self.variable)
        for url in [given] if given else self.candidates:
            with contextlib.suppress(OperationalError), self.engine(url).connect():
                return url
        return None

    @cached_property
    def missing(self) -> str | None:
        if self.address is not None:
            return None
        where = os.environ.get(self.variable) or " or ".join(self.candidates)
        return f"no {self.name} server answers at {where}: start one, or set {self.variable} to its administrator's URL"

    def engine(self, url: str) -> Engine:
        return create_engine(
            make_url(url).set(drivername=f"{self.name}+{self.library}"),
            poolclass=NullPool,
            connect_args={"connect_timeout": _SECONDS, **self.connect_args},
        )

    @contextlib.contextmanager
    def administrator(self) -> Iterator[Connection]:
        assert self.address is not None
        with self.engine(self.address).execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            yield connection

    def url_of(self, name: str) -> str:
        assert self.address is not None
        return make_url(self.address).set(drivername=self.name, database=name).render_as_string(hide_password=False)

    def new(self, folder: Path) -> Database:
        return self._create("")

    def _create(self, rest: str) -> Database:
        name = f"tq_test_{secrets.token_hex(8)}"
        with self.administrator() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} {rest}")
        self._made.append(name)
        return Database(self, self.url_of(name))

    @contextlib.contextmanager
    def user(self, database: Database, password: str) -> Iterator[str]:
        """Give the name of a user with a password, who may read and write the tables of a database."""
        name = f"tq_test_{secrets.token_hex(4)}"
        quoted = password.replace("'", "''")
        made, removed = self.user_statements
        values = {"name": name, "password": quoted, "database": make_url(database.url).database}
        with self.engine(database.url).execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            run = connection.connection.cursor().execute  # As it is: no sign in the password may be a parameter's.
            try:
                for statement in made:
                    run(statement.format(**values))
                yield name
            finally:
                for statement in removed:
                    run(statement.format(**values))

    def drop(self, database: Database) -> None:
        self._drop(make_url(database.url).database or "")

    def _drop(self, name: str) -> None:
        with self.administrator() as connection:
            self.end_all(connection, name)
            connection.exec_driver_sql(self.drop_database.format(name))
        self._made.remove(name)

    def close(self) -> None:
        for name in list(self._made):
            self._drop(name)
        self._ready = None

    @abstractmethod
    def end_all(self, connection: Connection, name: str) -> None:
        """End every connection to a database."""


class PostgreSQL(DatabaseServer):
    name = "postgresql"
    nickname = "pgsql"
    example = "postgresql://localhost/example"
    library = "psycopg"
    variable = "TASKQUEUE_TEST_POSTGRESQL"
    candidates = tuple(
        f"postgresql://{user}@127.0.0.1:5432/postgres" for user in dict.fromkeys([getpass.getuser(), "postgres"])
    )
    drop_database = "DROP DATABASE {} WITH (FORCE)"
    user_statements = (
        (
            "CREATE ROLE {name} LOGIN PASSWORD '{password}'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}",
        ),
        ("DROP OWNED BY {name}", "DROP ROLE {name}"),
    )
    _others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

    def new(self, folder: Path) -> Database:
        return self._create("TEMPLATE template0")

    def copy(self, original: Database, folder: Path) -> Database:
        with original.engine.connect() as connection:
            self.end_others(connection)
        return self._create(f"TEMPLATE {make_url(original.url).database}")

    def end_all(self, connection: Connection, name: str) -> None:
        """Do nothing: to drop a database ends them."""

    def end_others(self, connection: Connection) -> None:
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {self._others}"))

    def is_in_a_transaction(self, database: Database) -> bool:
        return _lasts(lambda: database.rows(f"SELECT pid, xact_start {self._others} AND xact_start IS NOT NULL"))


class MySQL(DatabaseServer):
    name = "mysql"
    nickname = "mariadb"
    example = "mysql://localhost/example"
    library = "pymysql"
    variable = "TASKQUEUE_TEST_MYSQL"
    candidates = tuple(f"mysql://{user}@127.0.0.1:3306" for user in dict.fromkeys(["root", getpass.getuser()]))
    drop_database = "DROP DATABASE {}"
    user_statements = (
        (
            "CREATE USER {name} IDENTIFIED BY '{password}'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO {name}",
        ),
        ("DROP USER {name}",),
    )
    connect_args: ClassVar[Mapping[str, Any]] = {"ssl_disabled": True}  # to prepare for it takes the library 25 ms
    _others = "information_schema.processlist WHERE db = :db AND id <> CONNECTION_ID()"

    def copy(self, original: Database, folder: Path) -> Database:
        made = self.new(folder)
        source = make_url(original.url).database
        for table in sorted(original.tables()):
            made.run(
                f"CREATE TABLE {table} LIKE {source}.{table}", f"INSERT INTO {table} SELECT * FROM {source}.{table}"
            )
        return made

    def end_others(self, connection: Connection) -> None:
        (name,) = connection.exec_driver_sql("SELECT DATABASE()").one()
        self.end_all(connection, name)

    def end_all(self, connection: Connection, name: str) -> None:
        for (number,) in connection.execute(text(f"SELECT id FROM {self._others}"), {"db": name}).all():
            with contextlib.suppress(OperationalError):  # It has ended meanwhile.
                connection.exec_driver_sql(f"KILL {number:d}")

    def is_in_a_transaction(self, database: Database) -> bool:
        query = (
            "SELECT t.trx_id, t.trx_started FROM information_schema.innodb_trx t JOIN information_schema.processlist p"
            " ON p.id = t.trx_mysql_thread_id"
            " WHERE t.trx_lock_structs > 0 AND p.db = DATABASE() AND p.id <> CONNECTION_ID()"
        )
        return _lasts(lambda: database.rows(query))


def _lasts(look: Callable[[], Sequence[tuple[Any, ...]]], seconds: float = 0.3) -> bool:
    """Say whether one of the transactions that are seen now is still seen after so many seconds."""
    pause, seen, over = threading.Event(), set(look()), time.monotonic() + seconds
    while seen and time.monotonic() < over:
        pause.wait(0.02)
        seen &= set(look())
    return bool(seen)


def _plain(value: Any) -> Any:
    return value.bytes if isinstance(value, UUID) else value


def _bytes(value: Any) -> bytes:
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()


SERVERS: Mapping[str, Server] = {each.name: each for each in (Files(), PostgreSQL(), MySQL())}
"""Every kind of database, the one that needs no server first."""


def require(server: Server) -> None:
    """Skip the test where a server is missing; where CI is set that is a failure."""
    if server.missing is not None and os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(server.missing, pytrace=False)
    if server.missing is not None:
        pytest.skip(server.missing)


def close_all() -> None:
    """Drop every database that this process has made."""
    for server in SERVERS.values():
        server.close()
