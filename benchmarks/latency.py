"""Idle latency: from just before a push to the first line of the handler, one idle worker; and what idling costs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import psutil

from benchmarks import bare
from benchmarks.jobs import Stamp
from benchmarks.measure import BARE, OURS, Label, Reading, Sizes, cpu_of, family, reading, wait_until
from benchmarks.node import running_node, settings_for
from taskqueue.manager import QueueManager

LATENCY = "idle latency"
P50, P95, WORST, IDLE_CPU = "p50", "p95", "max", "CPU while idle"
_CALM = 1.5
_ROOT = Path(__file__).resolve().parent.parent


def latencies(sizes: Sizes) -> Iterator[Reading]:
    """Measure both; on each side the pusher commits with FULL durability, as is the default."""
    yield from _measured(OURS, _ours, sizes)
    yield from _measured(BARE, _bare, sizes)


Push = Callable[[Path, int], None]


def _measured(
    system: str, measure: Callable[[Path, Sizes], tuple[list[list[float]], float]], sizes: Sizes
) -> Iterator[Reading]:
    label = Label(LATENCY, system, "FULL", 1)
    with tempfile.TemporaryDirectory(prefix="taskqueue-bench-") as folder:
        series, idle = measure(Path(folder), sizes)
    yield reading(label, P50, "ms", [statistics.median(each) for each in series])
    yield reading(label, P95, "ms", [percentile(each, 0.95) for each in series])
    yield reading(label, WORST, "ms", [max(each) for each in series])
    yield reading(label, IDLE_CPU, "% of a core", [idle])


def _ours(folder: Path, sizes: Sizes) -> tuple[list[list[float]], float]:
    database = folder / "queue.db"
    with (
        QueueManager(settings=settings_for(database, "full")) as manager,
        running_node(database, "full", 1) as processes,
    ):

        def push(stamps: Path, number: int) -> None:
            manager.push(Stamp({"stamps": str(stamps), "number": number}))

        idle = idle_cpu(processes, sizes.idle)
        return [_series(push, folder / f"stamps-{each}", sizes) for each in range(sizes.series)], idle


def _bare(folder: Path, sizes: Sizes) -> tuple[list[list[float]], float]:
    database, stamps = folder / "bare.db", folder / "stamps"
    with closing(bare.open_table(database, "FULL")) as raw, bare_worker(database, stamps) as worker:

        def push(_stamps: Path, number: int) -> None:
            now = time.time_ns() // 1000
            raw.execute(bare.INSERT, (uuid.uuid4().bytes, now, json.dumps({"number": number}).encode()))

        idle = idle_cpu(family(psutil.Process(worker.pid)), sizes.idle / 2)
        found = []
        for _ in range(sizes.series):
            stamps.write_bytes(b"")
            found.append(_series(push, stamps, sizes))
        worker.kill()
        return found, idle


def bare_worker(database: Path, stamps: Path) -> subprocess.Popen[bytes]:
    """Start a bare loop that polls each 10 ms."""
    command = [sys.executable, "-m", "benchmarks.bare", str(database), str(stamps)]
    return subprocess.Popen(command, cwd=_ROOT)


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


def idle_cpu(processes: Sequence[psutil.Process], seconds: float) -> float:
    """Return what the processes use of a core, in percent, while nothing is to be done."""
    time.sleep(min(_CALM, seconds))
    before, began = cpu_of(processes), time.perf_counter()
    time.sleep(seconds)
    return (cpu_of(processes) - before) / (time.perf_counter() - began) * 100
