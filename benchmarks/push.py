"""Pushing: one job a call, and 1,000 jobs a call, beside bare inserts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import bare
from benchmarks.jobs import PAYLOAD, Nothing
from benchmarks.measure import BARE, OURS, Contestant, Label, Sample, Sizes, timed
from benchmarks.node import settings_for
from taskqueue.manager import QueueManager

SINGLE, BULK = "single push", "bulk push"
DURABILITIES = ("NORMAL", "FULL")


def singles(sizes: Sizes) -> Iterator[Contestant]:
    """Yield the contestants of the single push."""
    for durability in DURABILITIES:
        jobs = sizes.flushed_singles if durability == "FULL" else sizes.singles
        yield Contestant(Label(SINGLE, OURS, durability), partial(push_singly, durability, jobs))
        yield Contestant(Label(SINGLE, BARE, durability), partial(insert_singly, durability, jobs))


def bulks(sizes: Sizes) -> Iterator[Contestant]:
    """Yield the contestants of the bulk push."""
    for durability in DURABILITIES:
        yield Contestant(Label(BULK, OURS, durability), partial(push_in_bulk, durability, sizes.bulk))
        yield Contestant(Label(BULK, BARE, durability), partial(insert_in_bulk, durability, sizes.bulk))


def push_singly(durability: str, jobs: int, folder: Path) -> Sample:
    """Push jobs one by one, each sealed and committed by itself."""

    def work() -> None:
        for _ in range(jobs):
            manager.push(Nothing(PAYLOAD))

    with QueueManager(settings=settings_for(folder / "queue.db", durability.lower())) as manager:
        manager.push(Nothing(PAYLOAD))
        return timed(jobs, work)


def push_in_bulk(durability: str, jobs: int, folder: Path) -> Sample:
    """Push jobs 1,000 at a time."""
    with QueueManager(settings=settings_for(folder / "queue.db", durability.lower())) as manager:
        manager.push(Nothing(PAYLOAD))
        return timed(jobs, partial(fill, manager, jobs))


def fill(manager: QueueManager, jobs: int) -> None:
    """Push no-op jobs, 1,000 a call."""
    for start in range(0, jobs, bare.BULK):
        manager.push_many([Nothing(PAYLOAD) for _ in range(min(bare.BULK, jobs - start))])


def insert_singly(durability: str, jobs: int, folder: Path) -> Sample:
    """Insert bare rows one by one."""
    raw = bare.open_table(folder / "bare.db", durability)
    bare.push(raw, 1, PAYLOAD)
    sample = timed(jobs, partial(bare.push, raw, jobs, PAYLOAD))
    raw.close()
    return sample


def insert_in_bulk(durability: str, jobs: int, folder: Path) -> Sample:
    """Insert bare rows 1,000 at a time."""
    raw = bare.open_table(folder / "bare.db", durability)
    bare.push(raw, 1, PAYLOAD)
    sample = timed(jobs, partial(bare.push_many, raw, jobs, PAYLOAD))
    raw.close()
    return sample
