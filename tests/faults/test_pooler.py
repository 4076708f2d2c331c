"""Behind a pooler that lends its two connections for one transaction each: everything works, nothing is mixed up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from taskqueue import QueueManager
from taskqueue.drivers import migrate, postgresql_link
from taskqueue.errors import DatabaseBusy
from taskqueue.payload import generate_key
from taskqueue.states import State
from tests.databases import SERVERS, Database
from tests.faults.site import ServerHouse, Site, site_on
from tests.node.running import job, until
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgresql import PostgreSQL
from tests.servers.private import PrivateServer, require


@pytest.fixture(scope="module")
def pooled_server() -> Iterator[PrivateServer]:
    require(PostgreSQL.missing())
    require(PgBouncer.missing())
    started = PostgreSQL()
    yield started
    started.close()


@pytest.fixture
def pooler(pooled_server: PrivateServer) -> Iterator[PgBouncer]:
    started = PgBouncer(pooled_server, size=2)
    yield started
    started.close()


@pytest.fixture
def site(pooled_server: PrivateServer, pooler: PgBouncer) -> Iterator[Site]:
    """Return a site whose URL leads through the pooler, by way of the proxy."""
    for made in site_on(pooled_server):
        made.proxy.lead_to(pooler.port)
        yield made


@pytest.fixture
def house(site: Site, tmp_path: Path) -> Iterator[ServerHouse]:
    made = ServerHouse(tmp_path, site)
    yield made
    made.close()


def at_once(*calls: Callable[[], object]) -> None:
    """Run each call in a thread of its own."""
    failures: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert failures == []


def test_the_tables_are_made_through_it(pooled_server: PrivateServer, pooler: PgBouncer) -> None:
    name = pooled_server.new_database()
    url = pooled_server.url(name, pooler.port)
    at_once(lambda: migrate.upgrade(url), lambda: migrate.upgrade(url))
    assert migrate.status(url).fit.name == "CURRENT"
    migrate.reset(url)
    assert migrate.status(url).fit.name == "CURRENT"


def test_every_verb_works_through_it_while_others_use_its_connections(site: Site) -> None:
    one, two = site.world(), site.world()
    for _ in range(8):
        for world in (one, two):
            node = world.node()
            pushed = {world.push(), world.push(["tag"])}
            many = [world.job() for _ in range(150)]
            world.driver.push_many(many)
            claimed = world.claim(node, 1000)
            assert {each.id for each in claimed} == pushed | {each.id for each in many}
            assert world.complete(node, *claimed).stale == []
            delayed = world.delayed(3600)
            assert world.state(delayed) is State.DELAYED
            world.driver.promote()
    assert one.counts_are_exact()


def test_threads_that_share_two_connections_confuse_no_statement(site: Site) -> None:
    worlds = [site.world() for _ in range(2)]

    def work(number: int) -> None:
        world = worlds[number % 2]
        node = world.node()
        queue = f"q{number}"
        for _ in range(40):
            job_id = world.push(queue=queue)
            (claimed,) = world.claim(node, 10, [queue])
            assert claimed.id == job_id
            assert world.complete(node, claimed).stale == []
            assert world.state(job_id) is State.COMPLETED

    at_once(*[lambda number=number: work(number) for number in range(6)])
    assert site.count("tq_history") == 240
    assert site.beside.counts_are_exact()


def test_a_driver_that_loses_the_pooler_goes_on_with_the_next(site: Site, pooler: PgBouncer) -> None:
    world = site.world()
    first = world.push()
    pooler.restart()
    second = world.push()
    site.proxy.lead_to(site.server.port)
    third = world.push()
    site.proxy.lead_to(pooler.port)
    fourth = world.push()
    assert {row.id for row in world.everything()} == {first, second, third, fourth}


def test_the_server_behind_it_may_restart(site: Site, pooled_server: PrivateServer) -> None:
    world = site.world()
    node = world.node()
    for _ in range(10):
        world.push()
    pooled_server.restart()
    world.push()
    assert len(world.claim(node)) == 11


def test_two_managers_and_a_node_work_through_it(house: ServerHouse, site: Site) -> None:
    node = house.start(2, general={"log_level": "warning"})

    def push() -> None:
        with QueueManager(site.url, encryption_key=house.key) as manager:
            for _ in range(30):
                manager.push(job("Quick"))
            manager.push_many([job("Quick") for _ in range(120)])

    at_once(push, push)
    until(lambda: site.count("tq_history") == 300, "every job is final")
    assert node.stop() == 0
    house.assert_no_start_twice()
    assert site.beside.counts_are_exact()
    assert "Traceback" not in node.log
    assert "does not answer" not in node.log


def test_a_manager_reads_and_writes_through_it(site: Site) -> None:
    with QueueManager(site.url, encryption_key=generate_key()) as manager:
        handle = manager.push(job("Quick"))
        assert [record.id for record in manager.get_jobs(job_class="Quick")] == [handle.id]


def test_a_table_that_stays_locked_is_said_to_be_busy_behind_it_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = postgresql_link._LIMITED.replace("'10s'", "'1s'")
    assert shorter != postgresql_link._LIMITED
    monkeypatch.setattr(postgresql_link, "_LIMITED", shorter)
    world = site.world()
    node = world.node()
    first = world.push()
    direct = Database(SERVERS[site.server.scheme], site.direct_url).engine
    for verb in (world.push, lambda: world.driver.push_many([world.job()]), lambda: world.claim(node)):
        with direct.begin() as other:
            other.execute(text("LOCK TABLE tq_jobs"))
            with pytest.raises(DatabaseBusy, match="nothing was changed"):
                verb()
    assert [(row.id, row.state) for row in world.everything()] == [(first, State.PENDING)]


def test_claims_behind_it_are_read_committed_under_another_default(site: Site, pooler: PgBouncer) -> None:
    level = "SET default_transaction_isolation = 'serializable'"
    site.server.execute(f"ALTER DATABASE {site.database} {level}", database=site.database)
    pooler.restart()
    worlds = [site.world() for _ in range(4)]
    nodes = [world.node() for world in worlds]
    worlds[0].driver.push_many([worlds[0].job() for _ in range(400)])
    claimed: list[bytes] = []

    def claim(number: int) -> None:
        for _ in range(20):
            claimed.extend(each.id for each in worlds[number].claim(nodes[number], 5))

    at_once(*[lambda number=number: claim(number) for number in range(4)])
    assert len(claimed) == len(set(claimed)) == 400
