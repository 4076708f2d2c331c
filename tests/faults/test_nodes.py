"""Nodes whose database restarts and whose links are cut: they say so once, and go on by themselves."""

from __future__ import annotations

import threading
import time

import psutil
import pytest

from taskqueue.states import State
from tests.faults.site import ServerHouse, Site
from tests.node.running import RunningNode, job, until
from tests.servers.private import PrivateServer

CLAIMS_AGAIN_WITHIN = 3.0
"""Seconds from the moment when the server takes connections again."""
SLOW = 8
"""As many times as long as it promises a slow, shared machine may take."""


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def silences(node: RunningNode) -> int:
    """Return how often a node has said that the store does not answer."""
    return node.log.count("does not answer")


def push_brief(house: ServerHouse, jobs: int, seconds: float) -> int:
    house.manager.push_many([job("Quick", {"sleep": seconds}) for _ in range(jobs)])
    return jobs


def assert_all_ended_well(house: ServerHouse, jobs: int) -> None:
    assert house.site.count("tq_jobs") == 0
    assert house.site.count("tq_history") == jobs
    (states,) = house.site.rows("SELECT MIN(state), MAX(state), MAX(attempt) FROM tq_history")
    assert states == (State.COMPLETED.code, State.COMPLETED.code, 1)
    assert house.site.beside.counts_are_exact()
    house.assert_no_start_twice()


@pytest.mark.slow
def test_three_restarts_and_cut_links_lose_no_job_and_run_none_twice(
    house: ServerHouse, private_server: PrivateServer
) -> None:
    node = house.start(4, general={"log_level": "warning"})
    jobs = push_brief(house, 400, 0.02)
    for number in range(3):
        until(lambda share=jobs * (number + 1) // 5: len(house.started()) > share, "a share has started")  # type: ignore[misc]
        house.site.proxy.cut()
        pause(0.2)
        private_server.kill() if number % 2 else private_server.stop()
        pause(0.7)
        private_server.start()
        ready = time.monotonic()
        written = house.site.count("tq_history")
        until(lambda written=written: house.site.count("tq_history") > written, "the node writes again")  # type: ignore[misc]
        assert time.monotonic() - ready < SLOW * CLAIMS_AGAIN_WITHIN
    until(lambda: house.site.count("tq_history") == jobs, "every job is final", 60)
    assert node.stop() == 0
    assert_all_ended_well(house, jobs)
    assert len(house.started()) == jobs, "no job ran twice: nobody but the database was killed"
    assert silences(node) <= 6, node.log  # Each of the three times it went once, and perhaps again while it came up.
    assert "Traceback" not in node.log


def test_a_node_that_waits_for_its_server_says_so_once(house: ServerHouse, private_server: PrivateServer) -> None:
    node = house.start(1, general={"log_level": "warning"})
    house.await_start(house.push("Quick"))
    private_server.stop()
    until(lambda: "does not answer" in node.log, "the node has seen it")
    supervisor = psutil.Process(node.pid)
    spent = sum(supervisor.cpu_times()[:2])
    pause(8)
    share = (sum(supervisor.cpu_times()[:2]) - spent) / 8
    print(f"while the server is away the supervisor takes {share:.1%} of a core")  # noqa: T201
    assert share < 0.25, "5 % on a machine that does nothing else"
    assert silences(node) == 1, node.log
    assert len([line for line in node.log.splitlines() if " ERROR " in line]) == 1, node.log
    private_server.start()
    house.manager.disconnect()
    began = time.monotonic()
    house.await_start(house.push("Quick"))
    print(f"{time.monotonic() - began:.2f} s after the server is ready the next job starts")  # noqa: T201
    assert time.monotonic() - began < SLOW * CLAIMS_AGAIN_WITHIN
    assert node.log.count("the store answers again") == 1, node.log
    assert node.stop() == 0


def test_a_link_that_is_cut_under_a_node_is_not_worth_a_line(house: ServerHouse) -> None:
    node = house.start(2, general={"log_level": "warning"})
    house.await_start(house.push("Quick"))
    for _ in range(5):
        house.site.proxy.cut()
        house.await_start(house.push("Quick"))
        pause(0.3)  # A verb that meets two cuts may say so.
    until(lambda: house.site.count("tq_history") == 6, "every job is final")
    assert node.stop() == 0
    assert "does not answer" not in node.log


@pytest.mark.slow
def test_a_node_behind_a_link_that_answers_nothing_goes_on_when_it_does(house: ServerHouse) -> None:
    node = house.start(2, general={"log_level": "warning"})
    house.await_start(house.push("Quick"))
    house.site.proxy.black_hole()
    until(lambda: "does not answer" in node.log, "the node has seen it", 30)
    house.site.proxy.heal()
    began = time.monotonic()
    house.await_start(house.push("Quick"))
    assert time.monotonic() - began < SLOW * CLAIMS_AGAIN_WITHIN
    until(lambda: house.site.count("tq_history") == 2, "every job is final")
    assert node.stop() == 0


def test_a_node_that_is_started_before_its_server_says_what_is_missing(
    house: ServerHouse, site: Site, private_server: PrivateServer
) -> None:
    private_server.stop()
    node = house.start(1)
    assert node.end() == 69, node.log
    assert "127.0.0.1" in node.log
    assert "Traceback" not in node.log
