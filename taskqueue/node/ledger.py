"""Outcomes that wait to be written."""

from __future__ import annotations

from taskqueue.clock import Clock
from taskqueue.drivers.values import Completion, Ending

FLUSH_AT = 200
FLUSH_AFTER = 0.005
"""Outcomes wait for others until there are 200 of them or 5 ms have passed, and not at all while nothing else runs."""


class Ledger:
    """What has ended and is not in the store yet. A crash re-runs at most what stands here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.completions: list[Completion] = []
        self.endings: list[Ending] = []
        self._opened_at = 0.0

    def __len__(self) -> int:
        """Return how many outcomes wait."""
        return len(self.completions) + len(self.endings)

    def open(self) -> None:
        """Start the time that the first outcome may wait."""
        if not self.completions and not self.endings:
            self._opened_at = self._clock.monotonic()

    def known(self) -> set[tuple[bytes, int]]:
        """Return the (id, lease) of every job whose outcome waits."""
        done = {(each.id, each.lease) for each in self.completions}
        return done | {(each.id, each.lease) for each in self.endings}

    def end(self, ending: Ending) -> None:
        """Add an ending."""
        self.open()
        self.endings.append(ending)

    def due_at(self, *, working: bool) -> float:
        """Return when the outcomes must be written: at once when there are many or nothing else runs."""
        if not working or len(self) >= FLUSH_AT:
            return 0.0
        return self._opened_at + FLUSH_AFTER

    def clear(self) -> None:
        """Forget what has been written."""
        self.completions, self.endings = [], []
