"""One cycle of a node on MySQL or MariaDB: what it does within its transaction, in this order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from taskqueue.drivers import tables
from taskqueue.drivers.lanes import Lane, in_turn, note_claims
from taskqueue.drivers.mysql_errors import is_known_id
from taskqueue.drivers.mysql_texts import Texts, read_head
from taskqueue.drivers.values import ClaimedJob, Completion, Ending, Lanes, Stale
from taskqueue.drivers.verbs import releasing
from taskqueue.drivers.verbs.tally import Tally
from taskqueue.states import Verb

MOST_MARKED = 16
"""How many lanes keep their mark when nothing is left in them: each of those is asked by a statement of its own."""

_LEFT = {Verb.FAIL: tables.FAILED, Verb.CANCEL: tables.CANCELLED}


class NotHeld(Exception):
    """A batch of completions holds a stale one: the transaction is to be undone and each looked at."""


class Place(NamedTuple):
    """Which node a cycle is for, and when it claims."""

    node_id: int
    now: int
    packet: int
    """How many bytes a statement may have."""


class CycleWork:
    """The parts of a cycle, each to be called once, in the order in which they stand here."""

    def __init__(self, connection: Connection, cursor: Any, texts: Texts, place: Place) -> None:
        self._connection = connection
        self._cursor = cursor
        self._texts = texts
        self._place = place
        self._tally = Tally(place.node_id)
        self._walked: list[tuple[Lane, list[ClaimedJob], bool]] = []
        self.stale: list[Stale] = []

    def complete(self, completions: Sequence[Completion]) -> None:
        """Move completed jobs into history and let their children go; raise `NotHeld` where one is stale."""
        if not completions:
            return
        done = sorted(completions)
        self._cursor.execute(self._texts.keeping)
        keeping = {queue for (queue,) in self._cursor.fetchall()}
        for keeping_payload in (False, True):
            part = [each for each in done if (each.queue in keeping) is keeping_payload] if keeping else done
            if part and (keeping or not keeping_payload):
                self._move(part, keeping_payload=keeping_payload)
        self._release(done)
        self._tally.complete(completions)

    def _move(self, done: Sequence[Completion], *, keeping_payload: bool) -> None:
        copied = 0
        try:
            for text in self._texts.complete(done, self._place.packet, keeping_payload=keeping_payload):
                copied += self._cursor.execute(text)
        except Exception as error:
            if is_known_id(error):  # Listed twice.
                raise NotHeld from error
            raise
        if copied != len(done):
            raise NotHeld
        self._cursor.execute(self._texts.remove([each.id for each in done]))

    def _release(self, done: Sequence[Completion]) -> None:
        # The rows are gone, so whoever was adding a child to one has committed: its edge is seen here.
        if not self._cursor.execute(self._texts.edge_between(done[0].id, done[-1].id)):
            return
        self._cursor.execute(self._texts.with_edges([each.id for each in done]))
        parents = {row[0]: tables.COMPLETED for row in self._cursor.fetchall()}
        releasing.release(self._connection, parents, self._place.now, self._tally)

    def end(self, endings: Sequence[Ending]) -> None:
        """Write every other end, and tell the children of those that failed or were cancelled."""
        leaving = {each.id for each in endings if each.verb in _LEFT}
        parents = releasing.parents_among(self._connection, leaving) if leaving else set()
        ended: dict[bytes, int] = {}
        for ending in endings:
            if not self._texts.finisher.end(self._cursor, ending, self._place.now, self._tally):
                self.stale.append(Stale(ending.id, ending.lease))
            elif ending.id in parents and ending.verb in _LEFT:
                ended[ending.id] = _LEFT[ending.verb]
        releasing.release(self._connection, ended, self._place.now, self._tally)

    def claim(self, lanes: Lanes, limit: int) -> list[ClaimedJob]:
        """Claim from the lanes in their order until there are enough."""
        claimed: list[ClaimedJob] = []
        for lane in walk(self._cursor, self._texts, lanes):
            wanted = limit - len(claimed)
            self._cursor.execute(self._texts.head(lane, lanes.low.get(lane, 0), wanted))
            found = read_head(lane, self._cursor.fetchall())
            if found:
                self._cursor.execute(self._texts.claim(found, self._place.node_id, self._place.now))
                claimed += found
            self._walked.append((lane, found, len(found) < wanted))
            if len(claimed) >= limit:
                break
        return claimed

    def count(self) -> None:
        """Write counters and rollups."""
        self._texts.finisher.count(self._cursor, self._tally)

    def note_marks(self, lanes: Lanes) -> None:
        """Remember how far was read, once it is committed: what a lost transaction had read is to be read again."""
        for lane, claimed, short in self._walked:
            if short and (not lanes.dear or len(lanes.low) >= MOST_MARKED):
                lanes.low.pop(lane, None)
            else:
                note_claims(lanes, claimed)
        lanes.turn += any(claimed for _, claimed, _ in self._walked)


def walk(cursor: Any, texts: Texts, lanes: Lanes) -> list[Lane]:
    """Return the lanes that have work, in the order in which they are to be served."""
    cursor.execute(texts.lanes(lanes))
    found: list[Lane] = list(cursor.fetchall())
    if lanes.queues is None:
        return in_turn(found, lanes.turn)
    order = {queue: place for place, queue in enumerate(lanes.queues)}
    return sorted(found, key=lambda lane: (order[lane[0]], lane[1]))
