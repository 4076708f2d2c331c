"""What the figures have to reach: ratios within one run on one machine, so that a slow machine does not decide."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.databases.kind import Kind
from benchmarks.drain import BATCHES, DRAIN
from benchmarks.growth import ALONE, GROWTH, SNAPSHOT
from benchmarks.latency import IDLE_CPU, IDLE_SERVER, LATENCY, P95
from benchmarks.measure import HUEY, OURS, Label, Rate, Reading
from benchmarks.memory import MEMORY, WORKER
from benchmarks.push import BULK, SINGLE

HUEY_MEASURED_EARLIER = {
    (SINGLE, "NORMAL", 0): 27_784.0,
    (SINGLE, "FULL", 0): 4_201.0,
    (DRAIN, "NORMAL", 1): 13_615.0,
    (DRAIN, "NORMAL", 2): 12_493.0,
    (DRAIN, "FULL", 1): 3_992.0,
    (DRAIN, "FULL", 2): 3_860.0,
}
"""Huey 3.5.4 on 2 cores of an Intel Xeon in November 2026, where ``--peers`` does not measure it in the same run."""

IDLE_PERCENT = 1.0
WORKER_MB = (6.0, 3.0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a budget is kept: ``goal`` reached, ``pass`` mark reached, or ``short``."""

    what: str
    wanted: str
    found: str
    result: str


class Comparison:
    """The rates of one database in one run, to be looked up beside one another."""

    def __init__(self, kind: Kind, rates: Sequence[Rate]) -> None:
        self._kind = kind
        self._rates = {rate.label: rate for rate in rates}
        self._beside = {each.name: each.beside for each in kind.durabilities}

    def over_bare(self, rate: Rate) -> float | None:
        """Return a rate of ours as a share of the bare loop's at the same durability, with as many processes if any."""
        label = rate.label
        if label.system != OURS:
            return None
        way = BATCHES if label.measure == DRAIN else ""
        for workers in (label.workers, 1):
            found = Label(label.measure, self._kind.bare_name, self._compared(label), workers, way)
            if found in self._rates:
                return _ratio(rate, self._rates[found])
        return None

    def over_huey(self, rate: Rate) -> tuple[float | None, bool]:
        """Return how many times Huey's rate a rate of ours is, and whether Huey was measured in this run."""
        label = rate.label
        if label.system != OURS or self._kind.limits.over_huey is None:
            return None, False
        measured = self._rates.get(Label(label.measure, HUEY, self._compared(label), label.workers))
        if measured:
            return _ratio(rate, measured), True
        earlier = HUEY_MEASURED_EARLIER.get((label.measure, self._compared(label), label.workers))
        return (rate.median / earlier if earlier else None), False

    def over_alone(self, rate: Rate) -> float | None:
        """Return a drain beside much that is stored as a share of the one beside nothing."""
        label = rate.label
        alone = self._rates.get(Label(label.measure, label.system, label.durability, label.workers, ALONE))
        return _ratio(rate, alone) if label.measure == GROWTH and alone and alone is not rate else None

    def is_equal(self, label: Label) -> bool:
        """Say whether pushes and claims were equally durable, as the bare loop's are."""
        return self._compared(label) == label.durability

    def _compared(self, label: Label) -> str:
        return self._beside.get(label.durability, label.durability)


def _ratio(one: Rate, other: Rate) -> float:
    """Return the median of the rounds' ratios: both ran within the same minute, whatever the machine did then."""
    return statistics.median(a.rate / b.rate for a, b in zip(one.samples, other.samples, strict=True))


def judge_rates(kind: Kind, rates: Sequence[Rate]) -> Iterator[Verdict]:
    """Hold the rates of equal durability, and those beside much that is stored, against their budgets."""
    comparison, limits = Comparison(kind, rates), kind.limits
    for rate in rates:
        label = rate.label
        name = f"{label.measure}, {label.durability}"
        if label.measure == GROWTH:
            share = comparison.over_alone(rate)
            if share is not None:
                least = limits.snapshot if label.way == SNAPSHOT else limits.grown
                yield _judge_share(f"{label.measure} {label.way}", share, *least, "the figure beside nothing else")
        elif label.system == OURS and comparison.is_equal(label):
            bare = comparison.over_bare(rate) or 0.0
            if label.measure == DRAIN:
                yield _judge_drain(kind, f"{name}, {label.workers} worker(s)", rate, comparison)
            else:
                wanted = limits.push_goal if label.measure == SINGLE else limits.bulk_goal
                result = "goal" if bare >= wanted else "short"
                yield Verdict(name, f"goal {wanted:g} of {_BARE[label.measure]}", f"{bare:.2f}", result)


_BARE = {SINGLE: "the bare insert", BULK: "the bare bulk insert"}


def _judge_drain(kind: Kind, name: str, rate: Rate, comparison: Comparison) -> Verdict:
    bare = comparison.over_bare(rate) or 0.0
    least, goal = kind.limits.drain[rate.label.workers]
    times, same_run = comparison.over_huey(rate)
    wanted_times = kind.limits.over_huey
    if wanted_times is None or times is None:
        return _judge_share(name, bare, least, goal, "the bare loop")
    # Both are asked for: to stand above a peer, and then near the limit.
    result = "short" if times < wanted_times else "goal" if bare >= goal else "pass"
    wanted = f"pass {wanted_times:g} x Huey, goal {goal:g} of the bare loop"
    return Verdict(name, wanted, f"{times:.1f} x{'' if same_run else ' (Huey measured earlier)'}, {bare:.2f}", result)


def _judge_share(name: str, share: float, least: float, goal: float, of: str) -> Verdict:
    result = "goal" if share >= goal else "pass" if share >= least else "short"
    return Verdict(name, f"pass {least:.2g}, goal {goal:.2g} of {of}", f"{share:.2f}", result)


def judge_readings(kind: Kind, readings: Sequence[Reading]) -> Iterator[Verdict]:
    """Hold latency, idling and memory against their budgets."""
    for each in readings:
        if each.label.system != OURS:
            continue
        name = f"{each.label.measure}, {each.what}"
        if each.label.measure == LATENCY and each.what == P95:
            yield _judge_below(name, each, *kind.limits.latency_p95_ms)
        elif each.label.measure == LATENCY and each.what in (IDLE_CPU, IDLE_SERVER):
            yield _judge_below(name, each, IDLE_PERCENT, 0.0)
        elif each.label.measure == MEMORY and each.what == WORKER and each.label.workers > 1:
            yield _judge_below(name, each, *WORKER_MB)


def _judge_below(name: str, each: Reading, most: float, goal: float) -> Verdict:
    result = "goal" if each.value <= goal else "pass" if each.value <= most else "short"
    wanted = f"at most {most:g} {each.unit}" + (f", goal {goal:g}" if goal else "")
    return Verdict(name, wanted, f"{each.value:.2f}", result)
