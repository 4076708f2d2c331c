"""A manager on a database of its own, of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from taskqueue import Job, QueueManager
from taskqueue.payload import generate_key
from tests.databases import Database
from tests.node.making import MovableClock

Connect = Callable[..., QueueManager]


class Mail(Job):
    """What the tests push; it runs nowhere."""

    name = "tests.manager.Mail"

    def handle(self) -> None:
        raise AssertionError("no node runs here")


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def connect(database: Database) -> Connect:
    """Return what makes managers on the database of the test, with one key unless another is given."""
    key = generate_key()

    def make(**options: object) -> QueueManager:
        return QueueManager(database.url, **({"encryption_key": key} | options))  # type: ignore[arg-type]

    return make


@pytest.fixture
def manager(connect: Connect, clock: MovableClock) -> Iterator[QueueManager]:
    with connect(clock=clock) as made:
        yield made


@pytest.fixture
def mail() -> type[Job]:
    return Mail
