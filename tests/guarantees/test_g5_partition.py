"""G5: a node that cannot beat claims nothing more and kills its workers before anyone else may take its jobs.

The arithmetic, and that the watchdog asks no database: tests/node/test_lease.py. A supervisor that stands still, whose
template sees to it: `test_a_paused_supervisor_...` in tests/node/test_node_death.py.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from typing import Any

import pytest

from taskqueue import State
from tests.faults.site import ServerHouse
from tests.node.running import House, RunningNode, until

LEASE = 6.0
LEASED: dict[str, Any] = {"heartbeat": 1.0, "lease": LEASE}


class Watched:
    """Notes when a process was gone, on the clock that all processes of a machine share."""

    def __init__(self, pid: int) -> None:
        self.gone_at = 0.0
        self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
        self._thread.start()

    def _watch(self, pid: int) -> None:
        pause = threading.Event()
        while House.is_running(pid):
            pause.wait(0.005)
        self.gone_at = time.monotonic()

    def await_end(self) -> float:
        until(lambda: self.gone_at, "the process is gone")
        return self.gone_at


def start_beside(house: ServerHouse, **worker: Any) -> RunningNode:
    """Start a node whose link goes past the proxy."""
    through, house.url = house.url, house.site.direct_url
    try:
        return house.start(**worker)
    finally:
        house.url = through


@pytest.mark.parametrize("fault", ["black_hole", "refuse"])
def test_the_workers_of_a_node_that_is_cut_off_are_dead_before_another_node_runs_its_job(
    server_house: ServerHouse, fault: str
) -> None:
    """In the black hole the beat hangs in the database for 20 s and more, far beyond the lease."""
    handle = server_house.push("Gated", {"gate": "open-{lease}"})
    first = server_house.start(barren=1.0, **LEASED)  # To have no worker is no fault of a node that may have none.
    line = server_house.await_start(handle)
    second = start_beside(server_house, **LEASED).await_start()
    worker, cut_at = Watched(line.pid), time.monotonic()
    getattr(server_house.site.proxy, fault)()
    again = server_house.await_start(handle, times=2)
    gone_at = worker.await_end()
    print(f"cut off: workers dead after {gone_at - cut_at:.2f} s, job runs again after {again.at - cut_at:.2f} s")  # noqa: T201
    assert gone_at < again.at
    assert gone_at - cut_at < LEASE
    server_house.open_gate(f"open-{again.lease}")
    assert handle.wait(30).state is State.COMPLETED
    server_house.site.proxy.heal()
    until(lambda: first.log.count(" serves ") == 2, "the first node works again, under a new id", 60)
    assert [first.stop(), second.stop()] == [0, 0]
    server_house.assert_no_start_twice()


def test_a_node_that_is_cut_off_begins_nothing_new(server_house: ServerHouse) -> None:
    first = server_house.start(**LEASED)
    server_house.await_start(server_house.push("Quick"))
    server_house.site.proxy.refuse()
    until(lambda: "does not answer" in first.log, "the node has seen it")
    handle = server_house.push("Quick")
    second = start_beside(server_house, **LEASED)
    handle.wait(30)
    assert server_house.await_start(handle).pid not in first.workers
    server_house.site.proxy.heal()
    assert [first.stop(), second.stop()] == [0, 0]


def test_connections_that_hang_cost_no_worker_where_new_ones_can_be_made(server_house: ServerHouse) -> None:
    """As when a router forgets its connections: the spare beat opens another one while the usual one waits for 20 s."""
    handle = server_house.push("Gated", {"gate": "open"})
    node = server_house.start(heartbeat=1.0, lease=9.0)
    server_house.await_start(handle)
    until(lambda: _sequence(server_house) >= 2, "the node beats")
    assert server_house.site.proxy.silence() > 3
    before = _sequence(server_house)
    until(lambda: _sequence(server_house) >= before + 4, "the node beats on")
    server_house.site.proxy.cut()  # What hangs would do so for half a minute.
    server_house.open_gate("open")
    record = handle.wait(30)
    assert (record.state, record.lease) == (State.COMPLETED, 1)
    assert "stops its workers" not in node.log
    node.signal(signal.SIGKILL)


def _sequence(house: ServerHouse) -> int:
    ((sequence,),) = house.site.rows("SELECT MAX(sequence) FROM tq_nodes")
    return int(sequence)


@pytest.mark.any_database
@pytest.mark.parametrize(("heartbeat", "lease"), [(0.5, 4.0), (5.0, 20.0)])
def test_a_lease_that_cannot_hold_is_refused_at_the_start_with_the_numbers(
    house: House, heartbeat: float, lease: float
) -> None:
    environment = {**house.environment(), "TEST_STRICT_LEASE": "1"}
    settings = {
        "database": {"url": house.url},
        "worker": {"imports": ["node_jobs"], "heartbeat": heartbeat, "lease": lease},
        "queues": None,
    }
    node = RunningNode(house, 99, settings, environment)
    assert node.end() == 78, node.log
    assert f"lease={lease:g}" in node.log
    assert "make the lease longer" in node.log
    assert "Traceback" not in node.log
    assert json.loads((house.folder / "node-99.json").read_text())["completed"] == 0
