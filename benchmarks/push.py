"""Pushing: one job a call, and 1,000 jobs a call, beside bare inserts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

from benchmarks.bare import BULK as BULK_SIZE
from benchmarks.bare import BareLoop
from benchmarks.databases.kind import Durability, Kind
from benchmarks.jobs import PAYLOAD, Nothing
from benchmarks.measure import OURS, Contestant, Label, Sample, Sizes, timed
from taskqueue.manager import QueueManager

SINGLE, BULK = "single push", "bulk push"


def singles(kind: Kind, sizes: Sizes) -> Iterator[Contestant]:
    """Yield the contestants of the single push."""
    for durability in kind.equal_durabilities():
        ours = partial(push_singly, kind, durability, sizes.singles)
        yield Contestant(Label(SINGLE, OURS, durability.name), ours)
        bare = partial(_insert, kind, durability, BareLoop.push, sizes.singles, 100)
        yield Contestant(Label(SINGLE, kind.bare_name, durability.name), bare)


def bulks(kind: Kind, sizes: Sizes) -> Iterator[Contestant]:
    """Yield the contestants of the bulk push."""
    for durability in kind.equal_durabilities():
        yield Contestant(Label(BULK, OURS, durability.name), partial(push_in_bulk, kind, durability, sizes.bulk))
        bare = partial(_insert, kind, durability, BareLoop.push_many, sizes.bulk, BULK_SIZE)
        yield Contestant(Label(BULK, kind.bare_name, durability.name), bare)


def push_singly(kind: Kind, durability: Durability, jobs: int) -> Sample:
    """Push jobs one by one, each sealed and committed by itself."""

    def work(number: int) -> int:
        for _ in range(number):
            manager.push(Nothing(PAYLOAD))
        return number

    with kind.empty() as place, QueueManager(settings=place.make_tables().settings(durability)) as manager:
        manager.push(Nothing(PAYLOAD))
        return timed(jobs, work, place.server_cpu)


def push_in_bulk(kind: Kind, durability: Durability, jobs: int) -> Sample:
    """Push jobs 1,000 at a time."""
    with kind.empty() as place, QueueManager(settings=place.make_tables().settings(durability)) as manager:
        manager.push(Nothing(PAYLOAD))
        return timed(jobs, partial(fill, manager), place.server_cpu, slice_of=BULK_SIZE)


def fill(manager: QueueManager, jobs: int) -> int:
    """Push no-op jobs, 1,000 a call."""
    for start in range(0, jobs, BULK_SIZE):
        manager.push_many([Nothing(PAYLOAD) for _ in range(min(BULK_SIZE, jobs - start))])
    return jobs


Push = Callable[[BareLoop, dict[str, object], int], int]


def _insert(kind: Kind, durability: Durability, push: Push, jobs: int, slice_of: int) -> Sample:
    with kind.empty() as place, closing(place.bare(durability)) as loop:
        push(loop, PAYLOAD, 1)
        return timed(jobs, partial(push, loop, PAYLOAD), place.server_cpu, slice_of=slice_of)
