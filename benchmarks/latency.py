"""Idle latency: from just before a push to the first line of the handler, one idle worker; and what idling costs."""

from __future__ import annotations

import json
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.bare import Row
from benchmarks.bare_processes import bare_process
from benchmarks.databases.kind import Kind, Place
from benchmarks.jobs import Stamp
from benchmarks.measure import OURS, Label, Reading, Sizes, cpu_of, family, reading, wait_until
from benchmarks.node import running_node
from taskqueue.manager import QueueManager

LATENCY = "idle latency"
P50, P95, WORST = "p50", "p95", "max"
IDLE_CPU, IDLE_SERVER = "CPU while idle", "CPU while idle, server"
_CALM = 1.5


class Found(NamedTuple):
    """Milliseconds by series, and the percent of a core that the processes and the server use while idle."""

    series: list[list[float]]
    idle: float
    idle_server: float


def latencies(kind: Kind, sizes: Sizes) -> Iterator[Reading]:
    """Measure both; on each side the pusher commits as durably as by default."""
    yield from _measured(OURS, _ours, kind, sizes)
    yield from _measured(kind.bare_name, _bare, kind, sizes)


Push = Callable[[Path, int], None]


def _measured(system: str, measure: Callable[[Place, Sizes], Found], kind: Kind, sizes: Sizes) -> Iterator[Reading]:
    label = Label(LATENCY, system, kind.default.beside, 1)
    with kind.empty() as place:
        found = measure(place, sizes)
    yield reading(label, P50, "ms", [statistics.median(each) for each in found.series])
    yield reading(label, P95, "ms", [percentile(each, 0.95) for each in found.series])
    yield reading(label, WORST, "ms", [max(each) for each in found.series])
    yield reading(label, IDLE_CPU, "% of a core", [found.idle])
    if kind.server_cpu():
        yield reading(label, IDLE_SERVER, "% of a core", [found.idle_server])


def _ours(place: Place, sizes: Sizes) -> Found:
    durability = place.kind.default
    with (
        QueueManager(settings=place.make_tables().settings(durability)) as manager,
        running_node(place, durability, 1) as processes,
    ):

        def push(stamps: Path, number: int) -> None:
            manager.push(Stamp({"stamps": str(stamps), "number": number}))

        idle = idle_cpu(processes, place, sizes.idle)
        series = [_series(push, place.folder / f"stamps-{each}", sizes) for each in range(sizes.series)]
        return Found(series, *idle)


def _bare(place: Place, sizes: Sizes) -> Found:
    stamps, durability = place.folder / "stamps", place.kind.default
    with closing(place.bare(durability)) as loop, bare_process(place, durability, "serve", str(stamps)) as worker:

        def push(_stamps: Path, number: int) -> None:
            now = time.time_ns() // 1000
            loop.insert_and_wake(Row(uuid.uuid4().bytes, now, json.dumps({"number": number}).encode()))

        idle = idle_cpu(family(psutil.Process(worker.pid)), place, sizes.idle / 2)
        found = []
        for _ in range(sizes.series):
            stamps.write_bytes(b"")
            found.append(_series(push, stamps, sizes))
        return Found(found, *idle)


def _series(push: Push, stamps: Path, sizes: Sizes) -> list[float]:
    """Push jobs with pauses between; return the milliseconds that each took to begin. All have to arrive."""
    stamps.touch()
    pushed: list[int] = []
    for number in range(sizes.stamps):
        time.sleep(sizes.stamp_gap)
        pushed.append(time.time_ns())
        push(stamps, number)
    wait_until(lambda: len(_arrivals(stamps)) == sizes.stamps, f"{sizes.stamps} single jobs", 10.0)
    arrived = _arrivals(stamps)
    return [(arrived[number] - at) / 1e6 for number, at in enumerate(pushed)]


def _arrivals(stamps: Path) -> dict[int, int]:
    lines = (line.split() for line in stamps.read_text().splitlines())
    return {int(number): int(at) for number, at in lines}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of the values lie (nearest rank)."""
    found = sorted(values)
    return found[min(len(found) - 1, int(len(found) * share))]


def idle_cpu(processes: Sequence[psutil.Process], place: Place, seconds: float) -> tuple[float, float]:
    """Return what the processes and the server use of a core, in percent, while nothing is to be done."""
    time.sleep(min(_CALM, seconds))
    before, server, began = cpu_of(processes), place.server_cpu(), time.perf_counter()
    time.sleep(seconds)
    used, served, took = cpu_of(processes) - before, place.server_cpu() - server, time.perf_counter() - began
    return used / took * 100, served / took * 100
