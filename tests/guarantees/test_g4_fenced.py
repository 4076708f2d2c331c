"""G4: every write of a worker carries (id, lease); where another has the job, the write changes nothing and is counted.

Each verb by itself: tests/drivers/test_nodes.py and test_finish.py; of a handler's own requests: tests/node.
"""

from __future__ import annotations

import signal
from typing import Any

from taskqueue import State
from tests.node.running import House, until

LEASE = 1.5
SHORT_LEASE: dict[str, Any] = {"heartbeat": 0.1, "lease": LEASE}


def test_the_outcome_of_a_node_that_lost_its_job_is_dropped_and_counted(house: House) -> None:
    """Only its supervisor sleeps: the worker ends the job, and the outcome waits in the connection."""
    handle = house.push("Gated", {"gate": "open-{lease}"})
    first = house.start(**SHORT_LEASE)
    line = house.await_start(handle)
    first.pause(workers=False)
    house.open_gate(f"open-{line.lease}")
    until(lambda: any(each.what == "end" for each in house.lines), "the worker has finished the job")
    second = house.start(**SHORT_LEASE)
    again = house.await_start(handle, times=2)
    first.signal(signal.SIGCONT)
    until(lambda: "its outcome was dropped" in first.log, "the first node's write is refused")
    assert handle.record().state is State.PROCESSING, "the second node's run goes on"
    house.open_gate(f"open-{again.lease}")
    record = handle.wait(20)
    assert (record.state, record.lease) == (State.COMPLETED, again.lease)
    assert house.rows("SELECT COUNT(*) FROM tq_history") == [(1,)]
    assert [first.stop(), second.stop()] == [0, 0]
    assert first.counts["stale_writes"] == 1


def test_the_fencing_token_of_a_job_only_rises(house: House) -> None:
    handle = house.push("Flaky", {"until": 3}, max_attempts=3, retry_interval=0)
    house.start(2)
    handle.wait(30)
    leases = [line.lease for line in house.started(handle)]
    assert leases == sorted(set(leases))
    assert len(leases) == 3
