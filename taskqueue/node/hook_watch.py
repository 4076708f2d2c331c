"""The supervisor's watch over how workers begin and end: over hooks that fail, and over those that do not return."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from taskqueue.clock import Clock
from taskqueue.errors import ConfigurationError
from taskqueue.node.crew import CrewMember
from taskqueue.node.hooking import HOOK_FAILED

MOST_ROUNDS: Final = 3
"""How often all the workers of a node may be born in vain before the first of them has been ready."""
LEAVE_WITHIN = 10.0
"""Seconds that a worker has for its shutdown hooks, once it was told to go and holds no job."""
CLOSE_WITHIN: Final = 1.0
"""Seconds that a process may outlive its connection to the node; without it, it can be told and tell nothing."""

_logger = logging.getLogger("taskqueue.pool")


class HookWatch:
    """Counts the births that came to nothing. Once a worker was ready, the node goes on trying for ever."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._any_ready = False
        self._rounds = 0
        self._failed_at = float("-inf")

    def note_death(self, member: CrewMember, code: int, others: Iterable[CrewMember]) -> None:
        """Take in that a worker has ended; raise `ConfigurationError` where it is time to give up."""
        self._any_ready = self._any_ready or member.ready or any(other.ready for other in others)
        if self._any_ready or code != HOOK_FAILED:
            return
        if member.spawned_at > self._failed_at:  # Those that were born together fail together.
            self._rounds += 1
            self._failed_at = self._clock.monotonic()
        if self._rounds >= MOST_ROUNDS:
            raise ConfigurationError(
                f"no worker can start: a function with @on_worker_start failed {self._rounds} times in a row; the lines"
                " above name it and its error: correct what it needs, and start again"
            )


class LeaveWatch:
    """Sees to it that who has nothing more to do ends: its slot and its process are wanted for another."""

    def __init__(self, clock: Clock, kill: Callable[[CrewMember], None]) -> None:
        self._clock = clock
        self._kill = kill
        self._since: dict[CrewMember, float] = {}

    def enforce(self, members: Iterable[CrewMember]) -> None:
        """Kill who has been leaving for too long, and who has closed its connection and lives on."""
        now, since = self._clock.monotonic(), self._since
        going = (each for each in members if (each.leaving and each.ready) or each.silent_since)
        self._since = {each: since.get(each, now) for each in going}
        for member, began in self._since.items():
            if member.kill_asked_at:
                continue
            if member.silent_since:
                if now - member.silent_since >= CLOSE_WITHIN:
                    _logger.error("worker %d has closed its connection to the node and is killed", member.pid)
                    self._kill(member)
            elif now - began >= LEAVE_WITHIN:
                _logger.error(
                    "worker %d was told to leave %.0f s ago, has not ended though it has no job, and is killed:"
                    " does every function with @on_worker_stop return?", member.pid, LEAVE_WITHIN,
                )  # fmt: skip
                member.stopped = True
                self._kill(member)
