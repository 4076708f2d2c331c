"""Run what the command line asks for; exit with 1 where an invariant does not hold."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.chaos import drills
from tests.chaos.ground import Ground
from tests.chaos.plan import Asked, Plan, parse
from tests.chaos.report import Report, Spread, report_on, write
from tests.chaos.scenes import BREAKS, plan_of, play
from tests.chaos.storm import Storm
from tests.databases import close_all


def run(plan: Plan, times: int = 0) -> Report:
    """Do one run on a database of its own, with its drills, and remove everything."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskqueue-chaos-")))
        ground = Ground(plan.database, folder)
        stack.callback(ground.close)
        if plan.scene:
            evidence, _ = play(plan, ground, folder)
            return report_on(evidence, ground.version)
        report = report_on(Storm(plan, ground, folder).run(), ground.version)
        if times:
            ground.clear()
            measured = drills.measure(plan.database, ground, folder, times, plan.lease)
            report.recovery_in_calm = {name: Spread.of(seconds) for name, seconds in measured.items()}
        return report


def main(words: Sequence[str] | None = None) -> int:
    """Do every run that was asked for. One with a mutant has to break what that mutant breaks."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that what runs is ended and removed.
    asked = parse(words, seed=time.time_ns() % 1_000_000)
    reports = []
    try:
        for plan in _runs(asked):
            what = f"mutant {plan.mutant}" if plan.mutant else f"{plan.jobs} jobs on {plan.nodes} nodes"
            sys.stderr.write(f"chaos: {plan.database}, {what}, seed {plan.seed}\n")
            reports.append(run(plan, asked.drills))
            say(reports[-1])
    finally:
        close_all()
    text = write(reports, asked.report)
    if asked.report is None:
        sys.stdout.write(text)
    return 0 if all(map(as_it_should, reports)) else 1


def _runs(asked: Asked) -> list[Plan]:
    """Return the runs: a storm on each database, or the scenes of the mutants that were named."""
    mutant = asked.plans[0].mutant
    if mutant is None:
        return list(asked.plans)
    names = list(BREAKS) if mutant == "all" else [mutant]
    return [
        replace(plan_of(name, plan.database, mutated=True), seed=plan.seed) for name in names for plan in asked.plans
    ]


def as_it_should(report: Report) -> bool:
    """Say whether a run came out as it should: green, or red where a mutant was planted."""
    mutant = report.settings["mutant"]
    return set(report.broken) >= BREAKS[mutant] if mutant else not report.broken


def say(report: Report) -> None:
    """Tell people in a few lines."""
    lines = [f"  {report.seconds:.0f} s, faults {report.faults}", f"  second starts {report.second_starts}"]
    for each in report.invariants:
        state = "not there yet" if not each.there else f"BROKEN {each.broken} times" if each.broken else "holds"
        lines += [f"  {each.name} {state}: {each.promise} {each.looked_at}", *(f"     {one}" for one in each.examples)]
    spreads = {"in the storm": report.recovery_in_the_storm, "in calm": report.recovery_in_calm}
    lines += [
        f"  {name}, {where}: median {spread.median} s, longest {spread.longest} s, {spread.times} times"
        for where, found in spreads.items()
        for name, spread in found.items()
        if spread.times
    ]
    sys.stderr.write("\n".join([*lines, *(f"  note: {each}" for each in report.notes)]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
