"""Shared memory in which workers say what they do."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator

import pytest

from taskqueue.node.slots import DEADLINE, DONE, JOBS, REPORTED, STARTED, TOKEN, Glance, Slots


@pytest.fixture
def slots() -> Iterator[Slots]:
    made = Slots.create(3)
    yield made
    made.close()


def test_an_unused_slot_says_that_nothing_runs(slots: Slots) -> None:
    assert slots.glance(2) == Glance(0, 0, 0, 0, 0)


def test_what_a_worker_writes_is_read_in_its_slot_alone(slots: Slots) -> None:
    words = slots.of(1)
    words[STARTED], words[DEADLINE], words[TOKEN], words[DONE], words[JOBS] = 5, 9, 7, 6, 3
    words[REPORTED] = 4
    assert slots.glance(1) == Glance(token=7, started=5, deadline=9, done=6, jobs=3, reported=4)
    assert slots.glance(0) == slots.glance(2) == Glance(0, 0, 0, 0, 0)


def test_a_new_owner_finds_nothing_of_the_last_one(slots: Slots) -> None:
    slots.of(0)[TOKEN] = 7
    slots.of(1)[TOKEN] = 8
    slots.clear(0)
    assert slots.glance(0) == Glance(0, 0, 0, 0, 0)
    assert slots.glance(1).token == 8


def test_times_of_the_monotonic_clock_fit(slots: Slots) -> None:
    slots.of(0)[STARTED] = 2**63 - 1
    assert slots.glance(0).started == 2**63 - 1


def test_another_process_sees_what_is_written_and_is_seen(slots: Slots) -> None:
    slots.of(0)[TOKEN] = 11
    pid = os.fork()
    if pid == 0:
        mapped = Slots(os.dup(slots.descriptor), slots.number)
        mapped.of(1)[DONE] = mapped.glance(0).token + 1
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
            if glance.token:
                tokens.add(glance.token)
                assert glance.started == glance.token
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_memory_has_no_name_that_could_be_left_behind(slots: Slots) -> None:
    assert os.fstat(slots.descriptor).st_nlink == 0
