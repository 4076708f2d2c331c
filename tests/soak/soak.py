"""Mixed load on one node for as long as asked, and what its supervisor and its template hold on to meanwhile.

Plain jobs, large ones, delayed ones, and such as fail, are retried, run out of time or kill their worker; workers are
replaced every hundred jobs. What is measured at rest before and after must be the same: open files, processes, threads.
Memory may grow by what an allocator keeps, and no more.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from taskqueue import JobHandle
from tests.node.running import House, RunningNode, job, until

WORKERS: Final = 3
REST_WITHIN: Final = 120.0
_HERE = Path(__file__).resolve().parent
_MB = 1024 * 1024

MIX: Final[tuple[tuple[int, str, dict[str, Any], dict[str, Any]], ...]] = (
    (60, "Plain", {"sleep": 0.0}, {}),
    (15, "Plain", {"sleep": 0.02}, {}),
    (6, "Plain", {"sleep": 0.0}, {"delay": 1.0}),
    (6, "Retried", {}, {"retry_interval": 0.2}),
    (5, "Failing", {}, {"max_attempts": 1}),
    (5, "Large", {"text": "x" * 200_000}, {}),
    (2, "Slow", {}, {"timeout": 0.1, "max_attempts": 1}),
    (1, "Crashing", {}, {}),
)
"""Of every hundred jobs: how many, which class, with which payload and options."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process held at one moment; memory in MB."""

    at: float
    process: str
    rss: float
    pss: float
    files: int
    threads: int
    kinds: dict[str, int]
    """The open files by what they are, so that whoever finds one more knows where to look."""


