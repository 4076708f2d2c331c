"""What happened, in a file outside of the database: one line for each start, end and event, by one write each.

Whoever writes opens the file to append, and the kernel keeps the lines apart. All times are on the monotonic clock,
which every process of a machine shares and which nobody moves.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

FILE, NODE = "CHAOS_JOURNAL", "CHAOS_NODE"
"""Environment variables: the file, and the number of the node that a process belongs to."""


def write(what: str, job: UUID | str = "", lease: int = 0, attempt: int = 0, more: str = "") -> None:
    """Leave a line."""
    line = (
        f'{{"what":"{what}","job":"{job}","lease":{lease},"attempt":{attempt},"pid":{os.getpid()},'
        f'"node":{os.environ.get(NODE, "-1")},"at":{time.monotonic()!r},"more":"{more}"}}\n'
    )
    os.write(_file(), line.encode())


_files: dict[int, int] = {}
_opening = threading.Lock()


def _file() -> int:
    with _opening:
        found = _files.get(os.getpid())
        if found is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            found = _files[os.getpid()] = os.open(os.environ[FILE], flags, 0o600)
        return found


@dataclass(frozen=True, slots=True)
class Line:
    """One line."""

    what: str
    job: UUID | None
    lease: int
    attempt: int
    pid: int
    node: int
    at: float
    more: str


class Journal:
    """Reads the file while it grows."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._read = 0
        self._rest = b""
        self.lines: list[Line] = []

    def look(self) -> list[Line]:
        """Return the lines that have come since the last look."""
        if not self.file.exists():
            return []
        with self.file.open("rb") as file:
            file.seek(self._read)
            piece = file.read()
        self._read += len(piece)
        whole, _, self._rest = (self._rest + piece).rpartition(b"\n")
        new = [_line(json.loads(each)) for each in whole.splitlines() if each]
        self.lines += new
        return new


def _line(entry: dict[str, Any]) -> Line:
    job = entry.pop("job")
    return Line(job=UUID(job) if job else None, **entry)
