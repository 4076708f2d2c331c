"""A worker as the node's other processes see it, and all of them together."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field

from taskqueue.drivers.values import ClaimedJob
from taskqueue.node.pacing import AHEAD_US, LONG_JOB_US, MOST_AHEAD
from taskqueue.node.settlement import Obituary
from taskqueue.node.tickets import TicketPipe
from taskqueue.node.wire import Channel


@dataclass(slots=True, eq=False)
class CrewMember:
    """One worker process: how to reach it, and the jobs it was sent and has not reported.

    The dispatcher owns ``channel``, ``tickets``, ``held`` and what follows; the supervisor owns the life of the
    process. Each reads the other's flags, which only ever change once.
    """

    index: int
    channel: Channel
    tickets: TicketPipe
    spawned_at: float
    max_jobs: int
    pid: int = 0
    ready: bool = False
    retiring: bool = False
    reserve: bool = False
    """A replacement that stands ready, and is fed once the worker that it replaces has had its last job."""
    leaving: bool = False
    obituary: Obituary | None = None
    killed_token: int = 0
    stopped: bool = False
    kill_asked_at: float = 0.0
    """When the process was to be killed, or was seen to go; 0 while neither."""
    buried: bool = False
    held: dict[int, ClaimedJob] = field(default_factory=dict)
    ahead_us: float = 0.0
    exclusive: bool = False
    stuck: bool = False
    """Whether the job that it runs takes so long that nothing more is sent there until it is over."""
    jobs_sent: int = 0
    jobs_measured: int = -1

    @property
    def idle(self) -> bool:
        """Say whether the worker has nothing to do."""
        return self.ready and not self.held and not self.leaving

    @property
    def serves(self) -> bool:
        """Say whether the worker may be sent jobs that are waiting for one."""
        kept = self.retiring or self.reserve or self.exclusive or self.stuck
        return self.ready and not kept and self.jobs_left > 0

    @property
    def jobs_left(self) -> int:
        """Return how many more jobs the worker may be sent before it is replaced."""
        return self.max_jobs - self.jobs_sent

    @property
    def fresh(self) -> bool:
        """Say whether the worker has never been sent a job."""
        return self.jobs_sent == 0

    def room_for(self, estimate_us: float) -> bool:
        """Say whether a job that will take this long should be sent to this worker now."""
        if not self.serves:
            return False
        if not self.held:
            return True
        short = estimate_us < LONG_JOB_US and self.ahead_us + estimate_us <= AHEAD_US
        return short and len(self.held) < MOST_AHEAD

    @property
    def hungry(self) -> bool:
        """Say whether the worker is about to run out of work, so that sending it a chunk is worth the trip."""
        return self.serves and self.ahead_us < AHEAD_US / 2 and len(self.held) < MOST_AHEAD


def enlist(index: int, now: float, max_jobs: int) -> tuple[CrewMember, list[int]]:
    """Make a crew member and the two open files that its process needs: its connection and its ticket pipe."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pipe = TicketPipe()
    member = CrewMember(index, Channel(ours), pipe, now, max_jobs)
    return member, [theirs.detach(), os.dup(pipe.reader)]
