"""Memory: what each further worker costs, and a whole node, after some jobs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.bare import open_table
from benchmarks.latency import bare_worker
from benchmarks.measure import BARE, OURS, Label, Reading, Sizes, reading, wait_until
from benchmarks.node import running_node, settings_for
from benchmarks.push import fill
from taskqueue.manager import QueueManager

MEMORY = "memory"
WORKER, TREE, BARE_LOOP = "private, each worker", "PSS, all processes", "private, the process"
_TEMPLATE_AND_NODE = 2
_MB = 1024 * 1024


def memories(sizes: Sizes) -> Iterator[Reading]:
    """Measure a node with one worker and one with several, and a bare loop."""
    for workers in (1, sizes.memory_workers):
        yield from _of_node(workers, sizes)
    yield _of_bare_loop()


def _of_node(workers: int, sizes: Sizes) -> Iterator[Reading]:
    label = Label(MEMORY, OURS, "NORMAL", workers)
    with tempfile.TemporaryDirectory(prefix="taskqueue-bench-") as folder:
        database = Path(folder) / "queue.db"
        with (
            QueueManager(settings=settings_for(database, "normal")) as manager,
            running_node(database, "normal", workers) as processes,
        ):
            fill(manager, sizes.memory_jobs * workers)
            wait_until(lambda: manager.size() == 0, "the run of the jobs before memory is read", look_every=0.1)
            time.sleep(0.3)
            found = [process.memory_full_info() for process in processes]
    yield reading(label, WORKER, "MB", [each.uss / _MB for each in found[_TEMPLATE_AND_NODE:]])
    yield reading(label, TREE, "MB", [sum(each.pss for each in found) / _MB])


def _of_bare_loop() -> Reading:
    with tempfile.TemporaryDirectory(prefix="taskqueue-bench-") as folder:
        database = Path(folder) / "bare.db"
        open_table(database, "NORMAL").close()
        with bare_worker(database, Path(folder) / "stamps") as worker:
            time.sleep(0.5)
            private = psutil.Process(worker.pid).memory_full_info().uss / _MB
            worker.kill()
    return reading(Label(MEMORY, BARE, "NORMAL", 1), BARE_LOOP, "MB", [private])
