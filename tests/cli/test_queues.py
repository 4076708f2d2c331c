"""Pushing, reading and changing jobs from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from .conftest import Terminal, Worker

STATES = ["pending", "delayed", "blocked", "processing", "completed", "failed", "cancelled"]


def push(worker: Worker, *words: str) -> str:
    return worker("queue:push", "TestJob", *words).out.strip()


def states(worker: Worker) -> dict[str, str]:
    return {job["id"]: job["state"] for job in worker("queue:list", "--json").document["jobs"]}


# --- queue:test and queue:status -------------------------------------------------------------------------------------


def test_test_jobs_are_pushed_and_counted(worker: Worker) -> None:
    shown = worker("queue:test", "--jobs=10", "--queue=default", "--priority=5").out
    assert shown.startswith("Pushed 10 test jobs to default.\n")
    assert worker("queue:status", "--json").document["totals"]["pending"] == 10


def test_delayed_test_jobs_wait(worker: Worker) -> None:
    document = worker("queue:test", "--jobs=3", "--delay=30", "--queue=high-priority", "--json").document
    assert document["pushed"] == 3
    assert document["queue"] == "high-priority"
    assert document["queues"]["high-priority"]["delayed"] == 3


def test_no_test_jobs_are_statistics_only(worker: Worker) -> None:
    assert worker("queue:test", "--jobs=0").out == "No jobs so far.\n"
    assert worker("queue:status", "--json").document["queues"] == {}


def test_the_status_document_has_its_promised_form(worker: Worker) -> None:
    worker("queue:test", "--jobs=2", "--queue=a")
    worker("queue:test", "--jobs=1", "--queue=b", "--delay=60")
    nothing = dict.fromkeys(STATES, 0)
    document = worker("queue:status", "--json").document
    assert document == {
        "queues": {"a": nothing | {"pending": 2}, "b": nothing | {"delayed": 1}},
        "totals": nothing | {"pending": 2, "delayed": 1},
    }
    assert list(document["totals"]) == STATES


def test_the_status_of_one_queue_is_that_queue_alone(worker: Worker) -> None:
    worker("queue:test", "--jobs=2", "--queue=emails")
    worker("queue:test", "--jobs=1", "--queue=reports")
    document = worker("queue:status", "--queue", "emails", "--json").document
    assert list(document["queues"]) == ["emails"]
    assert document["totals"]["pending"] == 2


def test_a_queue_never_seen_counts_zero_and_is_said_with_the_nearest(worker: Worker) -> None:
    worker("queue:test", "--jobs=2", "--queue=emails")
    outcome = worker("queue:status", "--queue", "emial", "--json")
    assert set(outcome.document["queues"]["emial"].values()) == {0}
    assert "there is no queue emial so far; did you mean emails?" in outcome.err


def test_what_a_person_should_know_after_the_first_use_is_said_once(fresh: Worker) -> None:
    assert fresh("queue:status").err.count("made an encryption key in storage/queue.db.key") == 1
    assert fresh("queue:status").err == ""


# --- queue:push ------------------------------------------------------------------------------------------------------


def test_a_push_prints_the_id_alone(worker: Worker) -> None:
    assert UUID(push(worker)).version == 7


def test_a_job_is_pushed_with_its_options(worker: Worker) -> None:
    job_id = push(
        worker, "--payload", '{"task": "x"}', "--queue", "emails", "--priority", "high", "--tags", "a", "--tags", "b",
        "--category", "mail", "--max-attempts", "7", "--timeout", "30s", "--delay", "5m", "--expires-in", "1d",
    )  # fmt: skip
    job = worker("queue:show", job_id, "--json", "--payload").document
    expected = {
        "queue": "emails",
        "priority": 10,
        "tags": ["a", "b"],
        "category": "mail",
        "max_attempts": 7,
        "timeout": 30.0,
        "state": "delayed",
        "payload": {"task": "x"},
    }
    assert {name: job[name] for name in expected} == expected
    assert job["expires_at"]


@pytest.mark.parametrize("name", ["TestJob", "taskqueue.jobs.TestJob", "TaskQueue\\Jobs\\TestJob"])
def test_a_class_is_found_by_its_name_and_aliases(name: str, worker: Worker) -> None:
    assert worker("queue:push", name, "--json").document["job_class"] == "taskqueue.jobs.TestJob"


def test_a_payload_is_read_from_a_file(worker: Worker, tmp_cwd: Path) -> None:
    (tmp_cwd / "mail.json").write_bytes('\ufeff{"to": "a@example.org"}'.encode())
    job_id = push(worker, "--payload", "@mail.json")
    assert worker("queue:show", job_id, "--payload", "--json").document["payload"] == {"to": "a@example.org"}


def test_a_class_of_the_working_directory_is_found_by_import(worker: Worker, tmp_cwd: Path) -> None:
    module = "shop_jobs_for_the_push_test"
    (tmp_cwd / f"{module}.py").write_text(
        "from taskqueue import Job\nclass Ship(Job):\n    queue = 'parcels'\n    def handle(self): ...\n"
    )
    job = worker("queue:push", f"{module}.Ship", "--import", module, "--json").document
    assert (job["job_class"], job["queue"]) == (f"{module}.Ship", "parcels")


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_listing_has_the_newest_first_and_says_that_there_are_more(worker: Worker) -> None:
    ids = [push(worker) for _ in range(3)]
    outcome = worker("queue:list", "--limit", "2", "--json")
    assert [job["id"] for job in outcome.document["jobs"]] == [ids[2], ids[1]]
    assert "these are the newest 2 jobs; --limit shows more" in outcome.err
    assert worker("queue:list", "--limit", "3").err == ""


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--queue", "a"], {"plain", "tagged"}),
        (["--queue", "a,b"], {"plain", "tagged", "late"}),
        (["--queue", "a", "--queue", "b"], {"plain", "tagged", "late"}),
        (["--state", "delayed"], {"late"}),
        (["--state", "delayed,pending"], {"plain", "tagged", "late"}),
        (["--tag", "red"], {"tagged"}),
        (["--class", "TestJob"], {"plain", "tagged", "late"}),
        (["--class", "nothing.Such"], set()),
        (["--since", "1h"], {"plain", "tagged", "late"}),
        (["--since", "2100-01-01T00:00:00Z"], set()),
        (["--queue", "a", "--tag", "red", "--state", "pending"], {"tagged"}),
    ],
)
def test_a_listing_is_filtered(words: list[str], found: set[str], worker: Worker) -> None:
    names = {
        push(worker, "--queue", "a"): "plain",
        push(worker, "--queue", "a", "--tags", "red"): "tagged",
        push(worker, "--queue", "b", "--delay", "60"): "late",
    }
    listed = worker("queue:list", "--json", *words).document["jobs"]
    assert {names[job["id"]] for job in listed} == found


def test_nothing_to_list_is_said(worker: Worker) -> None:
    assert worker("queue:list").out == "No jobs.\n"
    assert worker("queue:failed").out == "No failed jobs.\n"


def test_a_job_is_shown_without_its_payload_unless_asked(worker: Worker) -> None:
    job_id = push(worker, "--payload", '{"secret": "canary-4711"}')
    for words in ([], ["--json"]):
        assert "canary-4711" not in worker("queue:show", job_id, *words).out
        assert "canary-4711" in worker("queue:show", job_id, *words, "--payload").out
    document = worker("queue:show", job_id, "--json").document
    assert not {"payload", "result"} & document.keys()
    assert document["attempts"] == []


def test_times_are_in_utc(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    job_id = push(worker, "--at", "2100-01-01T09:00:00+09:00")
    assert worker("queue:show", job_id, "--json").document["run_at"] == "2100-01-01T00:00:00Z"
    assert "2100-01-01T00:00:00Z (in " in worker("queue:show", job_id).out


# --- changing --------------------------------------------------------------------------------------------------------


def test_jobs_are_cancelled_by_id_and_the_others_stay(worker: Worker) -> None:
    first, second = push(worker), push(worker)
    assert worker("queue:cancel", first).out == f"{first} is cancelled\n"
    assert states(worker) == {first: "cancelled", second: "pending"}


def test_of_several_ids_those_that_can_are_done_and_the_others_are_said(worker: Worker) -> None:
    first, second = push(worker), push(worker)
    worker("queue:cancel", first)
    outcome = worker("queue:cancel", first, second, second.upper(), code=1)
    assert outcome.out == f"{second} is cancelled\n"
    assert outcome.err == f"worker: job {first} is cancelled and cannot be cancelled: only a job that waits can be\n"


def test_a_wrong_id_among_several_stops_them_all(worker: Worker) -> None:
    first = push(worker)
    worker("queue:cancel", first, "nonsense", code=2)
    assert states(worker) == {first: "pending"}


@pytest.mark.parametrize("command", ["queue:cancel", "queue:flush"])
def test_many_jobs_are_counted_and_left_alone_without_a_yes(command: str, worker: Worker) -> None:
    jobs = [push(worker, "--queue", "emails") for _ in range(2)]
    words = ["emails"] if command == "queue:flush" else ["--queue", "emails"]
    outcome = worker(command, *words, code=2)
    assert "2 jobs" in outcome.err
    assert "add --yes to go ahead" in outcome.err
    assert states(worker) == dict.fromkeys(jobs, "pending")


def test_jobs_are_cancelled_by_filter(worker: Worker) -> None:
    letters = [push(worker, "--queue", "emails") for _ in range(2)]
    other = push(worker, "--queue", "reports")
    assert worker("queue:cancel", "--queue", "emails", "--yes").out == "2 jobs cancelled.\n"
    assert states(worker) == dict.fromkeys(letters, "cancelled") | {other: "pending"}


def test_a_cancelled_job_is_retried_by_id(worker: Worker) -> None:
    job_id = push(worker)
    worker("queue:cancel", job_id)
    assert worker("queue:retry", job_id).out == f"{job_id} is waiting again\n"
    assert states(worker) == {job_id: "pending"}


def test_nothing_that_matches_is_no_failure(worker: Worker) -> None:
    assert worker("queue:retry", "--all").out == "No failed job matches.\n"
    assert worker("queue:cancel", "--all").out == "No job that waits matches.\n"
    assert worker("queue:flush").out == "No job waits.\n"
    assert worker("queue:flush", "emails").out == "No job waits in emails.\n"


def test_a_flush_removes_what_waits_in_one_queue(worker: Worker) -> None:
    push(worker, "--queue", "emails")
    kept = push(worker, "--queue", "reports")
    assert worker("queue:flush", "emails", "--yes").out == "1 job removed from emails.\n"
    assert states(worker) == {kept: "pending"}


def test_a_forgotten_job_is_gone(worker: Worker) -> None:
    job_id = push(worker)
    assert worker("queue:forget", job_id).out == f"{job_id} is forgotten\n"
    worker("queue:show", job_id, code=3)


def test_a_paused_queue_is_marked_until_it_is_resumed(worker: Worker) -> None:
    push(worker, "--queue", "emails")
    assert worker("queue:pause", "emails", "--note", "mail server is down").out == "emails is paused.\n"
    assert "emails (paused)" in worker("queue:status").out
    assert worker("queue:resume", "emails").out == "emails is open.\n"
    assert "paused" not in worker("queue:status").out


# --- what is seen ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_table_never_cuts_an_id(columns: int, worker: Worker, terminal: Callable[[int], Terminal]) -> None:
    name = "a-queue-with-a-rather-long-name-that-has-to-fold-somewhere"
    ids = [push(worker, "--queue", name) for _ in range(2)]
    screen = terminal(columns)
    worker("queue:list")
    shown = screen.shown()
    assert all(job_id in shown for job_id in ids)
    assert "\u2026" not in shown


def test_a_pipe_gets_plain_aligned_text(worker: Worker) -> None:
    job_id = push(worker, "--queue", "emails")
    head, row = worker("queue:list").out.splitlines()
    assert head.split() == ["id", "class", "queue", "state", "attempt", "pushed"]
    assert row.split()[:5] == [job_id, "taskqueue.jobs.TestJob", "emails", "pending", "0/3"]
    assert row.split()[5].endswith("Z")
    assert head.index("queue") == row.index("emails")
    assert (head + row).isascii()


def test_no_colour_is_heeded(
    worker: Worker, terminal: Callable[[int], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    push(worker)
    worker("queue:cancel", "--all", "--yes")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = terminal(200)
    worker("queue:list")
    worker("list")
    assert not any(f"\x1b[{code}m" in screen.shown() for code in (*range(30, 38), *range(90, 98)))


HOSTILE = "[red]x[/red] [link=http://a]y[/link] \x1b]0;owned\x07 \u202eevil \x9b2J"


def test_what_data_says_is_shown_and_not_obeyed_in_a_pipe(worker: Worker) -> None:
    job_id = push(worker, "--tags", HOSTILE, "--category", HOSTILE)
    shown = worker("queue:show", job_id).out
    assert not set("\x1b\x07\u202e\x9b") & set(shown)
    assert "[red]x[/red] [link=http://a]y[/link] \\x1b]0;owned\\x07 \\u202eevil \\x9b2J" in shown


def test_what_data_says_is_shown_and_not_obeyed_on_a_terminal(
    worker: Worker, terminal: Callable[[int], Terminal]
) -> None:
    job_id = push(worker, "--tags", HOSTILE)
    screen = terminal(200)
    worker("queue:show", job_id)
    shown = screen.shown()
    assert not set("\x07\u202e\x9b") & set(shown)
    assert "\x1b]" not in shown
    assert "[red]x[/red] [link=http://a]y[/link]" in shown


def test_a_document_moves_no_terminal(worker: Worker) -> None:
    outcome = worker("queue:show", push(worker, "--tags", HOSTILE), "--json")
    assert outcome.out.isascii()
    assert "\x1b" not in outcome.out
    assert outcome.document["tags"] == [HOSTILE]
