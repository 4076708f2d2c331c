"""The jobs of the tests. Each run leaves a line outside of the database, by one write to a file opened to append."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from taskqueue import Job

BALLAST: list[bytearray] = []


def note(job: Job, what: str = "start") -> None:
    """Leave a line."""
    line = {
        "job": str(job.id),
        "lease": job.fencing_token,
        "pid": os.getpid(),
        "what": what,
        "attempt": job.attempt,
        "at": time.monotonic(),
    }
    file = os.open(os.environ["TEST_STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, (json.dumps(line) + "\n").encode())
    os.close(file)


def wait_for(name: str) -> None:
    """Wait until the test makes a file of this name."""
    gate = Path(os.environ["TEST_FOLDER"], name)
    while not gate.exists():
        time.sleep(0.005)


class Quick(Job):
    """Ends at once, unless its payload has it sleep or wait for a gate."""

    name = "Quick"

    def handle(self) -> Any:
        wanted = self.payload or {}
        note(self)
        time.sleep(wanted.get("sleep", 0))
        if "gate" in wanted:
            wait_for(wanted["gate"])
        note(self, "end")
        return wanted.get("answer")


class Gated(Job):
    """Runs until the test opens its gate, which may be one for each lease."""

    name = "Gated"

    def handle(self) -> None:
        note(self)
        wait_for(self.payload["gate"].format(lease=self.fencing_token))
        note(self, "end")


class Flaky(Job):
    """Fails until the attempt that its payload names."""

    name = "Flaky"

    def handle(self) -> Any:
        note(self)
        if self.attempt < self.payload["until"]:
            raise RuntimeError(self.payload.get("say", "not yet"))
        return self.attempt


class Killer(Job):
    """Kills its own worker."""

    name = "Killer"

    def handle(self) -> None:
        note(self)
        os.kill(os.getpid(), signal.SIGKILL)


class Deaf(Job):
    """Closes every file that its worker has open, as a program does that becomes a daemon, and goes on."""

    name = "Deaf"

    def handle(self) -> None:
        note(self)
        os.closerange(3, 256)
        time.sleep(600)


class Exits(Job):
    """Leaves by another door than the one for jobs."""

    name = "Exits"

    def handle(self) -> None:
        note(self)
        if self.payload["how"] == "exit":
            raise SystemExit(0)
        if self.payload["how"] == "interrupt":
            raise KeyboardInterrupt
        if self.payload["how"] == "os":
            os._exit(0)


class Stubborn(Job):
    """Ignores its timeout."""

    name = "Stubborn"

    def handle(self) -> None:
        note(self)
        while True:
            with contextlib.suppress(BaseException):
                while True:
                    time.sleep(0.01)


class Once(Job):
    name = "Once"
    delivery = "at_most_once"
    max_attempts = 1

    def handle(self) -> None:
        note(self)
        wait_for(self.payload["gate"])


class Hungry(Job):
    """Keeps some megabytes."""

    name = "Hungry"

    def handle(self) -> None:
        note(self)
        BALLAST.append(bytearray(os.urandom(1024)) * (self.payload["megabytes"] * 1024))


class NodeKiller(Job):
    """Kills the supervisor, and so the whole node."""

    name = "NodeKiller"

    def handle(self) -> None:
        note(self)
        template = Path(f"/proc/{os.getppid()}/stat").read_text(encoding="ascii").rpartition(")")[2]
        os.kill(int(template.split()[1]), signal.SIGKILL)
        time.sleep(60)
