"""G8: the first signal drains, the second hands back, the third ends the process; quiet is to stay and claim nothing.

More: tests/node/test_node_stop.py.
"""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from taskqueue import State
from tests.node.running import House, RunningNode, until


def test_the_first_signal_lets_running_jobs_finish_and_hands_back_the_others(house: House) -> None:
    running = house.push("Gated", {"gate": "open"})
    node = house.start()
    house.await_start(running)
    waiting = house.push("Quick")
    node.signal(signal.SIGTERM)
    until(lambda: "stopping: 1 job(s)" in node.log, "the node stops")
    house.open_gate("open")
    assert node.end() == 0
    assert (running.record().state, waiting.record().state) == (State.COMPLETED, State.PENDING)


def test_the_second_signal_hands_the_running_job_back_unspent(house: House) -> None:
    handle = house.push("Gated", {"gate": "never"})
    node = house.start(grace=600)
    house.await_start(handle)
    node.signal(signal.SIGTERM)
    until(lambda: "stopping: 1 job(s)" in node.log, "the node stops")
    node.signal(signal.SIGTERM)
    assert node.end() == 0
    record = handle.record()
    assert (record.state, record.attempt, record.crashes, record.losses) == (State.PENDING, 0, 0, 0)


def test_the_third_signal_ends_the_process_at_once_and_the_next_node_does_the_rest(house: House) -> None:
    """Its template is stopped, so that it cannot end by the second one alone."""
    handle = house.push("Gated", {"gate": "open"})
    node = house.start(grace=600)
    house.await_start(handle)
    tree = node.tree
    os.kill(node.template, signal.SIGSTOP)
    node.signal(signal.SIGTERM)
    until(lambda: "stopping: 1 job(s)" in node.log, "the node stops")
    node.signal(signal.SIGINT)
    node.signal(signal.SIGTERM)
    assert node.end() in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    os.kill(tree[1], signal.SIGCONT)
    until(lambda: not any(map(house.is_running, tree)), "nothing of the node is left")
    house.open_gate("open")
    house.work_until_empty()
    assert handle.record().state is State.COMPLETED


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_quiet_node_finishes_what_it_runs_claims_nothing_and_stays(house: House, number: int) -> None:
    running = house.push("Gated", {"gate": "open"})
    node = house.start()
    house.await_start(running)
    node.signal(number)
    until(lambda: house.rows("SELECT state FROM tq_nodes") == [("quiet",)], "everybody sees that it is quiet")
    waiting = house.push("Quick")
    house.open_gate("open")
    assert running.wait(20).state is State.COMPLETED
    ((beat,),) = house.rows("SELECT sequence FROM tq_nodes")
    node.signal(number)
    until(lambda: house.rows("SELECT sequence FROM tq_nodes")[0][0] > beat, "it beats on")
    assert waiting.record().state is State.PENDING
    node.signal(signal.SIGUSR2)
    assert waiting.wait(20).state is State.COMPLETED
    until(lambda: house.rows("SELECT state FROM tq_nodes") == [("alive",)], "everybody sees that it works again")
    assert node.stop() == 0


@pytest.mark.any_database
def test_a_quiet_node_stops_when_it_is_asked_to(house: House) -> None:
    node = house.start().await_start()
    node.signal(signal.SIGUSR1)
    until(lambda: "quiet: nothing is claimed" in node.log, "it is quiet")
    assert node.stop() == 0


@pytest.mark.any_database
def test_a_node_whose_terminal_is_closed_drains(house: House) -> None:
    """Nobody could wake it any more; elsewhere the same signal asks it to go quiet."""
    handle = house.push("Gated", {"gate": "open"})
    master, terminal = pty.openpty()
    node = house.start(through=["setsid", "--ctty", "--wait"], stdin=terminal)
    os.close(terminal)
    house.await_start(handle)
    os.close(master)
    until(lambda: "stopping: 1 job(s)" in node.log, "the node stops")
    house.open_gate("open")
    assert node.end() == 0
    assert handle.record().state is State.COMPLETED


@pytest.mark.any_database
def test_a_node_that_was_started_to_ignore_the_hang_up_does(house: House) -> None:
    handle = house.push("Quick")
    node = house.start(through=["nohup"])
    handle.wait(20)
    supervisor = node.pid
    os.kill(supervisor, signal.SIGHUP)
    assert house.push("Quick").wait(20).state is State.COMPLETED
    assert "quiet" not in node.log
    os.kill(supervisor, signal.SIGTERM)
    assert node.end() == 0


