"""The first tables."""

from __future__ import annotations

import os
import time
from uuid import uuid4

import sqlalchemy as sa
from alembic import op

from taskqueue.drivers.tables import Id, text_options

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def name(length: int = 64) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="utf8mb4_bin"), "mysql", "mariadb")


def blob() -> sa.types.TypeEngine[bytes]:
    return sa.LargeBinary().with_variant(sa.LargeBinary(2**32 - 1), "mysql", "mariadb")


def binary(length: int) -> sa.types.TypeEngine[bytes]:
    return sa.LargeBinary(length).with_variant(sa.VARBINARY(length), "mysql", "mariadb")


def counted(column: str, kind: type[sa.types.TypeEngine[int]] = sa.Integer) -> sa.Column[int]:
    return sa.Column(column, kind, nullable=False, server_default=sa.text("0"))


def key(column: str, kind: type[sa.types.TypeEngine[int]]) -> sa.Column[int]:
    return sa.Column(column, kind, primary_key=True, autoincrement=False)


def of_a_job() -> list[sa.Column]:  # type: ignore[type-arg]
    return [
        sa.Column("id", Id, primary_key=True),
        sa.Column("queue", name(), nullable=False),
        sa.Column("rank", sa.SmallInteger, nullable=False),
        sa.Column("job_class", name(255), nullable=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("ready_at", sa.BigInteger, nullable=False),
        sa.Column("run_at", sa.BigInteger),
        sa.Column("expires_at", sa.BigInteger),
        counted("lease"),
        counted("attempt"),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        counted("crashes", sa.SmallInteger),
        counted("losses", sa.SmallInteger),
        counted("delivery", sa.SmallInteger),
        sa.Column("timeout_ms", sa.BigInteger),
        sa.Column("memory_limit", sa.BigInteger),
        counted("force_spawn", sa.SmallInteger),
        sa.Column("backoff", sa.String(100)),
        counted("on_parent_failure", sa.SmallInteger),
        sa.Column("tags", sa.Text),
        sa.Column("category", name()),
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("unique_key", binary(32)),
        sa.Column("batch_id", Id),
        sa.Column("node_id", sa.BigInteger),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("progress", blob()),
        sa.Column("checkpoint", blob()),
    ]


def create_table(table: str, *parts: sa.schema.SchemaItem, **options: bool) -> sa.Table:
    return op.create_table(table, *parts, **options, **text_options(op.get_bind().dialect.name))


def partial(index: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(index, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


def in_state(code: int, index: str, table: str, columns: list[str]) -> None:
    if has_partial_indexes():
        partial(index, table, columns, f"state = {code}")
    else:
        op.create_index(f"{index}_full", table, ["state", *columns])


def has_partial_indexes() -> bool:
    return op.get_bind().dialect.name in ("sqlite", "postgresql")


def upgrade() -> None:
    if not has_partial_indexes() and is_whole():
        return
    make_jobs()
    make_history()
    make_what_hangs_on_jobs()
    make_queues()
    make_nodes()
    make_statistics()
    make_installation()


def is_whole() -> bool:
    """Say whether an earlier run made everything; what one left behind that was cut off is taken away.

    Where each table is committed as it is made, a run may end in the middle. The row of the installation comes last, so
    without it no job was ever stored here; with it only the note of the revision is missing.
    """
    there = set(sa.inspect(op.get_bind()).get_table_names())
    if "tq_installation" in there and op.get_bind().scalar(sa.text("SELECT count(*) FROM tq_installation")):
        return True
    for table in reversed(MADE.split()):
        if f"tq_{table}" in there:
            op.drop_table(f"tq_{table}")
    return False


def make_jobs() -> None:
    create_table(
        "tq_jobs",
        *of_a_job(),
        sa.Column("payload", blob(), nullable=False),
        sa.Column("claimed_at", sa.BigInteger),
        counted("start_recorded", sa.SmallInteger),
        counted("blocked_by", sa.SmallInteger),
        counted("unmet"),
        counted("has_dependents", sa.SmallInteger),
        sa.Column("cancel_requested_at", sa.BigInteger),
        sa.CheckConstraint("state BETWEEN 0 AND 3", name="tq_jobs_live_state"),
        sa.CheckConstraint("lease >= 0 AND attempt >= 0", name="tq_jobs_counted"),
    )
    in_state(0, "tq_jobs_claim", "tq_jobs", ["queue", "rank", "ready_at", "id"])
    partial("tq_jobs_processing", "tq_jobs", ["node_id"], "state = 1")
    in_state(2, "tq_jobs_delayed", "tq_jobs", ["run_at"])
    partial("tq_jobs_blocked", "tq_jobs", ["blocked_by", "job_class"], "state = 3")
    partial("tq_jobs_unique", "tq_jobs", ["unique_key"], "unique_key IS NOT NULL", unique=True)


def make_history() -> None:
    create_table(
        "tq_history",
        *of_a_job(),
        sa.Column("payload", blob()),
        sa.Column("reason", sa.String(20)),
        sa.Column("finished_at", sa.BigInteger, nullable=False),
        counted("run_us", sa.BigInteger),
        sa.Column("result", blob()),
        sa.CheckConstraint("state BETWEEN 4 AND 6", name="tq_history_final_state"),
    )
    op.create_index("tq_history_age", "tq_history", ["queue", "state", "finished_at"])
    if has_partial_indexes():
        partial("tq_history_failed", "tq_history", ["queue", "finished_at"], "state = 5")


def make_what_hangs_on_jobs() -> None:
    create_table(
        "tq_attempts",
        sa.Column("job_id", Id, primary_key=True),
        key("lease", sa.Integer),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("node_id", sa.BigInteger),
        sa.Column("reason", sa.String(20), nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger, nullable=False),
        sa.Column("error_type", name(255)),
        sa.Column("error", blob()),
        sa.Column("key_id", sa.String(32)),
    )
    create_table(
        "tq_tags",
        sa.Column("tag", name(), primary_key=True),
        sa.Column("job_id", Id, primary_key=True),
    )
    op.create_index("tq_tags_job", "tq_tags", ["job_id"])
    create_table(
        "tq_dependencies",
        sa.Column("parent_id", Id, primary_key=True),
        sa.Column("child_id", Id, primary_key=True),
    )
    op.create_index("tq_dependencies_child", "tq_dependencies", ["child_id"])
    create_table(
        "tq_batches",
        sa.Column("id", Id, primary_key=True),
        sa.Column("name", name(255)),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        counted("total"),
        counted("completed"),
        counted("failed"),
        counted("cancelled"),
    )


def make_queues() -> None:
    create_table(
        "tq_queues",
        sa.Column("queue", name(), primary_key=True),
        sa.Column("paused_at", sa.BigInteger),
        sa.Column("note", sa.Text),
        counted("keep_payload", sa.SmallInteger),
    )
    create_table(
        "tq_lanes",
        sa.Column("queue", name(), primary_key=True),
        key("rank", sa.SmallInteger),
    )


def make_nodes() -> None:
    create_table(
        "tq_nodes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("incarnation", Id, nullable=False, unique=True),
        sa.Column("name", name(255), nullable=False),
        sa.Column("host", name(255), nullable=False),
        sa.Column("boot_id", sa.String(64)),
        sa.Column("pid_namespace", sa.String(64)),
        sa.Column("pid", sa.Integer),
        sa.Column("process_started", sa.BigInteger),
        sa.Column("state", sa.String(12), nullable=False),
        counted("sequence", sa.BigInteger),
        sa.Column("lease_ms", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("beat_at", sa.BigInteger, nullable=False),
        sa.Column("stopped_at", sa.BigInteger),
        sa.Column("info", sa.Text),
        sqlite_autoincrement=True,
    )
    create_table(
        "tq_duties",
        sa.Column("name", name(), primary_key=True),
        counted("turn", sa.BigInteger),
        sa.Column("node_id", sa.BigInteger),
        sa.Column("taken_at", sa.BigInteger, nullable=False),
    )


def make_statistics() -> None:
    create_table(
        "tq_counters",
        sa.Column("queue", name(), primary_key=True),
        key("state", sa.SmallInteger),
        key("node_id", sa.BigInteger),
        sa.Column("jobs", sa.BigInteger, nullable=False),
    )
    create_table(
        "tq_rollups",
        key("minute", sa.BigInteger),
        sa.Column("queue", name(), primary_key=True),
        key("node_id", sa.BigInteger),
        counted("completed", sa.BigInteger),
        counted("failed", sa.BigInteger),
        counted("retried", sa.BigInteger),
        counted("run_us", sa.BigInteger),
        counted("run_us_most", sa.BigInteger),
        counted("wait_us", sa.BigInteger),
        counted("wait_us_most", sa.BigInteger),
    )


def make_installation() -> None:
    create_table(
        "tq_keys",
        sa.Column("key_id", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("check_value", binary(8), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("retired_at", sa.BigInteger),
    )
    installation = create_table(
        "tq_installation",
        sa.Column("id", Id, primary_key=True),
        sa.Column("salt", binary(16), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    now = time.time_ns() // 1000
    op.bulk_insert(installation, [{"id": uuid4().bytes, "salt": os.urandom(16), "created_at": now}])


MADE = """
jobs history attempts tags dependencies batches queues lanes nodes duties counters rollups keys installation
"""


def downgrade() -> None:
    for table in reversed(MADE.split()):
        op.drop_table(f"tq_{table}")
