"""How long a failed job waits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from taskqueue.backoff import DEFAULT_BACKOFF, LONGEST_DELAY, Backoff, fixed, parse_backoff
from taskqueue.errors import InvalidOption

backoffs = some.builds(
    lambda base, more, factor, jitter: Backoff(base, factor, base + more, jitter),
    base=some.floats(0, 1e6),
    more=some.floats(0, 1e6),
    factor=some.floats(1, 100),
    jitter=some.floats(0, 1),
)


def test_the_default_grows_from_ten_seconds_to_an_hour() -> None:
    assert [DEFAULT_BACKOFF.delay(attempt, 0.0) for attempt in (1, 2, 3)] == [10.0, 20.0, 40.0]
    assert DEFAULT_BACKOFF.delay(50, 0.0) == 3600.0


@given(backoffs, some.integers(1, 1000), some.floats(0, 1, exclude_max=True))
def test_jitter_only_adds_and_never_more_than_its_share(backoff: Backoff, attempt: int, jitter: float) -> None:
    floor = backoff.delay(attempt, 0.0)
    assert floor <= backoff.delay(attempt, jitter) <= floor * (1 + backoff.jitter)


@given(backoffs, some.integers(1, 1000))
def test_delays_never_shrink_and_never_exceed_the_cap(backoff: Backoff, attempt: int) -> None:
    assert backoff.delay(attempt, 0.0) <= backoff.delay(attempt + 1, 0.0) <= backoff.cap


@given(backoffs)
def test_the_stored_form_reads_back_exactly(backoff: Backoff) -> None:
    assert parse_backoff(backoff.to_text()) == backoff


@given(backoffs)
def test_the_stored_form_fits_its_column(backoff: Backoff) -> None:
    assert len(backoff.to_text()) <= 100


def test_nothing_stored_is_the_default() -> None:
    assert parse_backoff(None) is DEFAULT_BACKOFF


def test_a_fixed_interval_does_not_grow() -> None:
    assert {fixed(60).delay(attempt, 0.0) for attempt in range(1, 20)} == {60}


def test_a_fixed_interval_of_nothing_is_no_wait() -> None:
    assert fixed(0).delay(1, 0.99) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"base": -1},
        {"base": 10, "cap": 5},
        {"cap": LONGEST_DELAY * 2},
        {"factor": 0.5},
        {"factor": 101},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"base": math.nan},
        {"cap": math.inf},
        {"factor": math.nan},
        {"jitter": math.nan},
    ],
    ids=str,
)
def test_a_backoff_that_would_wait_a_negative_time_or_for_ever_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidOption):
        Backoff(**wrong)


def test_ten_thousand_failures_at_once_do_not_come_back_at_once() -> None:
    """No second sees more than three times the mean."""
    delays = [DEFAULT_BACKOFF.delay(5, number / 10_000) for number in range(10_000)]
    seconds = [int(delay) for delay in delays]
    mean = len(seconds) / len(set(seconds))
    assert max(seconds.count(second) for second in set(seconds)) <= 3 * mean
