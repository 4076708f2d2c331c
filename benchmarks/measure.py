"""How things are measured: in turns, several times, wall and CPU time of every process that takes part."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import psutil

OURS = "taskqueue"
HUEY = "Huey"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: jobs per repetition, repetitions, latency samples, seconds of idling, rows that wait."""

    singles: int
    bulk: int
    drained: int
    drain_workers: tuple[int, ...]
    rounds: int
    stamps: int
    stamp_gap: float
    series: int
    idle: float
    memory_jobs: int
    memory_workers: tuple[int, ...]
    grown: int
    """Jobs that are drained beside a backlog or a history."""
    waiting: int
    finished: int
    growth_rounds: int


FULL_RUN = Sizes(8_000, 20_000, 20_000, (1, 2), 3, 75, 0.1, 2, 8.0, 1_000, (1, 4), 20_000, 500_000, 1_000_000, 3)
QUICK_RUN = Sizes(1_000, 3_000, 4_000, (1, 2), 1, 20, 0.05, 1, 2.0, 300, (1, 2), 4_000, 50_000, 100_000, 1)
TINY_RUN = Sizes(50, 1_000, 200, (2,), 1, 3, 0.02, 1, 0.2, 50, (2,), 200, 1_000, 1_000, 1)


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition: ``jobs`` in so many seconds of wall time, and of CPU time of clients, workers and the server."""

    jobs: int
    seconds: float
    cpu_seconds: float
    server_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Return jobs a second."""
        return self.jobs / self.seconds

    @property
    def cpu_us(self) -> float:
        """Return microseconds of CPU time a job, over all processes but the server's."""
        return self.cpu_seconds / self.jobs * 1e6

    @property
    def server_us(self) -> float:
        """Return microseconds of the server's CPU time a job."""
        return self.server_seconds / self.jobs * 1e6


@dataclass(frozen=True, slots=True)
class Label:
    """What a figure is of. ``durability`` is called as the database calls it; ``workers`` is 0 where there are none."""

    measure: str
    system: str
    durability: str
    workers: int = 0
    way: str = ""
    """How, where one system is measured in several ways."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something to be measured: ``run`` makes one repetition."""

    label: Label
    run: Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class Rate:
    """The repetitions of one contestant."""

    label: Label
    samples: tuple[Sample, ...]

    @property
    def median(self) -> float:
        """Return the median of the rates, in jobs a second."""
        return statistics.median(sample.rate for sample in self.samples)

    @property
    def low(self) -> float:
        """Return the lowest rate."""
        return min(sample.rate for sample in self.samples)

    @property
    def high(self) -> float:
        """Return the highest rate."""
        return max(sample.rate for sample in self.samples)

    @property
    def cpu_us(self) -> float:
        """Return the median of the CPU time a job, in microseconds, without the server's."""
        return statistics.median(sample.cpu_us for sample in self.samples)

    @property
    def server_us(self) -> float:
        """Return the median of the server's CPU time a job, in microseconds."""
        return statistics.median(sample.server_us for sample in self.samples)


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure that is no rate: a latency, a share of a core, an amount of memory."""

    label: Label
    what: str
    value: float
    unit: str
    low: float
    high: float


def interleaved(contestants: Sequence[Contestant], rounds: int, tell: Callable[[Label], None]) -> list[Rate]:
    """Measure all contestants in turns, another one first each round, so that a pause of the machine hits all alike."""
    samples: dict[Label, list[Sample]] = {contestant.label: [] for contestant in contestants}
    for number in range(rounds):
        start = number % max(1, len(contestants))
        for contestant in [*contestants[start:], *contestants[:start]]:
            tell(contestant.label)
            samples[contestant.label].append(contestant.run())
    return [Rate(label, tuple(taken)) for label, taken in samples.items()]


def timed(
    jobs: int,
    work: Callable[[int], int],
    server_cpu: Callable[[], float],
    *,
    slice_of: int = 100,
    cap: float = 1.5,
) -> Sample:
    """Return what ``jobs`` jobs take in this process, or as many as are done within ``cap`` seconds.

    ``work`` does as many jobs as it is asked for and returns how many those were; fewer: there are no more.
    """
    done = 0
    server = server_cpu()
    wall, cpu = time.perf_counter(), time.process_time()
    while done < jobs and time.perf_counter() - wall < cap:
        found = work(min(slice_of, jobs - done))
        done += found
        if found < slice_of:
            break
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return Sample(done, seconds, cpu_seconds, server_cpu() - server)


def reading(label: Label, what: str, unit: str, values: Iterable[float]) -> Reading:
    """Return the median of ``values`` with the least and the greatest."""
    found = sorted(values)
    return Reading(label, what, statistics.median(found), unit, found[0], found[-1])


def family(root: psutil.Process) -> list[psutil.Process]:
    """Return a process with all its descendants."""
    return [root, *root.children(recursive=True)]


def cpu_of(processes: Iterable[psutil.Process]) -> float:
    """Return the CPU seconds that living processes have used; what their dead children used is counted with them."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60.0, look_every: float = 0.02) -> None:
    """Return once ``condition`` holds; raise `TimeoutError` naming ``what`` when it does not in time."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what} took more than {seconds:.0f} s")
        time.sleep(look_every)
