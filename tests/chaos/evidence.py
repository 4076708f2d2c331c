"""What a run has left to be judged: what the handlers and nodes said outside, what the database says, what was done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from taskqueue.states import State
from tests.chaos.faults import Fault
from tests.chaos.journal import Line
from tests.chaos.plan import Plan
from tests.chaos.pushers import Pushes

if TYPE_CHECKING:
    from tests.chaos.storm import Storm


@dataclass(slots=True)
class Run:
    """One start of a job's handler."""

    job: UUID
    lease: int
    attempt: int
    pid: int
    node: int
    began: float
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class Final:
    """A job in history."""

    state: State
    lease: int
    attempt: int
    crashes: int
    losses: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that did not complete, as the database has it."""

    lease: int
    reason: str


@dataclass(slots=True)
class Evidence:
    """Everything that the invariants look at."""

    plan: Plan
    pushes: Pushes
    faults: Sequence[Fault] = ()
    lines: Sequence[Line] = ()
    history: Mapping[UUID, Final] = field(default_factory=dict)
    attempts: Mapping[UUID, Sequence[Ended]] = field(default_factory=dict)
    live: Sequence[tuple[UUID, str]] = ()
    """Jobs that are not final, and what they are instead."""
    counters: Mapping[int, int] = field(default_factory=dict)
    rollups: tuple[int, int] = (0, 0)
    """Completed and failed."""
    effects: Mapping[UUID, Sequence[int]] = field(default_factory=dict)
    """The leases of the rows that each transactional job has left."""
    leftovers: Sequence[str] = ()
    logs: Mapping[int, str] = field(default_factory=dict)
    codes: Sequence[tuple[int, int]] = ()
    counted_stale: Mapping[int, int] = field(default_factory=dict)
    """How many writes each node says were dropped, of those nodes that ended well."""
    restarts_ready: Sequence[float] = ()
    notes: Sequence[str] = ()
    seconds: float = 0.0
    nodes_started: int = 0
    runs: dict[UUID, list[Run]] = field(default_factory=dict)
    """The runs of each job, in the order of their leases."""

    def __post_init__(self) -> None:
        starts: dict[UUID, list[Run]] = defaultdict(list)
        open_runs: dict[tuple[UUID, int, int], Run] = {}
        for line in self.lines:
            if line.job is None:
                continue
            if line.what == "start":
                run = Run(line.job, line.lease, line.attempt, line.pid, line.node, line.at)
                starts[line.job].append(run)
                open_runs[line.job, line.lease, line.pid] = run
            elif line.what == "end":
                ended = open_runs.get((line.job, line.lease, line.pid))
                if ended is not None:
                    ended.ended = line.at
        self.runs = {job: sorted(runs, key=lambda run: (run.lease, run.began)) for job, runs in starts.items()}

    def events(self, what: str) -> list[Line]:
        """Return what the nodes told of one kind."""
        return [line for line in self.lines if line.what == what]

    def kind(self, job: UUID) -> str:
        """Return the kind of a job."""
        about = self.pushes.jobs.get(job)
        return "unknown" if about is None else about.kind


def _id(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(bytes=bytes(value))


def gather(storm: Storm, seconds: float, codes: Sequence[tuple[int, int]]) -> Evidence:
    """Read everything, once every node has ended."""
    storm.journal.look()
    rows = storm.ground.rows
    attempts: dict[UUID, list[Ended]] = defaultdict(list)
    for job, lease, reason in rows("SELECT job_id, lease, reason FROM tq_attempts"):
        attempts[_id(job)].append(Ended(int(lease), reason))
    states = {state.code: state for state in State}
    sql = "SELECT id, state, lease, attempt, crashes, losses, reason FROM tq_history"
    history = {
        _id(job): Final(states[state], int(lease), int(attempt), int(crashes), int(losses), reason)
        for job, state, lease, attempt, crashes, losses, reason in rows(sql)
    }
    effects: dict[UUID, list[int]] = defaultdict(list)
    for job, lease in rows("SELECT job, lease FROM chaos_effects"):
        effects[UUID(job)].append(int(lease))
    ((completed, failed),) = rows("SELECT COALESCE(SUM(completed), 0), COALESCE(SUM(failed), 0) FROM tq_rollups")
    return Evidence(
        storm.plan,
        storm.pusher.pushes,
        storm.weather.faults,
        storm.journal.lines,
        history,
        attempts,
        [(_id(job), f"state {state}, node {node}") for job, state, node in rows(
            "SELECT id, state, node_id FROM tq_jobs LIMIT 100"
        )],
        {int(state): int(jobs) for state, jobs in rows("SELECT state, SUM(jobs) FROM tq_counters GROUP BY state")},
        (int(completed), int(failed)),
        effects,
        storm.leftovers(),
        {node.number: node.log for node in storm.crew.nodes},
        codes,
        {node.number: told for node in storm.crew.nodes if (told := node.stale_writes) is not None},
        storm.weather.restarts_ready,
        storm.notes,
        round(seconds, 1),
        len(storm.crew.nodes),
    )  # fmt: skip
