"""Bare loops in processes of their own, as a worker is one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.bare import READY
from benchmarks.databases.kind import Durability, Place
from benchmarks.measure import Sample
from benchmarks.node import ROOT

Process = subprocess.Popen[bytes]


@contextmanager
def bare_process(place: Place, durability: Durability, *what: str) -> Iterator[Process]:
    """Start a bare loop and yield it once it is ready; kill it at the end."""
    program = [sys.executable, "-m", "benchmarks.bare", place.kind.name, place.url, durability.pushers]
    with subprocess.Popen([*program, *what], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        try:
            if started.stdout is None or started.stdout.readline() != READY:
                raise RuntimeError("a bare loop did not begin: what it printed tells why")
            yield started
        finally:
            started.kill()


def drain_by_processes(place: Place, durability: Durability, workers: int) -> Sample:
    """Drain a bare table by so many processes that begin together."""
    with ExitStack() as stack:
        started = [stack.enter_context(bare_process(place, durability, "drain")) for _ in range(workers)]
        server = place.server_cpu()
        for each in started:
            assert each.stdin is not None
            each.stdin.write(b"go\n")
            each.stdin.flush()
        found = [json.loads(each.communicate()[0]) for each in started]
        server = place.server_cpu() - server
    jobs, cpu = sum(each["jobs"] for each in found), sum(each["cpu"] for each in found)
    return Sample(jobs, max(each["ended"] for each in found) - min(each["began"] for each in found), cpu, server)
