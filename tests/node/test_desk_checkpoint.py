"""What a job stores of its own state: durable when the call returns, there for every later attempt, sealed."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from taskqueue import State
from tests.node.running import House, until

DESK = ("node_jobs", "desk_jobs")
CANARY = "kanarienvogel-2b77d1e0aa"


def found(handle: Any, wait: float = 30) -> Any:
    return handle.result(wait)


def test_a_second_attempt_finds_the_state_of_the_first(desk: House) -> None:
    handle = desk.push("Remembers", {"state": {"page": 7, "of": (1, 2)}, "fail": True}, retry_interval=0)
    desk.start(imports=DESK)
    state = {"page": 7, "of": (1, 2)}
    assert found(handle) == {"found": state, "now": state}


def test_within_an_attempt_the_state_is_that_of_the_last_checkpoint(desk: House) -> None:
    handle = desk.push("Remembers", {"state": [1, 2]})
    desk.start(imports=DESK)
    assert found(handle) == {"found": None, "now": [1, 2]}


def test_a_checkpoint_survives_the_kill_of_its_worker_right_after_it(desk: House) -> None:
    handle = desk.push("Counts", {"die_at": 4})
    desk.start(imports=DESK)
    assert found(handle) == [1, 2, 3, 4, 5, 6]
    assert [line.what for line in desk.lines] == ["dies"]


def test_a_checkpoint_survives_the_kill_of_its_node(desk: House) -> None:
    handle = desk.push("Remembers", {"state": "kept", "gate": "open-{lease}"})
    node = desk.start(imports=DESK, heartbeat=0.1, lease=6)
    first = desk.await_start(handle)
    node.kill()
    desk.open_gate(f"open-{first.lease + 1}")
    desk.open_gate(f"open-{first.lease + 2}")
    desk.start(imports=DESK, heartbeat=0.1, lease=6)
    assert found(handle, 60) == {"found": "kept", "now": "kept"}


def test_a_failed_job_that_is_retried_by_hand_goes_on_from_its_state(desk: House) -> None:
    handle = desk.push("Remembers", {"state": "kept", "fail": True}, max_attempts=1)
    desk.start(imports=DESK)
    assert handle.wait(30).state is State.FAILED
    desk.manager.retry_failed_job(handle.id)
    assert found(handle) == {"found": "kept", "now": "kept"}


def test_neither_state_nor_progress_nor_a_pushed_payload_is_written_in_clear(desk: House) -> None:
    for where in ("Remembers", "Steps", "Pushes"):
        payload = {
            "state": {"secret": CANARY}, "steps": [[50, CANARY]], "child": {"secret": CANARY}, "fail": True,
            "options": {"delay": 3600, "unique_key": CANARY},
        }  # fmt: skip
        desk.push(where, payload, max_attempts=1)
    desk.start(imports=DESK)
    records = desk.manager.wait_for(
        [*desk.ids_of("Remembers", State.FAILED, expected=1), *desk.ids_of("Pushes", State.COMPLETED, expected=1)], 30
    )
    assert len(records) == 2
    desk.ids_of("Steps", State.FAILED, expected=1)
    desk.ids_of("Child", State.DELAYED, expected=1)
    ((progress,),) = desk.rows("SELECT progress FROM tq_history WHERE progress IS NOT NULL")
    ((checkpoint,),) = desk.rows("SELECT checkpoint FROM tq_history WHERE checkpoint IS NOT NULL")
    assert len(bytes(progress)) > 20 < len(bytes(checkpoint))
    desk.manager.disconnect()
    files = {path.name: path.read_bytes() for path in desk.folder.iterdir() if path.is_file() and path.suffix != ".py"}
    written = {**desk.database.stored(), **files}
    assert "node-0.log" in written
    assert [name for name, content in written.items() if CANARY.encode() in content] == []


def test_a_run_that_was_taken_over_stores_no_state_and_its_handler_learns_of_it(desk: House) -> None:
    handle = desk.push("Patient", {})
    node = desk.start(imports=DESK)
    desk.await_start(handle)
    desk.database.run("UPDATE tq_jobs SET lease = lease + 1")
    node.signal(signal.SIGTERM)
    until(lambda: [line for line in desk.lines if line.what == "lost"], "the handler got JobLost")
    node.end()
    assert desk.rows("SELECT COUNT(*) FROM tq_jobs WHERE checkpoint IS NOT NULL") == [(0,)]
    assert node.counts["stale_writes"] >= 1


@pytest.mark.any_database
def test_the_end_of_a_jobs_time_in_the_midst_of_its_requests_harms_no_other_job(desk: House) -> None:
    late = [desk.push("Late", {}, timeout=0.2 + number / 100, max_attempts=1) for number in range(10)]
    others = [desk.push("Remembers", {"state": number}) for number in range(10)]
    desk.start(1, imports=DESK)
    records = desk.manager.wait_for([*late, *others], 60)
    assert [record.reason for record in records[:10]] == ["timed_out"] * 10
    assert [record.result for record in records[10:]] == [{"found": None, "now": number} for number in range(10)]
    assert len({line.pid for line in desk.lines}) == 1
