"""What becomes of the jobs of a worker that died: pure decisions, from what it held and what its slot says."""

from __future__ import annotations

import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from taskqueue.drivers.values import CRASH_LIMIT, CRASHED_AGAIN_DELAY, STRICT_AT, ClaimedJob, Ending
from taskqueue.node.outcome import AT_MOST_ONCE, Outcome, ending, retry_or_fail
from taskqueue.node.slots import Glance
from taskqueue.states import Reason, Verb

MOST_STARTS_BESIDE = 5
"""Starts without an attempt spent after which a job whose worker is killed for another one's time runs alone: beside a
stream of jobs that time out a long one would start again for ever."""


class Death(Enum):
    """Why a worker died."""

    BY_ITSELF = "by itself"
    TIMED_OUT = "timed out"
    OVER_MEMORY = "over its memory limit"
    STOPPED = "stopped"
    FOR_ANOTHER = "for the time of another job"
    WITH_TEMPLATE = "with the template"
    IN_COMPANY = "in company"
    """By itself, or since its loop stood still, while it ran several jobs: nobody can know which of them did it."""


@dataclass(frozen=True, slots=True)
class Obituary:
    """How a worker died: its exit code (negative: the signal) and its peak memory, where they are known."""

    death: Death
    code: int | None = None
    peak_kb: int | None = None
    killed_tokens: frozenset[int] = frozenset()

    def death_of(self, token: int, running: int = 1) -> Death:
        """Return why the worker died from where the job ``token`` stands, one of so many that ran.

        Killed for another one it was not at fault; unless its loop stood still, which may be any job's doing.
        """
        if self.killed_tokens:
            killed = Death.OVER_MEMORY if self.death is Death.OVER_MEMORY else Death.TIMED_OUT
            others = Death.IN_COMPANY if self.death is Death.IN_COMPANY else Death.FOR_ANOTHER
            return killed if token in self.killed_tokens else others
        return Death.IN_COMPANY if self.death is Death.BY_ITSELF and running > 1 else self.death

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
    running: Mapping[int, ClaimedJob]
    """Those whose handlers had begun, by their tickets."""


def sort_out(held: Mapping[int, ClaimedJob], unread: Collection[int], glance: Glance) -> Fates:
    """Sort the jobs that a dead worker held and had not reported.

    Unread tickets are unstarted for certain. Of the others the slot names those that ran and those that finished;
    a ticket taken but not yet noted in the slot belongs to a job whose handler had not begun.
    """
    tokens = {each.token for each in glance.running}
    unstarted: dict[int, ClaimedJob] = {}
    running: dict[int, ClaimedJob] = {}
    finished: list[ClaimedJob] = []
    for token, claimed in held.items():
        if token in tokens:
            running[token] = claimed
        elif token in unread or token > glance.done:
            unstarted[token] = claimed
        else:
            finished.append(claimed)
    return Fates(unstarted, tuple(finished), running)


def of_finished(claimed: ClaimedJob, now_us: int) -> Ending:
    """Return the ending of a job that ran to its end, whose outcome died with the worker: it has to run again."""
    if claimed.delivery == AT_MOST_ONCE:
        return ending(claimed, Outcome(Verb.FAIL, reason=Reason.LOST, error_type="WorkerDied"), now_us)
    return ending(claimed, Outcome(Verb.RELEASE), now_us)


def of_running(claimed: ClaimedJob, death: Death, now_us: int, jitter: float) -> Ending:
    """Return the ending of the job that ran when its worker died.

    A job that was killed for its time or its memory has spent its attempt. One whose worker we stopped has not. Where
    it ran beside others it is released as lost, and runs alone from then on, so that a second death can be charged.
    Anything else is a crash, charged to this job alone: the third is the last, the second and later ones wait 10 s.
    """
    if death is Death.TIMED_OUT:
        outcome = retry_or_fail(claimed, Reason.TIMED_OUT, jitter)
        return ending(claimed, replace(outcome, error_type="JobTimedOut"), now_us)
    if death is Death.OVER_MEMORY:
        outcome = retry_or_fail(claimed, Reason.ERROR, jitter)
        return ending(claimed, replace(outcome, error_type="MemoryLimitExceeded"), now_us)
    if claimed.delivery == AT_MOST_ONCE:
        return ending(claimed, Outcome(Verb.FAIL, reason=Reason.LOST, error_type="WorkerDied"), now_us)
    if death is Death.FOR_ANOTHER and not is_suspect(claimed):
        often = claimed.lease - claimed.attempt >= MOST_STARTS_BESIDE
        death = Death.IN_COMPANY if often else Death.STOPPED
    if death in (Death.STOPPED, Death.FOR_ANOTHER):
        return ending(claimed, Outcome(Verb.RELEASE), now_us)
    if death in (Death.WITH_TEMPLATE, Death.IN_COMPANY) and not is_suspect(claimed):
        return ending(claimed, Outcome(Verb.RELEASE, reason=Reason.LOST, error_type="WorkerDied"), now_us)._replace(
            lost=True
        )
    return _crash(claimed, now_us)


def is_suspect(claimed: ClaimedJob) -> bool:
    """Say whether a job has lost its worker or its node before: it then runs alone, its start on record."""
    return claimed.crashes > 0 or claimed.losses > 0


def is_strict(claimed: ClaimedJob) -> bool:
    """Say whether a job may run on this node only while no other such job does, so that the next death is its own."""
    return claimed.crashes + claimed.losses >= STRICT_AT and claimed.delivery != AT_MOST_ONCE


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
