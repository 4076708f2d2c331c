"""A manager on a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskqueue import Job, QueueManager
from tests.node.making import MovableClock


class Mail(Job):
    """What the tests push; it runs nowhere."""

    name = "tests.manager.Mail"

    def handle(self) -> None:
        raise AssertionError("no node runs here")


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def manager(tmp_path: Path, clock: MovableClock) -> Iterator[QueueManager]:
    with QueueManager(f"sqlite:///{tmp_path}/queue.db", clock=clock) as made:
        yield made


@pytest.fixture
def mail() -> type[Job]:
    return Mail
