"""How much work to send ahead, decided from how long jobs have taken; pure arithmetic.

Short jobs go out in chunks, since the trip between processes costs 35 microseconds for a job alone and 3 for one of 16.
Jobs of 5 ms and more go out one at a time to a free worker. What was sent ahead can be taken back (see `tickets`).
"""

from __future__ import annotations

AHEAD_US = 8_000.0
"""What lies ahead of a worker must outlast a cycle of the dispatcher (200 jobs, 4 ms), or it stands idle in each."""
LONG_JOB_US = 5_000.0
SLOW_JOB_US = 100_000.0
HORIZON_US = 50_000.0
MOST_AHEAD = 256
MOST_CLAIMED = 500
UNKNOWN_US = 10_000.0
_TRIP_US = 15.0
_WEIGHT = 0.2


class Pacing:
    """Moving averages of run times, by job class and over all."""

    def __init__(self) -> None:
        self._by_class: dict[str, float] = {}
        self._overall = UNKNOWN_US

    def learn(self, job_class: str, run_us: float, jobs: int = 1) -> None:
        """Take in how long ``jobs`` jobs of a class ran, all together."""
        cost = run_us / jobs + _TRIP_US
        known = self._by_class.get(job_class)
        self._by_class[job_class] = cost if known is None else known + _WEIGHT * (cost - known)
        self._overall += _WEIGHT * (cost - self._overall)

    def estimate(self, job_class: str) -> float:
        """Return the microseconds that a job of this class is expected to take; a class not seen yet counts as long."""
        return self._by_class.get(job_class, UNKNOWN_US)

    def wanted(self, workers: int, free: int) -> int:
        """Return how many claimed jobs to have in hand: what is free now and what will be within the next 50 ms.

        Slow jobs are claimed for free workers only, so that they wait in the database, where any node can take them.
        """
        if self._overall >= SLOW_JOB_US:
            return free
        return min(MOST_CLAIMED, free + int(workers * HORIZON_US / self._overall))
