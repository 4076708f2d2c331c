"""Memory: what each further worker costs, and a whole node, after some jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil

from benchmarks.bare_processes import bare_process
from benchmarks.databases.kind import Kind
from benchmarks.measure import OURS, Label, Reading, Sizes, reading, wait_until
from benchmarks.node import running_node
from benchmarks.push import fill
from taskqueue.manager import QueueManager

MEMORY = "memory"
WORKER, TREE, BARE_LOOP = "private, each worker", "PSS, all processes", "private, the process"
_TEMPLATE_AND_NODE = 2
_MB = 1024 * 1024


def memories(kind: Kind, sizes: Sizes) -> Iterator[Reading]:
    """Measure a node with one worker and one with several, and a bare loop."""
    for workers in sizes.memory_workers:
        yield from _of_node(kind, workers, sizes)
    yield _of_bare_loop(kind)


def _of_node(kind: Kind, workers: int, sizes: Sizes) -> Iterator[Reading]:
    label = Label(MEMORY, OURS, kind.default.name, workers)
    with (
        kind.empty() as place,
        QueueManager(settings=place.make_tables().settings(kind.default)) as manager,
        running_node(place, kind.default, workers) as processes,
    ):
        fill(manager, sizes.memory_jobs * workers)
        wait_until(lambda: manager.size() == 0, "the run of the jobs before memory is read", look_every=0.1)
        time.sleep(0.3)
        found = [process.memory_full_info() for process in processes]
    yield reading(label, WORKER, "MB", [each.uss / _MB for each in found[_TEMPLATE_AND_NODE:]])
    yield reading(label, TREE, "MB", [sum(each.pss for each in found) / _MB])


def _of_bare_loop(kind: Kind) -> Reading:
    with kind.empty() as place:
        place.bare(kind.default).close()
        with bare_process(place, kind.default, "serve", str(place.folder / "stamps")) as worker:
            time.sleep(0.3)
            private = psutil.Process(worker.pid).memory_full_info().uss / _MB
    return reading(Label(MEMORY, kind.bare_name, kind.default.name, 1), BARE_LOOP, "MB", [private])
