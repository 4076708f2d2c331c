"""Keeping workers fed: which job goes to which worker, how many ahead, what is taken back. The dispatcher owns it."""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter

from taskqueue.clock import Clock
from taskqueue.drivers.values import ClaimedJob
from taskqueue.node import settlement
from taskqueue.node.crew import CrewMember
from taskqueue.node.outcome import AT_MOST_ONCE
from taskqueue.node.pacing import AHEAD_US, LONG_JOB_US, Pacing
from taskqueue.node.slots import Slots

MOST_IN_CHUNK = 32
HOSTAGE_AFTER_NS = 20_000_000
LOOK_FOR_HOSTAGES_EVERY = 0.01
SURPLUS_AFTER = 0.1


class Feeder:
    """The claimed jobs that wait for a worker, the workers, and what each of them holds."""

    def __init__(self, slots: Slots, clock: Clock, call_supervisor: Callable[[], None]) -> None:
        self._slots = slots
        self._clock = clock
        self._call_supervisor = call_supervisor
        self._look_at = 0.0
        self._full_since = 0.0
        self._token = 0
        self.pacing = Pacing()
        self.selector = selectors.DefaultSelector()
        self.crew: list[CrewMember] = []
        self.queue: deque[ClaimedJob] = deque()
        self.wants_fresh = False
        """Whether a job waits for a worker that has run nothing yet."""

    # --- workers come and go ---------------------------------------------------------------------------------

    def join(self, member: CrewMember) -> None:
        """Take on a worker; it is fed once it has said that it is ready."""
        self.crew.append(member)
        self.selector.register(member.channel, selectors.EVENT_READ, member)

    def leave(self, member: CrewMember) -> None:
        """Forget a worker that is dead."""
        self.crew.remove(member)
        self.mute(member)
        if not member.leaving:
            member.tickets.close()
        member.channel.close()

    def mute(self, member: CrewMember) -> None:
        """Stop listening to a worker that has nothing more to say, and feed it no more."""
        member.retiring = True
        if member.channel.fileno() in self.selector.get_map():
            self.selector.unregister(member.channel)

    def let_go(self, member: CrewMember) -> None:
        """Send a retiring worker home once it holds no job."""
        if member.retiring and not member.held and not member.leaving:
            member.leaving = True
            member.tickets.close()

    # --- how it stands ---------------------------------------------------------------------------------------

    @property
    def in_hand(self) -> int:
        """Return how many claimed jobs are with workers or on their way there."""
        return len(self.queue) + sum(len(member.held) for member in tuple(self.crew))

    @property
    def hungry(self) -> bool:
        """Say whether a worker is about to run out of work while none waits here."""
        return not self.queue and any(member.hungry for member in self.crew)

    def known(self) -> set[tuple[bytes, int]]:
        """Return the (id, lease) of every claimed job in hand."""
        jobs = [*self.queue, *(claimed for member in self.crew for claimed in member.held.values())]
        return {(claimed.id, claimed.lease) for claimed in jobs}

    def room(self) -> int:
        """Return how many more jobs to claim."""
        serving = [member for member in self.crew if member.serves]
        free = sum(1 for member in serving if not member.held)
        return self.pacing.wanted(len(serving), free) - len(self.queue)

    # --- feeding ---------------------------------------------------------------------------------------------

    def put_back(self, jobs: Iterable[ClaimedJob]) -> None:
        """Put jobs that no worker has started before all others, in their order."""
        self.queue.extendleft(reversed(list(jobs)))

    def feed(self, record_start: Callable[[ClaimedJob], bool]) -> list[tuple[CrewMember, Sequence[ClaimedJob]]]:
        """Send waiting jobs to workers that have room, the least laden first; return what was sent to whom.

        A job that has to run alone is sent to an idle worker once ``record_start`` says that its start is on record.
        Until there is one it waits, and others need not wait with it.
        """
        sent: list[tuple[CrewMember, Sequence[ClaimedJob]]] = []
        passed: list[ClaimedJob] = []
        self.wants_fresh = False
        while self.queue:
            claimed = self.queue[0]
            if runs_alone(claimed):
                member = self._choose_alone(claimed)
                self.queue.popleft()
                if member is None:
                    passed.append(claimed)
                elif record_start(claimed):
                    member.exclusive = True
                    sent.append((member, self._send(member, [claimed])))
                continue
            member = self._choose(claimed)
            if member is None:
                break
            sent.append((member, self._send(member, self._chunk(member))))
        self.put_back(passed)
        return sent

    def _choose(self, claimed: ClaimedJob) -> CrewMember | None:
        estimate = self.pacing.estimate(claimed.job_class)
        willing = [member for member in self.crew if member.hungry and member.room_for(estimate)]
        return min(willing, key=_load, default=None)

    def _choose_alone(self, claimed: ClaimedJob) -> CrewMember | None:
        idle = [member for member in self.crew if member.idle and member.room_for(0.0)]
        if claimed.crashes > 1:
            idle = [member for member in idle if member.fresh]
            self.wants_fresh = self.wants_fresh or not idle
        return idle[0] if idle else None

    def _chunk(self, member: CrewMember) -> list[ClaimedJob]:
        """Take as many waiting jobs as make up a chunk for a worker that has room for the first of them."""
        queue, chunk = self.queue, [self.queue.popleft()]
        estimate = self.pacing.estimate
        ahead = member.ahead_us + estimate(chunk[0].job_class)
        most = min(MOST_IN_CHUNK, member.jobs_left)
        while queue and len(chunk) < most and not runs_alone(queue[0]):
            cost = estimate(queue[0].job_class)
            if cost >= LONG_JOB_US or ahead + cost > AHEAD_US:
                break
            ahead += cost
            chunk.append(queue.popleft())
        return chunk

    def _send(self, member: CrewMember, chunk: list[ClaimedJob]) -> list[ClaimedJob]:
        tokens = list(range(self._token + 1, self._token + 1 + len(chunk)))
        self._token += len(chunk)
        member.channel.send([(token, *claimed) for token, claimed in zip(tokens, chunk, strict=True)])
        member.tickets.issue(tokens)
        member.held.update(zip(tokens, chunk, strict=True))
        member.ahead_us += self._load_of(chunk)
        left = member.jobs_left
        member.jobs_sent += len(chunk)
        if left > member.max_jobs // 2 >= member.jobs_left or member.jobs_left <= 0:
            self._call_supervisor()  # It is time to think of a replacement, or to let it take over.
        self.watch(member)
        return chunk

    def watch(self, member: CrewMember) -> None:
        """Wait for a worker's connection to take more, if it has not taken all of a large payload."""
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if member.channel.backed_up else 0)
        if member.channel.fileno() in self.selector.get_map():
            self.selector.modify(member.channel, wanted, member)

    def _load_of(self, jobs: Iterable[ClaimedJob]) -> float:
        return sum(map(self.pacing.estimate, map(_class_of, jobs)))

    def reported(self, member: CrewMember, ran: Mapping[str, list[int]]) -> None:
        """Take in that a worker has reported jobs: how long those of each class ran, in microseconds."""
        for job_class, times in ran.items():
            self.pacing.learn(job_class, sum(times), len(times))
        member.ahead_us = self._load_of(member.held.values())
        member.stuck = False
        if not member.held:
            member.exclusive = False
            self.let_go(member)

    # --- taking back -----------------------------------------------------------------------------------------

    def free_hostages(self) -> None:
        """Take jobs back from behind one that runs for 20 ms or more, so that other workers can have them."""
        now = self._clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_FOR_HOSTAGES_EVERY
        for member in self.crew:
            if member.held and not member.stuck and not member.leaving:
                glance = self._slots.glance(member.index)
                if glance.token in member.held and now * 1e9 - glance.started > HOSTAGE_AFTER_NS:
                    member.stuck = True
                    self.take_back(member)

    def take_back(self, member: CrewMember) -> None:
        """Take back every job that a worker has not started."""
        if member.leaving:
            return
        back = [member.held.pop(token) for token in member.tickets.take_back() if token in member.held]
        self.put_back(back)
        member.jobs_sent -= len(back)
        member.ahead_us = self._load_of(member.held.values())
        if not member.held:
            member.exclusive = False

    def surplus(self) -> list[ClaimedJob]:
        """Take out the jobs that have waited here while every worker was busy for a tenth of a second.

        One for each worker stays. They were claimed when jobs were short; behind long ones they would wait here, where
        no other node can take them, nobody can cancel them, and more urgent ones cannot overtake them.
        """
        now = self._clock.monotonic()
        if len(self.queue) <= len(self.crew) or any(member.hungry for member in self.crew):
            self._full_since = now
            return []
        if now - self._full_since < SURPLUS_AFTER:
            return []
        released = [self.queue.pop() for _ in range(len(self.queue) - len(self.crew))]
        return released[::-1]


def runs_alone(claimed: ClaimedJob) -> bool:
    """Say whether a job's start has to be on record before it begins, with nothing else on its worker."""
    return claimed.delivery == AT_MOST_ONCE or settlement.is_suspect(claimed)


_class_of = attrgetter("job_class")


def _load(member: CrewMember) -> float:
    return member.ahead_us
