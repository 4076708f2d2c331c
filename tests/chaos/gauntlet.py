"""Nodes that die one after the other, each at another crash point, until a last one finishes what they left.

Each one finds the jobs that its point needs, and what the dead before it held. That all of them share one database and
are judged together costs a second a point, where a database and a judgement for each would cost four.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from taskqueue.drivers import migrate
from taskqueue.errors import TaskQueueError
from tests.chaos.faults import send
from tests.chaos.places import ALL_JOBS, PLAIN_JOBS, ChaosNode
from tests.chaos.points import IN_WORKER
from tests.chaos.pushers import Pushed
from tests.chaos.scenes import Stage
from tests.node.running import until


@dataclass(frozen=True, slots=True)
class Need:
    """What has to be pushed for a point, and whether the node is asked to stop so that it comes there."""

    push: Callable[[Stage], Any] = lambda _: None
    stopped: bool = False
    late: bool = False
    worker: Mapping[str, Any] = field(default_factory=dict)


def _plain(stage: Stage) -> None:
    for _ in range(3):
        stage.push("Plain", {})


def _family(stage: Stage, *, fails: bool) -> None:
    name, kind = ("Flaky", "doomed parent") if fails else ("Plain", "parent")
    parent = stage.push(name, {"until": 99}, kind, max_attempts=1)
    stage.push("Plain", {}, "orphan" if fails else "child", parents=(parent,), dependencies=[parent])


def _once(stage: Stage) -> None:
    stage.push("Once", {}, "once", delivery="at_most_once", max_attempts=1)


_retry = Need(lambda s: s.push("Flaky", {"until": 2}, "flaky", max_attempts=3, retry_interval=0.1))
_fail = Need(lambda s: s.push("Flaky", {"until": 99}, "doomed", max_attempts=1))
_delayed = Need(lambda s: s.push("Plain", {}, "delayed", delay=0.4))
_released = Need(lambda s: s.push("Plain", {"sleep": 1.0}), stopped=True, worker={"grace": 0.0})
_reporting = Need(lambda s: s.push("Reporting", {}, "reporting"))
_effect = Need(lambda s: s.push("Effect", {}, "effect", max_attempts=20, retry_interval=0.1))
_work = Need(_plain)
_nothing = Need()

NODE_POINTS: Mapping[str, Sequence[tuple[str, Need]]] = {
    "births": [
        ("in_import", _nothing), ("in_fork", _work), ("in_register", _nothing), ("after_register", _nothing),
        ("in_beat", _nothing), ("in_claim", _nothing), ("in_take_turn", _nothing),
    ],
    "rescues": [
        ("after_claim", _work), ("in_declare_dead", _nothing), ("after_declare_dead", _nothing),
        ("in_rescue", _nothing), ("after_rescue_before_commit", _nothing), ("after_rescue", _nothing),
    ],
    "acknowledgements": [
        ("before_ack", _work), ("in_ack", _work), ("after_ack_before_commit", _work), ("after_commit", _work),
        ("in_dependency_release", Need(lambda s: _family(s, fails=False))),
    ],
    "failures": [
        ("in_retry", _retry), ("after_retry", _retry), ("in_fail", _fail), ("after_fail", _fail),
        ("in_dependency_failure", Need(lambda s: _family(s, fails=True))),
    ],
    "waits": [
        ("in_promote", _delayed), ("after_promote", _delayed), ("before_record_start", Need(_once)),
        ("after_record_start", Need(_once)), ("in_park", Need(lambda s: s.push("Late", {}, "late"))),
        ("in_unpark", Need(late=True)),
    ],
    "desk": [
        ("in_progress", _reporting), ("in_checkpoint", _reporting), ("after_checkpoint", _reporting),
        ("in_push_of_a_handler", _reporting), ("after_push_of_a_handler", _reporting),
    ],
    "effects": [(name, _effect) for name in IN_WORKER],
    "stops": [("in_release", _released), ("after_release", _released), ("in_goodbye", Need(stopped=True))],
}  # fmt: skip
"""The points of nodes, by test."""

USER_POINTS = (
    "in_push", "after_push", "in_bulk_push", "after_bulk_push_before_commit", "after_bulk_push", "in_unique_push",
    "in_revive", "after_revive", "in_cancel", "after_cancel", "in_update", "in_delete",
)  # fmt: skip
MIGRATION_POINTS = ("in_migration", "late_in_migration", "after_migration_before_commit")


def run_nodes(stage: Stage, points: Sequence[tuple[str, Need]]) -> None:
    """Have a node die at each point, and a last one at none."""
    for name, need in points:
        need.push(stage)
        stage.storm.crew.imports = ALL_JOBS if name in IN_WORKER else PLAIN_JOBS
        node = stage.start(point=name, late=need.late, **need.worker)
        if need.stopped:
            stage.await_line("registered", node=node.number)
            if name != "in_goodbye":
                stage.await_line("start", node=node.number)
            send([node.pid], signal.SIGTERM)
        _await_death(stage, name, node)
    stage.storm.crew.imports = ALL_JOBS
    stage.node(late=True, workers=2)


def _await_death(stage: Stage, name: str, node: ChaosNode) -> None:
    died = stage.await_died(name, node)
    if node.runs and died.pid == node.pid:
        node.process.wait(10)
    elif name in IN_WORKER:
        stage.storm.weather.note(f"kill at {name}", 0, pids=[died.pid])
        stage.dismiss(node)
        return
    elif name == "in_fork":  # A node lives on without its template.
        stage.kill("kill node", node)
        return
    fault = stage.storm.weather.note(f"kill at {name}", 0, node, [died.pid])
    fault.began = fault.ended = died.at
    until(lambda: not node.runs, f"the node that died at {name} has ended")
    stage.forget(node)


def run_users(stage: Stage) -> None:
    """Have users' processes die in the middle of what they ask for, then let a node work."""
    failed = stage.push("Flaky", {"until": 99, "unless": "mended"}, "revived", max_attempts=1)
    node = stage.node()
    stage.await_state(failed, 5)
    stage.storm.pusher.pushes.revived[failed] = [1]
    stage.dismiss(node)
    (stage.folder / "mended").touch()
    for name in USER_POINTS:
        _DO[name.removeprefix("in_").removeprefix("after_").removesuffix("_before_commit")](stage, name, failed)
        stage.await_died(name)
    try:
        stage.user.manager.retry_failed_job(failed)
    except TaskQueueError:  # It was revived before its user died.
        assert stage.ground.rows("SELECT 1 FROM tq_jobs WHERE id = :id", id=stage.ground.key_of(failed))
    stage.node(workers=2)


