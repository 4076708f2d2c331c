"""One scene for each mutant: the few steps in which its mistake shows, rather than the luck of a long run.

Without the mutant the same steps leave every invariant whole; the tests look at both.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.chaos import alterations
from tests.chaos.evidence import Evidence
from tests.chaos.faults import HOUR, send
from tests.chaos.ground import Ground
from tests.chaos.invariants import Verdict, judge
from tests.chaos.journal import Line
from tests.chaos.places import PLAIN_JOBS, ChaosNode, Place
from tests.chaos.plan import Plan
from tests.chaos.pushers import Pushed
from tests.chaos.storm import Storm
from tests.chaos.users import User
from tests.node.running import job, until


@dataclass(slots=True)
class Stage:
    """Where a scene is played: nodes that are started one by one, jobs that are pushed by name."""

    plan: Plan
    ground: Ground
    folder: Path
    storm: Storm = field(init=False)

    def __post_init__(self) -> None:
        self.storm = Storm(replace(self.plan, nodes=0, faults=(), patience=15.0), self.ground, self.folder)
        self.storm.crew.imports = PLAIN_JOBS

    def start(self, *, skew: int = 0, far: str = "", point: str = "", late: bool = False, **worker: Any) -> ChaosNode:
        """Start a node: on a clock that is wrong, on another host, to die at a point, with a class that others lack."""
        crew = self.storm.crew
        place = Place(len(crew.places), self.ground.url, far=far)
        crew.places.append(place)
        crew.extra |= {alterations.SKEW: str(skew), alterations.POINT: point, alterations.LATE: "yes" if late else ""}
        return crew.start(place, **{"workers": 1, **worker})

    def node(self, **asked: Any) -> ChaosNode:
        """Start a node and wait until it serves."""
        node = self.start(**asked)
        self.await_line("registered", node=node.number)
        return node

    def await_died(self, point: str, node: ChaosNode | None = None) -> Line:
        """Wait until a process has died at a point."""
        return self.await_line("died", more=point, node=None if node is None else node.number)

    def push(
        self, job_class: str, payload: Any, kind: str = "plain", *, parents: tuple[UUID, ...] = (), **options: Any
    ) -> UUID:
        """Push a job."""
        pushed = job(job_class, payload, **options)
        self.storm.pusher.pushes.jobs[pushed.id] = Pushed(kind, parents)
        self.user.manager.push(pushed)
        return pushed.id

    def push_gated(self) -> UUID:
        """Push a job whose runs each last until the gate of their lease is opened."""
        return self.push("Plain", {"gate": "gate-{lease}"})

    def open_gate(self, *leases: int) -> None:
        """Let the runs under these leases end."""
        for lease in leases:
            (self.folder / f"gate-{lease}").touch()

    @property
    def user(self) -> User:
        """Whoever pushes, revives and cancels."""
        return User(self.storm)

    def await_line(self, what: str, *, node: int | None = None, more: str | None = None, times: int = 1) -> Line:
        """Wait until something has happened, on a node where one is given, and return its line."""

        def look() -> Line | None:
            self.storm.journal.look()
            found = [each for each in self.storm.journal.lines if each.what == what]
            found = [each for each in found if node in (None, each.node) and more in (None, each.more)]
            return found[times - 1] if len(found) >= times else None

        try:
            found: Line = until(look, f"{what} has happened", 40)
        except AssertionError as error:
            logs = "\n".join(f"node {each.number}: {each.log[-2000:]}" for each in self.storm.crew.nodes)
            raise AssertionError(f"{error}; the nodes say:\n{logs}") from None
        return found

    def await_that(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something is so."""
        until(condition, what, 40)

    def has_told(self, what: str, node: ChaosNode) -> bool:
        """Say whether a node has told of something."""
        self.storm.journal.look()
        return any(line.what == what and line.node == node.number for line in self.storm.journal.lines)

    def is_final(self, job_id: UUID) -> bool:
        """Say whether a job is in history."""
        return bool(self.ground.rows("SELECT 1 FROM tq_history WHERE id = :id", id=self.ground.key_of(job_id)))

    def await_state(self, job_id: UUID, state: int) -> None:
        """Wait until a job is in history in a state."""
        until(
            lambda: self.ground.rows("SELECT 1 FROM tq_history WHERE id = :id AND state = :state",
                                     id=self.ground.key_of(job_id), state=state),
            f"job {job_id} is final",
        )  # fmt: skip

    def stop_outside_of_transactions(self, kind: str, node: ChaosNode, pids: list[int]) -> Callable[[], None]:
        """Stop processes for so long as the scene wants, and return what lets them go on."""
        fault = self.storm.weather.note(kind, 3600, node, pids)
        send(pids, signal.SIGSTOP)
        while self.ground.database.is_in_a_transaction():
            send(pids, signal.SIGCONT)
            until(lambda: not self.ground.database.is_in_a_transaction(), "the node has ended its transaction")
            send(pids, signal.SIGSTOP)

        def go_on() -> None:
            fault.ended = max(line.at for line in self.storm.journal.lines)
            send(pids, signal.SIGCONT)

        return go_on

    def kill(self, kind: str, node: ChaosNode, pids: list[int] | None = None) -> None:
        """Kill processes of a node, or all of it."""
        self.storm.weather.note(kind, 0, None if pids else node, pids or node.tree)
        if pids:
            send(pids, signal.SIGKILL)
        else:
            node.end_at_once()
            self.forget(node)

    def forget(self, node: ChaosNode) -> None:
        """Have nobody replace a node."""
        self.storm.crew.places = [each for each in self.storm.crew.places if each.node is not node]

    def dismiss(self, node: ChaosNode) -> None:
        """Stop a node well."""
        send([node.pid], signal.SIGTERM)
        node.end()
        self.forget(node)

    def close_gates(self) -> None:
        """Let later runs wait again."""
        for each in self.folder.glob("gate-*"):
            each.unlink()

    def end(self) -> Evidence:
        """Let everything end, and gather what is left."""
        return self.storm.conclude()


