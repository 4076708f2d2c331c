"""What is broken, when and where: everything is chosen by one seeded generator, and noted with whom it could hit."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos.places import ChaosNode, Crew, Place
from tests.chaos.plan import RESTART_EVERY, Plan

SHORTEST, LONGEST = 0.5, 2.5
"""How long a pause or a cut lasts, in leases."""

HOUR = 3600


@dataclass(slots=True)
class Fault:
    """One fault: whom it could hit and from when to when. ``node`` is the number of a whole node, or None."""

    kind: str
    began: float
    ended: float
    node: int | None = None
    pids: frozenset[int] = frozenset()

    def could_hit(self, node: int, pid: int) -> bool:
        """Say whether it was about this process."""
        return pid in self.pids or (self.node is not None and self.node == node)


@dataclass(slots=True)
class Weather:
    """Chooses faults, does them, and undoes them later."""

    plan: Plan
    crew: Crew
    restart: Callable[[], None] | None
    """Restarts the database server, where there is one; returns when it is ready."""
    random: random.Random = field(init=False)
    faults: list[Fault] = field(default_factory=list)
    restarts_ready: list[float] = field(default_factory=list)
    _later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    _next: float = 0.0
    _next_restart: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.plan.seed)
        self._next = time.monotonic() + 1.0
        self._next_restart = time.monotonic() + min(RESTART_EVERY, self.plan.seconds / 3) * 0.8

    # --- the course of things --------------------------------------------------------------------------------

    def blow(self) -> None:
        """Break something if it is time."""
        now = time.monotonic()
        if self.restart is not None and "restart" in self.plan.faults and now >= self._next_restart:
            self._restart_database(self.restart)
            self._next_restart = now + min(RESTART_EVERY, self.plan.seconds / 3)
        if now >= self._next:
            self._next = now + self.random.expovariate(self.plan.nodes / 6)
            chosen = self._choose()
            if chosen is not None:
                chosen()

    def tend(self) -> None:
        """Undo what is due, and replace the nodes that are gone."""
        now = time.monotonic()
        due = [each for each in self._later if each[0] <= now]
        self._later = [each for each in self._later if each[0] > now]
        for _, undo in sorted(due, key=lambda each: each[0]):
            undo()
        for place in self.crew.places:
            if place.node is not None and not place.node.runs and place.replace_at is None:
                place.replace_at = now + self.random.uniform(0.2, 1.5)
            if place.replace_at is not None and now >= place.replace_at:
                self.crew.start(place)

    def calm(self) -> None:
        """Undo everything now."""
        for _, undo in self._later:
            undo()
        self._later = []

    def later(self, seconds: float, undo: Callable[[], None]) -> None:
        """Have something undone."""
        self._later.append((time.monotonic() + seconds, undo))

    # --- choosing --------------------------------------------------------------------------------------------

    def _choose(self) -> Callable[[], None] | None:
        weighed: list[tuple[str, int, Callable[[], None]]] = [
            ("kill", 40, self._kill_worker),
            ("kill", 4, self._kill_template),
            ("kill", 5, self._kill_supervisor),
            ("kill", 7, self._kill_node),
            ("pause", 8, self._pause_worker),
            ("pause", 5, self._pause_supervisor),
            ("pause", 5, self._pause_heads),
            ("pause", 6, self._pause_node),
            ("cut", 8, self._cut),
            ("deploy", 2, self._deploy),
            ("clock", 5, self._move_clock),
        ]
        possible = [each for each in weighed if each[0] in self.plan.faults]
        if not possible:
            return None
        return self.random.choices([each[2] for each in possible], [each[1] for each in possible])[0]

    def _place(self, among: Callable[[Place], object] = lambda _: True) -> Place | None:
        """Choose a place whose node runs and is not paused; one of them always stays untouched by pauses."""
        fit = [each for each in self.crew.places if each.node is not None and each.node.runs and not each.paused]
        fit = [each for each in fit if among(each)]
        return self.random.choice(fit) if fit else None

    def _length(self) -> float:
        return self.random.uniform(SHORTEST, LONGEST) * self.plan.lease

    def note(self, kind: str, seconds: float = 0.0, node: ChaosNode | None = None, pids: Iterable[int] = ()) -> Fault:
        """Note a fault, before it is done: what follows from it cannot have come before."""
        now = time.monotonic()
        fault = Fault(kind, now, now + seconds, None if node is None else node.number, frozenset(pids))
        self.faults.append(fault)
        return fault

    # --- kills -----------------------------------------------------------------------------------------------

    def _kill_worker(self) -> None:
        place = self._place()
        workers = place.node.workers if place and place.node else []
        if workers:
            pid = self.random.choice(workers)
            self.note("kill worker", pids=[pid])
            send([pid], signal.SIGKILL)

    def _kill_template(self) -> None:
        place = self._place()
        if place and place.node and place.node.templates:
            self.note("kill template", pids=place.node.tree[1:])
            send(place.node.templates, signal.SIGKILL)

    def _kill_supervisor(self) -> None:
        place = self._place()
        if place and place.node:
            self.note("kill supervisor", node=place.node)
            send([place.node.pid], signal.SIGKILL)

    def _kill_node(self) -> None:
        place = self._place()
        if place and place.node:
            self.note("kill node", node=place.node)
            place.node.end_at_once()

    # --- pauses ----------------------------------------------------------------------------------------------

    def pause(self, kind: str, node: ChaosNode, pids: Sequence[int], seconds: float, *, whole: bool) -> None:
        """Stop processes for a while."""
        fault = self.note(kind, seconds, node if whole else None, pids)
        send(pids, signal.SIGSTOP)

        def go_on() -> None:
            fault.ended = time.monotonic()
            send(pids, signal.SIGCONT)

        self.later(seconds, go_on)

    def _pause_worker(self) -> None:
        place = self._place()
        workers = place.node.workers if place and place.node else []
        if place and place.node and workers:
            self.pause("pause worker", place.node, [self.random.choice(workers)], self._length(), whole=False)

    def _pause_supervisor(self) -> None:
        self._pause("pause supervisor", lambda node: [node.pid])

    def _pause_heads(self) -> None:
        """Stop all but the workers: a job ends meanwhile, and nobody is there to write it down."""
        self._pause("pause supervisor and template", lambda node: [node.pid, *node.templates])

    def _pause_node(self) -> None:
        self._pause("pause node", lambda node: node.tree)

    def _pause(self, kind: str, whom: Callable[[ChaosNode], list[int]]) -> None:
        place = self._place()
        others = [each for each in self.crew.places if each is not place and not each.paused]
        if place is None or place.node is None or not others:
            return
        seconds = self._length()
        place.paused = True
        self.pause(kind, place.node, whom(place.node), seconds, whole=True)
        node = place.node

        def free() -> None:
            if place.node is node:
                place.paused = False

        self.later(seconds, free)

    # --- the rest --------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        place = self._place(lambda each: each.proxy is not None)
        if place is None or place.node is None or place.proxy is None:
            return
        kind = self.random.choice(("reset", "refuse", "black hole"))
        if kind == "reset":
            self.note("cut: reset", node=place.node)
            place.proxy.cut()
            return
        seconds = self._length()
        fault = self.note(f"cut: {kind}", seconds, place.node)
        (place.proxy.refuse if kind == "refuse" else place.proxy.black_hole)()
        proxy = place.proxy

        def heal() -> None:
            fault.ended = time.monotonic()
            proxy.heal()

        self.later(seconds, heal)

    def _deploy(self) -> None:
        """Replace every node, one after the other: the new one first."""
        for number, place in enumerate(self.crew.places):
            if place.node is not None and place.node.runs and not place.paused:
                self.later(number * 0.7, lambda place=place, old=place.node: self._replace(place, old))  # type: ignore[misc]

    def _replace(self, place: Place, old: ChaosNode) -> None:
        if place.node is old and old.runs and not place.paused:
            self.crew.start(place)
            self.note("deploy", self.plan.lease, old)
            send([old.pid], signal.SIGTERM)

    def _move_clock(self) -> None:
        place = self._place(lambda each: each.clock is not None)
        if place is None or place.node is None or place.clock is None:
            return
        moved, clock = self.random.choice((HOUR, -HOUR)), place.clock
        self.note("clock", node=None)
        set_clock(clock, moved)
        self.later(self._length(), lambda: set_clock(clock, 0))

    def _restart_database(self, restart: Callable[[], None]) -> None:
        fault = self.note("restart")
        restart()
        fault.ended = time.monotonic()
        self.restarts_ready.append(fault.ended)


def set_clock(file: os.PathLike[str], seconds: int) -> None:
    """Move a clock by so many seconds from the right time, in one step."""
    new = f"{os.fspath(file)}.new"
    with open(new, "w", encoding="ascii") as written:  # noqa: PTH123
        written.write(f"{seconds:+d}s\n")
    os.replace(new, file)  # noqa: PTH105


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes, of which some may be gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def moment(seconds: float) -> None:
    """Wait."""
    threading.Event().wait(seconds)
