"""How far a job has come, as its handler says: seen from outside, written seldom, the last value always."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from taskqueue import State
from taskqueue.node.desk import PROGRESS_EVERY
from taskqueue.record import Progress
from tests.node.running import ROOT, House, until

DESK = ("node_jobs", "desk_jobs")


def shown(house: House, job_id: Any) -> dict[str, Any]:
    """Return what ``queue:show --json`` prints of a job."""
    environment = {**house.environment(), "DATABASE_URL": house.url}
    command = [sys.executable, str(ROOT / "worker"), "queue:show", str(job_id), "--json"]
    done = subprocess.run(command, cwd=house.folder, env=environment, capture_output=True, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_progress_is_seen_while_the_job_runs(desk: House) -> None:
    handle = desk.push("Steps", {"steps": [[42.5, "half way to 85"]], "gate": "open"})
    desk.start(imports=DESK)
    until(lambda: handle.record().progress == Progress(42.5, "half way to 85"), "the progress is written")
    assert handle.record().state is State.PROCESSING
    assert shown(desk, handle.id)["progress"] == {"percent": 42.5, "message": "half way to 85"}
    desk.open_gate("open")
    assert handle.wait(20).state is State.COMPLETED


def test_a_job_that_says_nothing_has_no_progress(desk: House) -> None:
    handle = desk.push("Child")
    desk.work_until_empty(imports=DESK)
    assert handle.record().progress is None


@pytest.mark.any_database
def test_ten_thousand_values_become_a_few_writes_and_the_last_one_is_kept(desk: House) -> None:
    handle = desk.push("Chatty", {"times": 10_000, "gate": "open"})
    desk.database.run("CREATE TABLE noted (progress BLOB)")
    desk.database.run(
        "CREATE TRIGGER counts_notes AFTER UPDATE OF progress ON tq_jobs WHEN new.progress IS NOT old.progress "
        "BEGIN INSERT INTO noted VALUES (new.progress); END"
    )
    node = desk.start(imports=DESK)
    desk.await_start(handle)
    desk.open_gate("open")
    took = handle.result(20)
    node.stop()
    ((writes,),) = desk.rows("SELECT COUNT(*) FROM noted")
    assert 1 <= writes <= took / 0.25 + 2
    assert handle.record().progress == Progress(99.99, "9999")


def test_a_failed_job_keeps_its_last_value_however_soon_it_came_after_the_one_before(desk: House) -> None:
    steps = [[number, f"step {number}"] for number in range(60)]
    handles = [desk.push("Steps", {"steps": steps, "then": 61, "fail": True}, max_attempts=1) for _ in range(20)]
    desk.start(2, imports=DESK)
    records = desk.manager.wait_for(handles, 30)
    assert {record.state for record in records} == {State.FAILED}
    assert {record.progress for record in records} == {Progress(61.0)}


def test_a_completed_job_keeps_its_last_value(desk: House) -> None:
    handles = [desk.push("Steps", {"steps": [[10, None], [100, "all done"]]}) for _ in range(20)]
    desk.start(2, imports=DESK)
    assert {record.progress for record in desk.manager.wait_for(handles, 30)} == {Progress(100.0, "all done")}


def test_progress_of_a_run_that_was_taken_over_is_dropped(desk: House) -> None:
    handle = desk.push("Steps", {"steps": [[1, "early"]], "gate": "open", "then": 99, "end": "end"})
    node = desk.start(imports=DESK)
    line = desk.await_start(handle)
    until(lambda: handle.record().progress == Progress(1.0, "early"), "the first value is written")
    until(lambda: time.monotonic() - line.at > PROGRESS_EVERY, "the next value may be sent at once")
    desk.database.run("UPDATE tq_jobs SET lease = lease + 1")
    desk.open_gate("open")
    until(lambda: "its progress was dropped" in node.log, "the value was refused")
    desk.open_gate("end")
    until(lambda: "its outcome was dropped" in node.log, "the outcome was refused")
    assert handle.record().progress == Progress(1.0, "early")


@pytest.mark.any_database
def test_a_message_that_is_too_long_is_cut(desk: House) -> None:
    handle = desk.push("Steps", {"steps": [[1, "m" * 5000]]})
    desk.work_until_empty(imports=DESK)
    assert handle.record().progress == Progress(1.0, "m" * 500)


def test_progress_of_a_job_that_has_written_its_outcome_itself_is_no_stale_write(desk: House) -> None:
    handles = [desk.push("Reports") for _ in range(100)]
    node = desk.work_until_empty(2, imports=DESK)
    assert {record.state for record in desk.manager.wait_for(handles, 10)} == {State.COMPLETED}
    assert (node.counts["stale_writes"], node.log.count("no longer ours")) == (0, 0)
