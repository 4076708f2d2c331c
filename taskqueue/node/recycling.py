"""When a worker is replaced: after so many jobs, so long a life, or so much memory; pure decisions."""

from __future__ import annotations

from dataclasses import dataclass

from taskqueue.node.crew import CrewMember

HEAD_START = 0.25
"""Seconds before the last job at which a replacement is started, so that it stands ready when the old worker leaves."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may use before it is replaced; None is no limit. Seconds and bytes."""

    max_jobs: int | None
    life: float | None
    memory: int

    def overstepped(self, member: CrewMember, now: float, private_bytes: int | None) -> str | None:
        """Return which limit a worker has reached, in words for the log, or None."""
        if self.life is not None and now - member.spawned_at >= self.life:
            return f"{now - member.spawned_at:.0f} s of life"
        if private_bytes is not None and private_bytes > self.memory:
            return f"{private_bytes / 1024**2:.0f} MB of memory"
        return None

    def nearly_used_up(self, member: CrewMember, now: float) -> bool:
        """Say whether a worker will have had its last job within `HEAD_START` at the pace that it had so far."""
        if self.max_jobs is None or member.fresh:
            return False
        pace = member.jobs_sent / max(now - member.spawned_at, 0.001)
        return member.jobs_left <= pace * HEAD_START
