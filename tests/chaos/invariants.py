"""The invariants of a run, each exact, counted by (job, lease); each says how much it looked at and what is broken."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID

from taskqueue.states import State
from tests.chaos.causes import UNEXPLAINED, Causes
from tests.chaos.evidence import Evidence, Final, Run

SHOWN = 5
EFFECTS = frozenset({"effect", "frozen effect"})
"""Kinds of transactional jobs. One that lost its transaction to another runs again in its process, under its lease."""
_ABOUT_LOCKS = re.compile(r"deadlock|lost a lock|lock wait|could not serialize|\b1213\b|\b1205\b|40P01", re.IGNORECASE)
_NEVER_STARTS = frozenset({"orphan"})
_ERRORS = frozenset({"error", "timed_out"})
_LOSSES = frozenset({"crashed", "lost"})


@dataclass(slots=True)
class Verdict:
    """What one invariant found. ``there`` is False where the product has nothing yet that it could be about."""

    name: str
    promise: str
    looked_at: dict[str, int] = field(default_factory=dict)
    broken: int = 0
    examples: list[str] = field(default_factory=list)
    there: bool = True

    def judge(self, faults: Iterable[str]) -> Verdict:
        """Count what is broken, and keep a few examples."""
        for each in faults:
            self.broken += 1
            if len(self.examples) < SHOWN:
                self.examples.append(each)
        return self


def judge(evidence: Evidence) -> list[Verdict]:
    """Return the verdict of every invariant."""
    causes = Causes(evidence)
    return [each(evidence, causes) for each in EVERY]


# --- I1 to I4: starts -------------------------------------------------------------------------------------------------


def every_job_started(evidence: Evidence, _: Causes) -> Verdict:
    verdict = Verdict("I1", "every job has started at least once, unless a parent of its failed or it waits for none")
    due = [each for each in evidence.history if evidence.kind(each) not in _NEVER_STARTS]
    verdict.looked_at = {"jobs": len(due), "starts": sum(map(len, evidence.runs.values()))}
    never = (each for each in due if each not in evidence.runs and _ought_to_start(evidence, each))
    unasked = (each for each in evidence.runs if evidence.kind(each) in _NEVER_STARTS)
    return verdict.judge(
        [*(f"job {each} ({evidence.kind(each)}) never started" for each in never),
         *(f"job {each} started although its parent failed" for each in unasked)]
    )  # fmt: skip


def _ought_to_start(evidence: Evidence, job: UUID) -> bool:
    """Say whether a job that never started should have: one whose node died with it may be lost before its start."""
    final = evidence.history[job]
    return final.state is not State.CANCELLED and not (evidence.kind(job) == "once" and final.reason == "lost")


def no_job_lost(evidence: Evidence, _: Causes) -> Verdict:
    verdict = Verdict("I2", "what was pushed is final, once, and nothing else is there")
    pushes, history = evidence.pushes, evidence.history
    certain = pushes.jobs.keys() - pushes.doubtful
    verdict.looked_at = {
        "pushed": len(certain), "in doubt": len(pushes.doubtful), "final": len(history),
        "completed": sum(final.state is State.COMPLETED for final in history.values()),
        "failed": sum(final.state is State.FAILED for final in history.values()),
    }  # fmt: skip
    lost = certain - history.keys() - {each for each, _ in evidence.live}
    ended = {each: final for each, final in history.items() if not _ended_well(evidence, each, final)}
    faults = [f"job {each} ({evidence.kind(each)}) is lost" for each in lost]
    faults += [f"job {each} ({evidence.kind(each)}) is not final: {what}" for each, what in evidence.live]
    faults += [f"job {each} came from nowhere" for each in history.keys() - pushes.jobs.keys()]
    faults += [f"job {each} ({evidence.kind(each)}) ended as {end.state}, {end.reason}" for each, end in ended.items()]
    return verdict.judge([*faults, *pushes.wrong])


def _ended_well(evidence: Evidence, job: UUID, final: Final) -> bool:
    """Say whether a job ended as one of its kind may."""
    ends: dict[str, set[tuple[State, str | None]]] = {
        "poison": {(State.FAILED, "crashed")},
        "doomed": {(State.FAILED, "error")},
        "doomed parent": {(State.FAILED, "error")},
        "orphan": {(State.FAILED, "dependency_failed")},
        "once": {(State.COMPLETED, None), (State.FAILED, "lost")},
        "cancelled": {(State.COMPLETED, None), (State.CANCELLED, None)},
    }
    allowed = ends.get(evidence.kind(job), {(State.COMPLETED, None)})
    # Whoever was on a worker three times when that was killed from outside looks like poison, and is treated as such.
    if final.crashes >= 3 and _killed_from_outside(evidence, job):
        allowed = allowed | {(State.FAILED, "crashed")}
    return (final.state, final.reason) in allowed


def _killed_from_outside(evidence: Evidence, job: UUID) -> bool:
    killed = {pid for fault in evidence.faults for pid in fault.pids if fault.kind.startswith(("kill", "pause"))}
    nodes = {fault.node for fault in evidence.faults if fault.node is not None}
    hit = [run for run in evidence.runs.get(job, ()) if run.pid in killed or run.node in nodes]
    return len(hit) >= 3


def second_starts_have_causes(evidence: Evidence, causes: Causes) -> Verdict:
    verdict = Verdict("I3", "a job starts again only after a cause, and no fault causes more starts than it hit runs")
    unexplained = [key for key, cause in causes.found.items() if cause == UNEXPLAINED]
    verdict.looked_at = {"second starts": len(causes.found), **causes.counts}
    too_many = [
        f"{evidence.faults[number].kind} caused {caused} second starts"
        for number, caused in causes.by_fault.items()
        if caused > causes.running_at(evidence.faults[number])
    ]
    return verdict.judge([*(_unexplained(evidence, *key) for key in unexplained), *too_many])


def _unexplained(evidence: Evidence, job: UUID, lease: int) -> str:
    runs = [f"lease {run.lease} on node {run.node}, pid {run.pid}, at {run.began:.2f}" for run in evidence.runs[job]]
    ends = [f"{each.lease} {each.reason}" for each in evidence.attempts.get(job, ())]
    return f"job {job} ({evidence.kind(job)}) started again after lease {lease}: {runs}; attempts {ends}"


def no_lease_twice(evidence: Evidence, _: Causes) -> Verdict:
    verdict = Verdict("I4", "no (job, lease) has started twice")
    runs = [run for each in evidence.runs.values() for run in each]
    counted = {(run.job, run.lease, run.pid if evidence.kind(run.job) in EFFECTS else run.began) for run in runs}
    pairs = Counter((job, lease) for job, lease, _ in counted)
    verdict.looked_at = {"pairs": len(pairs), "transactions run again": len(runs) - len(counted)}
    twice = [(job, lease, times) for (job, lease), times in pairs.items() if times > 1]
    return verdict.judge(f"job {job} started {times} times under lease {lease}" for job, lease, times in twice)


# --- I5, I6: effects and history --------------------------------------------------------------------------------------


def completed_means_done(evidence: Evidence, _: Causes) -> Verdict:
    verdict = Verdict("I5", "transactional effects are exact; any job completes under the lease that had its effect")
    done = {(run.job, run.lease) for runs in evidence.runs.values() for run in runs if run.ended is not None}
    completed = [(each, final.lease) for each, final in evidence.history.items() if final.state is State.COMPLETED]
    transactional = {each for each in evidence.history if evidence.kind(each) in EFFECTS}
    rows = sum(map(len, evidence.effects.values()))
    verdict.looked_at = {"completed": len(completed), "effects": len(done)}
    verdict.looked_at |= {"transactional": len(transactional), "rows of these": rows}
    without = [(job, lease) for job, lease in completed if (job, lease) not in done]
    verdict.judge(_wrong_effects(evidence, transactional))
    return verdict.judge(f"job {job} completed under lease {lease} without its effect" for job, lease in without)


def _wrong_effects(evidence: Evidence, transactional: set[UUID]) -> Iterator[str]:
    """Tell of each transactional job that has not left one row if it completed, and none otherwise."""
    for job in transactional | evidence.effects.keys():
        final, leases = evidence.history.get(job), evidence.effects.get(job, ())
        due = [final.lease] if final is not None and final.state is State.COMPLETED else []
        if list(leases) != due:
            yield f"job {job} left rows under the leases {list(leases)}, and {due} are due"


def history_is_complete(evidence: Evidence, _: Causes) -> Verdict:
    verdict = Verdict("I6", "each claim, failure, crash and loss is on record: leases and attempts add up")
    ended = sum(map(len, evidence.attempts.values()))
    verdict.looked_at = {"attempts on record": ended, "jobs": len(evidence.history)}
    return verdict.judge(each for job, final in evidence.history.items() for each in _wrong_in(evidence, job, final))


def _wrong_in(evidence: Evidence, job: UUID, final: Final) -> Iterator[str]:
    since = max(evidence.pushes.revived.get(job, ()), default=0)
    on_record = [each for each in evidence.attempts.get(job, ()) if each.lease > since]
    errors = sum(each.reason in _ERRORS for each in on_record)
    losses = sum(each.reason in _LOSSES for each in on_record)
    runs = evidence.runs.get(job, [])
    last = max((run.lease for run in runs), default=0)
    about = f"job {job} ({evidence.kind(job)}), lease {final.lease}"
    if final.reason == "dependency_failed" or final.state is State.CANCELLED:
        return
    if losses != final.crashes + final.losses:
        yield f"{about}: {losses} crashes and losses on record, {final.crashes} + {final.losses} counted"
    if errors != final.attempt - (0 if final.reason in _ERRORS else 1):
        yield f"{about}: {errors} errors on record, at attempt {final.attempt}"
    if final.state is State.COMPLETED and last != final.lease:
        yield f"{about}: the last start had lease {last}"
    if last > final.lease or any(each.lease > final.lease for each in on_record):
        yield f"{about}: a start or an attempt has a higher lease"
    for run, following in pairwise(runs):
        if following.lease < run.lease + 2 and following.lease != run.lease:
            yield f"{about}: lease {following.lease} was given out without one being given back"


# --- I7 to I10: counters, promises of classes, overlaps ---------------------------------------------------------------


def counters_equal_rows(evidence: Evidence, _: Causes) -> Verdict:
    verdict = Verdict("I7", "counters of queues and minutes equal a count over the rows (batches: not there yet)")
    rows = Counter(final.state.code for final in evidence.history.values())
    counted = {state: jobs for state, jobs in evidence.counters.items() if jobs}
    again = sum(map(len, evidence.pushes.revived.values()))
    completed, failed = rows[State.COMPLETED.code], rows[State.FAILED.code]
    verdict.looked_at = {"rows": sum(rows.values()), "revived": again}
    broken = [] if counted == dict(rows) else [f"the counters say {counted}, the rows {dict(rows)}"]
    certain = not evidence.pushes.errors  # A revival whose answer was lost may have happened or not.
    if evidence.rollups[0] != completed or (certain and evidence.rollups[1] != failed + again):
        broken.append(f"the minutes say {evidence.rollups}, the rows {(completed, failed)} and {again} revived")
    return verdict.judge(broken)


def at_most_once_holds(evidence: Evidence, _: Causes) -> Verdict:
    verdict = Verdict("I8", "a job with at-most-once delivery starts at most once")
    once = [each for each in evidence.history if evidence.kind(each) == "once"]
    verdict.looked_at = {"jobs": len(once), "lost": sum(evidence.history[each].reason == "lost" for each in once)}
    times = {each: len(evidence.runs.get(each, ())) for each in once}
    return verdict.judge(f"job {each} started {number} times" for each, number in times.items() if number > 1)


def schedules_fire_once(_: Evidence, __: Causes) -> Verdict:
    return Verdict("I9", "one job for each nominal time of a schedule", there=False)


def no_run_overlaps(evidence: Evidence, _: Causes) -> Verdict:
    """Excuse nobody but a process that was stopped from outside with its template: nothing could end it in time."""
    verdict = Verdict(
        "I10", "no two runs of a job, or of jobs with one key, overlap (limits: not there yet); order holds"
    )
    pairs = [(a, b) for runs in evidence.runs.values() for a, b in pairwise(runs)]
    pairs = [(a, b) for a, b in pairs if (a.pid, a.lease) != (b.pid, b.lease)]
    overlaps = [(a, b) for a, b in pairs if a.ended is not None and a.ended > b.began]
    excused = [pair for pair in overlaps if _was_stopped(evidence, *pair)]
    verdict.looked_at = {"pairs of runs": len(pairs), "excused overlaps": len(excused)}
    unexcused = [pair for pair in overlaps if pair not in excused]
    return verdict.judge(
        [*(_overlap(a, b) for a, b in unexcused), *_before_their_parents(evidence), *_keys_overlap(evidence)]
    )


def _overlap(a: Run, b: Run) -> str:
    return f"job {a.job} ran under lease {a.lease} for {(a.ended or 0) - b.began:.2f} s beside lease {b.lease}"


def _was_stopped(evidence: Evidence, first: Run, second: Run) -> bool:
    for fault in evidence.faults:
        whole = fault.kind in ("pause node", "pause supervisor and template") and fault.node == first.node
        alone = first.pid in fault.pids and fault.kind.startswith(("pause", "frozen"))
        meanwhile = fault.began <= (first.ended or 0) and fault.ended >= first.began and fault.began <= second.began
        if (whole or alone) and meanwhile:
            return True
    return False


def _before_their_parents(evidence: Evidence) -> Iterator[str]:
    for job, about in evidence.pushes.jobs.items():
        runs = evidence.runs.get(job)
        if not runs or not about.parents:
            continue
        for parent in about.parents:
            first_end = min((run.ended for run in evidence.runs.get(parent, ()) if run.ended), default=None)
            if first_end is None or runs[0].began < first_end:
                yield f"job {job} started before its parent {parent} had ended"


def _keys_overlap(evidence: Evidence) -> Iterator[str]:
    by_key: dict[str, list[Run]] = {}
    for job, about in evidence.pushes.jobs.items():
        final = evidence.history.get(job)
        if about.key is not None and final is not None:
            by_key.setdefault(about.key, []).extend(r for r in evidence.runs.get(job, ()) if r.lease == final.lease)
    for key, runs in by_key.items():
        runs.sort(key=lambda run: run.began)
        for a, b in pairwise(runs):
            if a.ended is not None and a.ended > b.began and a.job != b.job:
                yield f"jobs {a.job} and {b.job} ran at once with the unique key {key}"


# --- I11, I12: afterwards ---------------------------------------------------------------------------------------------


def nothing_left(evidence: Evidence, _: Causes) -> Verdict:
    verdict = Verdict(
        "I11", "no process, connection, lock, lease, temporary file or shared memory is left; nodes end well"
    )
    verdict.looked_at = {"nodes": evidence.nodes_started}
    tracebacks = [f"node {each} showed a traceback" for each, log in evidence.logs.items() if "Traceback" in log]
    said = [(each, line) for each, log in evidence.logs.items() for line in log.splitlines()]
    locks = [f"node {each}: {line}" for each, line in said if _ABOUT_LOCKS.search(line)]
    codes = [f"node {each} ended with {code}" for each, code in evidence.codes]
    return verdict.judge([*(f"left: {each}" for each in evidence.leftovers), *tracebacks, *locks, *codes])


def stale_writes_are_dropped_ones(evidence: Evidence, _: Causes) -> Verdict:
    verdict = Verdict("I12", "every write that was dropped came from a lease that had moved on, and each was counted")
    told = [(line.job, line.lease, line.node) for line in evidence.events("stale") if line.job is not None]
    per_node = Counter(node for _, _, node in told)
    verdict.looked_at = {"stale writes": len(told)}
    # A transactional job has completed itself; what its node says of a worker that died after that is rightly dropped.
    told = [each for each in told if evidence.kind(each[0]) not in EFFECTS]
    wrong = [
        f"the outcome of job {job} under lease {lease} was dropped, though that is the lease under which it completed"
        for job, lease, _ in told
        if (final := evidence.history.get(job)) and final.state is State.COMPLETED and lease >= final.lease
    ]
    miscounted = [
        f"node {node} counted {counted} stale writes and had {per_node[node]}"
        for node, counted in evidence.counted_stale.items()
        if counted < per_node[node]
    ]
    return verdict.judge([*wrong, *miscounted])


EVERY: Sequence[Callable[[Evidence, Causes], Verdict]] = (
    every_job_started,
    no_job_lost,
    second_starts_have_causes,
    no_lease_twice,
    completed_means_done,
    history_is_complete,
    counters_equal_rows,
    at_most_once_holds,
    schedules_fire_once,
    no_run_overlaps,
    nothing_left,
    stale_writes_are_dropped_ones,
)
