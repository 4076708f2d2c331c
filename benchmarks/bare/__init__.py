"""The bare loops: what is left when a queue is taken away, over one connection of the database's own library.

They insert, claim and delete rows of a table with the columns and the index that a claim needs, and keep, seal and
count nothing. The statements of each database stand in a module of its own, beside this one, which imports nothing but
that library: a process that runs it shows what a bare process costs.
"""

from __future__ import annotations

import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

POLL_EVERY = 0.01
BATCH = 100
BULK = 1_000
READY = b"ready\n"
"""What a process with a bare loop prints when it stands ready."""

Payload = dict[str, Any]


class Row(NamedTuple):
    """A row as it is inserted."""

    id: bytes
    ready_at: int
    payload: bytes


class Claimed(NamedTuple):
    """A row as it is claimed; the id is of the library's type."""

    id: Any
    lease: int
    payload: bytes


class BareLoop(ABC):
    """One connection to a table of jobs."""

    @abstractmethod
    def insert(self, row: Row) -> None:
        """Insert a row and commit."""

    @abstractmethod
    def insert_many(self, rows: Sequence[Row]) -> None:
        """Insert rows in the way that is fastest for many, and commit."""

    @abstractmethod
    def claim_one(self) -> list[Claimed]:
        """Claim the first row, if there is one, and commit."""

    @abstractmethod
    def delete_one(self, row: Claimed) -> None:
        """Delete a claimed row and commit."""

    @abstractmethod
    def turn(self, done: Sequence[Claimed], limit: int) -> list[Claimed]:
        """Delete what is done and claim the next rows, in one transaction."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def insert_and_wake(self, row: Row) -> None:
        """Insert a row and wake whoever waits for one, where the database can."""
        self.insert(row)

    def rest(self) -> None:
        """Wait until there may be a row."""
        time.sleep(POLL_EVERY)

    def push(self, payload: Payload, jobs: int) -> int:
        """Insert rows one by one, a commit each."""
        for _ in range(jobs):
            self.insert(row_of(payload))
        return jobs

    def push_many(self, payload: Payload, jobs: int) -> int:
        """Insert rows, 1,000 a commit."""
        for start in range(0, jobs, BULK):
            self.insert_many([row_of(payload) for _ in range(min(BULK, jobs - start))])
        return jobs

    def drain_in_batches(self) -> int:
        """Delete what is done and claim 100 more in one transaction, until nothing is left; decode each payload."""
        drained = 0
        done: list[Claimed] = []
        while True:
            rows = self.turn(done, BATCH)
            drained += len(done)
            if not rows:
                return drained
            for row in rows:
                json.loads(row.payload)
            done = rows

    def drain_one_by_one(self, jobs: int) -> int:
        """Claim a row and delete it, a commit each, until so many are done or nothing is left."""
        for done in range(jobs):
            rows = self.claim_one()
            if not rows:
                return done
            json.loads(rows[0].payload)
            self.delete_one(rows[0])
        return jobs


def row_of(payload: Payload) -> Row:
    """Return a new row."""
    return Row(uuid.uuid4().bytes, time.time_ns() // 1000, json.dumps(payload).encode())
