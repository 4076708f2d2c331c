"""The report of a run: what was asked, done and found, as JSON; and the table of the manual, made from such reports."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import taskqueue
from tests.chaos.causes import Causes
from tests.chaos.evidence import Evidence
from tests.chaos.invariants import Verdict, judge

KILLED_NODES = frozenset({"kill node", "kill supervisor"})


@dataclass(slots=True)
class Spread:
    """Durations of one kind, in seconds."""

    times: int = 0
    median: float | None = None
    longest: float | None = None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        if not seconds:
            return cls()
        return cls(len(seconds), round(statistics.median(seconds), 3), round(max(seconds), 3))


@dataclass(slots=True)
class Report:
    """One run."""

    settings: dict[str, Any]
    versions: dict[str, str]
    seconds: float
    faults: dict[str, int]
    jobs: dict[str, int]
    starts: dict[str, int]
    second_starts: dict[str, int]
    self_stops: int
    declared_dead: int
    stale_writes: int
    errors_of_pushers: dict[str, int]
    invariants: list[Verdict]
    recovery_in_the_storm: dict[str, Spread]
    recovery_in_calm: dict[str, Spread] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """Return the names of the invariants that do not hold."""
        return [each.name for each in self.invariants if each.broken]

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "broken": self.broken}, indent=2)


def report_on(evidence: Evidence, version: str) -> Report:
    """Judge a run."""
    causes = Causes(evidence)
    kinds = Counter(about.kind for about in evidence.pushes.jobs.values())
    runs = [run for each in evidence.runs.values() for run in each]
    return Report(
        settings=asdict(evidence.plan),
        versions={
            "taskqueue": taskqueue.__version__,
            "python": platform.python_version(),
            "database": version,
            "kernel": platform.release(),
            "processors": str(os.cpu_count()),
        },
        seconds=evidence.seconds,
        faults=dict(Counter(each.kind for each in evidence.faults).most_common()),
        jobs={
            "pushed": len(evidence.pushes.jobs),
            "in doubt": len(evidence.pushes.doubtful),
            **dict(kinds.most_common()),
        },
        starts={
            "starts": len(runs),
            "jobs started more than once": sum(len(each) > 1 for each in evidence.runs.values()),
            "nodes": evidence.nodes_started,
            "workers": len({run.pid for run in runs}),
        },
        second_starts=causes.counts,
        self_stops=sum(line.more == "silent" for line in evidence.events("stops_itself")),
        declared_dead=len(evidence.events("declared_dead")),
        stale_writes=len(evidence.events("stale")),
        errors_of_pushers=dict(evidence.pushes.errors),
        invariants=judge(evidence),
        recovery_in_the_storm=recovery(evidence, causes),
        notes=list(evidence.notes),
    )  # fmt: skip


def recovery(evidence: Evidence, causes: Causes) -> dict[str, Spread]:
    """Return how long it took, in the midst of everything else, until what was hit ran again."""
    pids = {pid: fault.began for fault in evidence.faults if fault.kind == "kill worker" for pid in fault.pids}
    nodes = {each.node: each.began for each in evidence.faults if each.kind in KILLED_NODES}
    after_worker, after_node = [], []
    for runs in evidence.runs.values():
        for run, again in pairwise(runs):
            cause = causes.found[run.job, run.lease]
            if cause == "kill worker" and run.pid in pids:
                after_worker.append(again.began - pids[run.pid])
            elif cause in KILLED_NODES and run.node in nodes:
                after_node.append(again.began - nodes[run.node])
    starts = sorted(run.began for runs in evidence.runs.values() for run in runs)
    after_restart = [
        first - ready for ready in evidence.restarts_ready if (first := next((s for s in starts if s > ready), None))
    ]
    return {
        "worker killed, its job runs again": Spread.of(after_worker),
        "node killed, its job runs elsewhere": Spread.of(after_node),
        "database ready, first start": Spread.of(after_restart),
    }


def write(reports: Sequence[Report], file: Path | None) -> str:
    """Return the reports as JSON, and write them where a file is named."""
    text = "[" + ",\n".join(each.to_json() for each in reports) + "]\n"
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return text
