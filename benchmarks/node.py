"""A real node in a process of its own: ``python -m benchmarks.node GROUPS``, the settings as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.databases.kind import Durability, Place, settings_from
from benchmarks.measure import family, wait_until
from taskqueue.node.logs import configure_logging
from taskqueue.node.supervisor import Node

ROOT = Path(__file__).resolve().parent.parent
_SETTLE = 0.3


@contextmanager
def running_node(place: Place, durability: Durability, workers: int) -> Iterator[list[psutil.Process]]:
    """Start a node and yield its processes once all workers stand ready: the node, its template, the workers."""
    command = [sys.executable, "-m", "benchmarks.node", json.dumps(place.groups(durability, workers))]
    with subprocess.Popen(command, cwd=ROOT) as started:
        node = psutil.Process(started.pid)
        try:
            wait_until(lambda: _stands(started, node, workers), f"the start of a node with {workers} worker(s)")
            time.sleep(_SETTLE)
            yield family(node)
        finally:
            started.terminate()
            try:
                started.wait(15.0)
            except subprocess.TimeoutExpired:
                started.kill()


def _stands(started: subprocess.Popen[bytes], node: psutil.Process, workers: int) -> bool:
    if started.poll() is not None:
        raise RuntimeError(f"the node ended by itself with exit code {started.returncode}")
    return len(node.children(recursive=True)) >= 1 + workers


def main(arguments: list[str]) -> int:
    """Be a node until told to stop."""
    (groups,) = arguments
    configure_logging("warning", "text")
    return Node(settings_from(json.loads(groups), Path.cwd())).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
