"""A real node in a process of its own: ``python -m benchmarks.node DATABASE WORKERS DURABILITY [all-full]``.

With ``all-full`` the node's own claims and acknowledgements are flushed to disk as well; by design they are not,
because losing one costs at most a second run.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measure import family, wait_until
from taskqueue.clock import SYSTEM_CLOCK, Clock
from taskqueue.drivers.base import Driver
from taskqueue.node.logs import configure_logging
from taskqueue.node.signals import Signals
from taskqueue.node.supervisor import Node
from taskqueue.settings import Settings, load_settings
from taskqueue.store import Store

ALL_FULL = "all-full"
_ROOT = Path(__file__).resolve().parent.parent
_SETTLE = 0.3


class FlushedStore(Store):
    """A store whose every driver commits durably, whatever durability is asked for."""

    __slots__ = ()

    def another_driver(self, durability: str, clock: Clock = SYSTEM_CLOCK) -> Driver:
        """Return a driver with full durability."""
        del durability
        return Store.another_driver(self, "full", clock)


class FlushedNode(Node):
    """A node whose claims and acknowledgements are as durable as a push."""

    def _run_with(self, store: Store, signals: Signals) -> int:
        flushed = FlushedStore(store.driver, store.codec, store.ring, store.url, store.durability, store.notices)
        return super()._run_with(flushed, signals)


def settings_for(database: Path, durability: str, workers: int = 1) -> Settings:
    """Return settings that nothing on this machine changes: no environment, no files."""
    groups: dict[str, dict[str, Any]] = {
        "database": {"url": f"sqlite:///{database}", "durability": durability},
        "general": {"log_level": "warning"},
        "worker": {"workers": workers, "imports": ("benchmarks.jobs",), "max_jobs": "none", "timeout": "none"},
    }
    return load_settings(keywords=groups, environ={}, directory=database.parent).settings


@contextmanager
def running_node(
    database: Path, durability: str, workers: int, *, all_full: bool = False
) -> Iterator[list[psutil.Process]]:
    """Start a node and yield its processes once all workers stand ready: the node, its template, the workers."""
    command = [sys.executable, "-m", "benchmarks.node", str(database), str(workers), durability]
    with subprocess.Popen([*command, ALL_FULL] if all_full else command, cwd=_ROOT) as started:
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
    database, workers, durability, *extra = arguments
    configure_logging("warning", "text")
    kind = FlushedNode if ALL_FULL in extra else Node
    return kind(settings_for(Path(database), durability, int(workers))).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
