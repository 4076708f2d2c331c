"""When a worker is replaced: after so many jobs, so long a life, or so much memory; pure decisions."""

from __future__ import annotations

from dataclasses import dataclass

from taskqueue.node.crew import CrewMember

LOOK_AHEAD = 16
"""A replacement is started when this many jobs are left, so that it stands ready when the old worker leaves."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may use before it is replaced; None is no limit. Seconds and bytes."""

    max_jobs: int | None
    life: float | None
    memory: int

    def overstepped(self, member: CrewMember, now: float, private_bytes: int | None) -> str | None:
        """Return which limit a worker has reached, in words for the log, or None."""
        if self.max_jobs is not None and member.jobs_left <= min(LOOK_AHEAD, self.max_jobs // 10):
            return f"{member.jobs_sent} jobs"
        if self.life is not None and now - member.spawned_at >= self.life:
            return f"{now - member.spawned_at:.0f} s of life"
        if private_bytes is not None and private_bytes > self.memory:
            return f"{private_bytes / 1024**2:.0f} MB of memory"
        return None
