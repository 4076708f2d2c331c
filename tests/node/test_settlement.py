"""What becomes of each job of a worker that died: every death, delivery, history and state of its slot."""

from __future__ import annotations

import itertools
import signal

import pytest

from taskqueue.drivers.values import CRASH_LIMIT, CRASHED_AGAIN_DELAY, ClaimedJob, Ending
from taskqueue.node.settlement import (
    Death,
    Obituary,
    is_suspect,
    of_finished,
    of_running,
    sort_out,
)
from taskqueue.states import Reason, Verb
from tests.node.making import AT_MOST_ONCE, NOW_US, claimed_job, glance

KILLED = Obituary(Death.BY_ITSELF, -signal.SIGKILL, 51_200)


def settle(claimed: ClaimedJob, death: Death, jitter: float = 0.0) -> Ending:
    return of_running(claimed, death, NOW_US, jitter)


# --- which of its jobs ran ---------------------------------------------------------------------------------------


def test_a_worker_that_died_idle_had_started_none_of_the_jobs_it_held() -> None:
    held = {number: claimed_job() for number in (4, 5, 6)}
    fates = sort_out(held, [4, 5, 6], glance(done=3))
    assert dict(fates.unstarted) == held
    assert fates.finished == ()
    assert not fates.running


def test_the_slot_names_the_job_that_ran() -> None:
    held = {number: claimed_job() for number in (4, 5, 6)}
    fates = sort_out(held, [6], glance(5, done=4))
    assert dict(fates.running) == {5: held[5]}
    assert fates.finished == (held[4],)
    assert dict(fates.unstarted) == {6: held[6]}


def test_a_ticket_taken_and_not_yet_in_the_slot_belongs_to_a_job_that_has_not_begun() -> None:
    held = {4: claimed_job(), 5: claimed_job()}
    fates = sort_out(held, [5], glance(done=3))
    assert dict(fates.unstarted) == held
    assert not fates.running


def test_a_job_that_was_taken_back_before_the_death_is_nobodys() -> None:
    fates = sort_out({}, [], glance(9, done=8))
    assert not fates.running
    assert fates.finished == ()
    assert not fates.unstarted


@pytest.mark.parametrize(("ran", "finished", "unread"), list(itertools.product((False, True), (0, 1, 3), (0, 1, 3))))
def test_each_job_that_a_dead_worker_held_has_one_fate(ran: bool, finished: int, unread: int) -> None:
    tokens = range(11, 11 + finished + int(ran) + unread)
    held = {token: claimed_job() for token in tokens}
    done = 10 + finished
    running = [done + 1] if ran else []
    fates = sort_out(held, list(tokens)[finished + int(ran) :], glance(*running, done=done))
    fallen = [*fates.unstarted.values(), *fates.finished, *fates.running.values()]
    assert sorted(job.id for job in fallen) == sorted(job.id for job in held.values())
    assert (len(fates.finished), bool(fates.running), len(fates.unstarted)) == (finished, ran, unread)


@pytest.mark.parametrize("states", list(itertools.product("rfu", repeat=4)))
def test_of_several_places_those_in_a_lane_ran_the_others_that_began_have_finished(states: tuple[str, ...]) -> None:
    """Jobs begin in the order of their tickets and end in any: running, finished, or unread from some ticket on."""
    begun = [state if "u" not in states[:number] else "u" for number, state in enumerate(states)]
    held = {number: claimed_job() for number in range(11, 15)}
    kinds = dict(zip(held, begun, strict=True))
    running = [token for token, state in kinds.items() if state == "r"]
    done = max((token for token, state in kinds.items() if state != "u"), default=10)
    fates = sort_out(held, [], glance(*running, done=done))
    assert dict(fates.running) == {token: held[token] for token in running}
    assert list(fates.finished) == [held[token] for token, state in kinds.items() if state == "f"]
    assert dict(fates.unstarted) == {token: held[token] for token, state in kinds.items() if state == "u"}


# --- the job that ran --------------------------------------------------------------------------------------------


def test_the_first_crash_brings_the_job_back_at_once_with_its_attempt_unspent() -> None:
    end = settle(claimed_job(), Death.BY_ITSELF)
    assert (end.verb, end.spent, end.run_at, end.crashed) == (Verb.RELEASE, False, None, True)
    assert (end.reason, end.error_type) == (Reason.CRASHED, "WorkerDied")


