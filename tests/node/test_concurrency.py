"""Workers with several places, on real processes: every kind of handler, many at a time."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections import Counter
from typing import Any

import pytest

from taskqueue import JobHandle, Priority, Reason, State
from tests.node.running import HERE, House, Line, RunningNode, job, until

IMPORTS = ("node_jobs", "concurrent_jobs")


@pytest.fixture
def house(house: House) -> House:
    """Add the jobs of these tests."""
    shutil.copy(HERE / "concurrent_jobs.py", house.folder)
    return house


def start(house: House, concurrency: int, workers: int = 1, **options: Any) -> RunningNode:
    return house.start(workers, imports=IMPORTS, concurrency=concurrency, **options)


def finish(house: House, concurrency: int, workers: int = 1, **options: Any) -> RunningNode:
    return house.work_until_empty(workers, imports=IMPORTS, concurrency=concurrency, **options)


def most_at_once(lines: list[Line]) -> int:
    """Return how many jobs ran at the same moment, by their own notes."""
    steps = sorted((line.at, 1 if line.what == "start" else -1) for line in lines if line.what in ("start", "end"))
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


def test_tasks_and_threads_run_side_by_side_up_to_the_places(house: House) -> None:
    handles = [house.push("Awaits" if number % 2 else "WaitsInThread", {"gate": "go"}) for number in range(6)]
    more = [house.push("Awaits", {"gate": "go"}) for _ in range(4)]
    start(house, 6)
    until(lambda: len(house.started()) >= 6, "six jobs run")
    house.open_gate("go")
    for handle in (*handles, *more):
        assert handle.wait(20).state is State.COMPLETED
    assert most_at_once(house.lines) == 6
    assert Counter(line.what for line in house.lines) == {"start": 10, "end": 10}
    house.assert_no_start_twice()


# --- kinds -------------------------------------------------------------------------------------------------------


@pytest.mark.any_database
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("job_class", ["Hooked", "PlainHooked"])
def test_hooks_that_are_coroutines_are_awaited_around_any_handler(
    house: House, job_class: str, concurrency: int
) -> None:
    well, ill = house.push(job_class, ["pushed"]), house.push(job_class, ["fail"], max_attempts=1)
    finish(house, concurrency)
    assert well.result() == ["pushed", "before", "handle", "after"]
    assert ill.record().reason is Reason.ERROR
    assert [line.what for line in house.lines] == ["ValueError"]


@pytest.mark.any_database
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_task_of_a_coroutine_function_runs(house: House, concurrency: int) -> None:
    handle = house.push("add_slowly", {"a": 2, "b": 3})
    finish(house, concurrency)
    assert handle.result() == 5


@pytest.mark.any_database
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_worker_keeps_one_loop_for_all_its_async_handlers(house: House, concurrency: int) -> None:
    handles = [house.push("WhichLoop") for _ in range(5)]
    finish(house, concurrency)
    assert len({handle.result() for handle in handles}) == 1
    assert len({line.pid for line in house.lines}) == 1


@pytest.mark.any_database
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_coroutine_that_a_plain_handler_returns_is_refused_by_name(house: House, concurrency: int) -> None:
    handle = house.push("ReturnsCoroutine", max_attempts=1)
    finish(house, concurrency)
    record = handle.record()
    assert (record.state, record.reason) == (State.FAILED, Reason.ERROR)
    assert record.error is not None
    assert "async def" in record.error.message


@pytest.mark.any_database
def test_what_a_job_sets_in_its_context_no_other_finds(house: House) -> None:
    handles = [house.push(kind) for kind in ("RemembersNobody", "RemembersNobodyPlainly") for _ in range(4)]
    node = finish(house, 2)
    assert {handle.result() for handle in handles} == {"nobody"}
    assert node.log.count("seen from a task") == 4
    assert node.log.count("seen from a thread") == 4


@pytest.mark.any_database
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("what", ["exit", "interrupt", "cancelled", "value"])
def test_whatever_an_async_handler_raises_ends_its_job_and_not_its_worker(
    house: House, what: str, concurrency: int
) -> None:
    handle = house.push("Raises", {"what": what}, max_attempts=1)
    after = house.push("Awaits", {"answer": 1})
    node = finish(house, concurrency)
    assert (handle.record().state, handle.record().reason) == (State.FAILED, Reason.ERROR)
    assert after.result() == 1
    assert node.counts["crashed"] == 0
    assert len({line.pid for line in house.lines}) == 1


@pytest.mark.any_database
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("where", ["callback", "task"])
@pytest.mark.parametrize("what", ["exit", "value"])
def test_an_exception_beside_the_handlers_is_logged_and_ends_nothing(
    house: House, what: str, where: str, concurrency: int
) -> None:
    handle = house.push("Raises", {"what": what, "where": where})
    after = house.push("Awaits", {"answer": 1})
    node = finish(house, concurrency)
    assert handle.result() == "survived"
    assert after.result() == 1
    assert node.counts["crashed"] == 0
    if where == "callback" or what == "exit":
        assert "beside its handler" in node.log
    assert "as wanted" not in node.log


# --- time --------------------------------------------------------------------------------------------------------


def fate(handle: JobHandle) -> tuple[State, Reason | None]:
    record = handle.wait(25)
    return record.state, record.reason


TIMED_OUT = (State.FAILED, Reason.TIMED_OUT)
COMPLETED = (State.COMPLETED, None)


@pytest.mark.any_database
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("job_class", ["Awaits", "Swallows"])
def test_a_task_whose_time_is_over_is_cancelled_and_has_timed_out_whatever_it_makes_of_that(
    house: House, job_class: str, concurrency: int
) -> None:
    handle = house.push(job_class, {"sleep": 60}, timeout=0.2, max_attempts=1)
    start(house, concurrency)
    assert fate(handle) == TIMED_OUT
    record = handle.record()
    assert record.error is not None
    assert record.error.type == "JobTimedOut"
    after = house.push("Awaits")
    assert fate(after) == COMPLETED
    assert len({line.pid for line in house.lines}) == 1, "the worker lives on"


@pytest.mark.any_database
def test_a_thread_may_look_whether_its_time_is_over(house: House) -> None:
    handle = house.push("Spins", {"look": True}, timeout=0.2, max_attempts=1)
    start(house, 3)
    record = handle.wait(25)
    assert record.state in (State.COMPLETED, State.FAILED)
    assert record.reason in (None, Reason.TIMED_OUT)


NEIGHBOURS = ["Awaits", "WaitsInThread"]


@pytest.mark.parametrize("job_class", ["DeafTask", "Spins", "Sleeps"])
def test_a_job_that_no_end_of_time_reaches_is_killed_and_its_neighbours_go_back_unspent(
    house: House, job_class: str
) -> None:
    neighbours = [house.push(each, {"gate": "go"}) for each in NEIGHBOURS]
    once = house.push("OnceAwaits", {"gate": "go"}, delivery="at_most_once", max_attempts=1)
    start(house, 4)
    for handle in (*neighbours, once):
        house.await_start(handle)
    stubborn = house.push(job_class, {"sleep": 60}, timeout=0.3, max_attempts=1)
    assert fate(stubborn) == TIMED_OUT
    house.open_gate("go")
    for handle in neighbours:
        assert fate(handle) == COMPLETED
        record = handle.record()
        assert (record.attempt, record.crashes, record.losses) == (1, 0, 0)
        assert len(house.started(handle)) == 2
    assert fate(once) == (State.FAILED, Reason.LOST)
    assert len(house.started(once)) == 1
    record = stubborn.record()
    assert (record.attempt, record.crashes, record.losses) == (1, 0, 0)
    house.assert_no_start_twice()


def test_a_job_that_blocks_the_loop_fails_none_of_its_neighbours_and_completes_alone(house: House) -> None:
    neighbours = [house.push(each, {"gate": "go"}, timeout=6, max_attempts=1) for each in NEIGHBOURS * 2]
    start(house, 8)
    for handle in neighbours:
        house.await_start(handle)
    blocker = house.push("BlocksAtFirst")
    house.await_start(blocker)
    house.open_gate("go")
    for handle in (*neighbours, blocker):
        assert fate(handle) == COMPLETED
        record = handle.record()
        assert (record.attempt, record.crashes, record.losses) == (1, 0, 1)
        assert len(house.started(handle)) == 2
    house.assert_no_start_twice()


def test_a_job_that_blocks_the_loop_beyond_its_own_time_is_found_alone(house: House) -> None:
    neighbours = [house.push(each, {"gate": "go"}) for each in NEIGHBOURS]
    start(house, 4)
    for handle in neighbours:
        house.await_start(handle)
    stubborn = house.push("Blocks", {"sleep": 60}, timeout=0.3, max_attempts=1)
    house.await_start(stubborn)
    house.open_gate("go")
    assert fate(stubborn) == TIMED_OUT
    for handle in (*neighbours, stubborn):
        record = handle.wait(25)
        assert (record.attempt, record.crashes, record.losses) == (1, 0, 1)
    assert {handle.record().state for handle in neighbours} == {State.COMPLETED}


# --- deaths ------------------------------------------------------------------------------------------------------


def test_a_worker_killed_with_many_jobs_charges_none_of_them_and_each_runs_again(house: House) -> None:
    handles = [house.push("Awaits", {"gate": "go"}) for _ in range(20)]
    once = house.push("OnceAwaits", {"gate": "go"}, delivery="at_most_once", max_attempts=1)
    node = start(house, 21)
    until(lambda: len(house.started()) == 21, "all run")
    (worker,) = node.workers
    os.kill(worker, signal.SIGKILL)
    house.open_gate("go")
    for handle in handles:
        assert fate(handle) == COMPLETED
        record = handle.record()
        assert (record.attempt, record.crashes, record.losses) == (1, 0, 1)
        assert len(house.started(handle)) == 2
    assert fate(once) == (State.FAILED, Reason.LOST)
    house.assert_no_start_twice()
    again = [line for line in house.lines if line.lease > 1 and line.what in ("start", "end")]
    assert most_at_once(again) == 1, "suspects run alone"


def test_a_job_that_kills_its_worker_beside_others_is_found_and_they_finish(house: House) -> None:
    others = [house.push("Awaits", {"sleep": 0.2}) for _ in range(10)]
    killer = house.push("KillsLater", {"gate": "go"})
    start(house, 8, crashed_again_delay=0.05)
    house.await_start(killer)
    house.open_gate("go")
    assert fate(killer) == (State.FAILED, Reason.CRASHED)
    for handle in others:
        assert fate(handle) == COMPLETED
        assert handle.record().crashes == 0
    assert killer.record().crashes == 3
    house.assert_no_start_twice()


@pytest.mark.any_database
def test_the_only_job_of_a_worker_with_many_places_is_charged_its_death(house: House) -> None:
    killer = house.push("KillsLater", {"gate": "go"})
    start(house, 8, crashed_again_delay=0.05)
    house.open_gate("go")
    assert fate(killer) == (State.FAILED, Reason.CRASHED)
    assert (killer.record().crashes, killer.record().losses) == (3, 0)


# --- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.any_database
@pytest.mark.parametrize("job_class", ["Quick", "Awaits"])
def test_the_first_job_of_a_worker_may_have_less_memory_than_a_thread_needs(house: House, job_class: str) -> None:
    limited = house.push(job_class, {"answer": 1}, memory_limit=4 * 1024**2)
    start(house, 3)
    assert fate(limited) == COMPLETED
    assert fate(house.push("Quick")) == COMPLETED


@pytest.mark.skipif(sys.platform != "linux", reason="a memory limit is enforced on Linux only")
@pytest.mark.any_database
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_payload_that_does_not_fit_its_memory_fails_the_attempt_and_charges_no_crash(
    house: House, concurrency: int
) -> None:
    handle = house.push("Quick", [{} for _ in range(90_000)], memory_limit=1024**2, max_attempts=1)
    start(house, concurrency)
    assert fate(handle) == (State.FAILED, Reason.ERROR)
    record = handle.record()
    assert record.error is not None
    assert (record.error.type, record.crashes, house.started(handle)) == ("MemoryLimitExceeded", 0, [])
    assert fate(house.push("Quick")) == COMPLETED


# --- places ------------------------------------------------------------------------------------------------------


@pytest.mark.any_database
def test_never_more_jobs_run_than_there_are_places_not_even_while_workers_are_replaced(house: House) -> None:
    handles = house.manager.push_many([job("Awaits", {"sleep": 0.02 + number % 7 / 100}) for number in range(300)])
    finish(house, 5, max_jobs=40)
    assert sorted(line.job for line in house.started()) == sorted(handles)
    assert len({line.pid for line in house.lines}) >= 300 / 40
    assert most_at_once(house.lines) <= 5
    house.assert_no_start_twice()


@pytest.mark.any_database
def test_one_long_job_of_a_worker_that_is_replaced_keeps_no_place_from_the_others(house: House) -> None:
    long = house.push("Awaits", {"gate": "go"})
    node = start(house, 4, max_jobs=10)
    house.await_start(long)
    handles = [house.push("Awaits", {"sleep": 0.01}) for _ in range(60)]
    for handle in handles:
        assert fate(handle) == COMPLETED
    assert len(node.workers) >= 2, "the first worker still has its job"
    house.open_gate("go")
    assert fate(long) == COMPLETED
    assert most_at_once(house.lines) <= 4


@pytest.mark.any_database
def test_higher_priorities_begin_first(house: House) -> None:
    priorities = [Priority.LOW, Priority.URGENT, Priority.NORMAL, Priority.HIGH] * 3
    handles = [house.push("Awaits", {"sleep": 0.01}, priority=priority) for priority in priorities]
    finish(house, 2)
    rank = {handle.id: -priority for handle, priority in zip(handles, priorities, strict=True)}
    begun = [rank[line.job] for line in house.started()]
    assert begun == sorted(begun)


@pytest.mark.any_database
def test_no_job_waits_for_a_blocked_loop_while_another_worker_is_free(house: House) -> None:
    blocked = house.push("Blocks", {"sleep": 5})
    start(house, 4, 2)
    house.await_start(blocked)
    others = [house.push("Awaits") for _ in range(30)]
    for handle in others:
        assert fate(handle) == COMPLETED
    ends = [line.at for line in house.lines if line.what == "end"]
    assert fate(blocked) == COMPLETED
    blocked_until = max(line.at for line in house.lines if line.job == blocked.id)
    assert max(ends) < blocked_until


# --- the end -----------------------------------------------------------------------------------------------------


def test_a_stop_lets_all_that_runs_finish_and_hands_back_the_rest(house: House) -> None:
    running = [house.push(each, {"gate": "go"}) for each in ("Awaits", "WaitsInThread", "Awaits")]
    node = start(house, 3)
    for handle in running:
        house.await_start(handle)
    waiting = [house.push("Awaits", {"gate": "go"}) for _ in range(5)]
    node.signal(signal.SIGTERM)
    until(lambda: "stopping" in node.log, "the node is asked to stop")
    house.open_gate("go")
    assert node.end() == 0
    assert {handle.record().state for handle in running} == {State.COMPLETED}
    assert {handle.record().state for handle in waiting} == {State.PENDING}
    assert {handle.record().attempt for handle in waiting} == {0}


@pytest.mark.any_database
def test_at_the_end_of_the_grace_all_that_runs_goes_back_unspent(house: House) -> None:
    running = [house.push(each, {"gate": "never"}) for each in ("Awaits", "WaitsInThread")]
    node = start(house, 3, grace=0.5)
    for handle in running:
        house.await_start(handle)
    assert node.stop() == 0
    for handle in running:
        record = handle.record()
        assert (record.state, record.crashes, record.losses) == (State.PENDING, 0, 0)


@pytest.mark.any_database
def test_a_node_drains_with_any_number_of_places_and_workers(house: House) -> None:
    kinds = ("Awaits", "Quick")
    handles = house.manager.push_many([job(kinds[number % 2], {"answer": number}) for number in range(1000)])
    node = finish(house, 16, 2)
    assert sorted(line.job for line in house.started()) == sorted(handles)
    assert node.counts["completed"] == 1000
    house.assert_no_start_twice()


def test_a_thousand_jobs_that_wait_a_second_take_two_on_five_hundred_places(house: House) -> None:
    handles = house.manager.push_many([job("Awaits", {"sleep": 1}) for _ in range(1000)])
    node = start(house, 500)
    until(lambda: len(house.started()) == 1000, "all have begun")
    until(lambda: sum(line.what == "end" for line in house.lines) == 1000, "all have ended")
    lines = house.lines
    assert most_at_once(lines) >= 400
    assert lines[-1].at - lines[0].at < 30
    assert node.stop() == 0
    assert sorted(line.job for line in house.started()) == sorted(handles)
