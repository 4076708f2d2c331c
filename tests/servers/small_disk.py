"""A really small disk for a database: a file system in memory, mounted for one test."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MEBIBYTE = 1024**2


class SmallDisk:
    """A mounted disk of a few MB, which a file fills and leaves again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.filler = folder / "filler"

    @property
    def free(self) -> int:
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize

    def fill(self, leaving: int = 0) -> None:
        """Take what is free, but for so many bytes."""
        file = os.open(self.filler, os.O_WRONLY | os.O_CREAT)
        try:
            while (more := self.free - leaving) > 0:
                with contextlib.suppress(OSError):  # A node took some of it at the same moment: the rest is next.
                    os.posix_fallocate(file, 0, os.fstat(file).st_size + more)
        finally:
            os.close(file)

    def clear(self) -> None:
        """Give back what the filler took."""
        self.filler.unlink()

    def remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.folder)], check=True)


@contextlib.contextmanager
def mounted(folder: Path, size: int) -> Iterator[SmallDisk]:
    """Mount a disk of ``size`` bytes; where that is not allowed the test is skipped, but not on a CI server's root."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "taskqueue-test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = f"a small disk cannot be mounted here (run as root): {done.stderr.strip()}"
        if os.geteuid() == 0 and os.environ.get("CI", "").lower() in ("1", "true", "yes"):
            pytest.fail(said, pytrace=False)
        pytest.skip(said)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
