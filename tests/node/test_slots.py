"""Shared memory in which workers say what they do."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator

import pytest

from taskqueue.node.slots import (
    DEADLINE,
    DONE,
    JOBS,
    REPORTED,
    STARTED,
    TOKEN,
    TURNED,
    Glance,
    Running,
    Slots,
    lanes_of,
)


@pytest.fixture
def slots() -> Iterator[Slots]:
    made = Slots.create(3)
    yield made
    made.close()


def test_an_unused_slot_says_that_nothing_runs(slots: Slots) -> None:
    assert slots.glance(2) == Glance((), 0)


def test_what_a_worker_writes_is_read_in_its_slot_alone(slots: Slots) -> None:
    words = slots.of(1)
    words[STARTED], words[DEADLINE], words[TOKEN], words[DONE], words[JOBS] = 5, 9, 7, 6, 3
    words[REPORTED] = 4
    assert slots.glance(1) == Glance((Running(token=7, started=5, deadline=9),), done=6, jobs=3, reported=4)
    assert slots.glance(0) == slots.glance(2) == Glance((), 0)


def test_a_new_owner_finds_nothing_of_the_last_one(slots: Slots) -> None:
    slots.of(0)[TOKEN] = 7
    slots.of(1)[TOKEN] = 8
    slots.clear(0)
    assert slots.glance(0) == Glance((), 0)
    assert [each.token for each in slots.glance(1).running] == [8]


def test_times_of_the_monotonic_clock_fit(slots: Slots) -> None:
    slots.of(0)[STARTED] = 2**63 - 1
    slots.of(0)[TOKEN] = 1
    assert slots.glance(0).running[0].started == 2**63 - 1


def test_a_worker_that_died_between_its_last_two_stores_had_finished_the_job(slots: Slots) -> None:
    slots.of(0)[TOKEN] = slots.of(0)[DONE] = 4
    assert slots.glance(0) == Glance((), done=4)


def test_another_process_sees_what_is_written_and_is_seen(slots: Slots) -> None:
    slots.of(0)[TOKEN] = 11
    pid = os.fork()
    if pid == 0:
        mapped = Slots(os.dup(slots.descriptor), slots.number)
        mapped.of(1)[DONE] = mapped.glance(0).running[0].token + 1
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert slots.glance(1).done == 12


def test_a_glance_is_of_one_job_while_the_worker_goes_on(slots: Slots) -> None:
    """The writer keeps each job's start equal to its ticket; a torn glance would show two different numbers."""
    pid = os.fork()
    if pid == 0:
        words = slots.of(0)
        for token in itertools.count(1):
            words[STARTED] = token
            words[TOKEN] = token
            words[DONE] = token
            words[TOKEN] = 0
    tokens: set[int] = set()
    try:
        while len(tokens) < 200:
            glance = slots.glance(0)
            for running in glance.running:
                tokens.add(running.token)
                assert running.started == running.token
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_memory_has_no_name_that_could_be_left_behind(slots: Slots) -> None:
    assert os.fstat(slots.descriptor).st_nlink == 0


# --- several places ----------------------------------------------------------------------------------------------


@pytest.fixture
def wide() -> Iterator[Slots]:
    made = Slots.create(2, places=3)
    yield made
    made.close()


NOTHING = Glance((), 0, turned=0)


def begin(slots: Slots, index: int, lane: int, token: int) -> None:
    """Write as a worker does when a job begins."""
    words = slots.of(index)
    tokens, starts, deadlines = lanes_of(words, slots.places)
    starts[lane], deadlines[lane] = token * 10, token * 100
    tokens[lane] = token
    words[DONE] = token


def test_a_slot_with_lanes_names_each_job_that_runs_and_since_when(wide: Slots) -> None:
    begin(wide, 1, lane=2, token=4)
    begin(wide, 1, lane=0, token=5)
    assert sorted(wide.glance(1).running) == [Running(4, 40, 400), Running(5, 50, 500)]
    assert wide.glance(1).done == wide.begun(1) == 5
    assert wide.glance(0) == NOTHING


def test_a_job_that_has_left_its_lane_has_finished(wide: Slots) -> None:
    begin(wide, 0, lane=0, token=4)
    begin(wide, 0, lane=1, token=5)
    lanes_of(wide.of(0), 3)[0][0] = 0
    assert [each.token for each in wide.glance(0).running] == [5]
    assert wide.glance(0).done == 5


def test_a_job_in_a_lane_that_is_not_counted_as_begun_has_not_begun(wide: Slots) -> None:
    begin(wide, 0, lane=0, token=4)
    lanes_of(wide.of(0), 3)[0][1] = 5
    assert [each.token for each in wide.glance(0).running] == [4]
    assert wide.glance(0).done == 4


def test_a_worker_with_several_places_is_never_asked_to_report(wide: Slots) -> None:
    begin(wide, 0, lane=0, token=4)
    assert wide.glance(0).reported == wide.glance(0).done


def test_a_loop_stands_still_from_its_last_turn_on(wide: Slots, slots: Slots) -> None:
    wide.of(1)[TURNED] = 50
    assert [wide.glance(1).stood_still_since(moment) for moment in (49, 50, 51)] == [False, False, True]
    assert not slots.glance(0).stood_still_since(51)


def test_a_new_owner_finds_no_lane_of_the_last_one(wide: Slots) -> None:
    begin(wide, 0, lane=2, token=4)
    wide.of(0)[TURNED] = 5
    wide.clear(0)
    assert wide.glance(0) == NOTHING


def test_the_lease_is_kept_apart_from_every_lane(wide: Slots) -> None:
    wide.hold_lease_until(5.0)
    assert wide.glance(1) == NOTHING
    for lane in range(3):
        begin(wide, 1, lane, lane + 1)
    assert wide.lease_is_over()


def test_a_slot_for_one_place_has_no_lanes(slots: Slots) -> None:
    assert len(slots.of(0)) == 8


def test_a_glance_at_lanes_is_of_whole_jobs_while_the_worker_goes_on(wide: Slots) -> None:
    """The writer keeps each job's start at ten times its ticket; a torn glance would show two that do not fit."""
    pid = os.fork()
    if pid == 0:
        words = wide.of(0)
        tokens, starts, _ = lanes_of(words, 3)
        for token in itertools.count(1):
            lane = token % 3
            tokens[lane] = 0
            starts[lane] = token * 10
            tokens[lane] = token
            words[DONE] = token
    seen: set[int] = set()
    try:
        while len(seen) < 200:
            for running in wide.glance(0).running:
                seen.add(running.token)
                assert running.started == running.token * 10
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
