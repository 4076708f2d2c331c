"""Run by tests in a process of its own: after "go", push the same unique key from many threads; print what stands."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from taskqueue.drivers import open_driver
from taskqueue.drivers.values import NewJob

KEY = b"k" * 32


def main(url: str, pushers: int) -> None:
    driver = open_driver(url)
    driver.installation()
    together = threading.Barrier(pushers)

    def push(_: int) -> str:
        job_id, now = uuid4().bytes, time.time_ns() // 1000
        job = NewJob(
            job_id, "q", 0, "app.Work", 0, now, now, None, None, 3, 0, None, None, 0, None, 0, None, None, "k", KEY, b""
        )
        together.wait()
        stands = driver.push_unique(job)
        return f"{stands.id.hex()} {stands.created:d}\n"

    with ThreadPoolExecutor(pushers) as threads:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        sys.stdout.write("".join(threads.map(push, range(pushers))))
    driver.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
