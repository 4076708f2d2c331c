"""Claims of certain jobs, past others that wait before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

from taskqueue.drivers.statements import claiming
from taskqueue.drivers.values import ClaimedJob

LOOK_AHEAD: Final = 200
"""How many jobs of a lane are looked at: their rows have to be read for it, 0.3 ms for a thousand in a file."""
FEW: Final = 20
"""Lanes up to which each is looked at without asking first whether there is such a job at all."""
COUNTED: Final = 2_000
"""Pending jobs up to which one statement shows that there is none: 0.3 ms in a file and 0.8 on a server, where a look
at each of a thousand lanes costs 26 ms in a file."""


def find_own(connection: Connection, queues: Sequence[str] | None, limit: int) -> list[bytes]:
    """Return pending jobs that are to have a worker of their own, the most urgent lane first."""
    lanes = connection.execute(claiming.LANES_WITH_WORK).all()
    if len(lanes) > FEW:
        pending, own = connection.execute(claiming.OWN_AT_ALL, {"limit": COUNTED}).one()
        if not own and pending < COUNTED:
            return []
    found: list[bytes] = []
    for queue, rank in lanes:
        if (queues is None or queue in queues) and len(found) < limit:
            lane = {"queue": queue, "rank": rank, "low": 0, "limit": LOOK_AHEAD}
            found += connection.execute(claiming.OWN_AHEAD, lane).scalars()
    return found[:limit]


def claim(connection: Connection, node_id: int, ids: Sequence[bytes], now: int) -> list[ClaimedJob]:
    """Claim jobs that were found, and return those that nobody else has claimed meanwhile."""
    values = [{"job": each, "node": node_id, "now": now} for each in sorted(ids)]
    claimed = [each["job"] for each in values if connection.execute(claiming.CLAIM_ONE, each).rowcount == 1]
    rows = connection.execute(claiming.CLAIMED, {"ids": claimed}) if claimed else ()
    return [ClaimedJob._make(row) for row in rows]
