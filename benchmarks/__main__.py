"""Measure the queue on this machine, beside bare loops on the same databases: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from benchmarks import peers
from benchmarks.databases import KINDS
from benchmarks.databases.kind import Kind
from benchmarks.drain import drains
from benchmarks.growth import growths
from benchmarks.latency import latencies
from benchmarks.machine import describe_machine
from benchmarks.measure import FULL_RUN, QUICK_RUN, TINY_RUN, Contestant, Label, Reading, Sizes, interleaved
from benchmarks.memory import memories
from benchmarks.plan import describe, plan
from benchmarks.push import bulks, singles
from benchmarks.report import Findings, Section, as_json, show, write
from benchmarks.statements import talks

DOCUMENTS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
RATES: dict[str, Callable[[Kind, Sizes], Iterator[Contestant]]] = {"push": singles, "bulk": bulks, "drain": drains}
PEERS: dict[str, Callable[[str, Sizes], Iterator[Contestant]]] = {"push": peers.singles, "drain": peers.drains}
READINGS: dict[str, Callable[[Kind, Sizes], Iterator[Reading]]] = {"latency": latencies, "memory": memories}
GROWTH, STATEMENTS = "growth", "statements"
_TERMINATED = 128 + signal.SIGTERM
NAMES = (*RATES, *READINGS, GROWTH, STATEMENTS)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--database", choices=KINDS, action="append", help="measure this one; unless given, all that can be reached"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="smaller sizes, one repetition: under two minutes")
    size.add_argument("--tiny", action="store_true", help="just enough to see that everything runs")
    parser.add_argument("--only", choices=NAMES, action="append", help="measure this alone; may be given several times")
    parser.add_argument("--growth", action="append_const", const=GROWTH, dest="only", help="the same as --only growth")
    parser.add_argument("--peers", action="store_true", help="measure Huey as well, from the package index")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--output", type=Path, help="where to write tables, JSON and plots; a whole run: docs/benchmarks"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write the documents' figures if the run was a whole one."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))  # So that databases and nodes are removed.
    logging.getLogger("taskqueue").setLevel(logging.ERROR)  # Each repetition makes a key for its own database.
    console = Console(stderr=True)
    kinds = chosen(options.database, console)
    if kinds is None:
        return 2
    findings = measure(options, kinds, console, f"python -m benchmarks {' '.join(arguments)}".strip())
    if options.json:
        print(json.dumps(as_json(findings), indent=2))
    else:
        show(findings, Console(width=None if sys.stdout.isatty() else 150))
    whole = not (options.quick or options.tiny or options.only or options.database)
    folder = options.output or (DOCUMENTS if whole else None)
    if folder is not None:
        write(findings, folder)
    return 0


def chosen(names: Sequence[str] | None, console: Console) -> list[Kind] | None:
    """Return the databases to measure; None where one that was named cannot be reached."""
    missing = {name: KINDS[name].missing() for name in names or KINDS}
    for reason in filter(None, missing.values()):
        console.print(reason, highlight=False)
    if names and any(missing.values()):
        return None
    return [KINDS[name] for name, reason in missing.items() if reason is None]


def measure(options: argparse.Namespace, kinds: Sequence[Kind], console: Console, command: str) -> Findings:
    """Measure what was asked for, telling on the way what is being measured."""
    sizes = QUICK_RUN if options.quick else TINY_RUN if options.tiny else FULL_RUN
    wanted = [name for name in NAMES if name in (options.only or NAMES)]
    console.print(describe(list(plan(kinds, wanted, sizes))), highlight=False)
    began = time.perf_counter()
    with ExitStack() as stack, console.status("starting") as status:
        huey = stack.enter_context(peers.huey_python()) if options.peers else None
        machine = describe_machine(peers.version(huey) if huey else None)
        sections = [
            measure_one(kind, wanted, sizes, huey if kind.limits.over_huey is not None else None, status.update)
            for kind in kinds
        ]
    return Findings(machine, command, sizes, time.perf_counter() - began, sections)


def measure_one(
    kind: Kind, wanted: Sequence[str], sizes: Sizes, huey: str | None, say: Callable[[str], None]
) -> Section:
    """Measure one database."""

    def tell(label: Label) -> None:
        say(f"{kind.title}: {label.measure}: {label.system} {label.way} {label.durability} {label.workers or ''}")

    section = Section(kind, kind.version(), kind.settings())
    for name in [name for name in RATES if name in wanted]:
        contestants = list(RATES[name](kind, sizes))
        if huey and name in PEERS:
            contestants += PEERS[name](huey, sizes)
        section.rates.extend(interleaved(contestants, sizes.rounds, tell))
    say(f"{kind.title}: latency and memory")
    section.readings.extend(each for name in READINGS if name in wanted for each in READINGS[name](kind, sizes))
    if GROWTH in wanted:
        with growths(kind, sizes, tell) as contestants:
            section.rates.extend(interleaved(contestants, sizes.growth_rounds, tell))
    if STATEMENTS in wanted:
        say(f"{kind.title}: statements")
        section.talks.extend(talks(kind))
    return section


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
