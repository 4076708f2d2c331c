"""What a handler may ask while it runs, and who answers. `Job` asks; a node's worker, a test or a transaction answers.

A job that asks nothing costs nothing: its desk is made at the first question.
"""

from __future__ import annotations

from typing import Any, Protocol

from taskqueue.errors import NotRunning
from taskqueue.worker_hooks import WorkerContext

LONGEST_MESSAGE = 500
"""How many characters of a progress message are kept."""


class Desk(Protocol):
    """Answers for one run of one job. After the job was lost every method raises `JobLost`.

    Where the handler is a coroutine, `checkpoint` and `push` return something to be awaited.
    """

    def progress(self, percent: float, message: str | None = None) -> None:
        """Note how far the job has come. Returns at once; the last value is written at the latest when the job ends."""

    def checkpoint(self, state: Any) -> Any:
        """Store ``state`` durably for this attempt and later ones, in place of what was stored before."""

    def state(self) -> Any:
        """Return what was stored by the last `checkpoint` of this job, in whatever attempt; None before the first."""

    def should_stop(self) -> bool:
        """Say whether the job had better come to an end; cheap enough for the innermost loop. Never raises."""

    def push(self, job: Any, options: dict[str, Any]) -> Any:
        """Store another job durably, provided that this run still holds its own, and return the id that stands."""

    def finish(self) -> None:
        """Send what has not been sent. Called once, when the handler has returned or failed."""


class Reception(Protocol):
    """Opens the desk of a run at its first question; one serves all the runs of a worker."""

    context: WorkerContext

    def open(self, claimed: Any) -> Desk:
        """Return a desk for the run of a claimed job."""


def not_running(what: str) -> NotRunning:
    """Return the error of a question that was asked outside of a run."""
    return NotRunning(
        f"self.{what} was used on a job that does not run: it is for handle(), before(), after() and on_failure() in a"
        " worker; outside of it use QueueManager"
    )