def test_the_second_crash_brings_it_back_after_the_delay() -> None:
    end = settle(claimed_job(crashes=1), Death.BY_ITSELF)
    assert (end.verb, end.spent, end.crashed) == (Verb.RELEASE, False, True)
    assert end.run_at == NOW_US + CRASHED_AGAIN_DELAY * 1e6


@pytest.mark.parametrize("crashes", [CRASH_LIMIT - 1, CRASH_LIMIT, CRASH_LIMIT + 5])
def test_the_crash_at_the_limit_is_the_last(crashes: int) -> None:
    end = settle(claimed_job(crashes=crashes), Death.BY_ITSELF)
    assert (end.verb, end.reason, end.crashed) == (Verb.FAIL, Reason.CRASHED, True)


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_crash_counts_apart_from_attempts(attempt: int) -> None:
    end = settle(claimed_job(attempt=attempt, max_attempts=3), Death.BY_ITSELF)
    assert (end.verb, end.spent) == (Verb.RELEASE, False)


def test_a_job_killed_for_its_time_has_spent_its_attempt_and_is_no_crash() -> None:
    end = settle(claimed_job(attempt=1), Death.TIMED_OUT)
    assert (end.verb, end.reason, end.spent, end.crashed) == (Verb.RETRY, Reason.TIMED_OUT, True, False)
    assert end.error_type == "JobTimedOut"
    assert end.run_at is not None
    assert end.run_at > NOW_US


def test_a_job_killed_for_its_time_at_its_last_attempt_fails() -> None:
    end = settle(claimed_job(attempt=3), Death.TIMED_OUT)
    assert (end.verb, end.reason) == (Verb.FAIL, Reason.TIMED_OUT)


def test_a_job_whose_worker_we_stopped_is_handed_back_without_a_trace() -> None:
    end = settle(claimed_job(crashes=1, losses=1), Death.STOPPED)
    assert (end.verb, end.spent, end.crashed, end.lost, end.error_type) == (Verb.RELEASE, False, False, False, None)


def test_a_worker_that_went_down_with_its_template_charges_a_loss_and_no_crash() -> None:
    end = settle(claimed_job(), Death.WITH_TEMPLATE)
    assert (end.verb, end.spent, end.crashed, end.lost) == (Verb.RELEASE, False, False, True)
    assert end.reason is Reason.LOST


@pytest.mark.parametrize("past", [{"crashes": 1}, {"losses": 1}])
def test_a_suspect_that_ran_when_the_template_died_is_charged(past: dict[str, int]) -> None:
    assert settle(claimed_job(**past), Death.WITH_TEMPLATE).crashed


@pytest.mark.parametrize("death", [Death.BY_ITSELF, Death.STOPPED, Death.WITH_TEMPLATE])
def test_an_at_most_once_job_whose_worker_died_is_lost_and_never_runs_again(death: Death) -> None:
    end = settle(claimed_job(delivery=AT_MOST_ONCE, max_attempts=1), death)
    assert (end.verb, end.reason) == (Verb.FAIL, Reason.LOST)


def test_an_at_most_once_job_killed_for_its_time_fails_as_timed_out() -> None:
    end = settle(claimed_job(delivery=AT_MOST_ONCE, max_attempts=1), Death.TIMED_OUT)
    assert (end.verb, end.reason) == (Verb.FAIL, Reason.TIMED_OUT)


@pytest.mark.parametrize(
    ("death", "crashes", "losses", "delivery"),
    list(itertools.product(Death, range(CRASH_LIMIT + 1), (0, 1), (0, AT_MOST_ONCE))),
)
def test_whatever_happened_the_job_ends_or_comes_back_and_keeps_its_fence(
    death: Death, crashes: int, losses: int, delivery: int
) -> None:
    claimed = claimed_job(crashes=crashes, losses=losses, delivery=delivery, lease=7)
    end = settle(claimed, death, jitter=0.99)
    assert (end.id, end.lease, end.queue) == (claimed.id, 7, claimed.queue)
    assert end.verb in (Verb.FAIL, Verb.RETRY, Verb.RELEASE)
    assert end.spent == (end.verb is not Verb.RELEASE)
    if delivery == AT_MOST_ONCE:
        assert end.verb is Verb.FAIL


def test_a_worker_killed_for_another_job_than_the_one_it_ran_charges_neither_time_nor_crash_to_the_latter() -> None:
    """The handler came back just before the kill, and the next job had begun."""
    obituary = Obituary(Death.TIMED_OUT, -signal.SIGKILL, killed_tokens=frozenset({8}))
    assert obituary.death_of(9) is Death.FOR_ANOTHER
    assert obituary.death_of(8) is Death.TIMED_OUT