@dataclass(slots=True)
class Report:
    """What was seen, and what is wrong with it."""

    seed: int
    seconds: float
    jobs: int = 0
    finished: dict[str, int] = field(default_factory=dict)
    workers_replaced: int = 0
    before: list[Sample] = field(default_factory=list)
    after: list[Sample] = field(default_factory=list)
    processes: tuple[int, int] = (0, 0)
    samples: list[Sample] = field(default_factory=list)

    def growth(self, process: str) -> float:
        """Return by how many MB a process has grown from rest to rest."""
        (before,), (after,) = ([each for each in side if each.process == process] for side in (self.before, self.after))
        return after.pss - before.pss

    def faults(self, most_growth: float) -> list[str]:
        """Return a sentence for everything that is not where it was."""
        found = [
            f"{before.process}: {getattr(before, what)} {what} before, {getattr(after, what)} after"
            f" ({before.kinds} and {after.kinds})"
            for before, after in zip(self.before, self.after, strict=True)
            for what in ("files", "threads")
            if getattr(before, what) != getattr(after, what)
        ]
        found += [
            f"{before.process}: grew from {before.pss:.1f} to {after.pss:.1f} MB"
            for before, after in zip(self.before, self.after, strict=True)
            if after.pss - before.pss > most_growth
        ]
        if self.processes[0] != self.processes[1]:
            found.append(f"{self.processes[0]} processes before, {self.processes[1]} after")
        return found

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Soak:
    """One node in a house, its load, and the samples of it."""

    def __init__(
        self,
        house: House,
        seconds: float,
        *,
        rate: float = 40.0,
        every: float = 10.0,
        seed: int = 0,
        max_jobs: int = 100,
    ) -> None:
        self._house = house
        self._rate = rate
        self._every = every
        self._max_jobs = max_jobs
        self._random = random.Random(seed)
        self._pause = threading.Event()
        self._began = time.monotonic()
        self.report = Report(seed, seconds)
        shutil.copy(_HERE / "soak_jobs.py", house.folder)
        self._deck = [each for each in MIX for _ in range(each[0])]

    def run(self, warm_up: float, say: Callable[[str], None] = lambda _: None, *, rounds: int = 1) -> Report:
        """Warm up, rest, load, rest; the samples at both rests are those that are compared.

        With more ``rounds`` a difference is seen to last: a leak is there after each of them, while a connection that
        a thread opened at its first need, or that is about to be closed, is not.
        """
        node = self._house.start(
            WORKERS, imports=("soak_jobs",), max_jobs=self._max_jobs, crashed_again_delay=0.2,
            general={"log_level": "warning"}, retention_completed=60.0, retention_failed=60.0,
            heartbeat=10.0, lease=60.0,  # So that no spare beat opens its connection because a machine is starved.
        )  # fmt: skip
        node.await_workers(WORKERS)
        for kind in MIX:  # Whatever is opened only at the first need of it is open before anything is compared.
            self._push(kind)
        self._load(node, warm_up)
        self.report.after, after = self._at_rest(node)
        workers = set(node.workers)
        for _ in range(rounds):
            self.report.before, before = self.report.after, after
            self._load(node, self.report.seconds, say)
            self.report.after, after = self._at_rest(node)
            self.report.processes = (before, after)
            if not self.report.faults(float("inf")):
                break
        self.report.workers_replaced = len(set(node.workers) - workers)
        self.report.finished = self._finished()
        assert node.stop() == 0, node.log
        return self.report

    def _load(self, node: RunningNode, seconds: float, say: Callable[[str], None] = lambda _: None) -> None:
        end = time.monotonic() + seconds
        sample_at = time.monotonic() + self._every
        for number in itertools.count():
            now = time.monotonic()
            if now >= end:
                return
            burst = 10 if number % 50 == 0 else 1
            for _ in range(burst):
                self._push()
            if now >= sample_at:
                sample_at += self._every
                self.report.samples += self._samples(node)
                supervisor = self.report.samples[-2]
                say(
                    f"{supervisor.at:7.0f} s  {self.report.jobs} jobs, supervisor {supervisor.pss:.1f} MB, "
                    f"{supervisor.files} files, {supervisor.threads} threads, {len(node.tree)} processes"
                )
            self._pause.wait(self._random.expovariate(self._rate))

    def _push(self, kind: tuple[int, str, dict[str, Any], dict[str, Any]] | None = None) -> JobHandle:
        _, name, payload, options = kind or self._random.choice(self._deck)
        self.report.jobs += 1
        return self._house.manager.push(job(name, payload, **options))

    def _at_rest(self, node: RunningNode) -> tuple[list[Sample], int]:
        """Wait until nothing is left to do and the workers stand ready; return the samples and the processes."""
        until(lambda: self._house.rows("SELECT COUNT(*) FROM tq_jobs") == [(0,)], "every job is final", REST_WITHIN)
        until(lambda: len(node.workers) == WORKERS, "the workers are complete", REST_WITHIN)
        last = self._files(node)
        for _ in range(50):  # A connection of a moment ago may be closing.
            self._pause.wait(0.5)
            before, last = last, self._files(node)
            if len(node.workers) == WORKERS and last == before:
                break
        return self._samples(node), len(self._everybody(node))

    def _finished(self) -> dict[str, int]:
        rows = self._house.rows("SELECT state, SUM(jobs) FROM tq_counters GROUP BY state")
        return {str(state): int(number) for state, number in rows}

    def _files(self, node: RunningNode) -> list[int]:
        return [psutil.Process(pid).num_fds() for pid in (node.pid, node.template)]

    def _everybody(self, node: RunningNode) -> list[psutil.Process]:
        """Return the whole tree, zombies and orphans included."""
        return [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]

    def _samples(self, node: RunningNode) -> list[Sample]:
        return [self._sample(name, pid) for name, pid in (("supervisor", node.pid), ("template", node.template))]

    def _sample(self, name: str, pid: int) -> Sample:
        process = psutil.Process(pid)
        memory = process.memory_full_info()
        at = time.monotonic() - self._began
        kinds = Counter(map(_kind, Path(f"/proc/{pid}/fd").iterdir()))
        files, threads = process.num_fds(), process.num_threads()
        return Sample(at, name, memory.rss / _MB, memory.pss / _MB, files, threads, dict(kinds))


def _kind(file: Path) -> str:
    """Return what an open file is: ``socket``, ``pipe`` and such without their numbers, or the name of a file."""
    with contextlib.suppress(OSError):
        target = str(file.readlink())
        return target.partition(":[")[0].rpartition("/")[2]
    return "closed meanwhile"
