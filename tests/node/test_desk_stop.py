"""When a handler is asked to come to an end, and what it may still do then."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from taskqueue import State
from tests.node.running import House, until

DESK = ("node_jobs", "desk_jobs")


def asked(house: House) -> list[Any]:
    return [line for line in house.lines if line.what == "asked"]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_job_that_is_asked_to_stop_leaves_a_checkpoint_and_goes_on_elsewhere(desk: House, concurrency: int) -> None:
    handle = desk.push("Patient", {}, retry_interval=0)
    node = desk.start(imports=DESK, grace=60, concurrency=concurrency)
    desk.await_start(handle)
    began = time.monotonic()
    node.signal(signal.SIGTERM)
    assert node.end() == 0
    assert time.monotonic() - began < 30
    assert handle.record().state is not State.FAILED
    desk.start(imports=DESK)
    assert handle.result(30) == "done"
    assert [line.what for line in desk.lines] == ["start", "asked", "goes on"]


def test_nobody_is_asked_to_stop_while_all_is_well(desk: House) -> None:
    handle = desk.push("Patient", {})
    desk.start(2, imports=DESK)
    desk.await_start(handle)
    others = [desk.push("Child") for _ in range(20)]
    desk.manager.wait_for(others, 30)
    assert asked(desk) == []


def test_a_job_that_was_taken_over_learns_of_it_soon_after_it_says_how_far_it_is(desk: House) -> None:
    handle = desk.push("Patient", {"says": True})
    desk.start(imports=DESK)
    desk.await_start(handle)
    desk.database.run("UPDATE tq_jobs SET lease = lease + 1")
    until(lambda: [line for line in desk.lines if line.what == "lost"], "the handler got JobLost")


@pytest.mark.any_database
def test_a_node_that_cannot_beat_asks_its_jobs_to_stop_before_it_kills_them(desk: House) -> None:
    handle = desk.push("Patient", {})
    desk.start(imports=DESK, heartbeat=0.2, lease=12)
    desk.await_start(handle)
    holder = desk.database.engine.raw_connection()
    try:
        holder.cursor().execute("BEGIN IMMEDIATE")
        line = until(lambda: asked(desk), "the handler was asked to stop", 40)[0]
        assert line.lease == 1
    finally:
        holder.rollback()
        holder.close()
