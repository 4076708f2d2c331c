"""A bare loop in a process of its own: ``python -m benchmarks.bare KIND URL DURABILITY drain|serve [STAMPS]``.

Both say when they are ready. ``drain`` waits for a line then, drains the table and prints what it took as JSON;
``serve`` waits for rows for ever, and appends to a file the time at which it took up each.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import closing
from importlib import import_module

from benchmarks.bare import READY, BareLoop


def drain(loop: BareLoop) -> None:
    """Drain when told to, and print what it took."""
    say_ready()
    sys.stdin.readline()
    began, cpu = time.monotonic(), time.process_time()
    jobs = loop.drain_in_batches()
    took = {"jobs": jobs, "began": began, "ended": time.monotonic(), "cpu": time.process_time() - cpu}
    print(json.dumps(took), flush=True)


def serve(loop: BareLoop, stamps: str) -> None:
    """Wait for rows for ever, and append the time at which each was taken up."""
    out = os.open(stamps, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    say_ready()
    while True:
        rows = loop.claim_one()
        for row in rows:
            now = time.time_ns()
            os.write(out, f"{json.loads(row.payload)['number']} {now}\n".encode())
            loop.delete_one(row)
        if not rows:
            loop.rest()


def say_ready() -> None:
    """Tell who started this process that the measurement may begin."""
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Do what the arguments say."""
    kind, url, durability, what, *stamps = arguments
    with closing(import_module(f"benchmarks.bare.{kind}").open_bare(url, durability)) as loop:
        if what == "serve":
            serve(loop, stamps[0])
        else:
            drain(loop)


if __name__ == "__main__":
    main(sys.argv[1:])
