"""Measure a driver alone beside a bare loop, in one process: what its statements cost without node and manager.

    python -m benchmarks.driver --database sqlite|postgresql|mysql [--jobs 40000] [--rounds 3] [--profile]

The bare loop claims 100 rows and deletes 100 rows of a table with the columns and indexes that a claim needs, and keeps
nothing. The driver does the same work through `cycle`, and keeps history, counters and rollups.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable, Sequence
from contextlib import closing

from benchmarks.bare import BATCH, BULK
from benchmarks.databases import KINDS
from benchmarks.databases.kind import Durability, Kind, Place
from benchmarks.jobs import PAYLOAD
from benchmarks.measure import Sample, timed
from taskqueue.drivers import migrate, open_driver
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import ClaimedJob, Completion, NewJob
from taskqueue.ids import new_id

QUEUE = "default"
_SEALED = bytes(range(256))[:150]
"""As long as the payload of the other measurements is when sealed."""
_NODE = 1


def new_job(queue: str = QUEUE) -> NewJob:
    """Return a job as the manager would hand it to a driver."""
    now = time.time_ns() // 1000
    return NewJob(
        id=new_id().bytes,
        queue=queue,
        rank=0,
        job_class="benchmarks.jobs.Nothing",
        state=0,
        created_at=now,
        ready_at=now,
        run_at=None,
        expires_at=None,
        max_attempts=3,
        delivery=0,
        timeout_ms=None,
        memory_limit=None,
        force_spawn=0,
        backoff=None,
        on_parent_failure=0,
        tags=None,
        category=None,
        key_id="k1",
        unique_key=None,
        payload=_SEALED,
    )


def completions(claimed: Sequence[ClaimedJob]) -> list[Completion]:
    """Return what a node would write for jobs that did nothing."""
    now = time.time_ns() // 1000
    return [Completion(job.id, job.lease, job.queue, now, 10, 10, None) for job in claimed]


def push(driver: Driver, jobs: int) -> int:
    """Push jobs one by one."""
    for _ in range(jobs):
        driver.push(new_job())
    return jobs


def fill(driver: Driver, jobs: int) -> int:
    """Push jobs in batches of 1,000."""
    for start in range(0, jobs, BULK):
        driver.push_many([new_job() for _ in range(min(BULK, jobs - start))])
    return jobs


def drain(driver: Driver, queues: Sequence[str] | None) -> int:
    """Claim and complete 100 jobs a cycle, until none are left."""
    lanes = driver.lanes(queues)
    done: list[Completion] = []
    drained = 0
    while True:
        claimed = driver.cycle(_NODE, done, (), lanes, BATCH).claimed
        drained += len(done)
        if not claimed:
            return drained
        done = completions(claimed)


def show(name: str, sample: Sample) -> None:
    """Print one line."""
    server = f" + {sample.server_us:.1f}" if sample.server_seconds else ""
    print(f"{name:52} {sample.rate:>9,.0f} jobs/s {sample.cpu_us:7.1f}{server} us CPU per job")


def round_of(kind: Kind, durability: Durability, jobs: int) -> None:
    """Measure both, one after the other."""
    with kind.empty() as place, closing(place.bare(durability)) as loop:
        _all(place, f"{kind.bare_name}, {durability.name}:", jobs, (
            ("push, one each", lambda number: loop.push(PAYLOAD, number)),
            ("push, 1,000 at once", lambda number: loop.push_many(PAYLOAD, number)),
            ("claim 100 + delete 100", lambda _number: loop.drain_in_batches()),
        ))  # fmt: skip
    with kind.empty() as place:
        migrate.upgrade(place.url)
        with closing(open_driver(place.url, durability=durability.pushers)) as driver:
            _all(place, f"driver, {durability.name}:", jobs, (
                ("push, one each", lambda number: push(driver, number)),
                ("push_many, 1,000 at once", lambda number: fill(driver, number)),
                ("cycle 100 + 100, history kept", lambda _number: drain(driver, None)),
                ("push_many, 1,000 at once", lambda number: fill(driver, number)),
                ("the same cycle, one queue named", lambda _number: drain(driver, (QUEUE,))),
            ))  # fmt: skip


def _all(place: Place, name: str, jobs: int, steps: Sequence[tuple[str, Callable[[int], int]]]) -> None:
    for what, work in steps:
        number = max(jobs // 20, 100) if "one each" in what else jobs
        show(f"{name} {what}", timed(number, work, place.server_cpu, slice_of=number, cap=60.0))


def profiled(kind: Kind, jobs: int) -> None:
    """Print what a drain spends its time on."""
    with kind.empty() as place:
        migrate.upgrade(place.url)
        with closing(open_driver(place.url, durability="normal")) as driver:
            fill(driver, jobs)
            profile = cProfile.Profile()
            profile.runcall(drain, driver, None)
            pstats.Stats(profile).sort_stats("tottime").print_stats(14)


def main() -> None:
    """Run the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=KINDS, default=next(iter(KINDS)))
    parser.add_argument("--jobs", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    kind = KINDS[options.database]
    reason = kind.missing()
    if reason is not None:
        parser.error(reason)
    if options.profile:
        profiled(kind, options.jobs)
        return
    for _ in range(options.rounds):
        for durability in kind.equal_durabilities():
            round_of(kind, durability, options.jobs)


if __name__ == "__main__":
    main()
