"""The jobs of a run, as its nodes know them. Each start and end of a handler leaves a line outside of the database.

Nothing here sleeps by ``time.sleep``, which fails under a clock that is moved.
"""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path
from typing import Any

from taskqueue import Job
from tests.chaos import alterations, journal


def note(job: Job, what: str) -> None:
    journal.write(what, job.id, job.fencing_token, job.attempt)


def rest(seconds: float) -> None:
    if seconds:
        select.select([], [], [], seconds)


def wait_for(gate: str) -> None:
    """Wait until somebody makes a file of this name; not for ever, lest a scene that fails leave a job."""
    give_up = time.monotonic() + 60
    while not Path(gate).exists() and time.monotonic() < give_up:
        rest(0.005)


class Plain(Job):
    """Takes as long as its payload says, a millisecond by default, or until its gate is opened."""

    name = "Plain"

    def handle(self) -> Any:
        note(self, "start")
        rest(self.payload.get("sleep", 0.001))
        if "gate" in self.payload:
            wait_for(self.payload["gate"].format(lease=self.fencing_token))
        note(self, "end")
        return self.payload.get("answer")


class Reporting(Job):
    """Says how far it is, keeps a checkpoint, and pushes another job."""

    name = "Reporting"

    def handle(self) -> None:
        note(self, "start")
        self.progress(50, "half")
        rest(0.05)
        self.checkpoint({"half": True})
        child = Plain({})
        journal.write("pushing", child.id)
        self.push(child)
        journal.write("pushed", child.id)
        note(self, "end")


class Once(Job):
    name = "Once"
    delivery = "at_most_once"
    max_attempts = 1

    def handle(self) -> None:
        note(self, "start")
        rest(self.payload.get("sleep", 0.001))
        note(self, "end")


class Flaky(Job):
    """Fails until the attempt that its payload names, or until there is a file that it names."""

    name = "Flaky"

    def handle(self) -> None:
        note(self, "start")
        rest(0.001)
        mended = "unless" in self.payload and Path(self.payload["unless"]).exists()
        if self.attempt < self.payload["until"] and not mended:
            raise RuntimeError("not yet")
        note(self, "end")


class Poison(Job):
    """Kills its worker."""

    name = "Poison"

    def handle(self) -> None:
        note(self, "start")
        os.kill(os.getpid(), signal.SIGKILL)


class Frozen(Job):
    """Has had its effect, and then stops its own process before anybody hears of it."""

    name = "Frozen"

    def handle(self) -> None:
        note(self, "start")
        note(self, "end")
        note(self, "frozen")
        os.kill(os.getpid(), signal.SIGSTOP)


if os.environ.get(alterations.LATE):

    class Late(Plain):
        """A class that some nodes do not know."""

        name = "Late"


alterations.in_template()
