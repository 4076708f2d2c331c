"""A worker as the node's other processes see it, and all of them together."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from taskqueue.drivers.values import ClaimedJob
from taskqueue.node.pacing import AHEAD_US, LONG_JOB_US, MOST_AHEAD
from taskqueue.node.settlement import Obituary
from taskqueue.node.tickets import MOST, TicketPipe
from taskqueue.node.wire import Channel

MOST_IN_CHUNK = 32
"""How many jobs are sent to a worker by one message."""


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
    killed_tokens: frozenset[int] = frozenset()
    """Those of its jobs for whose time the process is killed."""
    stands_still: bool = False
    """Whether it is killed because its loop stands still, and nobody can know which of its jobs is in the way."""
    over_memory: bool = False
    """Whether it is killed for the memory that its job took, rather than for time."""
    stopped: bool = False
    kill_asked_at: float = 0.0
    """When the process was to be killed; 0 while nobody has asked for that."""
    silent_since: float = 0.0
    """When its end of the connection was seen to be closed; 0 while it is open."""
    buried: bool = False
    held: dict[int, ClaimedJob] = field(default_factory=dict)
    ahead_us: float = 0.0
    exclusive: bool = False
    stuck: bool = False
    """Whether the job that it runs takes so long that nothing more is sent there until it is over."""
    jobs_sent: int = 0
    jobs_measured: int = -1
    single: bool = False
    """Whether the worker was started for one job, and leaves when that is over."""
    own: bool = False
    """Whether that job is one that asked for a worker of its own: nothing else is sent there."""
    idle_since: float = 0.0
    """Since when the supervisor has seen it without a job, and after how many jobs; 0 while it has one."""
    idle_after: int = -1
    places: int = 1
    """How many jobs it runs at a time."""

    @property
    def free(self) -> int:
        """Return how many more jobs the worker could begin at once."""
        return 0 if self.held else 1

    @property
    def idle(self) -> bool:
        """Say whether the worker has nothing to do."""
        return self.ready and not self.held and not self.leaving

    @property
    def serves(self) -> bool:
        """Say whether the worker may be sent jobs that are waiting for one."""
        kept = self.retiring or self.reserve or self.exclusive or self.stuck or self.own
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

    def load(self, estimates: Iterable[float]) -> float:
        """Return how much work jobs of these estimates are for this worker, in microseconds."""
        return sum(estimates)


@dataclass(slots=True, eq=False)
class ConcurrentMember(CrewMember):
    """A worker with several places. Its load is counted over all of them: a long job fills one and no more."""

    predecessors: tuple[CrewMember, ...] = ()
    """Retired workers in whose stead this one came: the jobs that still run there take places here."""
    unread: int = 0
    """How many tickets it may not have taken yet, at most."""
    begun: int = 0
    begun_at: float = 0.0
    """The last job it was seen to begin, and since when none that waits there has followed."""
    stuck_until: float = 0.0

    @property
    def free(self) -> int:
        """Return how many more jobs the worker could begin at once."""
        elsewhere = sum(len(each.held) for each in self.predecessors) if self.predecessors else 0
        return max(0, self.places - len(self.held) - elsewhere)

    def take_over(self, old: CrewMember) -> None:
        """Serve in the stead of a worker that retires; together they run no more jobs than one has places."""
        earlier = old.predecessors if isinstance(old, ConcurrentMember) else ()
        self.predecessors = (old, *(each for each in earlier if each.held))
        if isinstance(old, ConcurrentMember):  # Otherwise each would keep all before it for as long as the node lives.
            old.predecessors = ()
        self.reserve = False

    def room_for(self, estimate_us: float) -> bool:
        """Say whether a job that will take this long should be sent to this worker now."""
        if not self.serves or self.unread > MOST - MOST_IN_CHUNK:
            return False
        if self.free:
            return True
        short = estimate_us < LONG_JOB_US and self.ahead_us + estimate_us <= AHEAD_US * self.places
        return short and len(self.held) < self.places + MOST_AHEAD

    @property
    def hungry(self) -> bool:
        """Say whether a place is free or about to be."""
        if not self.serves:
            return False
        return self.free > 0 or (
            self.ahead_us < AHEAD_US * self.places / 2 and len(self.held) < self.places + MOST_AHEAD
        )

    def load(self, estimates: Iterable[float]) -> float:
        """Return how much work jobs of these estimates are for this worker, in microseconds."""
        return sum(min(each, AHEAD_US) for each in estimates)


def enlist(index: int, now: float, max_jobs: int, places: int = 1) -> tuple[CrewMember, list[int]]:
    """Make a crew member and the two open files that its process needs: its connection and its ticket pipe."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pipe = TicketPipe()
    kind = CrewMember if places == 1 else ConcurrentMember
    member = kind(index, Channel(ours), pipe, now, max_jobs, places=places)
    return member, [theirs.detach(), os.dup(pipe.reader)]
