"""A bare loop over ``sqlite3``."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from benchmarks.bare import BareLoop, Claimed, Row

_TABLE = (
    "CREATE TABLE IF NOT EXISTS jobs (id BLOB PRIMARY KEY, queue TEXT, rank INTEGER, state INTEGER, ready_at INTEGER,"
    " lease INTEGER DEFAULT 0, payload BLOB)"
)
_INDEX = "CREATE INDEX IF NOT EXISTS claim ON jobs (queue, rank, ready_at, id) WHERE state = 0"
_INSERT = "INSERT INTO jobs (id, queue, rank, state, ready_at, payload) VALUES (?, 'default', 0, 0, ?, ?)"
_CLAIM = (
    "UPDATE jobs SET state = 1, lease = lease + 1 WHERE rowid IN (SELECT rowid FROM jobs WHERE queue = 'default'"
    " AND rank = 0 AND state = 0 ORDER BY ready_at, id LIMIT ?) RETURNING id, lease, payload"
)
_DELETE = "DELETE FROM jobs WHERE id = ? AND lease = ?"


class BareSQLite(BareLoop):
    """A connection in WAL mode."""

    def __init__(self, path: str, synchronous: str) -> None:
        self._raw = sqlite3.connect(path, isolation_level=None, timeout=30)
        self._raw.execute("PRAGMA journal_mode = WAL")
        self._raw.execute(f"PRAGMA synchronous = {synchronous}")
        self._raw.execute(_TABLE)
        self._raw.execute(_INDEX)

    def insert(self, row: Row) -> None:
        self._raw.execute(_INSERT, row)

    def insert_many(self, rows: Sequence[Row]) -> None:
        self._raw.execute("BEGIN IMMEDIATE")
        self._raw.executemany(_INSERT, rows)
        self._raw.execute("COMMIT")

    def claim_one(self) -> list[Claimed]:
        return self._claim(1)

    def delete_one(self, row: Claimed) -> None:
        self._raw.execute(_DELETE, row[:2])

    def turn(self, done: Sequence[Claimed], limit: int) -> list[Claimed]:
        self._raw.execute("BEGIN IMMEDIATE")
        self._raw.executemany(_DELETE, [row[:2] for row in done])
        rows = self._claim(limit)
        self._raw.execute("COMMIT")
        return rows

    def _claim(self, limit: int) -> list[Claimed]:
        return list(map(Claimed._make, self._raw.execute(_CLAIM, (limit,)).fetchall()))

    def close(self) -> None:
        self._raw.close()


def open_bare(url: str, durability: str) -> BareLoop:
    """Open the file of a URL, with the table."""
    return BareSQLite(url.removeprefix("sqlite:///"), durability)
