"""Measure the SQLite driver beside a bare ``sqlite3`` loop, in one run on one machine.

    python -m benchmarks.driver_sqlite [--jobs 40000] [--rounds 3] [--profile]

The bare loop claims 100 rows and deletes 100 rows of a table with the columns and indexes that a claim needs, and keeps
nothing. The driver does the same work through `cycle`, and keeps history, counters and rollups. The file lies in a
temporary folder; name a disk with TMPDIR.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from taskqueue.drivers import migrate, open_driver
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import Completion, NewJob
from taskqueue.ids import new_id

BATCH = 100
PAYLOAD = bytes(range(256)) + bytes(44)
Figures = tuple[float, float]
"""Wall and CPU seconds."""


def new_job(queue: str = "default") -> NewJob:
    """Return a job with a payload of 300 bytes."""
    now = time.time_ns() // 1000
    return NewJob(
        id=new_id().bytes,
        queue=queue,
        rank=0,
        job_class="taskqueue.jobs.TestJob",
        state=0,
        created_at=now,
        ready_at=now,
        run_at=None,
        expires_at=None,
        max_attempts=3,
        delivery=0,
        timeout_ms=None,
        backoff=None,
        on_parent_failure=0,
        tags=None,
        category=None,
        key_id="k1",
        unique_key=None,
        payload=PAYLOAD,
    )


def timed(work: Callable[[], object]) -> Figures:
    """Return how long ``work`` takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


# --- the bare loop ---------------------------------------------------------------------------------------------------


def bare_database(folder: Path, synchronous: str) -> sqlite3.Connection:
    """Make a table with a claim's index and nothing else."""
    raw = sqlite3.connect(folder / f"bare-{synchronous}-{time.time_ns()}.db", isolation_level=None)
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute(f"PRAGMA synchronous = {synchronous}")
    raw.execute(
        "CREATE TABLE jobs (id BLOB PRIMARY KEY, queue TEXT, rank INTEGER, state INTEGER, ready_at INTEGER,"
        " lease INTEGER DEFAULT 0, payload BLOB)"
    )
    raw.execute("CREATE INDEX claim ON jobs (queue, rank, ready_at, id) WHERE state = 0")
    return raw


INSERT = "INSERT INTO jobs (id, queue, rank, state, ready_at, payload) VALUES (?, 'default', 0, 0, ?, ?)"
CLAIM = (
    "UPDATE jobs SET state = 1, lease = lease + 1 WHERE rowid IN (SELECT rowid FROM jobs WHERE queue = 'default'"
    " AND rank = 0 AND state = 0 ORDER BY ready_at, id LIMIT ?) RETURNING id, lease, payload"
)


def bare_push(raw: sqlite3.Connection, jobs: int) -> None:
    """Insert rows one by one, each in its own transaction."""
    for _ in range(jobs):
        raw.execute(INSERT, (new_id().bytes, time.time_ns() // 1000, PAYLOAD))


def bare_push_many(raw: sqlite3.Connection, jobs: int) -> None:
    """Insert rows in one transaction."""
    raw.execute("BEGIN IMMEDIATE")
    raw.executemany(INSERT, [(new_id().bytes, time.time_ns() // 1000, PAYLOAD) for _ in range(jobs)])
    raw.execute("COMMIT")


def bare_drain(raw: sqlite3.Connection) -> None:
    """Claim 100 rows and delete 100 rows, until none are left."""
    done: list[tuple[bytes, int]] = []
    while True:
        raw.execute("BEGIN IMMEDIATE")
        raw.executemany("DELETE FROM jobs WHERE id = ? AND lease = ?", done)
        rows = raw.execute(CLAIM, (BATCH,)).fetchall()
        raw.execute("COMMIT")
        if not rows:
            return
        done = [(row[0], row[1]) for row in rows]


# --- the driver ------------------------------------------------------------------------------------------------------


def drain(driver: Driver, *, everything: bool) -> None:
    """Claim and complete 100 jobs a cycle, until none are left."""
    lanes = driver.lanes(None if everything else ("default",))
    done: list[Completion] = []
    while True:
        claimed = driver.cycle(1, done, (), lanes, BATCH).claimed
        if not claimed:
            return
        now = time.time_ns() // 1000
        done = [Completion(job.id, job.lease, job.queue, now, 10, 10, b"result") for job in claimed]


def push(driver: Driver, jobs: int) -> None:
    """Push jobs one by one."""
    for _ in range(jobs):
        driver.push(new_job())


def fill(driver: Driver, jobs: int) -> None:
    """Push jobs in batches of 1,000."""
    for _ in range(jobs // 1000):
        driver.push_many([new_job() for _ in range(1000)])


def show(name: str, jobs: int, figures: Figures) -> None:
    """Print one line."""
    wall, cpu = figures
    each = 1e6 / jobs
    print(f"{name:44} {jobs / wall:>9,.0f} jobs/s {wall * each:7.1f} us wall {cpu * each:7.1f} us CPU per job")


def round_of(folder: Path, durability: str, jobs: int) -> None:
    """Measure both, one after the other."""
    raw = bare_database(folder, durability.upper())
    single = max(jobs // 20, 100)
    show(f"bare   {durability:6} push, one each", single, timed(lambda: bare_push(raw, single)))
    show(f"bare   {durability:6} push, one transaction", jobs, timed(lambda: bare_push_many(raw, jobs)))
    show(f"bare   {durability:6} claim 100 + delete 100", jobs + single, timed(lambda: bare_drain(raw)))
    raw.close()
    url = f"sqlite:///{folder}/driver-{durability}-{time.time_ns()}.db"
    migrate.upgrade(url)
    driver = open_driver(url, durability=durability)
    push(driver, 1)
    show(f"driver {durability:6} push, one each", single, timed(lambda: push(driver, single)))
    show(f"driver {durability:6} push_many, by 1000", jobs, timed(lambda: fill(driver, jobs)))
    show(
        f"driver {durability:6} cycle 100 + 100, history kept",
        jobs + single,
        timed(lambda: drain(driver, everything=True)),
    )
    fill(driver, jobs)
    show(f"driver {durability:6} the same, one queue named", jobs, timed(lambda: drain(driver, everything=False)))
    driver.close()


def profiled(folder: Path, jobs: int) -> None:
    """Print what a drain spends its time on."""
    url = f"sqlite:///{folder}/profile.db"
    migrate.upgrade(url)
    driver = open_driver(url, durability="normal")
    fill(driver, jobs)
    profile = cProfile.Profile()
    profile.runcall(drain, driver, everything=True)
    pstats.Stats(profile).sort_stats("tottime").print_stats(14)


def main() -> None:
    """Run the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.profile:
            profiled(Path(folder), options.jobs)
            return
        for _ in range(options.rounds):
            for durability in ("normal", "full"):
                round_of(Path(folder), durability, options.jobs)


if __name__ == "__main__":
    main()
