"""The jobs that are measured, and the payload that every contestant carries."""

from __future__ import annotations

import os
import time
from typing import Any

from taskqueue.job import Job

PAYLOAD: dict[str, Any] = {
    "to": "someone@example.org",
    "template": "welcome",
    "user_id": 123456,
    "locale": "en",
    "retry": True,
}
"""102 bytes as JSON: what the peers were measured with."""


class Nothing(Job):
    """Do nothing: what is left is the cost of the queue."""

    def handle(self) -> None:
        """Return at once; the payload has been opened and decoded by then."""


class Stamp(Job):
    """Note when the handler began, in a file that the payload names."""

    def handle(self) -> None:
        """Append the time to the file, one line a job."""
        now = time.time_ns()
        append(self.payload["stamps"], f"{self.payload['number']} {now}\n")


def append(path: str, line: str) -> None:
    """Append a line to a file in one write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
