"""Shared memory in which each worker says what it is doing, so that nobody need ask it.

A slot is a row of 64-bit integers in a file that has no name, mapped by the supervisor and by every worker. A worker
writes its own slot (0.6 microseconds a job), the supervisor reads: it enforces timeouts and knows, when a worker is
dead, which job died with it, which were finished and which had not begun. Aligned 64-bit stores are seen whole.

The slot of a worker with several places has three rows more, with a lane for each place: tokens, starts, deadlines.
There jobs begin in the order of their tokens and end in any, so its DONE is the token of the last job that began:
of the jobs up to that one those in a lane run, and the others have finished. While any runs it notes ten times a second
that its loop turns.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_WORDS = 8
TOKEN, STARTED, DEADLINE, DONE, JOBS, REPORTED, CEILING, TURNED = range(8)
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the file made there has no name


class Running(NamedTuple):
    """A job that a worker runs, in nanoseconds of the monotonic clock; ``deadline`` is 0 where it has no timeout."""

    token: int
    started: int
    deadline: int


@dataclass(frozen=True, slots=True)
class Glance:
    """What a worker was doing when its slot was read.

    Every token up to ``done`` that is not among those ``running`` has finished or was never started by this worker; no
    other has begun. The outcomes of those up to ``reported`` have been sent; a worker with several places sends them at
    each turn of its loop and says nothing of it here.
    """

    running: tuple[Running, ...]
    done: int
    jobs: int = 0
    reported: int = 0
    turned: int | None = None
    """When the loop of a worker with several places last turned, None where there is no such loop."""

    def stood_still_since(self, moment: int) -> bool:
        """Say whether the worker has a loop, and it has not turned since a moment, so that no job could be told."""
        return self.turned is not None and self.turned < moment


def lanes_of(words: memoryview, places: int) -> tuple[memoryview, memoryview, memoryview]:
    """Return the rows of tokens, starts and deadlines in the slot of a worker with several places."""
    first, second, third, end = (_WORDS + row * places for row in range(4))
    return words[first:second], words[second:third], words[third:end]


def _words_of(places: int) -> int:
    return _WORDS if places == 1 else _WORDS + 3 * places


def _size(number: int, places: int) -> int:
    """Return the bytes for so many slots and one row more, which is the node's own."""
    return (number + 1) * _words_of(places) * 8


class Slots:
    """The slots of one node, and up to when its lease lets the workers run. ``places``: jobs of a worker at a time."""

    def __init__(self, descriptor: int, number: int, places: int = 1) -> None:
        self.descriptor = descriptor
        self.number = number
        self.places = places
        self._words_each = _words_of(places)
        self._map = mmap.mmap(descriptor, _size(number, places))
        self._words = memoryview(self._map).cast("q")

    @classmethod
    def create(cls, number: int, places: int = 1) -> Slots:
        """Make slots for ``number`` workers in memory that goes away with the last process that maps it."""
        folder = str(_SHARED_MEMORY) if os.access(_SHARED_MEMORY, os.W_OK) else None
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(_size(number, places))
            return cls(os.dup(file.fileno()), number, places)

    def of(self, index: int) -> memoryview:
        """Return the words of one worker, for the worker itself to write."""
        return self._words[index * self._words_each : (index + 1) * self._words_each]

    def clear(self, index: int) -> None:
        """Forget what the last owner of a slot wrote."""
        words = self.of(index)
        for word in range(self._words_each):
            words[word] = 0

    def glance(self, index: int) -> Glance:
        """Read one worker's slot."""
        words = self.of(index)
        if self.places > 1:
            return self._glance_at_lanes(words)
        while True:
            token, done = words[TOKEN], words[DONE]
            # A worker that died between its last two stores had finished: the token is still there, and done as well.
            running = (Running(token, words[STARTED], words[DEADLINE]),) if token > done else ()
            seen = Glance(running, done, words[JOBS], words[REPORTED])
            if words[TOKEN] == token:  # Otherwise the worker went on to its next job while we read.
                return seen

    def begun(self, index: int) -> int:
        """Return the last token that a worker with several places has begun."""
        begun: int = self._words[index * self._words_each + DONE]
        return begun

    def ceiling(self, index: int) -> int:
        """Return the private memory above which a worker is to be killed, 0 while its job has no limit."""
        ceiling: int = self._words[index * self._words_each + CEILING]
        return ceiling

    def _glance_at_lanes(self, words: memoryview) -> Glance:
        tokens, starts, deadlines = (row.tolist() for row in lanes_of(words, self.places))
        begun, jobs, turned = words[DONE], words[JOBS], words[TURNED]
        still = lanes_of(words, self.places)[0].tolist()  # A lane that went on while we read shows another token now.
        seen = zip(tokens, starts, deadlines, still, strict=True)
        running = tuple(
            Running(token, started, deadline)
            for token, started, deadline, after in seen
            if token == after and 0 < token <= begun
        )
        return Glance(running, begun, jobs, begun, turned)

    def hold_lease_until(self, monotonic: float) -> None:
        """Note up to when the workers may run, on the monotonic clock, which all processes of a machine share."""
        self._words[self.number * self._words_each] = int(monotonic * 1e9)

    def lease_is_over(self) -> bool:
        """Say whether the workers may run no longer; never before a first lease was noted."""
        return self.lease_left() < 0

    def lease_left(self) -> float:
        """Return the seconds for which the workers may run, negative once they may not."""
        until = self._words[self.number * self._words_each]
        return (until - time.monotonic_ns()) / 1e9 if until else math.inf

    def close(self) -> None:
        """Unmap the memory here."""
        self._words.release()
        self._map.close()
        os.close(self.descriptor)
