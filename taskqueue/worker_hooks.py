"""What job modules have done in each worker: once before its first job, once after its last."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from taskqueue.errors import UsageError

Hook = Callable[["WorkerContext"], Any]
H = TypeVar("H", bound=Callable[..., Any])


class WorkerContext:
    """One worker process, as its hooks and handlers see it; set any other attribute to keep something there.

    ``index`` is its place in the node, from 0, taken over by its replacement at some time; ``concurrency`` is how many
    jobs it may run at once: what they share has to bear that.
    """

    index: int
    pid: int
    concurrency: int

    def __init__(self, index: int, pid: int, concurrency: int = 1) -> None:
        self.index = index
        self.pid = pid
        self.concurrency = concurrency

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep something for the handlers."""
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        """Say what to do about an attribute that no hook has set."""
        raise AttributeError(
            f"the worker's context has no {name!r}: set it in a function with @on_worker_start, as context.{name} = ..."
        )

    def __repr__(self) -> str:
        """Name the worker, and not what is kept here."""
        return f"<worker {self.index}, pid {self.pid}>"


class WorkerHooks:
    """The hooks of a process, in the order of their definition. Those of a module that was reloaded replace theirs."""

    def __init__(self) -> None:
        self._start: dict[str, Hook] = {}
        self._stop: dict[str, Hook] = {}

    def add_start(self, hook: Hook) -> None:
        """Have ``hook`` called when a worker begins."""
        self._start[name_of(hook)] = hook

    def add_stop(self, hook: Hook) -> None:
        """Have ``hook`` called when a worker leaves."""
        self._stop[name_of(hook)] = hook

    @property
    def start(self) -> Sequence[Hook]:
        """Return what is called when a worker begins, in the order of definition."""
        return tuple(self._start.values())

    @property
    def stop(self) -> Sequence[Hook]:
        """Return what is called when a worker leaves: the last that was defined comes first."""
        return tuple(reversed(self._stop.values()))


WORKER_HOOKS = WorkerHooks()
"""The hooks that `on_worker_start` and `on_worker_stop` enter."""


def on_worker_start(hook: H) -> H:
    """Have a function called in each worker process before its first job, with the worker's `WorkerContext`.

    It runs after the fork, so that what it opens belongs to this worker alone; handlers find it as ``self.context``. It
    may be ``async def``. A worker in which it fails takes no job.
    """
    WORKER_HOOKS.add_start(_checked(hook, "on_worker_start"))
    return hook


def on_worker_stop(hook: H) -> H:
    """Have a function called in each worker process after its last job, with the worker's `WorkerContext`.

    Also where a worker is replaced and at a stop; not where its process is killed. What it raises is logged.
    """
    WORKER_HOOKS.add_stop(_checked(hook, "on_worker_stop"))
    return hook


def name_of(hook: Hook) -> str:
    """Return the name by which a hook is known in the log."""
    return f"{getattr(hook, '__module__', '?')}.{getattr(hook, '__qualname__', type(hook).__name__)}"


def call_hook(hook: Hook, context: WorkerContext, await_it: Callable[[Awaitable[Any]], Any]) -> None:
    """Call a hook; ``await_it`` runs what an asynchronous one returns to its end, on the worker's loop."""
    returned = hook(context)
    if inspect.isawaitable(returned):
        await_it(returned)


def _checked(hook: H, decorator: str) -> H:
    if not callable(hook):
        raise UsageError(f"@{decorator} is put before a function that takes the worker's context, got {hook!r:.80}")
    return hook
