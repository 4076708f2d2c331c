"""Pushing: one job a call, and 1,000 jobs a call, beside bare inserts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import bare
from benchmarks.jobs import PAYLOAD, Nothing
from benchmarks.measure import BARE, OURS, Contestant, Label, Sample, Sizes, timed
from benchmarks.node import settings_for
from taskqueue.manager import QueueManager

SINGLE, BULK = "single push", "bulk push"
DURABILITIES = ("NORMAL", "FULL")
Push = Callable[[sqlite3.Connection, dict[str, Any], int], int]


def singles(sizes: Sizes) -> Iterator[Contestant]:
    """Yield the contestants of the single push."""
    for durability in DURABILITIES:
        yield Contestant(Label(SINGLE, OURS, durability), partial(push_singly, durability, sizes.singles))
        yield Contestant(Label(SINGLE, BARE, durability), partial(insert_singly, durability, sizes.singles))


def bulks(sizes: Sizes) -> Iterator[Contestant]:
    """Yield the contestants of the bulk push."""
    for durability in DURABILITIES:
        yield Contestant(Label(BULK, OURS, durability), partial(push_in_bulk, durability, sizes.bulk))
        yield Contestant(Label(BULK, BARE, durability), partial(insert_in_bulk, durability, sizes.bulk))


def push_singly(durability: str, jobs: int, folder: Path) -> Sample:
    """Push jobs one by one, each sealed and committed by itself."""

    def work(number: int) -> int:
        for _ in range(number):
            manager.push(Nothing(PAYLOAD))
        return number

    with QueueManager(settings=settings_for(folder / "queue.db", durability.lower())) as manager:
        manager.push(Nothing(PAYLOAD))
        return timed(jobs, work)


def push_in_bulk(durability: str, jobs: int, folder: Path) -> Sample:
    """Push jobs 1,000 at a time."""
    with QueueManager(settings=settings_for(folder / "queue.db", durability.lower())) as manager:
        manager.push(Nothing(PAYLOAD))
        return timed(jobs, partial(fill, manager), slice_of=bare.BULK)


def fill(manager: QueueManager, jobs: int) -> int:
    """Push no-op jobs, 1,000 a call."""
    for start in range(0, jobs, bare.BULK):
        manager.push_many([Nothing(PAYLOAD) for _ in range(min(bare.BULK, jobs - start))])
    return jobs


def insert_singly(durability: str, jobs: int, folder: Path) -> Sample:
    """Insert bare rows one by one."""
    return _insert(folder, durability, bare.push, jobs, 100)


def insert_in_bulk(durability: str, jobs: int, folder: Path) -> Sample:
    """Insert bare rows 1,000 at a time."""
    return _insert(folder, durability, bare.push_many, jobs, bare.BULK)


def _insert(folder: Path, durability: str, push: Push, jobs: int, slice_of: int) -> Sample:
    with closing(bare.open_table(folder / "bare.db", durability)) as raw:
        push(raw, PAYLOAD, 1)
        return timed(jobs, partial(push, raw, PAYLOAD), slice_of=slice_of)
