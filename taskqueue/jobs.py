"""Ready-made jobs: what ``queue:test`` pushes."""

from __future__ import annotations

import threading
from typing import Any

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.job import Job


class TestJob(Job):
    """Do nothing, or what its payload asks for: ``sleep`` seconds, or ``fail`` with a message.

    Returns its payload's ``task`` and ``number``, so that a test can see which job ran.
    """

    __test__ = False
    aliases = ("TaskQueue\\Jobs\\TestJob", "TestJob")

    def handle(self) -> Any:
        """Do what the payload asks for."""
        wanted = self.payload if isinstance(self.payload, dict) else {}
        if "sleep" in wanted:
            SYSTEM_CLOCK.wait(threading.Event(), float(wanted["sleep"]))
        if "fail" in wanted:
            raise RuntimeError(str(wanted["fail"]))
        return {key: wanted[key] for key in ("task", "number") if key in wanted} or None
