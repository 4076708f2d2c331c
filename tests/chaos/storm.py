"""One run: push, work, break and mend, until every job is final; then gather what is to be judged."""

from __future__ import annotations

import random
import secrets
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from taskqueue import QueueManager
from taskqueue.payload import generate_key
from taskqueue.states import State
from tests.chaos.evidence import Evidence, gather
from tests.chaos.faults import HOUR, SHORTEST, Weather, send, set_clock
from tests.chaos.ground import Ground
from tests.chaos.journal import Journal, Line
from tests.chaos.places import ChaosNode, Crew, Place, processes_of
from tests.chaos.plan import Plan, faketime
from tests.chaos.pushers import Pushed, Pusher

TICK = 0.02
SHARED_MEMORY = Path("/dev/shm")


def shared_memory() -> set[str]:
    """Return the names in shared memory; what the product keeps there has none."""
    return {each.name for each in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.is_dir() else set()


@dataclass(slots=True)
class Storm:
    """The processes of one run and the loop over them. The folder is the run's own."""

    plan: Plan
    ground: Ground
    folder: Path
    crew: Crew = field(init=False)
    weather: Weather = field(init=False)
    journal: Journal = field(init=False)
    pusher: Pusher = field(init=False)
    notes: list[str] = field(default_factory=list)
    """What could not be done here, and why."""
    _manager: QueueManager | None = None
    _began: float = field(default_factory=time.monotonic)
    _memory: set[str] = field(default_factory=shared_memory)

    def __post_init__(self) -> None:
        key = generate_key()
        self.crew = Crew(self.plan, self.folder, key, secrets.token_hex(8))
        restart = self._restart if self.ground.server is not None else None
        self.weather = Weather(self.plan, self.crew, restart)
        self.journal = Journal(self.folder / "journal.jsonl")
        self.pusher = Pusher(self.plan, self.ground.url, key, random.Random(self.plan.seed + 1))
        self._make_places()

    def _make_places(self) -> None:
        movable = "clock" in self.plan.faults and faketime() is not None
        if "clock" in self.plan.faults and not movable:
            self.notes.append("no clock was moved: libfaketime is not installed (apt install faketime)")
        if self.ground.server is None:
            self.notes.append("a file has no server to restart and no link to cut")
        for index in range(self.plan.nodes):
            url, proxy = self.ground.link() if index < 2 and "cut" in self.plan.faults else (self.ground.url, None)
            place = Place(index, url, proxy, far=f"far-{index}" if index % 2 else "")
            place.concurrency = 4 if index % 4 == 1 else 1
            if movable and index % 3 == 2:
                place.clock = self.folder / f"clock-{index}"
                set_clock(place.clock, 0)
            self.crew.places.append(place)

    # --- the run ---------------------------------------------------------------------------------------------

    def run(self) -> Evidence:
        """Do it all, and gather what is left. Bounded in time: what has not ended by then is found missing."""
        try:
            self.pusher.begin(self._failed_jobs)
            for place in self.crew.places:
                self.crew.start(place)
            over = time.monotonic() + self.plan.seconds
            while time.monotonic() < over and not (self.pusher.done.is_set() and not self._live()):
                self._turn(breaking=time.monotonic() < over - 1.0)
            return self.conclude()
        finally:
            self.close()

    def conclude(self) -> Evidence:
        """End every fault, wait until the jobs have ended too, stop the nodes and gather what is left."""
        self._make_good()
        finished = self._await_end(time.monotonic() + self.plan.patience)
        codes = self._stop() if finished else []
        if not finished:
            self.crew.close()
        self.manager.disconnect()
        self._note_children()
        return gather(self, time.monotonic() - self._began, codes)

    def _note_children(self) -> None:
        """Add the jobs that handlers have pushed; whoever died meanwhile cannot say whether it had."""
        self.journal.look()
        pushes = self.pusher.pushes
        for line in self.journal.lines:
            if line.what == "pushing" and line.job is not None:
                pushes.jobs[line.job] = Pushed("pushed by a handler")
                pushes.doubtful.add(line.job)
            elif line.what == "pushed" and line.job is not None:
                pushes.doubtful.discard(line.job)

    @property
    def manager(self) -> QueueManager:
        """Return a manager of this process."""
        if self._manager is None:
            self._manager = QueueManager(self.ground.url, encryption_key=self.crew.key).connect()
        return self._manager

    def close(self) -> None:
        """End every process of the run."""
        self.pusher.stop()
        self.weather.calm()
        self.crew.close()
        if self._manager is not None:
            self._manager.disconnect()
        for each in shared_memory() - self._memory:  # libfaketime leaves it behind in a process that is killed.
            if "faketime" in each:
                (SHARED_MEMORY / each).unlink(missing_ok=True)

    def _turn(self, *, breaking: bool) -> None:
        for line in self.journal.look():
            self._mind(line)
        self.weather.tend()
        if breaking:
            self.weather.blow()
        threading.Event().wait(TICK)

    def _mind(self, line: Line) -> None:
        """Let a job go on that has stopped its own process; remember poison as the kill that it is."""
        if line.what == "frozen":
            seconds = self.weather.random.uniform(SHORTEST, 1.5) * self.plan.lease
            fault = self.weather.note("frozen between effect and acknowledgement", seconds, pids=[line.pid])
            fault.began = min(fault.began, line.at)
            self.weather.later(seconds, lambda: send([line.pid], signal.SIGCONT))
        elif line.what == "start" and line.job is not None:
            about = self.pusher.pushes.jobs.get(line.job)
            if about is not None and about.kind == "poison":
                self.weather.note("poison", pids=[line.pid]).began = line.at

    def _restart(self) -> None:
        gently = self.weather.random.random() < 0.3
        self.ground.restart(gently=gently)

    def _make_good(self) -> None:
        """End every fault. What a clock that was ahead has put off for an hour is promoted by one that is ahead."""
        self.weather.calm()
        self.pusher.stop()
        if not self.plan.scene:
            self.pusher.revive(self.manager)
        for place in self.crew.places:
            if place.clock is not None and any(each.kind == "clock" for each in self.weather.faults):
                set_clock(place.clock, 2 * HOUR)

    def _await_end(self, deadline: float) -> bool:
        while time.monotonic() < deadline:
            self._turn(breaking=False)
            if not self._live() and self._quiet():
                return True
        return False

    def _quiet(self) -> bool:
        """Say whether those that were killed have been declared dead, and each place has a node that has registered."""
        ((alive,),) = self.ground.rows("SELECT COUNT(*) FROM tq_nodes WHERE state IN ('alive', 'draining')")
        running = sum(1 for place in self.crew.places if place.node is not None and place.node.runs)
        old = sum(1 for node in self.crew.nodes if node.runs) - running
        return int(alive) == running == len(self.crew.places) and old == 0

    def _stop(self) -> list[tuple[int, int]]:
        """Stop every node; return those that did not end well, with their exit codes."""
        nodes = [place.node for place in self.crew.places if place.node is not None]
        send([node.pid for node in nodes], signal.SIGTERM)
        codes = [(node.number, self._end_of(node)) for node in nodes]
        return [(number, code) for number, code in codes if code]

    def _end_of(self, node: ChaosNode) -> int:
        """Return the exit code of a node that was asked to stop; it is killed where it does not."""
        try:
            return node.end()
        except subprocess.TimeoutExpired:
            self.notes.append(f"node {node.number} did not stop when it was asked to, and was killed")
            node.end_at_once()
            return node.process.returncode

    # --- looking ---------------------------------------------------------------------------------------------

    def _live(self) -> int:
        ((number,),) = self.ground.rows("SELECT COUNT(*) FROM tq_jobs")
        return int(number)

    def _failed_jobs(self) -> list[tuple[UUID, int]]:
        """Return jobs that failed for good and are to be revived once."""
        rows = self.ground.rows(f"SELECT id, lease FROM tq_history WHERE state = {State.FAILED.code}")
        found = [(UUID(bytes=bytes(each)), int(lease)) for each, lease in rows]
        pushes = self.pusher.pushes
        wanted = [(each, lease) for each, lease in found if each in pushes.jobs and each not in pushes.revived]
        return [(each, lease) for each, lease in wanted if pushes.jobs[each].kind == "doomed"][:20]

    def leftovers(self) -> list[str]:
        """Say what the run has left behind, now that its nodes have ended."""
        left = [f"process {pid}" for pid in processes_of(self.crew.mark)]
        left += [f"temporary file {each.name}" for each in (self.folder / "tmp").rglob("*") if not each.is_dir()]
        left += [f"shared memory {each}" for each in shared_memory() - self._memory if each.startswith("tmp")]
        held = self.ground.rows("SELECT COUNT(*) FROM tq_nodes WHERE state IN ('alive', 'draining')")
        left += [f"{number} lease(s)" for (number,) in held if number]
        return left + self.ground.leftovers()
