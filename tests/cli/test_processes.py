"""What only a process of its own can show: start-up, signals, pipes, a node at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from taskqueue.payload import generate_key
from tests.databases import Database, Server
from tests.node.running import until

from .conftest import ROOT, Outcome, Use, Worker, command

LOADED_LATER = ("sqlalchemy", "alembic", "cryptography", "zstandard", "fastapi", "rich", "psutil", "apscheduler")
FAILING = '{"fail": "no \\u001b]0;owned\\u0007 [red]luck"}'


pytestmark = pytest.mark.xdist_group("command line")  # one run of a node serves most of them


@dataclass(frozen=True)
class Worked:
    """A database after some work, and the key of its payloads."""

    database: Database
    key: str


@pytest.fixture(scope="session")
def worked(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Worked:
    """Make a database in which a node has run four jobs to completion and two to failure."""
    folder = tmp_path_factory.mktemp("worked")
    made = Worked(server.with_tables(folder), generate_key())

    def run(*words: str) -> None:
        environment = os.environ | {"DATABASE_URL": made.database.url, "ENCRYPTION_KEY": made.key}
        done = subprocess.run(
            command(*words), cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr

    run("queue:test", "--jobs=4", "--queue=emails")
    for _ in range(2):
        run("queue:push", "TestJob", "--queue", "emails", "--payload", FAILING, "--max-attempts", "1")
    run("queue:work", "emails", "--stop-when-empty")
    return made


@contextmanager
def running(*words: str, **keywords: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a command; whatever goes wrong in the test, it does not outlive it."""
    with subprocess.Popen(command(*words), **keywords) as started:
        try:
            yield started
        finally:
            if sys.exc_info()[0] is not None:
                started.kill()


def interrupt(started: subprocess.Popen[str]) -> None:
    """Interrupt a process until it ends: a signal just before it begins to wait is heeded only after the wait."""
    for _ in range(10):
        started.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            started.wait(2)
            return
    pytest.fail("ten interrupts did not end it")


@pytest.fixture
def after_work(worked: Worked, fresh: Worker, use: Use, tmp_path: Path) -> Iterator[Worker]:
    """Run the command line on a copy of that database."""
    copy = worked.database.copy(tmp_path)
    use(copy, worked.key)
    yield fresh
    copy.server.drop(copy)


def failed(worker: Worker) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = worker("queue:failed", "--json").document["jobs"]
    return jobs


def test_a_node_works_until_its_queue_is_empty(after_work: Worker) -> None:
    assert {"completed": 4, "failed": 2, "pending": 0}.items() <= after_work("queue:status", "--json").document[
        "totals"
    ].items()


def test_a_failed_job_is_listed_with_its_error(after_work: Worker) -> None:
    first = failed(after_work)[0]
    assert first["reason"] == "error"
    assert first["error"] == {"type": "RuntimeError", "message": "no \x1b]0;owned\x07 [red]luck"}
    assert "RuntimeError: no \\x1b]0;owned\\x07 [red]luck" in after_work("queue:failed").out


def test_a_failed_job_is_shown_with_its_attempts(after_work: Worker) -> None:
    job_id = failed(after_work)[0]["id"]
    (attempt,) = after_work("queue:show", job_id, "--json").document["attempts"]
    assert (attempt["attempt"], attempt["reason"], attempt["error"]["type"]) == (1, "error", "RuntimeError")
    shown = after_work("queue:show", job_id).out
    assert "\nattempt 1: error on node 1, " in shown
    assert "  Traceback (most recent call last):\n" in shown
    assert "\x1b" not in shown


def test_a_result_is_shown_when_asked_for(after_work: Worker) -> None:
    job = after_work("queue:list", "--state", "completed", "--limit", "1", "--json").document["jobs"][0]
    assert after_work("queue:show", job["id"], "--result", "--json").document["result"]["task"] == "test"


def test_failed_jobs_are_retried_by_filter_once_they_have_been_counted(after_work: Worker) -> None:
    refusal = after_work("queue:retry", "--all", "--queue", "emails", code=2)
    assert "2 failed jobs" in refusal.err
    assert after_work("queue:retry", "--queue", "emails", "--yes").out == "2 jobs waiting again.\n"
    assert failed(after_work) == []


def test_a_completed_job_is_not_retried(after_work: Worker) -> None:
    job = after_work("queue:list", "--state", "completed", "--limit", "1", "--json").document["jobs"][0]
    assert f"job {job['id']} is completed" in after_work("queue:retry", job["id"], code=1).err


def test_a_node_without_a_name_says_what_waits_elsewhere(worker: Worker, process: Worker) -> None:
    worker("queue:test", "--jobs=2", "--queue=emails")
    err = process("queue:work", "--stop-when-empty").err
    assert err.count("working on default alone; jobs also wait in emails 2: name these queues, or '*' for all") == 1


def test_a_queue_never_seen_is_a_warning_once_with_the_nearest(worker: Worker, process: Worker) -> None:
    worker("queue:test", "--jobs=2", "--queue=emails")
    err = process("queue:work", "emial", "--stop-when-empty").err
    assert err.count("there is no queue emial so far; did you mean emails?") == 1


def test_a_node_for_every_queue_works_on_all(worker: Worker, process: Worker) -> None:
    worker("queue:test", "--jobs=2", "--queue=emails")
    worker("queue:test", "--jobs=1", "--queue=reports")
    process("queue:work", "*", "--stop-when-empty", "--workers=2", "--memory=100", "--max-jobs=500", "--timeout=1800")
    assert worker("queue:status", "--json").document["totals"]["completed"] == 3


