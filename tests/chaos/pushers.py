"""Who pushes the jobs of a run, and what is known of each: pushes go on while everything is broken."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from taskqueue import Job, QueueManager
from taskqueue.errors import StoreError, TaskQueueError
from tests.chaos.plan import Plan
from tests.node.running import job

LONG = 1.5
"""How many leases the longest jobs run."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What the pusher knows of a job: its kind, its parents and its unique key."""

    kind: str
    parents: tuple[UUID, ...] = ()
    key: str | None = None


@dataclass(slots=True)
class Pushes:
    """What was pushed. Of a job in doubt its pusher was told that it may be stored or not."""

    jobs: dict[UUID, Pushed] = field(default_factory=dict)
    doubtful: set[UUID] = field(default_factory=set)
    revived: dict[UUID, list[int]] = field(default_factory=dict)
    """The leases at which jobs were failed when they were revived."""
    errors: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Errors that no pusher should ever see."""


class Recipe:
    """Makes jobs of every kind, in the shares of a mixed load."""

    def __init__(self, plan: Plan, chance: random.Random) -> None:
        self._plan = plan
        self._chance = chance
        self._makers: list[tuple[float, Callable[[], list[tuple[Job, Pushed]]]]] = [
            (0.67, lambda: [self._plain("plain")]),
            (0.07, self._effect),
            (0.05, lambda: [(job("Awaiting", {"sleep": 0.01}), Pushed("awaiting"))]),
            (0.02, lambda: [self._plain("sleeper", sleep=self._chance.uniform(0.05, 0.3))]),
            (0.04, lambda: [self._plain("priority", priority=self._chance.choice((1, 10, 15)))]),
            (0.03, lambda: [self._plain("delayed", delay=self._chance.uniform(0.2, 3.0))]),
            (0.03, self._flaky),
            (0.01, lambda: [(job("Reporting", {}), Pushed("reporting"))]),
            (0.005, self._doomed),
            (0.015, lambda: [(job("Once", {}, delivery="at_most_once", max_attempts=1), Pushed("once"))]),
            (0.015, self._family),
            (0.002, self._broken_family),
            (0.01, self._keyed),
        ]
        rare = max(3, min(40, plan.jobs // 1000)) / plan.jobs
        self._makers += [
            (rare, lambda: [(job("Poison", {}, queue="poison"), Pushed("poison"))]),
            (rare, lambda: [(job("Frozen", {}), Pushed("frozen"))]),
            (rare, lambda: [(job("Effect", {"freezes": True}, max_attempts=20), Pushed("frozen effect"))]),
            (rare, lambda: [self._plain("long", sleep=LONG * self._plan.lease * self._chance.uniform(0.3, 1.0))]),
        ]

    def make(self, number: int) -> list[tuple[Job, Pushed]]:
        """Make so many jobs, or a few more where the last ones belong together."""
        made: list[tuple[Job, Pushed]] = []
        makers = [each for _, each in self._makers]
        shares = [share for share, _ in self._makers]
        while len(made) < number:
            made += self._chance.choices(makers, shares)[0]()
        return made

    def one_of_each(self) -> list[tuple[Job, Pushed]]:
        """Make one of every kind."""
        return [each for _, maker in self._makers for each in maker()]

    def _plain(self, kind: str, **options: Any) -> tuple[Job, Pushed]:
        payload = {"sleep": options.pop("sleep")} if "sleep" in options else {}
        return job("Plain", payload, **options), Pushed(kind)

    def _effect(self) -> list[tuple[Job, Pushed]]:
        payload = {"commits": self._chance.random() < 0.3, "sleep": self._chance.choice((0, 0, 0, 0.02))}
        return [(job("Effect", payload, max_attempts=20, retry_interval=0.1), Pushed("effect"))]

    def _flaky(self) -> list[tuple[Job, Pushed]]:
        until = self._chance.choice((2, 3))
        return [(job("Flaky", {"until": until}, max_attempts=3, retry_interval=0.2), Pushed("flaky"))]

    def _doomed(self) -> list[tuple[Job, Pushed]]:
        return [(job("Flaky", {"until": 99}, max_attempts=2, retry_interval=0.1), Pushed("doomed"))]

    def _family(self) -> list[tuple[Job, Pushed]]:
        parents = [self._plain("parent"), self._plain("parent", sleep=0.01)]
        ids = tuple(each.id for each, _ in parents)
        return [*parents, (job("Plain", {}, dependencies=list(ids)), Pushed("child", ids))]

    def _broken_family(self) -> list[tuple[Job, Pushed]]:
        ((parent, _),) = self._doomed()
        orphan = job("Plain", {}, dependencies=[parent.id])
        return [(parent, Pushed("doomed parent")), (orphan, Pushed("orphan", (parent.id,)))]

    def _keyed(self) -> list[tuple[Job, Pushed]]:
        key = f"key-{self._chance.randrange(20)}"
        return [(job("Plain", {"sleep": 0.02}, unique_key=key, on_conflict="keep"), Pushed("unique", key=key))]


class Pusher:
    """A thread that pushes the rest of the jobs evenly over the time of the storm, and revives what has failed."""

    def __init__(self, plan: Plan, url: str, key: str, chance: random.Random) -> None:
        self.pushes = Pushes()
        self._plan = plan
        self._url, self._key = url, key
        self._chance = chance
        self._recipe = Recipe(plan, chance)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pusher", daemon=True)
        self._failed_jobs: Callable[[], Sequence[tuple[UUID, int]]] = list
        self.done = threading.Event()

    def begin(self, failed_jobs: Callable[[], Sequence[tuple[UUID, int]]]) -> None:
        """Push one of each kind and a fifth of all at once, and the others from a thread."""
        self._failed_jobs = failed_jobs
        with QueueManager(self._url, encryption_key=self._key) as manager:
            self._push(manager, self._recipe.one_of_each())
            for _ in range(0, self._plan.jobs // 5, 1000):
                self._push(manager, self._recipe.make(min(1000, self._plan.jobs // 5)))
        self._thread.start()

    def stop(self) -> None:
        """End the thread, whatever is left to be pushed."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(40)

    def _run(self) -> None:
        began, revive_at = time.monotonic(), self._plan.seconds * 0.3
        with QueueManager(self._url, encryption_key=self._key) as manager:
            while not self._stopped.is_set() and len(self.pushes.jobs) < self._plan.jobs:
                share = (time.monotonic() - began) / (0.85 * self._plan.seconds)
                due = int(self._plan.jobs * (0.2 + 0.8 * share)) - len(self.pushes.jobs)
                if due > 0:
                    most = self._chance.choice((1, 1, 1, 20, 100, 500))
                    self._push(manager, self._recipe.make(min(due, most, self._plan.jobs)))
                if time.monotonic() - began > revive_at:
                    revive_at += self._plan.seconds * 0.15
                    self.revive(manager)
                self._stopped.wait(0.005 if due > 50 else 0.02)
        self.done.set()

    def _push(self, manager: QueueManager, made: Sequence[tuple[Job, Pushed]]) -> None:
        """Push one job alone or several in one transaction, and the very same again where the answer was an error.

        That stores each once, whatever became of the first time. In doubt is only what the end of the storm left so.
        """
        ids = {each.id: about for each, about in made}
        jobs = [each for each, _ in made]
        while True:
            try:
                stored = manager.push_many(jobs) if len(jobs) > 1 else [manager.push(jobs[0]).id]
            except TaskQueueError as error:
                self._note(error)
            else:
                break
            if self._stopped.wait(0.2):
                self.pushes.jobs.update(ids)
                self.pushes.doubtful.update(ids)
                return
        # A job whose unique key is taken gives way to the one that has it.
        self.pushes.jobs.update((each, ids[each]) for each in stored if each in ids)

    def revive(self, manager: QueueManager) -> None:
        """Revive some of the jobs that have failed for good."""
        try:
            for each, lease in self._failed_jobs():
                self.pushes.revived.setdefault(each, []).append(lease)
                manager.retry_failed_job(each)
        except TaskQueueError as error:
            self._note(error)

    def _note(self, error: TaskQueueError) -> None:
        self.pushes.errors[type(error).__name__] += 1
        if not isinstance(error, StoreError):
            self.pushes.wrong.append(f"a pusher got {error!r}")
