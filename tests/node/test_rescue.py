"""Death is judged by a sequence that stands still: two real drivers on one database, clocks to move."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from taskqueue.drivers import open_driver
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import Completion, JobRow, NewJob, NodeIdentity, NodeRow
from taskqueue.ids import new_id
from taskqueue.node.identity import describe_node, process_started
from taskqueue.node.rescue import Rescuer
from taskqueue.states import Reason, State
from tests.databases import Database
from tests.node.making import AT_MOST_ONCE, NOW_US, MovableClock

LEASE = 30.0


class Scene:
    """A node that holds jobs, and another one that observes it; each has a driver and a clock of its own."""

    def __init__(self, database: Database) -> None:
        self.clock, self.victims_clock = MovableClock(), MovableClock()
        self.driver = open_driver(database.url, clock=self.clock)
        self.victims_driver = open_driver(database.url, clock=self.victims_clock)
        self.victim = self.victims_driver.register_node(elsewhere("victim"))
        self.observer = self.driver.register_node(elsewhere("observer"))
        self.woken = 0
        self.rescuer = self.new_rescuer()

    def new_rescuer(self) -> Rescuer:
        return Rescuer(self.driver, self.clock, self.observer, self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def claim(self, number: int, **changes: int) -> list[bytes]:
        self.driver.push_many([new_job(**changes) for _ in range(number)])
        lanes = self.victims_driver.lanes(None)
        return [job.id for job in self.victims_driver.cycle(self.victim, (), (), lanes, number).claimed]

    def job(self, job_id: bytes) -> JobRow:
        row = self.driver.get(job_id)
        assert row is not None
        return row

    def node(self, node_id: int) -> NodeRow:
        return next(node for node in self.driver.nodes(everyone=True) if node.id == node_id)

    def watch(self, seconds: float, *, beating: bool) -> None:
        """Let time pass in steps of a second, the observer looking at each."""
        for _ in range(int(seconds)):
            self.clock.move(1)
            if beating:
                self.victims_driver.beat(self.victim)
            self.rescuer.look()


def new_job(delivery: int = 0, max_attempts: int = 3) -> NewJob:
    pending = State.PENDING.code
    return NewJob(
        new_id().bytes, "default", -5, "tests.Job", pending, NOW_US, NOW_US, None, None, max_attempts, delivery,
        None, None, 0, None, 0, None, None, "k1", None, b"sealed",
    )  # fmt: skip


def elsewhere(name: str) -> NodeIdentity:
    """Return the identity of a node on another host, about which nothing can be proved from here."""
    return replace(describe_node(name, LEASE, {}), host="elsewhere", boot_id="another boot")


@pytest.fixture
def scene(database: Database) -> Iterator[Scene]:
    made = Scene(database)
    yield made
    made.driver.close()
    made.victims_driver.close()


def test_jobs_of_a_node_that_stood_still_for_a_whole_lease_are_pending_again(scene: Scene) -> None:
    jobs = scene.claim(3)
    scene.rescuer.look()
    scene.watch(LEASE, beating=False)
    assert [scene.job(job).state for job in jobs] == [State.PENDING] * 3
    assert scene.node(scene.victim).state == "dead"
    assert scene.woken == 1


def test_a_rescue_gives_the_attempt_back_counts_a_loss_and_raises_the_lease(scene: Scene) -> None:
    (job,) = scene.claim(1)
    before = scene.job(job)
    scene.rescuer.look()
    scene.watch(LEASE, beating=False)
    after = scene.job(job)
    assert (before.attempt, after.attempt) == (1, 0)
    assert (before.losses, after.losses) == (0, 1)
    assert after.lease > before.lease


def test_a_node_that_stood_still_for_less_keeps_its_jobs(scene: Scene) -> None:
    (job,) = scene.claim(1)
    scene.rescuer.look()
    scene.watch(LEASE - 1, beating=False)
    assert scene.job(job).state is State.PROCESSING


def test_a_node_that_beats_is_never_robbed_however_long_its_job_takes(scene: Scene) -> None:
    (job,) = scene.claim(1)
    scene.rescuer.look()
    scene.watch(3 * LEASE, beating=True)
    assert scene.job(job).state is State.PROCESSING
    assert scene.node(scene.victim).state == "alive"


def test_a_fresh_observer_waits_a_whole_lease_before_it_judges(scene: Scene) -> None:
    (job,) = scene.claim(1)
    scene.clock.move(100 * LEASE)
    scene.rescuer.look()
    assert scene.job(job).state is State.PROCESSING


@pytest.mark.parametrize("jump", [3600, -3600, 86_400 * 365])
def test_wall_clocks_kill_nobody(scene: Scene, jump: int) -> None:
    (job,) = scene.claim(1)
    scene.rescuer.look()
    scene.clock.us += jump * 1_000_000
    scene.watch(5, beating=True)
    assert scene.job(job).state is State.PROCESSING


def test_an_observer_that_was_itself_asleep_cannot_kill_a_living_node(scene: Scene) -> None:
    """It looked, slept for a lease between its look and its mark, and the node has beaten meanwhile."""
    seen = scene.node(scene.victim).sequence
    scene.victims_driver.beat(scene.victim)
    assert not scene.driver.declare_dead(scene.victim, seen)
    assert scene.node(scene.victim).state == "alive"


def test_the_write_of_a_robbed_node_changes_nothing(scene: Scene) -> None:
    (job,) = scene.claim(1)
    lease = scene.job(job).lease
    scene.rescuer.look()
    scene.watch(LEASE, beating=False)
    done = Completion(job, lease, "default", NOW_US, 10, 10, None)
    cycle = scene.victims_driver.cycle(scene.victim, [done], (), scene.victims_driver.lanes(None), 0)
    assert [each.id for each in cycle.stale] == [job]
    assert scene.job(job).state is State.PENDING


def test_a_job_that_completed_before_the_rescue_stays_completed(scene: Scene) -> None:
    (job,) = scene.claim(1)
    scene.rescuer.look()
    done = Completion(job, 1, "default", NOW_US, 10, 10, None)
    scene.victims_driver.cycle(scene.victim, [done], (), scene.victims_driver.lanes(None), 0)
    scene.watch(LEASE, beating=False)
    assert scene.job(job).state is State.COMPLETED


def test_an_at_most_once_job_that_a_dead_node_had_started_fails_as_lost(scene: Scene) -> None:
    (job,) = scene.claim(1, delivery=AT_MOST_ONCE, max_attempts=1)
    assert scene.victims_driver.record_start(scene.victim, job, scene.job(job).lease)
    scene.rescuer.look()
    scene.watch(LEASE, beating=False)
    assert (scene.job(job).state, scene.job(job).reason) == (State.FAILED, Reason.LOST)


def test_an_at_most_once_job_that_a_dead_node_had_not_started_waits_again(scene: Scene) -> None:
    (job,) = scene.claim(1, delivery=AT_MOST_ONCE, max_attempts=1)
    scene.rescuer.look()
    scene.watch(LEASE, beating=False)
    assert scene.job(job).state is State.PENDING


def test_a_node_that_stopped_cleanly_and_left_a_job_behind_is_relieved_of_it(scene: Scene) -> None:
    (job,) = scene.claim(1)
    scene.victims_driver.stop_node(scene.victim)
    scene.rescuer.look()
    assert scene.job(job).state is State.PENDING


def test_every_job_is_taken_over_however_many_there_are(scene: Scene) -> None:
    scene.claim(1_300)
    scene.rescuer.look()
    scene.watch(LEASE, beating=False)
    assert scene.driver.unfinished(None) == 1_300
    assert scene.driver.orphaned_nodes() == []


def test_an_observer_never_takes_its_own_jobs(scene: Scene) -> None:
    scene.driver.push(new_job())
    (claimed,) = scene.driver.cycle(scene.observer, (), (), scene.driver.lanes(None), 1).claimed
    scene.rescuer.look()
    scene.watch(LEASE * 2, beating=True)
    assert scene.job(claimed.id).state is State.PROCESSING


def test_two_observers_take_each_job_once(scene: Scene) -> None:
    (job,) = scene.claim(1)
    lease = scene.job(job).lease
    second = scene.new_rescuer()
    for _ in range(int(LEASE) + 2):
        scene.clock.move(1)
        scene.rescuer.look()
        second.look()
    assert scene.job(job).lease == lease + 1
    assert scene.job(job).losses == 1


# --- proof on the same host --------------------------------------------------------------------------------------


def real_child(driver: Driver) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process of this host and register a node in its name."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = replace(describe_node("child", LEASE, {}), pid=child.pid, process_started=process_started(child.pid))
    return child, driver.register_node(identity)


def test_a_node_whose_process_is_gone_from_this_host_is_dead_at_once(scene: Scene) -> None:
    child, node_id = real_child(scene.driver)
    scene.rescuer.look()
    assert scene.node(node_id).state == "alive"
    child.kill()
    child.communicate()
    scene.rescuer.look()
    assert scene.node(node_id).state == "dead"


def test_a_zombie_is_dead_too(scene: Scene) -> None:
    child, node_id = real_child(scene.driver)
    child.kill()
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        scene.clock.move(0)
    scene.rescuer.look()
    assert scene.node(node_id).state == "dead"
    child.communicate()


def test_a_living_process_on_this_host_proves_nothing_against_its_node(scene: Scene) -> None:
    child, node_id = real_child(scene.driver)
    scene.rescuer.look()
    scene.clock.move(LEASE - 1)
    scene.rescuer.look()
    assert scene.node(node_id).state == "alive"
    child.kill()
    child.communicate()