def test_a_node_that_is_asked_to_stop_ends_well(process: Worker, worker: Worker, tmp_cwd: Path) -> None:
    with running("queue:work", cwd=tmp_cwd, stderr=subprocess.PIPE, text=True) as node:
        assert node.stderr is not None
        while "serves default" not in node.stderr.readline():
            assert node.poll() is None
        node.send_signal(signal.SIGINT)
        node.stderr.read()
    assert node.returncode == 0


@pytest.mark.any_database
def test_a_module_that_cannot_be_imported_stops_the_node(process: Worker, worker: Worker) -> None:
    outcome = process("queue:work", "--import", "no.such.module", "--stop-when-empty", code=78)
    assert "cannot import 'no.such.module'" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.any_database
def test_the_log_of_a_node_is_json_when_so_set(process: Worker, worker: Worker) -> None:
    import json

    err = process("queue:work", "--stop-when-empty", "--log-format=json").err
    assert all(json.loads(line)["level"] for line in err.splitlines())


def test_a_payload_is_read_from_standard_input(process: Worker, worker: Worker) -> None:
    job_id = process("queue:push", "TestJob", "--payload", "-", input='{"task": "piped"}').out.strip()
    assert worker("queue:show", job_id, "--payload", "--json").document["payload"] == {"task": "piped"}


@pytest.mark.any_database
def test_a_reader_that_goes_away_is_no_error(worker: Worker, tmp_cwd: Path) -> None:
    worker("queue:test", "--jobs=2000")
    line = f"{' '.join(command('queue:list'))} --limit 2000 | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("id ")
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.any_database
def test_a_full_disk_behind_standard_output_is_one_line(worker: Worker, tmp_cwd: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("list"), cwd=tmp_cwd, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("worker: No space left on device")
    assert len(done.stderr.splitlines()) == 1


def test_an_interrupted_listing_ends_with_130_and_says_nothing(worker: Worker, tmp_cwd: Path) -> None:
    worker("queue:test", "--jobs=10000")
    reader, writer = os.pipe()  # nobody reads: the listing stands still in the middle
    words = ("queue:list", "--limit", "10000")
    with running(*words, cwd=tmp_cwd, stdout=writer, stderr=subprocess.PIPE, text=True) as listing:
        os.close(writer)
        assert os.read(reader, 1)
        interrupt(listing)
        assert listing.stderr is not None
        said = listing.stderr.read()
    os.close(reader)
    assert listing.returncode == 130
    assert said == ""


def test_listing_the_commands_loads_no_database_and_no_web(tmp_cwd: Path) -> None:
    code = (
        "import sys; from taskqueue.cli.main import main; code = main(['list']); "
        f"print([name for name in {LOADED_LATER!r} if name in sys.modules], code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_cwd, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[] 0"


def test_the_package_can_be_run_as_a_module(tmp_cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "taskqueue.cli", "help", "queue:work"],
        cwd=tmp_cwd, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("Usage: worker queue:work")


def ask(answer: str | None, *words: str, folder: Path) -> Outcome:
    """Run a command on a terminal, and answer its question once it is asked; None interrupts it instead."""
    leader, follower = os.openpty()
    with running(*words, cwd=folder, stdin=follower, stdout=follower, stderr=follower) as asking:
        os.close(follower)
        shown = b""
        while b"Go ahead?" not in shown:
            shown += os.read(leader, 65536)
        if answer is None:
            interrupt(asking)
        else:
            os.write(leader, answer.encode())
        shown += read_to_the_end(leader)
    os.close(leader)
    return Outcome(asking.returncode, shown.decode(), "")


def read_to_the_end(descriptor: int) -> bytes:
    pieces = []
    try:
        while piece := os.read(descriptor, 65536):
            pieces.append(piece)
    except OSError:  # how a terminal says that nobody writes any more
        pass
    return b"".join(pieces)


@pytest.mark.any_database
@pytest.mark.parametrize(("answer", "code", "left"), [("n\n", 1, 2), ("y\n", 0, 0), (None, 130, 2)])
def test_on_a_terminal_a_person_is_asked(
    answer: str | None, code: int, left: int, worker: Worker, tmp_cwd: Path
) -> None:
    worker("queue:test", "--jobs=2")
    asked = ask(answer, "queue:cancel", "--all", folder=tmp_cwd)
    assert asked.code == code, asked.out
    assert "queue:cancel cancels 2 jobs. Go ahead?" in asked.out
    assert worker("queue:status", "--json").document["totals"]["pending"] == left


BLOCKING = """
import sys, threading
from pathlib import Path

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "taskqueue.node.supervisor":
            Path("importing").touch()
            while True:
                threading.Event().wait(1)

sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize(("words", "code"), [(["queue:work"], 0), (["queue:status"], None)], ids=["node", "others"])
def test_a_node_that_is_told_to_stop_while_it_imports_has_nothing_to_finish(
    use: Use, worked: Worked, tmp_path: Path, words: list[str], code: int | None
) -> None:
    use(worked.database, worked.key)
    blocked = "taskqueue.node.supervisor" if code == 0 else "sqlalchemy"
    (tmp_path / "sitecustomize.py").write_text(BLOCKING.replace("taskqueue.node.supervisor", blocked))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    with running(*words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as started:
        until((tmp_path / "importing").exists, "it imports")
        started.terminate()
        assert started.wait(60) == (-signal.SIGTERM if code is None else code)
