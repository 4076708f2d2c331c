"""Jobs that take memory, in all the ways in which that can be done."""

from __future__ import annotations

import mmap
from typing import Any

from node_jobs import note

from taskqueue import Job

MB = 1024**2
KEPT: list[Any] = []


class Greedy(Job):
    """Takes megabytes: as many small objects, as one growing block, by mapping, or shared with nobody in particular."""

    name = "Greedy"

    def handle(self) -> int:
        note(self)
        wanted = self.payload["megabytes"]
        taken = getattr(self, f"as_{self.payload['how']}")(wanted)
        note(self, "end")
        return int(taken)

    def as_objects(self, megabytes: int) -> int:
        kept: list[tuple[int, None]] = []
        for _ in range(megabytes * MB // 40):
            kept.append((len(kept), None))
        return len(kept)

    def as_block(self, megabytes: int) -> int:
        block = bytearray()
        for _ in range(megabytes):
            block += bytes(MB)
        return len(block)

    def as_text(self, megabytes: int) -> int:
        return len(b"x" * (megabytes * MB))

    def as_private_map(self, megabytes: int) -> int:
        return self._fill(mmap.mmap(-1, megabytes * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    def as_shared_map(self, megabytes: int) -> int:
        return self._fill(mmap.mmap(-1, megabytes * MB))

    def as_stubborn(self, megabytes: int) -> int:
        """Take no for an answer, and go on."""
        try:
            return self.as_block(megabytes)
        except MemoryError:
            return -1

    def _fill(self, mapped: mmap.mmap) -> int:
        for at in range(0, len(mapped), MB):
            mapped[at : at + MB] = b"x" * MB
        KEPT.append(mapped)
        if self.payload.get("linger"):
            while True:
                mapped[0:1] = b"y"
        return len(mapped)