def play(plan: Plan, ground: Ground, folder: Path) -> tuple[Evidence, list[Verdict]]:
    """Play the scene of a plan's mutant, with or without it planted, and judge what came of it."""
    stage = Stage(plan, ground, folder)
    try:
        SCENES[plan.scene](stage)
        evidence = stage.end()
        return evidence, judge(evidence)
    finally:
        stage.storm.close()


# --- the scenes -------------------------------------------------------------------------------------------------------


def late_outcome(stage: Stage) -> None:
    """Stop a node when its job ends, and let it write that down while another one runs the job again."""
    first = stage.node()
    job_id = stage.push_gated()
    stage.await_line("start")
    go_on = stage.stop_outside_of_transactions("pause supervisor and template", first, [first.pid, *first.templates])
    stage.open_gate(1)
    stage.await_line("end")
    second = stage.node()
    stage.await_line("start", node=second.number)
    go_on()
    stage.await_that(
        lambda: stage.has_told("stale", first) or stage.is_final(job_id), "the first node has tried to write it down"
    )
    stage.open_gate(3)


def living_neighbours(stage: Stage) -> None:
    """Let a node run a job and another one join, and do nothing to either."""
    stage.node()
    stage.push_gated()
    stage.await_line("start")
    _watch_and_let_go(stage, stage.node())


def _watch_and_let_go(stage: Stage, observer: ChaosNode) -> None:
    """Let a node look for dead ones a few times, and then all jobs end."""
    stage.await_line("looked", node=observer.number, times=3)
    stage.open_gate(*range(1, 20))


def worker_killed(stage: Stage) -> None:
    """Kill a worker in the middle of its job."""
    node = stage.node()
    stage.push_gated()
    line = stage.await_line("start")
    stage.kill("kill worker", node, [line.pid])
    stage.open_gate(3)


def stopped_and_killed(stage: Stage) -> None:
    """Ask a node to stop while its job takes longer than the grace, and kill it before it has stopped."""
    node = stage.node(grace=0.1)
    stage.push_gated()
    stage.await_line("start")
    stage.storm.weather.note("deploy", 30, node)
    send([node.pid], signal.SIGTERM)
    stage.await_that(lambda: stage.has_told("between", node) or not node.runs, "the node hands its job back, or ends")
    stage.kill("kill node", node)
    stage.open_gate(3)
    stage.node()


def silent_supervisor(stage: Stage) -> None:
    """Stop a supervisor for longer than the lease, while its worker's job takes longer still."""
    first = stage.node()
    stage.push_gated()
    stage.await_line("start")
    go_on = stage.stop_outside_of_transactions("pause supervisor", first, [first.pid])
    second = stage.node()
    stage.await_line("start", node=second.number)
    stage.open_gate(1, 3)
    stage.await_line("end", node=second.number)
    go_on()


def revived(stage: Stage) -> None:
    """Revive a job that failed for good."""
    stage.node()
    failed = stage.push("Flaky", {"until": 99, "unless": "mended"}, "revived", max_attempts=1)
    stage.await_state(failed, 5)
    (stage.folder / "mended").touch()
    stage.storm.pusher.pushes.revived[failed] = [1]
    stage.user.do("revive", id=str(failed))
    stage.await_line("end")


def clock_ahead(stage: Stage) -> None:
    """Have a node join whose clock is an hour ahead, while another one runs a job."""
    stage.node()
    stage.push_gated()
    stage.await_line("start")
    _watch_and_let_go(stage, stage.node(skew=HOUR))


SCENES: Mapping[str, Callable[[Stage], None]] = {
    "no fencing": late_outcome,
    "unguarded rescue": living_neighbours,
    "acknowledgement before effect": worker_killed,
    "two-step release": stopped_and_killed,
    "no self-stop": silent_supervisor,
    "lease reset at revive": revived,
    "heartbeat judged by age": clock_ahead,
}
LEASES: Mapping[str, float] = {"no self-stop": 6.0}
"""Where a scene needs a long one: a template kills its workers at 2/3 of it and 1.25 s, before others take over."""
SHORT_LEASE = 2.0
BREAKS: Mapping[str, frozenset[str]] = {
    "no fencing": frozenset({"I12"}),
    "unguarded rescue": frozenset({"I3"}),
    "acknowledgement before effect": frozenset({"I5"}),
    "two-step release": frozenset({"I2"}),
    "no self-stop": frozenset({"I10"}),
    "lease reset at revive": frozenset({"I4"}),
    "heartbeat judged by age": frozenset({"I3"}),
}
"""The invariant that each mutant has to break, whatever else it breaks."""


def plan_of(scene: str, database: str, *, mutated: bool, seed: int = 0) -> Plan:
    """Return the plan of a scene."""
    lease = LEASES.get(scene, SHORT_LEASE)
    return Plan(database, seed=seed, lease=lease, scene=scene, mutant=scene if mutated else None)
