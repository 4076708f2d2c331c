"""What running jobs ask of the store, at the node's end: progress, checkpoints, and other jobs to be pushed.

Progress is written by the dispatcher itself, many values in one statement, ahead of the outcomes that came after them.
Checkpoints and pushes have a clerk each, a thread that is begun for the first of them: they wait for the disk, and a
push perhaps for another transaction, while the dispatcher goes on feeding the workers.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import NewJob, Note
from taskqueue.errors import DatabaseBusy, DatabaseUnreachable, StoreError, TaskQueueError
from taskqueue.node.crew import CrewMember
from taskqueue.node.post import CHECKPOINT, DONE, LOST, NOT_HELD, PROGRESS, PUSH, REFUSED, REPLY, STOP, Run
from taskqueue.node.store_watch import StoreWatch
from taskqueue.node.tally import Tally
from taskqueue.states import OnConflict

GATHER: Final = 0.02
"""Seconds for which progress values wait for others, if no outcome is written before."""
AGAIN_AFTER: Final = 0.25
"""Seconds until a value is tried again whose row was locked, or whose job seemed to be lost."""
DOUBT_FOR: Final = 1.0
"""Seconds for which a job may seem lost that a worker runs: who writes its outcome itself tells of it afterwards."""
MOST_AT_ONCE: Final = 100
"""How many checkpoints are written in one transaction."""

_logger = logging.getLogger("taskqueue.dispatcher")


@dataclass(frozen=True, slots=True)
class Request:
    """A request of a running job. ``number`` names it in the reply."""

    member: CrewMember
    number: int
    run: Run
    fields: tuple[Any, ...]

    @property
    def stands(self) -> bool:
        """Say whether the worker still runs the job, as far as this node knows."""
        return holds(self.member, self.run)


class Requests:
    """Takes requests in and answers them. All but the clerks' work happens in the dispatcher's thread.

    ``post`` has something called in that thread, ``watch`` sees to a connection that has not taken all of a message.
    """

    def __init__(
        self,
        driver: Driver,
        durable: Driver,
        clock: Clock,
        tally: Tally,
        store: StoreWatch,
        post: Callable[..., None],
        watch: Callable[[CrewMember], None],
    ) -> None:
        self._driver = driver
        self._durable = durable
        self._clock = clock
        self._tally = tally
        self._post = post
        self._watch = watch
        self._store = store
        self.progress: dict[Run, tuple[CrewMember, bytes]] = {}
        """The last value that each job has sent and that is not written yet, and its worker."""
        self._late: dict[Run, tuple[CrewMember, bytes]] = {}
        """Those that could not be written when they were first tried, unless a newer one has come."""
        self._late_at = 0.0
        self._doubted: dict[Run, float] = {}
        """Since when jobs seem to be lost."""
        self._opened_at = 0.0
        self._clerks = {
            CHECKPOINT: Clerk("checkpoints", self._write_checkpoints, self._answer, clock, store, MOST_AT_ONCE),
            PUSH: Clerk("pushes", self._push, self._answer, clock, store, 1, (DatabaseUnreachable,)),
        }
        self.announce: Callable[[], None] = lambda: None
        """Tells idle nodes that there is work."""

    # --- in --------------------------------------------------------------------------------------------------

    def take(self, member: CrewMember, message: tuple[Any, ...]) -> None:
        """Take in a request as it came from a worker."""
        kind, number, job_id, lease, *fields = message
        run = (job_id, lease)
        if kind == PROGRESS:
            if not self.progress:
                self._opened_at = self._clock.monotonic()
            self.progress[run] = (member, fields[0])
            self._late.pop(run, None)
        else:
            self._clerks[kind].add(Request(member, number, run, tuple(fields)))

    def tell_to_stop(self, crew: Sequence[CrewMember]) -> None:
        """Wish every running job to come to an end soon."""
        for member in crew:
            for claimed in member.held.values():
                self._send(member, (STOP, claimed.id, claimed.lease))

    # --- progress --------------------------------------------------------------------------------------------

    @property
    def has_progress(self) -> bool:
        """Say whether any progress waits to be written."""
        return bool(self.progress or self._late)

    def wait_for_progress(self, *, writing: bool = False) -> float:
        """Return the seconds until progress is to be written: none where outcomes are about to be."""
        now = self._clock.monotonic()
        due = self._late_at if self._late else math.inf
        if self.progress:
            due = min(due, 0.0 if writing else self._opened_at + GATHER)
        elif writing and self._ended_late():
            due = 0.0
        return max(0.0, max(due, self._store.back_at) - now)

    def write_progress(self) -> None:
        """Write the last value of each job that has sent any. Raises `StoreError`, and keeps them then.

        It waits for no lock: what somebody else has locked is tried again in a moment.
        """
        now = self._clock.monotonic()
        gathered = (self._late if now >= self._late_at else self._ended_late()) | self.progress
        noted = self._driver.note(progress=[Note(*run, sealed) for run, (_, sealed) in gathered.items()])
        self.progress = {}
        doubted, later = self._doubted, {}
        for run, note in gathered.items():
            self._late.pop(run, None)
            if run in noted.locked:
                later[run] = note
        for run in ((each.id, each.lease) for each in noted.stale):
            member = gathered[run][0]
            if holds(member, run) and now - doubted.setdefault(run, now) < DOUBT_FOR:
                later[run] = gathered[run]
            else:
                doubted.pop(run, None)
                self._lose(member, run, "progress")
        if later:
            self._late |= later
            self._late_at = now + AGAIN_AFTER

    def _ended_late(self) -> dict[Run, tuple[CrewMember, bytes]]:
        """Return the late values of jobs that have ended meanwhile: they go ahead of the outcomes."""
        return {run: note for run, note in self._late.items() if not holds(note[0], run)}

    # --- what clerks do --------------------------------------------------------------------------------------

    def _write_checkpoints(self, requests: Sequence[Request]) -> None:
        noted = self._durable.note(checkpoints=[Note(*each.run, each.fields[0]) for each in requests])
        lost = {(each.id, each.lease) for each in noted.stale}
        for each in requests:
            self._post(self._refuse if each.run in lost else self._reply, each, "checkpoint")

    def _push(self, requests: Sequence[Request]) -> None:
        (request,) = requests
        values, tags, parents, rule = request.fields
        row = NewJob(*values)
        standing = self._durable.push_held(request.run, [row], [tags], [parents], [OnConflict(rule)])
        if standing is None:
            self._post(self._refuse, request, "push")
            return
        (stands,) = standing
        if stands.id == row.id:
            self.announce()
            self._post(self._tally.pushed, row)
        self._post(self._reply, request, stands.id)

    def _answer(self, request: Request, error: TaskQueueError | None) -> None:
        body = (NOT_HELD,) if error is None else (REFUSED, type(error).__name__, str(error))
        self._post(self._send, request.member, (REPLY, request.number, body))

    # --- out -------------------------------------------------------------------------------------------------

    def _reply(self, request: Request, value: Any) -> None:
        self._send(request.member, (REPLY, request.number, (DONE, value)))

    def _refuse(self, request: Request, what: str) -> None:
        """Tell a job that it is lost."""
        self._send(request.member, (REPLY, request.number, (NOT_HELD,)))
        self._lose(request.member, request.run, what)

    def _lose(self, member: CrewMember, run: Run, what: str) -> None:
        if holds(member, run):  # Otherwise its end has been reported, as when its time was over meanwhile.
            self._tally.lost(run, what)
            self._send(member, (LOST, *run))

    def _send(self, member: CrewMember, message: tuple[Any, ...]) -> None:
        if not member.buried:
            member.channel.send(message)
            self._watch(member)

    def close(self, patience: float = 1.0) -> None:
        """End the clerks; what they are in the middle of is finished if that takes no longer than this."""
        for clerk in self._clerks.values():
            clerk.stop(patience)


class Clerk:
    """A thread that does what it is asked, in order, ``most`` requests at once. It begins with the first of them.

    ``fail`` answers a request by an error, or by None where its job does not run any more: each gets a reply. After one
    of ``passing`` it is tried again: a handler need not know of a database's restart. That ends when its worker does:
    at the end of the node's lease it is killed.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Request]], None],
        fail: Callable[[Request, TaskQueueError | None], None],
        clock: Clock,
        store: StoreWatch,
        most: int,
        passing: tuple[type[StoreError], ...] = (DatabaseUnreachable, DatabaseBusy),
    ) -> None:
        self._name = name
        self._work = work
        self._fail = fail
        self._passing = passing
        self._clock = clock
        self._store = store
        self._most = most
        self._waiting: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, request: Request) -> None:
        """Have a request seen to."""
        self._waiting.put(request)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"taskqueue-{self._name}", daemon=True)
            self._thread.start()

    def stop(self, patience: float) -> None:
        """Have the thread end, and wait for that at most this many seconds."""
        self._stopped.set()
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join(patience)

    def _run(self) -> None:
        while not self._stopped.is_set():
            gathered = [self._waiting.get()]
            while len(gathered) < self._most and not self._waiting.empty():
                gathered.append(self._waiting.get())
            self._see_to([each for each in gathered if each is not None])

    def _see_to(self, requests: Sequence[Request]) -> None:
        while (requests := self._standing(requests)) and not self._stopped.is_set():
            began = self._clock.monotonic()
            try:
                self._work(requests)
            except self._passing as error:
                if not isinstance(error, DatabaseBusy):  # Who says so does answer.
                    self._store.lost(self._name, error, began)
                self._clock.wait(self._stopped, self._store.pause())
                continue
            except TaskQueueError as error:
                self._refuse(requests, error)
            except Exception as error:
                _logger.exception("%s could not be seen to", self._name)
                self._refuse(requests, TaskQueueError(f"the node failed with {type(error).__name__}: see its log"))
            self._store.found(self._name)
            return
        self._store.forget(self._name)

    def _standing(self, requests: Sequence[Request]) -> list[Request]:
        """Return the requests whose jobs still run, and answer the others."""
        standing = []
        for request in requests:
            if request.stands:
                standing.append(request)
            else:
                self._fail(request, None)
        return standing

    def _refuse(self, requests: Sequence[Request], error: TaskQueueError) -> None:
        for request in requests:
            self._fail(request, error)


def holds(member: CrewMember, run: Run) -> bool:
    """Say whether a worker has a job under this lease. From any thread."""
    return any((claimed.id, claimed.lease) == run for claimed in tuple(member.held.values()))
