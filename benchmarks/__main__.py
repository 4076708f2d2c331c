"""Measure the queue on this machine, beside a bare ``sqlite3`` loop: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from benchmarks import peers
from benchmarks.drain import drains
from benchmarks.latency import latencies
from benchmarks.machine import describe_machine
from benchmarks.measure import FULL_RUN, QUICK_RUN, TINY_RUN, Contestant, Label, Rate, Reading, Sizes, interleaved
from benchmarks.memory import memories
from benchmarks.push import bulks, singles
from benchmarks.report import Findings, as_json, show, write

DOCUMENTS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
RATES: dict[str, Callable[[Sizes], Iterator[Contestant]]] = {"push": singles, "bulk": bulks, "drain": drains}
PEERS: dict[str, Callable[[str, Sizes], Iterator[Contestant]]] = {"push": peers.singles, "drain": peers.drains}
READINGS: dict[str, Callable[[Sizes], Iterator[Reading]]] = {"latency": latencies, "memory": memories}
NAMES = (*RATES, *READINGS)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="smaller sizes, one repetition: under 40 seconds")
    size.add_argument("--tiny", action="store_true", help="just enough to see that everything runs")
    parser.add_argument("--only", choices=NAMES, action="append", help="measure this alone; may be given several times")
    parser.add_argument("--peers", action="store_true", help="measure Huey as well, from the package index")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--output", type=Path, help="where to write tables, JSON and plot; a whole run: docs/benchmarks"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write the documents' figures if the run was a whole one."""
    options = parse(arguments)
    logging.getLogger("taskqueue").setLevel(logging.ERROR)  # Each repetition makes a key for its own database.
    findings = measure(options, Console(stderr=True), f"python -m benchmarks {' '.join(arguments)}".strip())
    if options.json:
        print(json.dumps(as_json(findings), indent=2))
    else:
        show(findings, Console(width=None if sys.stdout.isatty() else 150))
    whole = not (options.quick or options.tiny or options.only)
    folder = options.output or (DOCUMENTS if whole else None)
    if folder is not None:
        write(findings, folder)
    return 0


def measure(options: argparse.Namespace, console: Console, command: str) -> Findings:
    """Measure what was asked for, telling on the way what is being measured."""
    sizes = QUICK_RUN if options.quick else TINY_RUN if options.tiny else FULL_RUN
    wanted = options.only or NAMES
    began = time.perf_counter()
    rates: list[Rate] = []
    with ExitStack() as stack, console.status("starting") as status:

        def tell(label: Label) -> None:
            status.update(f"{label.measure}: {label.system} {label.way} {label.durability} {label.workers or ''}")

        huey = stack.enter_context(peers.huey_python()) if options.peers else None
        machine = describe_machine(peers.version(huey) if huey else None)
        for name in [name for name in RATES if name in wanted]:
            contestants = list(RATES[name](sizes))
            if huey and name in PEERS:
                contestants += PEERS[name](huey, sizes)
            rates += interleaved(contestants, sizes.rounds, tell)
        status.update("latency and memory")
        readings = [each for name in READINGS if name in wanted for each in READINGS[name](sizes)]
    return Findings(machine, command, sizes, time.perf_counter() - began, rates, readings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
