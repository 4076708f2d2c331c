"""The tables: the only description of the schema, from which statements and the migration test are made.

Live jobs and finished jobs live apart: to finish is to delete from ``tq_jobs`` and insert into ``tq_history`` in one
transaction, so a claim costs the same with ten million finished rows behind it. Times are microseconds since 1970 (UTC)
in a 64-bit integer: one type that every database orders, indexes and returns exactly, with no time zone to get wrong.
Ids are UUIDs in 16 bytes. Constants in partial indexes are literals: a bound value would not match them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BINARY,
    UUID,
    VARBINARY,
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    column,
    event,
    literal_column,
    text,
)
from sqlalchemy.types import TypeEngine

from taskqueue.states import State

PENDING = State.PENDING.code
PROCESSING = State.PROCESSING.code
DELAYED = State.DELAYED.code
BLOCKED = State.BLOCKED.code
COMPLETED = State.COMPLETED.code
FAILED = State.FAILED.code
CANCELLED = State.CANCELLED.code


_LONG = 2**32 - 1
"""The length in bytes that asks for the longest of the types where a server has several."""


class Id(TypeDecorator[bytes]):
    """A UUID as 16 bytes: native where the database has the type, binary elsewhere."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the column type for ``dialect``."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(UUID(as_uuid=False))
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(BINARY(16))
        return dialect.type_descriptor(LargeBinary(16))

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> Any:
        """Turn 16 bytes into what the database's driver takes."""
        if value is not None and dialect.name == "postgresql":
            return value.hex()
        return value

    def process_result_value(self, value: Any, dialect: Dialect) -> bytes | None:
        """Turn what the database's driver gives into 16 bytes."""
        if value is not None and dialect.name == "postgresql":
            return bytes.fromhex(str(value).replace("-", ""))
        return value  # type: ignore[no-any-return]


def _name(length: int = 64) -> String:
    """Return a type for short names, compared by their bytes on every database."""
    return String(length).with_variant(String(length, collation="utf8mb4_bin"), "mysql", "mariadb")


def _blob() -> TypeEngine[bytes]:
    return LargeBinary().with_variant(LargeBinary(_LONG), "mysql", "mariadb")


def _in_state(code: int) -> ColumnElement[bool]:
    return column("state", SmallInteger) == literal_column(str(code))


def _index_in_state(code: int, name: str, *columns: Column[Any]) -> None:
    """Index the rows in one state, or where there are no partial indexes all of them, the state first.

    Each index with the state in it costs such a database 5 to 8 microseconds of a job's 70, so only those have it that
    could not tell the rows apart without.
    """
    where = _in_state(code)
    # Two names rather than one: what is made from the list of indexes takes their names to be different.
    partial = Index(name, *columns, sqlite_where=where, postgresql_where=where, info=_ONLY)
    whole = Index(f"{name}_full", columns[0].table.c.state, *columns, info=_ELSEWHERE)
    for index in (partial, whole):
        index.ddl_if(callable_=_is_for)


def _is_for(ddl: object, target: object, bind: object, *rest: object, dialect: Dialect, **others: object) -> bool:
    del ddl, bind, rest, others
    return is_made_on(target, dialect.name)


_ONLY: dict[str, Any] = {"dialects": ("sqlite", "postgresql")}
_MYSQL = ("mysql", "mariadb")
_ELSEWHERE = {"dialects": _MYSQL}


def is_made_on(item: object, dialect: str) -> bool:
    """Say whether a table, column or index of `metadata` is there on a database: some indexes are not on each."""
    info: dict[str, Any] = getattr(item, "info", None) or {}
    return dialect in info.get("dialects", (dialect,))


Microseconds = BigInteger

metadata = MetaData()


def _identity() -> list[Column[Any]]:
    """Return the columns that a job carries from its push into history, in one order for both tables."""
    return [
        Column("id", Id, primary_key=True),
        Column("queue", _name(), nullable=False),
        Column("rank", SmallInteger, nullable=False),
        Column("job_class", _name(255), nullable=False),
        Column("state", SmallInteger, nullable=False),
        Column("created_at", Microseconds, nullable=False),
        Column("ready_at", Microseconds, nullable=False),
        Column("run_at", Microseconds),
        Column("expires_at", Microseconds),
        Column("lease", Integer, nullable=False, server_default=text("0")),
        Column("attempt", Integer, nullable=False, server_default=text("0")),
        Column("max_attempts", Integer, nullable=False),
        Column("crashes", SmallInteger, nullable=False, server_default=text("0")),
        Column("losses", SmallInteger, nullable=False, server_default=text("0")),
        Column("delivery", SmallInteger, nullable=False, server_default=text("0")),
        Column("timeout_ms", BigInteger),
        Column("memory_limit", BigInteger),
        Column("force_spawn", SmallInteger, nullable=False, server_default=text("0")),
        Column("backoff", String(100)),
        Column("on_parent_failure", SmallInteger, nullable=False, server_default=text("0")),
        Column("tags", Text),
        Column("category", _name()),
        Column("key_id", String(32), nullable=False),
        Column("unique_key", LargeBinary(32).with_variant(VARBINARY(32), "mysql", "mariadb")),
        Column("batch_id", Id),
        Column("node_id", BigInteger),
        Column("started_at", Microseconds),
        Column("progress", _blob()),
        Column("checkpoint", _blob()),
    ]


