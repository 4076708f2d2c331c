"""The pool of workers: how many there are, which is replaced, which is killed. Never touches the database."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from taskqueue.clock import Clock
from taskqueue.errors import ConfigurationError, ImportFailed
from taskqueue.node.crew import ConcurrentMember, CrewMember, enlist
from taskqueue.node.dispatcher import Dispatcher
from taskqueue.node.hook_watch import HookWatch, LeaveWatch
from taskqueue.node.memory_watch import MemoryWatch
from taskqueue.node.nursery import Nursery
from taskqueue.node.recycling import Limits
from taskqueue.node.scaling import MOST_OWN, STATIC, Bounds, Scaling, Staff
from taskqueue.node.settlement import Death, Obituary
from taskqueue.node.slots import Slots
from taskqueue.node.tally import Tally
from taskqueue.node.timekeeping import Timekeeper

ANSWER_WITHIN = 5.0
"""Seconds within which the template has to tell that a worker is dead that was to be killed."""
IN_RESERVE = 2.0
"""Seconds that a replacement stands by for the last jobs of a worker; where they do not come it takes over."""
MEASURE_EVERY = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0

_logger = logging.getLogger("taskqueue.pool")


@dataclass(slots=True)
class Succession:
    """A worker's replacement, in reserve until the old one has reported its last job.

    ``at_once`` retires the old worker as soon as the new one is ready, rather than when it has had all its jobs.
    """

    heir: CrewMember
    at_once: bool


class Pool:
    """Keeps workers alive through a template process, and tells the dispatcher of each that comes and goes.

    How many is for `Scaling` to say, within ``bounds``; what is done about it is done here.
    """

    def __init__(
        self,
        bounds: Bounds,
        limits: Limits,
        slots: Slots,
        clock: Clock,
        dispatcher: Dispatcher,
        tally: Tally,
        make_nursery: Callable[[], Nursery],
    ) -> None:
        self.bounds = bounds
        self._scaling = Scaling(bounds)
        self._limits = limits
        self._slots = slots
        self._clock = clock
        self._dispatcher = dispatcher
        self._tally = tally
        self._make_nursery = make_nursery
        self.nursery: Nursery | None = None
        self._members: dict[int, CrewMember] = {}
        self._replacing: dict[int, Succession] = {}
        self._timekeeper = Timekeeper(slots, clock, self._kill, self._signal)
        self._memory_watch = MemoryWatch(slots, clock, self._kill)
        self._hook_watch = HookWatch(clock)
        self._leave_watch = LeaveWatch(clock, self._kill)
        self._said_full = False
        self._was_ready = False
        self._mourned: list[CrewMember] = []
        self._measured_at = 0.0
        self._may_spawn_at = 0.0
        self._pause = _FIRST_PAUSE
        self._births_fail = False
        dispatcher.serve_one_each(one_each=bounds.one_each)
        self.closing = False

    @property
    def members(self) -> tuple[CrewMember, ...]:
        """Return the workers that are alive or being born."""
        return tuple(self._members.values())

    @property
    def healthy(self) -> bool:
        """Say whether workers can be had: a node that has none because it needs none is well."""
        return not self._births_fail

    def tend(self) -> None:
        """Do what is due: hear the template, fill up, replace, enforce timeouts. Raises what ends the node."""
        self._hear()
        if not self.closing:
            self._fill_up()
            self._replace()
            self._dismiss_idle()
        self._timekeeper.enforce(self.members)
        self._memory_watch.enforce(self.members)
        self._leave_watch.enforce(self.members)
        self._mistrust_template()

    def hold_lease_until(self, monotonic: float) -> None:
        """Let the workers run until then; the template kills them if nobody prolongs it."""
        self._slots.hold_lease_until(monotonic)

    def stop_all(self) -> None:
        """Kill every worker; their running jobs are handed back unspent."""
        for member in self.members:
            member.stopped = True
            self._kill(member)

    def close(self) -> None:
        """End the template and every worker that is left."""
        if self.nursery is not None:
            self.nursery.close()
            self.nursery = None

    # --- births and deaths -----------------------------------------------------------------------------------

    def _hear(self) -> None:
        if self.nursery is None:
            if self.closing or self._clock.monotonic() < self._may_spawn_at:
                return
            self.nursery = self._make_nursery()
        try:
            messages = self.nursery.hear()
        except EOFError:
            self._template_died()
            return
        except ImportFailed as error:
            if not self._was_ready:
                raise
            _logger.error("a new template cannot start: %s", error)  # noqa: TRY400 - the sentence says it all
            self._template_died()
            return
        if self.nursery.ready and not self._was_ready:
            self._was_ready = True
        for message in messages:
            if message[0] == "spawned":
                self._born(*message[1:])
            else:
                self._died(*message[1:])

    def _born(self, index: int, pid: int) -> None:
        member = self._members[index]
        member.pid = pid
        self._tally.worker_spawned(pid)
        if member.stopped:
            self._kill(member)

    def _died(self, index: int, pid: int, code: int, peak_kb: int) -> None:
        member = self._members.pop(index, None)
        if member is None:
            return
        if self._slots.lease_is_over():
            member.stopped = True  # By the template, which watches the lease as well.
        member.obituary = Obituary(_cause(member), code, peak_kb, member.killed_tokens)
        why = member.obituary.describe()
        self._tally.worker_gone(pid, why)
        if not member.ready:
            _logger.error("worker %d ended before it was ready: %s", pid, why)
            self._slow_down()
        else:
            self._pause = _FIRST_PAUSE
        self._bury(member)
        if not self.closing:
            self._hook_watch.note_death(member, code, self.members)

    def _bury(self, member: CrewMember) -> None:
        # Its slot is evidence until the dispatcher has read it: no other worker may write there before.
        self._mourned.append(member)
        succession = self._replacing.pop(member.index, None)
        if succession is not None:
            succession.heir.reserve = False
        self._replacing = {old: each for old, each in self._replacing.items() if each.heir is not member}
        self._dispatcher.post(self._dispatcher.bury, member)

    def _template_died(self) -> None:
        """Rebuild: the kernel kills the workers of a dead template, and their jobs go back to the queue."""
        nursery, self.nursery = self.nursery, None
        if nursery is None:
            return
        was_ready = nursery.ready
        nursery.close()
        if not self.closing:
            _logger.error("the template process (pid %d) died with its %d workers", nursery.pid, len(self._members))
        for member in self.members:
            del self._members[member.index]
            member.obituary = Obituary(Death.STOPPED if member.stopped else Death.WITH_TEMPLATE)
            self._bury(member)
        if not was_ready and not self._was_ready:
            raise ConfigurationError("the workers' template process died while it imported the job modules")
        self._slow_down()

    def _slow_down(self) -> None:
        """Wait longer before the next birth each time one fails."""
        self._births_fail = True
        self._may_spawn_at = self._clock.monotonic() + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    # --- how many --------------------------------------------------------------------------------------------

    def _fill_up(self) -> None:
        now = self._clock.monotonic()
        able = self.nursery is not None and self.nursery.ready and now >= self._may_spawn_at
        able = able and not self._slots.lease_is_over()  # Who is born then is killed at once.
        own = [member for member in self.members if member.own]
        unused = [member for member in own if member.fresh and not member.retiring]
        if able:
            for _ in range(self._scaling.births(self._staff(), now)):
                self._spawn(single=self.bounds.one_each)
            for _ in range(min(self._dispatcher.own_waiting - len(unused), MOST_OWN - len(own))):
                self._spawn(single=True, own=True)
            if not self._members or any(member.ready for member in self.members):
                self._births_fail = False
        openings = self._scaling.openings(self._staff()) * self._slots.places if able else 0
        self._dispatcher.expect(openings, MOST_OWN - len(own) + len(unused) if able else 0)

    def _staff(self) -> Staff:
        """Return how the workers stand that serve whatever comes."""
        heirs = [succession.heir for succession in self._replacing.values()]
        staff = [each for each in self.members if not each.own and each not in heirs]
        if self.bounds.mode == STATIC:
            # A retiring worker that runs its last job counts: with one worker there is never more than one job running.
            staff = [each for each in staff if each.index in self._replacing or each.held or not each.retiring]
        unborn = sum(1 for each in staff if not each.ready)
        free = sum(1 for each in staff if each.serves and each.free)
        return Staff(len(staff), unborn, free, self._dispatcher.waiting)

    def _dismiss_idle(self) -> None:
        """Send home who has had no job for a while, where fewer workers will do."""
        if self.bounds.mode == STATIC and not any(member.own for member in self.members):
            return
        now = self._clock.monotonic()
        staying = sum(1 for each in self.members if not (each.own or each.retiring or each.reserve))
        for member in self.members:
            if member.held or not member.ready or member.jobs_sent != member.idle_after:
                member.idle_since, member.idle_after = now, member.jobs_sent
            elif not (member.retiring or member.reserve or member.index in self._replacing) and self._scaling.may_leave(
                staying, now - member.idle_since, single=member.single
            ):
                staying -= not member.own
                member.retiring = True
                self._dispatcher.post(self._dispatcher.retire, member)

    def _spawn(self, *, single: bool = False, own: bool = False) -> CrewMember | None:
        if self.nursery is None:
            return None
        self._mourned = [member for member in self._mourned if not member.buried]
        taken = {*self._members, *(member.index for member in self._mourned)}
        index = next((each for each in range(self._slots.number) if each not in taken), None)
        if index is None:
            self._say_full()
            return None
        self._slots.clear(index)
        most = 1 if single else self._limits.max_jobs if self._limits.max_jobs is not None else sys.maxsize
        member, descriptors = enlist(index, self._clock.monotonic(), most, self._slots.places)
        member.single, member.own = single, own
        self._members[index] = member
        self._dispatcher.post(self._dispatcher.join, member)
        self.nursery.spawn(index, descriptors)
        return member

    def _say_full(self) -> None:
        """Say once that workers who do not end keep others from being started."""
        if not self._said_full:
            self._said_full = True
            leaving = sum(1 for each in self.members if each.leaving)
            _logger.error(
                "no place is free for another worker: of %d processes %d were told to leave and have not ended",
                len(self._members), leaving,
            )  # fmt: skip

    def _replace(self) -> None:
        """Start replacements for workers over a limit; send the old ones home when the new ones are ready."""
        self._finish_replacing()
        now = self._clock.monotonic()
        measure = now - self._measured_at >= MEASURE_EVERY
        if measure:
            self._measured_at = now
        for member in self.members:
            if member.retiring or member.reserve or member.single or not member.ready:
                continue
            if member.index in self._replacing:
                continue
            memory = self._private_memory(member) if measure else None
            why = self._limits.overstepped(member, now, memory)
            if why is not None:
                self._start_replacing(member, why, at_once=True)
            elif self._limits.nearly_used_up(member, now) or member.jobs_left <= 0:
                self._start_replacing(member, f"{self._limits.max_jobs} jobs", at_once=False)
        if self._dispatcher.fresh_wanted:
            self._find_fresh()

    def _find_fresh(self) -> None:
        """Make a worker that has run nothing yet available: one in reserve, or a replacement for the least busy one."""
        for succession in self._replacing.values():
            succession.at_once = True
        if all(self._members[index].retiring for index in self._replacing):
            staying = [member for member in self.members if not (member.retiring or member.single)]
            tired = [member for member in staying if member.ready and not member.fresh]
            if tired and not any(member.fresh for member in staying):
                least_busy = min(tired, key=lambda member: len(member.held))
                self._start_replacing(least_busy, "a job wants a fresh one", at_once=True)

    def _start_replacing(self, member: CrewMember, why: str, *, at_once: bool) -> None:
        heir = self._spawn()
        if heir is not None:
            heir.reserve = True
            _logger.debug("worker %d is replaced after %s", member.pid, why)
            self._replacing[member.index] = Succession(heir, at_once)

    def _finish_replacing(self) -> None:
        for index, succession in list(self._replacing.items()):
            old, heir = self._members[index], succession.heir
            if old.retiring and not old.held:
                heir.reserve = False
                del self._replacing[index]
                self._dispatcher.wake()
            elif not old.retiring and heir.ready and self._time_has_come(old, succession):
                # Noted here at once: until the dispatcher has heard, it would look as if it still had to be replaced.
                old.retiring = True
                self._dispatcher.post(self._dispatcher.retire, old)
                if isinstance(heir, ConcurrentMember):
                    heir.take_over(old)
                    self._dispatcher.wake()

    def _time_has_come(self, old: CrewMember, succession: Succession) -> bool:
        waited = self._clock.monotonic() - succession.heir.spawned_at
        return succession.at_once or old.jobs_left <= 0 or waited >= IN_RESERVE

    def _private_memory(self, member: CrewMember) -> int | None:
        """Return the worker's private memory; None where it has run nothing since the last look. Costs 1 ms."""
        if member.jobs_sent == member.jobs_measured:
            return None
        try:
            private: int = psutil.Process(member.pid).memory_full_info().uss
        except psutil.Error:
            return None
        if member.fresh and private > self._limits.memory:
            raise ConfigurationError(
                f"a worker needs {private / 1024**2:.0f} MB before its first job, and the limit is "
                f"{self._limits.memory / 1024**2:.0f} MB: raise --memory"
            )
        member.jobs_measured = member.jobs_sent
        return private

    # --- killing --------------------------------------------------------------------------------------------

    def _mistrust_template(self) -> None:
        """End a template that does not do what it is asked for: only it can kill a worker and tell of its death."""
        overdue = self._clock.monotonic() - ANSWER_WITHIN
        if self.nursery is not None and any(0 < member.kill_asked_at < overdue for member in self.members):
            _logger.error("the template process (pid %d) does not answer and is killed", self.nursery.pid)
            self.nursery.kill_all()

    def _kill(self, member: CrewMember) -> None:
        if not member.kill_asked_at:
            member.kill_asked_at = self._clock.monotonic()
        self._signal(member, signal.SIGKILL)

    def _signal(self, member: CrewMember, number: int) -> None:
        if self.nursery is not None and member.pid:
            self.nursery.kill(member.pid, number)


def _cause(member: CrewMember) -> Death:
    if member.stands_still:
        return Death.IN_COMPANY
    if member.killed_tokens:
        return Death.OVER_MEMORY if member.over_memory else Death.TIMED_OUT
    return Death.STOPPED if member.stopped else Death.BY_ITSELF
