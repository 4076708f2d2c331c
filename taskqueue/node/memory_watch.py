"""The supervisor's watch over the memory of jobs that have a limit of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from taskqueue.clock import Clock
from taskqueue.node.crew import CrewMember
from taskqueue.node.memory_cap import private_memory
from taskqueue.node.slots import Slots

MEASURE_EVERY = 0.1
"""Seconds between two measures, of workers alone that run such a job; each costs 0.2 ms."""

_logger = logging.getLogger("taskqueue.pool")


class MemoryWatch:
    """Kills the worker of a job that has gone beyond its limit, where no exception has ended it before."""

    def __init__(self, slots: Slots, clock: Clock, kill: Callable[[CrewMember], None]) -> None:
        self._slots = slots
        self._clock = clock
        self._kill = kill
        self._measure_at = 0.0

    def enforce(self, members: Iterable[CrewMember]) -> None:
        """Measure who runs a job with a limit, and kill who is beyond it."""
        capped = [member for member in members if self._slots.ceiling(member.index)]
        if not capped or self._clock.monotonic() < self._measure_at:
            return
        self._measure_at = self._clock.monotonic() + MEASURE_EVERY
        for member in capped:
            self._measure(member)

    def _measure(self, member: CrewMember) -> None:
        running = self._slots.glance(member.index).running
        used, ceiling = private_memory(member.pid), self._slots.ceiling(member.index)
        if not running or used is None or not 0 < ceiling < used or member.killed_tokens or member.stopped:
            return
        if self._slots.glance(member.index).running == running:  # Otherwise it was another job's memory.
            member.killed_tokens = frozenset(each.token for each in running)
            member.over_memory = True
            _logger.warning("worker %d is killed: its job is beyond its memory limit", member.pid)
            self._kill(member)
