"""Run by tests in a process of its own: push jobs until it is killed; print each id after its push returned."""

from __future__ import annotations

import sys
import time
from uuid import uuid4

from taskqueue.drivers import open_driver
from taskqueue.drivers.values import NewJob


def main(url: str) -> None:
    driver = open_driver(url)
    while True:
        job_id, now, limits = uuid4().bytes, time.time_ns() // 1000, (None, None, 0)
        driver.push(
            NewJob(
                job_id, "q", 0, "app.Work", 0, now, now, None, None, 3, 0, *limits, None, 0, None, None, "k", None, b""
            )
        )
        sys.stdout.write(job_id.hex() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
