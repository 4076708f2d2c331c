"""Each invariant on evidence made by hand: whole it holds, spoiled in one place it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from taskqueue.states import State
from tests.chaos.evidence import Ended, Evidence, Final
from tests.chaos.faults import Fault
from tests.chaos.invariants import judge
from tests.chaos.journal import Line
from tests.chaos.plan import Plan
from tests.chaos.pushers import Pushed, Pushes

PLAIN, RETRIED, KILLED, ONCE, EFFECT = (UUID(int=each) for each in range(1, 6))
FOREIGN = UUID(int=99)


def line(what: str, job: UUID | None, lease: int, at: float, *, pid: int = 10, node: int = 0, more: str = "") -> Line:
    return Line(what, job, lease, 1, pid, node, at, more)


def lines() -> list[Line]:
    whole = [(PLAIN, 1, 1.0, 10), (RETRIED, 3, 4.0, 10), (KILLED, 3, 4.0, 11), (ONCE, 1, 5.0, 11), (EFFECT, 1, 6.0, 11)]
    found = [line("start", RETRIED, 1, 2.0), line("start", KILLED, 1, 3.0)]
    for job, lease, at, pid in whole:
        found += [line("start", job, lease, at, pid=pid), line("end", job, lease, at + 0.5, pid=pid)]
    return [*found, line("stale", KILLED, 1, 9.0)]


def evidence(**changed: Any) -> Evidence:
    pushed = {PLAIN: "plain", RETRIED: "flaky", KILLED: "plain", ONCE: "once", EFFECT: "effect"}
    done = State.COMPLETED
    whole: dict[str, Any] = {
        "plan": Plan("sqlite"),
        "pushes": Pushes({job: Pushed(kind) for job, kind in pushed.items()}),
        "faults": [Fault("kill worker", 3.2, 3.2, pids=frozenset({10}))],
        "lines": lines(),
        "history": {
            PLAIN: Final(done, 1, 1, 0, 0, None),
            RETRIED: Final(done, 3, 2, 0, 0, None),
            KILLED: Final(done, 3, 1, 1, 0, None),
            ONCE: Final(done, 1, 1, 0, 0, None),
            EFFECT: Final(done, 1, 1, 0, 0, None),
        },
        "attempts": {RETRIED: [Ended(1, "error")], KILLED: [Ended(1, "crashed")]},
        "counters": {done.code: 5},
        "rollups": (5, 0),
        "effects": {EFFECT: [1]},
        "counted_stale": {0: 1},
    }
    return Evidence(**{**whole, **changed})


def broken(found: Evidence) -> set[str]:
    return {each.name for each in judge(found) if each.broken}


def with_history(job: UUID, **changed: Any) -> dict[UUID, Final]:
    history = dict(evidence().history)
    history[job] = replace(history[job], **changed)
    return history


def without(job: UUID) -> dict[UUID, Final]:
    return {each: final for each, final in evidence().history.items() if each != job}


def test_whole_evidence_breaks_nothing() -> None:
    assert broken(evidence()) == set()


SPOILED: dict[str, tuple[str, Callable[[], Evidence]]] = {
    "a job that never started": ("I1", lambda: evidence(lines=[each for each in lines() if each.job != PLAIN])),
    "a job that is lost": ("I2", lambda: evidence(history=without(PLAIN))),
    "a job from nowhere": ("I2", lambda: evidence(history={**evidence().history, FOREIGN: evidence().history[PLAIN]})),
    "a job that is not final": ("I2", lambda: evidence(history=without(PLAIN), live=[(PLAIN, "state 1")])),
    "a job that failed": ("I2", lambda: evidence(history=with_history(PLAIN, state=State.FAILED, reason="lost"))),
    "a second start without a fault": ("I3", lambda: evidence(faults=[])),
    "a second start long after it was written down": (
        "I3",
        lambda: evidence(faults=[Fault("kill worker", 90.0, 90.0, pids=frozenset({10}))], lines=[
            *lines(), line("end", KILLED, 1, 3.1)
        ]),
    ),
    "a lease that started twice": ("I4", lambda: evidence(lines=[*lines(), line("start", PLAIN, 1, 1.2, pid=12)])),
    "a completed job without its end": (
        "I5", lambda: evidence(lines=[each for each in lines() if (each.what, each.job) != ("end", PLAIN)])
    ),
    "an effect too many": ("I5", lambda: evidence(effects={EFFECT: [1, 1]})),
    "an effect too few": ("I5", lambda: evidence(effects={})),
    "an attempt that is not on record": ("I6", lambda: evidence(attempts={RETRIED: [Ended(1, "error")]})),
    "a crash that was not counted": ("I6", lambda: evidence(history=with_history(KILLED, crashes=0))),
    "an attempt too many": ("I6", lambda: evidence(history=with_history(PLAIN, attempt=2))),
    "a counter that is off": ("I7", lambda: evidence(counters={State.COMPLETED.code: 6})),
    "minutes that are off": ("I7", lambda: evidence(rollups=(4, 0))),
    "an at-most-once job that ran twice": ("I8", lambda: evidence(lines=[*lines(), line("start", ONCE, 3, 6.0)])),
    "a run beside another one": (
        "I10", lambda: evidence(lines=[*lines(), line("end", KILLED, 1, 4.2)])
    ),
    "a process that is left": ("I11", lambda: evidence(leftovers=["process 7"])),
    "a traceback": ("I11", lambda: evidence(logs={0: "Traceback (most recent call last)"})),
    "a lock that a user hears of": ("I11", lambda: evidence(logs={0: "deadlock detected"})),
    "a node that ended badly": ("I11", lambda: evidence(codes=[(0, 1)])),
    "a good outcome that was dropped": ("I12", lambda: evidence(lines=[*lines(), line("stale", PLAIN, 1, 9.0)])),
    "a stale write that was not counted": ("I12", lambda: evidence(counted_stale={0: 0})),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILED)
def test_what_is_spoiled_breaks_its_invariant(what: str) -> None:
    name, spoiled = SPOILED[what]
    assert name in broken(spoiled())
