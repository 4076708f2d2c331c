"""What a database tells an idle node: heard at once where it can tell at all, and never missed where it cannot."""

from __future__ import annotations

import select
import selectors
from collections.abc import Iterator

import pytest

from taskqueue.doorbell import Doorbell
from taskqueue.drivers import open_driver
from taskqueue.drivers.base import Driver, Listener
from taskqueue.node.hints import Hints
from tests.drivers.world import World

pytestmark = pytest.mark.needs("notify")


@pytest.fixture
def listener(driver: Driver) -> Iterator[Listener]:
    made = driver.listen()
    assert made is not None
    yield made
    made.close()


@pytest.fixture
def pusher(url: str) -> Iterator[Driver]:
    """Return a driver of another process, as far as the database can tell."""
    opened = open_driver(url)
    yield opened
    opened.close()


def wait_for(listener: Listener) -> bool | None:
    assert select.select([listener], [], [], 10)[0], "nothing was said"
    return listener.heard()


def test_what_another_connection_announces_is_heard_once(listener: Listener, pusher: Driver) -> None:
    assert listener.heard() is False
    pusher.announce()
    assert wait_for(listener) is True
    assert listener.heard() is False


def test_a_push_within_a_transaction_is_announced_when_it_commits(
    listener: Listener, pusher: Driver, world: World
) -> None:
    engine = pusher.engine  # type: ignore[attr-defined]
    with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        pusher.push_within(connection, [world.job()])
        assert listener.heard() is False
    assert wait_for(listener) is True


def test_a_hint_reaches_the_dispatchers_selector(listener: Listener, pusher: Driver) -> None:
    with selectors.DefaultSelector() as selector:
        hints = Hints(selector)
        hints.attach(listener)
        assert hints.listening
        pusher.announce()
        assert [key.data for key, _ in selector.select(10)] == [hints]
        assert hints.heard()
        hints.close()
        assert not hints.listening


def test_a_listener_whose_connection_was_ended_is_dropped_and_can_be_replaced(
    driver: Driver, listener: Listener
) -> None:
    with selectors.DefaultSelector() as selector:
        hints = Hints(selector)
        hints.attach(listener)
        end_every_other_connection(driver)

        while hints.listening:
            assert selector.select(10), "nobody noticed"
            hints.heard()

        again = driver.listen()
        assert again is not None
        hints.attach(again)
        driver.announce()
        assert selector.select(10)
        assert hints.heard()
        hints.close()


def test_the_doorbell_and_the_database_are_watched_side_by_side(listener: Listener, pusher: Driver) -> None:
    with selectors.DefaultSelector() as selector:
        hints = Hints(selector)
        hints.hang(Doorbell(b"\7" * 16))
        hints.attach(listener)
        pusher.announce()
        assert selector.select(10)
        assert hints.heard()
        hints.close()
        assert not selector.get_map()


def end_every_other_connection(driver: Driver) -> None:
    """Have the server end every connection to this database but the one that asks."""
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    ask = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"
    driver.read(lambda connection: connection.exec_driver_sql(ask).all())  # type: ignore[attr-defined]
