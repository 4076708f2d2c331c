"""A link that is lost while a handler's COMMIT is under way: whether its effect is there is read back, not guessed."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from taskqueue.drivers.receipts import Fate, Setback
from taskqueue.drivers.values import ClaimedJob
from taskqueue.states import State
from tests.drivers.world import World
from tests.faults.site import Site
from tests.faults.test_doubt import EVERY, warmed
from tests.servers.proxy import Doubt

EFFECT = text("INSERT INTO effects (job) VALUES (:job)")
SECONDS = 30.0


@pytest.fixture
def world(site: Site) -> World:
    made = warmed(site)
    made.driver.write(lambda connection: connection.execute(text("CREATE TABLE effects (job CHAR(32))")))  # type: ignore[attr-defined]
    return made


def claim(world: World) -> ClaimedJob:
    world.push()
    return world.claim_one(world.node())


def effects(site: Site) -> int:
    return site.count("effects")


@EVERY
def test_the_fate_of_a_commit_in_doubt_is_what_has_happened(site: Site, world: World, doubt: Doubt) -> None:
    claimed = claim(world)
    with world.driver.transaction(SECONDS) as transaction:
        transaction.session().execute(EFFECT, {"job": claimed.id.hex()})
        assert transaction.acknowledge(world.completion(claimed))
        site.proxy.doubt(doubt)
        assert not transaction.commit()

    fate = world.driver.fate(claimed.id, claimed.lease)
    assert site.proxy.doubted == [doubt]
    done = fate is Fate.COMPLETED
    assert fate in (Fate.COMPLETED, Fate.HELD)
    assert (effects(site), world.state(claimed.id)) == (done, State.COMPLETED if done else State.PROCESSING)
    assert world.counts_are_exact()


@EVERY
def test_a_run_in_doubt_that_is_repeated_where_it_was_not_committed_counts_once(
    site: Site, world: World, doubt: Doubt
) -> None:
    claimed = claim(world)
    site.proxy.doubt(doubt)
    fate = Fate.HELD
    while fate is Fate.HELD:
        with world.driver.transaction(SECONDS) as transaction:
            transaction.session().execute(EFFECT, {"job": claimed.id.hex()})
            assert transaction.acknowledge(world.completion(claimed))
            certain = transaction.commit()
        fate = Fate.COMPLETED if certain else world.driver.fate(claimed.id, claimed.lease)

    assert (fate, effects(site)) == (Fate.COMPLETED, 1)
    assert world.counts_are_exact()


def test_a_link_that_is_cut_before_the_commit_leaves_nothing(site: Site, world: World) -> None:
    claimed = claim(world)
    with world.driver.transaction(SECONDS) as transaction:
        transaction.session().execute(EFFECT, {"job": claimed.id.hex()})
        site.proxy.cut()
        with pytest.raises(Exception) as caught:
            transaction.acknowledge(world.completion(claimed))
        assert transaction.setback(caught.value) is Setback.LINK

    assert world.driver.fate(claimed.id, claimed.lease) is Fate.HELD
    assert effects(site) == 0
