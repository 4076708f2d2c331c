"""G7: SIGKILL of a worker, a template, a supervisor loses no job, and each runs again soon.

More: tests/node/test_node_death.py. The times are promises for a machine that is not starved. They are printed here,
and the bounds are those of a slow one.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from taskqueue import State
from tests.faults.site import ServerHouse
from tests.node.running import House, until
from tests.servers.private import PrivateServer

SLOW = 10.0
"""Times as long as the promise a slow, shared machine may take."""
SHORT_LEASE: dict[str, Any] = {"heartbeat": 0.1, "lease": 1.5}


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def say(what: str, seconds: float) -> None:
    print(f"{what}: {seconds:.3f} s")  # noqa: T201 - the figures of the promises


def test_the_job_of_a_killed_worker_runs_again_within_a_second(house: House) -> None:
    handle = house.push("Gated", {"gate": "open"}, max_attempts=1)
    node = house.start(2)
    os.kill(house.await_start(handle).pid, signal.SIGKILL)
    killed = time.monotonic()
    again = house.await_start(handle, times=2)
    say("worker killed, job runs again", again.at - killed)
    assert again.at - killed < SLOW
    house.open_gate("open")
    record = handle.wait(20)
    assert (record.state, record.attempt, record.crashes) == (State.COMPLETED, 1, 1)
    assert node.stop() == 0


def test_the_jobs_of_a_killed_template_run_again(house: House) -> None:
    handles = [house.push("Gated", {"gate": "open"}) for _ in range(2)]
    node = house.start(2)
    for handle in handles:
        house.await_start(handle)
    os.kill(node.template, signal.SIGKILL)
    killed = time.monotonic()
    again = [house.await_start(handle, times=2) for handle in handles]
    say("template killed, jobs run again", max(line.at for line in again) - killed)
    house.open_gate("open")
    records = house.manager.wait_for(handles, 20)
    assert {(each.state, each.crashes, each.losses) for each in records} == {(State.COMPLETED, 0, 1)}
    assert node.stop() == 0


def test_the_job_of_a_killed_node_runs_at_once_on_another_of_the_same_host(house: House) -> None:
    """With the usual lease of 30 s: the proof of its death needs no lease."""
    handle = house.push("Gated", {"gate": "open"})
    first = house.start()
    house.await_start(handle)
    second = house.start().await_start()
    first.process.kill()
    killed = time.monotonic()
    again = house.await_start(handle, times=2)
    say("node killed, its job runs on another one of the host", again.at - killed)
    assert again.at - killed < 2 * SLOW
    house.open_gate("open")
    assert handle.wait(20).state is State.COMPLETED
    assert second.stop() == 0


def test_the_job_of_a_killed_node_on_another_host_runs_after_its_lease(house: House) -> None:
    """Nothing can be proved about its process: its row tells of another boot."""
    handle = house.push("Gated", {"gate": "open"})
    first = house.start(**SHORT_LEASE)
    house.await_start(handle)
    house.database.run("UPDATE tq_nodes SET boot_id = 'elsewhere'")
    second = house.start(**SHORT_LEASE).await_start()
    first.kill()
    killed = time.monotonic()
    again = house.await_start(handle, times=2)
    say("node of another host killed, lease 1.5 s, its job runs again", again.at - killed)
    assert again.at - killed < SHORT_LEASE["lease"] + 5 + SLOW
    house.open_gate("open")
    assert handle.wait(20).state is State.COMPLETED
    assert second.stop() == 0


def test_a_node_of_the_same_name_and_pid_is_another_one(house: House) -> None:
    """Its jobs are rescued, although the node that rescues them looks the same: the incarnation differs."""
    handle = house.push("Gated", {"gate": "open"})
    first = house.start(node_name="same")
    house.await_start(handle)
    first.kill()
    second = house.start(node_name="same").await_start()
    house.database.run(f"UPDATE tq_nodes SET pid = {second.pid} WHERE state <> 'alive'")
    house.open_gate("open")
    assert handle.wait(30).state is State.COMPLETED
    assert second.stop() == 0


@pytest.mark.parametrize("gently", [True, False], ids=["restart", "kill"])
def test_after_a_restart_of_the_database_claims_begin_again_within_three_seconds(
    server_house: ServerHouse, private_server: PrivateServer, *, gently: bool
) -> None:
    """With the usual heartbeat of 5 s, which failed meanwhile."""
    node = server_house.start(2, general={"log_level": "warning"})
    server_house.await_start(server_house.push("Quick"))
    private_server.stop() if gently else private_server.kill()
    until(lambda: "does not answer" in node.log, "the node has seen it")
    pause(6)  # A beat is due meanwhile.
    private_server.start()
    ready = time.monotonic()
    server_house.manager.disconnect()
    line = server_house.await_start(server_house.push("Quick"))
    say("database ready, next claim", line.at - ready)
    assert line.at - ready < 3 * SLOW
    assert node.stop() == 0
