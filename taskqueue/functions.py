"""`task`: a plain function as a job."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, overload

from taskqueue.errors import InvalidOption
from taskqueue.job import Job
from taskqueue.job_options import JobOptions
from taskqueue.options import convert_all
from taskqueue.registry import module_name

P = ParamSpec("P")
R = TypeVar("R")

_CLASS_ATTRIBUTES = ("name", "aliases", "retry_on", "give_up_on", "compress")


class Task(Generic[P, R]):
    """A function that can be called as before, or turned into a job with `job`."""

    def __init__(self, function: Callable[P, R], **options: Any) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.signature = inspect.signature(function)
        attributes = {name: options.pop(name) for name in _CLASS_ATTRIBUTES if name in options}
        convert_all(JobOptions, options, f"@task {function.__qualname__}")
        attributes.setdefault("name", f"{module_name(function)}.{function.__qualname__}")
        self.job_type: type[Job] = type(
            function.__name__,
            (Job,),
            {
                **options,
                **attributes,
                "__module__": function.__module__,
                "__qualname__": function.__qualname__,
                "__doc__": function.__doc__,
                "handle": self._handler(),
            },
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now."""
        return self.function(*args, **kwargs)

    def job(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Return a job that will call the function with these arguments; its payload maps their names to them.

        Raises `InvalidOption` where the arguments do not fit the function's signature.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            name = self.job_type.__qualname__
            raise InvalidOption(f"{name}{self.signature} cannot be called so: {error}") from None
        return self.job_type(dict(bound.arguments))

    def _handler(self) -> Callable[[Job], Any]:
        function, signature = self.function, self.signature

        def handle(job: Job) -> Any:
            bound = inspect.BoundArguments(signature, job.payload or {})
            signature.bind(*bound.args, **bound.kwargs)
            return function(*bound.args, **bound.kwargs)

        async def handle_awaited(job: Job) -> Any:
            return await handle(job)

        return handle_awaited if inspect.iscoroutinefunction(function) else handle


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(function: Callable[P, R] | None = None, /, **options: Any) -> Any:
    """Make a function a task: ``@task`` or ``@task(queue="reports", max_attempts=5)``.

    Takes every job option, and ``name``, ``aliases``, ``retry_on``, ``give_up_on``, ``compress``.
    """
    if function is not None:
        return Task(function)
    return lambda decorated: Task(decorated, **options)
