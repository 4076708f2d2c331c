"""Huey on SQLite, measured as we are; run by the Python of an environment that has Huey and nothing of ours.

    python huey_peer.py push|drain DATABASE NORMAL|FULL JOBS WORKERS PAYLOAD

Prints one JSON object: jobs, seconds, cpu_seconds. A job decodes its payload and notes that it ran in a slot of memory
that the worker processes share with their parent. The rate is counted from the moment at which every worker has begun.
"""

from __future__ import annotations

import json
import mmap
import multiprocessing
import os
import struct
import sys
import threading
import time
from typing import Any

from huey import Huey  # type: ignore[import-not-found]
from huey.storage import SqliteStorage  # type: ignore[import-not-found]

SLOT = struct.Struct("<qqq")
"""Of each worker process: when it began its first job, when it ended its last, how many it ran."""
START_WITHIN = 20.0
CAP = 2.0
"""Seconds that are measured at most."""
_TICKS = os.sysconf("SC_CLK_TCK")
_slots = mmap.mmap(-1, 4096)
_taken = multiprocessing.Value("i", 0)
_mine: list[int] = []


class Storage(SqliteStorage):  # type: ignore[misc]
    """Huey knows FULL and OFF; this adds the NORMAL that lies between, for a comparison at equal durability."""

    def _create_connection(self) -> Any:
        connection = super()._create_connection()
        if self._fsync is None:
            connection.execute("PRAGMA synchronous = NORMAL")
        return connection


def note() -> None:
    """Count a job in this process's slot."""
    if not _mine:
        with _taken.get_lock():
            _mine.append(_taken.value * SLOT.size)
            _taken.value += 1
    began, _, count = SLOT.unpack_from(_slots, _mine[0])
    now = time.monotonic_ns()
    SLOT.pack_into(_slots, _mine[0], began or now, now, count + 1)


def make(database: str, durability: str) -> tuple[Huey, Any]:
    """Return an instance and its task."""
    fsync = {"FULL": True, "NORMAL": None, "OFF": False}[durability]
    huey = Huey("bench", results=False, storage_class=Storage, filename=database, fsync=fsync)

    def nothing(payload: str) -> None:
        json.loads(payload)
        note()

    return huey, huey.task()(nothing)


def push(task: Any, jobs: int, payload: str) -> dict[str, float]:
    """Push jobs one by one."""
    task(payload)
    wall, cpu = time.perf_counter(), time.process_time()
    done = 0
    while done < jobs and time.perf_counter() - wall < CAP:
        task(payload)
        done += 1
    return {"jobs": done, "seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def drain(huey: Huey, workers: int, jobs: int) -> dict[str, float]:
    """Run a backlog with worker processes."""
    huey.storage.close()
    consumer = huey.create_consumer(workers=workers, worker_type="process", periodic=False)
    consumer.start()
    children = [process.pid for process in multiprocessing.active_children()]
    give_up = time.monotonic() + START_WITHIN
    while sum(SLOT.unpack_from(_slots, index * SLOT.size)[0] > 0 for index in range(workers)) < workers:
        time.sleep(0.002)
        _check(give_up)
    at_start, cpu = _counts(workers), _cpu(children)
    began = time.monotonic_ns()
    while _counts(workers) < jobs and time.monotonic_ns() - began < CAP * 1e9:
        time.sleep(0.01)
    done = _counts(workers) - at_start
    used = _cpu(children) - cpu
    last = max(SLOT.unpack_from(_slots, index * SLOT.size)[1] for index in range(workers))
    for child in multiprocessing.active_children():
        child.kill()
    return {"jobs": done, "seconds": (last - began) / 1e9, "cpu_seconds": used}


def _counts(workers: int) -> int:
    return sum(SLOT.unpack_from(_slots, index * SLOT.size)[2] for index in range(workers))


def _check(give_up: float) -> None:
    if time.monotonic() > give_up:
        sys.exit("huey did not begin in time")


def _cpu(pids: list[int | None]) -> float:
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:  # noqa: PTH123
            fields = stat.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def main(arguments: list[str]) -> None:
    """Measure once and print it."""
    what, database, durability, jobs, workers, payload = arguments
    huey, task = make(database, durability)
    if what == "push":
        found = push(task, int(jobs), payload)
    else:
        _, fill = make(database, "OFF")
        for _ in range(int(jobs)):
            fill(payload)
        found = drain(huey, int(workers), int(jobs))
    print(json.dumps(found), flush=True)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            os._exit(0)  # The consumer's scheduler would wait for its next tick.


if __name__ == "__main__":
    main(sys.argv[1:])