jobs = Table(
    "tq_jobs",
    metadata,
    *_identity(),
    Column("payload", _blob(), nullable=False),
    Column("claimed_at", Microseconds),
    Column("start_recorded", SmallInteger, nullable=False, server_default=text("0")),
    Column("blocked_by", SmallInteger, nullable=False, server_default=text("0")),
    Column("unmet", Integer, nullable=False, server_default=text("0")),
    Column("has_dependents", SmallInteger, nullable=False, server_default=text("0")),
    Column("cancel_requested_at", Microseconds),
    CheckConstraint("state BETWEEN 0 AND 3", name="tq_jobs_live_state"),
    CheckConstraint("lease >= 0 AND attempt >= 0", name="tq_jobs_counted"),
)

_index_in_state(PENDING, "tq_jobs_claim", jobs.c.queue, jobs.c.rank, jobs.c.ready_at, jobs.c.id)
Index(
    "tq_jobs_processing",
    jobs.c.node_id,
    sqlite_where=_in_state(PROCESSING),
    postgresql_where=_in_state(PROCESSING),
)
_index_in_state(DELAYED, "tq_jobs_delayed", jobs.c.run_at)
Index(
    "tq_jobs_blocked",
    jobs.c.blocked_by,
    jobs.c.job_class,
    sqlite_where=_in_state(BLOCKED),
    postgresql_where=_in_state(BLOCKED),
)
Index(
    "tq_jobs_unique",
    jobs.c.unique_key,
    unique=True,
    sqlite_where=text("unique_key IS NOT NULL"),
    postgresql_where=text("unique_key IS NOT NULL"),
)

history = Table(
    "tq_history",
    metadata,
    *_identity(),
    Column("payload", _blob()),
    Column("reason", String(20)),
    Column("finished_at", Microseconds, nullable=False),
    Column("run_us", BigInteger, nullable=False, server_default=text("0")),
    Column("result", _blob()),
    CheckConstraint("state BETWEEN 4 AND 6", name="tq_history_final_state"),
)
"""Finished jobs. Completed ones lose their payload unless it is to be kept; ``lease`` goes on counting at a revive."""

Index("tq_history_age", history.c.queue, history.c.state, history.c.finished_at)
Index(
    "tq_history_failed",
    history.c.queue,
    history.c.finished_at,
    sqlite_where=_in_state(FAILED),
    postgresql_where=_in_state(FAILED),
    info=_ONLY,
).ddl_if(dialect=_ONLY["dialects"])

attempts = Table(
    "tq_attempts",
    metadata,
    Column("job_id", Id, primary_key=True),
    Column("lease", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, nullable=False),
    Column("node_id", BigInteger),
    Column("reason", String(20), nullable=False),
    Column("started_at", Microseconds),
    Column("finished_at", Microseconds, nullable=False),
    Column("error_type", _name(255)),
    Column("error", _blob()),
    Column("key_id", String(32)),
)
"""One row for each attempt that did not complete; the error is sealed, its type is clear."""

tags = Table(
    "tq_tags",
    metadata,
    Column("tag", _name(), primary_key=True),
    Column("job_id", Id, primary_key=True),
)
Index("tq_tags_job", tags.c.job_id)

dependencies = Table(
    "tq_dependencies",
    metadata,
    Column("parent_id", Id, primary_key=True),
    Column("child_id", Id, primary_key=True),
)
Index("tq_dependencies_child", dependencies.c.child_id)

batches = Table(
    "tq_batches",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", _name(255)),
    Column("created_at", Microseconds, nullable=False),
    Column("finished_at", Microseconds),
    Column("total", Integer, nullable=False, server_default=text("0")),
    Column("completed", Integer, nullable=False, server_default=text("0")),
    Column("failed", Integer, nullable=False, server_default=text("0")),
    Column("cancelled", Integer, nullable=False, server_default=text("0")),
)

