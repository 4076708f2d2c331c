"""A worker's way to the database of its node: proved at the first transactional job, known to nobody else."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.drivers import migrate, open_driver
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import ClaimedJob
from taskqueue.ids import new_id
from taskqueue.job import Job
from taskqueue.node.access import Access
from taskqueue.node.desk import WorkerReception
from taskqueue.node.executor import Executor, alarm_held
from taskqueue.node.outcome import LOST, WRITTEN, Outcome
from taskqueue.node.post import Post
from taskqueue.node.transacting import Transacting, access_for_jobs
from taskqueue.node.wire import Channel
from taskqueue.payload import Codec, Purpose
from taskqueue.registry import REGISTRY, Registry
from taskqueue.states import Verb
from taskqueue.worker_hooks import WorkerContext
from tests.databases import Database
from tests.drivers.world import MovableClock, World


class Noted(Job):
    """A transactional job that runs in the process of the test."""

    name = "test.access.Noted"
    transactional = True

    def handle(self, session: object) -> str:
        self.push(Other())
        return "done"


class Other(Job):
    name = "test.access.Other"

    def handle(self) -> None: ...


class Asking(Job):
    name = "test.access.Asking"
    transactional = True

    def handle(self, session: object) -> None:
        self.checkpoint("half way")


@pytest.fixture
def driver(database: Database) -> Iterator[Driver]:
    opened = open_driver(database.url)
    yield opened
    opened.close()


@pytest.fixture
def world(driver: Driver) -> World:
    return World(driver, MovableClock())


def claim(world: World, job_class: str = Noted.name) -> ClaimedJob:
    codec, job_id = Codec(None), new_id().bytes
    sealed = codec.seal({}, Purpose.PAYLOAD, job_id, job_class)
    world.push(id=job_id, job_class=job_class, payload=sealed, key_id=codec.active_key_id)
    return world.claim_one(world.node())


def run(url: str, identity: bytes, claimed: ClaimedJob) -> Outcome:
    """Run a job as a worker does whose node has the database with this id."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        codec = Codec(None)
        executor = Executor(REGISTRY, codec, SYSTEM_CLOCK)
        context = WorkerContext(0, os.getpid())
        executor.reception = WorkerReception(Post(Channel(ours), alarm_held), codec, b"salt", SYSTEM_CLOCK, context)
        transacting = Transacting(executor, Access(url, identity), SYSTEM_CLOCK, lambda _claimed, _seconds: None)
        job = executor.begin(claimed)
        assert isinstance(job, Job), job
        return transacting.run(job, claimed)


def said(outcome: Outcome, claimed: ClaimedJob) -> str:
    assert outcome.error is not None
    details = Codec(None).open(outcome.error, Purpose.ERROR, claimed.id, claimed.job_class)
    message: str = details["message"]
    return message


def test_the_same_database_is_accepted(world: World, database: Database) -> None:
    claimed = claim(world)
    identity, _ = world.driver.installation()
    assert run(database.url, identity, claimed) is WRITTEN
    assert {row.job_class for row in world.everything()} == {Noted.name, Other.name}


def test_a_job_that_is_lost_writes_nothing(world: World, database: Database) -> None:
    claimed = claim(world)
    identity, _ = world.driver.installation()
    assert run(database.url, identity, claimed._replace(lease=claimed.lease - 1)) is LOST
    assert {row.job_class for row in world.everything()} == {Noted.name}


def test_a_checkpoint_is_refused(world: World, database: Database) -> None:
    claimed = claim(world, Asking.name)
    identity, _ = world.driver.installation()
    assert "has no checkpoints" in said(run(database.url, identity, claimed), claimed)


def test_another_database_is_refused_and_both_are_named(world: World, new_database: Callable[[], Database]) -> None:
    other = new_database()
    migrate.upgrade(other.url)
    claimed = claim(world)
    identity, _ = world.driver.installation()
    outcome = run(other.url, identity, claimed)
    assert outcome.verb is Verb.RETRY
    assert "is another database than the node's (installation " in said(outcome, claimed)


def test_a_copy_of_the_database_is_refused(world: World, database: Database, tmp_path: Path) -> None:
    copied = database.copy(tmp_path)
    try:
        claimed = claim(world)
        identity, _ = world.driver.installation()
        assert "a copy of it: this job" in said(run(copied.url, identity, claimed), claimed)
    finally:
        database.server.drop(copied)


def test_a_database_that_is_away_gives_the_job_back_unspent(world: World, database: Database) -> None:
    if not world.driver.capabilities.remote:
        pytest.skip("a file is not away")
    claimed = claim(world)
    url = database.engine.url.set(drivername=database.url.partition(":")[0], port=1)
    outcome = run(url.render_as_string(hide_password=False), b"", claimed)
    assert (outcome.verb, outcome.retry_after) == (Verb.RELEASE, 1.0)


@pytest.mark.parametrize("transactional", [True, False])
def test_only_workers_of_transactional_jobs_know_the_database(
    monkeypatch: pytest.MonkeyPatch, transactional: bool
) -> None:
    registry = Registry()
    registry.add(Noted if transactional else Other, "any")
    monkeypatch.setattr("taskqueue.node.transacting.REGISTRY", registry)
    access = access_for_jobs(("sqlite:///nowhere.db", b"id"))
    assert (access is not None) is transactional
