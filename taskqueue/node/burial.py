"""A worker has died: its jobs are sorted, judged and entered into the ledger."""

from __future__ import annotations

from taskqueue.clock import Clock
from taskqueue.drivers.values import ClaimedJob
from taskqueue.node import settlement
from taskqueue.node.crew import CrewMember
from taskqueue.node.feeding import Feeder
from taskqueue.node.ledger import Ledger
from taskqueue.node.slots import Slots
from taskqueue.node.tally import Tally
from taskqueue.payload import Codec, Purpose


class Undertaker:
    """Sees to the jobs that dead workers leave behind. `settlement` decides, this carries it out."""

    def __init__(self, feeder: Feeder, ledger: Ledger, slots: Slots, codec: Codec, clock: Clock, tally: Tally) -> None:
        self._feeder = feeder
        self._ledger = ledger
        self._slots = slots
        self._codec = codec
        self._clock = clock
        self._tally = tally

    def settle(self, member: CrewMember) -> None:
        """Decide about each job that a dead worker held."""
        obituary = member.obituary or settlement.Obituary(settlement.Death.WITH_TEMPLATE)
        unread = frozenset(() if member.leaving else member.tickets.take_back())
        fates = settlement.sort_out(member.held, unread, self._slots.glance(member.index))
        member.held = {}
        now_us = self._clock.now_us()
        self._feeder.put_back(fates.unstarted.values())
        for claimed in fates.finished:
            self._ledger.end(settlement.of_finished(claimed, now_us))
        for token, claimed in fates.running.items():
            death = obituary.death_of(token, len(fates.running))
            self._settle_running(claimed, death, obituary, now_us)

    def _settle_running(
        self, claimed: ClaimedJob, death: settlement.Death, obituary: settlement.Obituary, now_us: int
    ) -> None:
        end = settlement.of_running(claimed, death, now_us, self._clock.jitter())
        if end.error_type is not None:
            details = {"type": end.error_type, "message": obituary.describe(), "traceback": ""}
            sealed = self._codec.seal(details, Purpose.ERROR, claimed.id, claimed.job_class)
            end = end._replace(error=sealed, key_id=self._codec.active_key_id)
            self._tally.died(claimed, end, obituary)
        self._ledger.end(end)
