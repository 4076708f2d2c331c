"""Draining a backlog of no-op jobs by a real node: payloads sealed, history kept, nothing lost when it dies.

The backlog waits in a paused queue while the node starts. Then the queue is resumed, and the rate is counted from the
moment at which the first job began to the one at which the last had finished, both as history has them. CPU time is
that of the node, its template and its workers over the same stretch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from benchmarks import bare
from benchmarks.jobs import PAYLOAD
from benchmarks.measure import BARE, OURS, Contestant, Label, Sample, Sizes, cpu_of, timed, wait_until
from benchmarks.node import running_node, settings_for
from benchmarks.push import fill
from taskqueue.manager import QueueManager

DRAIN = "drain"
DEFAULT = "FULL pushers, NORMAL node"
BATCHES, ONE_BY_ONE = "100 a claim", "1 a claim"
WORKERS = (1, 2)
QUEUE = "default"


def drains(sizes: Sizes) -> Iterator[Contestant]:
    """Yield the contestants of the drain."""
    for durability in ("NORMAL", "FULL", DEFAULT):
        for workers in WORKERS:
            label = Label(DRAIN, OURS, durability, workers)
            yield Contestant(label, partial(drain_by_node, durability, workers, sizes.drained))
    for durability in ("NORMAL", "FULL"):
        batches = partial(drain_bare, bare.drain_in_batches, durability, sizes.drained)
        yield Contestant(Label(DRAIN, BARE, durability, 1, BATCHES), batches)
        singly = partial(drain_bare, bare.drain_one_by_one, durability, sizes.singles)
        yield Contestant(Label(DRAIN, BARE, durability, 1, ONE_BY_ONE), singly)


def drain_by_node(durability: str, workers: int, jobs: int, folder: Path) -> Sample:
    """Let a node of so many workers run a backlog."""
    database, setting = folder / "queue.db", "normal" if durability == "NORMAL" else "full"
    _make_backlog(database, jobs)
    settings = settings_for(database, setting)
    with (
        QueueManager(settings=settings) as manager,
        running_node(database, setting, workers, all_full=durability == "FULL") as processes,
        closing(sqlite3.connect(database, isolation_level=None)) as look,
    ):
        before = cpu_of(processes)
        manager.resume_queue(QUEUE)
        wait_until(lambda: _is_empty(look), f"the drain of {jobs} jobs", 120.0, look_every=0.05)
        return Sample(jobs, _span(look, jobs), cpu_of(processes) - before)


def _make_backlog(database: Path, jobs: int) -> None:
    """Fill a paused queue; closing the database writes its log back, so that the drain begins with a clean one."""
    with QueueManager(settings=settings_for(database, "normal")) as manager:
        manager.pause_queue(QUEUE)
        fill(manager, jobs)


def _is_empty(look: sqlite3.Connection) -> bool:
    return look.execute("SELECT 1 FROM tq_jobs LIMIT 1").fetchone() is None


def _span(look: sqlite3.Connection, jobs: int) -> float:
    """Return the seconds from the first start to the last finish. Every job has to be there, run once, completed."""
    first, last, done, runs = look.execute(
        "SELECT min(started_at), max(finished_at), count(*), sum(attempt) FROM tq_history WHERE reason IS NULL"
    ).fetchone()
    if (done, runs) != (jobs, jobs):
        raise RuntimeError(f"{jobs} jobs were pushed, {done} completed, in {runs} runs")
    return float(last - first) / 1e6


def drain_bare(drain: Callable[[sqlite3.Connection, int], int], durability: str, jobs: int, folder: Path) -> Sample:
    """Drain a bare table in this process."""
    with closing(bare.open_table(folder / "bare.db", "NORMAL")) as raw:
        bare.push_many(raw, PAYLOAD, jobs)
    with closing(bare.open_table(folder / "bare.db", durability)) as raw:
        whole = drain is bare.drain_in_batches
        return timed(jobs, partial(drain, raw), slice_of=jobs if whole else 100)
