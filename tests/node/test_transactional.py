"""Exactly-once effects: what a transactional handler writes counts once, however its worker, node or outcome ends."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskqueue import JobHandle, State
from tests.databases import Database
from tests.node.running import HERE, PATIENCE, House, house_in, until

IMPORTS = ("node_jobs", "transactional_jobs")


@pytest.fixture
def house(tmp_path: Path, database: Database) -> Iterator[House]:
    """Give a house whose nodes know transactional jobs, and a table of the user's beside ours."""
    database.run("CREATE TABLE effects (job CHAR(32), lease INTEGER)")
    shutil.copy(HERE / "transactional_jobs.py", tmp_path)
    with house_in(tmp_path, database) as made:
        yield made
    with database.engine.connect() as connection:
        database.server.end_others(connection)
    database.run("DROP TABLE effects")


def effects(house: House) -> list[tuple[str, int]]:
    return [(job, lease) for job, lease in house.rows("SELECT job, lease FROM effects")]


def assert_once(house: House, *handles: JobHandle) -> None:
    """Each of these jobs has completed, and left one effect: that of the run that completed it."""
    completed = {(handle.id.hex, house.manager.get_job(handle.id).lease) for handle in handles}
    assert {house.manager.get_job(handle.id).state for handle in handles} == {State.COMPLETED}
    assert sorted(effects(house)) == sorted(completed)


def test_the_effect_counts_once_and_the_result_is_stored(house: House) -> None:
    handles = [house.push("Pay", {"answer": number}) for number in range(20)]
    node = house.work_until_empty(2, imports=IMPORTS)

    assert_once(house, *handles)
    assert [house.manager.get_job(handle.id).result for handle in handles] == list(range(20))
    assert node.counts["completed"] == 20
    assert node.counts["stale_writes"] == 0


@pytest.mark.parametrize("place", ["before effect", "after effect", "before commit", "after commit"])
def test_a_worker_that_is_killed_leaves_the_effect_once(house: House, place: str) -> None:
    handle = house.push("Pay", {"die": place})
    node = house.work_until_empty(1, imports=IMPORTS)

    assert_once(house, handle)
    assert len(house.started(handle)) == (1 if place == "after commit" else 2)
    assert node.counts["stale_writes"] == (1 if place == "after commit" else 0)


@pytest.mark.parametrize("place", ["before rollback", "after rollback"])
def test_a_worker_that_is_killed_during_its_roll_back_leaves_the_effect_once(house: House, place: str) -> None:
    handle = house.push("Pay", {"die": place, "commit": True, "fail_until": 2}, retry_interval=0.1)
    house.start(1, imports=IMPORTS)
    handle.wait(PATIENCE)

    assert_once(house, handle)
    assert len(house.started(handle)) == 3


@pytest.mark.parametrize("place", ["after effect", "before commit"])
def test_a_node_that_is_killed_leaves_the_effect_once(house: House, place: str) -> None:
    handle = house.push("Pay", {"wait": place})
    first = house.start(1, imports=IMPORTS)
    until((house.folder / "waiting").exists, "the job waits in its transaction")
    first.kill()
    house.start(1, imports=IMPORTS)
    handle.wait(PATIENCE)

    assert_once(house, handle)
    assert len(house.started(handle)) == 2


@pytest.mark.parametrize("place", ["before effect", "after effect"])
def test_of_a_run_that_was_taken_for_dead_and_the_next_one_the_next_one_counts(house: House, place: str) -> None:
    if place != "before effect" and not house.database.server.capabilities.concurrent_writers:
        pytest.skip("a transaction that stands still after a write keeps every other node waiting here")
    handle = house.push("Pay", {"wait": place})
    first = house.start(1, imports=IMPORTS, heartbeat=0.2, lease=6)
    until((house.folder / "waiting").exists, "the job waits in its handler")
    late = int((house.folder / "waiting").read_text())
    first.signal_tree(signal.SIGSTOP)
    house.start(1, imports=IMPORTS, heartbeat=0.2, lease=6)
    handle.wait(PATIENCE)
    assert_once(house, handle)

    house.open_gate("open")
    os.kill(late, signal.SIGCONT)  # The late worker alone: nobody of its node is awake to end it.
    reported = house.folder / "reported-1"
    until(reported.exists, "the late run has come to its end")
    assert reported.read_text() == "lost"
    assert_once(house, handle)


# --- the handler's own doing --------------------------------------------------------------------------------------


def test_what_a_failed_handler_has_committed_is_not_there(house: House) -> None:
    handle = house.push("Pay", {"commit": True, "fail_until": 9}, max_attempts=1)
    house.work_until_empty(1, imports=IMPORTS)

    assert handle.record().state is State.FAILED
    assert effects(house) == []


def test_a_handler_that_rolls_back_completes_without_effect(house: House) -> None:
    handle = house.push("Pay", {"rollback": True})
    house.work_until_empty(1, imports=IMPORTS)

    assert handle.record().state is State.COMPLETED
    assert effects(house) == []


def test_a_lost_race_runs_the_handler_again_within_the_attempt(house: House) -> None:
    handle = house.push("Racing", {"races": 3}, max_attempts=1)
    house.work_until_empty(1, imports=IMPORTS)

    assert_once(house, handle)
    assert [line.what for line in house.lines] == ["run {'races': 3}"] * 4
    assert (handle.record().attempt, handle.result()) == (1, 1)


