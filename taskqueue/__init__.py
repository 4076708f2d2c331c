"""A task queue on SQLAlchemy: start on one SQLite file, grow with the same code.

The names below are loaded when they are first used, so that ``import taskqueue`` alone costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ != "taskqueue":
    raise ImportError(f"this package is taskqueue: import it by that name, not as {__name__}")

if TYPE_CHECKING:
    from taskqueue.async_manager import AsyncJobHandle, AsyncQueueManager
    from taskqueue.backoff import Backoff
    from taskqueue.errors import TaskQueueError
    from taskqueue.functions import task
    from taskqueue.handle import JobHandle
    from taskqueue.job import Job
    from taskqueue.job_options import Priority
    from taskqueue.manager import QueueManager
    from taskqueue.record import JobRecord
    from taskqueue.states import Delivery, OnConflict, ParentFailure, Reason, State
    from taskqueue.worker_hooks import WorkerContext, on_worker_start, on_worker_stop

__version__ = "0.1.0"

__all__ = [
    "AsyncJobHandle",
    "AsyncQueueManager",
    "Backoff",
    "Delivery",
    "Job",
    "JobHandle",
    "JobRecord",
    "OnConflict",
    "ParentFailure",
    "Priority",
    "QueueManager",
    "Reason",
    "State",
    "TaskQueueError",
    "WorkerContext",
    "__version__",
    "on_worker_start",
    "on_worker_stop",
    "task",
]

_here = Path(__file__).resolve().parent
if not (_here / "cli").is_dir():  # a checkout: the command line lies beside this package, installed it is inside
    __path__.append(str(_here.parent))

if not TYPE_CHECKING:  # hidden from type checkers, which would otherwise accept any name
    _HOMES = {
        "AsyncJobHandle": "async_manager",
        "AsyncQueueManager": "async_manager",
        "Backoff": "backoff",
        "Delivery": "states",
        "Job": "job",
        "JobHandle": "handle",
        "JobRecord": "record",
        "OnConflict": "states",
        "ParentFailure": "states",
        "Priority": "job_options",
        "QueueManager": "manager",
        "Reason": "states",
        "State": "states",
        "TaskQueueError": "errors",
        "WorkerContext": "worker_hooks",
        "on_worker_start": "worker_hooks",
        "on_worker_stop": "worker_hooks",
        "task": "functions",
    }

    def __getattr__(name: str) -> object:
        """Load a public name from the module that defines it (PEP 562)."""
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'taskqueue' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"taskqueue.{home}"), name)
        return value

    def __dir__() -> list[str]:
        """Name what can be imported, loaded or not."""
        return sorted({*globals(), *__all__})
