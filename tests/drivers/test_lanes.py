from __future__ import annotations

from taskqueue.drivers.lanes import RESCAN_SECONDS, SLACK_US, forget_old_marks, in_turn, note_claim
from taskqueue.drivers.values import Lanes


def test_lanes_of_equal_rank_take_turns_and_ranks_keep_their_order() -> None:
    lanes = [("a", -1), ("b", -1), ("c", 0), ("d", 0), ("e", 0), ("f", 3)]

    orders = [in_turn(lanes, turn) for turn in range(6)]

    assert all(sorted(order, key=lambda lane: lane[1]) == order for order in orders)
    assert {order[0] for order in orders} == {("a", -1), ("b", -1)}
    assert {order[2] for order in orders} == {("c", 0), ("d", 0), ("e", 0)}
    assert all(sorted(order) == sorted(lanes) for order in orders)


def test_a_full_claim_leaves_a_mark_with_slack() -> None:
    lanes = Lanes(None)

    note_claim(lanes, ("q", 0), 10_000_000, short=False)

    assert lanes.low == {("q", 0): 10_000_000 - SLACK_US}


def test_a_short_claim_drops_the_mark() -> None:
    lanes = Lanes(None)
    note_claim(lanes, ("q", 0), 10_000_000, short=False)

    note_claim(lanes, ("q", 0), 20_000_000, short=True)
    note_claim(lanes, ("r", 0), None, short=True)

    assert lanes.low == {}


def test_every_mark_is_dropped_when_the_rescan_is_due() -> None:
    lanes = Lanes(None)
    forget_old_marks(lanes, 100.0)
    note_claim(lanes, ("q", 0), 10_000_000, short=False)

    forget_old_marks(lanes, 100.0 + RESCAN_SECONDS - 0.1)
    assert lanes.low != {}

    forget_old_marks(lanes, 100.0 + RESCAN_SECONDS)
    assert lanes.low == {}
