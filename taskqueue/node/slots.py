"""Shared memory in which each worker says what it is doing, so that nobody need ask it.

A slot is a row of 64-bit integers in a file that has no name, mapped by the supervisor and by every worker. A worker
writes its own slot (0.6 microseconds a job), the supervisor reads: it enforces timeouts and knows, when a worker is
dead, which job died with it, which were finished and which had not begun. Aligned 64-bit stores are seen whole.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_WORDS = 8
TOKEN, STARTED, DEADLINE, DONE, JOBS, REPORTED = range(6)
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the file made there has no name


@dataclass(frozen=True, slots=True)
class Glance:
    """What a worker was doing when its slot was read; times in nanoseconds of the monotonic clock.

    ``token`` is the job it runs, 0 for none; ``deadline`` is 0 where the job has no timeout; every token up to ``done``
    has finished or was never started by this worker, and the outcomes of those up to ``reported`` have been sent.
    """

    token: int
    started: int
    deadline: int
    done: int
    jobs: int
    reported: int = 0


def _size(number: int) -> int:
    """Return the bytes for so many slots and one row more, which is the node's own."""
    return (number + 1) * _WORDS * 8


class Slots:
    """The slots of one node, and up to when its lease lets the workers run."""

    def __init__(self, descriptor: int, number: int) -> None:
        self.descriptor = descriptor
        self.number = number
        self._map = mmap.mmap(descriptor, _size(number))
        self._words = memoryview(self._map).cast("q")

    @classmethod
    def create(cls, number: int) -> Slots:
        """Make slots for ``number`` workers in memory that goes away with the last process that maps it."""
        folder = str(_SHARED_MEMORY) if os.access(_SHARED_MEMORY, os.W_OK) else None
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(_size(number))
            return cls(os.dup(file.fileno()), number)

    def of(self, index: int) -> memoryview:
        """Return the words of one worker, for the worker itself to write."""
        return self._words[index * _WORDS : (index + 1) * _WORDS]

    def clear(self, index: int) -> None:
        """Forget what the last owner of a slot wrote."""
        words = self.of(index)
        for word in range(_WORDS):
            words[word] = 0

    def glance(self, index: int) -> Glance:
        """Read one worker's slot."""
        words = self.of(index)
        while True:
            token = words[TOKEN]
            seen = Glance(token, words[STARTED], words[DEADLINE], words[DONE], words[JOBS], words[REPORTED])
            if words[TOKEN] == token:  # Otherwise the worker went on to its next job while we read.
                return seen

    def hold_lease_until(self, monotonic: float) -> None:
        """Note up to when the workers may run, on the monotonic clock, which all processes of a machine share."""
        self._words[self.number * _WORDS] = int(monotonic * 1e9)

    def lease_is_over(self) -> bool:
        """Say whether the workers may run no longer; never before a first lease was noted."""
        until = self._words[self.number * _WORDS]
        return 0 < until < time.monotonic_ns()

    def close(self) -> None:
        """Unmap the memory here."""
        self._words.release()
        self._map.close()
        os.close(self.descriptor)
