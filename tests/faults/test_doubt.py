"""A link that is lost while COMMIT is under way: what happened is found out, never guessed and never done twice."""

from __future__ import annotations

import pytest

from taskqueue.drivers.values import ClaimedJob, Completion, Cycle, Ending, Standing
from taskqueue.errors import DatabaseUnreachable
from taskqueue.states import State, Verb
from tests.drivers.world import World
from tests.faults.site import Site, ids
from tests.servers.private import PrivateServer
from tests.servers.proxy import Doubt

EVERY = pytest.mark.parametrize("doubt", Doubt, ids=lambda doubt: doubt.name.lower())
"""Each way in which a COMMIT can be in doubt."""


def warmed(site: Site) -> World:
    """Return a world whose statements are prepared and whose lane is known."""
    world = site.world()
    node = world.node()
    for _ in range(12):
        world.push()
    while claimed := world.claim(node, 1):
        world.complete(node, *claimed)
    return world


@EVERY
@pytest.mark.parametrize("single", [True, False], ids=["first message", "COMMIT"])
def test_a_push_in_doubt_stores_one_job(site: Site, doubt: Doubt, single: bool) -> None:
    world = warmed(site)
    site.proxy.doubt(doubt, single=single)
    job_id = world.push()
    assert single <= bool(site.proxy.doubted), "a single statement has no COMMIT"
    assert site.rows("SELECT id FROM tq_jobs") == [(job_id,)]
    assert world.counts_are_exact()


@EVERY
@pytest.mark.parametrize("single", [True, False], ids=["first message", "COMMIT"])
def test_a_push_with_tags_in_doubt_stores_one_job(site: Site, doubt: Doubt, single: bool) -> None:
    world = warmed(site)
    site.proxy.doubt(doubt, single=single)
    job_id = world.push(["red", "round"])
    assert site.proxy.doubted
    assert site.rows("SELECT id FROM tq_jobs") == [(job_id,)]
    assert sorted(tag for (tag,) in site.rows("SELECT tag FROM tq_tags")) == ["red", "round"]
    assert world.counts_are_exact()


@EVERY
@pytest.mark.parametrize("jobs", [2, 700])
def test_a_push_of_many_in_doubt_stores_each_job_once(site: Site, doubt: Doubt, jobs: int) -> None:
    world = warmed(site)
    many = [world.job() for _ in range(jobs)]
    site.proxy.doubt(doubt)
    world.driver.push_many(many)
    assert site.proxy.doubted == [doubt]
    assert {row[0] for row in site.rows("SELECT id FROM tq_jobs")} == ids(many)
    assert world.counts_are_exact()


