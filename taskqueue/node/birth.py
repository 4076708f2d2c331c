"""How a fresh fork becomes a worker, and what it asks of the kernel."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import traceback

from taskqueue.node.concurrent import ConcurrentWorker
from taskqueue.node.executor import install_alarm
from taskqueue.node.hooking import HOOK_FAILED
from taskqueue.node.worker import REPORT_NOW, Worker, WorkerParts

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_logger = logging.getLogger("taskqueue.worker")


def run_worker(parts: WorkerParts) -> int:
    """Be a worker until it is over, and return the exit code. Called in a fresh fork, in its main thread."""
    die_with_parent(parts.parent)
    worker = Worker(parts) if parts.places == 1 else ConcurrentWorker(parts)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, worker.leave)
    if isinstance(worker, Worker):
        signal.signal(REPORT_NOW, worker.report)
    install_alarm()
    try:
        if not worker.begin():
            return HOOK_FAILED
        worker.work()
        worker.end()
    except Exception as error:
        # Its type and place alone: its message, and those of errors before it, may hold what a payload holds.
        place = traceback.extract_tb(error.__traceback__)[-1]
        name = type(error).__name__
        _logger.error("a worker failed outside of its jobs: %s in %s:%s", name, place.name, place.lineno)  # noqa: TRY400
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    return 0


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux); elsewhere the end of the ticket pipe serves."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # It died before we asked.


def adopt_orphans() -> None:
    """Become the parent of what the jobs' subprocesses leave behind (Linux), so that no zombie outlives its turn."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)
