"""The jobs of a storm beside the plain ones: transactional ones, whose effects are rows, and ones on an event loop.

They are a module of their own because what reaches a database takes a template 0.3 s to import.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from sqlalchemy import text

from taskqueue import Job
from tests.chaos.jobs import note, rest

ROW = text("INSERT INTO chaos_effects (job, lease) VALUES (:job, :lease)")


class Effect(Job):
    """Leaves one row, in the transaction that completes the job."""

    name = "Effect"
    transactional = True
    max_attempts = 20

    def handle(self, session: Any) -> None:
        note(self, "start")
        session.execute(ROW, {"job": str(self.id), "lease": self.fencing_token})
        if self.payload.get("commits"):
            session.commit()  # Which ends a savepoint and nothing more.
        rest(self.payload.get("sleep", 0))
        note(self, "end")
        if self.payload.get("freezes") and self.fencing_token == 1:
            note(self, "frozen")
            os.kill(os.getpid(), signal.SIGSTOP)


class Awaiting(Job):
    """Waits on an event loop."""

    name = "Awaiting"

    async def handle(self) -> None:
        note(self, "start")
        await asyncio.sleep(self.payload.get("sleep", 0.001))
        note(self, "end")