def test_a_race_that_is_lost_each_time_fails_the_attempt(house: House) -> None:
    handle = house.push("Racing", {"races": 9}, max_attempts=1)
    house.work_until_empty(1, imports=IMPORTS)

    assert (handle.record().state, handle.record().reason) == (State.FAILED, "error")
    assert len(house.lines) == 4
    assert effects(house) == []


def test_a_transaction_has_its_own_time(house: House) -> None:
    handle = house.push("Slow", max_attempts=1)
    house.work_until_empty(1, imports=IMPORTS)

    assert (handle.record().state, handle.record().reason) == (State.FAILED, "timed_out")
    assert effects(house) == []


def test_a_handler_that_wants_more_time_than_its_node_can_bear_is_cut_and_not_run_for_ever(house: House) -> None:
    if house.database.server.capabilities.concurrent_writers:
        pytest.skip("a transaction keeps nobody from beating here")
    handle = house.push("TooLong", max_attempts=1)
    node = house.work_until_empty(1, imports=IMPORTS, heartbeat=0.2, lease=6)

    assert (handle.record().state, handle.record().reason) == (State.FAILED, "timed_out")
    assert len(house.started(handle)) == 1
    assert "has transaction_timeout=28 and gets 2.3 s" in node.log
    assert "could not beat" not in node.log


def test_a_handlers_time_does_not_run_while_it_waits_for_another_one(house: House) -> None:
    handles = [house.push("Holding", max_attempts=1) for _ in range(4)]
    house.work_until_empty(4, imports=IMPORTS)

    assert_once(house, *handles)
    assert {handle.record().attempt for handle in handles} == {1}


def test_a_disk_on_which_nothing_can_be_written_spends_no_attempt_and_is_told_once(house: House) -> None:
    if house.database.server.capabilities.concurrent_writers:
        pytest.skip("the disk is the server's own matter here")
    handle = house.push("NoRoom", max_attempts=1)
    node = house.start(1, imports=IMPORTS)
    handle.wait(PATIENCE)

    assert_once(house, handle)
    assert (len(house.started(handle)), handle.record().attempt) == (3, 1)
    assert node.log.count("transactional jobs go back unspent") == 1
    assert "the database's disk is full, or can only be read" in node.log


def test_a_session_that_a_failed_handler_has_kept_is_of_no_use_to_its_hook(house: House) -> None:
    handles = [house.push("Leaking", max_attempts=1), house.push("Pay")]
    house.work_until_empty(1, imports=IMPORTS)

    assert [line.what for line in house.lines][:1] == ["UsageError"]
    assert_once(house, handles[1])


def test_a_class_may_bring_its_own_kind_of_session(house: House) -> None:
    handle = house.push("WithFactory")
    house.work_until_empty(1, imports=IMPORTS)

    assert handle.result() == "OwnSession"
    assert_once(house, handle)


def test_threads_have_a_transaction_each(house: House) -> None:
    handles = [house.push("Pay") for _ in range(20)]
    house.work_until_empty(1, imports=IMPORTS, concurrency=4)

    assert_once(house, *handles)


def test_plain_and_transactional_jobs_share_a_worker(house: House) -> None:
    paid = [house.push("Pay") for _ in range(10)]
    plain = [house.push("Quick") for _ in range(10)]
    node = house.work_until_empty(2, imports=IMPORTS)

    assert_once(house, *paid)
    assert {handle.record().state for handle in plain} == {State.COMPLETED}
    assert node.counts["completed"] == 20


# --- what goes with it --------------------------------------------------------------------------------------------


def test_a_job_that_it_pushes_is_there_when_it_has_completed(house: House) -> None:
    handle = house.push("Pay", {"child": {"unique_key": "only one"}})
    house.work_until_empty(1, imports=IMPORTS)

    assert_once(house, handle)
    assert len(house.ids_of("Child", State.COMPLETED, expected=1)) == 1


@pytest.mark.parametrize("place", ["after effect", "before commit"])
def test_a_job_that_a_killed_run_pushed_is_not_there(house: House, place: str) -> None:
    handle = house.push("Pay", {"child": {}, "die": place})
    house.work_until_empty(1, imports=IMPORTS)

    assert_once(house, handle)
    assert len(house.ids_of("Child", State.COMPLETED, expected=1)) == 1


def test_a_job_that_a_failed_run_pushed_is_not_there(house: House) -> None:
    handle = house.push("Pay", {"child": {}, "fail_until": 9}, max_attempts=1)
    house.work_until_empty(1, imports=IMPORTS)

    assert handle.record().state is State.FAILED
    assert house.manager.get_jobs(job_class="Child") == []


def test_jobs_that_wait_for_it_start(house: House) -> None:
    parent = house.push("Pay")
    child = house.push("Quick", dependencies=[parent])
    house.work_until_empty(1, imports=IMPORTS)

    assert child.record().state is State.COMPLETED
    assert_once(house, parent)


def test_its_unique_key_is_free_when_it_has_completed(house: House) -> None:
    handles = []
    for _ in range(2):
        handles.append(house.push("Pay", unique_key="account 7"))
        house.work_until_empty(1, imports=IMPORTS)

    assert_once(house, *handles)


# --- who knows of the database ------------------------------------------------------------------------------------


def test_the_way_to_the_database_is_in_no_command_line_and_no_environment(house: House) -> None:
    handle = house.push("Pay", {"wait": "after effect"})
    node = house.start(1, imports=IMPORTS)
    until((house.folder / "waiting").exists, "the job waits in its handler")
    for pid in (node.template, *node.workers):
        shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert house.url.encode() not in shown
    house.open_gate("open")
    handle.wait(PATIENCE)
