"""The supervisor's watch over how long workers take: over a job's time, over reports, over their start."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from taskqueue.clock import Clock
from taskqueue.node.crew import CrewMember
from taskqueue.node.slots import Glance, Running, Slots
from taskqueue.node.worker import REPORT_NOW

REPORT_AFTER = 0.02
"""Seconds for which a job may run while outcomes of earlier ones wait in its worker."""
KILL_AFTER = 1.0
"""Seconds that a handler has between its timeout, raised as an exception, and the end of its process."""
STILL_AFTER = 0.8
"""Seconds without a turn after which a loop stands still. While it has jobs it notes ten turns a second."""
START_WITHIN = 60.0

_logger = logging.getLogger("taskqueue.pool")


class Timekeeper:
    """Reads the workers' slots and asks for the death of those that take too long."""

    def __init__(
        self,
        slots: Slots,
        clock: Clock,
        kill: Callable[[CrewMember], None],
        signal: Callable[[CrewMember, int], None],
    ) -> None:
        self._slots = slots
        self._clock = clock
        self._kill = kill
        self._signal = signal

    def enforce(self, members: Iterable[CrewMember]) -> None:
        """Kill who ignores the end of a job's time; have outcomes sent that wait behind a long job."""
        now = self._clock.monotonic()
        for member in members:
            glance = self._slots.glance(member.index)
            long = any(now - each.started / 1e9 >= REPORT_AFTER for each in glance.running)
            if long and glance.done > glance.reported:
                self._signal(member, REPORT_NOW)
            late = [each for each in glance.running if each.deadline and now - each.deadline / 1e9 >= KILL_AFTER]
            if late:
                self._end_late(member, glance, late, now)
            elif not member.ready and now - member.spawned_at >= START_WITHIN and not member.stopped:
                _logger.error("worker %d was not ready within %.0f s and is killed", member.pid, START_WITHIN)
                member.stopped = True
                self._kill(member)

    def _end_late(self, member: CrewMember, glance: Glance, late: list[Running], now: float) -> None:
        """Kill a worker whose jobs are late, and note for whose sake.

        Where its loop stands still, any of its jobs may be the one in the way. To charge those that could not be told
        of their end would fail innocent ones, and who blocks would go back unspent and block again for ever.
        """
        told = frozenset(each.token for each in late if not glance.stood_still_since(each.deadline))
        stands = len(told) < len(late) or glance.stood_still_since(round((now - STILL_AFTER) * 1e9))
        if stands and len(glance.running) > 1 and not member.killed_tokens:
            if not member.stands_still:
                _logger.warning(
                    "worker %d is killed: one of its %d jobs blocks its loop, nobody knows which: each runs alone now",
                    member.pid, len(glance.running),
                )  # fmt: skip
                member.stands_still, member.killed_tokens = True, told
                self._kill(member)
            return
        tokens = frozenset(each.token for each in late)
        if not member.stands_still and not member.killed_tokens.issuperset(tokens):
            member.killed_tokens |= tokens
            _logger.warning("worker %d ignores the timeout of its job and is killed", member.pid)
            self._kill(member)
