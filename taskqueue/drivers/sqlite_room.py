"""What room is left on the disk of a database in a file, and the reserve that is kept there for the last writes.

On a full disk SQLite can write nothing at all, not even that a job has ended. So pushes are refused while a little is
left, and nodes set blocks aside in a file beside the database. When the disk is full all the same, a node gives them
back, writes what has ended, claims nothing, and sets them aside again once there is room.

A reserve that was given back stays as a file of its length without blocks: one look at the file system tells every
process on the machine how much is missing, and a node that is killed leaves nothing to be remembered. Whether nodes
claim goes by what is free all the same: nobody may be left to fill the reserve, and some file systems keep no zeros.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from taskqueue.clock import Clock
from taskqueue.drivers.examination import size_text
from taskqueue.drivers.values import NewJob
from taskqueue.errors import StorageFull

LEAST_FREE: Final = 4 * 1024**2
"""Bytes below which nothing is pushed: the log is written back at 4 MB, which may lengthen the database by as much."""

PLENTY: Final = 1024**3
"""Bytes from which on nobody weighs what is to be pushed."""

TWICE: Final = 2
"""A job is written to the log and then to the database."""

LOOK_EVERY: Final = 1.0
LOOK_SOON: Final = 0.05
_FASTEST: Final = 256 * 1024**2
"""Bytes a second that a disk is expected to take: the less is left, the sooner it is looked at again."""

_BLOCK: Final = 512
_CHUNK: Final = bytes(1024**2)

_logger = logging.getLogger("taskqueue.drivers")
_told: Final[set[Path]] = set()
"""Databases of which this process has said that no reserve can be kept for them; a node has several drivers."""


class Space(NamedTuple):
    """What one look at the file system shows, in bytes."""

    free: int
    """Free for us; of the space that only the system's administrator may use nothing is counted."""
    reserve: int
    """How much a reserve is to hold, 0 where there is none."""
    missing: int
    """How much of it was given back."""

    @property
    def left(self) -> int:
        """Return what may be filled: what is to be set aside again is not."""
        return self.free - self.missing


def reserve_of(path: Path) -> Path:
    """Return the file that keeps room for the last writes."""
    return path.with_name(f"{path.name}-reserve")


def space_at(path: Path) -> Space:
    """Look at the disk of a database and at its reserve: two questions to the file system, 3 microseconds."""
    disk = os.statvfs(path.parent)
    free = disk.f_bavail * disk.f_frsize
    try:
        found = reserve_of(path).lstat()
    except OSError:
        return Space(free, 0, 0)
    if not stat.S_ISREG(found.st_mode):
        return Space(free, 0, 0)
    return Space(free, found.st_size, max(0, found.st_size - found.st_blocks * _BLOCK))


def is_full(path: Path | None) -> bool:
    """Say whether not even a page is free."""
    with contextlib.suppress(OSError):
        return path is not None and space_at(path).free < LOG_PAGE
    return False


LOG_PAGE: Final = 64 * 1024
"""Bytes by which the index of the log grows."""


