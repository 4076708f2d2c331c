"""How long it takes in calm until what was hit runs again: each promise of recovery, measured some times over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import UUID

from tests.chaos.ground import Ground
from tests.chaos.plan import Plan
from tests.chaos.scenes import Stage

WORKER = "worker killed, its job runs again"
NODE = "node killed, its job runs on another one of the same host"
FAR = "node killed, its job runs on another host"
DATABASE = "database ready, first start"

_FEW = 2
"""How often what takes a lease or a restart is measured."""


def measure(database: str, ground: Ground, folder: Path, times: int, lease: float) -> dict[str, list[float]]:
    """Return the seconds of each recovery."""
    found = {}
    for name, drill in _DRILLS.items():
        if name == DATABASE and ground.server is None:
            continue
        stage = Stage(Plan(database, lease=lease), ground, folder / name.replace(" ", "-"))
        stage.folder.mkdir()
        try:
            found[name] = drill(stage, times)
            stage.open_gate(*range(1, 30))
            stage.end()
        finally:
            stage.storm.close()
        ground.clear()
    return found


def _again(stage: Stage, job: UUID, times: int) -> float:
    """Return when a job has started for so many times."""

    def starts() -> list[float]:
        stage.storm.journal.look()
        return [line.at for line in stage.storm.journal.lines if line.what == "start" and line.job == job]

    stage.await_that(lambda: len(starts()) >= times, "the job runs again")
    return starts()[times - 1]


def _after_worker(stage: Stage, times: int) -> list[float]:
    stage.node(workers=2)
    found = []
    for _ in range(times):
        job = stage.push_gated()
        _again(stage, job, 1)
        line = next(each for each in stage.storm.journal.lines if each.job == job)
        began = time.monotonic()
        stage.kill("kill worker", stage.storm.crew.nodes[0], [line.pid])
        found.append(_again(stage, job, 2) - began)
        stage.open_gate(1, 3)
        stage.await_that(lambda job=job: stage.is_final(job), "the job is final")  # type: ignore[misc]
        stage.close_gates()
    return found


def _after_node(stage: Stage, times: int, far: str = "") -> list[float]:
    found = []
    for _ in range(times):
        first = stage.node(far=far)
        job = stage.push_gated()
        _again(stage, job, 1)
        second = stage.node()
        stage.await_line("looked", node=second.number)
        began = time.monotonic()
        stage.kill("kill node", first)
        found.append(_again(stage, job, 2) - began)
        stage.open_gate(1, 3)
        stage.await_that(lambda job=job: stage.is_final(job), "the job is final")  # type: ignore[misc]
        stage.dismiss(second)
        stage.close_gates()
    return found


def _after_restart(stage: Stage, times: int) -> list[float]:
    stage.node(workers=2)
    found = []
    for _ in range(min(times, _FEW)):
        for _ in range(100):
            stage.push("Plain", {"sleep": 0.05})
        stage.await_line("start", times=10)
        stage.ground.restart(gently=False)
        ready = time.monotonic()

        def started(ready: float = ready) -> list[float]:
            stage.storm.journal.look()
            return [line.at for line in stage.storm.journal.lines if line.what == "start" and line.at > ready]

        stage.await_that(started, "a job starts after the restart")
        found.append(started()[0] - ready)
        stage.await_that(lambda: not stage.ground.rows("SELECT 1 FROM tq_jobs"), "every job is final")
    return found


_DRILLS: Mapping[str, Callable[[Stage, int], list[float]]] = {
    WORKER: _after_worker,
    NODE: lambda stage, times: _after_node(stage, max(_FEW, times // 2)),
    FAR: lambda stage, times: _after_node(stage, min(times, _FEW), far="elsewhere"),
    DATABASE: _after_restart,
}
