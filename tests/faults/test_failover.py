"""A server that takes no writes any more, as the old primary after a failover: said plainly, and over by itself."""

from __future__ import annotations

import pytest

from taskqueue.errors import DatabaseUnreachable
from taskqueue.states import State
from tests.faults.site import ServerHouse, Site
from tests.node.running import until
from tests.servers.private import PrivateServer


def test_writes_to_a_read_only_server_are_refused_as_unreachable_and_reads_go_on(
    site: Site, private_server: PrivateServer
) -> None:
    world = site.world()
    node = world.node()
    job_id = world.push()
    private_server.set_read_only(True)
    for write in (world.push, lambda: world.claim(node), world.node):
        with pytest.raises(DatabaseUnreachable, match=f"127.0.0.1:{site.proxy.port}"):
            write()
    assert world.state(job_id) is State.PENDING
    private_server.set_read_only(False)
    assert [each.id for each in world.claim(node)] == [job_id]
    assert world.counts_are_exact()


def test_the_connection_to_a_read_only_server_is_given_up(site: Site, private_server: PrivateServer) -> None:
    """The address may lead to the new primary by now, but only for a new connection."""
    world = site.world()
    world.push()
    private_server.set_read_only(True)
    before = site.proxy.accepted
    with pytest.raises(DatabaseUnreachable):
        world.push()
    assert site.proxy.accepted > before


def test_a_write_finds_the_new_primary_without_an_error(site: Site, private_server: PrivateServer) -> None:
    """The old one went read-only with the connections open; the address leads to a writable one as soon as asked."""
    world = site.world()
    world.push()
    private_server.set_read_only(True)
    site.proxy.before_accepting = lambda: private_server.set_read_only(False)
    second = world.push()
    assert world.state(second) is State.PENDING


def test_a_node_stops_claiming_and_goes_on_by_itself(house: ServerHouse, private_server: PrivateServer) -> None:
    node = house.start(2).await_start()
    first = house.push("Quick")
    house.await_start(first)
    private_server.set_read_only(True)
    until(lambda: "does not answer" in node.log, "the node has seen it")
    assert len(house.started()) == 1
    private_server.set_read_only(False)
    handles = [house.push("Quick") for _ in range(20)]
    for handle in handles:
        house.await_start(handle)
    until(lambda: house.site.count("tq_history") == 21, "every job is final")
    assert node.stop() == 0
    house.assert_no_start_twice()
    assert "Traceback" not in node.log