queues = Table(
    "tq_queues",
    metadata,
    Column("queue", _name(), primary_key=True),
    Column("paused_at", Microseconds),
    Column("note", Text),
    Column("keep_payload", SmallInteger, nullable=False, server_default=text("0")),
)

lanes = Table(
    "tq_lanes",
    metadata,
    Column("queue", _name(), primary_key=True),
    Column("rank", SmallInteger, primary_key=True, autoincrement=False),
)
"""One row for each (queue, rank) that a job was ever pushed with: claims walk lanes in order."""

nodes = Table(
    "tq_nodes",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("incarnation", Id, nullable=False, unique=True),
    Column("name", _name(255), nullable=False),
    Column("host", _name(255), nullable=False),
    Column("boot_id", String(64)),
    Column("pid_namespace", String(64)),
    Column("pid", Integer),
    Column("process_started", BigInteger),
    Column("state", String(12), nullable=False),
    Column("sequence", BigInteger, nullable=False, server_default=text("0")),
    Column("lease_ms", BigInteger, nullable=False),
    Column("started_at", Microseconds, nullable=False),
    Column("beat_at", Microseconds, nullable=False),
    Column("stopped_at", Microseconds),
    Column("info", Text),
    sqlite_autoincrement=True,
)
"""One row for each node that ever started; ids are never used again. ``info`` is JSON: queues, workers, key ids."""

keys = Table(
    "tq_keys",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("state", String(12), nullable=False),
    Column("check_value", LargeBinary(8).with_variant(VARBINARY(8), "mysql", "mariadb"), nullable=False),
    Column("created_at", Microseconds, nullable=False),
    Column("retired_at", Microseconds),
)

installation = Table(
    "tq_installation",
    metadata,
    Column("id", Id, primary_key=True),
    Column("salt", LargeBinary(16).with_variant(VARBINARY(16), "mysql", "mariadb"), nullable=False),
    Column("created_at", Microseconds, nullable=False),
)
"""One row: who this database is (so that a session of another one is noticed) and the salt for passphrases."""

counters = Table(
    "tq_counters",
    metadata,
    Column("queue", _name(), primary_key=True),
    Column("state", SmallInteger, primary_key=True, autoincrement=False),
    Column("node_id", BigInteger, primary_key=True, autoincrement=False),
    Column("jobs", BigInteger, nullable=False),
)
"""How many rows of ``tq_history`` stand in each final state, as deltas kept by each node (0: outside a node)."""

rollups = Table(
    "tq_rollups",
    metadata,
    Column("minute", Microseconds, primary_key=True, autoincrement=False),
    Column("queue", _name(), primary_key=True),
    Column("node_id", BigInteger, primary_key=True, autoincrement=False),
    Column("completed", BigInteger, nullable=False, server_default=text("0")),
    Column("failed", BigInteger, nullable=False, server_default=text("0")),
    Column("retried", BigInteger, nullable=False, server_default=text("0")),
    Column("run_us", BigInteger, nullable=False, server_default=text("0")),
    Column("run_us_most", BigInteger, nullable=False, server_default=text("0")),
    Column("wait_us", BigInteger, nullable=False, server_default=text("0")),
    Column("wait_us_most", BigInteger, nullable=False, server_default=text("0")),
)
"""What happened in each minute, by queue and node, so that no statistic counts history and no two nodes share a row."""

duties = Table(
    "tq_duties",
    metadata,
    Column("name", _name(), primary_key=True),
    Column("turn", BigInteger, nullable=False, server_default=text("0")),
    Column("node_id", BigInteger),
    Column("taken_at", Microseconds, nullable=False),
)
"""Work that one node at a time does, such as vacuuming: taken by compare-and-swap on ``turn``."""


_CHARACTERS = {"default_charset": "utf8mb4", "collate": "utf8mb4_bin"}
"""For every text: a database may have been made for one that knows few characters."""


def text_options(dialect: str) -> dict[str, str]:
    """Return the options of every table on a database: where characters are chosen for each of them, all there are."""
    return {f"{dialect}_{name}": value for name, value in _CHARACTERS.items()} if dialect in _MYSQL else {}


def _choose_characters(table: Table, connection: Connection, **others: object) -> None:
    # Not where the table is described: to name an option there loads the dialect that it is of, for 20 ms.
    del others
    table.kwargs.update(text_options(connection.dialect.name))


for _each in metadata.tables.values():
    event.listen(_each, "before_create", _choose_characters)
