"""In which order lanes are walked, and how far each is taken to have been read."""

from __future__ import annotations

import pytest

from taskqueue.drivers.lanes import (
    DEAR,
    LATEST,
    LOOK_BACK_SHARE,
    SOONEST,
    forget_marks,
    in_turn,
    is_to_look_back,
    note_claims,
    note_cycle,
)
from taskqueue.drivers.values import ClaimedJob, Lanes


def claimed(queue: str, ready_at: int) -> ClaimedJob:
    limits = (None, None, 0)
    return ClaimedJob(b"", 1, queue, 0, "app.Work", 1, 3, 0, 0, 0, *limits, None, 0, ready_at, None, "k1", b"", None)


def test_lanes_of_equal_rank_take_turns_and_ranks_keep_their_order() -> None:
    lanes = [("a", -1), ("b", -1), ("c", 0), ("d", 0), ("e", 0), ("f", 3)]

    orders = [in_turn(lanes, turn) for turn in range(6)]

    assert all(sorted(order, key=lambda lane: lane[1]) == order for order in orders)
    assert {order[0] for order in orders} == {("a", -1), ("b", -1)}
    assert {order[2] for order in orders} == {("c", 0), ("d", 0), ("e", 0)}
    assert all(sorted(order) == sorted(lanes) for order in orders)


def test_a_claim_leaves_a_mark_at_the_last_job_of_each_lane() -> None:
    lanes = Lanes(None)

    note_claims(lanes, [claimed("q", 10), claimed("q", 20), claimed("r", 5)])
    note_claims(lanes, [claimed("r", 7)])

    assert lanes.low == {("q", 0): 20, ("r", 0): 7}


@pytest.mark.parametrize(("cost", "blind"), [(0.0, SOONEST), (0.025, 0.025 / LOOK_BACK_SHARE), (60.0, LATEST)])
def test_the_dearer_a_look_back_is_the_longer_it_is_to_the_next(cost: float, blind: float) -> None:
    lanes = Lanes(None)
    assert is_to_look_back(lanes, 100.0)
    note_cycle(lanes, 99.0, 99.5, looked_back=False)

    note_cycle(lanes, 100.0, 100.5 + cost, looked_back=True)

    ended = 100.5 + cost
    assert lanes.dear is (cost > DEAR)
    assert not is_to_look_back(lanes, ended + blind * 0.99)
    assert is_to_look_back(lanes, ended + blind * 1.01)


def test_a_slow_link_makes_no_look_back_dear() -> None:
    lanes = Lanes(None)
    note_cycle(lanes, 100.0, 100.2, looked_back=True)
    assert not lanes.dear
    note_cycle(lanes, 101.0, 101.2, looked_back=False)
    note_cycle(lanes, 102.0, 102.2, looked_back=True)
    assert not lanes.dear
    assert is_to_look_back(lanes, 102.2 + SOONEST)


def test_whoever_hears_of_new_jobs_looks_back_unless_that_is_dear() -> None:
    lanes = Lanes(None)
    note_cycle(lanes, 100.0, 100.1, looked_back=False)
    note_cycle(lanes, 101.0, 101.2, looked_back=True)
    lanes.look_back()
    assert not is_to_look_back(lanes, 101.3)
    lanes.look_back(at_any_price=True)
    assert is_to_look_back(lanes, 101.3)


def test_where_jobs_are_put_back_in_their_place_the_marks_are_forgotten() -> None:
    lanes = Lanes(None)
    note_claims(lanes, [claimed("q", 10), claimed("r", 5)])

    forget_marks(lanes, {"q", "unknown"})

    assert lanes.low == {("r", 0): 5}
