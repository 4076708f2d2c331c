"""What becomes of the jobs of a worker that died: pure decisions, from what it held and what its slot says."""

from __future__ import annotations

import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from taskqueue.drivers.values import CRASH_LIMIT, ClaimedJob, Ending
from taskqueue.node.outcome import AT_MOST_ONCE, Outcome, ending, retry_or_fail
from taskqueue.node.slots import Glance
from taskqueue.states import Reason, Verb

CRASHED_AGAIN_DELAY = 10.0
"""Seconds that a job waits after its second crash and later ones."""


class Death(Enum):
    """Why a worker died."""

    BY_ITSELF = "by itself"
    TIMED_OUT = "timed out"
    STOPPED = "stopped"
    WITH_TEMPLATE = "with the template"


@dataclass(frozen=True, slots=True)
class Obituary:
    """How a worker died: its exit code (negative: the signal) and its peak memory, where they are known."""

    death: Death
    code: int | None = None
    peak_kb: int | None = None
    killed_token: int = 0

    def death_of(self, token: int) -> Death:
        """Return why the worker died from where the job ``token`` stands: killed for another one, it was stopped."""
        return Death.STOPPED if self.killed_token not in (0, token) else self.death

    def describe(self) -> str:
        """Return the words for the log and for the attempt's error."""
        if self.code is None:
            how = "it went down with its template process"
        elif self.code < 0:
            how = f"killed by {_signal_name(-self.code)}"
        else:
            how = f"exited with code {self.code}"
        return how if self.peak_kb is None else f"{how}, peak memory {self.peak_kb / 1024:.0f} MB"


@dataclass(frozen=True, slots=True)
class Fates:
    """The jobs of a dead worker, sorted: ``unstarted`` go to other workers under the lease they have."""

    unstarted: Mapping[int, ClaimedJob]
    finished: tuple[ClaimedJob, ...]
    running: ClaimedJob | None
    token: int = 0
    """The ticket of the one that ran, 0 for none."""


def sort_out(held: Mapping[int, ClaimedJob], unread: Collection[int], glance: Glance) -> Fates:
    """Sort the jobs that a dead worker held and had not reported.

    Unread tickets are unstarted for certain. Of the others the slot names the one that ran and those that finished;
    a ticket taken but not yet noted in the slot belongs to a job whose handler had not begun.
    """
    running = glance.token if glance.token > glance.done else 0
    unstarted: dict[int, ClaimedJob] = {}
    finished: list[ClaimedJob] = []
    for token, claimed in held.items():
        if token == running:
            continue
        if token in unread or token > glance.done:
            unstarted[token] = claimed
        else:
            finished.append(claimed)
    return Fates(unstarted, tuple(finished), held.get(running), running)


def of_finished(claimed: ClaimedJob, now_us: int) -> Ending:
    """Return the ending of a job that ran to its end, whose outcome died with the worker: it has to run again."""
    if claimed.delivery == AT_MOST_ONCE:
        return ending(claimed, Outcome(Verb.FAIL, reason=Reason.LOST, error_type="WorkerDied"), now_us)
    return ending(claimed, Outcome(Verb.RELEASE), now_us)


def of_running(claimed: ClaimedJob, death: Death, now_us: int, jitter: float) -> Ending:
    """Return the ending of the job that ran when its worker died.

    A job that was killed for its time has spent its attempt. One whose worker we stopped has not. Anything else is a
    crash, charged to this job alone: the third is the last, the second and later ones wait 10 s.
    """
    if death is Death.TIMED_OUT:
        outcome = retry_or_fail(claimed, Reason.TIMED_OUT, jitter)
        return ending(claimed, replace(outcome, error_type="JobTimedOut"), now_us)
    if claimed.delivery == AT_MOST_ONCE:
        return ending(claimed, Outcome(Verb.FAIL, reason=Reason.LOST, error_type="WorkerDied"), now_us)
    if death is Death.STOPPED:
        return ending(claimed, Outcome(Verb.RELEASE), now_us)
    if death is Death.WITH_TEMPLATE and not is_suspect(claimed):
        return ending(claimed, Outcome(Verb.RELEASE, reason=Reason.LOST, error_type="WorkerDied"), now_us)._replace(
            lost=True
        )
    return _crash(claimed, now_us)


def is_suspect(claimed: ClaimedJob) -> bool:
    """Say whether a job has lost its worker or its node before: it then runs alone, its start on record."""
    return claimed.crashes > 0 or claimed.losses > 0


def _crash(claimed: ClaimedJob, now_us: int) -> Ending:
    crashes = claimed.crashes + 1
    if crashes >= CRASH_LIMIT:
        outcome = Outcome(Verb.FAIL, reason=Reason.CRASHED, error_type="WorkerDied")
    else:
        delay = CRASHED_AGAIN_DELAY if crashes > 1 else 0.0
        outcome = Outcome(Verb.RELEASE, retry_after=delay, error_type="WorkerDied")
    return ending(claimed, outcome, now_us)._replace(crashed=True, reason=Reason.CRASHED)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # Real-time signals have no name.
