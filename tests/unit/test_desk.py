"""What a job answers outside of a run, and what its worker's hooks may expect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from taskqueue import Job, WorkerContext, on_worker_start, on_worker_stop
from taskqueue.errors import NotRunning, UsageError
from taskqueue.job import Run
from taskqueue.worker_hooks import WorkerHooks, name_of


class Quiet(Job):
    name = "tests.unit.Quiet"

    def handle(self) -> None: ...


class Desk:
    """Answers what it was asked."""

    def __init__(self, claimed: Any) -> None:
        self.asked: list[Any] = [claimed]

    def progress(self, percent: float, message: str | None = None) -> None:
        self.asked.append((percent, message))

    def checkpoint(self, state: Any) -> Any:
        self.asked.append(state)

    def state(self) -> Any:
        return "state"

    def should_stop(self) -> bool:
        return True

    def push(self, job: Any, options: dict[str, Any]) -> Any:
        return job, options

    def finish(self) -> None: ...


class Reception:
    context = WorkerContext(0, 1)

    def __init__(self) -> None:
        self.opened: list[Desk] = []

    def open(self, claimed: Any) -> Desk:
        self.opened.append(Desk(claimed))
        return self.opened[-1]


ASKED: list[tuple[str, Callable[[Job], Any]]] = [
    ("progress()", lambda job: job.progress(5)),
    ("checkpoint()", lambda job: job.checkpoint({})),
    ("state", lambda job: job.state),
    ("should_stop", lambda job: job.should_stop),
    ("push()", lambda job: job.push(Quiet())),
    ("context", lambda job: job.context),
]


@pytest.mark.parametrize(("what", "ask"), ASKED, ids=[what for what, _ in ASKED])
def test_a_job_that_does_not_run_says_so_and_what_to_use_instead(what: str, ask: Callable[[Job], Any]) -> None:
    with pytest.raises(NotRunning, match=r"handle\(\).*QueueManager") as caught:
        ask(Quiet({"secret": 7}))
    assert f"self.{what} " in str(caught.value)
    assert isinstance(caught.value, UsageError)


def test_a_desk_is_opened_at_the_first_question_and_not_before() -> None:
    reception, job, child = Reception(), Quiet(), Quiet()
    job._run = Run(1, 3, 7, reception, "claimed")
    assert (job.attempt, job.context, reception.opened) == (1, Reception.context, [])
    job.progress(5, "text")
    job.checkpoint([1])
    assert (job.state, job.should_stop, job.push(child, delay=5)) == ("state", True, (child, {"delay": 5}))
    assert [desk.asked for desk in reception.opened] == [["claimed", (5, "text"), [1]]]


def test_hooks_are_called_in_their_order_and_back_and_a_reloaded_one_once() -> None:
    hooks = WorkerHooks()

    def first(_context: WorkerContext) -> None: ...

    def second(_context: WorkerContext) -> None: ...

    for hook in (first, second, first):
        hooks.add_start(hook)
        hooks.add_stop(hook)
    assert hooks.start == (first, second)
    assert hooks.stop == (second, first)
    assert name_of(first).endswith("first")


@pytest.mark.parametrize("decorator", [on_worker_start, on_worker_stop])
def test_what_is_no_function_is_no_hook(decorator: Any) -> None:
    with pytest.raises(UsageError, match="is put before a function"):
        decorator("connect")


def test_a_context_keeps_what_is_set_and_says_how_to_set_what_is_missing() -> None:
    context = WorkerContext(1, 2, 3)
    context.pool = "open"
    assert context.pool == "open"
    assert "open" not in repr(context)
    assert not hasattr(context, "other")
    with pytest.raises(AttributeError, match=r"@on_worker_start.*context\.other"):
        context.other  # noqa: B018
