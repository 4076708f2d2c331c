"""What job modules have done in each worker, before its first job and after its last."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from taskqueue import State
from tests.node.running import House, until

HOOKS = """
import asyncio, json, os
from taskqueue import Job, on_worker_start, on_worker_stop

def leave(what, context):
    file = os.open(os.environ["TEST_FOLDER"] + "/hooks.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    line = {"what": what, "pid": os.getpid(), "index": context.index, "concurrency": context.concurrency}
    os.write(file, (json.dumps(line) + "\\n").encode())
    os.close(file)

@on_worker_start
def first(context):
    assert context.pid == os.getpid()
    context.pool = ["opened"]
    leave("first", context)

@on_worker_start
async def second(context):
    context.loop = asyncio.get_running_loop()
    leave("second", context)

@on_worker_stop
async def closes_last(context):
    leave("same loop" if asyncio.get_running_loop() is context.loop else "another loop", context)

@on_worker_stop
def closes_first(context):
    leave("closes " + ",".join(context.pool), context)
    raise RuntimeError("a hook that fails")

class Uses(Job):
    name = "Uses"
    def handle(self):
        self.context.pool.append("used")
        return [self.context.pid == os.getpid(), self.context.index]

class Misses(Job):
    name = "Misses"
    def handle(self):
        return self.context.nothing

class UsesLoop(Job):
    name = "UsesLoop"
    async def handle(self):
        return asyncio.get_running_loop() is self.context.loop
"""

FAILS = """
import os
from taskqueue import on_worker_start

@on_worker_start
def connect(context):
    if not os.path.exists(os.environ["TEST_FOLDER"] + "/healed"):
        raise ConnectionError("nobody listens at postgresql://user:hunter2@db.example.org")
"""

HANGS = """
import threading
from taskqueue import on_worker_stop

@on_worker_stop
def close_pool(context):
    threading.Event().wait()
"""


@pytest.fixture
def hooked(house: House) -> House:
    (house.folder / "hook_jobs.py").write_text(HOOKS)
    (house.folder / "failing_hooks.py").write_text(FAILS)
    return house


def hooks(house: House) -> list[dict[str, Any]]:
    file = house.folder / "hooks.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def of(house: House, pid: int) -> list[str]:
    return [each["what"] for each in hooks(house) if each["pid"] == pid]


@pytest.mark.any_database
def test_each_worker_calls_its_hooks_once_in_their_order_and_back(hooked: House) -> None:
    node = hooked.start(3, imports=("node_jobs", "hook_jobs")).await_start()
    workers = node.await_workers(3)
    until(lambda: len(hooks(hooked)) == 6, "the start-up hooks have run")
    assert {each["index"] for each in hooks(hooked)} == {0, 1, 2}
    assert node.stop() == 0
    for pid in workers:
        assert of(hooked, pid) == ["first", "second", "closes opened", "same loop"]
    assert node.log.count("hook_jobs.closes_first failed with RuntimeError") == 3


@pytest.mark.any_database
@pytest.mark.parametrize("concurrency", [1, 4])
def test_handlers_share_what_the_hooks_of_their_worker_have_made(hooked: House, concurrency: int) -> None:
    handles = [hooked.push("Uses") for _ in range(5)]
    looped, missing = hooked.push("UsesLoop"), hooked.push("Misses", max_attempts=1)
    node = hooked.start(1, imports=("node_jobs", "hook_jobs"), concurrency=concurrency)
    assert [handle.result(30) for handle in handles] == [[True, 0]] * 5
    assert looped.result(30) is True
    error = missing.wait(30).error
    assert error is not None
    assert "context.nothing" in error.message
    assert node.stop() == 0
    (closing,) = [each for each in hooks(hooked) if each["what"].startswith("closes")]
    assert closing["what"] == "closes opened" + ",used" * 5
    assert closing["concurrency"] == concurrency


@pytest.mark.any_database
def test_a_worker_that_is_replaced_calls_its_hooks_and_its_replacement_too(hooked: House) -> None:
    handles = [hooked.push("Uses") for _ in range(20)]
    node = hooked.start(1, imports=("node_jobs", "hook_jobs"), max_jobs=5)
    hooked.manager.wait_for(handles, 30)
    node.stop()
    pids = {each["pid"] for each in hooks(hooked)}
    assert len(pids) >= 4
    for pid in pids:
        assert len(of(hooked, pid)) == 4
        assert of(hooked, pid)[-1] == "same loop"


@pytest.mark.any_database
def test_a_worker_that_is_killed_calls_no_hook_and_the_next_one_starts_with_its_own(hooked: House) -> None:
    node = hooked.start(1, imports=("node_jobs", "hook_jobs")).await_start()
    (worker,) = node.await_workers(1)
    until(lambda: len(of(hooked, worker)) == 2, "the hooks have run")
    os.kill(worker, signal.SIGKILL)
    until(lambda: len({each["pid"] for each in hooks(hooked)}) == 2, "another worker has begun")
    assert of(hooked, worker) == ["first", "second"]
    assert hooked.push("Uses").wait(30).state is State.COMPLETED


@pytest.mark.any_database
def test_a_node_none_of_whose_workers_can_start_ends_and_says_why(hooked: House) -> None:
    node = hooked.start(2, imports=("node_jobs", "failing_hooks"))
    assert node.end() == 78
    assert "failing_hooks.connect failed with ConnectionError at failing_hooks.py:8" in node.log
    assert "hunter2" not in node.log
    assert "no worker can start" in node.log


@pytest.mark.any_database
def test_a_node_that_has_worked_waits_for_a_hook_that_fails_later(hooked: House) -> None:
    hooked.open_gate("healed")
    node = hooked.start(1, imports=("node_jobs", "failing_hooks")).await_start()
    assert hooked.push("Quick").wait(30).state is State.COMPLETED
    (hooked.folder / "healed").unlink()
    (worker,) = node.await_workers(1)
    os.kill(worker, signal.SIGKILL)
    until(lambda: node.log.count("failed with ConnectionError") >= 5, "the hook has failed more often than allowed")
    hooked.open_gate("healed")
    assert hooked.push("Quick").wait(60).state is State.COMPLETED
    assert node.stop() == 0


@pytest.mark.any_database
@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_shutdown_hook_that_never_returns_does_not_use_up_the_places_of_a_node(
    hooked: House, concurrency: int
) -> None:
    (hooked.folder / "hanging_hooks.py").write_text(HANGS)
    handles = [hooked.push("Quick") for _ in range(50)]  # A node with one worker has 37 places.
    modules = ("node_jobs", "hanging_hooks")
    node = hooked.start(1, imports=modules, max_jobs=1, concurrency=concurrency, leave_within=1.0)
    assert {record.state for record in hooked.manager.wait_for(handles, 120)} == {State.COMPLETED}
    until(lambda: "does every function with @on_worker_stop return?" in node.log, "a worker that hangs was ended")
    hooked.assert_no_start_twice()
