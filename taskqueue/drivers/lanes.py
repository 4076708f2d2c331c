"""In which order the lanes of a node are walked, and how far each was read.

A lane is one (queue, rank) pair. Where deleted rows linger in an index until they are vacuumed, a claim that starts at
the beginning of its lane walks over the dead rows of every earlier one: measured 14 times the cost under a long open
transaction. So each lane has a low-water mark, the ``ready_at`` up to which everything was claimed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from taskqueue.clock import Clock
from taskqueue.drivers.values import ClaimedJob, Lanes, NewJob

Lane = tuple[str, int]

LOOK_BACK_SHARE = 0.05
"""The share of the time that goes into claims which look behind the marks.

A row may come to stand behind a mark: its transaction was long, a clock was behind, another node handed the job back.
Where no dead rows lie there a look back costs next to nothing and is had every few milliseconds; where they cost 40 ms,
every 0.8 s.
"""

SOONEST, LATEST = 0.01, 1.0
"""Seconds between two looks back, at least and at most."""

DEAR = 0.02
"""Seconds from which on a look back is dear: then marks are worth keeping where nothing is left as well."""

REMEMBERED = 60.0
"""Seconds for which a lane that was noted is taken to be there still."""

LATE_US = 1_000_000
"""How long ago a promoted job is taken to have become ready at most, in microseconds: not far behind the marks."""

_rank_of = itemgetter(1)


class NotedLanes:
    """The lanes of which a pusher knows that they stand in the database, so that it need not note them again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._noted: dict[Lane, float] = {}

    def know(self, lane: Lane) -> bool:
        """Say whether a lane was noted lately."""
        noted = self._noted.get(lane)
        return noted is not None and self._clock.monotonic() - noted < REMEMBERED

    def missing(self, jobs: Iterable[NewJob]) -> list[Lane]:
        """Return the lanes of these jobs that are to be noted, in order."""
        return self.unknown((job.queue, job.rank) for job in jobs)

    def unknown(self, lanes: Iterable[Lane]) -> list[Lane]:
        """Return those of these lanes that are to be noted, in order."""
        return sorted(lane for lane in set(lanes) if not self.know(lane))

    def remember(self, lanes: Iterable[Lane]) -> None:
        """Take it that these lanes stand in the database."""
        self._noted.update(dict.fromkeys(lanes, self._clock.monotonic()))


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


def is_to_look_back(lanes: Lanes, now: float) -> bool:
    """Say whether the next claim is to read every lane from its beginning."""
    return now >= lanes.look_back_at


def note_cycle(lanes: Lanes, began: float, ended: float, *, looked_back: bool) -> None:
    """Learn what a look back costs, by what its cycle took longer than the last ordinary one, and set the next one."""
    if not looked_back:
        lanes.usual = ended - began
        return
    cost = max(0.0, ended - began - (lanes.usual or 0.0))
    lanes.dear = lanes.usual is not None and cost > DEAR
    lanes.look_back_at = ended + min(LATEST, max(SOONEST, cost / LOOK_BACK_SHARE))


def forget_marks(lanes: Lanes, queues: Collection[str]) -> None:
    """Forget how far these queues were read: jobs are put back into them that keep their place."""
    for lane in [lane for lane in lanes.low if lane[0] in queues]:
        del lanes.low[lane]


def note_claims(lanes: Lanes, claimed: Iterable[ClaimedJob]) -> None:
    """Set the marks of the lanes from which these jobs were claimed; those of one lane are in its order."""
    for job in claimed:
        lanes.low[job.queue, job.rank] = job.ready_at
