"""Run by tests in a process of its own: claim and complete until nothing is left; print the ids in hexadecimal."""

from __future__ import annotations

import sys
import time
from uuid import uuid4

from taskqueue.drivers import open_driver
from taskqueue.drivers.values import Completion, NodeIdentity


def main(url: str, batch: int) -> None:
    driver = open_driver(url, durability="normal")
    node = driver.register_node(NodeIdentity(uuid4().bytes, "n", "h", None, None, 1, None, 30_000, "{}"))
    lanes = driver.lanes(None)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    done: list[Completion] = []
    while True:
        cycle = driver.cycle(node, done, (), lanes, batch)
        if cycle.stale:
            raise SystemExit(f"{len(cycle.stale)} completions were refused")
        if not cycle.claimed:
            return
        for job in cycle.claimed:
            sys.stdout.write(f"{job.id.hex()} {job.lease}\n")
        now = time.time_ns() // 1000
        done = [Completion(job.id, job.lease, job.queue, now, 1, 1, None) for job in cycle.claimed]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
