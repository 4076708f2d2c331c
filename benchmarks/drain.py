"""Draining a backlog of no-op jobs by a real node: payloads sealed, history kept, nothing lost when it dies.

The backlog waits in a paused queue while the node starts. Then the queue is resumed, and the rate is counted from the
moment at which the first job began to the one at which the last had finished, both as history has them. CPU time is
that of the node, its template and its workers, and that of the server, over the same stretch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial

from sqlalchemy import Connection

from benchmarks.bare_processes import drain_by_processes
from benchmarks.databases.kind import Durability, Kind, Place
from benchmarks.jobs import PAYLOAD
from benchmarks.measure import OURS, Contestant, Label, Sample, Sizes, cpu_of, timed, wait_until
from benchmarks.node import running_node
from benchmarks.push import fill
from taskqueue.manager import QueueManager
from taskqueue.states import State

DRAIN = "drain"
BATCHES, ONE_BY_ONE = "100 a claim", "1 a claim"
QUEUE = "default"
_PATIENCE = 120.0
_FINISHED = f"SELECT sum(jobs) FROM tq_counters WHERE state >= {State.COMPLETED.code}"
_SPAN = "SELECT min(started_at), max(finished_at), count(*), sum(attempt) FROM tq_history WHERE reason IS NULL"


def drains(kind: Kind, sizes: Sizes) -> Iterator[Contestant]:
    """Yield the contestants of the drain."""
    for durability in kind.durabilities:
        for workers in sizes.drain_workers:
            label = Label(DRAIN, OURS, durability.name, workers)
            yield Contestant(label, partial(drain_by_node, kind, durability, workers, sizes.drained))
    for durability in kind.equal_durabilities():
        for workers in kind.bare_workers:
            batches = partial(drain_bare, kind, durability, workers, sizes.drained)
            yield Contestant(Label(DRAIN, kind.bare_name, durability.name, workers, BATCHES), batches)
        singly = partial(drain_bare_singly, kind, durability, sizes.singles)
        yield Contestant(Label(DRAIN, kind.bare_name, durability.name, 1, ONE_BY_ONE), singly)


def drain_by_node(kind: Kind, durability: Durability, workers: int, jobs: int) -> Sample:
    """Let a node of so many workers run a backlog."""
    with kind.empty() as place:
        _make_backlog(place.make_tables(), jobs)
        with (
            QueueManager(settings=place.settings(durability)) as manager,
            running_node(place, durability, workers) as processes,
            place.looking() as look,
        ):
            before, server = cpu_of(processes), place.server_cpu()
            manager.resume_queue(QUEUE)
            await_finished(look, jobs)
            cpu, server = cpu_of(processes) - before, place.server_cpu() - server
            return Sample(jobs, _span(look, jobs), cpu, server)


def _make_backlog(place: Place, jobs: int) -> None:
    """Fill a paused queue; to close a database writes its log back, so that the drain begins with a clean one."""
    with QueueManager(settings=place.settings(place.kind.durabilities[0])) as manager:
        manager.pause_queue(QUEUE)
        fill(manager, jobs)
    place.kind.tidy(place)


def finished(look: Connection) -> int:
    """Return how many jobs have finished, as the counters have it: to count history would weigh on what is measured."""
    return int(look.exec_driver_sql(_FINISHED).scalar() or 0)


def await_finished(look: Connection, jobs: int, look_every: float = 0.05) -> None:
    """Return once so many jobs have finished."""
    wait_until(lambda: finished(look) >= jobs, f"the drain of {jobs} jobs", _PATIENCE, look_every)


def _span(look: Connection, jobs: int) -> float:
    """Return the seconds from the first start to the last finish. Every job has to be there, run once, completed."""
    first, last, done, runs = look.exec_driver_sql(_SPAN).one()
    if (done, runs) != (jobs, jobs):
        raise RuntimeError(f"{jobs} jobs were pushed, {done} completed, in {runs} runs")
    return float(last - first) / 1e6


def drain_bare(kind: Kind, durability: Durability, workers: int, jobs: int) -> Sample:
    """Drain a bare table by so many processes."""
    with kind.empty() as place:
        _fill_bare(place, jobs)
        return drain_by_processes(place, durability, workers)


def drain_bare_singly(kind: Kind, durability: Durability, jobs: int) -> Sample:
    """Drain a bare table in this process, a job a claim."""
    with kind.empty() as place:
        _fill_bare(place, jobs)
        with closing(place.bare(durability)) as loop:
            return timed(jobs, loop.drain_one_by_one, place.server_cpu)


def _fill_bare(place: Place, jobs: int) -> None:
    with closing(place.bare(place.kind.durabilities[0])) as loop:
        loop.push_many(PAYLOAD, jobs)
    place.kind.tidy(place)
