"""A bare loop over PyMySQL."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql

from benchmarks.bare import BareLoop, Claimed, Row

_TABLE = (
    "CREATE TABLE IF NOT EXISTS jobs (id BINARY(16) PRIMARY KEY, queue VARCHAR(64) COLLATE utf8mb4_bin, rank_ SMALLINT,"
    " state SMALLINT, ready_at BIGINT, lease INTEGER DEFAULT 0, payload LONGBLOB,"
    " KEY claim (state, queue, rank_, ready_at, id)) ENGINE = InnoDB"
)
_INSERT = "INSERT INTO jobs (queue, rank_, state, id, ready_at, payload) VALUES (%s, %s, %s, %s, %s, %s)"
"""Every value a placeholder: only then does the library make one statement of many rows."""
_FIXED = ("default", 0, 0)
_HEAD = (
    "SELECT id, lease + 1, payload FROM jobs WHERE state = 0 AND queue = 'default' AND rank_ = 0"
    " ORDER BY ready_at, id LIMIT %s FOR UPDATE SKIP LOCKED"
)
_TAKE = "UPDATE jobs SET state = 1, lease = lease + 1 WHERE id IN ({})"
_DELETE = "DELETE FROM jobs WHERE (id, lease) IN ({})"
_ISOLATION = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"


class BareMySQL(BareLoop):
    """A connection in autocommit mode. A claim takes two statements: there is no RETURNING for an update."""

    def __init__(self, url: str) -> None:
        self._raw = pymysql.connect(**_parts(url), charset="utf8mb4", autocommit=True)
        self._cursor = self._raw.cursor()
        self._cursor.execute(_ISOLATION)
        with contextlib.suppress(pymysql.Warning):
            self._cursor.execute(_TABLE)

    def insert(self, row: Row) -> None:
        self._cursor.execute(_INSERT, (*_FIXED, *row))

    def insert_many(self, rows: Sequence[Row]) -> None:
        self._raw.begin()
        self._cursor.executemany(_INSERT, [(*_FIXED, *row) for row in rows])
        self._raw.commit()

    def claim_one(self) -> list[Claimed]:
        return self.turn((), 1)

    def delete_one(self, row: Claimed) -> None:
        self._delete([row])

    def turn(self, done: Sequence[Claimed], limit: int) -> list[Claimed]:
        self._raw.begin()
        if done:
            self._delete(done)
        self._cursor.execute(_HEAD, (limit,))
        rows = list(map(Claimed._make, self._cursor.fetchall()))
        if rows:
            self._cursor.execute(_TAKE.format(",".join(f"0x{row.id.hex()}" for row in rows)))
        self._raw.commit()
        return rows

    def _delete(self, rows: Sequence[Claimed]) -> None:
        self._cursor.execute(_DELETE.format(",".join(f"(0x{row.id.hex()},{row.lease})" for row in rows)))

    def close(self) -> None:
        self._raw.close()


def _parts(url: str) -> dict[str, Any]:
    parsed = urlsplit(url)
    given = {"host": parsed.hostname, "port": parsed.port, "user": parsed.username, "password": parsed.password}
    named = {name: unquote(value) if isinstance(value, str) else value for name, value in given.items() if value}
    return named | {"database": parsed.path.strip("/")}


def open_bare(url: str, durability: str) -> BareLoop:
    """Connect to the database of a URL, with the table. How durable commits are, the server decides."""
    del durability
    return BareMySQL(url)
