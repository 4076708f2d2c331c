"""Connections are lent, taken back and closed, whatever happens beside: a fork, an end, a link that broke."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from taskqueue.drivers import kept as kept_connections
from taskqueue.drivers.kept import MOST_IDLE, KeptConnections
from tests.databases import Database


@pytest.fixture
def connections(database: Database) -> Iterator[KeptConnections]:
    made = KeptConnections(database.engine)
    yield made
    made.close()


def test_the_connection_that_was_used_last_is_lent_first(connections: KeptConnections) -> None:
    with connections.use() as first, connections.use() as second:
        assert first is not second
    with connections.use() as again:
        assert again is first


def test_no_two_threads_are_lent_the_same(connections: KeptConnections) -> None:
    together = threading.Barrier(5)
    lent = []

    def use() -> None:
        with connections.use() as kept:
            lent.append(kept)
            together.wait(10)

    threads = [threading.Thread(target=use) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(kept) for kept in lent}) == 5


def test_no_more_than_a_few_are_kept_for_nobody(connections: KeptConnections) -> None:
    many = [connections.use() for _ in range(MOST_IDLE + 3)]
    for kept in many:
        connections.take_back(kept)
    assert len([kept for kept in many if kept.connection is not None]) == MOST_IDLE


def test_one_that_comes_back_after_the_end_is_closed(connections: KeptConnections) -> None:
    with connections.use() as kept:
        connections.close()
        assert kept.connection is not None
    assert kept.connection is None
    with connections.use() as later:
        assert later is not kept


def test_after_a_link_broke_only_a_newer_one_is_lent(connections: KeptConnections) -> None:
    with connections.use() as old:
        pass
    with connections.use(after=connections.newest) as fresh:
        assert fresh is not old
    assert old.connection is None


def test_who_appears_while_another_thread_forks_locks_nobody_out(
    connections: KeptConnections, database: Database
) -> None:
    kept_connections._before_fork()
    newcomer = KeptConnections(database.engine)
    kept_connections._after_fork_in_parent()
    for each in (connections, newcomer):
        assert not each._opening.locked()
        with each.use():
            pass
        each.close()
