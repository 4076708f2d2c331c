"""What the product's source document promises to type works, in Python's form: its quick start and first examples.

Every promise holds on each database. In a file the first use makes one; on a server `worker db:upgrade` makes tables.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from taskqueue import Job, JobRecord, Priority, QueueManager, State
from taskqueue.jobs import TestJob
from tests.databases import Database, Server
from tests.docs.blocks import Block, Reader

KEY = "your-32-character-encryption-key"
pytestmark = pytest.mark.timeout(180)


class SendEmailJob(Job):
    """The custom job of the document: it returns nothing and notes in its payload what it did."""

    name = "tests.SendEmailJob"

    def handle(self) -> None:
        self.payload["sent_at"] = "2026-11-22 12:00:00"


@pytest.fixture
def reader(tmp_path: Path, server: Server, request: pytest.FixtureRequest) -> Reader:
    """Return a reader in an empty folder, or one who was told of a server's database."""
    reader = Reader(tmp_path)
    if not server.in_files:
        database: Database = request.getfixturevalue("database")
        reader.environment |= {"DATABASE_URL": database.url, "ENCRYPTION_KEY": KEY}
    return reader


@pytest.fixture
def url(reader: Reader) -> str:
    """Return the URL of the database that the reader's commands use."""
    return reader.environment.get("DATABASE_URL", f"sqlite:///{reader.home}/storage/queue.db")


@pytest.fixture
def manager(reader: Reader, url: str) -> QueueManager:
    """Return a manager on the database that the reader's commands use, with the reader's key."""
    reader.environment["ENCRYPTION_KEY"] = KEY
    (reader.home / "storage").mkdir()
    return QueueManager(url, encryption_key=KEY, logger=logging.getLogger("queue"))


@pytest.fixture
def opened(server: Server) -> Callable[[str], Database]:
    """Return what opens a database by its URL, to look into it."""
    return lambda url: Database(server, url, Path(url.removeprefix("sqlite:///")) if server.in_files else None)


def sh(reader: Reader, command: str) -> str:
    return reader.run(Block(Path("source.md"), 1, "bash", command), "bash", "-euo", "pipefail", "-c", command)


def totals(reader: Reader, *queue: str) -> dict[str, int]:
    printed = sh(reader, "worker queue:status --json 2>/dev/null")
    document: dict[str, Any] = json.loads(printed)
    counts: dict[str, int] = document["queues"][queue[0]] if queue else document["totals"]
    return {state: number for state, number in counts.items() if number}


def test_the_first_run_makes_five_jobs_and_works_on_them(reader: Reader) -> None:
    sh(reader, "worker queue:test --jobs=5")
    assert totals(reader) == {"pending": 5}
    sh(reader, "worker queue:work")
    assert totals(reader) == {"completed": 5}


def test_test_jobs_take_a_queue_and_a_priority(reader: Reader) -> None:
    sh(reader, "worker queue:test --jobs=5 --queue=high-priority --priority=10")
    assert totals(reader, "high-priority") == {"pending": 5}
    jobs = json.loads(sh(reader, "worker queue:list --json 2>/dev/null"))["jobs"]
    assert {job["priority"] for job in jobs} == {10}


def test_test_jobs_take_a_delay(reader: Reader) -> None:
    sh(reader, "worker queue:test --jobs=3 --delay=30")
    assert totals(reader) == {"delayed": 3}
    sh(reader, "worker queue:work")
    assert totals(reader) == {"delayed": 3}


def test_no_test_jobs_only_shows_statistics(reader: Reader) -> None:
    sh(reader, "worker queue:test --jobs=10 --queue=default --priority=5")
    assert "10" in sh(reader, "worker queue:test --jobs=0")
    assert totals(reader) == {"pending": 10}


@pytest.mark.parametrize(
    "options",
    [
        "--workers=4",
        "--memory=100",
        "--timeout=3600",
        "--max-jobs=1000",
        "--memory=100 --max-jobs=500 --timeout=1800",
        "--workers=4 --memory=100 --timeout=3600",
    ],
)
def test_workers_take_the_options_of_the_document(reader: Reader, options: str) -> None:
    sh(reader, f"worker queue:test --jobs=20; worker queue:work {options}")
    assert totals(reader) == {"completed": 20}


def test_a_worker_for_one_queue_leaves_the_others(reader: Reader) -> None:
    sh(reader, "worker queue:test --jobs=2 --queue=emails; worker queue:test --jobs=2; worker queue:work emails")
    assert totals(reader, "emails") == {"completed": 2}
    assert totals(reader, "default") == {"pending": 2}


def test_a_worker_waits_for_jobs_until_sigterm(reader: Reader, url: str) -> None:
    program = Path(reader.environment["PATH"].partition(":")[0]) / "worker"
    command = [str(program), "queue:work", "--max-time=120"]  # so that a test that fails leaves nothing for long
    with subprocess.Popen(command, cwd=reader.home, env=reader.environment, stderr=subprocess.PIPE, text=True) as node:
        assert node.stderr is not None
        while "serves default" not in (line := node.stderr.readline()):
            assert line, "the node ended by itself"
        sh(reader, "worker queue:test --jobs=5")
        try:
            with QueueManager(url, encryption_key=reader.environment.get("ENCRYPTION_KEY")) as manager:
                manager.wait_for([job.id for job in manager.get_jobs()], timeout=30)
        finally:
            node.send_signal(signal.SIGTERM)
        rest = node.stderr.read()
    assert node.returncode == 0
    assert "5 completed" in rest