class Room:
    """The room of one driver: for pushes it is looked at once a second, more often while little is left."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._space = Space(PLENTY, 0, 0)
        self._look_at = float("inf") if path is None else float("-inf")
        self._size: int | None = None
        """What this driver keeps, or None where it keeps nothing."""
        self._ran_out = False
        self._in_vain = False
        """Whether a reserve was filled here and has no blocks all the same."""

    # --- pushes ---------------------------------------------------------------------------------------------

    def admit(self, jobs: Sequence[NewJob]) -> None:
        """Raise `StorageFull` where these jobs would take the last of the disk."""
        if self._clock.monotonic() >= self._look_at:
            self._look()
        if self._space.left >= PLENTY:
            return
        wanted = TWICE * sum(len(job.payload or b"") for job in jobs)
        if self._space.left - wanted < LEAST_FREE:
            raise StorageFull(self._refusal(LEAST_FREE + wanted))

    def _refusal(self, needed: int) -> str:
        free, missing = map(size_text, (self._space.free, self._space.missing))
        spoken_for = f" ({missing} are for the nodes)" if self._space.missing else ""
        return (
            f"nothing was stored: {free} are free on the disk of {self._path}{spoken_for}, and this push needs"
            f" {size_text(needed)}: make room on that disk, then push again"
        )

    def _look(self) -> None:
        self._look_at = self._clock.monotonic() + LOOK_EVERY
        if self._path is None:
            return
        try:
            self._space = space = space_at(self._path)
        except OSError:  # The folder is gone: whoever opens the database says so better.
            return
        spare = space.left - LEAST_FREE
        self._ran_out = self._ran_out and spare < 0
        self._look_at += min(0.0, max(LOOK_SOON, spare / _FASTEST) - LOOK_EVERY)

    # --- the reserve ----------------------------------------------------------------------------------------

    @property
    def is_short(self) -> bool:
        """Say whether a reserve had to be given back and there is no room for it yet: nothing is to be begun then."""
        if self._size is None:
            return False
        if self._clock.monotonic() >= self._look_at:
            self._look()
        return self._ran_out or (self._size > 0 and self._space.missing > 0 and self._space.left < LEAST_FREE)

    def shortage(self) -> str | None:
        """Return why nothing is claimed, or None where there is room."""
        if not self.is_short:
            return None
        needed = LEAST_FREE + self._space.missing
        return (
            f"the disk of {self._path} is full, so no job is claimed; what runs is still written:"
            f" {size_text(self._space.free)} are free, work goes on by itself when {size_text(needed)} are"
        )

    def keep(self, size: int) -> None:
        """Begin to keep a reserve of ``size`` bytes, set aside where there is room; a larger one is made smaller."""
        self._size = size
        if self._path is None:
            return
        self._look_at = float("-inf")
        with contextlib.suppress(OSError):
            if space_at(self._path).reserve > size:
                if size:
                    _on_file(reserve_of(self._path), lambda file: os.ftruncate(file, size))
                else:
                    reserve_of(self._path).unlink()
        self.restore()

    def restore(self) -> None:
        """Set the reserve aside where it is missing and there is room for it and for pushes."""
        if not self._size or self._path is None or self._in_vain:
            return
        with contextlib.suppress(OSError):  # Without a reserve jobs run as well: `doctor` tells of one that is there.
            space = space_at(self._path)
            missing = max(self._size, space.reserve) - (space.reserve - space.missing)
            if missing > 0 and space.free - missing >= LEAST_FREE:
                _on_file(reserve_of(self._path), lambda file: self._set_aside(file, space))
                self._look_at = float("-inf")

    def _set_aside(self, file: int, before: Space) -> None:
        """Fill the reserve, and keep none where that takes no blocks, as with a file system that leaves out zeros."""
        path = self._path
        if path is None or not _fill(file, self._size or 0, before):
            return
        os.fsync(file)  # Blocks may be counted only once they have been written.
        found = os.fstat(file)
        if found.st_blocks * _BLOCK >= found.st_size:
            return
        self._in_vain = True
        reserve_of(path).unlink()
        if path not in _told:
            _told.add(path)
            _logger.warning(
                "no room can be kept for the last writes: the file system of %s stores no zeros; on a full disk what"
                " has ended is written once there is room",
                path,
            )

    def run_out(self) -> None:
        """Take note that the disk is full, and give the reserve back if it is this driver's to keep."""
        if self._size is None or self._path is None:
            return
        self._ran_out, self._look_at = True, float("-inf")
        with contextlib.suppress(OSError):
            space = space_at(self._path)
            if space.reserve > space.missing:
                _on_file(reserve_of(self._path), lambda file: _empty(file, space.reserve))


def _on_file(path: Path, work: Callable[[int], None]) -> None:
    """Open a reserve, which is made where there is none, readable for its owner only."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if stat.S_ISREG(os.fstat(file).st_mode):
            work(file)
    finally:
        os.close(file)


def _fill(file: int, size: int, before: Space) -> bool:
    """Give a reserve its blocks and say whether that went well; where it fails the reserve is left as it was."""
    length = max(size, before.reserve)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, length)
        else:
            for start in range(0, length, len(_CHUNK)):
                os.pwrite(file, _CHUNK[: length - start], start)
    except OSError:
        _empty(file, before.reserve)
        return False
    return True


def _empty(file: int, length: int) -> None:
    """Take every block from a reserve; its length stays."""
    os.ftruncate(file, 0)
    os.ftruncate(file, length)
