"""How long an outcome may wait to be written."""

from __future__ import annotations

from taskqueue.drivers.values import Completion
from taskqueue.node.ledger import FLUSH_AFTER, FLUSH_AT, Ledger
from taskqueue.node.outcome import Outcome, ending
from taskqueue.states import Verb
from tests.node.making import NOW_US, MovableClock, claimed_job


def completion() -> Completion:
    return Completion(claimed_job().id, 1, "default", NOW_US, 10, 10, None)


def filled(number: int, clock: MovableClock) -> Ledger:
    ledger = Ledger(clock)
    for _ in range(number):
        ledger.open()
        ledger.completions.append(completion())
    return ledger


def test_an_outcome_waits_five_milliseconds_for_others_while_jobs_run() -> None:
    clock = MovableClock()
    ledger = filled(1, clock)
    assert ledger.due_at(working=True) == clock.seconds + FLUSH_AFTER


def test_later_outcomes_do_not_prolong_the_wait_of_the_first() -> None:
    clock = MovableClock()
    ledger = filled(1, clock)
    due = ledger.due_at(working=True)
    clock.move(0.004)
    ledger.end(ending(claimed_job(), Outcome(Verb.FAIL), NOW_US))
    assert ledger.due_at(working=True) == due


def test_nothing_waits_once_nothing_else_runs() -> None:
    clock = MovableClock()
    assert filled(1, clock).due_at(working=False) <= clock.seconds


def test_many_outcomes_do_not_wait() -> None:
    clock = MovableClock()
    assert filled(FLUSH_AT, clock).due_at(working=True) <= clock.seconds
    assert filled(FLUSH_AT - 1, clock).due_at(working=True) > clock.seconds


def test_a_ledger_counts_completions_and_endings_until_they_are_written() -> None:
    ledger = filled(2, MovableClock())
    ledger.end(ending(claimed_job(), Outcome(Verb.RELEASE), NOW_US))
    assert len(ledger) == 3
    ledger.clear()
    assert len(ledger) == 0
    assert not ledger


def test_after_a_write_the_wait_starts_anew() -> None:
    clock = MovableClock()
    ledger = filled(1, clock)
    ledger.clear()
    clock.move(10)
    ledger.open()
    ledger.completions.append(completion())
    assert ledger.due_at(working=True) == clock.seconds + FLUSH_AFTER