def _push(stage: Stage, name: str, _: UUID, **given: Any) -> None:
    done = stage.user.do("push", point=name, **given)
    for each in map(UUID, done.stdout.split()):
        stage.storm.pusher.pushes.jobs[each] = Pushed("plain")
        stage.storm.pusher.pushes.doubtful.add(each)


def _change(what: str, kind: str, **given: Any) -> Callable[[Stage, str, UUID], None]:
    def change(stage: Stage, name: str, _: UUID) -> None:
        job = stage.push("Plain", {}, kind)
        if kind == "deleted":
            stage.storm.pusher.pushes.doubtful.add(job)
        stage.user.do(what, point=name, id=str(job), **given)

    return change


def _bulk(stage: Stage, name: str, job: UUID) -> None:
    _push(stage, name, job, number=50)


def _unique(stage: Stage, name: str, job: UUID) -> None:
    _push(stage, name, job, unique_key="only", on_conflict="keep")


def _revive(stage: Stage, name: str, job: UUID) -> None:
    stage.user.do("revive", point=name, id=str(job))
    if name == "in_revive":
        assert stage.ground.rows("SELECT 1 FROM tq_history WHERE id = :id", id=stage.ground.key_of(job))


_DO: Mapping[str, Callable[[Stage, str, UUID], None]] = {
    "push": _push,
    "bulk_push": _bulk,
    "unique_push": _unique,
    "revive": _revive,
    "cancel": _change("cancel", "cancelled"),
    "update": _change("reprioritize", "plain", priority=9),
    "delete": _change("delete", "deleted"),
}


def run_migration(stage: Stage, name: str) -> None:
    """Have a migration die, and the next one finish; then jobs run as if nothing had been."""
    migrate.remove(stage.ground.url)
    stage.ground.drop_effects()  # Another application's tables alone are refused.
    stage.user.do("upgrade", point=name)
    stage.await_died(name)
    migrate.upgrade(stage.ground.url)
    stage.ground.make_effects()
    _plain(stage)
    stage.node()