class Claims:
    """A node with ten jobs in hand and twenty more that wait, and what it has to write."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.world = warmed(site)
        self.before = site.count("tq_history")
        self.node = self.world.node()
        self.all = {self.world.push() for _ in range(30)}
        self.in_hand: list[ClaimedJob] = self.world.claim(self.node, 10)
        self.completions: list[Completion] = [self.world.completion(each) for each in self.in_hand[:6]]
        now = self.world.clock.now_us()
        self.endings = [
            Ending(each.id, each.lease, each.queue, Verb.FAIL, now) for each in self.in_hand[6:8]
        ] + [Ending(each.id, each.lease, each.queue, Verb.RELEASE, now) for each in self.in_hand[8:]]  # fmt: skip
        self.claimed: list[ClaimedJob] = []

    def cycle(self) -> Cycle:
        lanes = self.world.driver.lanes(None)
        cycle = self.world.driver.cycle(self.node, self.completions, self.endings, lanes, 5)
        self.claimed += cycle.claimed
        return cycle

    def settle(self) -> None:
        """Claim what is left."""
        self.completions, self.endings = [], []
        while self.cycle().claimed:
            pass

    def assert_all_is_well(self) -> None:
        leases = [(each.id, each.lease) for each in self.claimed]
        assert len(leases) == len(set(leases)), "no claim was handed out twice"
        held = {(bytes(row[0]), row[1]) for row in self.site.rows(
            "SELECT id, lease FROM tq_jobs WHERE node_id = %s", self.node
        )}  # fmt: skip
        assert {(bytes(id_), lease) for id_, lease in leases} == held, "every claim was handed out"
        assert self.site.count("tq_history") - self.before == 8, "each end was written once"
        assert ids(self.claimed) | ids(self.in_hand[:8]) == self.all, "no job is lost"
        counted = {state: jobs for (_, state), jobs in self.world.counted().items()}
        assert counted == {State.PROCESSING: 22, State.COMPLETED: 6 + self.before, State.FAILED: 2}
        assert self.world.counts_are_exact()
        rollups = self.site.rows("SELECT SUM(completed), SUM(failed) FROM tq_rollups")
        assert [(int(done), int(failed)) for done, failed in rollups] == [(6 + self.before, 2)]


@EVERY
def test_a_cycle_in_doubt_acknowledges_once_and_loses_no_claim(site: Site, doubt: Doubt) -> None:
    claims = Claims(site)
    site.proxy.doubt(doubt)
    cycle = claims.cycle()
    assert site.proxy.doubted == [doubt]
    assert cycle.stale == []
    claims.settle()
    claims.assert_all_is_well()


@EVERY
@pytest.mark.parametrize("single", [True, False], ids=["first message", "COMMIT"])
def test_a_cycle_that_only_claims_loses_no_claim(site: Site, doubt: Doubt, single: bool) -> None:
    claims = Claims(site)
    claims.cycle()
    claims.completions, claims.endings = [], []
    site.proxy.doubt(doubt, single=single)
    claims.cycle()
    assert single <= bool(site.proxy.doubted)
    site.proxy.calm()
    claims.settle()
    claims.assert_all_is_well()


@pytest.mark.parametrize("second", Doubt, ids=lambda doubt: f"then {doubt.name.lower()}")
@EVERY
def test_a_cycle_in_doubt_twice_may_be_repeated_by_its_caller(site: Site, doubt: Doubt, second: Doubt) -> None:
    claims = Claims(site)
    site.proxy.doubt(doubt, second)
    try:
        stale = list(claims.cycle().stale)
    except DatabaseUnreachable:
        stale = list(claims.cycle().stale)
    assert site.proxy.doubted == [doubt, second]
    assert stale == []
    claims.settle()
    claims.assert_all_is_well()


@EVERY
def test_a_cycle_in_doubt_is_settled_when_the_server_is_back(
    site: Site, private_server: PrivateServer, doubt: Doubt
) -> None:
    claims = Claims(site)
    site.proxy.doubt(doubt)
    site.proxy.refuses_after_doubt = True
    with pytest.raises(DatabaseUnreachable):
        claims.cycle()
    site.proxy.heal()
    private_server.restart()
    assert claims.cycle().stale == []
    claims.settle()
    claims.assert_all_is_well()


@EVERY
def test_what_another_node_took_meanwhile_is_still_reported_stale(site: Site, doubt: Doubt) -> None:
    claims = Claims(site)
    lost = claims.in_hand[0]
    assert site.beside.end(claims.node, lost, Verb.RELEASE) == []
    site.proxy.doubt(doubt)
    assert ids(claims.cycle().stale) == {lost.id}


@EVERY
def test_a_verb_of_control_in_doubt_happens_once_or_says_so(site: Site, doubt: Doubt) -> None:
    world = warmed(site)
    node = world.node()
    site.proxy.doubt(doubt)
    try:
        registered = world.node()
    except DatabaseUnreachable as error:
        assert "may or may not" in str(error)  # noqa: PT017 - one of two ways
    else:
        assert registered != node
    assert site.proxy.doubted == [doubt]


@EVERY
@pytest.mark.parametrize("each", [True, False], ids=["push_each", "push_unique"])
def test_a_unique_push_in_doubt_was_created_by_its_caller(site: Site, doubt: Doubt, each: bool) -> None:
    world = warmed(site)
    job = world.job(unique_key=b"k" * 32)
    site.proxy.doubt(doubt)
    stands = world.driver.push_each([job])[0] if each else world.driver.push_unique(job)
    assert site.proxy.doubted
    assert stands == Standing(job.id, created=True)
    assert site.rows("SELECT id FROM tq_jobs") == [(job.id,)]