@pytest.mark.any_database
def test_commands_are_listed_and_explained(reader: Reader) -> None:
    assert "queue:work" in sh(reader, "worker list")
    assert "--max-jobs" in sh(reader, "worker help queue:work")


def test_a_job_is_pushed_by_the_class_name_of_the_document(reader: Reader) -> None:
    sh(reader, r"""worker queue:push 'TaskQueue\Jobs\TestJob' --payload '{"task": "cleanup"}'; worker queue:work""")
    assert totals(reader) == {"completed": 1}


def test_the_example_of_a_push_stores_its_options(manager: QueueManager) -> None:
    manager.connect()
    job = TestJob({"data": "Hello World"}, queue="default", priority=5, tags=["example", "test"])
    manager.push(job)
    record = manager.get_job(job.id)
    assert (record.queue, record.priority, record.tags) == ("default", 5, ("example", "test"))
    assert record.payload == {"data": "Hello World"}
    manager.disconnect()


def test_the_four_priorities_have_the_numbers_of_the_document() -> None:
    assert [Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.URGENT] == [1, 5, 10, 15]


def test_tags_and_category_are_kept(manager: QueueManager) -> None:
    tags = ["maintenance", "daily", "low-priority"]
    with manager:
        job = manager.push(TestJob({"task": "cleanup"}, tags=tags, category="system_maintenance"))
        assert job.record().category == "system_maintenance"
        assert [found.id for found in manager.get_jobs(tag="daily")] == [job.id]


def test_a_custom_job_leaves_its_changed_payload_as_result(reader: Reader, manager: QueueManager) -> None:
    (reader.home / "jobs.py").write_text("from tests.docs.test_source_document import SendEmailJob\n", encoding="utf-8")
    mail = {"recipient": "user@example.com", "subject": "Welcome!", "body": "Thank you for joining us!"}
    with manager:
        job = manager.push(SendEmailJob(mail, queue="emails", priority=10, tags=["email", "welcome"]))
        sh(reader, "worker queue:work emails")
        assert job.record().result == {**mail, "sent_at": "2026-11-22 12:00:00"}


def test_statistics_have_the_keys_of_the_document(reader: Reader, manager: QueueManager) -> None:
    with manager:
        manager.push_many([TestJob({"fail": "as asked"}, max_attempts=1), TestJob({"task": "payment"})])
        sh(reader, "worker queue:work")
        manager.push(TestJob({"task": "later"}))
        stats = manager.get_queue_stats()["default"]
        assert manager.get_queue_stats("default") == {"default": stats | {"oldest_wait": pytest.approx(0, abs=60)}}
        assert stats["total_jobs"] == 3
        shown = {state: stats["by_state"].get(state, 0) for state in ("pending", "processing", "completed", "failed")}
        assert shown == {"pending": 1, "processing": 0, "completed": 1, "failed": 1}
        assert manager.get_performance_metrics()["completed"] == 1
        assert manager.get_worker_health() == []


def test_failed_jobs_are_listed_with_their_error_and_retried(reader: Reader, manager: QueueManager) -> None:
    with manager:
        manager.push(TestJob({"fail": "no route to host"}, queue="emails", max_attempts=1))
        sh(reader, "worker queue:work emails")
        (job,) = manager.get_failed_jobs("emails")
        assert described(job) == "RuntimeError: no route to host, 1/1"
        assert manager.get_failed_jobs("default") == []
        manager.retry_failed_job(str(job.id))
        assert manager.get_job(job.id).state is State.PENDING


def described(job: JobRecord) -> str:
    return f"{job.error or 'Unknown'}, {job.attempt}/{job.max_attempts}"


def test_completed_jobs_older_than_a_date_are_removed(reader: Reader, manager: QueueManager) -> None:
    with manager:
        manager.push(TestJob({"task": "backup"}))
        sh(reader, "worker queue:work")
        old = [
            job
            for job in manager.get_jobs_by_state("completed", None, 1000)
            if job.finished_at is not None and job.finished_at < datetime.now(UTC) + timedelta(days=30)
        ]
        for job in old:
            manager.delete_job(job.id)
        assert manager.get_jobs() == []


def test_payloads_are_encrypted_and_large_ones_compressed(
    manager: QueueManager, url: str, opened: Callable[[str], Database]
) -> None:
    text = "confidential words " * 1000
    with manager:
        manager.push(TestJob({"sensitive": text}))
    stored = opened(url)
    ((size,),) = stored.rows("SELECT length(payload) FROM tq_jobs")
    assert b"confidential" not in b"".join(stored.stored().values())
    assert size < len(text) // 10


@pytest.mark.any_database
def test_the_variables_of_the_document_are_settings(reader: Reader) -> None:
    reader.environment |= {
        "DB_CONNECTION": "sqlite",
        "DB_PATH": "storage/queue.db",
        "ENCRYPTION_KEY": KEY,
        "WORKER_MEMORY_LIMIT": "52428800",
        "WORKER_MAX_JOBS": "1000",
        "WORKER_TIMEOUT": "3600",
        "MAX_WORKERS": "10",
    }
    shown = sh(reader, "worker config:show 2>/dev/null")
    assert KEY not in shown
    sources = {line.split()[0]: line.split()[-1] for line in shown.splitlines() if line}
    names = ("worker.memory", "worker.max_jobs", "worker.timeout", "worker.max_workers", "database.path")
    assert {sources[name] for name in names}.isdisjoint({"default"})
