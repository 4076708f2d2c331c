"""The nodes of a run: each has a place, and whoever dies there is replaced after a while."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.chaos import alterations, journal
from tests.chaos.plan import Plan, faketime
from tests.chaos.wrapping import SCHEME
from tests.node.running import ROOT, RunningNode
from tests.servers.proxy import Proxy

CRASHED_AGAIN_DELAY = 0.5
GRACE = 1.0
"""Seconds that a node which is replaced gives its jobs: less than some of them take, so that they are handed back."""

PLAIN_JOBS = ("tests.chaos.jobs",)
ALL_JOBS = (*PLAIN_JOBS, "tests.chaos.effect_jobs")

MARK = "CHAOS_RUN"
"""Environment variable by which every process of a run is known, also one whose parent is gone."""


@dataclass(slots=True)
class Place:
    """Where one node after another runs: how it reaches the database, on which host it says it is, by which clock."""

    index: int
    url: str
    proxy: Proxy | None = None
    far: str = ""
    clock: Path | None = None
    node: ChaosNode | None = None
    replace_at: float | None = None
    paused: bool = False
    concurrency: int = 1


class ChaosNode(RunningNode):
    """One ``queue:work`` process tree, which ends with the run whatever becomes of that."""

    def __init__(self, number: int, folder: Path, settings: dict[str, Any], environment: dict[str, str]) -> None:
        self.number = number
        self.log_file = folder / f"node-{number}.log"
        self._counts_file = folder / f"node-{number}.json"
        tied = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        words = [sys.executable, "-m", "tests.chaos.start", json.dumps(settings), str(self._counts_file)]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*tied, *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.pid = self.process.pid

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def templates(self) -> list[int]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.pid).children()]
        return []

    @property
    def stale_writes(self) -> int | None:
        """Return how many writes it says were dropped; None where it was killed before it could say."""
        return self.counts["stale_writes"] if self._counts_file.exists() else None

    def end_at_once(self) -> None:
        """Kill the whole tree in one moment, and wait for its supervisor."""
        self.signal_tree(signal.SIGSTOP)  # So that it starts no worker that nobody has seen.
        self.signal_tree(signal.SIGKILL)
        self.process.wait()


@dataclass(slots=True)
class Crew:
    """Every node that ever ran, and the places where they run now."""

    plan: Plan
    folder: Path
    key: str
    mark: str
    places: list[Place] = field(default_factory=list)
    nodes: list[ChaosNode] = field(default_factory=list)
    imports: Sequence[str] = ALL_JOBS
    extra: dict[str, str] = field(default_factory=dict)
    """Variables for every node."""

    def environment(self, place: Place, number: int) -> dict[str, str]:
        """Return the environment of a node."""
        found = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
            "ENCRYPTION_KEY": self.key,
            "TMPDIR": str(self.folder / "tmp"),
            journal.FILE: str(self.folder / "journal.jsonl"),
            journal.NODE: str(number),
            MARK: self.mark,
            SCHEME: self.plan.database,
            alterations.FAR: place.far,
            alterations.MUTANT: self.plan.mutant or "",
            **self.extra,
        }
        library = faketime() if place.clock else None
        if library is not None:
            found |= {
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(place.clock),
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DISABLE_SHM": "1",
                "FAKETIME_CACHE_DURATION": "1",
            }
        return found

    def start(self, place: Place, **worker: Any) -> ChaosNode:
        """Start a node at a place; keywords are those of the worker's settings."""
        plan = self.plan
        (self.folder / "tmp").mkdir(exist_ok=True)
        settings: dict[str, Any] = {
            # What a server has not been made to write is lost when it is killed: claims as well as results.
            "database": {"url": place.url, "durability": "full", "node_durability": "full"},
            "worker": {
                "workers": plan.workers, "imports": self.imports, "memory": "200MB", "max_jobs": 4000,
                "lease": plan.lease, "heartbeat": plan.heartbeat, "grace": GRACE,
                "concurrency": place.concurrency, **worker,
            },
            "general": {"log_level": "warning"},
            "crashed_again_delay": CRASHED_AGAIN_DELAY,
        }  # fmt: skip
        node = ChaosNode(len(self.nodes), self.folder, settings, self.environment(place, len(self.nodes)))
        self.nodes.append(node)
        place.node, place.replace_at, place.paused = node, None, False
        return node

    def close(self) -> None:
        """End whatever still runs."""
        for node in self.nodes:
            if node.runs:
                node.end_at_once()


def processes_of(mark: str) -> list[int]:
    """Return every process of a run that is left, by the mark in its environment."""
    wanted = f"{MARK}={mark}".encode()
    left = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and int(each.name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in (each / "environ").read_bytes().split(b"\0"):
                    left.append(int(each.name))
    return left
