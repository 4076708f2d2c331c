"""What the figures have to reach: ratios within one run on one machine, so that a slow machine does not decide."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.drain import BATCHES, DRAIN
from benchmarks.latency import IDLE_CPU, LATENCY, P95
from benchmarks.measure import BARE, HUEY, OURS, Label, Rate, Reading
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

DRAIN_OVER_HUEY = 3.0
OF_BARE_DRAIN, OF_BARE_PUSH, OF_BARE_BULK = 0.6, 0.6, 0.5
LATENCY_P95_MS = (25.0, 10.0)
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
    """The rates of one run, to be looked up beside one another."""

    def __init__(self, rates: Sequence[Rate]) -> None:
        self._rates = {rate.label: rate for rate in rates}

    def over_bare(self, rate: Rate) -> float | None:
        """Return a rate of ours as a share of the bare loop's at the same durability."""
        label = rate.label
        way = BATCHES if label.measure == DRAIN else ""
        workers = 1 if label.measure == DRAIN else 0
        bare = self._rates.get(Label(label.measure, BARE, _compared(label), workers, way))
        return _ratio(rate, bare) if bare and label.system == OURS else None

    def over_huey(self, rate: Rate) -> tuple[float | None, bool]:
        """Return how many times Huey's rate a rate of ours is, and whether Huey was measured in this run."""
        label = rate.label
        if label.system != OURS:
            return None, False
        measured = self._rates.get(Label(label.measure, HUEY, _compared(label), label.workers))
        if measured:
            return _ratio(rate, measured), True
        earlier = HUEY_MEASURED_EARLIER.get((label.measure, _compared(label), label.workers))
        return (rate.median / earlier if earlier else None), False


def _ratio(one: Rate, other: Rate) -> float:
    """Return the median of the rounds' ratios: both ran within the same minute, whatever the machine did then."""
    return statistics.median(a.rate / b.rate for a, b in zip(one.samples, other.samples, strict=True))


def _compared(label: Label) -> str:
    """Return the durability of others that a figure is held against: the default's pushes are FULL."""
    return label.durability if label.durability in ("NORMAL", "FULL") else "FULL"


def judge_rates(rates: Sequence[Rate]) -> Iterator[Verdict]:
    """Hold the rates of equal durability against their budgets."""
    comparison = Comparison(rates)
    for rate in rates:
        label = rate.label
        if label.system != OURS or label.durability not in ("NORMAL", "FULL"):
            continue
        bare = comparison.over_bare(rate) or 0.0
        name = f"{label.measure}, {label.durability}"
        if label.measure == DRAIN:
            yield _judge_drain(f"{name}, {label.workers} worker(s)", bare, *comparison.over_huey(rate))
        elif label.measure in (SINGLE, BULK):
            wanted = OF_BARE_PUSH if label.measure == SINGLE else OF_BARE_BULK
            result = "goal" if bare >= wanted else "short"
            yield Verdict(name, f"goal {wanted:g} of the bare loop", f"{bare:.2f}", result)


def _judge_drain(name: str, bare: float, huey: float | None, same_run: bool) -> Verdict:  # noqa: FBT001
    times = huey or 0.0
    result = "goal" if times >= DRAIN_OVER_HUEY and bare >= OF_BARE_DRAIN else "short"
    if result == "short" and times >= DRAIN_OVER_HUEY:
        result = "pass"
    wanted = f"pass {DRAIN_OVER_HUEY:g} x Huey, goal {OF_BARE_DRAIN:g} of the bare loop"
    return Verdict(name, wanted, f"{times:.1f} x{'' if same_run else ' (Huey measured earlier)'}, {bare:.2f}", result)


def judge_readings(readings: Sequence[Reading]) -> Iterator[Verdict]:
    """Hold latency, idling and memory against their budgets."""
    for each in readings:
        if each.label.system != OURS:
            continue
        name = f"{each.label.measure}, {each.what}"
        if each.label.measure == LATENCY and each.what == P95:
            yield _judge_below(name, each, *LATENCY_P95_MS)
        elif each.label.measure == LATENCY and each.what == IDLE_CPU:
            yield _judge_below(name, each, IDLE_PERCENT, 0.0)
        elif each.label.measure == MEMORY and each.what == WORKER and each.label.workers > 1:
            yield _judge_below(name, each, *WORKER_MB)


def _judge_below(name: str, each: Reading, most: float, goal: float) -> Verdict:
    result = "goal" if each.value <= goal else "pass" if each.value <= most else "short"
    wanted = f"at most {most:g} {each.unit}" + (f", goal {goal:g}" if goal else "")
    return Verdict(name, wanted, f"{each.value:.2f}", result)
