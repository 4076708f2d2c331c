"""The hooks of the job modules, called in a worker before its first job and after its last."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from taskqueue.worker_hooks import WORKER_HOOKS, Hook, WorkerContext, call_hook, name_of

HOOK_FAILED: Final = 78
"""The exit code of a worker whose start-up hook failed: it has taken no job."""

_logger = logging.getLogger("taskqueue.worker")


def begin(context: WorkerContext, await_it: Callable[[Awaitable[Any]], Any]) -> bool:
    """Call the start-up hooks in their order; say whether all went well. After a failure the rest are not called."""
    for hook in WORKER_HOOKS.start:
        try:
            call_hook(hook, context, await_it)
        except (Exception, SystemExit) as error:
            # Not its message: who cannot connect often quotes the address, password and all.
            name, kind = name_of(hook), type(error).__name__
            _logger.error("worker %d takes no jobs: %s failed with %s%s", context.pid, name, kind, _place(hook, error))  # noqa: TRY400
            return False
    return True


def leave(context: WorkerContext, await_it: Callable[[Awaitable[Any]], Any]) -> None:
    """Call the shutdown hooks, the last that was defined first. What one raises is logged by its type alone."""
    for hook in WORKER_HOOKS.stop:
        try:
            call_hook(hook, context, await_it)
        except (Exception, SystemExit) as error:
            _logger.error("worker %d: %s failed with %s", context.pid, name_of(hook), type(error).__name__)  # noqa: TRY400


def _place(hook: Hook, error: BaseException) -> str:
    """Return where in the hook's own file it failed, such as `` at jobs.py:12``; nothing where that is unknown."""
    file = getattr(getattr(hook, "__code__", None), "co_filename", None)
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    return f" at {Path(str(file)).name}:{lines[-1]}" if lines else ""
