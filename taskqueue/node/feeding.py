"""Keeping workers fed: which job goes to which worker, how many ahead, what is taken back. The dispatcher owns it."""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter

from taskqueue.clock import Clock
from taskqueue.drivers.values import ClaimedJob
from taskqueue.node import settlement
from taskqueue.node.crew import MOST_IN_CHUNK, ConcurrentMember, CrewMember
from taskqueue.node.outcome import AT_MOST_ONCE
from taskqueue.node.pacing import AHEAD_US, LONG_JOB_US, Pacing
from taskqueue.node.slots import Slots

HOSTAGE_AFTER_NS = 20_000_000
LOOK_FOR_HOSTAGES_EVERY = 0.01
STUCK_FOR = 0.1
"""Seconds after which a worker with several places that took no job is offered one again."""
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
        self.own: deque[ClaimedJob] = deque()
        """Jobs that each wait for a worker of their own."""
        self.openings = 0
        """How many places there are in workers that the supervisor would start, or is starting, for jobs that wait."""
        self.own_openings = 0
        """The same of workers for one job each that asked for it."""
        self.one_each = False
        """Whether every worker is for one job."""
        self._told_of = 0
        self.turned_away: list[ClaimedJob] = []
        """Jobs that must not run while another one does that has lost its node or worker as often; to be given back."""

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
        return len(self.queue) + len(self.own) + sum(len(member.held) for member in tuple(self.crew))

    @property
    def hungry(self) -> bool:
        """Say whether a worker is about to run out of work while none waits here."""
        return not self.queue and (self.openings > 0 or any(member.hungry for member in self.crew))

    def known(self) -> set[tuple[bytes, int]]:
        """Return the (id, lease) of every claimed job in hand."""
        jobs = [*self.queue, *self.own, *(claimed for member in self.crew for claimed in member.held.values())]
        return {(claimed.id, claimed.lease) for claimed in jobs}

    def room(self) -> int:
        """Return how many more jobs to claim."""
        serving = [member for member in self.crew if member.serves]
        if self.one_each:
            return len(serving) + self.openings - len(self.queue)
        free = sum(member.free for member in serving) + self.openings
        return self.pacing.wanted(sum(member.places for member in serving) + self.openings, free) - len(self.queue)

    # --- feeding ---------------------------------------------------------------------------------------------

    def put_back(self, jobs: Iterable[ClaimedJob]) -> None:
        """Put jobs that no worker has started before all others, in their order."""
        back = list(jobs)
        queue = self.own if back and back[0].force_spawn else self.queue  # Those are alone on their worker.
        queue.extendleft(reversed(back))

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
            if runs_alone(claimed) or (self._slots.places > 1 and claimed.memory_limit is not None):
                self.queue.popleft()
                if settlement.is_strict(claimed) and self._runs_strict():
                    self.turned_away.append(claimed)
                    continue
                member = self._choose_alone(claimed)
                if member is None:
                    passed.append(claimed)
                elif not runs_alone(claimed) or record_start(claimed):
                    member.exclusive = member.places == 1 or keeps_others_out(claimed)
                    sent.append((member, self._send(member, [claimed])))
                continue
            member = self._choose(claimed)
            if member is None:
                break
            sent.append((member, self._send(member, self._chunk(member))))
        self.put_back(passed)
        if self.own:
            self._feed_own(sent, record_start)
        if self.own or (self.openings and self.queue) or self._told_of:
            self._tell_of_need()
        return sent

    def _feed_own(
        self, sent: list[tuple[CrewMember, Sequence[ClaimedJob]]], record_start: Callable[[ClaimedJob], bool]
    ) -> None:
        """Send jobs to the workers that were started for them."""
        ready = [member for member in self.crew if member.own and member.idle and member.fresh and not member.retiring]
        for member in ready:
            if not self.own:
                return
            claimed = self.own.popleft()
            if settlement.is_strict(claimed) and self._runs_strict():
                self.turned_away.append(claimed)
            elif not runs_alone(claimed) or record_start(claimed):
                sent.append((member, self._send(member, [claimed])))

    def _tell_of_need(self) -> None:
        """Have the supervisor look around when more jobs wait for a new worker than it was told of."""
        need = len(self.own) + (len(self.queue) if self.openings else 0)
        if need > self._told_of:
            self._call_supervisor()
        self._told_of = need

    def _runs_strict(self) -> bool:
        return any(settlement.is_strict(each) for member in self.crew for each in member.held.values())

    def _choose(self, claimed: ClaimedJob) -> CrewMember | None:
        estimate = self.pacing.estimate(claimed.job_class)
        willing = [member for member in self.crew if member.hungry and member.room_for(estimate)]
        return min(willing, key=_load, default=None)

    def _choose_alone(self, claimed: ClaimedJob) -> CrewMember | None:
        idle = [member for member in self.crew if member.idle and member.room_for(0.0)]
        if claimed.crashes > 1:
            idle = [member for member in idle if member.fresh]
            self.wants_fresh = self.wants_fresh or not idle
        elif not idle:
            concurrent = [member for member in self.crew if member.places > 1]
            if not keeps_others_out(claimed):
                return min((member for member in concurrent if member.serves and member.free), key=_load, default=None)
            # A worker with several places may never be idle by itself: it is replaced, and its jobs finish there.
            self.wants_fresh = self.wants_fresh or (
                bool(concurrent) and not any(member.exclusive for member in concurrent)
            )
        return idle[0] if idle else None

    def _chunk(self, member: CrewMember) -> list[ClaimedJob]:
        """Take as many waiting jobs as make up a chunk for a worker that has room for the first of them."""
        if isinstance(member, ConcurrentMember):
            return self._chunk_for_places(member)
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

    def _chunk_for_places(self, member: ConcurrentMember) -> list[ClaimedJob]:
        """Take a job for each free place, no more than this worker's share, and short ones to go ahead."""
        queue, estimate = self.queue, self.pacing.estimate
        share = -(-len(queue) // len(self.crew))
        places = min(member.free, share)
        ahead, limit = member.ahead_us, AHEAD_US * member.places
        chunk: list[ClaimedJob] = []
        most = min(MOST_IN_CHUNK, member.jobs_left)
        while queue and len(chunk) < most and not (chunk and (runs_alone(queue[0]) or keeps_others_out(queue[0]))):
            cost = min(estimate(queue[0].job_class), AHEAD_US)
            places -= 1
            if chunk and places < 0 and (cost >= LONG_JOB_US or ahead + cost > limit):
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
        member.ahead_us += self._load_of(member, chunk)
        if isinstance(member, ConcurrentMember):
            if not member.unread:
                member.begun_at = self._clock.monotonic()
            member.unread += len(chunk)
        left = member.jobs_left
        member.jobs_sent += len(chunk)
        if member.single:
            member.retiring = True
        if left > member.max_jobs // 2 >= member.jobs_left or member.jobs_left <= 0:
            self._call_supervisor()  # It is time to think of a replacement, or to let it take over.
        self.watch(member)
        return chunk

    def watch(self, member: CrewMember) -> None:
        """Wait for a worker's connection to take more, if it has not taken all of a large payload."""
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if member.channel.backed_up else 0)
        if member.channel.fileno() in self.selector.get_map():
            self.selector.modify(member.channel, wanted, member)

    def _load_of(self, member: CrewMember, jobs: Iterable[ClaimedJob]) -> float:
        return member.load(map(self.pacing.estimate, map(_class_of, jobs)))

    def reported(self, member: CrewMember, ran: Mapping[str, list[int]]) -> None:
        """Take in that a worker has reported jobs: how long those of each class ran, in microseconds."""
        for job_class, times in ran.items():
            self.pacing.learn(job_class, sum(times), len(times))
        member.ahead_us = self._load_of(member, member.held.values())
        member.stuck = False
        if isinstance(member, ConcurrentMember):
            self._count_unread(member)
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
            if isinstance(member, ConcurrentMember):
                self._free_unread(member, now)
            elif member.held and not member.stuck and not member.leaving:
                for running in self._slots.glance(member.index).running:
                    if running.token in member.held and now * 1e9 - running.started > HOSTAGE_AFTER_NS:
                        member.stuck = True
                        self.take_back(member)

    def _free_unread(self, member: ConcurrentMember, now: float) -> None:
        """Take jobs back from a worker whose places are all taken, or whose loop stands still."""
        if member.stuck and now >= member.stuck_until:
            member.stuck = False
        begun = member.begun
        self._count_unread(member)
        if member.begun != begun or not member.unread:
            member.begun_at = now
        elif (now - member.begun_at) * 1e9 > HOSTAGE_AFTER_NS:
            member.stuck, member.stuck_until = True, now + STUCK_FOR
            self.take_back(member)

    def _count_unread(self, member: ConcurrentMember) -> None:
        member.begun = self._slots.begun(member.index)
        member.unread = 0
        for token in reversed(member.held):
            if token <= member.begun:
                break
            member.unread += 1

    def take_back(self, member: CrewMember) -> None:
        """Take back every job that a worker has not started."""
        if member.leaving:
            return
        back = [member.held.pop(token) for token in member.tickets.take_back() if token in member.held]
        self.put_back(back)
        member.jobs_sent -= len(back)
        member.ahead_us = self._load_of(member, member.held.values())
        if isinstance(member, ConcurrentMember):
            self._count_unread(member)
        if not member.held:
            member.exclusive = False
            if member.single:  # Its one job was taken from it, and it gets no other.
                self.let_go(member)

    def surplus(self) -> list[ClaimedJob]:
        """Take out the jobs that have waited here while every worker was busy for a tenth of a second.

        One for each worker stays. They were claimed when jobs were short; behind long ones they would wait here, where
        no other node can take them, nobody can cancel them, and more urgent ones cannot overtake them.
        """
        now = self._clock.monotonic()
        kept = len(self.crew) + self.openings
        if len(self.queue) <= kept or any(member.hungry for member in self.crew):
            self._full_since = now
            return []
        if now - self._full_since < SURPLUS_AFTER:
            return []
        released = [self.queue.pop() for _ in range(len(self.queue) - kept)]
        return released[::-1]

    def own_surplus(self) -> list[ClaimedJob]:
        """Take out the jobs that want a worker of their own where no more may be started."""
        return [self.own.pop() for _ in range(len(self.own) - self.own_openings)]


def runs_alone(claimed: ClaimedJob) -> bool:
    """Say whether a job's start has to be on record before it begins, so that it is sent by itself."""
    return claimed.delivery == AT_MOST_ONCE or settlement.is_suspect(claimed)


def keeps_others_out(claimed: ClaimedJob) -> bool:
    """Say whether nothing else may run in a job's worker, however many places that has."""
    return claimed.memory_limit is not None or settlement.is_suspect(claimed)


_class_of = attrgetter("job_class")


def _load(member: CrewMember) -> float:
    return member.ahead_us
