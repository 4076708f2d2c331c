"""G6: a node is dead when its heartbeat sequence stands still for a whole lease of its observer; clocks decide nothing.

On clocks that are moved, with each interleaving: tests/node/test_rescue.py.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from taskqueue import State
from tests.node.running import House, until

LEASE = 3.0
SHORT_LEASE: dict[str, Any] = {"heartbeat": 0.1, "lease": LEASE}


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def test_a_node_that_stood_still_for_less_than_its_lease_keeps_its_jobs(house: House) -> None:
    handle = house.push("Gated", {"gate": "open"})
    first = house.start(**SHORT_LEASE)
    house.await_start(handle)
    second = house.start(**SHORT_LEASE).await_start()
    first.pause(workers=True)
    pause(0.3 * LEASE)
    first.signal_tree(signal.SIGCONT)
    house.open_gate("open")
    record = handle.wait(20)
    assert [first.stop(), second.stop()] == [0, 0]
    assert (record.state, record.losses, len(house.started(handle))) == (State.COMPLETED, 0, 1)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_an_hour_wrong_kills_nobody(house: House, hours: int) -> None:
    """The rows of a living node say that it last beat an hour ago, or in an hour."""
    handle = house.push("Gated", {"gate": "open"})
    first = house.start(**SHORT_LEASE)
    house.await_start(handle)
    second = house.start(**SHORT_LEASE).await_start()
    for _ in range(20):
        house.database.run(f"UPDATE tq_nodes SET beat_at = beat_at + {hours * 3_600_000_000}")
        pause(0.05)
    house.open_gate("open")
    record = handle.wait(20)
    assert (record.state, record.losses) == (State.COMPLETED, 0)
    assert [first.stop(), second.stop()] == [0, 0]
    assert "is dead" not in first.log + second.log


def test_a_node_that_was_declared_dead_wrongly_stops_at_once_and_works_on_under_a_new_id(house: House) -> None:
    handle = house.push("Gated", {"gate": "open-{lease}"})
    node = house.start(**SHORT_LEASE)
    line = house.await_start(handle)
    ((old,),) = house.rows("SELECT MAX(id) FROM tq_nodes")
    driver = house.manager.driver
    until(
        lambda: driver.declare_dead(old, house.rows(f"SELECT sequence FROM tq_nodes WHERE id = {old}")[0][0]),
        "it is marked dead",
    )
    until(lambda: not house.is_running(line.pid), "its worker is killed")
    again = house.await_start(handle, times=2)
    house.open_gate(f"open-{again.lease}")
    record = handle.wait(20)
    assert record.state is State.COMPLETED
    assert record.node_id is not None
    assert record.node_id > old
    assert node.stop() == 0
    house.assert_no_start_twice()
