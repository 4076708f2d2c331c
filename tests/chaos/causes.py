"""Why a job started again: each start that was not a job's last has one cause, or the run is red."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final
from uuid import UUID

from tests.chaos.evidence import Evidence, Run
from tests.chaos.faults import Fault

OWN_FAILURE: Final = "the handler failed"
REVIVED: Final = "revived by hand"
SELF_STOP: Final = "its node could not beat and stopped itself"
DECLARED_DEAD: Final = "its node was declared dead while it stopped itself"
SETBACK: Final = "its transaction lost against another one"
UNEXPLAINED: Final = "unexplained"

_FAILS = frozenset({"flaky", "doomed", "doomed parent", "revived"})
_OWN_REASONS = frozenset({"error", "timed_out"})
_STARTS_OVER = frozenset({"restart", "clock", "cut: reset"})
"""Faults that by themselves are no reason for a job to run twice."""


@dataclass(slots=True)
class Causes:
    """The cause of each second start, found from faults, failures and what the nodes told."""

    evidence: Evidence
    found: dict[tuple[UUID, int], str] = field(default_factory=dict)
    by_fault: Counter[int] = field(default_factory=Counter)
    """How many second starts are put down to each fault, by its number."""
    _by_pid: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    _by_node: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    _stops: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for number, fault in enumerate(self.evidence.faults):
            if fault.kind in _STARTS_OVER:
                continue
            for pid in fault.pids:
                self._by_pid[pid].append(number)
            if fault.node is not None:
                self._by_node[fault.node].append(number)
        for line in self.evidence.events("stops_itself"):
            if line.more == "silent":
                self._stops[line.node].append(line.at)
        for runs in self.evidence.runs.values():
            for run, following in pairwise(runs):
                same = (run.pid, run.lease) == (following.pid, following.lease)
                self.found[run.job, run.lease] = SETBACK if same and self._is_effect(run) else self._cause(run)

    def _is_effect(self, run: Run) -> bool:
        return "effect" in self.evidence.kind(run.job)

    def _cause(self, run: Run) -> str:
        if run.lease in self.evidence.pushes.revived.get(run.job, ()):
            return REVIVED
        reasons = {each.reason for each in self.evidence.attempts.get(run.job, ()) if each.lease == run.lease}
        if reasons & _OWN_REASONS and not (self._is_effect(run) and self._fault(run)):
            return OWN_FAILURE if self.evidence.kind(run.job) in _FAILS else UNEXPLAINED
        fault = self._fault(run)
        if fault is not None:
            return fault.kind
        if self._stopped_itself(run):
            return SELF_STOP
        return UNEXPLAINED

    def _fault(self, run: Run) -> Fault | None:
        """Return the first fault that could hit the run, or its outcome before that was written down."""
        written = self.evidence.plan.lease
        for number in sorted({*self._by_pid[run.pid], *self._by_node[run.node]}):
            fault = self.evidence.faults[number]
            begun_before_its_end = run.began <= fault.ended + written
            open_at_its_begin = run.ended is None or run.ended >= fault.began - written
            if begun_before_its_end and open_at_its_begin:
                self.by_fault[number] += 1
                return fault
        return None

    def _stopped_itself(self, run: Run) -> bool:
        """Say whether the run's node stopped its workers for want of a beat, when the run was not written down yet."""
        stops = sorted(self._stops[run.node])
        after = bisect_left(stops, run.began)
        slack = self.evidence.plan.lease
        return any(run.ended is None or run.ended >= stop - slack for stop in stops[after : after + 1])

    @property
    def counts(self) -> dict[str, int]:
        """Return how many second starts each cause had."""
        return dict(Counter(self.found.values()).most_common())

    def running_at(self, fault: Fault) -> int:
        """Return how many runs were open when a fault began, on the processes that it could hit."""
        slack = self.evidence.plan.lease
        return sum(
            1
            for runs in self.evidence.runs.values()
            for run in runs
            if fault.could_hit(run.node, run.pid)
            and run.began <= fault.ended + slack
            and (run.ended is None or run.ended >= fault.began - slack)
        )
