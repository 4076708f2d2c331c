"""How long a transactional handler may hold the one write lock, and how the handlers of a node take turns."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile

import pytest

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.errors import DatabaseBusy, SettingsConflict
from taskqueue.node import timekeeping
from taskqueue.node.handler_time import KILLED_AFTER, Turns, longest_hold
from taskqueue.node.lease import SELF_STOP, check_lease, watchdog_tick


def accepted() -> list[tuple[float, float]]:
    found = []
    for lease in (4.3, 4.5, 5, 6, 10, 15, 30, 60, 600):
        for share in (0.001, 0.05, 0.1, 0.2, 0.2222):
            with contextlib.suppress(SettingsConflict):
                check_lease(lease, lease * share)
                found.append((lease, lease * share))
    return found


@pytest.mark.parametrize(("lease", "heartbeat"), accepted())
def test_a_hold_to_its_very_end_leaves_the_node_time_to_beat(lease: float, heartbeat: float) -> None:
    longest = longest_hold(lease, heartbeat)
    assert longest > 0
    assert heartbeat + longest + timekeeping.KILL_AFTER + watchdog_tick(lease) < lease * SELF_STOP


def test_with_the_defaults_it_is_what_the_manual_says() -> None:
    assert longest_hold(30, 5) == pytest.approx(12.5)
    assert KILLED_AFTER == timekeeping.KILL_AFTER


def test_one_process_at_a_time_has_the_turn_and_a_dead_one_has_it_no_longer() -> None:
    with tempfile.TemporaryFile() as file:
        turns = Turns(SYSTEM_CLOCK, file.fileno())
        reader, writer = os.pipe()
        other = os.fork()
        if other == 0:
            turns.take(60)
            os.write(writer, b"x")
            signal.pause()
        try:
            os.read(reader, 1)
            with pytest.raises(DatabaseBusy, match="other transactional handlers"):
                turns.take(0.05)
        finally:
            os.kill(other, signal.SIGKILL)
            os.waitpid(other, 0)
            os.close(reader)
            os.close(writer)
        for _ in range(2):
            turns.take(60)
            turns.give_back()


@pytest.mark.parametrize("shared", [True, False])
def test_one_thread_at_a_time_has_the_turn(shared: bool) -> None:
    with tempfile.TemporaryFile() as file:
        turns = Turns(SYSTEM_CLOCK, file.fileno() if shared else None)
        turns.take(60)
        with pytest.raises(DatabaseBusy):
            turns.take(0.05)
        turns.give_back()
        turns.take(60)
        turns.give_back()
