"""The jobs of the soak: each ends in another way."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from taskqueue import Job


class Plain(Job):
    name = "Plain"

    def handle(self) -> Any:
        time.sleep(self.payload["sleep"])
        return self.payload


class Retried(Job):
    name = "Retried"

    def handle(self) -> int:
        if self.attempt < 3:
            raise RuntimeError("not yet")
        return self.attempt


class Failing(Job):
    name = "Failing"
    max_attempts = 1

    def handle(self) -> None:
        raise ValueError("never")


class Crashing(Job):
    """Kills its worker the first time that it runs."""

    name = "Crashing"

    def handle(self) -> None:
        if self.fencing_token == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class Slow(Job):
    """Takes longer than it may."""

    name = "Slow"
    max_attempts = 1
    timeout = 0.1

    def handle(self) -> None:
        time.sleep(5)


class Large(Job):
    """Has a payload and a result that do not fit into one message."""

    name = "Large"

    def handle(self) -> Any:
        return self.payload
