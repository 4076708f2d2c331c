"""A user of a run's queue: pushes from the harness itself, and does the rest in a process that may be altered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from taskqueue import QueueManager
from tests.chaos import alterations, journal
from tests.chaos.places import MARK
from tests.chaos.wrapping import SCHEME
from tests.node.running import ROOT

if TYPE_CHECKING:
    from tests.chaos.storm import Storm


class User:
    """Whoever pushes, revives and cancels."""

    def __init__(self, storm: Storm) -> None:
        self._storm = storm

    @property
    def manager(self) -> QueueManager:
        """Return the manager of this process."""
        return self._storm.manager

    def do(self, what: str, *, point: str = "", **given: Any) -> subprocess.CompletedProcess[str]:
        """Have a process do something; it may die at a crash point."""
        storm = self._storm
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "ENCRYPTION_KEY": storm.crew.key,
            journal.FILE: str(storm.journal.file),
            MARK: storm.crew.mark,
            SCHEME: storm.plan.database,
            alterations.MUTANT: storm.plan.mutant or "",
            alterations.POINT: point,
        }
        words = [sys.executable, "-m", "tests.chaos.user", storm.ground.url, what, json.dumps(given)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0 or point, done.stderr
        return done
