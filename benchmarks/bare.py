"""The bare ``sqlite3`` loops: what is left when a queue is taken away.

They insert, claim and delete rows of a table with the columns and the index that a claim needs, and keep, seal and
count nothing. Run as a program it is a worker that polls each 10 ms and stamps the jobs that it takes::

    python -m benchmarks.bare DATABASE STAMPS
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
import uuid
from pathlib import Path

POLL_EVERY = 0.01
BATCH = 100
BULK = 1_000

_TABLE = (
    "CREATE TABLE IF NOT EXISTS jobs (id BLOB PRIMARY KEY, queue TEXT, rank INTEGER, state INTEGER, ready_at INTEGER,"
    " lease INTEGER DEFAULT 0, payload BLOB)"
)
_INDEX = "CREATE INDEX IF NOT EXISTS claim ON jobs (queue, rank, ready_at, id) WHERE state = 0"
INSERT = "INSERT INTO jobs (id, queue, rank, state, ready_at, payload) VALUES (?, 'default', 0, 0, ?, ?)"
_CLAIM = (
    "UPDATE jobs SET state = 1, lease = lease + 1 WHERE rowid IN (SELECT rowid FROM jobs WHERE queue = 'default'"
    " AND rank = 0 AND state = 0 ORDER BY ready_at, id LIMIT ?) RETURNING id, lease, payload"
)
_DELETE = "DELETE FROM jobs WHERE id = ? AND lease = ?"


def open_table(path: Path, synchronous: str) -> sqlite3.Connection:
    """Open the database, in WAL mode, and make the table where there is none."""
    raw = sqlite3.connect(path, isolation_level=None, timeout=30)
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute(f"PRAGMA synchronous = {synchronous}")
    raw.execute(_TABLE)
    raw.execute(_INDEX)
    return raw


def push(raw: sqlite3.Connection, payload: dict[str, object], jobs: int) -> int:
    """Insert rows one by one, a commit each."""
    for _ in range(jobs):
        raw.execute(INSERT, _row(payload))
    return jobs


def push_many(raw: sqlite3.Connection, payload: dict[str, object], jobs: int) -> int:
    """Insert rows with ``executemany``, 1,000 a commit."""
    for start in range(0, jobs, BULK):
        raw.execute("BEGIN IMMEDIATE")
        raw.executemany(INSERT, [_row(payload) for _ in range(min(BULK, jobs - start))])
        raw.execute("COMMIT")
    return jobs


def _row(payload: dict[str, object]) -> tuple[bytes, int, bytes]:
    return uuid.uuid4().bytes, time.time_ns() // 1000, json.dumps(payload).encode()


def drain_in_batches(raw: sqlite3.Connection, _jobs: int) -> int:
    """Delete what is done and claim 100 more in one transaction, until nothing is left; decode each payload."""
    drained = 0
    done: list[tuple[bytes, int]] = []
    while True:
        raw.execute("BEGIN IMMEDIATE")
        raw.executemany(_DELETE, done)
        rows = raw.execute(_CLAIM, (BATCH,)).fetchall()
        raw.execute("COMMIT")
        drained += len(done)
        if not rows:
            return drained
        for row in rows:
            json.loads(row[2])
        done = [row[:2] for row in rows]


def drain_one_by_one(raw: sqlite3.Connection, jobs: int) -> int:
    """Claim a row and delete it, a commit each, until so many are done or nothing is left."""
    for done in range(jobs):
        rows = raw.execute(_CLAIM, (1,)).fetchall()
        if not rows:
            return done
        json.loads(rows[0][2])
        raw.execute(_DELETE, rows[0][:2])
    return jobs


def serve(database: Path, stamps: Path) -> None:
    """Poll for ever, and append the time at which each job was taken up."""
    raw = open_table(database, "NORMAL")
    out = os.open(stamps, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    while True:
        rows = raw.execute(_CLAIM, (1,)).fetchall()
        for row in rows:
            now = time.time_ns()
            os.write(out, f"{json.loads(row[2])['number']} {now}\n".encode())
            raw.execute(_DELETE, row[:2])
        if not rows:
            time.sleep(POLL_EVERY)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
