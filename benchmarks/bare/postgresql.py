"""A bare loop over psycopg."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from benchmarks.bare import BareLoop, Claimed, Row

_TABLE = (
    "CREATE TABLE IF NOT EXISTS jobs (id uuid PRIMARY KEY, queue text, rank smallint, state smallint, ready_at bigint,"
    " lease integer DEFAULT 0, payload bytea)"
)
_INDEX = "CREATE INDEX IF NOT EXISTS claim ON jobs (queue, rank, ready_at, id) WHERE state = 0"
_INSERT = "INSERT INTO jobs (id, queue, rank, state, ready_at, payload) VALUES (%b, 'default', 0, 0, %b, %b)"
_COPY = "COPY jobs (id, queue, rank, state, ready_at, payload) FROM STDIN (FORMAT BINARY)"
_COPIED_TYPES = ("uuid", "text", "int2", "int2", "int8", "bytea")
_CLAIM = (
    "WITH head AS MATERIALIZED (SELECT id FROM jobs WHERE queue = 'default' AND rank = 0 AND state = 0"
    " ORDER BY ready_at, id LIMIT %b FOR UPDATE SKIP LOCKED)"
    " UPDATE jobs SET state = 1, lease = lease + 1 FROM head WHERE jobs.id = head.id RETURNING jobs.id, lease, payload"
)
_DELETE = (
    "DELETE FROM jobs USING unnest(%b::uuid[], %b::integer[]) AS done (id, lease)"
    " WHERE jobs.id = done.id AND jobs.lease = done.lease"
)
_SYNC = {"full": "SET synchronous_commit = on", "normal": "SET synchronous_commit = off"}
_PLAN_ONCE = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off"
_CHANNEL = "bare_jobs"
_SECONDS_TO_LISTEN = 1.0


class _Ids(psycopg.adapt.Dumper):
    """Binds 16 bytes as an id."""

    oid = psycopg.postgres.types["uuid"].oid
    format = psycopg.pq.Format.BINARY

    def dump(self, obj: Any) -> bytes:
        return bytes(obj)


class _Id(bytes):
    """An id, so that it is not taken for a payload."""

    __slots__ = ()


class BarePostgreSQL(BareLoop):
    """A connection in autocommit mode with prepared statements and binary values."""

    def __init__(self, url: str, durability: str) -> None:
        self._raw = psycopg.connect(url, autocommit=True, prepare_threshold=None)
        self._raw.adapters.register_dumper(_Id, _Ids)
        self._raw.adapters.register_loader("uuid", psycopg.types.string.ByteaBinaryLoader)
        for statement in (_SYNC[durability], _PLAN_ONCE, "SET client_min_messages = warning", _TABLE, _INDEX):
            self._raw.execute(statement)
        self._raw.prepare_threshold = 0
        self._cursor = self._raw.cursor(binary=True)
        self._listens = False

    def insert(self, row: Row) -> None:
        self._cursor.execute(_INSERT, (_Id(row.id), row.ready_at, row.payload))

    def insert_many(self, rows: Sequence[Row]) -> None:
        with self._cursor.copy(_COPY) as copy:
            copy.set_types(_COPIED_TYPES)
            for row in rows:
                copy.write_row((_Id(row.id), "default", 0, 0, row.ready_at, row.payload))

    def insert_and_wake(self, row: Row) -> None:
        self._cursor.execute("BEGIN")
        self.insert(row)
        self._cursor.execute(f"NOTIFY {_CHANNEL}")
        self._cursor.execute("COMMIT")

    def rest(self) -> None:
        if not self._listens:
            self._cursor.execute(f"LISTEN {_CHANNEL}")
            self._listens = True
            return  # What came before is not told: look once more.
        for _ in self._raw.notifies(timeout=_SECONDS_TO_LISTEN, stop_after=1):
            return

    def claim_one(self) -> list[Claimed]:
        return self._claim(1)

    def delete_one(self, row: Claimed) -> None:
        self._delete([row])

    def turn(self, done: Sequence[Claimed], limit: int) -> list[Claimed]:
        self._cursor.execute("BEGIN")
        if done:
            self._delete(done)
        rows = self._claim(limit)
        self._cursor.execute("COMMIT")
        return rows

    def _claim(self, limit: int) -> list[Claimed]:
        return list(map(Claimed._make, self._cursor.execute(_CLAIM, (limit,)).fetchall()))

    def _delete(self, rows: Sequence[Claimed]) -> None:
        self._cursor.execute(_DELETE, ([_Id(row.id) for row in rows], [row.lease for row in rows]))

    def close(self) -> None:
        self._raw.close()


def open_bare(url: str, durability: str) -> BareLoop:
    """Connect to the database of a URL, with the table."""
    return BarePostgreSQL(url, durability)
