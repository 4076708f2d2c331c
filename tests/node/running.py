"""Nodes as real processes: a folder with a jobs module, a script that starts a node, and waits with deadlines."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil

from taskqueue import Job, JobHandle, JobRecord, QueueManager, State
from taskqueue.payload import generate_key
from tests.databases import Database

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATIENCE = 30.0
"""Seconds after which a condition that was waited for has failed; far above what any of them takes."""


@dataclass(frozen=True)
class Line:
    """One line that a job left outside of the database."""

    job: UUID
    lease: int
    pid: int
    what: str
    attempt: int
    at: float


def until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Return what ``condition`` returns once that is true; fail after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {patience:.0f} s in vain until {what}"
        pause.wait(0.005)


class RunningNode:
    """One ``queue:work`` process tree."""

    def __init__(
        self,
        house: House,
        number: int | str,
        settings: dict[str, Any],
        environment: dict[str, str],
        through: Sequence[str] = (),
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self._house = house
        self.log_file = house.folder / f"node-{number}.log"
        self._counts_file = house.folder / f"node-{number}.json"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*through, sys.executable, str(house.script), json.dumps(settings), str(self._counts_file)],
                cwd=house.folder,
                env=environment,
                stdin=stdin,
                stdout=log,
                stderr=log,
            )
        self.pid = self.process.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def counts(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self._counts_file.read_text())
        return found

    @property
    def template(self) -> int:
        (found,) = until(lambda: _children(self.pid), "the template process runs")
        return int(found)

    @property
    def workers(self) -> list[int]:
        templates = _children(self.pid)
        return sorted(worker for template in templates for worker in _children(template))

    @property
    def tree(self) -> list[int]:
        return [self.pid, *_children(self.pid), *self.workers]

    def await_workers(self, number: int) -> list[int]:
        found: list[int] = until(lambda: len(self.workers) == number and self.workers, f"{number} workers run")
        return found

    def await_start(self) -> RunningNode:
        until(lambda: "serves" in self.log or self.process.poll() is not None, "the node has registered")
        assert self.process.poll() is None, self.log
        return self

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def signal_tree(self, number: int) -> None:
        for pid in self.tree:
            with contextlib.suppress(ProcessLookupError):  # The first one may end the others as soon as it wakes.
                os.kill(pid, number)

    def pause(self, *, workers: bool) -> None:
        """Stop the supervisor, with or without its template and workers, at a moment when it is in no transaction.

        A process that is stopped within a transaction keeps others waiting until it goes on.
        """
        send = self.signal_tree if workers else self.signal
        send(signal.SIGSTOP)
        while (in_a_transaction := self._house.database.is_in_a_transaction)():
            send(signal.SIGCONT)
            until(lambda: not in_a_transaction(), "the node has ended its transaction")
            send(signal.SIGSTOP)

    def kill(self) -> None:
        """Kill the supervisor without warning, and wait until nothing of its tree is left."""
        tree = self.tree
        self.process.kill()
        self.process.wait()
        until(lambda: not any(map(_runs, tree)), "the whole tree of a killed node is gone")

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.end()

    def end(self) -> int:
        """Wait until the node has ended by itself, and return its exit code."""
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            tree = self.tree
            for pid in tree:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            self.process.kill()
            self.process.wait()


class House:
    """A database, a key, a temporary folder with a jobs module, and the nodes that work there."""

    durability = "normal"

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database
        self.key = generate_key()
        self.url = database.url
        self.starts = folder / "starts.jsonl"
        self.script = Path(shutil.copy(HERE / "start_node.py", folder))
        shutil.copy(HERE / "node_jobs.py", folder)
        self.manager = QueueManager(self.url, encryption_key=self.key).connect()
        self._nodes: list[RunningNode] = []

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "TEST_ROOT": str(ROOT),
            "TEST_FOLDER": str(self.folder),
            "TEST_STARTS": str(self.starts),
            "ENCRYPTION_KEY": self.key,
            "PYTHONWARNINGS": "error",
        }

    def start(
        self,
        workers: int = 1,
        *,
        imports: tuple[str, ...] = ("node_jobs",),
        general: dict[str, Any] | None = None,
        queues: list[str] | None = None,
        crashed_again_delay: float | None = None,
        leave_after: float | None = None,
        barren: float | None = None,
        leave_within: float | None = None,
        through: Sequence[str] = (),
        stdin: int = subprocess.DEVNULL,
        **worker: Any,
    ) -> RunningNode:
        """Start a node; keywords are those of the worker's settings. ``through`` is a command that runs it."""
        settings: dict[str, Any] = {
            "database": {"url": self.url, "durability": self.durability, "node_durability": self.durability},
            "worker": {"workers": workers, "imports": imports, "memory": "200MB", **worker},
            "general": general or {"log_level": "debug"},
            "queues": queues,
        }
        given = {"crashed_again_delay": crashed_again_delay, "leave_after": leave_after, "barren": barren}
        given["leave_within"] = leave_within
        settings |= {name: value for name, value in given.items() if value is not None}
        node = RunningNode(self, len(self._nodes), settings, self.environment(), through, stdin)
        self._nodes.append(node)
        return node

    def work_until_empty(self, workers: int = 1, **options: Any) -> RunningNode:
        """Start a node, have it do all there is, and see that it ends well."""
        node = self.start(workers, stop_when_empty=True, **options)
        assert node.end() == 0, node.log
        return node

    def push(self, job_class: str, payload: Any = None, **options: Any) -> JobHandle:
        return self.manager.push(job(job_class, payload, **options))

    def ids_of(self, job_class: str, *states: State, expected: int) -> list[UUID]:
        """Return the ids of the jobs of a class in these states, once there are as many as expected."""
        found: list[JobRecord] = until(
            lambda: len(records := self.manager.get_jobs(job_class=job_class, state=states)) == expected and records,
            f"{expected} jobs are {' or '.join(states)}",
        )
        return [record.id for record in found]

    def open_gate(self, name: str) -> None:
        (self.folder / name).touch()

    @staticmethod
    def is_running(pid: int) -> bool:
        return _runs(pid)

    @property
    def lines(self) -> list[Line]:
        if not self.starts.exists():
            return []
        whole, _, _ = self.starts.read_text().rpartition("\n")  # A line may be seen while it is written.
        found = (json.loads(line) for line in whole.splitlines())
        return [Line(UUID(each.pop("job")), **each) for each in found]

    def started(self, handle: JobHandle | None = None) -> list[Line]:
        return [line for line in self.lines if line.what == "start" and (handle is None or line.job == handle.id)]

    def await_start(self, handle: JobHandle, times: int = 1) -> Line:
        found: list[Line] = until(
            lambda: len(self.started(handle)) >= times and self.started(handle),
            f"job {handle.id} started {times} times",
        )
        return found[times - 1]

    def assert_no_start_twice(self) -> None:
        """No (job, lease) has started twice: the one thing that must never happen."""
        twice = [key for key, times in Counter((line.job, line.lease) for line in self.started()).items() if times > 1]
        assert twice == []

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Read the database behind everybody's back."""
        return self.database.rows(sql)

    def close(self) -> None:
        for node in self._nodes:
            node.close()
        self.manager.disconnect()


class Quick(Job):
    """The same name as in the module of the nodes, where it is defined anew."""

    name = "Quick"

    def handle(self) -> None:
        raise AssertionError("runs in nodes only")


_TYPES: dict[str, type[Job]] = {"Quick": Quick}


def job(job_class: str, payload: Any = None, **options: Any) -> Job:
    """Return a job of a class that the nodes define."""
    cls = _TYPES.get(job_class)
    if cls is None:
        cls = _TYPES[job_class] = type(job_class, (Job,), {"name": job_class, "handle": Quick.handle})
    return cls(payload, **options)


@contextlib.contextmanager
def house_in(folder: Path, database: Database) -> Iterator[House]:
    """Build a house, and leave no process behind."""
    house = House(folder, database)
    try:
        yield house
    finally:
        house.close()


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children() if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
