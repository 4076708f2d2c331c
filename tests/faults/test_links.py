"""A link that breaks or a server that goes away: seen at once, said plainly, and over as soon as it is over."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskqueue import QueueManager
from taskqueue.drivers import open_driver
from taskqueue.errors import DatabaseUnreachable
from taskqueue.payload import generate_key
from tests.drivers.world import World
from tests.faults.site import GIVES_UP_WITHIN, LETS_GO_WITHIN, Site, stopwatch
from tests.node.running import job
from tests.servers.private import PASSWORD, PrivateServer

ROOT = Path(__file__).resolve().parents[2]

VERBS: dict[str, Callable[[World, int], Any]] = {
    "push": lambda world, _: world.push(),
    "push_many": lambda world, _: world.driver.push_many([world.job() for _ in range(300)]),
    "cycle": lambda world, node: world.claim(node, 1),
    "promote": lambda world, _: world.driver.promote(),
    "register_node": lambda world, _: world.node(),
    "find": lambda world, _: world.everything(),
    "queues": lambda world, _: world.counted(),
}
CUTS: dict[str, Callable[[Site], Any]] = {
    "link": lambda site: site.proxy.cut(),
    "stopped server": lambda site: site.server.restart(),
    "killed server": lambda site: site.server.restart(gently=False),
}


def warmed(site: Site) -> tuple[World, int]:
    """Return a world that has done each verb often enough for whatever is prepared only then."""
    world = site.world()
    node = world.node()
    for verb in VERBS.values():
        for _ in range(2):
            verb(world, node)
    return world, node


@pytest.mark.parametrize("cut", CUTS)
def test_a_connection_that_was_lost_while_idle_is_replaced_unseen(site: Site, cut: str) -> None:
    world, node = warmed(site)
    for name, verb in VERBS.items():
        opened = site.proxy.accepted
        CUTS[cut](site)
        verb(world, node)
        assert site.proxy.accepted > opened, f"{name} used a new connection"
    assert world.counts_are_exact()


def test_every_thread_s_connection_is_replaced(site: Site) -> None:
    world, _ = warmed(site)
    gate, failures = threading.Barrier(5), list[BaseException]()

    def work() -> None:
        try:
            world.push()
            gate.wait(30)
            gate.wait(30)
            world.push()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    gate.wait(30)
    site.proxy.cut()
    gate.wait(30)
    for each in threads:
        each.join(30)
    assert failures == []


def unreachable(work: Callable[[], Any]) -> DatabaseUnreachable:
    with stopwatch() as taken, pytest.raises(DatabaseUnreachable) as caught:
        work()
    assert taken[0] < GIVES_UP_WITHIN
    return caught.value


def causes(error: BaseException | None) -> str:
    """Return what an error and everything that led to it say."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return "\n".join(map(str, seen))


def test_a_server_that_is_down_is_named_at_once_without_its_password(site: Site, private_server: PrivateServer) -> None:
    world, node = warmed(site)
    fresh = site.world(site.direct_url)
    private_server.stop()
    for verb in VERBS.values():
        unreachable(lambda verb=verb: verb(world, node))  # type: ignore[misc]
    error = unreachable(fresh.push)
    assert f"127.0.0.1:{private_server.port}" in str(error)
    assert site.database in str(error)
    assert PASSWORD not in causes(error)
    assert PASSWORD not in fresh.driver.describe()


def test_a_server_that_is_up_again_is_used_at_once(site: Site, private_server: PrivateServer) -> None:
    world, node = warmed(site)
    private_server.stop()
    unreachable(world.push)
    private_server.start()
    for verb in VERBS.values():
        verb(world, node)
    assert world.counts_are_exact()


def test_the_manager_works_again_after_a_restart(site: Site, private_server: PrivateServer) -> None:
    with QueueManager(site.url, encryption_key=generate_key()) as manager:
        first = manager.push(job("Quick"))
        private_server.restart()
        second = manager.push(job("Quick"))
        private_server.kill()
        unreachable(lambda: manager.push(job("Quick")))
        private_server.start()
        found = manager.get_jobs(job_class="Quick")
    assert {each.id for each in found} == {first.id, second.id}


def test_a_command_says_that_the_server_is_down_and_exits_with_69(
    site: Site, private_server: PrivateServer, tmp_path: Path
) -> None:
    private_server.stop()
    environment = {**os.environ, "DATABASE_URL": site.direct_url, "ENCRYPTION_KEY": generate_key()}
    with stopwatch() as taken:
        done = subprocess.run(
            [sys.executable, str(ROOT / "worker"), "queue:status"], env=environment, cwd=tmp_path,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 69, done.stdout + done.stderr
    assert f"127.0.0.1:{private_server.port}" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert taken[0] < GIVES_UP_WITHIN + 2, "with the start of a process"


def test_a_wrong_password_or_database_is_an_error_of_ours(site: Site) -> None:
    for wrong in (site.direct_url + "_missing",):
        driver = open_driver(wrong)
        with pytest.raises(Exception, match="_missing") as caught:
            driver.check_schema()
        driver.close()
        assert type(caught.value).__module__ == "taskqueue.errors"
        assert PASSWORD not in causes(caught.value)


@pytest.mark.slow
def test_a_verb_gives_up_on_a_link_that_takes_everything_and_answers_nothing(site: Site) -> None:
    worlds = {
        name: (*warmed(site), verb) for name, verb in VERBS.items() if name in {"push", "cycle", "find", "queues"}
    }
    fresh = site.world()
    taken: dict[str, float] = {}
    raised: dict[str, BaseException | None] = {}

    def work(name: str, verb: Callable[[], Any]) -> None:
        with stopwatch() as seconds:
            try:
                verb()
                raised[name] = None
            except BaseException as error:
                raised[name] = error
        taken[name] = seconds[0]

    calls: dict[str, Callable[[], Any]] = {
        name: lambda world=world, node=node, verb=verb: verb(world, node)  # type: ignore[misc]
        for name, (world, node, verb) in worlds.items()
    }
    calls["connect"] = fresh.everything
    site.proxy.black_hole()
    threads = [threading.Thread(target=work, args=call, daemon=True) for call in calls.items()]
    for each in threads:
        each.start()
    for each in threads:
        each.join(LETS_GO_WITHIN + 5)
    assert taken.keys() == calls.keys(), f"still waiting: {calls.keys() - taken.keys()}"
    assert {name: type(error) for name, error in raised.items()} == dict.fromkeys(calls, DatabaseUnreachable)
    assert max(taken.values()) < LETS_GO_WITHIN
    site.proxy.heal()
    for world, node, verb in worlds.values():
        verb(world, node)


def test_a_slow_link_is_only_slow(site: Site) -> None:
    world, node = warmed(site)
    site.proxy.delay = 0.05
    for verb in VERBS.values():
        verb(world, node)
    assert world.counts_are_exact()