def test_those_beside_a_job_that_was_killed_for_its_time_are_not_at_fault() -> None:
    obituary = Obituary(Death.TIMED_OUT, -signal.SIGKILL, killed_tokens=frozenset({8, 11}))
    found = {token: obituary.death_of(token, 4) for token in (8, 9, 10, 11)}
    assert [token for token, death in found.items() if death is Death.TIMED_OUT] == [8, 11]
    assert [token for token, death in found.items() if death is Death.FOR_ANOTHER] == [9, 10]
    end = settle(claimed_job(), Death.FOR_ANOTHER)
    assert (end.verb, end.spent, end.crashed, end.lost) == (Verb.RELEASE, False, False, False)


@pytest.mark.parametrize(("lease", "attempt", "lost"), [(5, 1, False), (6, 1, True), (6, 2, False), (100, 3, True)])
def test_a_job_that_started_often_beside_others_that_timed_out_runs_alone(lease: int, attempt: int, lost: bool) -> None:
    end = settle(claimed_job(lease=lease, attempt=attempt), Death.FOR_ANOTHER)
    assert (end.verb, end.spent, end.crashed, end.lost) == (Verb.RELEASE, False, False, lost)
    suspect = settle(claimed_job(lease=lease, attempt=attempt, losses=1), Death.FOR_ANOTHER)
    assert (suspect.verb, suspect.crashed, suspect.lost) == (Verb.RELEASE, False, False)


def test_where_a_loop_stood_still_who_was_told_has_timed_out_and_nobody_else() -> None:
    obituary = Obituary(Death.IN_COMPANY, -signal.SIGKILL, killed_tokens=frozenset({8}))
    assert [obituary.death_of(token, 2) for token in (8, 9)] == [Death.TIMED_OUT, Death.IN_COMPANY]


@pytest.mark.parametrize("running", [2, 500])
def test_where_a_worker_died_with_several_jobs_none_is_charged_and_each_is_suspect_from_then_on(running: int) -> None:
    death = KILLED.death_of(3, running)
    end = settle(claimed_job(), death)
    assert (end.verb, end.spent, end.crashed, end.lost, end.reason) == (Verb.RELEASE, False, False, True, Reason.LOST)


def test_the_only_job_that_ran_is_charged_however_many_places_there_were() -> None:
    assert settle(claimed_job(), KILLED.death_of(3, 1)).crashed


def test_an_at_most_once_job_that_ran_beside_others_is_lost_when_their_worker_dies() -> None:
    end = settle(claimed_job(delivery=AT_MOST_ONCE, max_attempts=1), KILLED.death_of(3, 5))
    assert (end.verb, end.reason) == (Verb.FAIL, Reason.LOST)


@pytest.mark.parametrize("death", [Death.STOPPED, Death.WITH_TEMPLATE])
def test_company_changes_nothing_about_a_worker_that_we_ended(death: Death) -> None:
    assert Obituary(death).death_of(3, 5) is death


def test_any_other_death_concerns_whatever_job_ran() -> None:
    assert Obituary(Death.BY_ITSELF, 1).death_of(9) is Death.BY_ITSELF


# --- the job that had finished -----------------------------------------------------------------------------------


def test_a_finished_job_whose_outcome_died_with_the_worker_runs_again_unspent() -> None:
    end = of_finished(claimed_job(), NOW_US)
    assert (end.verb, end.spent, end.crashed) == (Verb.RELEASE, False, False)


def test_a_finished_at_most_once_job_whose_outcome_died_with_the_worker_is_lost() -> None:
    end = of_finished(claimed_job(delivery=AT_MOST_ONCE), NOW_US)
    assert (end.verb, end.reason) == (Verb.FAIL, Reason.LOST)


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("obituary", "words"),
    [
        (KILLED, "killed by SIGKILL, peak memory 50 MB"),
        (Obituary(Death.BY_ITSELF, 3, 1024), "exited with code 3, peak memory 1 MB"),
        (Obituary(Death.WITH_TEMPLATE), "it went down with its template process"),
        (Obituary(Death.BY_ITSELF, -40), "killed by signal 40"),
    ],
)
def test_an_obituary_says_how_the_worker_died(obituary: Obituary, words: str) -> None:
    assert obituary.describe() == words


def test_a_job_is_suspect_once_it_has_lost_a_worker_or_a_node() -> None:
    assert not is_suspect(claimed_job())
    assert is_suspect(claimed_job(crashes=1))
    assert is_suspect(claimed_job(losses=1))
