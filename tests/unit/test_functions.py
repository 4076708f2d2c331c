"""A plain function as a job."""

from __future__ import annotations

from typing import Any

import pytest

from taskqueue import Priority, task
from taskqueue.errors import InvalidOption
from taskqueue.registry import REGISTRY

TASKS = "tests.functions"


@task(name=f"{TASKS}.add")
def add(first: int, second: int = 10, *rest: int, scale: int = 1, **more: int) -> int:
    """Add numbers."""
    return (first + second + sum(rest) + sum(more.values())) * scale


@task(name=f"{TASKS}.report", queue="reports", priority=Priority.HIGH, max_attempts=7, timeout=30)
def report() -> None:
    raise ValueError("no data")


def run(job: Any) -> Any:
    return job.handle()


def test_a_task_can_be_called_as_before() -> None:
    assert add(1, 2) == 3
    assert vars(add)["__name__"] == "add"
    assert add.__doc__ == "Add numbers."


@pytest.mark.parametrize(
    ("args", "keywords", "result"),
    [
        ((1,), {}, 11),
        ((1, 2), {}, 3),
        ((1, 2, 3, 4), {}, 10),
        ((), {"first": 1, "second": 2}, 3),
        ((1,), {"scale": 2}, 22),
        ((1, 2, 3), {"scale": 2, "other": 4}, 20),
    ],
)
def test_a_job_calls_the_function_with_the_arguments_it_was_made_with(
    args: tuple[int, ...], keywords: dict[str, int], result: int
) -> None:
    assert run(add.job(*args, **keywords)) == add(*args, **keywords) == result


def test_the_payload_maps_the_names_of_the_arguments_to_their_values() -> None:
    assert add.job(1, second=2).payload == {"first": 1, "second": 2}


@pytest.mark.parametrize(("args", "keywords"), [((), {}), ((1,), {"first": 2})])
def test_arguments_that_do_not_fit_are_refused_when_the_job_is_made(
    args: tuple[int, ...], keywords: dict[str, int]
) -> None:
    with pytest.raises(InvalidOption, match=r"^add\(first: .* cannot be called so: "):
        add.job(*args, **keywords)


def test_options_of_a_task_are_options_of_its_jobs() -> None:
    options = report.job().options
    assert (options.queue, options.priority, options.max_attempts, options.timeout) == ("reports", 10, 7, 30)


def test_an_unknown_option_is_refused_with_a_near_match() -> None:
    with pytest.raises(InvalidOption, match="did you mean max_attempts"):
        task(name=f"{TASKS}.never", max_atempts=3)(lambda: None)


def test_a_task_is_in_the_registry_under_module_and_name() -> None:
    def scoped() -> None: ...

    made = task(scoped)
    assert made.job_type.job_class == f"{__name__}.{scoped.__qualname__}"
    assert REGISTRY.find(made.job_type.job_class) is made.job_type


def test_class_attributes_can_be_given() -> None:
    made = task(name=f"{TASKS}.picky", aliases=(f"{TASKS}.old",), retry_on=(OSError,), give_up_on=(KeyError,))(print)
    assert (made.job_type.retry_on, made.job_type.give_up_on) == ((OSError,), (KeyError,))
    assert REGISTRY.find(f"{TASKS}.old") is made.job_type


def test_an_exception_of_the_function_is_that_of_the_job() -> None:
    with pytest.raises(ValueError, match="no data"):
        run(report.job())


def test_a_job_without_a_payload_calls_a_function_without_arguments() -> None:
    made = task(name=f"{TASKS}.nothing")(lambda: "done")
    assert run(made.job_type()) == "done"


def test_a_payload_that_does_not_fit_the_function_fails_the_attempt() -> None:
    with pytest.raises(TypeError):
        run(add.job_type({"wrong": 1, "second": 2}))
