"""In which order the lanes of a node are walked, and how far each was read.

A lane is one (queue, rank) pair. Where deleted rows linger in an index until they are vacuumed, a claim that starts at
the beginning of its lane walks over the dead rows of every earlier one: measured 14 times the cost under a long open
transaction. So each lane has a low-water mark, the ``ready_at`` up to which everything was claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from taskqueue.drivers.values import Lanes

Lane = tuple[str, int]

SLACK_US = 1_000_000
"""How much later than its ``ready_at`` a row may be committed and still be found at once, in microseconds."""

RESCAN_SECONDS = 5.0
"""How long a row that was committed later than that can stay unseen behind a mark."""

_rank_of = itemgetter(1)


def in_turn(lanes: Sequence[Lane], turn: int) -> list[Lane]:
    """Return lanes, given by rank, so that those of equal rank take turns in being first."""
    if len(lanes) < 2:
        return list(lanes)
    ordered: list[Lane] = []
    for _, equals in groupby(lanes, key=_rank_of):
        peers = list(equals)
        first = turn % len(peers)
        ordered += peers[first:] + peers[:first]
    return ordered


def forget_old_marks(lanes: Lanes, monotonic: float) -> None:
    """Drop every mark when the time of the next full rescan has come."""
    if monotonic >= lanes.rescan_at:
        lanes.low.clear()
        lanes.rescan_at = monotonic + RESCAN_SECONDS


def note_claim(lanes: Lanes, lane: Lane, last_ready_at: int | None, *, short: bool) -> None:
    """Set the mark of ``lane`` to the last row taken, or drop it where fewer came than were asked for."""
    if short or last_ready_at is None:
        lanes.low.pop(lane, None)
    else:
        lanes.low[lane] = last_ready_at - SLACK_US
