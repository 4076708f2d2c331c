"""``node:list``, ``node:drain``, and the numbers of workers of ``queue:work``."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from taskqueue import QueueManager
from taskqueue.drivers.values import NodeIdentity
from taskqueue.ids import new_id

from .conftest import Worker, command

NODE = {
    "queues": ["default"], "pm": "dynamic", "min_workers": 1, "max_workers": 4, "concurrency": 1, "workers": 2,
    "busy": 1, "in_hand": 3, "healthy": True, "key_ids": [],
}  # fmt: skip
PATIENCE = 60.0


@pytest.fixture
def manager(worker: Worker) -> Iterator[QueueManager]:
    """Give a manager on the database of the command line."""
    worker("queue:status")
    with QueueManager.from_env() as made:
        yield made


def register(manager: QueueManager, name: str = "one", **told: Any) -> int:
    """Store a node as if it ran on another machine."""
    info = json.dumps({**NODE, **told})
    return manager.driver.register_node(
        NodeIdentity(new_id().bytes, name, "there", "boot", "pid:[1]", 7, 1, 30_000, info)
    )


def nodes(worker: Worker, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = worker("node:list", "--json", *words).document["nodes"]
    return found


# --- node:list -------------------------------------------------------------------------------------------------------


def test_without_nodes_the_list_says_so(worker: Worker) -> None:
    assert worker("node:list").out == "No node is running.\n"
    assert worker("node:list", "--all").out == "No node has run so far.\n"
    assert nodes(worker) == []


def test_the_document_of_a_node_has_its_promised_form(worker: Worker, manager: QueueManager) -> None:
    node_id = register(manager)
    (node,) = nodes(worker)
    assert list(node) == [
        "id", "name", "host", "pid", "state", "started_at", "stopped_at", "seconds_since_beat", *NODE,
    ]  # fmt: skip
    assert node.pop("started_at").endswith("Z")
    assert 0 <= node.pop("seconds_since_beat") < PATIENCE
    assert node == {
        "id": node_id,
        "name": "one",
        "host": "there",
        "pid": 7,
        "state": "alive",
        "stopped_at": None,
        **NODE,
    }


def test_a_table_shows_workers_and_how_many_are_busy(worker: Worker, manager: QueueManager) -> None:
    register(manager)
    register(manager, "two", concurrency=8)
    head, first, second = worker("node:list").out.splitlines()
    assert head.split()[:5] == ["id", "name", "host", "pid", "state"]
    assert first.split()[1:5] == ["one", "there", "7", "alive"]
    assert "2 x 8" in second


def test_nodes_that_ended_are_listed_when_asked_for(worker: Worker, manager: QueueManager) -> None:
    stopped, dead, alive = (register(manager, name) for name in ("stopped", "dead", "alive"))
    manager.driver.stop_node(stopped)
    manager.driver.declare_dead(dead, 0)
    assert [node["id"] for node in nodes(worker)] == [alive]
    assert [node["state"] for node in nodes(worker, "--all")] == ["stopped", "dead", "alive"]
    assert "stopped" in worker("node:list", "--all").out


def test_a_name_is_shown_and_not_obeyed_by_the_terminal(worker: Worker, manager: QueueManager) -> None:
    register(manager, "\x1b]0;owned\x07")
    assert "\x1b" not in worker("node:list").out


# --- node:drain ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["id", "name"])
def test_a_node_is_asked_to_drain_by_id_or_name(worker: Worker, manager: QueueManager, by: str) -> None:
    asked, other = register(manager, "asked"), register(manager, "other")
    out = worker("node:drain", str(asked) if by == "id" else "asked").out
    assert out == f"Asked 1 node to stop: {asked}.\n"
    assert {node["id"]: node["state"] for node in nodes(worker)} == {asked: "draining", other: "alive"}


def test_every_node_is_asked_with_all(worker: Worker, manager: QueueManager) -> None:
    asked = [register(manager, name) for name in ("one", "two")]
    assert worker("node:drain", "--all").out == f"Asked 2 nodes to stop: {asked[0]}, {asked[1]}.\n"
    assert {node["state"] for node in nodes(worker)} == {"draining"}


def test_all_of_no_nodes_is_no_error(worker: Worker) -> None:
    assert worker("node:drain", "--all", "--wait", "1").out == "Asked 0 nodes to stop.\n"


def test_an_unknown_node_is_not_found_and_nobody_is_asked(worker: Worker, manager: QueueManager) -> None:
    register(manager, "web-1")
    refused = worker("node:drain", "web-1", "web-2", code=3)
    assert "web-2" in refused.err
    assert "web-1" in refused.err  # as what may have been meant
    assert [node["state"] for node in nodes(worker)] == ["alive"]


def test_a_node_that_has_stopped_is_not_found(worker: Worker, manager: QueueManager) -> None:
    node = register(manager)
    manager.driver.stop_node(node)
    worker("node:drain", str(node), code=3)


def test_a_name_of_several_nodes_is_refused_with_their_ids(worker: Worker, manager: QueueManager) -> None:
    ids = [register(manager, "host"), register(manager, "host")]
    refused = worker("node:drain", "host", code=2)
    assert f"{ids[0]}, {ids[1]}" in refused.err
    assert {node["state"] for node in nodes(worker)} == {"alive"}


@pytest.mark.parametrize("words", [[], ["one", "--all"]])
def test_either_nodes_or_all_have_to_be_named(worker: Worker, words: list[str]) -> None:
    assert "--all" in worker("node:drain", *words, code=2).err


def test_waiting_ends_when_the_node_has_stopped(worker: Worker, manager: QueueManager) -> None:
    node = register(manager)
    threading.Timer(0.5, manager.driver.stop_node, [node]).start()
    assert worker("node:drain", str(node), "--wait", "60").out.endswith("Stopped.\n")


def test_waiting_in_vain_says_which_nodes_are_still_at_work(worker: Worker, manager: QueueManager) -> None:
    node = register(manager)
    refused = worker("node:drain", str(node), "--wait", "0.3", code=75)
    assert f"node {node}" in refused.err
    assert [each["state"] for each in nodes(worker)] == ["draining"]


def test_waiting_for_a_node_that_is_declared_dead_does_not_say_that_it_stopped(
    worker: Worker, manager: QueueManager
) -> None:
    node = register(manager)
    threading.Timer(0.5, manager.driver.declare_dead, [node, 0]).start()
    refused = worker("node:drain", str(node), "--wait", "60", code=1)
    assert f"declared dead before stopping: node {node}" in refused.err
    assert "Stopped." not in refused.out


def test_an_id_that_is_the_name_of_another_node_is_refused_with_both(worker: Worker, manager: QueueManager) -> None:
    first = register(manager, "first")
    second = register(manager, str(first))
    refused = worker("node:drain", str(first), code=2)
    assert f"the name of another, node {second}" in refused.err
    assert {node["state"] for node in nodes(worker)} == {"alive"}
    assert worker("node:drain", "first").out == f"Asked 1 node to stop: {first}.\n"
    assert worker("node:drain", str(second)).out == f"Asked 1 node to stop: {second}.\n"


# --- a node at work --------------------------------------------------------------------------------------------------


@contextmanager
def node_at_work(folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "node.log").open("wb") as log:
        started = subprocess.Popen(command("queue:work", *words), cwd=folder, stdout=log, stderr=log)
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.wait()


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        pause.wait(0.05)
    return found


@pytest.mark.xdist_group("command line")
def test_a_node_that_runs_is_listed_and_stops_when_it_is_asked_to(worker: Worker, manager: QueueManager) -> None:
    del manager
    with node_at_work(Path.cwd(), "--pm=ondemand", "--max-workers=3", "--node-name=busy-bee") as started:
        (node,) = until(lambda: nodes(worker), "it is listed")
        assert (node["pid"], node["name"], node["pm"], node["max_workers"]) == (started.pid, "busy-bee", "ondemand", 3)
        assert set(NODE) <= set(node)

        assert "Stopped." in worker("node:drain", "busy-bee", "--wait", "60").out

        assert started.wait(PATIENCE) == 0
        assert nodes(worker) == []
        assert [each["state"] for each in nodes(worker, "--all")] == ["stopped"]


# --- the numbers of queue:work ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--pm=dynamic", "--min-workers=5", "--max-workers=2"], "min_workers must be at most max_workers"),
        (["--pm=dynamic", "--min-workers=50"], "min_workers must be at most max_workers"),
        (["--pm=dynamic", "--workers=3"], "--min-workers and --max-workers"),
        (["--pm=ondemand", "--workers=3"], "--max-workers"),
        (["--pm=ondemand", "--min-workers=3"], "--max-workers"),
        (["--max-workers=3"], "--pm=static"),
        (["--pm=sometimes"], "static, dynamic, ondemand"),
        (["--pm=dynamic", "--min-workers=0"], "min_workers"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_numbers_that_contradict_each_other_are_refused(worker: Worker, words: list[str], says: str) -> None:
    assert says in worker("queue:work", *words, code=2).err
