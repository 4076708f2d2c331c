"""Push for ever; leave the id of each job outside of the database once its push has returned."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, os.environ["TEST_ROOT"])

from taskqueue import Job, QueueManager


class Quick(Job):
    name = "Quick"

    def handle(self) -> None:
        """Never called here."""


if __name__ == "__main__":
    acknowledged = os.open(Path(sys.argv[1]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with QueueManager(sys.argv[2], encryption_key=os.environ["ENCRYPTION_KEY"]) as manager:
        while True:
            handle = manager.push(Quick({"answer": 1}))
            os.write(acknowledged, f"{handle.id}\n".encode())
