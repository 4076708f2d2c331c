"""G14: within a queue the higher priority goes first, then whichever was ready first, at the moment of the claim.

Each tie and lane: tests/drivers/test_claim.py.
"""

from __future__ import annotations

from tests.node.running import House, job


def test_one_worker_starts_jobs_by_priority_and_then_by_age(house: House) -> None:
    given = [(5, 0), (20, 1), (0, 2), (20, 3), (5, 4), (10, 5)]
    handles = [house.push("Quick", {"sleep": 0.01}, priority=priority) for priority, _ in given]
    house.work_until_empty()
    expected = [handles[number].id for _, number in sorted(given, key=lambda each: (-each[0], each[1]))]
    assert [line.job for line in house.started()] == expected


def test_an_urgent_job_overtakes_all_that_wait(house: House) -> None:
    first = house.push("Gated", {"gate": "open"})
    node = house.start()
    house.await_start(first)
    house.manager.push_many([job("Quick", {"sleep": 0.05}) for _ in range(40)])
    urgent = house.push("Quick", priority=100)
    house.open_gate("open")
    urgent.wait(30)
    order = [line.job for line in house.started()]
    assert order.index(urgent.id) <= 10, "but for those that were claimed before it came"
    node.signal(9)


def test_a_delayed_job_takes_its_place_by_the_time_when_it_was_due(house: House) -> None:
    early = house.push("Quick", delay=0.05)
    late = [house.push("Quick", {"sleep": 0.01}, delay=0.4) for _ in range(3)]
    node = house.start()
    house.manager.wait_for([early, *late], 30)
    assert next(line.job for line in house.started()) == early.id
    assert node.stop() == 0
