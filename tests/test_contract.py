"""The public contract as data: what users, their scripts and their databases rely on.

A change here is a change of a promise: it needs a line in the changelog, and where something goes or changes its
meaning, a new major version. Additions are written here in the same commit.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest

import taskqueue
from taskqueue import (
    Backoff,
    Delivery,
    Job,
    JobHandle,
    JobRecord,
    OnConflict,
    ParentFailure,
    Priority,
    QueueManager,
    Reason,
    State,
    WorkerContext,
    errors,
    on_worker_start,
    on_worker_stop,
    task,
)
from taskqueue.drivers.tables import metadata
from taskqueue.drivers.values import PARENT_FAILURE_CODES, BlockedBy, QueueRow
from taskqueue.events import EVENT_NAMES
from taskqueue.ids import new_id
from taskqueue.job_options import JobOptions
from taskqueue.record import Attempt, ErrorDetails, Progress
from taskqueue.states import TRANSITIONS
from taskqueue.statistics import queue_stats, status_document

MANAGER = {
    "cancel_job": "(self, job_id: UUID | str) -> bool",
    "cancel_jobs": "(self, **conditions: Any) -> list[UUID]",
    "connect": "(self) -> QueueManager",
    "count_jobs": "(self, **conditions: Any) -> int",
    "delete_job": "(self, job_id: UUID | str) -> None",
    "delete_jobs": "(self, **conditions: Any) -> int",
    "disconnect": "(self) -> None",
    "drain_nodes": "(self, *nodes: int | str, everyone: bool = False) -> list[int]",
    "flush": "(self, queue: str | None = None) -> int",
    "from_env": "(cls, **keywords: Any) -> QueueManager",
    "get_failed_jobs": "(self, queue: str | None = None, limit: int = 100) -> list[JobRecord]",
    "get_job": "(self, job_id: UUID | str) -> JobRecord",
    "get_jobs": "(self, *, limit: int = 100, **conditions: Any) -> list[JobRecord]",
    "get_jobs_by_state": "(self, state: State | str, queue: str | None = None, limit: int = 100) -> list[JobRecord]",
    "get_performance_metrics": "(self, timeframe: float = 3600.0) -> dict[str, Any]",
    "get_queue_stats": "(self, queue: str | None = None) -> dict[str, dict[str, Any]]",
    "get_worker_health": "(self, *, everyone: bool = False) -> list[dict[str, Any]]",
    "handle": "(self, job_id: UUID | str) -> JobHandle",
    "on": "(self, event: str, listener: Listener) -> None",
    "pause_queue": "(self, queue: str, note: str | None = None) -> None",
    "purge": (
        "(self, *, older_than: float | timedelta | str | None = None, "
        "state: State | str | Sequence[State | str] | None = None, queue: str | None = None, keep: int | None = None) "
        "-> int"
    ),
    "push": "(self, job: Job, *, session: Session | Connection | None = None, **options: Any) -> JobHandle",
    "push_many": "(self, jobs: Iterable[Job], *, session: Session | Connection | None = None) -> list[UUID]",
    "push_once": "(self, job: Job, ignore_payload: bool = False, **options: Any) -> tuple[JobHandle, bool]",
    "resume_queue": "(self, queue: str) -> None",
    "retry_failed_job": "(self, job_id: UUID | str, *, delay: float = 0.0) -> JobHandle",
    "retry_failed_jobs": "(self, *, delay: float = 0.0, **conditions: Any) -> list[UUID]",
    "size": "(self, queue: str | None = None) -> int",
    "update_job": (
        "(self, job_id: UUID | str, *, queue: str | None = None, priority: int | str | None = None, "
        "run_at: datetime | str | float | None = None, delay: float | None = None, "
        "tags: Sequence[str] | None = None) -> JobRecord"
    ),
    "wait": "(self, job: Job | JobHandle | UUID | str, timeout: float | None = None) -> JobRecord",
    "wait_for": (
        "(self, jobs: Sequence[Job | JobHandle | UUID | str], timeout: float | None = None, *, throw: bool = False) "
        "-> list[JobRecord]"
    ),
}
JOB = {
    "__init__": "(self, payload: Any = None, **options: Any) -> None",
    "after": "(self, result: Any) -> Any",
    "before": "(self) -> Any",
    "checkpoint": "(self, state: Any) -> Any",
    "configure": "(self, **options: Any) -> Job",
    "handle": "(self, *_session: Any, **_nothing: Any) -> Any",
    "on_failure": "(self, error: BaseException) -> Any",
    "progress": "(self, percent: float, message: str | None = None) -> None",
    "push": "(self, job: Job, **options: Any) -> Any",
}
HANDLE = {
    "cancel": "(self) -> bool",
    "record": "(self) -> JobRecord",
    "result": "(self, timeout: float | None = None) -> Any",
    "wait": "(self, timeout: float | None = None) -> JobRecord",
}
PROPERTIES: dict[type, set[str]] = {
    QueueManager: {"driver", "notices"},
    Job: {"attempt", "context", "fencing_token", "id", "logger", "options", "should_stop", "state"},
    JobHandle: set(),
    JobRecord: {"error", "finished", "payload", "progress", "result"},
}


def signature(member: Any) -> str:
    """Return a signature as it is written, without the quotes that postponed annotations have."""
    return str(inspect.signature(getattr(member, "__func__", member))).replace("'", "")


def methods(cls: type) -> dict[str, str]:
    public = {name: member for name, member in vars(cls).items() if not name.startswith("_")}
    return {name: signature(member) for name, member in public.items() if callable(getattr(member, "__func__", member))}


# --- names and signatures ----------------------------------------------------------------------------------------


def test_the_names_of_the_package_are_these() -> None:
    assert sorted(taskqueue.__all__) == [
        "AsyncJobHandle", "AsyncQueueManager", "Backoff", "Delivery", "Job", "JobHandle", "JobRecord", "OnConflict",
        "ParentFailure", "Priority", "QueueManager", "Reason", "State", "TaskQueueError", "WorkerContext",
        "__version__", "on_worker_start", "on_worker_stop", "task",
    ]  # fmt: skip
    assert all(getattr(taskqueue, name) is not None for name in taskqueue.__all__)


def test_the_methods_of_a_manager_are_these() -> None:
    assert methods(QueueManager) == MANAGER


def test_a_manager_is_made_from_a_url_and_keywords() -> None:
    parameters = inspect.signature(QueueManager).parameters
    assert list(parameters) == ["url", "encryption_key", "logger", "events", "clock", "settings", "options"]
    assert [name for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY] == [
        "encryption_key", "logger", "events", "clock", "settings",
    ]  # fmt: skip


def test_the_methods_of_a_job_are_these() -> None:
    assert {"__init__": signature(Job.__init__), **methods(Job)} == JOB


def test_a_worker_is_known_to_its_hooks_by_these() -> None:
    assert str(inspect.signature(WorkerContext)).replace("'", "") == (
        "(index: int, pid: int, concurrency: int = 1) -> None"
    )
    assert vars(WorkerContext(2, 77, 5)) == {"index": 2, "pid": 77, "concurrency": 5}
    assert [signature(each) for each in (on_worker_start, on_worker_stop)] == ["(hook: H) -> H"] * 2


def test_progress_has_these_fields() -> None:
    assert [field.name for field in fields(Progress)] == ["percent", "message"]


def test_the_methods_of_a_handle_are_these() -> None:
    assert methods(JobHandle) == HANDLE
    assert [field.name for field in fields(JobHandle) if not field.name.startswith("_")] == ["id"]


@pytest.mark.parametrize("cls", list(PROPERTIES), ids=lambda cls: str(cls.__name__))
def test_the_properties_are_these(cls: type) -> None:
    public = {name for name, member in vars(cls).items() if isinstance(member, property) and name[0] != "_"}
    assert public == PROPERTIES[cls]


def test_a_task_is_made_with_or_without_options() -> None:
    assert signature(task) == "(function: Callable[P, R] | None = None, /, **options: Any) -> Any"


def test_the_options_of_a_job_are_these_with_these_defaults() -> None:
    assert {field.name: getattr(JobOptions(), field.name) for field in fields(JobOptions)} == {
        "queue": "default", "priority": 5, "tags": (), "category": None, "delay": None, "at": None, "run_at": None,
        "expires_in": None, "max_attempts": 3, "retry_interval": None, "backoff": None, "timeout": None,
        "memory_limit": None, "force_spawn": False,
        "delivery": Delivery.AT_LEAST_ONCE, "unique_key": None, "on_conflict": OnConflict.ERROR,
        "dependencies": (), "on_parent_failure": ParentFailure.FAIL,
    }  # fmt: skip


def test_a_backoff_grows_from_ten_seconds_to_an_hour() -> None:
    assert Backoff() == Backoff(base=10.0, factor=2.0, cap=3600.0, jitter=0.25)


# --- values ------------------------------------------------------------------------------------------------------


def test_priorities_have_these_numbers() -> None:
    assert {each.name: each.value for each in Priority} == {"LOW": 1, "NORMAL": 5, "HIGH": 10, "URGENT": 15}


def test_states_have_these_names_and_stored_numbers() -> None:
    assert [(state.value, state.code) for state in State] == [
        ("pending", 0), ("processing", 1), ("delayed", 2), ("blocked", 3), ("completed", 4), ("failed", 5),
        ("cancelled", 6),
    ]  # fmt: skip


def test_reasons_have_these_names() -> None:
    assert [reason.value for reason in Reason] == [
        "error", "timed_out", "crashed", "lost", "expired", "undecryptable", "dependency_failed",
    ]  # fmt: skip


def test_deliveries_have_these_names() -> None:
    assert [each.value for each in Delivery] == ["at_least_once", "at_most_once"]


def test_what_a_child_does_when_a_parent_fails_has_these_names_and_stored_numbers() -> None:
    assert [(each.value, code) for each, code in PARENT_FAILURE_CODES.items()] == [
        ("fail", 0), ("cancel", 1), ("run", 2), ("wait", 3),
    ]  # fmt: skip


def test_what_becomes_of_a_conflict_has_these_names() -> None:
    assert [each.value for each in OnConflict] == ["error", "keep", "replace"]


def test_what_a_job_is_blocked_by_has_these_stored_numbers() -> None:
    assert {each.name: each.value for each in BlockedBy} == {
        "NOTHING": 0, "PARENTS": 1, "UNKNOWN_CLASS": 2, "UNKNOWN_KEY": 3,
    }  # fmt: skip


def test_events_have_these_names() -> None:
    assert EVENT_NAMES == (
        "waiting", "postponed", "processing", "done", "failed", "timeout", "cancel", "worker_spawn", "worker_kill",
    )  # fmt: skip


def test_what_may_follow_what_is_this() -> None:
    table = {
        verb.value: (
            " ".join(sorted(move.sources)), " ".join(sorted(move.targets)), "rises" if move.raises_lease else ""
        )
        for verb, move in TRANSITIONS.items()
    }  # fmt: skip
    assert table == {
        "push": ("", "blocked delayed pending", ""),
        "promote": ("delayed", "pending", ""),
        "unblock": ("blocked", "cancelled delayed failed pending", ""),
        "claim": ("pending", "processing", "rises"),
        "complete": ("processing", "completed", ""),
        "retry": ("processing", "delayed pending", "rises"),
        "fail": ("processing", "failed", ""),
        "release": ("processing", "delayed pending", "rises"),
        "park": ("processing", "blocked", "rises"),
        "rescue": ("processing", "failed pending", "rises"),
        "cancel": ("blocked delayed pending processing", "cancelled", ""),
        "revive": ("cancelled failed", "delayed pending", "rises"),
        "purge": ("cancelled completed failed", "", ""),
    }


# --- errors ------------------------------------------------------------------------------------------------------

EXIT_CODES = {
    1: "TaskQueueError JobError JobFailed JobLost InvalidTransition DuplicateJob CannotOpen StoreError",
    2: "UsageError InvalidOption PayloadError PayloadTypeError PayloadTooLarge PayloadTooDeep DependencyError "
    "NotRunning",
    3: "NotFound JobNotFound UnknownJobClass",
    69: "DatabaseUnreachable",
    75: "DatabaseBusy StorageFull WaitTimeout",
    78: (
        "ConfigurationError InvalidSetting SettingsConflict UnknownSetting KeyMissing KeyRejected ImportFailed "
        "SchemaError"
    ),
}


def test_errors_have_these_exit_codes() -> None:
    tree = {
        name: each.exit_code
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, errors.TaskQueueError)
    }
    assert tree == {name: code for code, names in EXIT_CODES.items() for name in names.split()}


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.InvalidOption, ValueError),
        (errors.PayloadTypeError, TypeError),
        (errors.PayloadTooLarge, ValueError),
        (errors.PayloadTooDeep, ValueError),
        (errors.JobNotFound, LookupError),
        (errors.NotRunning, RuntimeError),
        (errors.WaitTimeout, TimeoutError),
    ],
)
def test_an_error_can_be_caught_as_python_names_it(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, builtin)


# --- records and documents ---------------------------------------------------------------------------------------

RECORD = (
    "id", "job_class", "queue", "priority", "state", "reason", "tags", "category", "attempt", "max_attempts", "lease",
    "crashes", "losses", "delivery", "timeout", "memory_limit", "force_spawn", "created_at", "ready_at", "run_at",
    "expires_at", "started_at", "finished_at", "duration", "node_id", "blocked_by", "key_id", "attempts",
    "dependencies",
)  # fmt: skip


def test_the_fields_of_a_record_are_these() -> None:
    assert tuple(field.name for field in fields(JobRecord) if not field.name.startswith("_")) == RECORD


def test_the_fields_of_an_attempt_and_its_error_are_these() -> None:
    assert [field.name for field in fields(Attempt)] == [
        "attempt", "lease", "node_id", "reason", "started_at", "finished_at", "error",
    ]  # fmt: skip
    assert [field.name for field in fields(ErrorDetails)] == ["type", "message", "traceback"]


def test_the_json_form_of_a_job_is_this() -> None:
    at = datetime(2026, 11, 22, 14, 3, 7, tzinfo=UTC)
    record = JobRecord(
        id=new_id(), job_class="app.Mail", queue="mails", priority=5, state=State.FAILED, reason=Reason.ERROR,
        tags=("a",), category=None, attempt=1, max_attempts=3, lease=1, crashes=0, losses=0,
        delivery=Delivery.AT_LEAST_ONCE, timeout=1.5, memory_limit=50, force_spawn=True, created_at=at, ready_at=at,
        run_at=None, expires_at=None, started_at=at, finished_at=at, duration=0.25, node_id=1, blocked_by=None,
        key_id="k1",
    )  # fmt: skip
    assert json.loads(json.dumps(record.to_json())) == {
        "id": str(record.id),
        "job_class": "app.Mail",
        "queue": "mails",
        "priority": 5,
        "state": "failed",
        "reason": "error",
        "tags": ["a"],
        "category": None,
        "attempt": 1,
        "max_attempts": 3,
        "crashes": 0,
        "losses": 0,
        "delivery": "at_least_once",
        "timeout": 1.5,
        "memory_limit": 50,
        "force_spawn": True,
        "duration": 0.25,
        "node_id": 1,
        "blocked_by": None,
        "dependencies": [],
        "key_id": "k1",
        "created_at": "2026-11-22T14:03:07Z",
        "ready_at": "2026-11-22T14:03:07Z",
        "run_at": None,
        "expires_at": None,
        "started_at": "2026-11-22T14:03:07Z",
        "finished_at": "2026-11-22T14:03:07Z",
    }


def test_the_status_document_is_this() -> None:
    rows = [QueueRow("a", {State.PENDING: 2, State.FAILED: 1}), QueueRow("b", {State.COMPLETED: 5})]
    document = json.loads(json.dumps(status_document(rows)))
    empty = dict.fromkeys(
        ("pending", "delayed", "blocked", "processing", "completed", "failed", "cancelled"), 0
    )  # fmt: skip
    assert document == {
        "queues": {"a": {**empty, "pending": 2, "failed": 1}, "b": {**empty, "completed": 5}},
        "totals": {**empty, "pending": 2, "failed": 1, "completed": 5},
    }
    assert list(document["totals"]) == list(empty)


def test_queue_statistics_have_this_shape() -> None:
    stats = queue_stats([QueueRow("a", {State.PENDING: 1}, oldest_ready_at=1_000_000)], 3_000_000)
    assert stats == {
        "a": {
            "total_jobs": 1,
            "by_state": {**dict.fromkeys((state.value for state in State), 0), "pending": 1},
            "paused": False,
            "oldest_wait": 2.0,
        }
    }


# --- the database ------------------------------------------------------------------------------------------------

_CARRIED = (
    "id queue rank job_class state created_at ready_at run_at expires_at lease attempt max_attempts crashes losses "
    "delivery timeout_ms memory_limit force_spawn backoff on_parent_failure tags category key_id unique_key batch_id "
    "node_id started_at progress checkpoint"
)
TABLES = {
    "tq_attempts": "job_id lease attempt node_id reason started_at finished_at error_type error key_id",
    "tq_batches": "id name created_at finished_at total completed failed cancelled",
    "tq_counters": "queue state node_id jobs",
    "tq_dependencies": "parent_id child_id",
    "tq_duties": "name turn node_id taken_at",
    "tq_history": f"{_CARRIED} payload reason finished_at run_us result",
    "tq_installation": "id salt created_at",
    "tq_jobs": (
        f"{_CARRIED} payload claimed_at start_recorded blocked_by unmet has_dependents cancel_requested_at"
    ),
    "tq_keys": "key_id state check_value created_at retired_at",
    "tq_lanes": "queue rank",
    "tq_nodes": (
        "id incarnation name host boot_id pid_namespace pid process_started state sequence lease_ms started_at "
        "beat_at stopped_at info"
    ),
    "tq_queues": "queue paused_at note keep_payload",
    "tq_rollups": "minute queue node_id completed failed retried run_us run_us_most wait_us wait_us_most",
    "tq_tags": "tag job_id",
}  # fmt: skip


def test_the_tables_and_their_columns_are_these() -> None:
    """A change of a table needs a migration; what is released here has rows in it elsewhere."""
    found = {table.name: " ".join(column.name for column in table.columns) for table in metadata.sorted_tables}
    assert found == TABLES
