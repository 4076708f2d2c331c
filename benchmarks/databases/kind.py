"""What the measurements have to know of a kind of database: one small description each, and no ifs elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import Connection, NullPool, create_engine

from benchmarks.bare import BareLoop
from benchmarks.wire import Count
from taskqueue.drivers import migrate
from taskqueue.payload import create_key_file
from taskqueue.settings import Settings, load_settings

KEY_FILE = "bench.key"
VERBS = ("push", "push_many", "cycle", "idle cycle")
"""The verbs of a driver whose statements are counted."""


@dataclass(frozen=True, slots=True)
class Durability:
    """How durable commits are: ``full`` or ``normal``, for pushes and for a node's claims and acknowledgements."""

    name: str
    """As the database calls it."""
    pushers: str
    node: str
    beside: str
    """The name of the durability at which the bare loop is compared; its own where both are equally durable."""

    @property
    def equal(self) -> bool:
        """Say whether pushes and claims are equally durable, so that a bare loop can be so too."""
        return self.beside == self.name


@dataclass(frozen=True, slots=True)
class Limits:
    """The budgets. Ratios are of the bare loop's rate in the same run."""

    drain: Mapping[int, tuple[float, float]]
    """By number of workers: what passes, and what is the goal."""
    push_goal: float
    bulk_goal: float
    latency_p95_ms: tuple[float, float]
    statements: tuple[int, int, int, int]
    """What one call of each of `VERBS` may send at most, with 100 jobs where it takes several."""
    over_huey: float | None = None
    """A drain of so many times Huey's passes instead."""
    grown: tuple[float, float] = (0.85, 0.95)
    snapshot: tuple[float, float] = (0.80, 0.95)


@dataclass(frozen=True, slots=True)
class Place:
    """An empty database, and a folder for what stands beside it."""

    kind: Kind
    url: str
    folder: Path

    def make_tables(self) -> Place:
        """Make our tables and a key."""
        migrate.upgrade(self.url)
        create_key_file(self.folder / KEY_FILE)
        return self

    def groups(self, durability: Durability, workers: int = 1) -> dict[str, dict[str, Any]]:
        """Return what a manager or node here is to be set to; JSON can hold it."""
        database = {"url": self.url, "durability": durability.pushers, "node_durability": durability.node}
        return {
            "database": database,
            "encryption": {"key_file": str(self.folder / KEY_FILE)},
            "general": {"log_level": "warning"},
            "worker": {"workers": workers, "imports": ("benchmarks.jobs",), "max_jobs": "none", "timeout": "none"},
        }

    def settings(self, durability: Durability) -> Settings:
        """Return settings that nothing on this machine changes: no environment, no files."""
        return settings_from(self.groups(durability), self.folder)

    @contextmanager
    def looking(self) -> Iterator[Connection]:
        """Lend a connection of its own that commits each statement by itself."""
        engine = create_engine(
            self.kind.sqlalchemy_url(self.url), poolclass=NullPool, isolation_level=self.kind.autocommit
        )
        with engine.connect() as connection:
            yield connection

    def server_cpu(self) -> float:
        """Return the CPU seconds that the server has used so far; 0 where there is none, or none on this machine."""
        return self.kind.server_cpu()

    def bare(self, durability: Durability) -> BareLoop:
        """Return the bare loop, its table made if it is not there."""
        module = import_module(f"benchmarks.bare.{self.kind.name}")
        loop: BareLoop = module.open_bare(self.url, durability.pushers)
        return loop


class Kind(ABC):
    """A kind of database."""

    name: ClassVar[str]
    title: ClassVar[str]
    bare_name: ClassVar[str]
    durabilities: ClassVar[Sequence[Durability]]
    default: ClassVar[Durability]
    """That of a user who sets nothing."""
    bare_workers: ClassVar[Sequence[int]] = (1,)
    """With how many processes the bare loop is measured: only where several bring more than one."""
    limits: ClassVar[Limits]
    autocommit: ClassVar[Any] = "AUTOCOMMIT"
    id_of_number: ClassVar[str]
    """SQL for an id made of the number ``n``, ascending with it."""
    open_snapshot: ClassVar[Sequence[str]] = ()
    """What opens a transaction that keeps dead rows alive; nothing where there are none."""

    has_wire: ClassVar[bool] = True
    """Whether a client talks to a server."""
    log_position: ClassVar[str | None] = None
    """SQL for how many bytes the server has written into its log so far."""

    @abstractmethod
    def missing(self) -> str | None:
        """Say why no database can be made here; None where one can."""

    @abstractmethod
    def empty(self) -> AbstractContextManager[Place]:
        """Make a database without tables, and remove it at the end."""

    @abstractmethod
    def counting(self, url: str) -> AbstractContextManager[tuple[str, Count]]:
        """Yield a URL of the same database, and a count of all that is said to it by way of that URL."""

    @abstractmethod
    def version(self) -> str:
        """Return the version of the database."""

    def settings(self) -> Mapping[str, str]:
        """Return the server's settings on which the figures hang."""
        return {}

    def sqlalchemy_url(self, url: str) -> str:
        """Return a URL that names the library."""
        return url

    def server_cpu(self) -> float:
        """Return the CPU seconds that the server has used so far."""
        return 0.0

    def tidy(self, place: Place) -> None:
        """Bring a database that was just filled into the state in which one that has been up for a while is."""
        del place

    def equal_durabilities(self) -> list[Durability]:
        """Return the durabilities at which a bare loop is measured."""
        return [each for each in self.durabilities if each.equal]


def settings_from(groups: dict[str, dict[str, Any]], folder: Path) -> Settings:
    """Return settings from groups as `Place.groups` makes them."""
    return load_settings(keywords=groups, environ={}, directory=folder).settings
