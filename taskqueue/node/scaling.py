"""How many workers a node keeps: always the same number, as many as the load wants, or one for each job.

Pure decisions, from how the workers stand and how many claimed jobs wait for one.
"""

from __future__ import annotations

from dataclasses import dataclass

GROW_AFTER = 0.05
"""Seconds for which jobs have to wait while every worker is busy: a burst of short jobs is over sooner than that."""
GROW_EVERY = 0.1
"""Seconds between two steps of growth: the next one shall see what the last has changed."""
LEAVE_AFTER = 10.0
"""Seconds without a job after which a worker beyond the fewest leaves: a pause between two bursts should not send
everybody home, and an hour without work should not keep them."""
NEEDLESS_AFTER = 2.0
"""The same for a worker that was started for one job, which somebody cancelled or took away meanwhile."""
MOST_OWN = 32
"""Most workers at once that run one job with ``force_spawn`` each, beyond all others."""

STATIC, DYNAMIC, ONDEMAND = "static", "dynamic", "ondemand"


@dataclass(frozen=True, slots=True)
class Staff:
    """How the workers of a node stand, without those that replace others or have a job of their own.

    ``workers`` are all that live, ``unborn`` those of them that are not ready yet, ``free`` those that have no job;
    ``waiting`` claimed jobs wait for a worker.
    """

    workers: int
    unborn: int = 0
    free: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """The mode of a node and the numbers it keeps to."""

    mode: str
    fewest: int
    most: int

    @classmethod
    def of(cls, mode: str, workers: int, fewest: int, most: int) -> Bounds:
        """Return the bounds that the settings come to."""
        if mode == STATIC:
            return cls(mode, workers, workers)
        return cls(mode, fewest if mode == DYNAMIC else 0, most)

    @property
    def one_each(self) -> bool:
        """Say whether every job has a worker of its own, which ends with it."""
        return self.mode == ONDEMAND

    def describe(self) -> str:
        """Return the words for the log."""
        if self.mode == STATIC:
            return f"{self.most} worker(s)"
        return f"{self.fewest} to {self.most} worker(s), {self.mode}"


class Scaling:
    """Decides about births and dismissals; keeps nothing but since when there are too few workers."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._short_since: float | None = None
        self._grown_at = float("-inf")

    def births(self, staff: Staff, now: float) -> int:
        """Return how many workers to start now."""
        missing = max(0, self.bounds.fewest - staff.workers)
        if self.bounds.mode == STATIC or missing:
            return missing
        if self.bounds.mode == ONDEMAND:
            return max(0, min(staff.waiting - staff.unborn - staff.free, self._more(staff)))
        return self._growth(staff, now)

    def openings(self, staff: Staff) -> int:
        """Return for how many workers that are not at work yet jobs may be claimed.

        Without that a node whose workers are all busy would not learn that more are needed, and one without any would
        never begin.
        """
        if self.bounds.mode == STATIC:
            return 0
        step = self._more(staff) if self.bounds.one_each else self._step(staff)
        return staff.unborn + step

    def may_leave(self, staying: int, idle_for: float, *, single: bool) -> bool:
        """Say whether one of ``staying`` workers should go that has had no job for so many seconds.

        ``single``: it was started for one job, which then went elsewhere.
        """
        if single:
            return idle_for >= NEEDLESS_AFTER
        return self.bounds.mode == DYNAMIC and staying > self.bounds.fewest and idle_for >= LEAVE_AFTER

    def _growth(self, staff: Staff, now: float) -> int:
        if not staff.waiting or staff.free or staff.unborn:
            self._short_since = None
            return 0
        if self._short_since is None:
            self._short_since = now
        if now - self._short_since < GROW_AFTER or now - self._grown_at < GROW_EVERY:
            return 0
        self._grown_at = now
        return min(staff.waiting, self._step(staff))

    def _step(self, staff: Staff) -> int:
        """Return how many workers one step may add: as many as there are, so that ten are reached in four steps."""
        return min(max(1, staff.workers), self._more(staff))

    def _more(self, staff: Staff) -> int:
        return max(0, self.bounds.most - staff.workers)
