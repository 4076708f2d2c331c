"""SQLite: a file in a temporary folder."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Pool, event

from benchmarks.databases.kind import Durability, Kind, Limits, Place
from benchmarks.wire import Count

NORMAL = Durability("NORMAL", "normal", "normal", "NORMAL")
FULL = Durability("FULL", "full", "full", "FULL")
DEFAULT = Durability("FULL pushers, NORMAL node", "full", "normal", "FULL")


class SQLite(Kind):
    """A file in a temporary folder; ``TMPDIR`` names the disk."""

    name = "sqlite"
    title = "SQLite"
    bare_name = "bare sqlite3"
    durabilities = (NORMAL, FULL, DEFAULT)
    default = DEFAULT
    limits = Limits(
        drain={1: (1.0, 0.6), 2: (1.0, 0.6)},
        push_goal=0.6,
        bulk_goal=0.5,
        latency_p95_ms=(25.0, 10.0),
        statements=(1, 5, 15, 1),
        over_huey=3.0,
    )
    has_wire = False
    id_of_number = "CAST(printf('%016d', n) AS BLOB)"

    def missing(self) -> str | None:
        return None

    @contextmanager
    def counting(self, url: str) -> Iterator[tuple[str, Count]]:
        count = Count()

        def note(_statement: str) -> None:
            count.statements += 1

        def hang(raw: sqlite3.Connection, _record: object) -> None:
            raw.set_trace_callback(note)

        event.listen(Pool, "connect", hang)
        try:
            yield url, count
        finally:
            event.remove(Pool, "connect", hang)

    def version(self) -> str:
        return sqlite3.sqlite_version

    @contextmanager
    def empty(self) -> Iterator[Place]:
        with tempfile.TemporaryDirectory(prefix="taskqueue-bench-") as folder:
            yield Place(self, f"sqlite:///{folder}/queue.db", Path(folder))