# --- as PID 1 ----------------------------------------------------------------------------------------------------

UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def require_namespaces() -> None:
    missing = None
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        missing = "to make a PID namespace takes root and unshare(1)"
    elif subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode != 0:
        missing = "this kernel or container allows no PID namespace"
    if missing is not None:
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail(missing)
        pytest.skip(missing)


ORPHANS = '''
import os
import subprocess

from taskqueue import Job


class Leaves(Job):
    """Leaves a process behind whose parent is gone, and which ends a little later."""

    name = "Leaves"

    def handle(self):
        subprocess.run(["sh", "-c", "sleep 0.2 & exit 0"], check=True)


class Processes(Job):
    """Tells who runs here, and in which state."""

    name = "Processes"

    def handle(self):
        states = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/stat") as file:
                    states[name] = file.read().rpartition(")")[2].split()[0]
            except OSError:
                continue
        return states
'''


@pytest.mark.any_database
def test_as_pid_1_a_node_buries_orphans_and_heeds_signals(house: House) -> None:
    require_namespaces()
    (house.folder / "orphan_jobs.py").write_text(ORPHANS)
    node = house.start(through=UNSHARE, imports=("node_jobs", "orphan_jobs"))
    for _ in range(5):
        house.push("Leaves").wait(30)
    states = until(lambda: _all_buried(house), "no zombie and no orphan is left")
    assert "1" in states
    running = house.push("Gated", {"gate": "open"})
    house.await_start(running)
    inner = inner_pid(node)
    os.kill(inner, signal.SIGTERM)
    until(lambda: "stopping: 1 job(s)" in node.log, "the node stops")
    house.open_gate("open")
    assert node.end() == 0
    assert running.record().state is State.COMPLETED


@pytest.mark.any_database
def test_as_pid_1_a_node_survives_its_template_and_buries_what_it_left(house: House) -> None:
    require_namespaces()
    (house.folder / "orphan_jobs.py").write_text(ORPHANS)
    node = house.start(through=UNSHARE, imports=("node_jobs", "orphan_jobs"))
    running = house.push("Gated", {"gate": "open"})
    house.await_start(running)
    (template,) = until(lambda: children(inner_pid(node)), "the template runs")
    os.kill(template, signal.SIGKILL)
    house.await_start(running, times=2)
    house.open_gate("open")
    assert running.wait(30).state is State.COMPLETED
    until(lambda: _all_buried(house), "no zombie is left")
    os.kill(inner_pid(node), signal.SIGTERM)
    assert node.end() == 0


@pytest.mark.any_database
def test_as_pid_1_the_command_heeds_a_signal_from_its_first_moment(house: House) -> None:
    """A process without a handler ignores SIGTERM as PID 1: a container would be killed after its grace.

    The first moment is that at which the interpreter has read our first file; nothing else has been imported then.
    """
    require_namespaces()
    environment = {**house.environment(), "DATABASE_URL": house.url, "TASKQUEUE_IMPORT": "node_jobs"}
    command = [*UNSHARE, sys.executable, str(Path(__file__).resolve().parents[2] / "worker"), "queue:work"]
    for wait in (0.0, 0.1, 0.3, 1.0):
        process = subprocess.Popen(
            command, env=environment, cwd=house.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            (inner,) = until(lambda process=process: children(process.pid), "the command runs")  # type: ignore[misc]
            until(lambda inner=inner: _heeds(inner, signal.SIGTERM), "it is ours")  # type: ignore[misc]
            threading.Event().wait(wait)
            os.kill(inner, signal.SIGTERM)
            assert process.wait(30) in (0, 128 + signal.SIGTERM)
        finally:
            process.kill()  # And what runs in its namespace with it.
            process.wait()


def _heeds(pid: int, number: int) -> bool:
    """Say whether a process has a handler for a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (caught,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (number - 1) & 1)


def _all_buried(house: House) -> dict[str, str]:
    states: dict[str, str] = house.push("Processes").wait(30).result
    return states if "Z" not in states.values() and len(states) == 3 else {}


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def inner_pid(node: RunningNode) -> int:
    (inner,) = children(node.process.pid)
    return inner
