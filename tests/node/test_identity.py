"""Who a node is, and what proves its death."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import psutil
import pytest

from taskqueue.drivers.values import NodeRow
from taskqueue.node.identity import certainly_dead, describe_node, process_started

NEVER_A_PID = 2**22 + 1
"""Above the largest pid that Linux gives."""


def row(**changes: Any) -> NodeRow:
    """Return this very process as a node."""
    identity = asdict(describe_node("here", 30.0, {}))
    stored = {"id": 1, "state": "alive", "sequence": 3, "started_at": 0, "beat_at": 0, "stopped_at": None}
    return NodeRow(**{**identity, **stored, **changes})


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_a_node_that_runs_is_not_dead() -> None:
    assert not certainly_dead(row())


def test_a_pid_that_nobody_has_is_dead() -> None:
    assert certainly_dead(row(pid=NEVER_A_PID))


def test_a_pid_that_belongs_to_another_process_by_now_is_dead(child: subprocess.Popen[bytes]) -> None:
    started = process_started(child.pid)
    assert started is not None
    assert not certainly_dead(row(pid=child.pid, process_started=started))
    assert certainly_dead(row(pid=child.pid, process_started=started - 1))


@pytest.mark.parametrize(
    "unknown", [{"boot_id": None}, {"boot_id": "another"}, {"pid_namespace": "pid:[1]"}, {"host": "another"}], ids=str
)
def test_nothing_is_certain_about_another_boot_host_or_namespace(unknown: dict[str, Any]) -> None:
    assert not certainly_dead(row(pid=NEVER_A_PID, **unknown))


def test_a_node_whose_start_is_not_known_is_not_dead_while_its_pid_lives() -> None:
    assert not certainly_dead(row(process_started=None))


def test_a_clock_set_while_a_node_runs_does_not_prove_its_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the boot as the kernel tells it follows the wall clock."""
    node = row()
    monkeypatch.setattr(psutil, "boot_time", lambda: 0.0)
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 0.0)
    assert not certainly_dead(node)


def test_each_start_is_an_incarnation_of_its_own() -> None:
    assert describe_node(None, 30.0, {}).incarnation != describe_node(None, 30.0, {}).incarnation


def test_a_node_is_named_after_its_host_unless_it_is_given_a_name() -> None:
    assert describe_node(None, 30.0, {}).name == os.uname().nodename
    assert describe_node("mine", 30.0, {}).name == "mine"


def test_a_node_stores_its_lease_in_milliseconds_and_its_info_as_json() -> None:
    identity = describe_node("n", 0.15, {"workers": 2, "queues": ["a"]})
    assert identity.lease_ms == 150
    assert identity.info == '{"workers": 2, "queues": ["a"]}'


def test_the_start_of_a_process_that_is_gone_is_not_known() -> None:
    assert process_started(NEVER_A_PID) is None
